"""A signed statement as a file of its own: a DSSE envelope with one ECDSA P-256 signature over an in-toto payload.

    {"payload":"<base64>","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"<id>","sig":"<base64>"}]}

The signature covers the payload and its type (PAE, https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md).
A key's identity in it is a hint; what counts is whether one of the reader's keys made the signature.
"""

import base64
import binascii
from collections.abc import Iterable
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.canonical_json import Fields
from rasura.patches.errors import FormatError, SignatureError, UntrustedKeyError
from rasura.patches.format.signing_key import PrivateKey, PublicKey

__all__ = ["MAX_ENVELOPE_BYTES", "open_envelope", "sign_envelope"]

MAX_ENVELOPE_BYTES: Final = 64 * 1024**2
"""Longest envelope read. A statement over a model with a thousand patched parameters has 0.3 MB."""

_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_WHAT: Final = "attestation"


def sign_envelope(payload: bytes, key: PrivateKey) -> bytes:
    """The envelope's bytes, RFC 8785 JSON; ECDSA is deterministic here (RFC 6979)."""
    signature = key.sign(_encode_pae(payload))
    return canonical_json.dumps(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"keyid": key.public.key_id, "sig": base64.b64encode(signature).decode()}],
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
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        payload, key_id, signature = _read(data)
    except FormatError as error:
        raise SignatureError(error.message) from error
    key = next((key for key in keys if key.key_id == key_id), None)
    if key is None:
        raise UntrustedKeyError(f"{_WHAT}: expected a known key, got one by {key_id}", key_id=key_id)
    try:
        key.cryptography_key().verify(signature, _encode_pae(payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise SignatureError(
            f"{_WHAT}: expected a signature by key {key_id}, got one that does not verify", key_id=key_id
        ) from None
    return payload, key


def _encode_pae(payload: bytes) -> bytes:
    from securesystemslib.dsse import Envelope

    return Envelope(payload, _PAYLOAD_TYPE, {}).pae()


def _read(data: bytes) -> tuple[bytes, str, bytes]:
    top = Fields.of(canonical_json.parse(data, what=_WHAT, limit=MAX_ENVELOPE_BYTES), _WHAT)
    top.choice("payloadType", (_PAYLOAD_TYPE,))
    payload = _decode(top, "payload")
    signatures = list(top.records("signatures", limit=1))
    top.done()
    if len(signatures) != 1:
        raise FormatError(f"{_WHAT}: expected one signature, got none")
    key_id, signature = signatures[0].digest("keyid"), _decode(signatures[0], "sig")
    signatures[0].done()
    return payload, key_id, signature


def _decode(fields: Fields, name: str) -> bytes:
    """Standard base64 in its one spelling."""
    text = fields.text(name, limit=MAX_ENVELOPE_BYTES)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if base64.b64encode(data).decode() != text:
        raise FormatError(f"{_WHAT}: {name}: expected base64 (RFC 4648 §4), got something else")
    return data
