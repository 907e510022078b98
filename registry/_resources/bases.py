"""Bases, retain sets and bases of protected spaces: what patches refer to."""

import json
from dataclasses import replace
from itertools import groupby

from sqlalchemy import select
from sqlalchemy.orm import Session

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import show
from rasura.patches.errors import ExistsError, RegistryError
from rasura.patches.types import Digest, ParamName
from rasura.registry._resources.resource import Opened
from rasura.registry._storage.database.lookup import expand_id
from rasura.registry._storage.database.tables import BaseRow, BasisRow, ParameterRow, RetainSetRow
from rasura.registry._storage.records.base_records import (
    BaseParameter,
    BaseRecord,
    BaseSummary,
    BasisRecord,
    RetainSetRecord,
)
from rasura.registry._storage.records.records import Draft
from rasura.registry.log.entries.entry import RowChange
from rasura.registry.log.entries.entry_changes import encode_change
from rasura.registry.log.told.checks import check_absent, check_told

__all__ = ["Bases", "every_basis", "every_record", "every_retain_set", "insert_basis", "insert_retain_set"]

_HINT = "rasura base list"


class Bases(Opened):
    """What a registry does with bases, and with what patches of them protect."""

    def add_base(self, record: BaseRecord, entry: Draft) -> bool:
        """Adds a base; False where these weights are here under this name.

        Raises:
            ExistsError: the weights have another name here, or the name other weights.
        """
        draft = replace(entry, base=entry.base or record.digest)
        return self._journal.change(draft, lambda session: [insert(session, record)]) is not None

    def bases(self) -> tuple[BaseSummary, ...]:
        """All bases by name, without their parameters."""
        with self.reading() as session:
            return every(session)

    def base(self, ref: str) -> BaseRecord:
        """The base with this name, digest or abbreviation, with its parameters.

        Raises:
            NotFoundError, AmbiguousIdError: no such base, or several.
        """
        with self.reading() as session:
            return load(session, ref)


def insert(session: Session, record: BaseRecord) -> RowChange | None:
    """Adds a base; the same weights under the same name change nothing.

    Raises:
        ExistsError: these weights have another name here, or the name other weights.
    """
    same = session.get(BaseRow, record.digest)
    if same is not None and same.name == record.name:
        return None
    if same is not None:
        raise ExistsError(f"base {record.digest[:12]}: expected it to be new, it is here as {same.name}", hint=_HINT)
    if session.scalar(select(BaseRow.digest).where(BaseRow.name == record.name)) is not None:
        raise ExistsError(f"base: the name {record.name} belongs to other weights", hint=_HINT)
    check_absent(session, "base", (record.digest,))
    session.add(
        BaseRow(
            digest=record.digest,
            name=record.name,
            source=record.source,
            text_encoder=record.text_encoder,
            tokenizer=record.tokenizer,
            added_at=record.added_at,
        )
    )
    session.flush()  # the parameters refer to it
    session.add_all(_parameter_row(record.digest, at, p) for at, p in enumerate(record.parameters))
    return encode_change(record)


def load(session: Session, ref: str) -> BaseRecord:
    """The base with this name, digest or abbreviation, with its parameters.

    Raises:
        NotFoundError, AmbiguousIdError: no such base, or several.
    """
    row = session.scalar(select(BaseRow).where(BaseRow.name == ref))
    if row is None:
        row = session.get_one(BaseRow, expand_id(session, BaseRow.digest, ref, "base", _HINT, names=BaseRow.name))
    query = select(ParameterRow).where(ParameterRow.base == row.digest).order_by(ParameterRow.position)
    found = _record(row, tuple(map(_parameter, session.scalars(query))))
    check_told(session, found)
    return found


def every(session: Session) -> tuple[BaseSummary, ...]:
    """All bases by name, without their parameters."""
    rows = session.scalars(select(BaseRow).order_by(BaseRow.name))
    return tuple(
        BaseSummary(
            Digest(row.digest), row.name, row.source, Digest(row.text_encoder), Digest(row.tokenizer), row.added_at
        )
        for row in rows
    )


def every_record(session: Session) -> tuple[BaseRecord, ...]:
    """All bases with all parameters: what an audit compares with the log."""
    query = select(ParameterRow).order_by(ParameterRow.base, ParameterRow.position)
    found = {
        base: tuple(map(_parameter, rows)) for base, rows in groupby(session.scalars(query), key=lambda row: row.base)
    }
    rows = session.scalars(select(BaseRow).order_by(BaseRow.digest))
    return tuple(_record(row, found.get(row.digest, ())) for row in rows)


def insert_retain_set(session: Session, record: RetainSetRecord) -> RowChange | None:
    """Adds a retain set; the same prompts keep the name they have here.

    Raises:
        ExistsError: the name belongs to other prompts.
    """
    if session.get(RetainSetRow, record.digest) is not None:
        return None
    if session.scalar(select(RetainSetRow.digest).where(RetainSetRow.name == record.name)) is not None:
        raise ExistsError(f"retain set: the name {record.name} belongs to other prompts")
    session.add(RetainSetRow(digest=record.digest, name=record.name, count=record.count))
    return encode_change(record)


def every_retain_set(session: Session) -> tuple[RetainSetRecord, ...]:
    """All retain sets by name."""
    rows = session.scalars(select(RetainSetRow).order_by(RetainSetRow.name))
    return tuple(RetainSetRecord(Digest(row.digest), row.name, row.count) for row in rows)


def insert_basis(session: Session, record: BasisRecord) -> RowChange | None:
    """Adds a basis; the same digest changes nothing."""
    if session.get(BasisRow, record.digest) is not None:
        return None
    session.add(BasisRow(digest=record.digest, dimension=record.dimension, rank=record.rank, rule=record.rule))
    return encode_change(record)


def every_basis(session: Session) -> tuple[BasisRecord, ...]:
    """All bases of protected spaces by digest."""
    rows = session.scalars(select(BasisRow).order_by(BasisRow.digest))
    return tuple(BasisRecord(Digest(row.digest), row.dimension, row.rank, row.rule) for row in rows)


def _record(row: BaseRow, parameters: tuple[BaseParameter, ...]) -> BaseRecord:
    return BaseRecord(
        Digest(row.digest),
        row.name,
        row.source,
        Digest(row.text_encoder),
        Digest(row.tokenizer),
        parameters,
        row.added_at,
    )


def _parameter_row(base: Digest, position: int, parameter: BaseParameter) -> ParameterRow:
    return ParameterRow(
        base=base,
        position=position,
        name=parameter.name,
        dtype=parameter.dtype,
        shape=canonical_json.dumps(list(parameter.shape)).decode(),
        sha256=parameter.sha256,
        casts=canonical_json.dumps(dict(parameter.casts)).decode(),
    )


def _parameter(row: ParameterRow) -> BaseParameter:
    try:
        shape, casts = json.loads(row.shape), json.loads(row.casts)
        return BaseParameter(ParamName(row.name), row.dtype, tuple(shape), Digest(row.sha256), casts)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise RegistryError(
            f"the row of parameter {show(row.name)} is damaged: expected its shape and casts as JSON",
            hint="rasura audit verify",
        ) from None
