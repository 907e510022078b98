# ruff: noqa: E501 - lines of the page are as long as the page's
"""Which number ranks erasures as pictures do: pairs of concept and anchor on the reference model; writes docs/gates.md.

    python benchmarks/erasing/gates.py            all of it
    python benchmarks/erasing/gates.py --words    which words stand out, alone: no patch and no picture, half a minute

Patches and pictures are kept in `.results`: a run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "results"))

from bench import REFERENCE, ROOT, Bench
from scipy.stats import spearmanr

from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.questions import Question
from rasura.patches.checks.erasing import DOUBTFUL, LEAST_SPREAD
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
END: Final = "<!-- end -->"
NUMBERS: Final = ("apart", "moved", "spread", "residual")
_RESAMPLED: Final = 2000


def main() -> None:
    """Erase every pair, draw four pictures of each, and write the page; or only its part on words."""
    bench, page = Bench(), ROOT / "docs" / "gates.md"
    if sys.argv[1:] == ["--words"]:
        head, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        page.write_text(head + "\n".join(_words(bench)) + rest.partition(END)[2], encoding="utf-8")
        return
    rows = [_row(bench, concept, anchor) for concept, anchor in PAIRS]
    page.write_text("\n".join([*_page(rows), "", *_words(bench)]) + "\n", encoding="utf-8")


def _words(bench: Bench) -> Iterator[str]:
    """How far words stand out on the layers that null-space touches by default: those learnt, misspelt, and never seen."""
    names = [n for n in find_cross_attention(bench.host.parameters(), TEXT_LAYERS) if ".to_v." in n]
    request = EraseRequest((Target("dog", "cat", ()),), bench.retain)
    judge = Judge.of(bench.host, bench.encoder, request, names)
    assert judge is not None
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


def _row(bench: Bench, concept: str, anchor: str) -> dict[str, Any]:
    axis, label = ("style" if concept in _STYLES else "object"), MEANT.get(concept, concept)
    templates = load_retain_set(REFERENCE / f"templates_{axis}s.txt").concepts
    request = EraseRequest((Target(concept, anchor, templates),), bench.retain.without([concept]))
    patch = bench.made(request).patches[0]
    judge = Judge.of(bench.host, bench.encoder, request, spaces_of(patch)[TEXT])
    assert judge is not None
    judged = judge.judged(patch)
    if axis == "object":
        prompts = [bench.subjects.prompt(label, s, i) for i, s in enumerate(("cartoon", "ink", "pixel", "sketch"))]
    else:
        shown = ("frog", "cactus", "airplane", "umbrella")
        prompts = [bench.subjects.prompt(thing, label, i) for i, thing in enumerate(shown)]
    asked = [Question("forget", Shot(prompt, 1000 + i), {axis: label}) for i, prompt in enumerate(prompts)]
    seen = bench.look([patch], asked)
    before, after = ([answer[axis] for answer in side.answers] for side in (seen.seen_before, seen.seen_after))
    drawn = [a for b, a in zip(before, after, strict=True) if b == label]
    return {
        "concept": concept,
        "anchor": anchor,
        "drawn": len(drawn),
        "gone": sum(a != label for a in drawn),
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
