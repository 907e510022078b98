# ruff: noqa: E501 - lines of the page are as long as the page's
"""Which number ranks erasures as pictures do: pairs of concept and anchor on the reference model; writes docs/gates.md.

    python benchmarks/erasing/gates.py            all of it
    python benchmarks/erasing/gates.py --words    which words stand out, alone: no patch and no picture, half a minute
    python benchmarks/erasing/gates.py --moved    how far a concept must be moved, alone: patches at parts of their strength

Patches and pictures are kept in `.results`: a run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "results"))

from bench import REFERENCE, ROOT, Bench, tell
from scipy.stats import spearmanr

from rasura.evaluation.evaluate import draw_and_judge
from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.patched_model import EvaluatedPatch, PatchedModel
from rasura.evaluation.images.questions import Question
from rasura.evaluation.report.report import Compared
from rasura.patches.algebra.strength import SIXTEENTHS, Strength
from rasura.patches.checks.erasing import DOUBTFUL, HALF_WAY, LEAST_SPREAD
from rasura.patches.checks.kernels.footprint import spaces_of
from rasura.patches.checks.policy import DEFAULT_POLICY
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.models.base_identity import TEXT_LAYERS, find_cross_attention
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.prompts.retain_set import load_retain_set
from rasura.patches.solving.judge_erasure import Judge

_STYLES: Final = ("neon", "sketch", "pixel", "neno")
MEANT: Final = {"dgo": "dog", "puppy": "dog", "umbrela": "umbrella", "neno": "neon"}
"""Words that the model never learnt, and what a person would mean by them."""
PAIRS: Final = (
    *(("dog", "frog"), ("cat", "penguin"), ("lion", "penguin"), ("pig", "frog"), ("car", "airplane")),
    *(("bus", "airplane"), ("rose", "cactus"), ("apple", "banana"), ("strawberry", "banana"), ("pizza", "banana")),
    *(("skull", "umbrella"), ("dagger", "umbrella"), ("guitar", "umbrella"), ("dog", "animal"), ("cat", "animal")),
    *(("lion", "animal"), ("frog", "animal"), ("rose", "plant"), ("cactus", "plant"), ("apple", "food")),
    *(("pizza", "food"), ("car", "vehicle"), ("bus", "vehicle"), ("airplane", "vehicle"), ("skull", "object")),
    *(("bomb", "object"), ("dagger", "object"), ("dog", "big dog"), ("cat", "black cat"), ("car", "red car")),
    *(("dog", "fgrq"), ("neon", "cartoon"), ("sketch", "cartoon"), ("pixel", "ink"), ("dog", ""), ("car", "")),
    *(("rose", ""), ("apple", ""), ("neon", ""), ("sketch", ""), ("dgo", "frog"), ("puppy", "frog")),
    *(("umbrela", "skull"), ("neno", "cartoon")),
)
"""Concept and anchor: other concepts, more general words, the target itself, nothing, misspelt words."""
MISSPELT: Final = (
    *("dgo", "dogg", "catt", "lionn", "piig", "frgo", "pengiun", "buterfly", "roze", "sunflowr", "cactis", "palmtree"),
    *("mushrom", "aple", "strawbery", "bananna", "piza", "carr", "buss", "airplan", "rockett", "umbrela", "gitar"),
    *("skul", "daggar", "bom", "cigaret", "cartton", "nik", "neno", "sketh", "pixl"),
)
"""A slip in each object and each style."""
UNHEARD: Final = ("bird", "horse", "elephant", "flower", "puppy", "picasso", "van gogh", "kestrel", "xqzt")
"""Words, spelt well, of which the model saw no picture."""
BEGIN: Final = "<!-- table: words -->"
BEGIN_MOVED: Final = "<!-- table: moved -->"
END: Final = "<!-- end -->"
NUMBERS: Final = ("apart", "moved", "spread", "residual")
_RESAMPLED: Final = 2000
_FAR: Final = (*PAIRS[:13], ("neon", "cartoon"), ("sketch", "cartoon"), ("pixel", "ink"), ("dog", ""), ("car", ""))
"""Pairs whose anchors are far: what is drawn there follows from how far the patch goes, not from the anchor."""
_SIXTEENTHS: Final = (1, 2, 4, 5, 6, 7, 8, 9, 10, 12, 14)


def main() -> None:
    """Erase every pair, draw four pictures of each, and write the page; or only its part on words."""
    bench, page = Bench(), ROOT / "docs" / "gates.md"
    for option, begin, write in (("--words", BEGIN, _words), ("--moved", BEGIN_MOVED, _moved)):
        if sys.argv[1:] == [option]:
            head, _, rest = page.read_text(encoding="utf-8").partition(begin)
            page.write_text(head + "\n".join(write(bench)) + rest.partition(END)[2], encoding="utf-8")
            return
    rows = [_row(bench, concept, anchor) for concept, anchor in PAIRS]
    page.write_text("\n".join([*_page(rows), "", *_moved(bench), "", *_words(bench)]) + "\n", encoding="utf-8")


def _moved(bench: Bench) -> Iterator[str]:
    """Pictures that patches take away at parts of their strength, by how far they move their concept then."""
    rows = [row for concept, anchor in _FAR for row in _weakened(bench, concept, anchor)]
    yield f"{BEGIN_MOVED}\n\n## How far a concept must be moved\n"
    yield (
        f"The same patches of {len(_FAR)} pairs, at parts of their strength. *Share of the way* is moved ÷ apart. Patches that are made\n"
        f"are refused where *moved* is below the policy's `moved` ({DEFAULT_POLICY.moved:g}); where the share is below {HALF_WAY:g},\n"
        "it is said. `python benchmarks/erasing/gates.py --moved` writes this part.\n"
    )
    for title, edges, numbers in (
        ("moved", (0.0, 0.1, 0.2, DEFAULT_POLICY.moved, 0.4, 0.5, 0.6, 0.7, math.inf), [row[1] for row in rows]),
        ("share of the way", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, HALF_WAY, 0.7, 1.0), [row[1] / row[2] for row in rows]),
    ):
        lines = []
        for low, high in pairwise(edges):
            own = [row for row, number in zip(rows, numbers, strict=True) if low <= number < high]
            gone = f"{sum(row[3] for row in own)} of {sum(row[4] for row in own)}"
            span = f"{low:g} and more" if math.isinf(high) else f"{low:g} to {high:g}"
            lines.append([span, str(len(own)), gone, str(sum(row[3] == 0 for row in own))])
        yield from _table((title, "patches", "pictures gone", "patches that took none"), lines)
        yield ""
    yield END


def _weakened(bench: Bench, concept: str, anchor: str) -> Iterator[tuple[int, float, float, int, int]]:
    """Sixteenths, how far they move the concept, how far the anchor is, pictures gone, pictures drawn."""
    request, asked, _ = _asked(bench, concept, anchor)
    patch = bench.made(request).patches[0]
    judged = Judge.of(bench.host, bench.encoder, request, spaces_of(patch)[TEXT]).judged(patch)
    for count in _SIXTEENTHS:
        stack = [EvaluatedPatch(patch, Strength(count))]
        model = PatchedModel.load(bench.host, bench.identity, stack, bench.sampling)
        gone, drawn, _ = _count(draw_and_judge(model, bench.judge, asked, bench.cache, tell), concept)
        yield count, (judged.moved or 0.0) * count / SIXTEENTHS, judged.apart, gone, drawn


def _words(bench: Bench) -> Iterator[str]:
    """How far words stand out on the layers that null-space touches by default: those learnt, misspelt, and never seen."""
    names = [n for n in find_cross_attention(bench.host.parameters(), TEXT_LAYERS) if ".to_v." in n]
    request = EraseRequest((Target("dog", "cat", ()),), bench.retain)
    judge = Judge.of(bench.host, bench.encoder, request, names)
    assert judge.scale is not None, "the model's list is long enough for a scale"
    yield f"{BEGIN}\n\n## Which words stand out\n"
    yield (
        f"*spread* of words on the layers of the default; hardly known is what is below {LEAST_SPREAD:g}. Of a word that\n"
        "shares a part with a learnt one (palmtree), no number here tells that it is misspelt. "
        "`python benchmarks/erasing/gates.py --words` writes this part.\n"
    )
    subjects = bench.subjects
    groups = {
        "objects of the model": subjects.objects,
        "styles of the model": subjects.styles,
        "misspelt": MISSPELT,
        "never seen": UNHEARD,
    }
    rows = []
    for title, words in groups.items():
        found = {word: judge.scale.spread(columns) for word in words if (columns := judge.encode(word)) is not None}
        ranked = sorted(found, key=found.__getitem__)
        least, most = ranked[0], ranked[-1]
        told = [word for word in ranked if found[word] < LEAST_SPREAD]
        over = [f"{word} ({found[word]:.3f})" for word in ranked if found[word] >= LEAST_SPREAD]
        others = ", ".join(over) if words in (MISSPELT, UNHEARD) else ""
        span = f"{found[least]:.3f} ({least}) to {found[most]:.3f} ({most})"
        rows.append([title, str(len(found)), span, f"{len(told)} of {len(found)}", others])
    yield from _table(("words", "n", "spread", "hardly known", "not told"), rows)
    yield f"\n{END}"


def _asked(bench: Bench, concept: str, anchor: str) -> tuple[EraseRequest, list[Question], str]:
    """The request of a pair, four questions about its concept, and what pictures of it are called."""
    axis, label = ("style" if concept in _STYLES else "object"), MEANT.get(concept, concept)
    templates = load_retain_set(REFERENCE / f"templates_{axis}s.txt").concepts
    request = EraseRequest((Target(concept, anchor, templates),), bench.retain.without([concept]))
    if axis == "object":
        prompts = [bench.subjects.prompt(label, s, i) for i, s in enumerate(("cartoon", "ink", "pixel", "sketch"))]
    else:
        shown = ("frog", "cactus", "airplane", "umbrella")
        prompts = [bench.subjects.prompt(thing, label, i) for i, thing in enumerate(shown)]
    return (
        request,
        [Question("forget", Shot(prompt, 1000 + i), {axis: label}) for i, prompt in enumerate(prompts)],
        label,
    )


def _count(seen: Compared, label: str) -> tuple[int, int, list[str]]:
    """Pictures gone of those that were drawn, and what all show after."""
    (axis,) = {axis for question in seen.asked for axis in question.wanted}
    before, after = ([answer[axis] for answer in side.answers] for side in (seen.seen_before, seen.seen_after))
    drawn = [a for b, a in zip(before, after, strict=True) if b == label]
    return sum(a != label for a in drawn), len(drawn), after


def _row(bench: Bench, concept: str, anchor: str) -> dict[str, Any]:
    request, asked, label = _asked(bench, concept, anchor)
    patch = bench.made(request).patches[0]
    judged = Judge.of(bench.host, bench.encoder, request, spaces_of(patch)[TEXT]).judged(patch)
    gone, drawn, after = _count(bench.look([patch], asked), label)
    return {
        "concept": concept,
        "anchor": anchor,
        "drawn": drawn,
        "gone": gone,
        "shown": ", ".join(dict.fromkeys(after)),
        "apart": judged.apart,
        "alike": judged.alike,
        "moved": judged.moved,
        "spread": judged.spread,
        "residual": float(patch.manifest.measured["residual"]),
    }


def _page(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield (
        "# Gates: does an erasure erase?\n\n"
        "`make gates` writes this page: concepts and anchors on the reference model, `null-space` with its defaults, four\n"
        "pictures each of prompts that no patch was made with, as the built-in classifier calls them. What the numbers are\n"
        "stands in `patches/checks/erasing.py`; *gone* is how many pictures of the target the patch took away. A misspelt\n"
        "word's pictures are of the word that was meant. *alike* = 1 − apart, at least 0.\n\n"
        f"`rasura erase`, `takedown`, `rebase`, `join` and `retarget` refuse an anchor whose *alike* is over the\n"
        f"policy's limit `alike` ({DEFAULT_POLICY.alike:g}), say\n"
        f"that one over {DOUBTFUL:g} is doubtful, and that a word whose *spread* is below {LEAST_SPREAD:g} is hardly known.\n"
        "An anchor is not judged for such a word, whose numbers mean little.\n"
        "Nothing (the null prompt) as an anchor is not held to the limit.\n"
        "A patch whose *moved* is below the limit `moved` is refused, too ([below](#how-far-a-concept-must-be-moved)).\n"
    )
    yield from _table(
        ("concept", "becomes", "gone", "judge says", "alike", *NUMBERS),
        [
            [
                row["concept"],
                row["anchor"] or "(nothing)",
                f"{row['gone']} of {row['drawn']}",
                row["shown"],
                *(f"{row[name]:.2f}" for name in ("alike", *NUMBERS)),
            ]
            for row in rows
        ],
    )
    named = [row for row in rows if row["anchor"] and row["concept"] not in MEANT]
    groups = {"all": rows, "known words with an anchor": named}
    yield f"\nSpearman's ρ with the share gone; in brackets the middle 95 % over {_RESAMPLED} resamples of the rows:\n"
    yield from _table(
        ("", *(f"{title} (n {len(chosen)})" for title, chosen in groups.items())),
        [[name, *(_ranked(chosen, name) for chosen in groups.values())] for name in NUMBERS],
    )
    yield "\nBy *alike*, known words with an anchor:\n"
    edges = (0.0, 0.1, DOUBTFUL, DEFAULT_POLICY.alike, 1.01)
    lines = []
    for low, high in pairwise(edges):
        own = [row for row in named if low <= row["alike"] < high]
        gone = f"{sum(row['gone'] for row in own)} of {sum(row['drawn'] for row in own)}"
        lines.append([f"{low:g} to {min(high, 1.0):g}", str(len(own)), gone, str(sum(row["gone"] == 0 for row in own))])
    yield from _table(("alike", "pairs", "pictures gone", "pairs that lost none"), lines)
    learnt = [row["spread"] for row in rows if row["concept"] not in MEANT]
    other = [row["spread"] for row in rows if row["concept"] in MEANT]
    yield (
        f"\nWords that the model learnt stand out by {min(learnt):.2f} and more, the others by {max(other):.2f} at most.\n\n"
        "What this does not say: one small model, four pictures a pair, one method. The limits are fitted to these pairs and\n"
        "were not tried on others; a policy moves them. Between the doubtful number and the limit some pairs erase and some\n"
        "do not, and no number here tells which. In [the crowded world](crowded.md#how-near-an-anchor-may-be), where a general word has\n"
        "many members, anchors erase up to 0.4."
    )


def _ranked(rows: Sequence[dict[str, Any]], name: str) -> str:
    x = np.array([float(row[name]) for row in rows])
    y = np.array([row["gone"] / row["drawn"] for row in rows])
    generator, found = np.random.default_rng(1), []
    for _ in range(_RESAMPLED):
        chosen = generator.integers(0, len(rows), len(rows))
        if len(set(y[chosen])) > 1:
            found.append(float(spearmanr(x[chosen], y[chosen]).statistic))
    low, high = np.percentile(found, [2.5, 97.5])
    return f"{float(spearmanr(x, y).statistic):.2f} ({low:.2f} to {high:.2f})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


if __name__ == "__main__":
    main()
