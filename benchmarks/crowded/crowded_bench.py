"""The crowded world with its judge, and what pictures of it show: every place of a layout is judged on its own."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from PIL import Image

ROOT: Final = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "results"))  # its Bench opens models and keeps what was made and drawn

from bench import Bench, tell  # noqa: E402
from crowded_asks import Ask, Facts  # noqa: E402

from rasura.evaluation.images.painter import Painter, Sampling, Shot  # noqa: E402
from rasura.evaluation.images.patched_model import PatchedModel  # noqa: E402
from rasura.evaluation.report.metrics import compute_wilson  # noqa: E402
from rasura.patches.format.patch import Patch  # noqa: E402

SAMPLING: Final = Sampling(batch=32)


@dataclass(frozen=True, slots=True)
class Seen:
    """Whether an ask was answered right: what it wants, and where it wants a style, that too."""

    thing: bool
    style: bool

    @property
    def right(self) -> bool:
        """Both."""
        return self.thing and self.style


class CrowdedBench(Bench):
    """A `Bench` on a crowded world."""

    def __init__(self, model: Path) -> None:
        super().__init__(model, ROOT / ".results" / "crowded", SAMPLING)
        self.facts, self.moments = Facts(model), {}

    @cached_property
    def base_painter(self) -> Painter:
        """The base as it lies in its folder."""
        return Painter.load(self.source / "pipeline", self.sampling)

    def ask(self, patches: Sequence[Patch], asks: Sequence[Ask]) -> dict[str, Any]:
        """Counts by section and group, of the base and with these patches."""
        model = self.model(patches)
        before, after = (self.see(model, asks, patched=patched) for patched in (False, True))
        return count_answers(asks, before, after)

    def see(self, model: PatchedModel, asks: Sequence[Ask], *, patched: bool) -> list[Seen]:
        """What the judge says of what the base, or the patched model, draws."""
        shots = [Shot(ask.prompt, ask.seed) for ask in asks]
        stage = "drawing with the patches" if patched else "drawing with the base"
        return self.judged(asks, self.cache.draw(model.painter, model.show(patched=patched), shots, stage, tell))

    def judged(self, asks: Sequence[Ask], pictures: Sequence[Image.Image]) -> list[Seen]:
        """What the judge says of each."""
        cut = [[*self._crops(picture, len(ask.right)), picture] for ask, picture in zip(asks, pictures, strict=True)]
        answers = iter(self.judge.look([part for parts in cut for part in parts]).answers)
        seen = []
        for ask in asks:
            places = [next(answers)["object"] for _ in ask.right]
            thing = all(right is None or place in right for place, right in zip(places, ask.right, strict=True))
            style = next(answers)["style"]  # of the whole picture
            seen.append(Seen(thing, ask.style in {None, style}))
        return seen

    def _crops(self, picture: Image.Image, count: int) -> Iterator[Image.Image]:
        """The places of a layout, cut out and enlarged; the whole picture for one object."""
        if count == 1:
            yield picture
            return
        centres, scale = self.facts.layout(count)
        width, half = picture.width, scale / 0.9 / 2
        for x, y in centres:
            edges = (x - half, y - half, x + half, y + half)
            left, top, right, bottom = (round(width * min(1.0, max(0.0, edge))) for edge in edges)
            yield picture.crop((left, top, right, bottom)).resize((width, width))


def count_answers(asks: Sequence[Ask], before: Sequence[Seen], after: Sequence[Seen]) -> dict[str, Any]:
    """By `section/group` and by `section`: n, right with the base, with the patches, with both."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for ask, b, a in zip(asks, before, after, strict=True):
        for key in (ask.section, f"{ask.section}/{ask.group}"):
            for place, number in enumerate((1, b.right, a.right, b.right and a.right)):
                counts[key][place] += number
    return {key: dict(zip(("n", "base", "patched", "both"), row, strict=True)) for key, row in counts.items()}


def share(row: Mapping[str, int] | None, *, lost: bool = False) -> str:
    """What is kept (or lost) of what the base draws right, in percent with its 95 % interval, and of how many."""
    if row is None or not row["base"]:
        return "–"
    right = row["base"] - row["both"] if lost else row["both"]
    low, high = compute_wilson(right, row["base"])
    return f"{100 * right / row['base']:.0f} ({100 * low:.0f}–{100 * high:.0f})"
