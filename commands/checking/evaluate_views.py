"""What `rasura evaluate` prints of an evaluation, and gives to machines."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rasura.commands._shared.output import fields, line, short, table

if TYPE_CHECKING:
    from rasura.evaluation.report.evaluated import Evaluated
    from rasura.evaluation.report.limits import Outcome

_NUMBERS: Final = ("forget", "retain", "held_out", "harmonic", "forget_paraphrase")


def encode_evaluated(found: "Evaluated", digest: str, new: bool, out: Path | None) -> dict[str, Any]:
    """An evaluation and where it lies, for machines."""
    effort = found.effort
    return {
        "digest": digest,
        "new": new,
        "report": json.loads(found.report),
        "drawn": {"pictures": effort.drawn, "seconds": round(effort.seconds, 3), "reused": effort.reused},
        "limits": [outcome.encode() for outcome in found.outcomes],
        "out": None if out is None else str(out),
    }


def print_evaluated(found: "Evaluated", digest: str, out: Path | None) -> None:
    """The numbers, and where the evaluation lies."""
    print_numbers(found)
    line(f"recorded as {short(digest)}" + ("" if out is None else f"; see {out}"))


def print_numbers(found: "Evaluated") -> None:
    """Print what was evaluated, then accuracies, changes, attacks and the summary."""
    report = json.loads(found.report)
    body = report["body"]
    for patch in body["patches"]:
        what = f"{patch['concept']!r} -> {patch['anchor'] or '(nothing)'!r}"
        cost = f"strength {patch['strength']}, rank {patch['rank']}, {patch['bytes']} bytes"
        line(f"{short(patch['id'])} {what}: {cost}")
    line(f"judged by {found.judge}")
    table(("group", "asked", "kind", "n", "base", "patched", "95 %"), list(map(_score, _shown(body["scores"]))))
    table(("pictures", "n", "SSIM", "change", "identical", "Fréchet"), list(map(_change, body["changes"])))
    if body["attacks"]:
        table(("attack", "on", "model", "back", "95 %", "prompt"), list(map(_attack, body["attacks"])))
    fields([(name.replace("_", " "), report["summary"][name]) for name in _NUMBERS if name in report["summary"]])
    if found.outcomes:
        table(("limit", "allowed", "found", "kept"), list(map(_outcome, found.outcomes)))
    effort = found.effort
    if effort.drawn:
        each = f"{effort.seconds / effort.drawn:.2f} s each"
        line(f"drew {effort.drawn} pictures, {each}; {effort.reused} were at hand")
    else:
        line(f"drew no picture; {effort.reused} were at hand")


def _shown(scores: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Every erased concept by itself; everything else by group."""
    return [s for s in scores if (s["group"] == "forget") == bool(s["label"])]


def _score(score: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        score["group"].replace("_", " "),
        score["label"] or score["axis"],
        score["kind"],
        str(score["n"]),
        _percent(score["base"]),
        _percent(score["patched"]),
        f"{_percent(score['patched_low'])} to {_percent(score['patched_high'])}",
    )


def _change(change: Mapping[str, Any]) -> tuple[str, ...]:
    distance = change["frechet"] or "-"
    return (
        change["group"].replace("_", " "),
        str(change["n"]),
        change["ssim"] or "-",
        _percent(change["change"]),
        str(change["identical"]),
        f"{distance} (n ≤ {change['frechet_width']})" if change["frechet_regularised"] else distance,
    )


def _attack(attack: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        attack["attack"],
        attack["label"],
        attack["model"],
        f"{attack['successes']}/{attack['tries']}",
        f"{_percent(attack['rate_low'])} to {_percent(attack['rate_high'])}",
        attack["prompt"],
    )


def _outcome(outcome: "Outcome") -> tuple[str, ...]:
    number = "not measured" if outcome.found is None else str(outcome.found)
    sign = "≥" if outcome.limit.bound == "min" else "≤"
    name = outcome.limit.number.replace("_", " ")
    return name, f"{sign} {outcome.limit.value}", number, "yes" if outcome.kept else "NO"


def _percent(decimal: str) -> str:
    return f"{float(decimal):.1%}"
