"""The keys that sign patches: ECDSA on P-256, the one kind that OpenSSF Model Signing v1.0 and every HSM share.

A key's identity is a digest of the key itself, computed at load; a name that somebody wrote beside it is never
believed, so one key cannot count as two. Secrets appear in no `repr`, no message and no exception's chain.
"""

import errno
import functools
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from rasura.patches._io.byte_ranges import sync_folder
from rasura.patches._io.files import open_regular
from rasura.patches._io.incoming import INCOMING, lock_incoming
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import DigestMismatchError, ExistsError, FormatError, HostWriteError, InputError
from rasura.patches.types import KeyId

MAX_KEY_BYTES: Final = 16 * 1024
"""Longest PEM read. A P-256 key has 0.2 KB, an encrypted one 0.4 KB."""

MAX_PASSWORD_BYTES: Final = 1023
"""Longest password that OpenSSL takes for PKCS#8."""

_CURVE: Final = "secp256r1"  # P-256 in SEC 2's spelling, which `cryptography` uses
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_OTHERS: Final = 0o077  # what group and others may do
_LOCKED: Final = (
    b"-----BEGIN ENCRYPTED PRIVATE KEY-----",
    b"Proc-Type: 4,ENCRYPTED",
)  # PKCS#8, and OpenSSL's older way


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A P-256 public key in its one spelling. Build it with `load`; the constructor checks what it is given.

    Raises:
        FormatError: no P-256 public key, or another spelling than `load` gives.
        DigestMismatchError: `key_id` belongs to another key.
    """

    key_id: KeyId
    """SHA-256 of the DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7)."""
    pem: str
    """The SubjectPublicKeyInfo as PEM (RFC 7468 §13), as OpenSSL prints it."""

    def __post_init__(self) -> None:
        key = self.cryptography_key()
        if _pem(key) != self.pem:
            raise FormatError("public key: expected the PEM text that loading gives, got another spelling")
        if (expected := _key_id(key)) != self.key_id:
            raise DigestMismatchError(f"public key: expected the identity {expected}, got {self.key_id[:80]}")

    @classmethod
    def load(cls, pem: bytes | str) -> "PublicKey":
        """The key of a PEM text of the kind "PUBLIC KEY".

        Raises:
            FormatError: anything else: certificates, private keys, RSA, other curves, points off the curve.
        """
        key = _load_public(pem.encode("utf-8", "replace") if isinstance(pem, str) else pem)
        return cls(_key_id(key), _pem(key))

    @property
    def hint(self) -> str:
        """SHA-256 of the PEM text with its final newline: how a `model.sig` names its key (OMS v1.0)."""
        return digest_of(self.pem.encode())

    def cryptography_key(self) -> "EllipticCurvePublicKey":
        """The key as `cryptography` holds it."""
        return _load_public(self.pem.encode())


class SigningKey(Protocol):
    """What signs: a private key that is here, or one that a token or a service keeps."""

    @property
    def public(self) -> PublicKey:
        """The public half."""

    def sign(self, message: bytes) -> bytes:
        """The DER ECDSA signature over SHA-256 of `message`."""


@dataclass(frozen=True, slots=True, eq=False)
class PrivateKey:
    """A P-256 private key. Its `repr` shows the public half only."""

    public: PublicKey
    _key: "EllipticCurvePrivateKey" = field(repr=False)

    @classmethod
    def generate(cls) -> "PrivateKey":
        """A new key from the operating system's randomness."""
        return _private(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, pem: bytes, password: bytes | None = None) -> "PrivateKey":
        """The key of a PEM text: PKCS#8 plain or encrypted, or OpenSSL's older "EC PRIVATE KEY".

        Raises:
            FormatError: no P-256 private key.
            InputError: a password is missing, wrong, or given for a key that has none.
        """
        if len(pem) > MAX_KEY_BYTES:
            raise FormatError(f"private key: expected at most {MAX_KEY_BYTES} bytes, got {len(pem)}")
        try:
            key = load_pem_private_key(pem, password)
        except TypeError:  # the library's word for "encrypted but no password" and the reverse
            got = "one for a key that is not encrypted" if password else "none"
            raise InputError(f"private key: expected the password of an encrypted key, got {got}") from None
        except (ValueError, UnsupportedAlgorithm):
            if password is not None:
                raise InputError("private key: expected its password, got another one or a damaged key") from None
            raise FormatError("private key: expected a PEM text of a private key, got something else") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != _CURVE:
            raise FormatError("private key: expected an ECDSA key on P-256, got another kind")
        return _private(key)

    def pem(self, password: bytes | None = None) -> bytes:
        """The key as PKCS#8 PEM; encrypted (PBES2, AES-256) when a password is given. Keep it secret.

        Raises:
            InputError: a password of no bytes, or of more than OpenSSL takes.
        """
        if password is not None and not 1 <= len(password) <= MAX_PASSWORD_BYTES:
            raise InputError(f"expected a password of 1 to {MAX_PASSWORD_BYTES} bytes, got {len(password)}")
        lock = serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
        return self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)

    def sign(self, message: bytes) -> bytes:
        """The DER ECDSA signature over SHA-256 of `message`; the same for the same message and key (RFC 6979)."""
        return self._key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def write_private(path: Path, key: PrivateKey, password: bytes | None = None) -> None:
    """Writes a new key file that only its owner may read (mode 0600), durably; an existing file is never touched.

    Raises:
        InputError: a password that cannot be one; nothing was made.
        ExistsError: something is at `path`.
        HostWriteError: it could not be written; nothing is left behind.
    """
    pem = key.pem(password)  # before there is a file
    try:
        _write_new(path, pem)
    except FileExistsError:
        raise ExistsError(f"expected no file at {path}, got one", path=str(path)) from None
    except OSError as error:
        raise HostWriteError(f"expected to write a key to {path}, got {error.strerror}", path=str(path)) from None


def _write_new(path: Path, pem: bytes) -> None:
    """The file, whole or not at all: its bytes are durable under another name before it gets this one.

    Raises:
        FileExistsError: something is at `path`.
        OSError: it could not be written.
    """
    if path.is_symlink() or path.exists():
        raise FileExistsError
    descriptor, name = tempfile.mkstemp(prefix=INCOMING, dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            lock_incoming(descriptor)
            file.write(pem)
            file.flush()
            os.fsync(descriptor)
            try:
                os.link(name, path, follow_symlinks=False)  # refuses what exists, where a rename would replace it
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                os.rename(name, path)  # noqa: PTH104  # a file system that knows one name a file
        sync_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108  # a plain name


def is_locked(path: Path) -> bool:
    """Whether a key file is encrypted, so that a password is needed to sign with it.

    Raises:
        NotFoundError, FormatError: nothing is there, or no regular file.
    """
    with open_regular(path) as (file, _):
        pem = file.read(MAX_KEY_BYTES + 1)
    return any(mark in pem for mark in _LOCKED)


def read_private(path: Path, password: bytes | None = None) -> PrivateKey:
    """The key of a file that only its owner can read.

    Raises:
        NotFoundError: nothing is there.
        FormatError: no regular file, or no P-256 private key in it.
        InputError: others may read or write the file, or the password is wrong.
    """
    with open_regular(path) as (file, status):
        if status.st_mode & _OTHERS:
            mode = status.st_mode & 0o777
            raise InputError(
                f"{path}: expected a key file that only its owner can read (mode 0600), got {mode:04o}",
                hint=f"chmod 600 {path}",
                path=str(path),
            )
        pem = file.read(MAX_KEY_BYTES + 1)
    return PrivateKey.load(pem, password)


def _private(key: "EllipticCurvePrivateKey") -> PrivateKey:
    public = key.public_key()
    return PrivateKey(PublicKey(_key_id(public), _pem(public)), key)


@functools.lru_cache(maxsize=64)  # a long log asks for the keys of its actors again and again
def _load_public(pem: bytes) -> "EllipticCurvePublicKey":
    if len(pem) > MAX_KEY_BYTES:
        raise FormatError(f"public key: expected at most {MAX_KEY_BYTES} bytes, got {len(pem)}")
    if pem.count(b"-----BEGIN ") > 1:  # the library would take the first and keep silent
        raise FormatError("public key: expected one PEM text, got several")
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise FormatError("public key: expected a PEM text of the kind PUBLIC KEY, got something else") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != _CURVE:
        raise FormatError("public key: expected an ECDSA key on P-256, got another kind")
    return key


def _pem(key: "EllipticCurvePublicKey") -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def _key_id(key: "EllipticCurvePublicKey") -> KeyId:
    return KeyId(digest_of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)))
