"""`model.sig`: who vouches for the files of a patch, in the OpenSSF Model Signing format v1.0, method "key".

    bundle     JSON    which key (a hint), and the envelope
    envelope   DSSE    base64 of the payload, its type, exactly one ECDSA P-256 signature over both (PAE)
    payload    in-toto the name and SHA-256 of every file, and their root: SHA-256 over the digests in order of names

`read_statement` believes nothing before the signature stands, and reads the very bytes that were signed:

    (1) the bundle is well formed, with one signature and a key hint
    (2) the hint names one of the caller's keys
    (3) the signature verifies over the payload and its type
    (4) the payload is a v1.0 model signature over plain files, and its root digest is theirs

The caller still owes: (5) whether that key may sign this (roles, revocation); (6) `check_files` on the bytes it loads.

Identity is the root digest. Anybody can rewrite an ECDSA signature without the key ((r, s) → (r, n - s)), so neither a
signature nor a bundle identifies anything.

Formats: https://github.com/ossf/model-signing-spec/blob/main/spec/v1.0.md,
https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from securesystemslib.dsse import Envelope
from securesystemslib.signer import Signature  # type: ignore[attr-defined]  # its documented home

from rasura.patches._io import canonical_json
from rasura.patches._io.canonical_json import Fields
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import DigestMismatchError, FormatError, SignatureError, UntrustedKeyError
from rasura.patches.format.file_names import SIGNATURE
from rasura.patches.format.signatures import intoto_statement
from rasura.patches.format.signatures.dsse_envelope import PAYLOAD_TYPE, check_signature, read_bytes
from rasura.patches.format.signatures.intoto_statement import Statement
from rasura.patches.format.signatures.signing_key import PrivateKey, PublicKey, SigningKey, read_private, write_private
from rasura.patches.types import KeyId

__all__ = [
    "PrivateKey",
    "PublicKey",
    "Statement",
    "check_files",
    "read_private",
    "read_statement",
    "sign",
    "verify",
    "write_private",
]

MAX_BUNDLE_BYTES: Final = 1024 * 1024
"""Longest bundle read. One over three files has 2 KB."""

_BUNDLE_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"


def sign(files: Mapping[str, bytes], *, name: str, key: SigningKey) -> bytes:
    """The bytes of `model.sig` over these files; the same for the same files, name and key.

    Args:
        files: content by name; all that will lie in the folder but for the signature itself.
        name: what the folder is called; informational.
        key: who signs.

    Raises:
        FormatError: no files, or a file's name that verifiers refuse.
    """
    envelope = Envelope(intoto_statement.payload(files, name), PAYLOAD_TYPE, {})
    envelope.signatures[""] = Signature("", key.sign(envelope.pae()).hex())
    return canonical_json.dumps(
        {
            "mediaType": _BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": key.public.hint}, "tlogEntries": []},
            "dsseEnvelope": envelope.to_dict(),
        }
    )


def read_statement(bundle: bytes, keys: Iterable[PublicKey]) -> Statement:
    """Steps (1) to (4) of the module's docstring.

    Args:
        bundle: the bytes of `model.sig`.
        keys: those whose signatures may count, revoked ones included if the caller wants to name them.

    Raises:
        UntrustedKeyError: the bundle names a key that is not among `keys`; `details["key_hint"]` holds that name.
        SignatureError: anything else that keeps the statement from being believed.
    """
    try:
        hint, payload, signature = _open_bundle(bundle)
    except FormatError as error:
        raise SignatureError(error.message) from error
    key = next((key for key in keys if key.hint == hint), None)
    if key is None:
        raise UntrustedKeyError(f"{SIGNATURE}: expected a known key, got one with the hint {hint}", key_hint=hint)
    check_signature(key, payload, signature, SIGNATURE)
    try:
        return intoto_statement.read_payload(payload, key.key_id)
    except FormatError as error:
        raise SignatureError(error.message, key_id=key.key_id) from error


def read_claim(bundle: bytes) -> Statement:
    """What a bundle says of itself, with nothing verified: to name what was refused, and for nothing else.

    Raises:
        SignatureError: the bundle breaks its format.
    """
    try:
        hint, payload, _ = _open_bundle(bundle)
        return intoto_statement.read_payload(payload, KeyId(hint))
    except FormatError as error:
        raise SignatureError(error.message) from error


def check_files(signed: Statement, files: Mapping[str, bytes]) -> None:
    """Step (6): these bytes are exactly the signed ones, no file more, none less.

    Args:
        signed: of `read_statement`.
        files: content by name, without the signature itself.

    Raises:
        SignatureError: a signed file is missing, or one is there that nobody signed.
        DigestMismatchError: a file's bytes are not the signed ones.
    """
    for name in sorted(set(signed.files) | set(files)):
        if name not in files:
            raise SignatureError(f"{name}: expected the signed file, got none", file=name)
        if name not in signed.files:
            raise SignatureError(f"{name!a}: expected signed files only, got one that nobody signed", file=name)
        got = digest_of(files[name])
        if got != signed.files[name]:
            expected = signed.files[name]
            raise DigestMismatchError(
                f"{name}: expected sha256 {expected}, got {got}", file=name, expected=expected, got=got
            )


def verify(files: Mapping[str, bytes], keys: Iterable[PublicKey]) -> Statement:
    """`read_statement` and `check_files` over all files of a folder, `model.sig` among them.

    Raises:
        SignatureError: unsigned, badly signed, files missing or unsigned files added.
        UntrustedKeyError: signed by a key that is not among `keys`.
        DigestMismatchError: a file was changed.
    """
    if SIGNATURE not in files:
        raise SignatureError(f"expected the signature {SIGNATURE}, got none: the folder is unsigned")
    signed = read_statement(files[SIGNATURE], keys)
    check_files(signed, {name: data for name, data in files.items() if name != SIGNATURE})
    return signed


def _open_bundle(bundle: bytes) -> tuple[str, bytes, bytes]:
    """(1): the key's hint, the payload, the signature; nothing of it verified."""
    top = Fields.of(canonical_json.parse(bundle, what=SIGNATURE, limit=MAX_BUNDLE_BYTES), SIGNATURE)
    top.choice("mediaType", (_BUNDLE_TYPE,))
    material = top.fields("verificationMaterial")
    public = material.fields("publicKey")  # a certificate in its place is another method, which proves less
    hint = public.digest("hint")
    public.done()
    material.items("tlogEntries", limit=0)
    material.done()
    envelope = top.fields("dsseEnvelope")
    top.done()
    payload = read_bytes(envelope, "payload", SIGNATURE, MAX_BUNDLE_BYTES)
    envelope.choice("payloadType", (PAYLOAD_TYPE,))
    signatures = list(envelope.records("signatures", limit=1))
    envelope.done()
    if len(signatures) != 1:
        raise FormatError(f"{SIGNATURE}: expected one signature, got none")
    signature = read_bytes(signatures[0], "sig", SIGNATURE, MAX_BUNDLE_BYTES)
    signatures[0].choice("keyid", ("",))
    signatures[0].done()
    return hint, payload, signature
