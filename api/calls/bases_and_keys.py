"""The calls about what patches rest on: the keys that sign them, and the bases that they are computed on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rasura.api.calls._calls import Calls
from rasura.api.hints import in_python
from rasura.patches.errors import InputError
from rasura.registry.trust.keys.key_files import add_remote_key, make_key, trust_file
from rasura.registry.trust.keys.passwords import read_password_file
from rasura.registry.trust.keys.revocation import find_reach, revoke

if TYPE_CHECKING:
    from rasura.registry._storage.records.base_records import BaseRecord, BaseSummary
    from rasura.registry._storage.records.records import KeyRecord
    from rasura.registry.trust.keys.revocation import Reach

__all__ = ["BaseAndKeyCalls"]


class BaseAndKeyCalls(Calls):
    """Keys and bases of a registry."""

    # Keys

    @in_python
    def new_key(
        self,
        name: str,
        *,
        encrypt: bool = False,
        password_file: str | Path | None = None,
        reason: str = "",
    ) -> KeyRecord:
        """Make an ECDSA P-256 key pair; this registry trusts it at once (`rasura key new`).

        Args:
            name: what to call it.
            encrypt: lock the private half with a password.
            password_file: holds it; None: that of `rasura.open`.
            reason: why.

        Raises:
            ExistsError: there is a key of this name.
            InputError: no password was given, or one that cannot be one.
        """
        password = None
        if encrypt:
            password = read_password_file(Path(password_file)) if password_file else self.store.ask_password(name)
            if password is None:
                raise InputError("a locked key: expected its password in a file, got none", hint="--password-file FILE")
        return make_key(self.store, name, self._draft("key.add", reason), password=password)

    @in_python
    def add_key(
        self, name: str, signer: str, *, public: str | Path | None = None, dry_run: bool = False, reason: str = ""
    ) -> KeyRecord:
        """Add an ECDSA P-256 key that a PKCS#11 token or a service keeps; it is trusted at once (`rasura key add`).

        Args:
            name: what to call it.
            signer: where it is kept: a signer URI of securesystemslib, such as `hsm:2?label=office`.
            public: a PEM file with its public half; None: the token is asked.
            dry_run: only look.
            reason: why.

        Raises:
            ExistsError: the name or the key is taken.
            InputError: no such URI; or the token, the service or its library does not answer.
            FormatError: a key of another kind.
        """
        draft = self._draft("key.add", reason)
        return add_remote_key(self.store, name, signer, Path(public) if public else None, draft, dry_run=dry_run)

    @in_python
    def trust_key(
        self, file: str | Path, *, name: str | None = None, dry_run: bool = False, reason: str = ""
    ) -> KeyRecord:
        """Trust patches signed by the public key in a PEM file (`rasura key trust`).

        With `dry_run` nothing is written.

        Raises:
            NotFoundError, FormatError: no such file, or no public key in it.
        """
        return trust_file(self.store, Path(file), name, self._draft("key.trust", reason), dry_run=dry_run)

    @in_python
    def reach_of_key(self, key: str) -> Reach:
        """What the revocation of a key touches: patches, models, stacks (`rasura key revoke --dry-run`).

        Raises:
            NotFoundError: no such key.
        """
        return find_reach(self.store, key)

    @in_python
    def revoke_key(self, key: str, *, dry_run: bool = False, reason: str = "") -> bool:
        """Revoke a key for good: nothing that it alone signed is put on a model any more (`rasura key revoke`).

        Nobody is asked here; `reach_of_key` says what it touches. What is in force stays until it is reverted, and
        other patches of the same model can be moved as before. With `dry_run` nothing is written.

        Returns:
            Whether it was not revoked before.

        Raises:
            NotFoundError: no such key.
        """
        if dry_run:
            return self.store.key(key).revoked_at is None
        return revoke(self.store, key, self._draft("key.revoke", reason)) is not None

    @in_python
    def keys(self) -> tuple[KeyRecord, ...]:
        """The keys that this registry knows (`rasura key list`)."""
        return self.store.keys()

    @in_python
    def key(self, key: str) -> KeyRecord:
        """One key by name, id or abbreviation; `pem` is its public half (`rasura key export`).

        Raises:
            NotFoundError: no such key.
        """
        return self.store.key(key)

    # Bases

    @in_python
    def add_base(
        self, model: str | Path, *, name: str | None = None, dry_run: bool = False, reason: str = ""
    ) -> BaseRecord:
        """Hash every patchable parameter of a model and register it as a base (`rasura base add`).

        With `dry_run` nothing is written.

        Raises:
            NotFoundError, UnsupportedHostError: no such folder, or no model that can be a base.
            ExistsError: the name belongs to other weights.
        """
        from rasura.registry.erase.base_models import add_base

        draft = self._draft("base.add", reason)
        return add_base(self.store, Path(model), name, draft, self._progress, dry_run=dry_run)[0].record

    @in_python
    def bases(self) -> tuple[BaseSummary, ...]:
        """The registered bases (`rasura base list`)."""
        return self.store.bases()

    @in_python
    def base(self, base: str) -> BaseRecord:
        """One base by name, digest or abbreviation (`rasura base show`).

        Raises:
            NotFoundError: no such base.
        """
        return self.store.base(base)
