"""Keys that a token or a service keeps: named by a signer URI of securesystemslib, used through its libraries.

    hsm:2?label=office       a PKCS#11 token; RASURA_KEY_PASSWORD is its PIN, PYKCS11LIB the path of its module
    awskms:…, gcpkms:…, azurekms:…, hv:…, file2:…    as https://python-securesystemslib.readthedocs.io says

Beside the registry's private keys lies `NAME.signer.uri`, which is no secret. Whatever signs asks the token or service,
and what comes back is verified with the public half before anybody gets it. Like every key here it must be ECDSA on
P-256: what a token has of another kind is refused when it is added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from rasura.patches.errors import FormatError, InputError, RasuraError, SignatureError
from rasura.patches.format.signatures.signing_key import PublicKey
from rasura.registry._storage.files.durable_files import read_own_file

__all__ = ["SCHEMES", "RemoteKey", "check_uri", "import_public", "read_uri"]

SCHEMES: Final = ("hsm", "awskms", "gcpkms", "azurekms", "hv", "file2")
_PKCS11: Final = SCHEMES[0]
_LONGEST: Final = 2048
_KIND: Final = "ecdsa-sha2-nistp256"
_INSTALL: Final = "pip install 'rasura[signers]'"
_MODULE: Final = "export PYKCS11LIB=/usr/lib/softhsm/libsofthsm2.so"

AskSecret = Callable[[], bytes | None]
"""The PIN or password of the key; None where nobody gave one."""


@dataclass(frozen=True, slots=True)
class RemoteKey:
    """A key that is used where it is kept. Its `repr` shows nothing secret.

    Attributes:
        name: what the registry calls it.
        uri: where it is kept.
        public: its public half, as it was registered.
        ask: how its PIN is found.
    """

    name: str
    uri: str
    public: PublicKey
    ask: AskSecret

    def sign(self, message: bytes) -> bytes:
        """The DER ECDSA signature over SHA-256 of `message`; another one each time.

        Raises:
            InputError: the library, the token or the service is not there, or refuses; the PIN is missing.
            SignatureError: what came back is not a signature by this key.
        """
        from securesystemslib.signer import Signer, SSlibKey  # type: ignore[attr-defined]  # exported, not said so

        with _spoken(self.name, self.uri):
            public = SSlibKey.from_crypto(self.public.cryptography_key(), scheme=_KIND)
            signer = Signer.from_priv_key_uri(self.uri, public, self._secret)
            signature = bytes.fromhex(signer.sign(message).signature)
        try:
            self.public.cryptography_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise SignatureError(
                f"key {self.name!r} at {self.uri}: expected a signature by {self.public.key_id[:12]}, got another's",
                hint="rasura key list",
            ) from None
        return signature

    def _secret(self, _: str) -> str:
        secret = self.ask()
        if secret is None:
            raise InputError(
                f"key {self.name!r} at {self.uri} has a PIN or password: expected it in RASURA_KEY_PASSWORD or in a "
                "file, got none",
                hint="--password-file FILE",
                key=self.name,
            )
        return secret.decode("utf-8", "replace")


def check_uri(name: str, uri: str) -> str:
    """The scheme of a signer URI.

    Raises:
        InputError: none that is known here.
    """
    scheme, colon, _ = uri.partition(":")
    if not colon or scheme not in SCHEMES or len(uri) > _LONGEST or not uri.isprintable():
        raise InputError(
            f"key {name!r}: expected a signer URI that begins with {': or '.join(SCHEMES)}:, got {uri[:80]!r}",
            hint="rasura key add NAME --signer 'hsm:2?label=TOKEN'",
        )
    return scheme


def import_public(name: str, uri: str, ask: AskSecret) -> PublicKey:
    """The public half of a key on a token; services are not asked for theirs.

    Raises:
        InputError: no token's URI, or the library, the token or the key is not there.
        FormatError: a key of another kind than ECDSA on P-256.
    """
    if check_uri(name, uri) != _PKCS11:
        raise InputError(
            f"key {name!r}: expected the public half of a key that a service keeps, got none", hint="--public FILE"
        )

    from securesystemslib.signer import HSMSigner  # type: ignore[attr-defined]  # as above

    parts = urlsplit(uri)
    with _spoken(name, uri):
        label = dict(parse_qsl(parts.query)).get("label")
        _, found = HSMSigner.import_(int(parts.path or HSMSigner.SCHEME_KEYID), label, lambda _: _pin(ask))
    return PublicKey.load(str(found.keyval["public"]))


def read_uri(path: Path) -> str:
    """Where a key is kept, as it was written down when it was added.

    Raises:
        NotFoundError, RegistryError: the file cannot be read.
        FormatError: it holds no URI.
    """
    try:
        uri = read_own_file(path, limit=_LONGEST + 1, what=path.name).decode().removesuffix("\n")
        check_uri(path.name.partition(".")[0], uri)
    except (UnicodeDecodeError, InputError):
        raise FormatError(f"{path}: expected the URI of a key", hint="rasura key list", path=str(path)) from None
    return uri


def _pin(ask: AskSecret) -> str:
    return (ask() or b"").decode("utf-8", "replace")


@contextmanager
def _spoken(name: str, uri: str) -> Iterator[None]:
    """What libraries, tokens and services raise, which is anything, as one error."""
    from securesystemslib.exceptions import UnsupportedLibraryError

    try:
        yield
    except RasuraError:
        raise
    except UnsupportedLibraryError as error:
        raise InputError(f"key {name!r} at {uri}: expected its library, got: {error}", hint=_INSTALL) from None
    except Exception as error:  # noqa: BLE001  # "applications should use generic try-except", their documentation says
        said = f"{type(error).__name__}: {error}".removesuffix(": ")
        hint = _MODULE if "PYKCS11LIB" in said else "rasura key list"
        raise InputError(
            f"key {name!r} at {uri}: expected a key on P-256 and its signature (ECDSA), got {said[:300]}", hint=hint
        ) from None
