"""The calls about the audit log, and about what leaves the registry as evidence."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rasura import __version__
from rasura.api.calls._calls import Calls
from rasura.api.hints import in_python
from rasura.patches.errors import ExistsError, InputError
from rasura.registry._storage.files.durable_files import write_atomic
from rasura.registry._storage.records.records import Draft
from rasura.registry.evidence.attestations.attest import attest, state_model
from rasura.registry.evidence.attestations.bill_of_materials import write_bill
from rasura.registry.evidence.attestations.spdx_document import write_spdx
from rasura.registry.evidence.proofs.choose_entries import EntryChoice, choose_entries, parse_moment
from rasura.registry.evidence.proofs.event_formats import EVENT_FORMATS
from rasura.registry.evidence.proofs.take_out import (
    choose_indexes,
    export_bundle,
    export_checkpoint,
    export_entries,
    give_checkpoint,
    prove_entry,
    read_entry,
)
from rasura.registry.log.notes.signed_note import VerifyKey
from rasura.registry.log.rotation import ROTATE
from rasura.registry.log.verify import CLOSELY, verify_log
from rasura.registry.trust.checkpoint_age import GIVEN

if TYPE_CHECKING:
    from rasura.registry._storage.records.records import EntryRecord
    from rasura.registry.log.verify import LogReport

__all__ = ["LogCalls"]


class LogCalls(Calls):
    """What a registry says of its log. `Registry` is one."""

    # The log, and what leaves it

    @in_python
    def log(
        self,
        *,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        by: str | None = None,
        patch: str | None = None,
        concept: str | None = None,
        model: str | None = None,
        type: str | None = None,  # noqa: A002 - the field's name
        case: str | None = None,
        newest: bool = True,
        limit: int | None = None,
    ) -> tuple[EntryRecord, ...]:
        """Entries of the audit log, the newest first unless asked otherwise (`rasura audit log`).

        Args:
            since: not earlier; a time, or a text such as "2026-11-29" or "3d" (ago).
            until: earlier than this.
            by: an actor.
            patch: a patch that they name, by identifier or abbreviation.
            concept: they name a patch that erases it.
            model: a model that they are about: its location or UUID.
            type: `patch.apply`, or a noun alone for all that it does.
            case: the case that they belong to.
            newest: the newest first.
            limit: at most so many.

        Raises:
            InputError: no time.
            NotFoundError: no such patch, model or case.
        """
        choice = self._choice(since, until, by, patch, concept, model, type, case)
        return tuple(choose_entries(self.store, choice, newest=newest, limit=limit))

    @in_python
    def verify(self, *, vkey: str | None = None, kept: bytes | None = None, every_signature: bool = False) -> LogReport:
        """Check the log's tree, its signatures, and that replaying it gives the tables (`rasura audit verify`).

        Args:
            vkey: the log's public key, from outside the registry; None: the registry names its own.
            kept: a checkpoint of this log that somebody kept; the log must continue it.
            every_signature: of a long log verify those of old checkpoints, too.

        Raises:
            AuditError: the first thing found wrong.
        """
        pinned, closely = VerifyKey.parse(vkey) if vkey else None, None if every_signature else CLOSELY
        return verify_log(self.store, vkey=pinned, kept=kept, closely=closely)

    @in_python
    def entry(self, index: int) -> EntryRecord:
        """One entry (`rasura audit show`).

        Raises:
            NotFoundError: there is none.
        """
        return read_entry(self.store, index)[0]

    @in_python
    def prove(self, index: int | None = None, *, case: str | None = None) -> bytes:
        """A C2SP tlog-proof of one entry, for somebody without the registry (`rasura audit prove`).

        Args:
            index: which entry; or
            case: a case, all of whose entries are given as a bundle.

        Raises:
            InputError: both or neither.
            NotFoundError: there is no such entry.
            AuditError: the log is not what was signed.
        """
        if (index is None) == (case is None):
            raise InputError("expected an entry or a case, one of the two", hint="rasura audit prove N")
        if index is not None:
            return prove_entry(self.store, index)
        return b"".join(export_bundle(self.store, choose_indexes(self.store, EntryChoice(case=case))))

    @in_python
    def checkpoint(self, file: str | Path | None = None, *, reason: str = "") -> bytes:
        """The newest signed checkpoint, to keep where nobody can change it (`rasura audit checkpoint`).

        Args:
            file: a new file to write it to; the log then notes that it was given out. None: it is only returned.
            reason: why; goes into the log.

        Raises:
            AuditError: it is not signed by the log's key.
            ExistsError, RegistryError: the file is there, or it or the log cannot be written.
        """
        if file is None:
            return export_checkpoint(self.store)
        self.store.check_reason(reason)
        if Path(file).exists():
            raise ExistsError(f"{file} exists already")
        draft = Draft(self.actor, reason, GIVEN, "success")
        return give_checkpoint(self.store, lambda data: write_atomic(Path(file), data), draft)[0]

    @in_python
    def export_log(
        self,
        format: Literal["bundle", "jsonl", "cloudevents", "ocsf", "cef", "intoto"] = "bundle",  # noqa: A002
        *,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        by: str | None = None,
        patch: str | None = None,
        concept: str | None = None,
        model: str | None = None,
        type: str | None = None,  # noqa: A002
        case: str | None = None,
        checkpoint: bytes | None = None,
    ) -> Iterator[bytes]:
        """The log, or the entries that fit, line by line (`rasura audit export`); see `log` for what chooses.

        Args:
            format: a bundle has entries with their proofs, and what they tell of; the others are one line an entry.
            since: as for `log`.
            until: as for `log`.
            by: as for `log`.
            patch: as for `log`.
            concept: as for `log`.
            model: as for `log`.
            type: as for `log`.
            case: as for `log`.
            checkpoint: one of this log that somebody kept; the bundle proves that the log continues it.

        Raises:
            InputError: no entry fits a bundle; a checkpoint for another format than that.
            AuditError: the log is not what was signed.
        """
        if checkpoint is not None and format != "bundle":
            raise InputError("only a bundle proves that a log continues a checkpoint", hint="rasura audit export")
        choice = self._choice(since, until, by, patch, concept, model, type, case)
        if format == "bundle":
            return export_bundle(self.store, choose_indexes(self.store, choice), kept=checkpoint)
        spell = EVENT_FORMATS[format]
        return (spell(entry, body) + b"\n" for entry, body in export_entries(self.store, choice))

    @in_python
    def rotate_log_key(self, *, reason: str = "") -> EntryRecord:
        """Hand the log to a new key, signed by the old one and the new (`rasura audit rotate-key`).

        Raises:
            RegistryError: the key is not here, or cannot be written; nothing was changed.
        """
        return self.store.rotate_log_key(Draft(self.actor, reason, ROTATE, "success"))

    @in_python
    def attest(
        self,
        model: str | Path,
        *,
        format: Literal["intoto", "cyclonedx", "spdx"] = "intoto",  # noqa: A002 - the option's name
        key: str | None = None,
    ) -> bytes:
        """What a model on disk is, signed, or as a bill of materials or an SPDX document (`rasura attest`).

        Raises:
            NotFoundError: nothing was ever applied to it here.
            DriftError: it is not what the registry last wrote.
            InputError: several keys can sign, and none was named.
        """
        found = state_model(self.store, Path(model), self._progress)
        if format == "intoto":
            return attest(self.store, found, key)
        write = write_bill if format == "cyclonedx" else write_spdx
        return write(found, name=Path(model).name, version=__version__)

    def _choice(  # noqa: PLR0917 - in the order of the calls above
        self,
        since: datetime | str | None,
        until: datetime | str | None,
        by: str | None,
        patch: str | None,
        concept: str | None,
        model: str | None,
        type_: str | None,
        case: str | None,
    ) -> EntryChoice:
        def moment(given: datetime | str | None) -> datetime | None:
            return parse_moment(given, self.store.now()) if isinstance(given, str) else given

        named = None if patch is None else self.store.resolve_patch(patch)
        return EntryChoice(moment(since), moment(until), by, named, concept, model, type_, case)
