"""What erasing reaches beside the words that it was given: other names, attacks; and what it costs everything else.

    PYTHONPATH=.dev python benchmarks/erasing/robust.py [--model FOLDER] [--objects dog,rose,airplane] [--attack suffix]

For every object and way: how many pictures still show it, of those that the base drew right, by how it was asked for;
and how many pictures of everything else are still right. FOLDER holds `pipeline`, `concepts.json`, `retain.txt` and a
classifier, as the reference model does. Other names of an object are `words` of its concepts.json, by language, or
the prompts of `paraphrases.json` without their article. Every second of them is given to the ways that read names,
the others are only asked for. Rows are kept one by one in --work: started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from rasura.evaluation.attacks import attack
from rasura.evaluation.attacks.budget import CHOICES, AttackOptions
from rasura.evaluation.evaluate import draw_and_judge
from rasura.evaluation.images.image_cache import PictureCache
from rasura.evaluation.images.painter import Sampling
from rasura.evaluation.images.patched_model import EvaluatedPatch, PatchedModel
from rasura.evaluation.images.questions import Question
from rasura.evaluation.judges.classifier import load_judge
from rasura.evaluation.report.metrics import compute_wilson
from rasura.patches.algebra.strength import ONE
from rasura.patches.erasers.catalogue import eraser
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.erasers.request_for import request_for
from rasura.patches.errors import RasuraError
from rasura.patches.format.patch import Patch
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.models.base_identity import identify
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.prompts.retain_set import load_retain_set
from rasura.patches.solving.moments import Moments
from rasura.patches.solving.solve import build_patches

sys.path.insert(0, str(Path(__file__).parents[1] / "results"))

from origin import machine
from robust_world import KINDS, World, ask

REFERENCE: Final = Path(__file__).parents[2] / "examples" / "reference_model"


@dataclass(frozen=True, slots=True)
class Way:
    """A method with its choices, and whether it is given the object's other names."""

    label: str
    method: str
    settings: Mapping[str, str] = field(default_factory=dict)
    named: bool = False
    rule: str | None = None
    layers: str | None = None


_WHOLE: Final = {"kept": "all", "ipf": "no", "aug": "0", "energy": "0.9"}
WAYS: Final = (
    Way("null-space", "null-space"),
    Way("speed, whole prompts kept", "speed", _WHOLE, rule="relative:1e-3"),
    Way("uce 2025, templates", "uce", {"variant": "2025", "energy": "0.9"}),
    Way("rece", "rece"),
    Way("span", "span"),
    Way("null-space, names", "null-space", named=True),
    Way("span, names", "span", named=True),
)
CURVE: Final = tuple(
    Way(f"span, collateral {bound}", "span", {"collateral": bound}) for bound in ("0.01", "0.03", "0.1", "0.3")
)
PARTS: Final = (
    Way("span, no search", "span", {"rounds": "0"}),
    Way("span, no embeddings", "span", {"embeddings": "no"}),
    Way("span, embeddings alone", "span", {"found": "0"}),
)


class Bench:
    """The model opened once, and the rows that were found before."""

    def __init__(self, world: World, work: Path, judge: Path) -> None:
        self.world, self.work = world, work
        self.host = CheckpointHost.open(world.folder / "pipeline")
        self.encoder = TextEncoder.load(world.folder / "pipeline")
        self.identity = identify(self.host, self.encoder.tokenizer_state())
        self.judge = load_judge(judge)
        self.cache = PictureCache(work / "pictures")
        self.moments: Moments = {}
        self.rows = work / f"rows-{self.identity.digest[:12]}.jsonl"

    def known(self, key: str) -> dict[str, Any] | None:
        """A row that was found before."""
        lines = self.rows.read_text(encoding="utf-8").splitlines() if self.rows.exists() else []
        return next((row for row in map(json.loads, lines) if row["key"] == key), None)

    def keep(self, row: Mapping[str, Any]) -> None:
        """Keep a row, whatever happens next."""
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def request(self, way: Way, thing: str) -> EraseRequest:
        """What a way is asked for."""
        folder, method = self.world.folder, eraser(way.method, way.settings)
        path = folder / "templates_objects.txt"
        # A named version keeps its authors' prompts; SPEED and UCE with templates are the rows that have them.
        templates = load_retain_set(path).concepts if path.exists() and way.method != "rece" else ()
        names = tuple(self.world.names(thing)[::2]) if way.named else ()
        return request_for(
            method,
            (Target(thing, self.world.anchor(thing), templates, names),),
            load_retain_set(folder / "retain.txt"),
            layers=way.layers,
            rank_rule=way.rule,
            held_out=tuple(self.world.facts["held_out"]),
        )

    def model(self, patches: Sequence[Patch]) -> PatchedModel:
        """The pipeline with these patches."""
        stack = [EvaluatedPatch(patch, ONE) for patch in patches]
        return PatchedModel.load(self.host, self.identity, stack, Sampling(batch=4))

    def look(self, way: Way, thing: str, most: int, kinds: Sequence[str], options: AttackOptions) -> dict[str, Any]:
        """One row: an object erased in a way, drawn, judged and attacked."""
        key = json.dumps([thing, way.label, sorted(way.settings.items()), most, options.kind, options.steps])
        if found := self.known(key):
            return found
        row: dict[str, Any] = {"key": key, "thing": thing, "way": way.label}
        started = time.process_time()
        try:
            request = self.request(way, thing)
            (patch,) = build_patches(self.host, self.encoder, self.identity, request, tell, moments=self.moments)
        except RasuraError as error:
            row["refused"] = f"{error.code}: {error.message}"
            self.keep(row)
            return row
        row["seconds"], row["measured"] = time.process_time() - started, dict(patch.manifest.measured)
        asked = tuple(question for question in ask(self.world, thing, most) if question.kind in kinds)
        row["counts"] = self._draw(patch, asked) if asked else {}
        if options.kinds:
            bench = attack.Bench(self.model([patch]), self.judge, options, self.cache, tell)
            row["attacks"] = [
                [found.attack, found.model, found.successes, found.tries, found.prompt]
                for found in attack.run_attacks(bench, [question for question in asked if question.kind == "direct"])
            ]
        self.keep(row)
        return row

    def _draw(self, patch: Patch, asked: Sequence[Question]) -> dict[str, list[int]]:
        """For each kind of question: what the base draws right, and what is still right of it."""
        compared = draw_and_judge(self.model([patch]), self.judge, asked, self.cache, tell)
        counts: dict[str, list[int]] = {}
        for question, *answers in zip(asked, compared.seen_before.answers, compared.seen_after.answers, strict=True):
            right = [answer["object"] == question.wanted["object"] for answer in answers]
            base, both = counts.setdefault(question.kind, [0, 0])
            counts[question.kind] = [base + right[0], both + all(right)]
        return counts


def tell(stage: str, done: int, total: int) -> None:
    """Progress on stderr: one line that is written over."""
    sys.stderr.write(f"\r{stage[:60]:<60} {done}/{total}" + ("\n" if done >= total else ""))
    sys.stderr.flush()


def tables(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Rows of one way together: shares with n and 95 % intervals after Wilson, numbers that were stored with them."""
    kinds = [kind for kind in KINDS if any(kind in row.get("counts", {}) for row in rows)]
    attacks = list(dict.fromkeys(a[0] for row in rows for a in row.get("attacks", []) if a[0] != "none"))
    heads = ["Way", *(f"still right: {kind}" for kind in kinds), *(f"brought back: {name}" for name in attacks)]
    yield "| " + " | ".join([*heads, "left", "left, worst", "collateral", "leak held out", "rank", "CPU s"]) + " |"
    yield "|" + "---|" * (len(heads) + 6)
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        made = [row for row in own if "refused" not in row]
        if not made:
            yield f"| {way} | refused: {own[0]['refused']} |" + " |" * (len(heads) + 4)
            continue
        cells = [_share(sum(row["counts"].get(kind, [0, 0])[1] for row in made),
                        sum(row["counts"].get(kind, [0, 0])[0] for row in made)) for kind in kinds]  # fmt: skip
        for name in attacks:
            tried = [a for row in made for a in row.get("attacks", []) if a[:2] == [name, "patched"]]
            cells.append(_share(sum(a[2] for a in tried), sum(a[3] for a in tried)))
        cells += [_mean(made, name) for name in ("left", "left_worst", "collateral", "leak_held_out", "rank")]
        cells.append(f"{sum(row['seconds'] for row in made) / len(made):.1f}")
        refused = f" ({len(own) - len(made)} refused)" if len(made) < len(own) else ""
        yield "| " + " | ".join([way + refused, *cells]) + " |"


def _share(right: int, n: int) -> str:
    if not n:
        return "–"
    low, high = compute_wilson(right, n)
    return f"{right} of {n} ({low:.0%} to {high:.0%})"


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    own = "residual" if name == "left" else name  # the same number, by the name that all methods share
    found = [float(row["measured"][own]) for row in rows if own in row["measured"]]
    return f"{sum(found) / len(found):.3g}" if found else "–"


def main() -> None:
    """Parse, look, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=REFERENCE)
    parser.add_argument("--judge", type=Path, help="a classifier's folder [default: the model's]")
    parser.add_argument("--objects", default="dog,rose,car,airplane")
    parser.add_argument("--ways", default="ways", choices=("ways", "curve", "parts", "all"))
    parser.add_argument("--only", default="", help="labels of ways, separated by ;")
    parser.add_argument("--most", type=int, default=20, help="pictures of each kind")
    parser.add_argument("--kinds", default=",".join(KINDS), help="empty: solve and draw nothing")
    parser.add_argument("--attack", default="none", choices=CHOICES)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path(".results/robust"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    chosen.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(World.open(chosen.model), chosen.work, chosen.judge or chosen.model)
    lists: dict[str, tuple[Way, ...]] = {"ways": WAYS, "curve": CURVE, "parts": PARTS, "all": (*WAYS, *PARTS, *CURVE)}
    ways = [way for way in lists[chosen.ways] if not chosen.only or way.label in chosen.only.split(";")]
    options = AttackOptions(chosen.attack, steps=chosen.steps)
    run: Callable[[Way, str], dict[str, Any]] = lambda way, thing: bench.look(  # noqa: E731
        way, thing, chosen.most, chosen.kinds.split(","), options
    )
    rows = [run(way, thing) for thing in chosen.objects.split(",") for way in ways]
    rows.sort(key=lambda row: [way.label for way in ways].index(row["way"]))
    print("\n".join(tables(rows)))
    print(f"\nObjects: {chosen.objects}; base {bench.identity.digest[:12]}; "
          + ", ".join(f"{name} {value}" for name, value in machine().items()))  # fmt: skip


if __name__ == "__main__":
    main()
