"""UCE and RECE against their published formulas; neither promises anything."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.values import factories
from support.values.closed_form import Setting, eye, relative, uce_map
from support.values.factories import TinyBase, World, tiny_request

from rasura.patches.checks.check import Accepted, check
from rasura.patches.erasers.catalogue import eraser
from rasura.patches.erasers.closed_form.least_squares import cut, gram, reduce_rank
from rasura.patches.erasers.closed_form.rece import Rece, Run
from rasura.patches.erasers.closed_form.rece_adversarial import search_adversarial
from rasura.patches.erasers.closed_form.uce import Uce
from rasura.patches.erasers.columns import Columns
from rasura.patches.format.member import Member
from rasura.patches.prompts.concept_prompts import Target, align_columns
from rasura.patches.types import PatchId

WORLD = World(width=96, retained=60, outs=(40, 120))
W = {name: weight.double() for name, weight in WORLD.weights.items()}
NULL = WORLD.reference.invariants.T
GUARD = PatchId("1" * 64)


def concepts(*counts: int) -> tuple[Columns, ...]:
    return tuple(WORLD.columns(f"concept {i}", 100 + i, count) for i, count in enumerate(counts))


def joined(given: tuple[Columns, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([c.targets for c in given], dim=1), torch.cat([c.anchors for c in given], dim=1)


@pytest.mark.parametrize("variant", ["2025", "2023"])
def test_the_sum_of_the_patches_is_the_published_solution(variant: str) -> None:
    """60 retained tokens are less than one prompt of 77, so both versions weigh them by 1; the first adds the empty one."""
    given = concepts(2, 3)
    kept = torch.cat([WORLD.retained_columns, NULL], dim=1) if variant == "2023" else WORLD.retained_columns
    expected = uce_map(*joined(given), kept, alpha=1.0, beta=1.0, ridge=0.5)
    made = Uce(variant=variant).solve(Setting(WORLD, given).problem())
    for name, weight in W.items():
        total = torch.stack([erasure.increments[name].dense() for erasure in made]).sum(0)
        assert relative(total, weight @ expected) < 1e-4  # the grid
    assert [next(iter(e.increments.values())).rank for e in made] == [2, 3]
    for erasure in made:
        first, second = erasure.increments.values()
        assert torch.equal(first.A, second.A)
        assert erasure.basis is not None
        assert erasure.basis.rank == 0


def test_variants_bring_their_own_tokens() -> None:
    assert Uce.defaults.tokens == Uce().defaults.tokens == "last"
    assert eraser("uce", {"variant": "2023"}).defaults.tokens == "end"
    assert Uce.defaults.layers == "kv"


def test_the_first_versions_weight_of_what_is_retained_falls_with_its_number() -> None:
    few = Uce(variant="2023").solve(Setting(WORLD, concepts(1)).problem(retained=WORLD.retained_columns))
    many = Uce(variant="2023").solve(Setting(WORLD, concepts(1)).problem(retained=factories.clip_like(3, 77 * 5, 96)))
    most = Uce(variant="2023").solve(Setting(WORLD, concepts(1)).problem(retained=factories.clip_like(3, 77 * 50, 96)))
    prompts = 5 + NULL.shape[1] / 77
    assert [e[0].facts["preserve"] for e in (few, many, most)] == ["1", f"{1 / prompts:.6g}", "0.1"]


@pytest.mark.parametrize("method", [Uce(variant="2023"), Uce(empty="yes"), Rece(epochs=0)], ids=str)
def test_the_empty_prompt_is_retained_without_a_list_unless_somebody_says_no(method: Uce | Rece) -> None:
    """UCE's first code and RECE's first step list it first; of the second code's prompts only the last token counts."""
    nobody = WORLD.retained_columns[:, :0]
    rows = NULL[:, :1] if method == Uce(empty="yes") else NULL
    without = replace(method, empty="no" if isinstance(method, Uce) else False)  # type: ignore[arg-type]
    for options, kept in ((method, rows), (without, nobody)):
        (erasure,) = options.solve(Setting(WORLD, concepts(2)).problem(retained=nobody))
        expected = uce_map(*joined(concepts(2)), kept, alpha=1.0, beta=1.0, ridge=0.5)
        for name, weight in W.items():
            assert relative(erasure.increments[name].dense(), weight @ expected) < 1e-4  # the grid


@pytest.mark.parametrize("towards", ["null", "anchor"])
def test_reces_rounds_retain_the_empty_prompt_once_a_concept(tmp_path: Path, towards: str) -> None:
    base = TinyBase.at(tmp_path / "model")
    targets = (Target("dog", "cat"), Target("van gogh", "painting"))
    options = Rece(towards=towards, gamma=0.3, energy=1.0, rank_limit=1024)
    request = tiny_request(targets=targets, eraser=options, tokens="end", templates=("{}",), retain=None)
    patches = base.build(request)
    encoder = base.encoder
    null = encoder.encode_all([""])[0].T
    pairs = [align_columns(encoder, target, ("{}",), "end") for target in targets]
    C1, C = (torch.cat([pair[side] for pair in pairs], dim=1) for side in (0, 1))
    hidden = encoder.encode_all([target.concept for target in targets])
    wanted = (
        encoder.encode_all([target.anchor for target in targets]) if towards == "anchor" else null.T.expand_as(hidden)
    )
    width = hidden.shape[-1]
    whole, goal = hidden.reshape(-1, width).T, wanted.reshape(-1, width).T
    weights = {name: value.double() for name, value in base.host.read(patches[0].tensors.increments).items()}
    first = uce_map(C1, C, null, alpha=1.0, beta=1.0, ridge=0.5)
    edited = {name: weight + weight @ first for name, weight in weights.items()}
    back = search_adversarial(weights, edited, whole, 0.3)
    second = uce_map(back, goal, torch.cat([null, null], dim=1), alpha=1.0, beta=0.1, ridge=0.1)
    for name, weight in edited.items():
        made = torch.stack([patch.tensors.increments[name].dense() for patch in patches]).sum(0)
        assert relative(made, weight + weight @ second - weights[name]) < 1e-4  # the grid


def test_an_empty_anchor_is_read_from_its_start_in_all_positions(tmp_path: Path) -> None:
    """The last subject token becomes the start of text, the next position what stands after it, and so on to the end."""
    base = TinyBase.at(tmp_path / "model")
    null = base.encoder.encode_all([""])[0].T  # [d, length]
    for tokens, method in (("end", Uce(variant="2023", rank_limit=1024)), ("last", Uce())):
        request = tiny_request(
            targets=(Target("van gogh", ""),), eraser=method, tokens=tokens, templates=("{}", "a {}"), retain=None
        )
        (patch,) = base.build(request)
        targets, _ = align_columns(base.encoder, request.targets[0], ("{}", "a {}"), tokens)
        length = base.encoder.length
        stops = [length - base.encoder.subject(prompt, "van gogh")[-1] for prompt in ("van gogh", "a van gogh")]
        anchors = torch.cat([null[:, : stop if tokens == "end" else 1] for stop in stops], dim=1)
        kept = null if tokens == "end" else null[:, :0]
        expected = uce_map(targets, anchors, kept, alpha=1.0, beta=1.0, ridge=0.5)
        weights = base.host.read(patch.tensors.increments)
        for name, increment in patch.tensors.increments.items():
            assert relative(increment.dense() @ targets, weights[name].double() @ expected @ targets) < 1e-4


@pytest.mark.parametrize("method", [Uce(), Rece(epochs=0)], ids=["uce", "rece"])
def test_guarded_patches_are_retained_too(method: Uce | Rece) -> None:
    rows = WORLD.columns("guarded", 900, 4).targets.T.contiguous()
    setting = Setting(WORLD, concepts(1))
    leaks = []
    for guarded in ({}, {GUARD: rows}, {GUARD: rows * 100}):
        (erasure,) = method.solve(setting.problem(guarded))
        leaks.append(sum(float((i.dense() @ rows.T).norm()) for i in erasure.increments.values()))
    assert leaks[0] > 2 * leaks[1] > 2 * leaks[2]


def test_what_brings_a_concept_back_is_the_least_squares_solution() -> None:
    (columns,) = concepts(5)
    edited = {name: weight + 0.1 * factories.normal(i, *weight.shape) for i, (name, weight) in enumerate(W.items())}
    found = search_adversarial(W, edited, columns.targets, 0.3)
    before, after = torch.cat(list(W.values())), torch.cat(list(edited.values()))
    expected = torch.linalg.inv(0.3 * eye(96) + after.T @ after) @ after.T @ before @ columns.targets
    assert relative(found, expected) < 1e-10
    assert relative(search_adversarial(W, W, columns.targets, 1e-9), columns.targets) < 1e-6


@pytest.mark.parametrize("epochs", [1, 3])
def test_rece_is_a_sequence_of_edits_written_as_one_sum(epochs: int) -> None:
    """Each step on weights that the steps before have edited; the factors give the same weights."""
    given, gamma = concepts(2, 1), 0.1
    whole = tuple(WORLD.columns(columns.name, 300 + i, 6) for i, columns in enumerate(given))
    N = WORLD.reference.invariants.T
    run = Run(W, given)
    run.step(given, WORLD.retained_columns @ WORLD.retained_columns.T, alpha=1.0, beta=0.1, ridge=0.5)
    dense = {
        n: w + w @ uce_map(*joined(given), WORLD.retained_columns, alpha=1.0, beta=0.1, ridge=0.5) for n, w in W.items()
    }
    for _ in range(epochs):
        before, after = torch.cat(list(W.values())), torch.cat(list(dense.values()))
        back = torch.linalg.inv(gamma * eye(96) + after.T @ after) @ after.T @ before @ joined(whole)[0]
        change = uce_map(back, joined(whole)[1], N, alpha=1.0, beta=0.1, ridge=0.1)
        dense = {name: weight + weight @ change for name, weight in dense.items()}
        run.step(run.bringing_back(whole, gamma), N @ N.T, alpha=1.0, beta=0.1, ridge=0.1)
    total = sum((Q @ A for A, Q in (run.factors(i) for i in range(2))), torch.zeros(96, 96, dtype=torch.float64))
    for name, weight in W.items():
        assert relative(weight @ total, dense[name] - weight) < 1e-8
        assert relative(run.edited[name], dense[name]) < 1e-8


@pytest.mark.parametrize("rank", [3, 40, 200])
def test_factors_are_reduced_to_their_rank_without_loss(rank: int) -> None:
    A, Q = factories.normal(1, rank, 96), factories.normal(2, 96, rank)
    twice_A, twice_Q = torch.cat([A, A]), torch.cat([Q, 2 * Q], dim=1)
    small_A, small_Q = reduce_rank(twice_A, twice_Q, 1e-9)
    assert small_A.shape[0] == min(rank, 96)
    assert relative(small_A @ small_A.T, eye(min(rank, 96))) < 1e-12
    assert relative(small_Q @ small_A, twice_Q @ twice_A) < 1e-12


def test_a_cut_is_the_best_of_its_rank_on_the_columns() -> None:
    A, Q, X = factories.normal(1, 20, 96), factories.normal(2, 96, 20), factories.normal(3, 96, 30)
    both = torch.cat(list(W.values()))
    values = torch.linalg.svdvals(both @ Q @ A @ X)
    for limit in (1, 5, 20):
        small_A, small_Q = cut(A, Q, X, lambda: gram(W), energy=1.0, limit=limit)
        left = (both @ (Q @ A - small_Q @ small_A) @ X).norm()
        assert float(left) == pytest.approx(float(values[limit:].norm()), abs=1e-8 * float(values[0]))
    same_A, same_Q = cut(A, Q, X, lambda: gram(W), energy=1.0, limit=20)
    assert relative(same_Q @ same_A, Q @ A) < 1e-12
    one_A, one_Q = cut(A[:1], Q[:, :1], X, lambda: gram(W), energy=1.0, limit=20)
    assert torch.equal(one_A, A[:1])
    assert torch.equal(one_Q, Q[:, :1])
    nothing_A, nothing_Q = cut(A, 0 * Q, X, lambda: gram(W), energy=0.5, limit=20)
    assert nothing_A.shape == (1, 96)
    assert float(nothing_Q.abs().max()) == 0


@pytest.mark.parametrize(
    "method", [Uce(), Uce(variant="2023"), Rece(), Rece(epochs=2, retain="set", rank_limit=9)], ids=str
)
def test_patches_of_a_model_promise_nothing_and_say_what_leaks(tmp_path: Path, method: Uce | Rece) -> None:
    base = TinyBase.at(tmp_path / "model")
    request = tiny_request(
        targets=(Target("dog", "cat"), Target("van gogh", "painting")), eraser=method, tokens=method.defaults.tokens
    )
    patches = base.build(request)
    for patch in patches:
        assert patch.tensors.protected.shape[0] == 0
        assert float(patch.manifest.measured["leak_held_out"]) > 0
        alone = check([Member(patch)])
        assert isinstance(alone, Accepted)
    if isinstance(method, Uce):
        assert all(float(patch.manifest.measured["residual"]) < 1 for patch in patches)


def test_the_end_pairs_the_last_subject_token_and_what_follows(tmp_path: Path) -> None:
    encoder = TinyBase.at(tmp_path / "model").encoder
    target = Target("van gogh", "dog")
    last, tail, end = (align_columns(encoder, target, ("{}",), tokens) for tokens in ("last", "tail", "end"))
    for side in (0, 1):
        assert torch.equal(end[side], tail[side][:, 1:])
        assert torch.equal(end[side][:, :1], last[side])


def test_a_compressed_concept_remembers_how_many_pairs_it_stands_for(tmp_path: Path) -> None:
    base = TinyBase.at(tmp_path / "model")
    templates = ("{}", "a {}", "a photo of a {}", "the {}", "of {}")
    request = tiny_request("dog", templates=templates, tokens="end", eraser=Uce())
    (patch,) = base.build(request)
    lengths = [base.encoder.length - base.encoder.subject(t.replace("{}", "dog"), "dog")[-1] for t in templates]
    assert patch.manifest.measured["columns"] == str(sum(lengths))
    assert sum(lengths) > 2 * 128
