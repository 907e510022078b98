# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Keys that stay where they are: on a PKCS#11 token (SoftHSM), or wherever securesystemslib finds them by a URI."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.commandline import rasura
from support.registries.workshop import ALICE, Workshop, workshop

from rasura.patches.errors import ExistsError, FormatError, InputError, SignatureError
from rasura.patches.format.signatures.signing_key import PrivateKey, write_private
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.log.verify import verify_log
from rasura.registry.trust.keys import revocation
from rasura.registry.trust.keys.key_files import act_by, add_remote_key, signer
from rasura.registry.trust.sign_again import sign_patches
from rasura.registry.trust.verified_patch import load_signed

ADD = Draft("bob", "", "key.add", "success")
MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
PIN = "3141592653"


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Label of a token with a key on P-256 (2) and one on P-384 (3)."""
    pkcs11: Any = pytest.importorskip("pkcs11", reason="needs python-pkcs11: pip install 'rasura[signers]'")
    module = next((path for path in MODULES if Path(path).exists()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        pytest.skip("needs SoftHSM: apt-get install softhsm2")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        patch.setenv("PYKCS11LIB", module)
        patch.setenv("RASURA_KEY_PASSWORD", PIN)
        init = ("softhsm2-util", "--init-token", "--free", "--label", "office", "--so-pin", "2718281828", "--pin", PIN)
        subprocess.run(init, check=True, capture_output=True)
        with pkcs11.lib(module).get_token(token_label="office").open(user_pin=PIN, rw=True) as session:
            for at, curve in ((2, "secp256r1"), (3, "secp384r1")):
                named = {pkcs11.Attribute.EC_PARAMS: pkcs11.util.ec.encode_named_curve_parameters(curve)}
                parameters = session.create_domain_parameters(pkcs11.KeyType.EC, named, local=True)
                parameters.generate_keypair(store=True, id=bytes([at]), label=curve)
        yield "office"


def test_a_key_on_a_token_signs_patches_entries_and_nothing_without_its_pin(
    workshop: Workshop, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"hsm:2?label={token}"
    added = rasura("key", "add", "bob", "--signer", uri, "--json", cwd=workshop.folder)
    assert added.code == 0, added.err
    assert f"at {uri}" in rasura("key", "list", cwd=workshop.folder).out
    with workshop.open() as registry:
        keys = registry.keys_folder
        assert sorted(path.name for path in keys.glob("bob*")) == ["bob.signer.uri"]
        assert (keys / "bob.signer.uri").stat().st_mode & 0o777 == 0o600
        revocation.revoke(registry, "alice", replace(ADD, action="key.revoke"))
    bob = ("--key", "bob", "--actor-key", "bob")
    for changed in (True, False):  # ECDSA of a token is another each time; a key signs a patch once
        signed = rasura("patch", "sign", workshop.dog, *bob, "--json", cwd=workshop.folder)
        assert (signed.code, signed.envelope["changed"]) == (0, changed), signed.err
    moved = rasura("patch", "apply", workshop.dog, "--model", "the model", "--actor-key", "bob", cwd=workshop.folder)
    assert moved.code == 0, moved.err
    with workshop.open() as registry:
        assert load_signed(registry, workshop.dog).key_id == added.data["key_id"]
        assert registry.entries(limit=1)[0].actor_key == added.data["key_id"]
        assert verify_log(registry).signed == 3
    for pin, said in (("1", "PinIncorrect"), (None, "PIN or password")):
        if pin is None:
            monkeypatch.delenv("RASURA_KEY_PASSWORD")
        else:
            monkeypatch.setenv("RASURA_KEY_PASSWORD", pin)
        refused = rasura("patch", "sign", workshop.photo, "--key", "bob", cwd=workshop.folder)
        assert (refused.code, said in refused.err, PIN in refused.err) == (1, True, False), refused.err


def test_what_a_token_has_not_or_of_another_kind_is_refused_by_name(workshop: Workshop, token: str) -> None:
    with workshop.open() as registry:
        registry.ask_password = lambda _: PIN.encode()
        with pytest.raises(FormatError, match="expected an ECDSA key on P-256"):
            add_remote_key(registry, "bob", f"hsm:3?label={token}", None, ADD)
        for uri in (f"hsm:9?label={token}", "hsm:2?label=nobody", f"hsm:x?label={token}"):
            with pytest.raises(InputError, match=r"expected a key on P-256 and its signature \(ECDSA\), got"):
                add_remote_key(registry, "bob", uri, None, ADD)
        add_remote_key(registry, "bob", f"hsm:2?label={token}", None, ADD)
        with pytest.raises(ExistsError):
            add_remote_key(registry, "carol", f"hsm:2?label={token}", None, ADD)
        (registry.keys_folder / "bob.signer.uri").write_text(f"hsm:3?label={token}\n")  # by hand
        with pytest.raises(SignatureError, match="got another's"):
            signer(registry, "bob").sign(b"")


def test_any_uri_of_the_library_is_a_key_and_what_comes_back_is_verified(workshop: Workshop, tmp_path: Path) -> None:
    carol, dave = PrivateKey.generate(), PrivateKey.generate()
    for name, key in (("carol", carol), ("dave", dave)):
        write_private(tmp_path / f"{name}.pem", key)
        (tmp_path / f"{name}.pub").write_text(key.public.pem)
    edwards = Ed25519PrivateKey.generate().public_key()
    (tmp_path / "ed.pub").write_bytes(edwards.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with workshop.open() as registry:
        uri = f"file2:{tmp_path}/carol.pem"
        with pytest.raises(InputError, match="expected the public half") as no:
            add_remote_key(registry, "carol", uri, None, ADD)
        assert no.value.hint == "--public FILE"
        with pytest.raises(FormatError, match="expected an ECDSA key on P-256"):
            add_remote_key(registry, "carol", uri, tmp_path / "ed.pub", ADD)
        for odd in ("carol.pem", "ftp:x", "hsm:\n", "hsm:" + "x" * 3000):
            with pytest.raises(InputError, match="expected a signer URI that begins with hsm"):
                add_remote_key(registry, "carol", odd, tmp_path / "carol.pub", ADD)
        with workshop.unchanged():
            add_remote_key(registry, "carol", uri, tmp_path / "carol.pub", ADD, dry_run=True)
        add_remote_key(registry, "carol", uri, tmp_path / "carol.pub", ADD)
        act_by(registry, "carol")
        sign_patches(registry, [workshop.dog], "carol", replace(ADD, action="patch.sign"))
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
        assert verify_log(registry).signed == 3
        # The file under the URI is another's: nothing that it signed gets out.
        shutil.copy(tmp_path / "dave.pem", tmp_path / "carol.pem")
        size = registry.head().size
        with pytest.raises(InputError, match="'carol' at file2:"):
            operations.revert(registry, workshop.host(), None, ALICE)
        assert registry.head().size == size
