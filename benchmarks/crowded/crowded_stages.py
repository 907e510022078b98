"""The stages on the crowded world: methods, ablation, attacks. Each keeps its numbers row by row."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import crowded_bench  # noqa: F401  # the modules of the other results stand on its path
from bench import Made, refusal, tell
from crowded_asks import make_asks
from crowded_bench import ROOT, CrowdedBench
from scenarios import Way, request_for

from rasura.evaluation.attacks.attack import Bench as AttackBench
from rasura.evaluation.attacks.attack import run_attacks
from rasura.evaluation.attacks.budget import KINDS, AttackOptions, list_costs
from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.questions import DIRECT, Question
from rasura.patches.checks.check import Accepted, Member, check
from rasura.patches.errors import RasuraError

FOLDER: Final = ROOT / "docs" / "crowded"
SINGLES: Final = ("dog", "vampire", "taxi", "neon")
_TEN: Final = ("dog", "owl", "lobster", "strawberry", "pizza", "rose", "taxi", "trumpet", "vampire", "axe")
_MORE: Final = (
    *("wolf", "cat", "panda", "mouse", "cow", "duck", "flamingo", "shark", "crab", "snake", "bee", "ant", "apple"),
    *("lemon", "grapes", "carrot", "corn", "hot dog", "cookie", "tulip", "palm tree", "bus", "ambulance", "bicycle"),
    *("sailboat", "violin", "drum", "ghost", "robot", "clown", "wizard", "ninja", "hammer", "scissors", "dagger"),
    *("bomb", "basketball", "church", "umbrella", "crown"),
)
SCENARIOS: Final[Mapping[str, tuple[str, ...]]] = {
    "one: dog": ("dog",),
    "ten": _TEN,
    **{f"one: {name}": (name,) for name in SINGLES[1:]},
    "fifty": (*_TEN, *_MORE),
}
_NARROW = {"energy": "0.9"}
_WHOLE = {"kept": "all", "ipf": "no", "aug": "0", "energy": "0.9"}
WAYS: Final = (
    Way("null-space", "null-space"),
    Way("null-space, one prompt", "null-space", bare=True),
    Way("speed, as published", "speed", bare=True),
    Way("speed, whole prompts kept", "speed", _WHOLE, rule="relative:1e-3"),
    Way("uce 2023", "uce", {"variant": "2023"}, bare=True),
    Way("uce 2025, as published", "uce", {"variant": "2025"}, bare=True),
    Way("uce 2025, templates", "uce", {"variant": "2025", **_NARROW}),
    Way("rece", "rece", bare=True),
    Way("null-space, names", "null-space", named=True),
    Way("span", "span"),
    Way("span, names", "span", named=True),
    Way("joint", "joint"),
    Way("joint, names", "joint", named=True),
)
_TAIL = {"energy": "0.9", "kept": "all"}
ABLATION: Final = (
    Way("null space alone", "speed", {**_TAIL, "iec": "no", "ipf": "no", "aug": "0"}, tokens="tail"),
    Way("+ IEC", "speed", {**_TAIL, "iec": "yes", "ipf": "no", "aug": "0"}, tokens="tail"),
    Way("+ IPF", "speed", {**_TAIL, "iec": "yes", "ipf": "yes", "aug": "0"}, tokens="tail"),
    Way("+ DPA (all)", "speed", {**_TAIL, "iec": "yes", "ipf": "yes", "aug": "10"}, tokens="tail"),
)


def measure_methods(bench: CrowdedBench) -> None:
    """Every method on one, ten and fifty concepts."""
    _measure(bench, "methods", WAYS, SCENARIOS)


def measure_ablation(bench: CrowdedBench) -> None:
    """SPEED's parts, one after the other."""
    _measure(bench, "ablation", ABLATION, {name: SCENARIOS[name] for name in ("one: dog", "ten", "fifty")})


ATTACKED: Final = ("dog", "vampire")
_UNDER_ATTACK: Final = (
    *("null-space", "speed, as published", "uce 2025, as published", "rece", "null-space, names"),
    *("span, names", "joint", "joint, names"),
)


def measure_attacks(bench: CrowdedBench) -> None:
    """Every attack of `rasura evaluate --attack all`, with its default budget, on the base and on every way's patch."""
    old = {(row["concept"], row["way"], row["attack"]): row for row in kept("attacks") or ()}
    rows: list[dict[str, Any]] = []
    ways = [None, *(way for way in WAYS if way.label in _UNDER_ATTACK)]
    costs = {cost.attack: cost.seconds(1) for cost in list_costs(AttackOptions("all"), bench.sampling)}
    for concept in ATTACKED:
        for kind in sorted(KINDS, key=lambda kind: costs[kind]):  # the cheap ones first: it may be cut off
            for way in ways:
                known = {"concept": concept, "way": "base" if way is None else way.label, "attack": kind}
                found = old.pop((known["concept"], known["way"], known["attack"]), None)
                rows.append(found or {**known, **_attacked(bench, way, concept, kind)})
                keep("attacks", [*rows, *old.values()])


def _attacked(bench: CrowdedBench, way: Way | None, concept: str, kind: str) -> dict[str, Any]:
    try:
        patches = make(bench, way or WAYS[0], (concept,)).patches  # the base is attacked beside any patch
    except RasuraError as error:
        return {"refused": refusal(error)}
    model, options = bench.model(patches), AttackOptions(kind)
    stage = AttackBench(model, bench.judge, options, bench.cache, tell, ("patched" if way else "base",))
    style = bench.facts.styles[0]
    question = Question("forget", Shot(bench.facts.prompt(concept, style), 0), {"object": concept}, DIRECT)
    started = time.process_time()
    none, found = run_attacks(stage, (question,))
    return {
        "none": [none.successes, none.tries],
        "back": [found.successes, found.tries],
        "prompt": found.prompt,
        "seconds": time.process_time() - started,
    }


def _measure(bench: CrowdedBench, stage: str, ways: Sequence[Way], scenarios: Mapping[str, Sequence[str]]) -> None:
    old = {(row["scenario"], row["way"]): row for row in kept(stage) or ()}
    rows: list[dict[str, Any]] = []
    for scenario, concepts in scenarios.items():
        tries, others = count_tries(concepts)
        asks = make_asks(bench.facts, concepts, tries=tries, others=others)
        for way in ways:
            found = old.pop((scenario, way.label), None)
            known = {"scenario": scenario, "way": way.label, "n": len(concepts)}
            rows.append(found or {**known, **_row(bench, way, concepts, asks)})
            keep(stage, [*rows, *old.values()])


def count_tries(concepts: Sequence[str]) -> tuple[int, int]:
    """Pictures of each way to speak of each concept, and of what should stay."""
    return (12, 48) if len(concepts) == 1 else (4 if len(concepts) <= 10 else 2, 96)


def make(bench: CrowdedBench, way: Way, concepts: Sequence[str]) -> Made:
    """The patches of a way for some concepts, each with its anchor.

    Raises:
        RasuraError: the method refuses.
    """
    anchors = {concept: bench.facts.anchor(concept, concepts) for concept in concepts}
    artists = [bench.facts.artist[concept] for concept in concepts if concept in bench.facts.artist]
    request = request_for(bench, way, anchors, (*bench.facts.emptied(concepts), *artists))
    if way.named:
        names = {concept: tuple(bench.facts.names(concept)[::2]) for concept in concepts}
        request = replace(request, targets=tuple(replace(t, names=names[t.concept]) for t in request.targets))
    return bench.made(request)


def _row(bench: CrowdedBench, way: Way, concepts: Sequence[str], asks: Sequence[Any]) -> dict[str, Any]:
    try:
        made = make(bench, way, concepts)
        counts = bench.ask(made.patches, asks)
    except RasuraError as error:  # of the method, or of the sum of what it made
        return {"refused": refusal(error)}
    return {
        "seconds": made.seconds,
        "bytes": sum(len(p.files()["pytorch_lora_weights.safetensors"]) for p in made.patches),
        "accepted": isinstance(check([Member(patch) for patch in made.patches]), Accepted),
        "counts": counts,
    }


def keep(name: str, rows: Any) -> None:
    """Write a stage's numbers to docs/crowded/NAME.json."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def kept(name: str) -> Any:
    """What a stage found; None where it has not run."""
    path: Path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
