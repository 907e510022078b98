"""Keys of people: made here, taken from a file, trusted, revoked. Private keys lie in the registry's `keys` folder."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Final

from rasura.patches._io.files import read_regular
from rasura.patches.errors import ExistsError, FormatError, InputError, NotFoundError, RasuraError, RevokedKeyError
from rasura.patches.format.signatures.signing_key import (
    PrivateKey,
    PublicKey,
    SigningKey,
    is_locked,
    read_private,
    write_private,
)
from rasura.patches.types import SHORT
from rasura.registry._storage.files.durable_files import write_atomic
from rasura.registry._storage.records.records import Draft, KeyRecord
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.passwords import VARIABLE
from rasura.registry.trust.keys.remote_keys import RemoteKey, check_uri, import_public, read_uri

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_PEM_LIMIT: Final = 16 * 1024
_SUFFIX: Final = ".signer.pem"
_URI: Final = ".signer.uri"


def foresee_key(registry: Registry, name: str) -> Path:
    """Where the private half of a key goes that `make_key` would make; nothing is written.

    Raises:
        InputError, ExistsError: as for `make_key`.
    """
    _check_free(registry, name)
    path = find_private_path(registry, name)
    if path.exists() and not is_locked(path):  # a locked one is looked at when its password is here
        _take_orphan(path, None)
    return path


def make_key(registry: Registry, name: str, draft: Draft, *, password: bytes | None = None) -> KeyRecord:
    """Make a P-256 key pair; the registry trusts it at once.

    With a password the private half is encrypted (PKCS#8, PBES2 with AES-256), and signing asks for it.

    A private half of this name that no row speaks of is what a process left that died before it could register it: it
    is taken, and so is one that another process writes at this moment.

    Raises:
        InputError: a name that is no plain word, or a password that cannot be one.
        ExistsError: the name is taken, or a file that is no private key lies where the private half goes.
    """
    _check_free(registry, name)
    path = find_private_path(registry, name)
    private, mine = PrivateKey.generate(), True
    try:
        write_private(path, private, password)
    except ExistsError:
        private, mine = _take_orphan(path, password), False
    record = _record(registry, private.public, name, owned=True)
    try:
        new = registry.add_key(record, draft)
    except RasuraError:
        if mine:
            path.unlink(missing_ok=True)
        raise
    if not new:  # another process took the file before us
        raise ExistsError(f"a key named {name!r} exists already", hint="rasura key list")
    return record


def _check_free(registry: Registry, name: str) -> None:
    _check_name(name)
    if any(record.name == name for record in registry.keys()):
        raise ExistsError(f"a key named {name!r} exists already", hint="rasura key list")


def _take_orphan(path: Path, password: bytes | None) -> PrivateKey:
    try:
        return read_private(path, password)
    except RasuraError as error:
        raise ExistsError(
            f"{path} lies where the private half of this key goes, and is none that can be used: {error.message}",
            hint=f"rm {shlex.quote(str(path))}",
            path=str(path),
        ) from None


def add_remote_key(
    registry: Registry, name: str, uri: str, public: Path | None, draft: Draft, *, dry_run: bool = False
) -> KeyRecord:
    """Add a key that a token or a service keeps; the registry trusts it at once. With `dry_run`, nothing is written.

    Args:
        registry: where.
        name: what it shall be called.
        uri: a signer URI; see `rasura.registry.trust.keys.remote_keys`.
        public: a PEM file with its public half; None asks the token for it.
        draft: the entry.
        dry_run: only look.

    Raises:
        InputError: no such name or URI, or the token or its library does not answer.
        FormatError: a key of another kind than ECDSA on P-256.
        ExistsError: the name or the key is taken.
    """
    _check_free(registry, name)
    path, secret = _uri_path(registry, name), find_private_path(registry, name)
    if secret.exists():
        raise ExistsError(
            f"{secret} lies where the private half of this key would go", hint=f"rm {shlex.quote(str(secret))}"
        )
    check_uri(name, uri)
    found = _read_public(public) if public else import_public(name, uri, lambda: registry.ask_password(name))
    record = _record(registry, found, name, owned=True)
    if any(known.key_id == record.key_id for known in registry.keys()):
        raise ExistsError(f"key {record.key_id[:SHORT]} is here already", hint="rasura key list")
    if dry_run:
        return record
    write_atomic(path, f"{uri}\n".encode(), mode=0o600)
    try:
        registry.add_key(record, draft)
    except RasuraError:
        path.unlink(missing_ok=True)
        raise
    return record


def find_uri(registry: Registry, record: KeyRecord) -> str | None:
    """Where a key is kept that is used from here and whose private half is not; None of every other key.

    Raises:
        FormatError, RegistryError: the file that says so cannot be read.
    """
    path = _uri_path(registry, record.name)
    if not record.owned or not path.is_file() or find_private_path(registry, record.name).exists():
        return None
    return read_uri(path)


def _uri_path(registry: Registry, name: str) -> Path:
    return registry.keys_folder / f"{name}{_URI}"


def trust_file(registry: Registry, path: Path, name: str | None, draft: Draft, *, dry_run: bool = False) -> KeyRecord:
    """Trust the public key in a PEM file; the name is the file's unless given. With `dry_run`, nothing is written.

    Raises:
        FormatError: no P-256 public key.
        RevokedKeyError: the key was revoked here; revoking is for good.
        ExistsError: the name belongs to another key.
    """
    return trust_key(registry, _read_public(path), name or path.name.partition(".")[0], draft, dry_run=dry_run)


def _read_public(path: Path) -> PublicKey:
    try:
        return PublicKey.load(read_regular(path, _PEM_LIMIT))
    except NotFoundError:
        raise NotFoundError(f"key file {path} does not exist", hint="rasura key export NAME -o FILE") from None
    except FormatError as error:
        raise FormatError(f"key file {path}: {error.message}", hint="rasura key export NAME -o FILE") from None


def trust_key(registry: Registry, public: PublicKey, name: str, draft: Draft, *, dry_run: bool = False) -> KeyRecord:
    """Trust a public key from now on, under this name where it is new here. With `dry_run`, nothing is written.

    Raises:
        RevokedKeyError, ExistsError: as for `trust_file`.
        InputError: a name that is no plain word.
    """
    known = {record.key_id: record for record in registry.keys()}.get(public.key_id)
    if known is not None:
        if known.revoked_at is not None:
            raise RevokedKeyError(
                f"key {known.name!r} was revoked on {known.revoked_at:%Y-%m-%d}: expected another key"
            )
        if dry_run:
            return replace(known, trusted=True)
        registry.set_trusted(public.key_id, True, draft)  # noqa: FBT003
        return registry.key(public.key_id)
    _check_name(name)
    record = _record(registry, public, name, owned=False)
    if not dry_run:
        registry.add_key(record, draft)
    elif any(other.name == name for other in registry.keys()):
        raise ExistsError(f"a key named {name!r} exists already", hint="rasura key list")
    return record


def signer(registry: Registry, name: str | None) -> SigningKey:
    """The private key to sign with: the named one, or the only one that is here, or kept on a token or by a service.

    Raises:
        NotFoundError: none here, or not by that name.
        InputError: several, and none was named; or its password is missing or wrong.
        RevokedKeyError: the named one is revoked.
    """
    owned = [record for record in registry.keys() if record.owned and record.revoked_at is None]
    if name is None:
        if not owned:
            raise NotFoundError("this registry holds no key to sign with", hint="rasura key new NAME")
        if len(owned) > 1:
            raise InputError(
                f"several keys can sign: {', '.join(r.name for r in owned)}", hint=f"--key {owned[0].name}"
            )
        name = owned[0].name
    record = registry.key(name)
    if record.revoked_at is not None:
        raise RevokedKeyError(f"key {record.name!r} is revoked and signs no more", hint="rasura key new NAME")
    if not record.owned:
        raise NotFoundError(f"the private half of key {record.name!r} is not in this registry", hint="rasura key list")
    key = _open(registry, record)
    if key.public.key_id != record.key_id:
        raise FormatError(f"the private key of {record.name!r} is not the one that was registered")
    return key


def act_by(registry: Registry, ref: str) -> SigningKey:
    """Have everything from now on signed by who acts; gives their key.

    Args:
        registry: whose log.
        ref: the name of a key whose private half is here, or a file that holds one, with a slash or the ending `.pem`.

    Raises:
        NotFoundError, InputError, FormatError: there is no such key, or its password is missing or wrong.
        UntrustedKeyError, RevokedKeyError: its signature counts for nothing here.
    """
    private = _find_acting(registry, ref)
    registry.act_as(private)
    return private


def _find_acting(registry: Registry, ref: str) -> SigningKey:
    if "/" not in ref and not ref.endswith(".pem"):
        return signer(registry, ref)
    path = Path(ref)
    try:
        return _read_locked(registry, path, path.name)
    except NotFoundError:
        raise NotFoundError(f"key file {path} does not exist", hint="rasura key list") from None


def _open(registry: Registry, record: KeyRecord) -> SigningKey:
    if (uri := find_uri(registry, record)) is not None:
        return RemoteKey(record.name, uri, PublicKey.load(record.pem), lambda: registry.ask_password(record.name))
    return _read_locked(registry, find_private_path(registry, record.name), record.name)


def _read_locked(registry: Registry, path: Path, name: str) -> PrivateKey:
    if not is_locked(path):
        return read_private(path)
    password = registry.ask_password(name)
    if password is None:
        raise InputError(
            f"key {name!r} is locked with a password: expected it in {VARIABLE} or in a file, got none",
            hint="--password-file FILE",
            key=name,
        )
    try:
        return read_private(path, password)
    except InputError as error:
        raise InputError(f"key {name!r}: {error.message}", hint="--password-file FILE", **error.details) from None


def is_key_locked(registry: Registry, record: KeyRecord) -> bool:
    """Whether signing with a key of this registry takes a password; of one whose private half is not here, no."""
    path = find_private_path(registry, record.name)
    return record.owned and path.is_file() and is_locked(path)


def find_private_path(registry: Registry, name: str) -> Path:
    """Where the private half of a named key lies."""
    return registry.keys_folder / f"{name}{_SUFFIX}"


def is_key_name(name: str) -> bool:
    """Whether a key may be called so."""
    return _NAME.fullmatch(name) is not None


def _check_name(name: str) -> None:
    if not is_key_name(name):
        raise InputError(f"key name {name!r}: expected letters, digits, dot, dash, underscore or @, at most 64")


def _record(registry: Registry, public: PublicKey, name: str, *, owned: bool) -> KeyRecord:
    return KeyRecord(public.key_id, name, public.pem, owned, True, None, registry.now())  # noqa: FBT003
