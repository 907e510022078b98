"""Does a number that is known beforehand tell which pictures are lost, where concepts are near each other?

For every picture of something that should stay, and that the base draws right:

    moved = ‖Σ_p Δ_p E‖ / ‖W E‖

with E the token embeddings of its prompt, over all touched layers: what the composer's `stack` asks of promises, asked
of one prompt. *told apart*: how often, of a lost and a kept picture of the same way, the lost one has the larger number
(the area under the receiver operating characteristic); a half is chance. Brackets: the middle 95 % over resamples of
the prompts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from crowded_asks import Ask, make_asks
from crowded_bench import CrowdedBench
from crowded_stages import SCENARIOS, WAYS, count_tries, keep, kept, make
from scenarios import Way
from scipy.stats import mannwhitneyu

from rasura.patches.errors import RasuraError
from rasura.patches.format.patch import Patch
from rasura.patches.types import ParamName

_STAYS: Final = frozenset({"near", "retain", "held_out", "composition"})
_RESAMPLED: Final = 1000
_QUARTERS: Final = 4


def measure_prediction(bench: CrowdedBench) -> None:
    """Ten and fifty concepts, by every way that makes a patch."""
    old = {(row["scenario"], row["way"]): row for row in kept("prediction") or ()}
    rows: list[dict[str, Any]] = []
    for scenario in ("ten", "fifty"):
        concepts = SCENARIOS[scenario]
        tries, others = count_tries(concepts)
        asks = make_asks(bench.facts, concepts, tries=tries, others=others)
        asks = tuple(ask for ask in asks if ask.section in _STAYS)
        for way in WAYS:
            found = old.pop((scenario, way.label), None)
            if found is None:
                try:
                    found = _row(bench, scenario, way, concepts, asks)
                except RasuraError:  # of the method, or of the sum of what it made: the table of methods says which
                    continue
            rows.append(found)
            keep("prediction", [*rows, *old.values()])


def _row(bench: CrowdedBench, scenario: str, way: Way, concepts: Sequence[str], asks: Sequence[Ask]) -> dict[str, Any]:
    patches = make(bench, way, concepts).patches
    return {"scenario": scenario, "way": way.label, "pictures": _pictures(bench, patches, asks)}


def _pictures(bench: CrowdedBench, patches: Sequence[Patch], asks: Sequence[Ask]) -> list[list[Any]]:
    """Of each picture that the base draws right: section, prompt, how far the prompt is moved, whether it is lost."""
    model = bench.model(patches)
    before, after = (bench.see(model, asks, patched=patched) for patched in (False, True))
    moved = _moved(bench, patches, [ask.prompt for ask in asks])
    return [
        [ask.section, ask.prompt, round(number, 4), not a.right]
        for ask, number, b, a in zip(asks, moved, before, after, strict=True)
        if b.right
    ]


def _moved(bench: CrowdedBench, patches: Sequence[Patch], prompts: Sequence[str]) -> list[float]:
    total: dict[ParamName, torch.Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
    for patch in patches:
        for name, increment in patch.tensors.increments.items():
            total[name] = total[name] + increment.dense()
    weights = bench.host.originals(sorted(total))
    change = torch.stack([delta.T @ delta for delta in total.values()]).sum(0)  # Σ ΔᵀΔ [d, d]
    whole = torch.stack([w.double().T @ w.double() for w in weights.values()]).sum(0)  # Σ WᵀW [d, d]
    found = []
    for hidden in bench.encoder.encode(prompts):  # [b, n, d]
        sizes = [torch.einsum("bnd,de,bne->b", hidden, gram, hidden) for gram in (change, whole)]
        found += (sizes[0].clamp_min(0) / sizes[1]).sqrt().tolist()
    return found


def table_prediction(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """By scenario and way."""
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        yield f"\n**{scenario.capitalize()} objects**\n"
        heads = [f"lost, {name} quarter" for name in ("least moved", "second", "third", "most moved")]
        yield f"| Method | pictures | {' | '.join(heads)} | told apart | single things alone |"
        yield "|" + "---|" * (_QUARTERS + 4)
        for row in rows:
            if row["scenario"] == scenario:
                yield _line(row["way"], row["pictures"])


def _line(way: str, pictures: Sequence[Sequence[Any]]) -> str:
    moved, lost = np.array([p[2] for p in pictures]), np.array([bool(p[3]) for p in pictures])
    order = np.argsort(moved, kind="stable")
    cells = [f"{int(lost[part].sum())} of {len(part)}" for part in np.array_split(order, _QUARTERS)]
    single = [p for p in pictures if p[0] != "composition"]
    return f"| {way} | {len(pictures)} | {' | '.join(cells)} | {_apart(pictures)} | {_apart(single)} |"


def _apart(pictures: Sequence[Sequence[Any]]) -> str:
    """The area under the curve, with what it is over resamples of the prompts."""
    by_prompt: dict[str, list[Sequence[Any]]] = defaultdict(list)
    for picture in pictures:
        by_prompt[picture[1]].append(picture)
    groups, random = list(by_prompt.values()), np.random.default_rng(1)
    found = []
    for _ in range(_RESAMPLED):
        chosen = [p for i in random.integers(0, len(groups), len(groups)) for p in groups[i]]
        area = _area(chosen)
        if area is not None:
            found.append(area)
    area = _area(pictures)
    if area is None or not found:
        return "–"
    low, high = np.percentile(found, [2.5, 97.5])
    return f"{area:.2f} ({low:.2f}–{high:.2f})"


def _area(pictures: Sequence[Sequence[Any]]) -> float | None:
    lost, kept_ones = [p[2] for p in pictures if p[3]], [p[2] for p in pictures if not p[3]]
    if not lost or not kept_ones:
        return None
    return float(mannwhitneyu(lost, kept_ones).statistic) / (len(lost) * len(kept_ones))
