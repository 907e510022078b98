"""Cases: requests with their clocks, and what was said in them."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from rasura.patches.errors import ConflictError, ExistsError, NotFoundError
from rasura.patches.types import Digest
from rasura.registry._resources.resource import Opened
from rasura.registry._storage.database.lookup import suggest
from rasura.registry._storage.database.tables import CaseItemRow, CaseRow
from rasura.registry._storage.files.vault import Vault
from rasura.registry._storage.records.case_record import CaseRecord, check_case_id
from rasura.registry._storage.records.records import Draft
from rasura.registry.log.entries.entry import RowChange
from rasura.registry.log.entries.entry_changes import encode_change
from rasura.registry.log.told.checks import check_absent, check_kind, check_told
from rasura.registry.log.writer import CASE, Belonging

__all__ = ["Cases", "every"]

_HINT = "rasura case list"


class Cases(Opened):
    """What a registry does with cases. What may be done with one is the business of `rasura.registry.cases`."""

    @property
    def vault(self) -> Vault:
        """Personal data, which can be deleted."""
        return Vault(self._journal.location.cases)

    def cases(self) -> tuple[CaseRecord, ...]:
        """All cases, in the order in which they were received."""
        with self.reading() as session:
            return every(session)

    def case(self, case_id: str) -> CaseRecord:
        """The case of this identifier.

        Raises:
            NotFoundError: there is none.
        """
        with self.reading() as session:
            return load(session, case_id)

    def open_case(self, record: CaseRecord, items: Mapping[str, bytes], entry: Draft) -> CaseRecord:
        """Adds a case, and puts what was said into the vault; the record gets the commitments to it.

        Raises:
            ExistsError: there is one of this identifier.
        """

        def work(session: Session) -> Sequence[RowChange | None]:
            nonlocal record
            if session.get(CaseRow, record.case_id) is not None:
                raise ExistsError(f"case {record.case_id} is there", hint=f"rasura case show {record.case_id}")
            check_absent(session, "case", (record.case_id,))
            self.vault.forget(record.case_id)  # what a process left that died before its commit
            record = replace(record, commitments=self.vault.put(record.case_id, items) if items else {})
            _write(session, record)
            return [encode_change(record)]

        try:
            self._journal.change(_about(entry, record.case_id), work)
        except BaseException:
            self._drop_uncommitted(record.case_id)
            raise
        return record

    def change_case(self, before: CaseRecord, after: CaseRecord, entry: Draft) -> bool:
        """Replaces what is known of a case; False where it is the same.

        Raises:
            ConflictError: it is no longer what `before` says.
        """

        def work(session: Session) -> Sequence[RowChange | None]:
            _check_unmoved(session, before)
            if before == after:
                return []
            _write(session, after)
            return [encode_change(after)]

        return self._journal.change(_about(entry, before.case_id), work) is not None

    def add_to_case(self, case_id: str, items: Mapping[str, bytes], entry: Draft) -> CaseRecord:
        """Puts more into the vault; what is there under a name stays.

        Raises:
            ExistsError: the case has something of this name.
        """
        after = before = self.case(case_id)

        def work(session: Session) -> Sequence[RowChange | None]:
            nonlocal after
            _check_unmoved(session, before)
            taken = sorted(items.keys() & before.commitments.keys())
            if taken:
                raise ExistsError(f"case {case_id} has a {taken[0]}", hint=f"rasura case show {case_id}")
            after = replace(before, commitments={**before.commitments, **self.vault.put(case_id, items)})
            _write(session, after)
            return [encode_change(after)]

        self._journal.change(_about(entry, case_id), work)
        return after

    def forget_case(self, before: CaseRecord, after: CaseRecord, entry: Draft) -> None:
        """Deletes what lies in the vault, then says so in the log: never the other way round.

        Raises:
            ConflictError: the case is no longer what `before` says.
            RegistryError: something cannot be deleted; no entry says that it was.
        """

        def work(session: Session) -> Sequence[RowChange | None]:
            _check_unmoved(session, before)
            self.vault.forget(before.case_id)
            _write(session, after)
            return [encode_change(after)]

        self._journal.change(_about(entry, before.case_id), work)

    def belonging(self, case_id: str) -> AbstractContextManager[None]:
        """All that is logged inside belongs to this case.

        Raises:
            NotFoundError: there is no such case.
            ConflictError: it is closed.
        """
        self._check_open(case_id)
        return self._journal.belonging(Belonging((case_id,)))

    def belonging_by_ticket(self, tickets: Collection[str]) -> AbstractContextManager[None]:
        """Entries of a ticket that is a case belong to it; those without a ticket, to all such cases."""
        found = tuple(case.case_id for case in self.cases() if case.case_id in tickets)
        return self._journal.belonging(Belonging((), found))

    @property
    def cases_now(self) -> tuple[str, ...]:
        """The cases that everything belongs to which is logged now."""
        return self._journal.cases.always

    def belong_to(self, case_id: str) -> None:
        """All that is logged from now on, until this registry is closed, belongs to this case.

        Raises:
            NotFoundError: there is no such case.
            ConflictError: it is closed.
        """
        self._check_open(case_id)
        self._journal.cases = Belonging((case_id,))

    def _check_open(self, case_id: str) -> None:
        if self.case(case_id).closed_at is not None:
            raise ConflictError(f"case {case_id} is closed", hint=f"rasura case reopen {case_id} --reason TEXT")

    def _drop_uncommitted(self, case_id: str) -> None:
        with self.snapshot() as session:
            there = session.get(CaseRow, case_id) is not None
        if not there:
            self.vault.forget(case_id)


def _about(entry: Draft, case_id: str) -> Draft:
    return replace(entry, details={**entry.details, CASE: case_id})


def load(session: Session, case_id: str) -> CaseRecord:
    """The case of this identifier.

    Raises:
        NotFoundError: there is none.
    """
    check_case_id(case_id)
    records = _records(session, select(CaseRow).where(CaseRow.case_id == case_id))
    if not records:
        check_absent(session, "case", (case_id,))
        near = suggest(case_id, session.scalars(select(CaseRow.case_id)).all())
        raise NotFoundError(f"no case {case_id}{near}", hint=_HINT)
    return records[0]


def every(session: Session) -> tuple[CaseRecord, ...]:
    """All cases, in the order in which they were received."""
    found = _records(session, select(CaseRow).order_by(CaseRow.received_at, CaseRow.case_id))
    check_kind(session, "case", found)
    return found


def _records(session: Session, query: Select[CaseRow]) -> tuple[CaseRecord, ...]:
    rows = session.scalars(query).all()
    items: dict[str, dict[str, Digest]] = {row.case_id: {} for row in rows}
    inside = query.with_only_columns(CaseRow.case_id).order_by(None)
    for item in session.scalars(select(CaseItemRow).where(CaseItemRow.case_id.in_(inside)).order_by(CaseItemRow.name)):
        items[item.case_id][item.name] = Digest(item.commitment)
    found = tuple(
        CaseRecord(
            case_id=row.case_id,
            received_at=row.received_at,
            due_at=row.due_at,
            opened_at=row.opened_at,
            closed_at=row.closed_at,
            held=row.held,
            forgotten_at=row.forgotten_at,
            commitments=items[row.case_id],
        )
        for row in rows
    )
    for record in found:
        check_told(session, record)
    return found


def _write(session: Session, record: CaseRecord) -> None:
    row = session.get(CaseRow, record.case_id) or CaseRow(case_id=record.case_id)
    for name in ("received_at", "due_at", "opened_at", "closed_at", "held", "forgotten_at"):
        setattr(row, name, getattr(record, name))
    session.add(row)
    session.flush()  # the items refer to it
    for name, commitment in record.commitments.items():
        if session.get(CaseItemRow, (record.case_id, name)) is None:
            session.add(CaseItemRow(case_id=record.case_id, name=name, commitment=commitment))


def _check_unmoved(session: Session, before: CaseRecord) -> None:
    if load(session, before.case_id) != before:
        raise ConflictError(
            f"case {before.case_id}: somebody changed it at the same time", hint=f"rasura case show {before.case_id}"
        )
