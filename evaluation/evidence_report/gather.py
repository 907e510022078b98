"""Everything that a report says, gathered from the registry; models are looked at on the way."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from rasura.evaluation.evidence_report.interference_map import draw_map
from rasura.evaluation.evidence_report.kept_pictures import Pictures, read_kept
from rasura.evaluation.evidence_report.measurements import find_evaluations, is_current, say_evaluation
from rasura.evaluation.evidence_report.plain_words import NOT_PROMISED, describe_entry
from rasura.evaluation.evidence_report.signed_report import FORMAT
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import InputError
from rasura.registry._storage.records.validation import instant
from rasura.registry.cases.clock import CaseStanding, read_standing
from rasura.registry.cases.handle_case import REQUESTER, TEXT, list_pictures, read_said
from rasura.registry.evidence.proofs.choose_entries import EntryChoice, choose_entries
from rasura.registry.evidence.proofs.take_out import export_bundle
from rasura.registry.log.entries.stored_entries import EntryFilter
from rasura.registry.standing.models import find_host
from rasura.registry.standing.standing import Placed, find_placed
from rasura.registry.trust.approvals.approve import Subject, find_approvals

if TYPE_CHECKING:
    from rasura.patches._io.json_fields import JsonValue
    from rasura.patches.format.signatures.signing_key import PublicKey
    from rasura.patches.types import Digest, PatchId
    from rasura.registry._storage.records.records import EntryRecord, EvaluationRecord, PatchRecord
    from rasura.registry.registry import Registry

__all__ = ["About", "Gathered", "gather"]

MAX_ENTRIES: Final = 2000


_MAKING: Final = frozenset({"patch.erase", "patch.adopt", "patch.add", "patch.pull", "patch.join"})


@dataclass(frozen=True, slots=True)
class About:
    """What a report is about: a case, a named stack, or a model on disk."""

    kind: Literal["case", "stack", "model"]
    name: str


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a report says, and its pictures.

    Attributes:
        document: for machines.
        pictures: some of each evaluation, by its digest.
        sent: pictures that were kept with the case.
        heat_map: PNG of how the changes stand to each other; b"" where none was drawn.
    """

    document: Mapping[str, JsonValue]
    pictures: Mapping[Digest, Pictures]
    sent: Sequence[bytes]
    heat_map: bytes


@dataclass(frozen=True, slots=True)
class _Scope:
    """What belongs to the report: entries, patches, evaluations, models."""

    standing: CaseStanding | None
    said: Mapping[str, bytes]
    entries: tuple[EntryRecord, ...]
    patches: tuple[PatchRecord, ...]
    evaluations: tuple[EvaluationRecord, ...]
    placed: tuple[Placed, ...]
    sets: tuple[Mapping[PatchId, int], ...]
    """What is there now, in sixteenths: the stack, or what each of the models has."""


def gather(
    registry: Registry,
    about: About,
    *,
    version: str,
    signer: PublicKey | None,
    withhold: bool,
    names: Mapping[str, str],
) -> Gathered:
    """Gather a report.

    Args:
        registry: where.
        about: of what.
        version: of rasura.
        signer: whose own signature it gets.
        withhold: leave out who asked and what they wrote.
        names: what the files are called: `page`, `twin`.

    Raises:
        NotFoundError: there is no such case, stack or model.
        InputError: nothing in the log is about it, or too much.
        AuditError, DigestMismatchError: something was tampered with.
    """
    scope = _find_scope(registry, about)
    kept = {} if withhold else read_kept(scope.said)
    heat_map, interference = draw_map(registry, scope.placed)
    concepts = {record.patch_id: ", ".join(record.concepts) for record in registry.patches()}
    places = {host.host_id: Path(host.location).name for host in registry.hosts()}
    bundle = b"".join(export_bundle(registry, [entry.index for entry in scope.entries])).decode()
    head, anew = registry.head(), _find_anew(scope)
    document: dict[str, JsonValue] = {
        "format": FORMAT,
        "about": {"kind": about.kind, "name": about.name},
        "made": {"at": instant(registry.now()), "rasura": version},
        "files": dict(names),
        "signer": None if signer is None else {"key_id": signer.key_id, "pem": signer.pem},
        "log": {
            "origin": registry.origin,
            "vkey": registry.log_vkey(),
            "size": head.size,
            "root": head.root.hex(),
            "bundle": bundle,
        },
        "case": None if scope.standing is None else _say_case(scope.standing, scope.said, withhold=withhold),
        "events": [_say_event(entry, concepts, places) for entry in scope.entries],
        "patches": [
            _say_patch(registry, record, anew=record.patch_id in anew, strengths=_find_strengths(scope, record))
            for record in scope.patches
        ],
        "evaluations": [
            say_evaluation(registry, each, kept.get(each.digest), current=is_current(each, scope.sets))
            for each in scope.evaluations
        ],
        "places": [_say_place(each) for each in scope.placed],
        "interference": interference,
        "not_promised": list(NOT_PROMISED),
    }
    return Gathered(document, kept, () if withhold else list_pictures(scope.said), heat_map)


def _find_scope(registry: Registry, about: About) -> _Scope:
    standing, said = None, {}
    every = find_placed(registry, look=True, progress=lambda *_: None)
    if about.kind == "case":
        standing = read_standing(registry, about.name)
        said = dict(read_said(registry, standing.record))
        entries: Iterable[EntryRecord] = standing.entries
        ids = list(dict.fromkeys(p for e in standing.entries if e.outcome in {"success", "done"} for p in e.patches))
    elif about.kind == "stack":
        ids = list(registry.stack(about.name).patches)
        entries = _entries_of_stack(registry, about.name, ids)
    else:
        host = find_host(registry, Path(about.name))
        ids = list(host.applied)
        entries = choose_entries(registry, EntryChoice(model=host.host_id), newest=False)
    records = {record.patch_id: record for record in registry.patches()}
    patches = tuple(records[p] for p in ids if p in records)
    wanted = set(ids)
    placed = tuple(each for each in every if wanted & set(each.applied))
    if about.kind == "model":
        placed = tuple(each for each in every if each.host.host_id == host.host_id)
    entries = tuple(itertools.islice(entries, MAX_ENTRIES + 1))
    if not entries or len(entries) > MAX_ENTRIES:
        raise InputError(
            f"report: expected 1 to {MAX_ENTRIES} entries of the log about {about.name}, got {len(entries) or 'none'}",
            hint="rasura audit log",
        )
    now = [registry.stack(about.name).patches] if about.kind == "stack" else [each.host.applied for each in placed]
    evaluations = find_evaluations(registry, standing, ids, now)
    return _Scope(standing, said, entries, patches, evaluations, placed, tuple(now))


def _find_strengths(scope: _Scope, record: PatchRecord) -> list[str]:
    """At which strengths a change stands in what the report is about; empty where it stands nowhere."""
    found = {applied[record.patch_id] for applied in scope.sets if record.patch_id in applied}
    return [str(Strength(sixteenths)) for sixteenths in sorted(found)]


def _entries_of_stack(registry: Registry, name: str, ids: Sequence[PatchId]) -> list[EntryRecord]:
    found = {entry.index: entry for entry, _ in registry.changes_of_stack(name)}
    for patch_id in ids:
        found |= {entry.index: entry for entry in registry.entries(EntryFilter(patch=patch_id))}
    return [found[index] for index in sorted(found)]


def _say_case(standing: CaseStanding, said: Mapping[str, bytes], *, withhold: bool) -> JsonValue:
    record = standing.record
    times = ("received_at", "due_at", "opened_at", "closed_at", "forgotten_at")
    shown = {} if withhold else said
    return {
        **{name: None if (at := getattr(record, name)) is None else instant(at) for name in times},
        "state": standing.state,
        "held": record.held,
        "late": standing.late,
        "acted": None if standing.acted is None else standing.acted.index,
        "seconds": None if standing.took is None else int(standing.took.total_seconds()),
        "requester": _read_text(shown.get(REQUESTER)),
        "text": _read_text(shown.get(TEXT)),
        "withheld": withhold,
        "commitments": dict(record.commitments),
    }


def _read_text(data: bytes | None) -> str | None:
    """What somebody wrote, as text; what no text can hold is replaced."""
    return None if data is None else data.decode("utf-8", "replace").replace("\0", "\ufffd")


def _say_event(entry: EntryRecord, concepts: Mapping[PatchId, str], places: Mapping[str, str]) -> JsonValue:
    what = ", ".join(dict.fromkeys(concepts[p] for p in entry.patches if p in concepts))
    return {
        "index": entry.index,
        "time": instant(entry.time),
        "actor": entry.actor,
        "action": entry.action,
        "outcome": entry.outcome,
        "reason": entry.reason,
        "said": describe_entry(entry, what, places.get(entry.host or "", "")),
        "after": entry.after,
        "leaf": entry.leaf_hash.hex(),
    }


def _find_anew(scope: _Scope) -> frozenset[PatchId]:
    """Changes that a case's actions only computed anew beside what it asked for: nobody asked for them in it."""
    if scope.standing is None:
        return frozenset()
    made = [(entry.action, p) for entry in scope.entries if entry.outcome == "success" for p in entry.patches]
    asked = {p for action, p in made if action != "patch.rebase" and action in _MAKING}
    names = {name for record in scope.patches if record.patch_id in asked for name in record.concepts}
    return frozenset(
        record.patch_id
        for record in scope.patches
        if ("patch.rebase", record.patch_id) in made
        and record.patch_id not in asked
        and not names & set(record.concepts)
        and names
    )


def _say_patch(registry: Registry, record: PatchRecord, *, anew: bool, strengths: list[str]) -> JsonValue:
    key = next((key for key in registry.keys() if key.key_id == record.key_id), None)
    approved = find_approvals(registry, Subject("patch", record.patch_id))
    return {
        "id": record.patch_id,
        "concepts": list(record.concepts),
        "becomes": record.anchor,
        "method": record.method,
        "signed_by": None if key is None else key.name,
        "key_id": record.key_id,
        "approved_by": [{"name": each.name, "key_id": key_id} for key_id, each in sorted(approved.items())],
        "bytes": record.size,
        "made_at": instant(record.added_at),
        "strengths": list(strengths),
        **({"anew": True} if anew else {}),
    }


def _say_place(placed: Placed) -> JsonValue:
    last = placed.last
    return {
        "model": Path(placed.host.location).name,
        "location": placed.host.location,
        "host": placed.host.host_id,
        "base": placed.base,
        "patches": {str(patch_id): str(strength) for patch_id, strength in placed.applied.items()},
        "state": placed.host.state,
        "sight": placed.sight,
        "since": None if last is None else instant(last.time),
        "entry": None if last is None else last.index,
    }
