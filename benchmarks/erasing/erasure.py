"""Which tokens, layers and rank to erase with: the eraser's choices judged by pictures of the reference model.

    python benchmarks/erasing/erasure.py

One object (dog, which becomes cat) and one style (neon, which becomes cartoon) are erased together, once for every row;
the same pictures are drawn from the same noise before and after, in prompts that no template holds, and named by the
classifier. Residual and leak are those of the object's patch. Prints a Markdown table.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rasura.evaluation.demo import STYLE, STYLE_ANCHOR, THING, THING_ANCHOR
from rasura.evaluation.images.painter import Painter
from rasura.evaluation.images.questions import Answer, Subjects, questions, scores
from rasura.evaluation.judges.classifier import load_judge
from rasura.patches.algebra.compose import Term, compose
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.closed_form.null_space import NullSpace
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.errors import RasuraError
from rasura.patches.format.patch import Patch
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.models.base_identity import find_cross_attention, identify
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.prompts.retain_set import load_retain_set
from rasura.patches.solving.solve import build_patches

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples" / "reference_model"
ROWS: tuple[dict[str, Any], ...] = (
    {},
    {"tokens": "last"},
    {"tokens": "subject"},
    {"layers": "kv"},
    {"layers": "k"},
    {"rule": RankRule("relative", 1e-2)},
    {"rule": RankRule("relative", 1e-4)},
    {"rule": RankRule("energy", 0.99)},
    {"eraser": NullSpace(energy=0.99)},
    {"eraser": NullSpace(energy=0.999)},
    {"eraser": NullSpace(ridge=1e-1)},
)


def main() -> None:
    """Print the table."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(f"{platform.machine()}, commit {commit.stdout.strip()}\n")
    bench = Bench()
    heads = ("choice", "rank", "residual", "leak retained", "leak held out", *bench.heads())
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in ROWS:
        print("| " + " | ".join(bench.row(row)) + " |", flush=True)


class Bench:
    """The model, its classifier, and what it draws unpatched."""

    def __init__(self) -> None:
        self.host, self.encoder = CheckpointHost.open(MODEL / "pipeline"), TextEncoder.load(MODEL / "pipeline")
        self.identity = identify(self.host, self.encoder.tokenizer_state())
        self.names = find_cross_attention(self.host.parameters(), "kv")
        self.originals = self.host.originals(self.names)
        self.painter, self.judge = Painter.load(MODEL / "pipeline"), load_judge(MODEL)
        self.asked = questions(Subjects.load(MODEL / "concepts.json"), THING, STYLE)
        self.before = self.answers(())

    def heads(self) -> Iterator[str]:
        """Names of the groups, with n and the base's accuracy."""
        for score in scores(self.asked, self.before, self.before):
            yield f"{score.name} (n {score.n}, base {score.before / score.n:.0%})"

    def row(self, choices: dict[str, Any]) -> list[str]:
        """One row of the table."""
        name = ", ".join(f"{k} {v}" for k, v in choices.items()) or "default (tail, v, relative:0.001, energy 0.9)"
        try:
            patches = build_patches(self.host, self.encoder, self.identity, request(choices), lambda *_: None)
        except RasuraError as error:
            return [name, f"refused: {error.code}", *[""] * 9]
        after = scores(self.asked, self.before, self.answers(patches))
        measured = [patch.manifest.measured for patch in patches]
        return [
            name,
            " + ".join(m["rank"] for m in measured),
            *(f"{float(measured[0][key]):.3f}" for key in ("residual", "leak_retained", "leak_held_out")),
            *(f"{score.after / score.n:.0%}" for score in after),
        ]

    def answers(self, patches: tuple[Patch, ...]) -> list[Answer]:
        """What the classifier says of every picture under a set of patches."""
        live = dict(self.painter.pipeline.unet.named_parameters())
        for name in self.names:
            terms = [Term(p.tensors.increments[name]) for p in patches if name in p.tensors.increments]
            live[name.removeprefix("unet.")].data.copy_(compose(self.originals[name], terms))
        pictures = self.painter.draw([question.shot for question in self.asked], "drawing", lambda *_: None)
        return self.judge.look(pictures).answers


def request(choices: dict[str, Any]) -> EraseRequest:
    """The demo's request with other choices."""
    targets = (
        Target(THING, THING_ANCHOR, load_retain_set(MODEL / "templates_objects.txt").concepts),
        Target(STYLE, STYLE_ANCHOR, load_retain_set(MODEL / "templates_styles.txt").concepts),
    )
    retain = load_retain_set(MODEL / "retain.txt").without(target.concept for target in targets)
    held_out = Subjects.load(MODEL / "concepts.json").held_out
    return EraseRequest(targets, retain, held_out=held_out, **choices)


if __name__ == "__main__":
    main()
