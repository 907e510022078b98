"""OpenSSF's own signed models: their statements are read as we read ours, and what we do not take is refused by name.

The two bundles of `tests/vectors/oms` are those that sigstore/model-transparency keeps for its own later versions
(scripts/tests, Apache-2.0). They are signed with P-384, which a patch never is, so the signature is verified here with
`cryptography` over our encoding of what is signed.
"""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import FormatError, SignatureError, UntrustedKeyError
from rasura.patches.format.signatures.dsse_envelope import encode_pae
from rasura.patches.format.signatures.intoto_statement import payload, read_payload
from rasura.patches.format.signatures.model_signature import PublicKey, check_files, read_statement
from rasura.patches.types import KeyId

FOLDER = Path(__file__).parents[3] / "vectors" / "oms"
FILES = {"signme-1": b"signme-1\n", "signme-2": b"signme-2"}
ROOT = "92745110b1ab4368471cbe31664e10174e954b113a3df333db860317b2c6dec4"
OWNER = KeyId("00" * 32)


def bundle(version: str) -> Any:
    return json.loads((FOLDER / f"{version}.sig").read_bytes())


def signed(version: str) -> bytes:
    return base64.b64decode(bundle(version)["dsseEnvelope"]["payload"])


def pem() -> bytes:
    """The older bundle carries the key of both."""
    return base64.b64decode(bundle("v1.0.1")["verificationMaterial"]["publicKey"]["rawBytes"])


@pytest.mark.parametrize("version", ["v1.0.1", "v1.1.0"])
def test_what_is_signed_is_encoded_as_upstream_does(version: str) -> None:
    key = load_pem_public_key(pem())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    envelope = bundle(version)["dsseEnvelope"]
    signature, kind = base64.b64decode(envelope["signatures"][0]["sig"]), envelope["payloadType"]
    key.verify(signature, encode_pae(signed(version), kind), ec.ECDSA(hashes.SHA384()))
    with pytest.raises(InvalidSignature):
        key.verify(signature, encode_pae(signed(version) + b" ", kind), ec.ECDSA(hashes.SHA384()))


def test_a_key_is_hinted_at_as_upstream_does() -> None:
    assert digest_of(pem()) == bundle("v1.1.0")["verificationMaterial"]["publicKey"]["hint"]


def test_its_statement_reads_as_ours_and_names_the_root_that_we_compute() -> None:
    statement = read_payload(signed("v1.0.1"), OWNER)
    assert statement.root == ROOT
    check_files(statement, FILES)
    ours = json.loads(payload(FILES, "v1.0.1-elliptic-key"))
    theirs = json.loads(signed("v1.0.1"))
    assert ours["subject"] == theirs["subject"]
    assert ours["predicate"]["resources"] == theirs["predicate"]["resources"]
    with pytest.raises(FormatError, match="expected the root digest"):
        read_payload(signed("v1.0.1").replace(b"9274511", b"9274512"), OWNER)


def test_a_signer_who_leaves_files_out_is_refused() -> None:
    with pytest.raises(FormatError, match=r"ignore_paths: expected only .*, got 'ignore-me'"):
        read_payload(signed("v1.1.0"), OWNER)
    assert read_payload(signed("v1.1.0").replace(b'        "ignore-me",\n', b""), OWNER).root == ROOT


def test_what_no_patch_is_signed_with_is_refused() -> None:
    with pytest.raises(FormatError, match="P-256"):
        PublicKey.load(pem())
    with pytest.raises(SignatureError, match="expected the field 'hint', got none"):
        read_statement((FOLDER / "v1.0.1.sig").read_bytes(), ())
    with pytest.raises(UntrustedKeyError, match=digest_of(pem())):
        read_statement((FOLDER / "v1.1.0.sig").read_bytes(), ())
