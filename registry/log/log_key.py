"""The key that signs the audit log, and the memory of what it signed last.

Two files, at times three, lie in `.rasura/keys`, outside the database, because they must survive its replacement:

* `log.pem`: Ed25519, PKCS#8, 0600. Who can read it can write a log that verifies.
* `log.pem.next`: only while the key is rotated, the one that takes its place as soon as the log says so;
* `last_signed`: the tree that was committed last and the one that is being committed. A database that is shorter, or
  has another root at that size, was cut or exchanged for an old copy. It is written before the database commits and
  again after, so a crash in between leaves a state that either line explains.

`log.lock` is held from the first of these writes to the last, so that processes do not overwrite each other's.
"""

import fcntl
import os
import shlex
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rasura.patches.errors import AuditError, BusyError, NotFoundError, RegistryError
from rasura.registry._storage.files.durable_files import (
    make_folder,
    read_own_file,
    sync_folder,
    translated,
    write_atomic,
)
from rasura.registry.log.merkle import EMPTY_ROOT
from rasura.registry.log.notes.cosignature import WitnessKey, cosign
from rasura.registry.log.notes.signed_note import Checkpoint, Note, NoteSignature, VerifyKey, sign_note

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # lists sign nothing

__all__ = ["LastSigned", "LogKey"]

_PRIVATE: Final = 0o600
_OTHERS: Final = 0o077  # what group and others may do
_LIMIT: Final = 4096
_PEM: Final = "log.pem"
_NEXT: Final = "log.pem.next"
_HEADER: Final = "rasura last-signed v1"
_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class LastSigned:
    """What this key vouched for: the tree that was committed, and the one that was about to be."""

    committed: Checkpoint
    intended: Checkpoint | None = None

    def explains(self, tree: Checkpoint) -> bool:
        """Whether a database may be in this state: after the last commit, or around the one under way."""
        return tree in (self.committed, self.intended)


@dataclass(frozen=True, slots=True)
class LogKey:
    """The signing key in a `keys` folder. Nothing is read before it is needed."""

    folder: Path
    origin: str

    @classmethod
    def create(cls, folder: Path, origin: str) -> "LogKey":
        """A new key, and a memory of the empty log.

        Raises:
            RegistryError: the folder already has one, or cannot be written.
        """
        make_folder(folder, private=True)
        if (folder / _PEM).exists():
            raise RegistryError(f"expected no log key in {folder} yet, got one")
        write_atomic(folder / _PEM, _new_pem(), mode=_PRIVATE)
        key = cls(folder, origin)
        key.remember(LastSigned(Checkpoint(origin, 0, EMPTY_ROOT)))
        return key

    @property
    def verify_key(self) -> VerifyKey:
        """The public half."""
        return self._public(_PEM)

    def is_here(self) -> bool:
        """Whether key or memory lie in the folder for this process to read; of a copy for an auditor neither does."""
        try:
            return any(os.access(self.folder / name, os.R_OK) for name in (_PEM, "last_signed"))
        except OSError:
            return False

    def public_here(self) -> VerifyKey | None:
        """The public half of the private key, where that lies here and may be read.

        Raises:
            RegistryError: it is no key.
        """
        return self.verify_key if os.access(self.folder / _PEM, os.R_OK) else None

    def next_here(self) -> VerifyKey | None:
        """The public half of the key of a rotation that did not end, where there is one.

        Raises:
            RegistryError: it is no key.
        """
        return self._public(_NEXT) if os.access(self.folder / _NEXT, os.R_OK) else None

    def sign(self, tree: Checkpoint, *, renewed: bool = False) -> str:
        """The checkpoint as a signed note; where the key is rotated, signed by the old and by the new.

        Raises:
            RegistryError: there is no key, or others may read it: they could write a log that verifies.
        """
        for name in (_PEM, _NEXT) if renewed else (_PEM,):
            _check_private(self.folder / name)
        note = sign_note(tree.text, self.origin, self._private(_PEM))
        if renewed:
            note = Note(note.text, note.signatures + sign_note(tree.text, self.origin, self._private(_NEXT)).signatures)
        return str(note)

    def sign_statement(self, kind: str, lines: Sequence[str]) -> str:
        """A signed note that is no checkpoint: its first line is `kind`, never the name of a log.

        Raises:
            RegistryError: there is no key, or others may read it.
        """
        assert kind.startswith("rasura/statement/")
        _check_private(self.folder / _PEM)
        return str(sign_note("".join(f"{line}\n" for line in (kind, *lines)), self.origin, self._private(_PEM)))

    def cosign(self, text: str, time: datetime) -> NoteSignature:
        """A cosignature of another log's checkpoint: its three lines were seen at this time.

        Raises:
            RegistryError: there is no key, or others may read it.
        """
        _check_private(self.folder / _PEM)
        return cosign(text, self.origin, self._private(_PEM), time)

    @property
    def witness_key(self) -> WitnessKey:
        """The key of the cosignatures that are made with this one."""
        return WitnessKey(self.origin, self.verify_key.public)

    def prepare_next(self) -> VerifyKey:
        """Makes the key that shall take this one's place, durably, and changes nothing else.

        Raises:
            RegistryError: it cannot be written.
        """
        write_atomic(self.folder / _NEXT, _new_pem(), mode=_PRIVATE)
        return self._public(_NEXT)

    def adopt_next(self) -> None:
        """Puts the next key in this one's place, after the log has said so.

        Raises:
            RegistryError: it cannot be moved.
        """
        with translated(f"write {self.folder}"):
            (self.folder / _NEXT).replace(self.folder / _PEM)
            sync_folder(self.folder)

    def settle(self, named: VerifyKey) -> None:
        """Ends a rotation that the log tells of and that a crash kept from its end.

        Args:
            named: the key that the log was handed to last.
        """
        if self.verify_key != named and self.next_here() == named:
            self.adopt_next()

    @contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """Holds the right to append, against other threads and processes of this machine.

        Raises:
            BusyError: somebody else held it for all of `seconds`.
        """
        with translated(f"lock {self.folder}"):
            descriptor = os.open(self.folder / "log.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
        try:
            _wait_for_lock(descriptor, seconds, self.folder)
            yield
        finally:
            os.close(descriptor)

    def recall(self) -> LastSigned:
        """What was signed last.

        Raises:
            AuditError: the file is missing or does not parse; without it a cut log would go unnoticed.
        """
        try:
            data = read_own_file(self.folder / "last_signed", limit=_LIMIT, what="memory of the audit log")
        except NotFoundError as error:
            raise AuditError(error.message, hint="restore keys/last_signed from a backup") from None
        lines = data.decode("utf-8", "replace").split("\n\n")
        if lines[0] != _HEADER or not 2 <= len(lines) <= 3:  # noqa: PLR2004 - header, committed, intended
            raise AuditError(f"memory of the audit log: expected '{_HEADER}', got something else")
        trees = [Checkpoint.parse(text.rstrip("\n") + "\n") for text in lines[1:]]
        return LastSigned(*trees)

    def remember(self, state: LastSigned) -> None:
        """Replaces the memory, durably.

        Raises:
            RegistryError: it cannot be written.
        """
        trees = [state.committed] if state.intended is None else [state.committed, state.intended]
        text = "\n".join([f"{_HEADER}\n", *(tree.text for tree in trees)])
        write_atomic(self.folder / "last_signed", text.encode(), mode=_PRIVATE)

    def _public(self, file: str) -> VerifyKey:
        return VerifyKey(self.origin, self._private(file).public_key().public_bytes_raw())

    def _private(self, file: str) -> "Ed25519PrivateKey":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # lists sign nothing
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        path = self.folder / file
        try:
            key = load_pem_private_key(read_own_file(path, limit=_LIMIT, what="key of the audit log"), password=None)
        except NotFoundError as error:
            raise RegistryError(f"{error.message}; without it this registry can only be read") from None
        except (ValueError, TypeError):
            key = None  # no detail: the message could quote the key
        if not isinstance(key, Ed25519PrivateKey):
            raise RegistryError(f"key of the audit log: expected Ed25519 in unencrypted PKCS#8 PEM at {path}")
        return key


def _new_pem() -> bytes:
    from cryptography.hazmat.primitives import serialization  # reading needs no key
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # lists sign nothing

    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _wait_for_lock(descriptor: int, seconds: float, folder: Path) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise BusyError(f"another process is writing to the audit log of {folder}", hint="try again") from None
        time.sleep(_POLL_SECONDS)


def _check_private(path: Path) -> None:
    with translated(f"look at {path}"):
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else _PRIVATE
    if mode & _OTHERS:
        raise RegistryError(
            f"{path}: expected a key that only its owner can read (mode 0600), got {mode:04o}",
            hint=f"chmod 600 {shlex.quote(str(path))}",
        )
