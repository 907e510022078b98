"""A program: prints what every closed-form method makes of fixed requests, so that processes can be compared.

    python -m support.values.solved_bits FOLDER [THREADS]

FOLDER holds a tiny model of width 128. Of it: the patches' identifiers, solved twice with the same moments, encoded and
known. Of random matrices 768 wide (8; with FULL=1 32), 200 retained embeddings and two concepts: the digest of all that
a solution holds. With THREADS, torch is told to use so many; without, it takes what the environment says.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from support.full import FULL
from support.values.closed_form import Setting
from support.values.factories import TinyBase, World, tiny_request

from rasura.patches.algebra.one_thread import use_one_thread
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.closed_form.null_space import NullSpace
from rasura.patches.erasers.closed_form.rece import Rece
from rasura.patches.erasers.closed_form.span.eraser import Span
from rasura.patches.erasers.closed_form.speed import Speed
from rasura.patches.erasers.closed_form.uce import Uce
from rasura.patches.erasers.interface import Erasure
from rasura.patches.erasers.text_encoder.clip_null_space import ClipNullSpace
from rasura.patches.solving.measure import Measurer
from rasura.patches.solving.solve import build_patches

__all__ = ["solve_all"]

if TYPE_CHECKING:
    from rasura.patches.algebra.protected_subspace import Moment

OUTS = (320,) * 10 + (640,) * 10 + (1280,) * 12
WIDE = World(width=768, retained=200, rule=RankRule("relative", 1e-4), outs=OUTS if FULL else OUTS[::4], seed=3)


def solve_all(folder: Path) -> dict[str, object]:
    """Everything that is compared, by name."""
    return {**dict(list_identifiers(folder)), **dict(list_solutions())}


def list_identifiers(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Identifiers of each method's patches of the tiny model, of prompts that are encoded and of known ones."""
    base = TinyBase.open(folder)
    small = Span(words=20, rounds=1)
    methods: list[Any] = [NullSpace(), Speed(), Uce(), Rece(), small]
    inside = replace(tiny_request(eraser=ClipNullSpace()), layers="auto", rule=RankRule("count", 30))
    for request in (*(tiny_request("dog", "tree", eraser=method) for method in methods), inside):
        moments: dict[str, Moment] = {}
        for known in ("encoded", "known"):
            made = build_patches(base.host, base.encoder, base.identity, request, lambda *_: None, moments=moments)
            yield f"{request.eraser.name}, {known}", [patch.patch_id for patch in made]


def list_solutions() -> Iterator[tuple[str, str]]:
    """Digests of what methods make of matrices of real widths."""
    concepts = (WIDE.columns("dog", 7, 40), WIDE.columns("cat", 8, 30))
    setting = Setting(WIDE, concepts)
    for name, method in {"null-space": NullSpace(), "speed": Speed(aug=1), "uce": Uce()}.items():
        yield f"{name}, wide", _solve(setting, method)


def _solve(setting: Setting, method: Any) -> str:
    with use_one_thread():  # as whoever solves a request does
        problem = setting.problem()
        erasures = method.solve(problem)
    measurer = Measurer(WIDE.weights, WIDE.reference)
    found = hashlib.sha256()
    for columns, erasure in zip(setting.concepts, erasures, strict=True):
        for tensor in _tensors(erasure):
            found.update(tensor.contiguous().numpy().tobytes())
        basis = erasure.basis or problem.basis()
        numbers = measurer.measure(erasure, columns, basis).decimals(free=erasure.free, guarded=erasure.guarded)
        found.update(json.dumps([numbers, dict(erasure.facts)], sort_keys=True).encode())
    return found.hexdigest()


def _tensors(erasure: Erasure) -> Iterable[torch.Tensor]:
    for name in sorted(erasure.increments):
        yield from (erasure.increments[name].A, erasure.increments[name].B)
    for basis in (erasure.basis, *(erasure.bases[name] for name in sorted(erasure.bases))):
        if basis is not None:
            yield from (basis.rows, basis.energy, basis.spectrum)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        torch.set_num_threads(int(sys.argv[2]))
    before = torch.get_num_threads()
    sys.stdout.write(json.dumps(solve_all(Path(sys.argv[1]))) + "\n")
    if torch.get_num_threads() != before:
        sys.exit(f"expected {before} threads afterwards, got {torch.get_num_threads()}")
