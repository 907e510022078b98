"""Opening a case, closing it, holding it, and deleting what was said in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rasura.patches._io.files import read_regular
from rasura.patches.errors import ConflictError, InputError, NotFoundError
from rasura.registry._storage.files.vault import MAX_ITEM_BYTES
from rasura.registry._storage.records.case_record import CaseRecord, check_case_id
from rasura.registry._storage.records.records import Draft
from rasura.registry._storage.records.validation import check_text
from rasura.registry.cases.retention import RETENTION, check_class, require_over
from rasura.registry.evidence.proofs.choose_entries import EntryChoice, choose_entries
from rasura.registry.log.verify import LogReport, verify_log

if TYPE_CHECKING:
    from rasura.registry.apply.receipt import Actor
    from rasura.registry.registry import Registry

__all__ = [
    "PICTURE",
    "REQUESTER",
    "TEXT",
    "Forgotten",
    "close_case",
    "foresee_forgetting",
    "forget_case",
    "hold_case",
    "keep_picture",
    "open_case",
    "read_said",
    "reopen_case",
]

REQUESTER: Final = "requester"
TEXT: Final = "text"
PICTURE: Final = "picture-"
_MAX_REQUESTER: Final = 1000
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What deleting the personal data of a case left.

    Attributes:
        record: the case.
        items: what was deleted, by name.
        index: of the entry that says so.
        log: the log, verified afterwards: its tree, signatures and tables.
    """

    record: CaseRecord
    items: tuple[str, ...]
    index: int
    log: LogReport


def open_case(
    registry: Registry,
    case_id: str,
    actor: Actor,
    *,
    received: datetime | None = None,
    due: datetime | None = None,
    requester: str = "",
    text: bytes = b"",
    retention: str = "",
) -> CaseRecord:
    """Open a case; who asked and what they wrote go into the vault.

    Args:
        registry: where.
        case_id: number of the ticket: it stands in the log for ever, so it names nobody.
        actor: who opens it.
        received: when the request came; None: now.
        due: until when something must be done; None: nobody set a limit.
        requester: who asked: a name, an address, a reference.
        text: what they wrote.
        retention: its class, one of those in the policy in force.

    Raises:
        ExistsError: there is a case of this identifier.
        InputError: an identifier or text that cannot be kept, or a class that the policy does not have.
    """
    check_case_id(case_id)
    check_text("requester", requester, limit=_MAX_REQUESTER, empty=True)
    now = registry.now()
    items = {name: data for name, data in ((REQUESTER, requester.encode()), (TEXT, text)) if data}
    record = CaseRecord(case_id, received or now, due, now, None, held=False, forgotten_at=None, commitments={})
    draft = _draft(actor, "case.open")
    if retention:
        check_class(registry, retention)
        draft = replace(draft, details={RETENTION: retention})
    return registry.open_case(record, items, draft)


def close_case(registry: Registry, case_id: str, actor: Actor) -> CaseRecord:
    """Close a case: nothing more can carry its identifier.

    Raises:
        InputError: no reason was given: it is what the record says of how the case ended.
        ConflictError: it is closed.
    """
    record = registry.case(case_id)
    if not actor.reason.strip():
        raise InputError("expected how the case ended, got nothing", hint="--reason TEXT")
    if record.closed_at is not None:
        raise ConflictError(f"case {case_id} is closed", hint=f"rasura case show {case_id}")
    after = replace(record, closed_at=registry.now())
    registry.change_case(record, after, _draft(actor, "case.close"))
    return after


def reopen_case(registry: Registry, case_id: str, actor: Actor) -> CaseRecord:
    """Open a closed case again; its clock is the one that it had.

    Raises:
        ConflictError: it is open.
    """
    record = registry.case(case_id)
    if record.closed_at is None:
        raise ConflictError(f"case {case_id} is open", hint=f"rasura case show {case_id}")
    after = replace(record, closed_at=None)
    registry.change_case(record, after, _draft(actor, "case.reopen"))
    return after


def hold_case(registry: Registry, case_id: str, actor: Actor, *, held: bool = True) -> tuple[CaseRecord, bool]:
    """Put a legal hold on a case, or take it off.

    Returns:
        The case, and whether that changed anything.

    Raises:
        InputError: no reason was given: somebody will ask on whose order.
        ConflictError: its personal data was deleted already.
    """
    record = registry.case(case_id)
    if not actor.reason.strip():
        raise InputError("expected on whose order, got nothing", hint="--reason TEXT")
    if held and record.forgotten_at is not None:
        raise ConflictError(
            f"case {case_id}: its personal data was deleted, there is nothing to hold",
            hint=f"rasura case show {case_id}",
        )
    after = replace(record, held=held)
    changed = registry.change_case(record, after, _draft(actor, "case.hold" if held else "case.release"))
    return after, changed


def foresee_forgetting(registry: Registry, case_id: str) -> CaseRecord:
    """The case whose data `forget_case` would delete; nothing is deleted.

    Raises:
        ConflictError: as for `forget_case`.
    """
    record = registry.case(case_id)
    if record.held:
        raise ConflictError(
            f"case {case_id} is under a legal hold: nothing was deleted",
            hint=f"rasura case release {case_id} --reason TEXT",
        )
    if record.closed_at is None:
        raise ConflictError(
            f"case {case_id} is open: nothing was deleted", hint=f"rasura case close {case_id} --reason TEXT"
        )
    if record.forgotten_at is None:
        require_over(registry, record)
    return record


def forget_case(registry: Registry, case_id: str, actor: Actor) -> Forgotten:
    """Delete who asked, what they wrote and what pictures show; the log stays as it is, and is verified.

    Raises:
        ConflictError: the case is open, a legal hold is on it, or the policy still keeps it.
        RegistryError: something cannot be deleted; no entry says that it was.
    """
    record = foresee_forgetting(registry, case_id)
    after = record if record.forgotten_at is not None else replace(record, forgotten_at=registry.now())
    if after is record:
        registry.vault.forget(case_id)  # what came back with a backup
    else:
        registry.forget_case(record, after, _draft(actor, "case.forget"))
    (told,) = choose_entries(registry, EntryChoice(case=case_id, type="case.forget"), limit=1)
    return Forgotten(after, tuple(sorted(record.commitments)), told.index, verify_log(registry))


def keep_picture(registry: Registry, case_id: str, data: bytes, actor: Actor) -> str:
    """Keep a picture with a case: what a model drew may show a person.

    Returns:
        What it is called there.

    Raises:
        InputError: neither PNG nor JPEG, or too large.
        ConflictError: the case is closed.
    """
    record = registry.case(case_id)
    if record.closed_at is not None:
        raise ConflictError(f"case {case_id} is closed", hint=f"rasura case reopen {case_id} --reason TEXT")
    if not data.startswith((_PNG, _JPEG)):
        raise InputError("picture of a case: expected PNG or JPEG")
    number = sum(name.startswith(PICTURE) for name in record.commitments) + 1
    name = f"{PICTURE}{number}"
    registry.add_to_case(case_id, {name: data}, _draft(actor, "case.add"))
    return name


def read_said(registry: Registry, record: CaseRecord) -> Mapping[str, bytes]:
    """All that the vault holds of a case, compared with the log's commitments; nothing of one that was forgotten.

    Raises:
        NotFoundError, DigestMismatchError: something is missing or was changed.
    """
    if record.forgotten_at is not None:
        return {}
    return {name: registry.vault.read(record, name) for name in record.commitments}


def read_text(path: Path) -> bytes:
    """What somebody wrote, as it came.

    Raises:
        NotFoundError: there is no such file.
        InputError: too large.
    """
    try:
        return read_regular(path, MAX_ITEM_BYTES)
    except NotFoundError:
        raise NotFoundError(f"file {path} does not exist") from None


def list_pictures(said: Mapping[str, bytes]) -> Sequence[bytes]:
    """The pictures among what was said, in the order in which they came."""
    names = sorted((n for n in said if n.startswith(PICTURE)), key=lambda name: int(name.removeprefix(PICTURE)))
    return [said[name] for name in names]


def _draft(actor: Actor, action: str) -> Draft:
    return Draft(actor.name, actor.reason, action, "success")
