"""Personal data of cases: outside the log, so that it can be deleted; the log keeps commitments to it.

    .rasura/cases/<first 32 digits of SHA-256 of the case's identifier>/     0700
    ├── key           32 random bytes, made with the case and deleted with its data
    ├── requester     who asked
    ├── text          what they wrote
    └── picture-1     …

The commitment to an item is HMAC-SHA256(HMAC-SHA256(key, name), bytes). While the key is there, it shows that the bytes
are those that the log speaks of; one item can be opened to somebody with its own key, HMAC-SHA256(key, name), and says
nothing of the others. Once the key is gone, nobody can tell by trying out names whether one of them was meant, which a
plain digest would allow (EDPB Guidelines 02/2025 on blockchain, §§ 50-53, name keyed hashes for this).
"""

import hashlib
import hmac
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from rasura.patches.errors import DigestMismatchError, InputError, NotFoundError
from rasura.patches.types import Digest
from rasura.registry._storage.files.durable_files import (
    make_folder,
    read_own_file,
    sync_folder,
    translated,
    write_atomic,
)
from rasura.registry._storage.records.case_record import CaseRecord, check_item

__all__ = ["MAX_ITEM_BYTES", "Vault", "commit", "derive_key"]

MAX_ITEM_BYTES: Final = 16 * 1024**2
"""Most bytes of one item: a picture, a letter."""

_KEY: Final = "key"
_KEY_BYTES: Final = 32
_PRIVATE: Final = 0o600
_DIGITS: Final = 32


def derive_key(key: bytes, name: str) -> bytes:
    """The key of one item: whoever gets it can check that item and no other."""
    return hmac.digest(key, name.encode(), "sha256")


def commit(key: bytes, name: str, data: bytes) -> Digest:
    """The commitment to an item under a case's key."""
    return Digest(hmac.digest(derive_key(key, name), data, "sha256").hex())


class Vault:
    """The folder of one registry's personal data. Writers hold the log's lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, case_id: str) -> Path:
        """Where a case's data lies: its identifier may hold what a file name must not."""
        return self.folder / hashlib.sha256(case_id.encode()).hexdigest()[:_DIGITS]

    def is_empty(self, case_id: str) -> bool:
        """Whether nothing of a case lies here."""
        return not self.path(case_id).exists()

    def put(self, case_id: str, items: Mapping[str, bytes]) -> dict[str, Digest]:
        """Write items durably, and give the commitments to them; the key is made with the first.

        Raises:
            InputError: no name of an item, or more than 16 MB.
            RegistryError: it cannot be written.
        """
        for name, data in items.items():
            check_item(name)
            if len(data) > MAX_ITEM_BYTES or name == _KEY:
                raise InputError(f"{name} of a case: expected at most {MAX_ITEM_BYTES} bytes, got {len(data)}")
        path = self.path(case_id)
        make_folder(self.folder, private=True)
        make_folder(path, private=True)
        if not (path / _KEY).exists():
            write_atomic(path / _KEY, secrets.token_bytes(_KEY_BYTES), mode=_PRIVATE)
            with translated(f"write {path}"):
                sync_folder(self.folder)
        key = self._key(case_id)
        for name, data in items.items():
            write_atomic(path / name, data, mode=_PRIVATE)
        return {name: commit(key, name, data) for name, data in items.items()}

    def read(self, record: CaseRecord, name: str) -> bytes:
        """An item, which is the one that the log speaks of.

        Raises:
            NotFoundError: there is none, or it was deleted.
            DigestMismatchError: it is another.
        """
        committed = record.commitments.get(name)
        if committed is None or record.forgotten_at is not None:
            said = "was deleted" if committed else "was never kept"
            raise NotFoundError(f"case {record.case_id}: its {name} {said}", hint=f"rasura case show {record.case_id}")
        what = f"{name} of case {record.case_id}"
        data = read_own_file(self.path(record.case_id) / name, limit=MAX_ITEM_BYTES, what=what)
        if not hmac.compare_digest(commit(self._key(record.case_id), name, data), committed):
            raise DigestMismatchError(
                f"{what}: expected the bytes that the log's commitment is to, got others",
                hint="restore the registry's folder cases from a backup",
            )
        return data

    def open_item(self, record: CaseRecord, name: str) -> bytes:
        """The key with which somebody else can check one item against the log, and no other.

        Raises:
            NotFoundError: it was deleted.
        """
        self.read(record, name)
        return derive_key(self._key(record.case_id), name)

    def forget(self, case_id: str) -> None:
        """Delete all that lies here of a case, the key first; what is gone already stays gone.

        Raises:
            RegistryError: something cannot be deleted.
        """
        path = self.path(case_id)
        with translated(f"delete {path}"):
            with suppress(FileNotFoundError):
                (path / _KEY).unlink()
                sync_folder(path)
            if path.exists():
                shutil.rmtree(path)
            if self.folder.exists():
                sync_folder(self.folder)

    def _key(self, case_id: str) -> bytes:
        key = read_own_file(self.path(case_id) / _KEY, limit=_KEY_BYTES, what=f"key of case {case_id}")
        if len(key) != _KEY_BYTES:
            raise DigestMismatchError(f"key of case {case_id}: expected {_KEY_BYTES} bytes, got {len(key)}")
        return key
