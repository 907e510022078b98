"""What several commands show in the same way: as a line for people, as data for machines.

`format_…` gives a sentence, `list_…` rows of a table, `encode_…` JSON values.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rasura.commands._shared.output import short
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE
from rasura.patches.format.file_names import is_signature
from rasura.patches.plain_numbers import NOTHING, SMALL, say_beside, say_number

if TYPE_CHECKING:
    from rasura.patches.algebra.stack import StackDiff
    from rasura.patches.algebra.strength import Strength
    from rasura.patches.checks.kernels.capacity import Capacity
    from rasura.patches.checks.verdict import Relation, Verdict
    from rasura.patches.solving.conditioning import Conditioning
    from rasura.patches.types import KeyId, PatchId
    from rasura.registry._storage.records.records import EvaluationRecord
    from rasura.registry.registry import Registry
    from rasura.registry.trust.approvals.approve import Approved

FIRST_SCORES: Final = ("forget", "retain", "held_out", "harmonic")  # scores in the order in which people ask for them


def format_removal(relation: "Relation", names: "Mapping[PatchId, str]") -> str:
    """What a patch that is taken out means to one that stays."""
    p, q = (f"{short(i)} {names[i]}" for i in (relation.patch, relation.other))
    share = say_number(relation.value, 2)
    if relation.check == "lost":
        return f"without {p}, patch {q} loses up to {share} of its effect, which was the other's doing"
    return f"{p} stays and goes on changing what comes back: {share} of the effect of {q}"


def format_ignored(path: str) -> str:
    """A file beside a patch that was not taken in."""
    why = "by a key that does not count here" if is_signature(path.rpartition("/")[2]) else "no signature covers it"
    return f"ignored {path}: {why}"


def format_new_signers(keys: "Sequence[KeyId]", *, dry_run: bool = False) -> str:
    """Signatures that came with a patch that was here."""
    return f"{'would be' if dry_run else 'is'} signed by {', '.join(map(short, keys))}, too"


def format_capacity(room: "Capacity") -> str:
    """The room that a stack takes, for people."""
    return f"{'little room is left: ' if room.low else ''}{room}"


def encode_capacity(room: "Capacity | None") -> dict[str, int] | None:
    """The same for machines."""
    if room is None:
        return None
    return {
        "width": room.width,
        "invariants": room.invariants,
        "retained": room.retained,
        "patches": room.patches,
        "free": room.free,
    }


def format_conditioning(judged: "Conditioning") -> list[str]:
    """Sentences on concepts that can hardly be told apart; none where all can."""
    return [
        f"{', '.join(group.concepts)} can hardly be told apart (condition {say_number(group.condition)}): "
        f"{group.suggestion}"
        for group in judged.groups
    ]


def encode_conditioning(judged: "Conditioning") -> dict[str, Any]:
    """The same for machines; numbers as decimals, because a condition may be infinite."""
    return {
        "condition": f"{judged.condition:.3e}",
        "left": {concept: f"{share:.3e}" for concept, share in judged.left.items()},
        "groups": [{"concepts": list(g.concepts), "condition": f"{g.condition:.3e}"} for g in judged.groups],
    }


def format_place(location: str) -> str:
    """A model's location as people in the working folder would write it; a stack's name stays what it is."""
    try:
        return str(Path(location).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return location


def format_set(applied: "Mapping[PatchId, Strength]", names: "Mapping[PatchId, str]") -> str:
    """A set of patches by what they erase, with strengths where they are others than 1."""
    said = [f"{names.get(p, short(p))}" + ("" if s == ONE else f"={s}") for p, s in applied.items()]
    return ", ".join(sorted(said)) or "nothing"


def name_concepts(registry: "Registry", patch_ids: "set[PatchId]") -> "dict[PatchId, str]":
    """What patches erase, for people; of those that are not here, nothing is known."""
    known = {record.patch_id: ", ".join(record.concepts) for record in registry.patches_of(sorted(patch_ids))}
    return {patch_id: known.get(patch_id, "(not here)") for patch_id in patch_ids}


def list_differences(
    before: "Mapping[PatchId, Strength]", after: "Mapping[PatchId, Strength]", concepts: "Mapping[PatchId, str]"
) -> list[tuple[str, str, str, str]]:
    """What comes (+), goes (-) and changes its strength (~), by concept; empty where nothing does."""
    rows = []
    for patch_id in sorted({*before, *after}, key=lambda p: (concepts[p], p)):
        old, new = before.get(patch_id), after.get(patch_id)
        if old != new:
            sign = "+" if old is None else "-" if new is None else "~"
            shown = f"{old} -> {new}" if old and new else str(new or old)
            rows.append((sign, short(patch_id), concepts[patch_id], shown))
    return rows


def encode_difference(diff: "StackDiff") -> dict[str, dict[str, Any]]:
    """The same for machines."""
    return {
        "added": {p: str(s) for p, s in diff.added.items()},
        "removed": {p: str(s) for p, s in diff.removed.items()},
        "changed": {p: {"before": str(old), "after": str(new)} for p, (old, new) in diff.changed.items()},
    }


def list_worst(verdict: "Verdict") -> list[tuple[str, str, str]]:
    """The worst number of each check that has a limit, for people."""
    from rasura.registry.trust.check import find_worst

    limited = {name: worst for name, worst in find_worst(verdict).items() if math.isfinite(worst.limit)}
    return [(name, *say_beside(worst.value, worst.limit)) for name, worst in limited.items()]


def format_number(value: float, limit: float = math.inf) -> str:
    """A share or a ratio as people read it: `0.05`, `< 0.001`, `0` for what arithmetic leaves of nothing.

    Args:
        value: the number.
        limit: what it is held to; beside a small one it is said how small the number is.
    """
    if abs(value) < NOTHING:
        return "0"
    if 0 < value < SMALL <= limit:
        return f"< {SMALL}"
    return say_number(value)


def format_measured(text: str) -> str:
    """A number of a manifest, which has it as text: what is written with an exponent as people read it."""
    try:
        return format_number(float(text)) if "e" in text else text
    except ValueError:
        return text


def format_evaluation(record: "EvaluationRecord") -> str:
    """An evaluation in a line for people."""
    scores = ", ".join(
        f"{name.replace('_', ' ')} {record.summary[name]}" for name in FIRST_SCORES if name in record.summary
    )
    others = len(record.patches) - 1
    beside = f", with {others} other patch{'' if others == 1 else 'es'}" if others else ""
    return f"{short(record.digest)} {record.added_at:%Y-%m-%d}: {scores or 'no scores'} ({record.judge}{beside})"


def encode_evaluation(record: "EvaluationRecord") -> dict[str, Any]:
    """An evaluation for machines, without its report."""
    return {
        "digest": record.digest,
        "base": record.base,
        "patches": {p: str(strength) for p, strength in Stack.of_sixteenths(record.patches).items()},
        "judge": record.judge,
        "summary": dict(record.summary),
        "added_at": record.added_at.isoformat(),
    }


def format_approved(done: "Sequence[Approved]", names: "Mapping[KeyId, str]", *, dry_run: bool) -> str:
    """What was approved, or would be, and by whom, a line each; `names` are those of the keys."""
    verb = "would be approved" if dry_run else "is approved"
    return "\n".join(
        f"{'plan ' if each.subject.kind == 'plan' else ''}{short(each.subject.digest)} "
        f"{verb if each.new else 'was approved already'} by {names[each.key_id]}"
        for each in done
    )


def encode_approved(done: "Sequence[Approved]", *, dry_run: bool) -> dict[str, Any]:
    """The same for machines."""
    each = [{"kind": e.subject.kind, "digest": e.subject.digest, "key_id": e.key_id, "new": e.new} for e in done]
    return {"approved": each, "dry_run": dry_run}
