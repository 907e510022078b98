"""How near an anchor may be: objects of the crowded world, each erased to several words, and what is drawn then.

    category  the word for its kind ("a bird" for an owl)
    nearest   the retained word that is most like it, whatever that is
    object    the retained object that is most like it
    far       the nearest word that the small model's pages call safe (`alike` at most 0.18)

*alike* is the number that the policy's gate asks for (`rasura.patches.checks.erasing`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from crowded_asks import Ask
from crowded_bench import CrowdedBench, count_answers
from crowded_stages import keep, kept
from scenarios import Way, request_for

from rasura.patches.checks.erasing import DOUBTFUL, Judgement
from rasura.patches.checks.kernels.footprint import spaces_of
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.models.base_identity import find_cross_attention
from rasura.patches.solving.judge_erasure import Judge

WAY: Final = Way("null-space", "null-space")
_EVERY: Final = 5
"""Every so many-th object is erased."""
_DIRECT: Final = 6
_NEAR: Final = 4
_EDGES: Final = (-1.0, 0.1, DOUBTFUL, 0.25, 0.32, 0.4, 1.01)


def measure_anchors(bench: CrowdedBench) -> None:
    """Every object with every kind of anchor."""
    old = {(row["concept"], row["anchor"]): row for row in kept("anchors") or ()}
    rows: list[dict[str, Any]] = []
    objects = [name for name in bench.facts.objects if name not in bench.facts.held_out]
    for concept in objects[::_EVERY]:
        for anchor, kinds in _anchors(bench, concept).items():
            found = old.pop((concept, anchor), None) or _row(bench, concept, anchor)
            rows.append(found | {"kinds": kinds})
            keep("anchors", [*rows, *old.values()])


def _anchors(bench: CrowdedBench, concept: str) -> Mapping[str, list[str]]:
    """Anchors, and which kinds each is."""
    names = find_cross_attention(bench.host.parameters(), "v", bench.encoder.width)
    judge = Judge.of(bench.host, bench.encoder, request_for(bench, WAY, {concept: ""}), names)
    target, scale = judge.encode(concept), judge.scale
    words = [word for word in bench.retain.concepts if word != concept]
    columns = {word: found for word in words if (found := judge.encode(word)) is not None}
    assert target is not None, "every object can be encoded"
    assert scale is not None, "the world's list is long enough for a scale"
    apart = {word: scale.between(target, own) for word, own in columns.items()}
    ranked = sorted(apart, key=apart.__getitem__)
    kinds = {
        "category": bench.facts.category[concept],
        "nearest": ranked[0],
        "object": next(word for word in ranked if word in bench.facts.objects),
        "far": next(word for word in ranked if 1 - apart[word] <= DOUBTFUL),
    }
    return {anchor: [kind for kind, own in kinds.items() if own == anchor] for anchor in kinds.values()}


def _row(bench: CrowdedBench, concept: str, anchor: str) -> dict[str, Any]:
    patch = bench.made(request_for(bench, WAY, {concept: anchor})).patches[0]
    judge = Judge.of(bench.host, bench.encoder, request_for(bench, WAY, {concept: anchor}), spaces_of(patch)[TEXT])
    judged: Judgement = judge.judged(patch)
    asks = tuple(_asks(bench, concept))
    model = bench.model([patch])
    before, after = (bench.see(model, asks, patched=patched) for patched in (False, True))
    return {
        "concept": concept,
        "anchor": anchor,
        "apart": judged.apart,
        "moved": judged.moved,
        "spread": judged.spread,
        "counts": count_answers(asks, before, after),
    }


def _asks(bench: CrowdedBench, concept: str) -> Iterator[Ask]:
    facts = bench.facts
    own = (frozenset({concept}),)
    for number in range(_DIRECT):
        style = facts.styles[number % len(facts.styles)]
        yield Ask("forget", "direct", facts.prompt(concept, style, number), 70_000 + number, own)
    near = [o for o in facts.objects if facts.category[o] == facts.category[concept] and o not in facts.held_out]
    place = near.index(concept)
    for number in range(min(_NEAR, len(near) - 1)):
        thing, style = near[(place + 1 + number) % len(near)], facts.styles[number % len(facts.styles)]
        yield Ask("near", "object", facts.prompt(thing, style, number), 71_000 + number, (frozenset({thing}),))


def table_anchors(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    """By *alike*, then by kind."""
    yield "| alike | pairs | direct gone | pairs that lost none | near right |"
    yield "|---|---|---|---|---|"
    for low, high in pairwise(_EDGES):
        own = [row for row in rows if low <= 1 - row["apart"] < high]
        if own:
            yield _line(f"{max(0.0, low):g} to {min(1.0, high):g}", own)
    yield "\n| anchor | pairs | direct gone | pairs that lost none | near right |"
    yield "|---|---|---|---|---|"
    for kind in ("category", "nearest", "object", "far"):
        yield _line(kind, [row for row in rows if kind in row["kinds"]])


def _line(name: str, rows: list[Mapping[str, Any]]) -> str:
    direct = [row["counts"]["forget/direct"] for row in rows]
    near = [row["counts"]["near"] for row in rows if "near" in row["counts"]]
    gone, drawn = sum(d["base"] - d["both"] for d in direct), sum(d["base"] for d in direct)
    none = sum(d["base"] == d["both"] for d in direct if d["base"])
    stays, all_near = sum(n["both"] for n in near), sum(n["base"] for n in near)
    return f"| {name} | {len(rows)} | {gone} of {drawn} | {none} | {stays} of {all_near} |"
