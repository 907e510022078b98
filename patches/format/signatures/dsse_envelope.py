"""DSSE: what is signed is a payload and its type together; and signed statements as files of their own.

    {"payload":"<base64>","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"<id>","sig":"<base64>"}]}

The signature is ECDSA P-256 over the pre-authentication encoding of an in-toto payload
(PAE, https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md). A key's identity in the file is a hint; what
counts is whether one of the reader's keys made the signature. A document that several people sign has its own type, and
a signature of each, sorted by key (`join_signature`, `read_joined`).
"""

from collections.abc import Iterable, Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.dsse import Envelope

from rasura.patches._io import canonical_json
from rasura.patches._io.canonical_json import Fields
from rasura.patches._io.strict_base64 import decode_base64, encode_base64
from rasura.patches.errors import FormatError, SignatureError, UntrustedKeyError
from rasura.patches.format.signatures.signing_key import PublicKey, SigningKey
from rasura.patches.types import KeyId

__all__ = [
    "MAX_ENVELOPE_BYTES",
    "PAYLOAD_TYPE",
    "check_signature",
    "encode_joined",
    "encode_pae",
    "join_signature",
    "open_envelope",
    "read_bytes",
    "read_joined",
    "sign_envelope",
]

MAX_ENVELOPE_BYTES: Final = 64 * 1024**2
"""Longest envelope read. A statement over a model with a thousand patched parameters has 0.3 MB."""

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_WHAT: Final = "attestation"
_MAX_SIGNATURES: Final = 64


def sign_envelope(payload: bytes, key: SigningKey) -> bytes:
    """The envelope's bytes, RFC 8785 JSON; ECDSA is deterministic here (RFC 6979)."""
    signature = key.sign(encode_pae(payload))
    return canonical_json.dumps(
        {
            "payload": encode_base64(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": key.public.key_id, "sig": encode_base64(signature)}],
        }
    )


def open_envelope(data: bytes, keys: Iterable[PublicKey]) -> tuple[bytes, PublicKey]:
    """The payload, and whose signature it carries.

    Args:
        data: the envelope.
        keys: those whose signatures count.

    Raises:
        UntrustedKeyError: signed by none of them.
        SignatureError: no envelope, or a signature that does not verify.
    """
    try:
        payload, key_id, signature = _read(data)
    except FormatError as error:
        raise SignatureError(error.message) from error
    key = next((key for key in keys if key.key_id == key_id), None)
    if key is None:
        raise UntrustedKeyError(f"{_WHAT}: expected a known key, got one by {key_id}", key_id=key_id)
    check_signature(key, payload, signature, _WHAT)
    return payload, key


def join_signature(payload: bytes, kind: str, key: SigningKey) -> bytes:
    """The signature of one of several people over a payload of this type."""
    return key.sign(encode_pae(payload, kind))


def encode_joined(payload: bytes, kind: str, signatures: Mapping[KeyId, bytes]) -> bytes:
    """The envelope of a payload that several people signed, RFC 8785 JSON."""
    return canonical_json.dumps(
        {
            "payload": encode_base64(payload),
            "payloadType": kind,
            "signatures": [{"keyid": k, "sig": encode_base64(sig)} for k, sig in sorted(signatures.items())],
        }
    )


def read_joined(data: bytes, kind: str, what: str, *, limit: int) -> tuple[bytes, dict[KeyId, bytes]]:
    """The payload of such an envelope, and its signatures by the keys that they name; none of them is verified here.

    Raises:
        FormatError: no envelope of this type in its one spelling, or two signatures by one key.
    """
    top = Fields.of(canonical_json.loads(data, what=what, limit=limit), what)
    top.choice("payloadType", (kind,))
    payload = read_bytes(top, "payload", what, limit=limit)
    found: dict[KeyId, bytes] = {}
    for record in top.records("signatures", limit=_MAX_SIGNATURES):
        found[KeyId(record.digest("keyid"))] = read_bytes(record, "sig", what)
        record.done()
    top.done()
    if encode_joined(payload, kind, found) != data:
        raise FormatError(f"{what}: expected signatures once, sorted by key, got others")
    return payload, found


def encode_pae(payload: bytes, kind: str = PAYLOAD_TYPE) -> bytes:
    """What is signed: the payload bound to its type."""
    return Envelope(payload, kind, {}).pae()


def check_signature(key: PublicKey, payload: bytes, signature: bytes, what: str, kind: str = PAYLOAD_TYPE) -> None:
    """Refuse a signature that is not the key's over this payload; `what` is the document, for the message.

    Raises:
        SignatureError: naming the key.
    """
    try:
        key.cryptography_key().verify(signature, encode_pae(payload, kind), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise SignatureError(
            f"{what}: expected a signature by key {key.key_id}, got one that does not verify", key_id=key.key_id
        ) from None


def read_bytes(fields: Fields, name: str, what: str, limit: int = MAX_ENVELOPE_BYTES) -> bytes:
    """A field in base64, in its one spelling.

    Raises:
        FormatError: it is none.
    """
    data = decode_base64(fields.text(name, limit=limit))
    if data is None:
        raise FormatError(f"{what}: {name}: expected base64 (RFC 4648 §4), got something else")
    return data


def _read(data: bytes) -> tuple[bytes, str, bytes]:
    top = Fields.of(canonical_json.parse(data, what=_WHAT, limit=MAX_ENVELOPE_BYTES), _WHAT)
    top.choice("payloadType", (PAYLOAD_TYPE,))
    payload = read_bytes(top, "payload", _WHAT)
    signatures = list(top.records("signatures", limit=1))
    top.done()
    if len(signatures) != 1:
        raise FormatError(f"{_WHAT}: expected one signature, got none")
    key_id, signature = signatures[0].digest("keyid"), read_bytes(signatures[0], "sig", _WHAT)
    signatures[0].done()
    return payload, key_id, signature
