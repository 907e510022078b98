"""Signing keys: one kind, one identity per key, no secrets where they could be read."""

import base64
import hashlib
import os
import pickle
import stat
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from rasura.patches.errors import (
    DigestMismatchError,
    ExistsError,
    FormatError,
    HostWriteError,
    InputError,
    NotFoundError,
    RasuraError,
)
from rasura.patches.format.signatures.signing_key import PrivateKey, PublicKey, read_private, write_private
from rasura.patches.types import KeyId

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
PLAIN = serialization.NoEncryption()


def public_pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(PEM, SPKI)


def private_pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(PEM, PKCS8, PLAIN)


def pem_of(der: bytes) -> str:
    return f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----\n"


DER = PrivateKey.generate().public.cryptography_key().public_bytes(serialization.Encoding.DER, SPKI)

OTHER_KINDS: dict[str, Callable[[], ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey]] = {
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "brainpool": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "RSA-2048": lambda: rsa.generate_private_key(65537, 2048),
}


def test_a_keys_identity_is_the_digest_of_its_der() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = PublicKey.load(public_pem(key))
    der = key.public_key().public_bytes(serialization.Encoding.DER, SPKI)
    assert public.key_id == hashlib.sha256(der).hexdigest()
    assert public.hint == hashlib.sha256(public_pem(key)).hexdigest()
    assert public.pem.encode() == public_pem(key)
    assert PublicKey(public.key_id, public.pem) == public
    assert PrivateKey.load(private_pem(key)).public == public


def test_one_key_has_one_identity_in_every_spelling() -> None:
    key = PrivateKey.generate().public
    point = key.cryptography_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    compressed = pem_of(bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point)
    assert compressed != key.pem
    for spelling in (key.pem, key.pem.encode(), key.pem.replace("\n", "\r\n"), f"Alice's\n{key.pem}\n", compressed):
        assert PublicKey.load(spelling) == key


def test_an_identity_that_belongs_to_another_key_is_refused() -> None:
    one, other = PrivateKey.generate().public, PrivateKey.generate().public
    with pytest.raises(DigestMismatchError, match="expected the identity"):
        PublicKey(other.key_id, one.pem)
    with pytest.raises(FormatError, match="another spelling"):
        PublicKey(one.key_id, one.pem + "\n")
    with pytest.raises(FormatError):
        PublicKey(KeyId(""), "")


NO_PUBLIC_KEY: dict[str, bytes | str] = {
    "nothing": b"",
    "no PEM": b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI",
    "private key": PrivateKey.generate().pem(),
    "two keys": PrivateKey.generate().public.pem + PrivateKey.generate().public.pem,
    "DER": DER,
    "damaged": PrivateKey.generate().public.pem.replace("MFkw", "MFkx"),
    "point off the curve": pem_of(DER[:-1] + bytes([DER[-1] ^ 1])),
    "point at infinity": pem_of(bytes.fromhex("3019301306072a8648ce3d020106082a8648ce3d030107030200") + b"\0"),
    "certificate": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    "lone surrogate": "-----BEGIN PUBLIC KEY-----\n\ud800\n-----END PUBLIC KEY-----\n",
    "too long": b"-" * 20_000,
}


@pytest.mark.parametrize("name", NO_PUBLIC_KEY)
def test_what_is_no_public_key_is_refused(name: str) -> None:
    with pytest.raises(FormatError, match=r"^public key: expected .+, got "):
        PublicKey.load(NO_PUBLIC_KEY[name])


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_keys_of_other_kinds_are_refused(name: str) -> None:
    key = OTHER_KINDS[name]()
    with pytest.raises(FormatError, match=r"^public key: expected an ECDSA key on P-256"):
        PublicKey.load(public_pem(key))
    with pytest.raises(FormatError, match=r"^private key: expected an ECDSA key on P-256"):
        PrivateKey.load(private_pem(key))


def test_private_keys_survive_writing_plain_and_encrypted() -> None:
    key = PrivateKey.generate()
    assert key.pem().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert PrivateKey.load(key.pem()).pem() == key.pem()
    locked = key.pem(b"correct horse")
    assert locked.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert PrivateKey.load(locked, b"correct horse").pem() == key.pem()


def test_openssls_older_private_keys_are_read() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    older = key.private_bytes(PEM, serialization.PrivateFormat.TraditionalOpenSSL, PLAIN)
    assert older.startswith(b"-----BEGIN EC PRIVATE KEY-----\n")
    assert PrivateKey.load(older).pem() == private_pem(key)


@pytest.mark.parametrize("pem", [b"", b"garbage", b"-" * 20_000, PrivateKey.generate().public.pem.encode()])
def test_what_is_no_private_key_is_refused(pem: bytes) -> None:
    with pytest.raises(FormatError, match=r"^private key: expected .+, got "):
        PrivateKey.load(pem)


SECRET = b"tr0ub4dor-and-3"


def whole_story(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.__context__)


@pytest.mark.parametrize(("password", "given"), [(b"right", SECRET), (b"right", None), (None, SECRET)])
def test_passwords_that_do_not_fit_are_refused_without_a_trace(password: bytes | None, given: bytes | None) -> None:
    with pytest.raises(InputError, match=r"^private key: expected .*password") as caught:
        PrivateKey.load(PrivateKey.generate().pem(password), given)
    assert caught.value.__suppress_context__
    assert SECRET.decode() not in whole_story(caught.value)


def test_no_secret_in_repr_nor_pickle() -> None:
    key = PrivateKey.generate()
    secret = key._key.private_numbers().private_value
    for text in (repr(key), str(key), f"{key}", repr([key]), repr({"key": key})):
        assert key.public.key_id in text
        assert str(secret) not in text
        assert f"{secret:x}" not in text
        assert "PRIVATE" not in text.upper().replace("PRIVATEKEY(PUBLIC=", "")
        assert "_key=" not in text
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_key_files_are_for_their_owner_only(tmp_path: Path) -> None:
    key, path = PrivateKey.generate(), tmp_path / "key.pem"
    before = os.umask(0)
    try:
        write_private(path, key)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_private(path).public == key.public


def test_encrypted_key_files(tmp_path: Path) -> None:
    key, path = PrivateKey.generate(), tmp_path / "key.pem"
    write_private(path, key, b"pass")
    assert read_private(path, b"pass").public == key.public
    with pytest.raises(InputError, match="password"):
        read_private(path)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o660, 0o610, 0o601])
def test_key_files_that_others_may_touch_are_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key.pem"
    write_private(path, PrivateKey.generate())
    path.chmod(mode)
    with pytest.raises(InputError, match=f"only its owner can read .+ got {mode:04o}") as caught:
        read_private(path)
    assert caught.value.hint == f"chmod 600 {path}"


def test_existing_files_are_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for taken in (path, tmp_path / "link", tmp_path):
        with pytest.raises(ExistsError, match="expected no file at"):
            write_private(taken, PrivateKey.generate())
    assert path.read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_key_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(HostWriteError, match="No such file or directory"):
        write_private(tmp_path / "none" / "key.pem", PrivateKey.generate())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("password", [b"", b"x" * 1024])
def test_passwords_that_protect_nothing_are_refused(tmp_path: Path, password: bytes) -> None:
    with pytest.raises(InputError, match="expected a password of 1 to 1023 bytes"):
        write_private(tmp_path / "key.pem", PrivateKey.generate(), password)
    assert list(tmp_path.iterdir()) == []
    longest = b"y" * 1023
    key = PrivateKey.generate()
    assert PrivateKey.load(key.pem(longest), longest).public == key.public


def test_links_and_folders_are_no_key_files(tmp_path: Path) -> None:
    write_private(tmp_path / "key.pem", PrivateKey.generate())
    (tmp_path / "link").symlink_to(tmp_path / "key.pem")
    for path in (tmp_path / "link", tmp_path):
        with pytest.raises(FormatError, match="expected a regular file"):
            read_private(path)
    with pytest.raises(NotFoundError):
        read_private(tmp_path / "none")


def test_every_refusal_is_ours(tmp_path: Path) -> None:
    """Any damage to a key file ends in an error of our tree."""
    pem = PrivateKey.generate().pem()
    for index in range(len(pem)):
        damaged = pem[:index] + bytes([pem[index] ^ 4]) + pem[index + 1 :]
        try:
            PrivateKey.load(damaged)
        except RasuraError:
            continue
