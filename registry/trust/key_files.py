"""Keys of people: made here, taken from a file, trusted, revoked. Private keys lie in the registry's `keys` folder."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Final

from rasura.patches._io.files import read_regular
from rasura.patches.errors import ExistsError, FormatError, InputError, NotFoundError, RasuraError, RevokedKeyError
from rasura.patches.format.signing_key import PrivateKey, PublicKey, read_private, write_private
from rasura.registry._storage.records import Draft, KeyRecord
from rasura.registry.registry import Registry

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_PEM_LIMIT: Final = 16 * 1024
_SUFFIX: Final = ".signer.pem"


def make_key(registry: Registry, name: str, draft: Draft) -> KeyRecord:
    """Make a P-256 key pair; the registry trusts it at once.

    A private half of this name that no row speaks of is what a process left that died before it could register it: it
    is taken, and so is one that another process writes at this moment.

    Raises:
        InputError: a name that is no plain word.
        ExistsError: the name is taken, or a file that is no private key lies where the private half goes.
    """
    _check_name(name)
    if any(record.name == name for record in registry.keys()):
        raise ExistsError(f"a key named {name!r} exists already", hint="rasura key list")
    path = find_private_path(registry, name)
    private, mine = PrivateKey.generate(), True
    try:
        write_private(path, private)
    except ExistsError:
        private, mine = _take_orphan(path), False
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


def _take_orphan(path: Path) -> PrivateKey:
    try:
        return read_private(path)
    except RasuraError as error:
        raise ExistsError(
            f"{path} lies where the private half of this key goes, and is none that can be used: {error.message}",
            hint=f"rm {shlex.quote(str(path))}",
            path=str(path),
        ) from None


def trust_file(registry: Registry, path: Path, name: str | None, draft: Draft, *, dry_run: bool = False) -> KeyRecord:
    """Trust the public key in a PEM file; the name is the file's unless given. With `dry_run`, nothing is written.

    Raises:
        FormatError: no P-256 public key.
        RevokedKeyError: the key was revoked here; revoking is for good.
        ExistsError: the name belongs to another key.
    """
    try:
        public = PublicKey.load(read_regular(path, _PEM_LIMIT))
    except NotFoundError:
        raise NotFoundError(f"key file {path} does not exist", hint="rasura key export NAME -o FILE") from None
    except FormatError as error:
        raise FormatError(f"key file {path}: {error.message}", hint="rasura key export NAME -o FILE") from None
    return trust_key(registry, public, name or path.name.partition(".")[0], draft, dry_run=dry_run)


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


def signer(registry: Registry, name: str | None) -> PrivateKey:
    """The private key to sign with: the named one, or the only one that is here.

    Raises:
        NotFoundError: none here, or not by that name.
        InputError: several, and none was named.
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
    key = read_private(find_private_path(registry, record.name))
    if key.public.key_id != record.key_id:
        raise FormatError(f"the private key of {record.name!r} is not the one that was registered")
    return key


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
