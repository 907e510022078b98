"""A hundred takedowns one after the other, with thirty withdrawals among them, against editing in sequence.

rasura      `takedown` and `withdraw` on a model folder with a registry, as a person types them
sequences   UCE, RECE, SPEED: each concept is solved on the weights as they are then, and its ΔW added; a withdrawal
            subtracts that ΔW, all that such a model offers

At some moments pictures are drawn from each folder itself: of what is erased, of its neighbours, of what should
stay, of what was withdrawn. Every state is kept, so that a run that was cut off goes on.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from bench import tell
from crowded_asks import Ask, Facts, make_asks
from crowded_bench import SAMPLING, CrowdedBench, Seen, count_answers
from crowded_stages import keep, kept
from safetensors.torch import load_file, save_file
from scenarios import Way, request_for

import rasura
from rasura.evaluation.images.painter import Painter, Shot
from rasura.patches.errors import RasuraError
from rasura.patches.format.patch import Patch
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.models.base_identity import identify
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.solving.solve import build_patches

SEQUENCES: Final = (
    Way("uce 2025, as published", "uce", {"variant": "2025"}, bare=True),
    Way("rece", "rece", bare=True),
    Way("speed, as published", "speed", bare=True),
)
LOOKED_AT: Final = (1, 5, 10, 20, 40, 60, 80, 100)
"""After how many takedowns pictures are drawn."""
_WEIGHTS: Final = Path("unet") / "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True, slots=True)
class Move:
    """A takedown, or the withdrawal of one."""

    concept: str
    down: bool


class Course(Protocol):
    """A model folder that takedowns are made on."""

    label: str
    folder: Path

    def move(self, move: Move, erased: Sequence[str]) -> dict[str, Any]:
        """Make a move; what was said of it. `erased` is what is erased before it."""
        ...


def plan_moves(facts: Facts, takedowns: int = 100, withdrawals: int = 30, seed: int = 3) -> tuple[Move, ...]:
    """The moves, in random order: withdrawals are of something that is erased then."""
    rng = random.Random(seed)
    waiting = [thing for thing in facts.objects if thing not in facts.held_out]
    rng.shuffle(waiting)
    kinds = [True] * (takedowns - 1) + [False] * withdrawals
    rng.shuffle(kinds)
    moves, erased = [Move(waiting[0], down=True)], [waiting[0]]
    coming = iter(waiting[1:])
    for down in kinds:
        concept = next(coming) if down or not erased else rng.choice(erased)
        moves.append(Move(concept, concept not in erased))
        (erased.append if moves[-1].down else erased.remove)(concept)
    return tuple(moves)


class Registered:
    """Our own way: a registry and a model folder."""

    def __init__(self, bench: CrowdedBench, place: Path, method: str | None = None) -> None:
        self.label = "rasura takedown" + (f" --method {method}" if method else "")
        self._bench, self._method, self.folder = bench, method, place / "model"
        if not self.folder.exists():
            shutil.copytree(bench.source / "pipeline", self.folder)
        store = place / ".rasura"
        self.registry = rasura.open(store) if store.exists() else rasura.init(store)
        if not self.registry.keys():
            self.registry.new_key("curve")

    def move(self, move: Move, erased: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002  # the registry knows
        """`takedown` or `withdraw`, with the retain list of the world; `auto` chooses what a concept becomes."""
        if not move.down:
            self.registry.withdraw(move.concept, model=self.folder)
            return {}
        retain = self._bench.source / "retain.txt"
        plan, _, _ = self.registry.takedown([move.concept], model=self.folder, retain=retain, method=self._method)
        return {"solved": len(plan.made), "covered": len(plan.covered)}


class Edited:
    """One published method, applied to its own result again and again."""

    def __init__(self, bench: CrowdedBench, place: Path, way: Way) -> None:
        self.label, self._bench, self._way, self.folder = way.label, bench, way, place / "model"
        self._deltas = place / "deltas"
        self._deltas.mkdir(parents=True, exist_ok=True)
        if not self.folder.exists():
            shutil.copytree(bench.source / "pipeline", self.folder)
            weights = {name: value.float() for name, value in load_file(self.folder / _WEIGHTS).items()}
            save_file(weights, self.folder / _WEIGHTS, {"format": "pt"})

    def move(self, move: Move, erased: Sequence[str]) -> dict[str, Any]:
        """Solve on the weights as they are, and add; or subtract what was added for this concept."""
        path = self._deltas / f"{move.concept}.safetensors"
        if move.down:
            save_file(self._solve(move.concept, erased), path)
        sign = 1 if move.down else -1
        weights = load_file(self.folder / _WEIGHTS)
        for name, delta in load_file(path).items():
            weights[name] = (weights[name].double() + sign * delta).float()
        save_file(weights, self.folder / _WEIGHTS, {"format": "pt"})
        return {}

    def _solve(self, concept: str, erased: Sequence[str]) -> dict[str, torch.Tensor]:
        bench = self._bench
        host, encoder = CheckpointHost.open(self.folder), TextEncoder.load(self.folder)
        anchor = bench.facts.anchor(concept, [*erased, concept])
        left_out = (*erased, *bench.facts.emptied([*erased, concept]))
        request = request_for(bench, self._way, {concept: anchor}, left_out)
        patches = build_patches(host, encoder, identify(host, encoder.tokenizer_state()), request, tell)
        return sum_deltas(patches)


def sum_deltas(patches: Sequence[Patch]) -> dict[str, torch.Tensor]:
    """ΔW of each parameter of the UNet, by its key in the file, in float64."""
    total: dict[str, torch.Tensor] = {}
    for patch in patches:
        for name, increment in patch.tensors.increments.items():
            key = name.removeprefix("unet.")
            total[key] = total.get(key, 0) + increment.dense()
    return total


def run_course(bench: CrowdedBench, course: Course, moves: Sequence[Move], place: Path) -> None:
    """Every move, and what is seen at `LOOKED_AT`, kept as it comes; goes on after the last one that is kept."""
    log = place / "moves.json"
    rows: list[dict[str, Any]] = json.loads(log.read_text()) if log.exists() else []
    erased: list[str] = []
    withdrawn: list[str] = []
    for number, move in enumerate(moves):
        refused = number < len(rows) and "refused" in rows[number]
        if number >= len(rows):
            tell(course.label, number, len(moves))
            rows.append(_make(course, move, erased))
            refused = "refused" in rows[-1]
        if not refused:
            (erased.append if move.down else erased.remove)(move.concept)
            withdrawn = [name for name in withdrawn if name != move.concept] + ([] if move.down else [move.concept])
        downs = sum(move.down for move in moves[: number + 1])
        last = number + 1 == len(moves)
        if "seen" not in rows[number] and (last or (move.down and downs in LOOKED_AT)):
            rows[number] |= {"takedowns": downs, "erased": len(erased), "seen": _look(bench, course, erased, withdrawn)}
            keep("curve", (kept("curve") or {}) | {course.label: rows})
        log.write_text(json.dumps(rows))


def _make(course: Course, move: Move, erased: Sequence[str]) -> dict[str, Any]:
    if not move.down and move.concept not in erased:
        return {"concept": move.concept, "down": False, "refused": "it was never erased"}
    started = time.process_time()
    try:
        said = course.move(move, erased)
    except RasuraError as error:
        said = {"refused": f"{error.code}: {error.message}".replace(f"{course.folder}", "MODEL")[:300]}
    return {"concept": move.concept, "down": move.down, "seconds": time.process_time() - started, **said}


def _look(bench: CrowdedBench, course: Course, erased: Sequence[str], withdrawn: Sequence[str]) -> dict[str, Any]:
    rng = random.Random(len(erased))
    shown = rng.sample(list(erased), min(24, len(erased)))
    gone = set(erased)
    asks = [ask for ask in make_asks(bench.facts, shown, tries=2, others=48) if _still_meant(ask, gone)]
    asks += [
        Ask("restored", "object", bench.facts.prompt(name, "cartoon", number), 80_000 + number, (frozenset({name}),))
        for name in withdrawn[-24:]
        for number in range(2)
    ]
    shots = [Shot(ask.prompt, ask.seed) for ask in asks]
    before = bench.cache.draw(bench.base_painter, bench.identity.digest, shots, "base", tell)
    after = Painter.load(course.folder, SAMPLING).draw(shots, course.label, tell)
    seen: tuple[list[Seen], list[Seen]] = (bench.judged(asks, before), bench.judged(asks, after))
    return count_answers(asks, *seen)


def _still_meant(ask: Ask, gone: set[str]) -> bool:
    """Whether what an ask wants to see is still there: pictures of other erased concepts say nothing here."""
    wanted: set[str] = set().union(*(right for right in ask.right if right is not None))
    return ask.section in {"forget", "hypernym"} or not wanted & gone


def measure_curve(bench: CrowdedBench) -> None:
    """All courses, one after the other."""
    moves, root = plan_moves(bench.facts), bench.kept / "curve"
    makers: dict[str, Callable[[Path], Course]] = {
        "0": lambda place: Registered(bench, place),
        "joint": lambda place: Registered(bench, place, "joint"),
        **{str(i): partial(Edited, bench, way=way) for i, way in enumerate(SEQUENCES, start=1)},
    }
    for name, make_course in makers.items():
        place = root / name
        place.mkdir(parents=True, exist_ok=True)
        run_course(bench, make_course(place), moves, place)
