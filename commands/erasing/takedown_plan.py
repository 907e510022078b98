"""What `rasura takedown` and `rasura withdraw` show: the plan, and what came of it."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from rasura.commands._shared.output import clip, line, short, table, verdict
from rasura.commands._shared.views import format_number
from rasura.commands.erasing.method_options import METHOD
from rasura.patches.algebra.strength import ONE

if TYPE_CHECKING:
    from rasura.evaluation.look import Seen
    from rasura.registry.takedown.carry_out import CarriedOut
    from rasura.registry.takedown.plan import TakedownPlan
    from rasura.registry.takedown.solving.planned import PlannedPatch

_NAMES: Final = 40  # characters of a cell


def encode_plan(plan: "TakedownPlan", seen: Sequence["Seen"], done: "CarriedOut | None") -> dict[str, Any]:
    """A plan for machines, with what was seen and what was done."""
    return {
        "place": plan.ground.place.source,
        "done": done is not None,
        "changes": plan.changes,
        "after": {i: str(s) for i, s in plan.after.items()},
        "made": [
            {
                "id": item.patch.patch_id,
                "concept": item.patch.manifest.concept.text,
                "anchor": item.patch.manifest.concept.anchor,
                "names": list(item.patch.manifest.names),
                "method": item.patch.manifest.eraser.name,
                "templates": len(item.patch.manifest.concept.templates),
                "supersedes": item.supersedes,
                "measured": dict(item.patch.manifest.measured),
            }
            for item in plan.made
        ],
        "withdrawn": list(plan.withdrawn),
        "uncovered": list(plan.uncovered),
        "covered": [
            {"concept": c.wanted.concept, "by": c.patch, "concept_of": c.by, "left": f"{c.left:.3e}"}
            for c in plan.covered
        ],
        "already": dict(plan.already),
        "raised": [
            {"concept": r.wanted.concept, "patch": r.patch, "strength_before": str(r.before)} for r in plan.raised
        ],
        "strengths": [
            {
                "id": i,
                "concept": patch.manifest.concept.text,
                "before": None if (before := plan.strength_before(i)) is None else str(before),
                "after": str(plan.after[i]),
            }
            for i, patch in plan.patches.items()
        ],
        "checks": {str(name): {"value": value, "limit": str(limit)} for name, (value, limit) in plan.worst.items()},
        "seen": [
            {"concept": s.concept, "n": s.n, "before": s.before, "after": s.after, "erased": s.erased}
            for s in seen
            if not s.kept
        ],
        "kept": [
            {"concept": s.concept, "n": s.n, "before": s.before, "after": s.after, "still_seen": s.holds}
            for s in seen
            if s.kept
        ],
        "looked_at": bool(seen),
        "notices": list(plan.notices),
        "before_digest": done.receipt.before if done and done.receipt else None,
        "after_digest": done.receipt.after if done and done.receipt else None,
        "pristine": bool(done and done.receipt and done.receipt.pristine),
    }


def print_plan(plan: "TakedownPlan", seen: Sequence["Seen"], done: "CarriedOut | None", hosts: Sequence[str]) -> None:
    """A plan for people: what is known, made and checked, what was seen, and what was done."""
    place = plan.ground.place.source.removeprefix("@")
    _say_known(plan)
    if not plan.changes:
        line(f"{place} stays as it is: nothing to do")
        return
    for notice in plan.notices:
        line(notice)
    if plan.patches and not (plan.covered and not plan.made and not plan.raised):
        _print_patches(plan)
    worst = {str(name): number for name, number in plan.worst.items() if str(name) in {"pair", "stack", "own"}}
    named = [f"{name} {format_number(value, limit)}" for name, (value, limit) in worst.items()]
    if named:
        verdict(f"checks passed; largest: {', '.join(named)}", good=True)
    if seen:
        rows = [
            (s.concept, *((f"{s.before}/{s.n}", f"{s.after}/{s.n}") if s.n else ("-", "-")), "kept" if s.kept else "")
            for s in seen
        ]
        table(("seen", "base", "then", ""), rows)
        if kept := [s for s in seen if s.kept]:
            still = sum(s.holds for s in kept)
            verdict(f"{still} of {len(kept)} kept concepts are still seen", good=still == len(kept))
        if unseen := [s.concept for s in seen if not s.n]:
            line(f"not looked at, because the judge has no such label: {', '.join(unseen)}")
    else:
        line("not looked at: no judge was named (--judge)")
    _say_done(plan, done, hosts)


def _say_known(plan: "TakedownPlan") -> None:
    for concept, patch_id in plan.already.items():
        line(f"{concept} is erased already, by {short(patch_id)}")
    for cover in plan.covered:
        line(
            f"{cover.wanted.concept} is erased already, with {cover.by} ({short(cover.patch)} leaves {cover.left:.2f})"
        )
    for concept in plan.uncovered:
        line(f"{concept} has no patch of its own: it stays erased for as long as what covers it does")
    for patch_id in plan.withdrawn:
        line(f"{plan.ground.patches[patch_id].manifest.concept.text} comes back: {short(patch_id)} is taken out")


def _say_done(plan: "TakedownPlan", done: "CarriedOut | None", hosts: Sequence[str]) -> None:
    if done is None:
        line(f"plan only: {plan.ground.place.source.removeprefix('@')} is as it was")
        return
    if done.receipt is not None:
        receipt = done.receipt
        if receipt.changed:
            line(f"{receipt.location} has {_count(plan)}: {short(receipt.before)} -> {short(receipt.after)}")
        if receipt.pristine:
            line("nothing is applied any more: all that patches touched is the original again")
    if done.stack is not None:
        line(f"stack {done.stack.name} has {_count(plan)} now")
        for location in hosts:
            line(f"next: rasura patch switch {done.stack.name} --model {shlex.quote(location)}")


def _print_patches(plan: "TakedownPlan") -> None:
    """Every patch afterwards; other names and methods are told where there are any that nobody would expect."""
    made = {item.patch.patch_id: item for item in plan.made}
    manifests = {i: patch.manifest for i, patch in plan.patches.items()}
    methods = {m.eraser.name for m in manifests.values()}
    columns: dict[str, list[str]] = {
        "patch": [short(i) for i in manifests],
        "concept": [m.concept.text for m in manifests.values()],
        "also called": [clip(", ".join(m.names), _NAMES) for m in manifests.values()],
        "becomes": [m.concept.anchor or "(nothing)" for m in manifests.values()],
        "method": [m.eraser.name if methods != {METHOD} else "" for m in manifests.values()],
        "strength": _list_strengths(plan),
        "": [_say_place(made.get(i)) for i in manifests],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells) or not name}
    table(list(shown), list(zip(*shown.values(), strict=True)))


def _list_strengths(plan: "TakedownPlan") -> list[str]:
    """At which strength each patch stands afterwards, and before where that is another; nothing where all are 1."""
    told = [(plan.strength_before(i) or plan.after[i], plan.after[i]) for i in plan.patches]
    if {strength for each in told for strength in each} <= {ONE}:
        return [""] * len(told)
    return [str(after) if before == after else f"{before} -> {after}" for before, after in told]


def _say_place(item: "PlannedPatch | None") -> str:
    return "" if item is None else "new" if item.supersedes is None else f"in place of {short(item.supersedes)}"


def _count(plan: "TakedownPlan") -> str:
    return f"{len(plan.after)} patch{'' if len(plan.after) == 1 else 'es'}"
