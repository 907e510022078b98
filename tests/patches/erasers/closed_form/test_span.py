"""The eraser by span: its laws on vectors that lie as CLIP's do, and on a tiny model."""

from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.values import factories
from support.values.factories import TinyBase, World, tiny_request

from rasura.patches.algebra.protected_subspace import Moment
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.closed_form.null_space import compute_gram_of, compute_roots, make_projector
from rasura.patches.erasers.closed_form.span.bounded import (
    Map,
    Room,
    cut_map,
    measure_collateral,
    measure_disturbance,
    solve_bounded,
)
from rasura.patches.erasers.closed_form.span.eraser import Span, find_free
from rasura.patches.erasers.closed_form.span.rounds import Limits, compute_left, run_rounds
from rasura.patches.erasers.closed_form.span.search import Probe, find_embeddings
from rasura.patches.erasers.columns import Columns
from rasura.patches.errors import ConceptError, ErasureRefusedError, InputError
from rasura.patches.prompts.concept_prompts import Target, align_columns
from rasura.patches.prompts.vocabulary import list_words, pick_evenly
from rasura.patches.solving.from_manifest import request_of
from rasura.patches.solving.solve import build_patches

if TYPE_CHECKING:
    from rasura.patches.format.patch import Patch

WORLD = World(width=96, retained=12, outs=(40, 40, 64))
WEIGHTS = {name: weight.double() for name, weight in WORLD.weights.items()}
BASIS = WORLD.basis()
BOUNDS = st.sampled_from([1e-6, 1e-3, 0.02, 0.1, 0.3, 1.0])
SEEDS = st.integers(0, 20)


def room(*, words: int = 300) -> Room:
    project = make_projector(BASIS, [BASIS.rows[:0]], 0)
    around = {
        "words": factories.moment(factories.clip_like(9, words, WORLD.width)),
        "retained": WORLD.reference.retained,
    }
    if not words:
        del around["words"]
    return Room(find_free(project), *compute_roots(compute_gram_of(WEIGHTS)), around)


ROOM = room()


def concept(seed: int, count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """C and D [d, count]."""
    columns = WORLD.columns("dog", seed, count)
    return columns.targets, columns.anchors - columns.targets


def probes(seed: int, count: int = 8) -> tuple[Probe, ...]:
    """Prompts whose embeddings lie somewhere else."""
    found = [concept(seed + 1000 + i, 5) for i in range(count)]
    return tuple(Probe(f"a dog {i}", targets, change, 5) for i, (targets, change) in enumerate(found))


@given(BOUNDS, SEEDS, st.integers(1, 80))
@settings(deadline=None, max_examples=25)
def test_the_collateral_is_never_over_the_bound(bound: float, seed: int, limit: int) -> None:
    C, D = concept(seed)
    found = solve_bounded(ROOM, C, D, ridge=1e-3, bound=bound)
    assert found.collateral <= bound
    assert measure_collateral(ROOM, found.A, found.Q) == pytest.approx(found.collateral, rel=1e-6, abs=1e-12)
    cut = cut_map(ROOM, found, C, D, left=0.01, limit=limit)
    assert cut.collateral <= bound * (1 + 1e-9)
    assert cut.A.shape[0] <= min(limit, ROOM.free.shape[1], C.shape[1])


@given(SEEDS)
@settings(deadline=None, max_examples=10)
def test_a_tighter_bound_leaves_more(seed: int) -> None:
    C, D = concept(seed)
    left = [compute_left(ROOM, solve_bounded(ROOM, C, D, ridge=1e-6, bound=b), C, D) for b in (1.0, 0.1, 0.01, 1e-4)]
    assert left == sorted(left)
    assert left[0] < 0.01
    assert left[-1] > 0.9


def test_without_a_bound_in_the_way_it_is_ridge_regression() -> None:
    C, D = concept(3)
    found = solve_bounded(ROOM, C, D, ridge=1e-3, bound=1e6).whole
    Y = ROOM.free.T @ C
    ridge = 1e-3 * torch.trace(Y @ Y.T) / Y.shape[0]
    dense = D @ Y.T @ torch.linalg.inv(Y @ Y.T + ridge * torch.eye(Y.shape[0], dtype=torch.float64)) @ ROOM.free.T
    torch.testing.assert_close(found, dense, rtol=1e-8, atol=1e-9)


@given(BOUNDS.filter(lambda bound: bound > 1e-3), SEEDS, st.booleans())
@settings(deadline=None, max_examples=15)
def test_a_round_never_leaves_more_than_the_one_before(bound: float, seed: int, embeddings: bool) -> None:
    run = run_rounds(ROOM, WORLD.columns("dog", seed, 6), probes(seed), Limits(bound, 0.01, 4, 3, embeddings))
    assert all(after < before for before, after in run.trail)
    assert run.probes <= 3 * len(run.trail)
    assert run.targets.shape[1] == 6 + 5 * run.probes


def test_a_round_erases_what_the_search_found() -> None:
    columns, waiting = WORLD.columns("dog", 5, 6), probes(5)
    before = run_rounds(ROOM, columns, waiting, Limits(1.0, 0.01, rounds=0)).found
    after = run_rounds(ROOM, columns, waiting, Limits(1.0, 0.01, rounds=4)).found
    worst = max(compute_left(ROOM, before, p.targets, p.change) for p in waiting)
    assert worst > 0.3
    assert max(compute_left(ROOM, after, p.targets, p.change) for p in waiting) < 0.1


def test_an_embedding_brings_back_what_the_map_took_and_stays_where_it_is_free() -> None:
    C, D = concept(2)
    found = solve_bounded(ROOM, C, D, ridge=1e-3, bound=1.0)
    edited = ROOM.root @ (torch.eye(WORLD.width, dtype=torch.float64) + found.whole)
    taken = torch.linalg.vector_norm(edited @ C - ROOM.root @ C)
    missing = []
    for gamma in (1e-6, 1e-3, 1.0):
        back, away = find_embeddings(ROOM, found, C, D, gamma)
        missing.append(float(torch.linalg.vector_norm(edited @ back - ROOM.root @ C) / taken))
    # What only protected directions can say stays missing.
    K = edited @ ROOM.free
    free = ROOM.root @ C - edited @ C
    floor = float(torch.linalg.vector_norm(free - K @ torch.linalg.lstsq(K, free).solution) / taken)
    assert missing == sorted(missing)
    assert missing[0] == pytest.approx(floor, abs=0.02)
    assert floor < 0.8
    assert torch.linalg.vector_norm(BASIS.rows @ (back - C)) < 1e-10 * torch.linalg.vector_norm(back - C)
    torch.testing.assert_close(back + away, C + D)
    near, _ = find_embeddings(ROOM, found, C, D, 1e9)
    assert torch.linalg.vector_norm(near - C) < 1e-3 * torch.linalg.vector_norm(C)
    even, _ = find_embeddings(room(words=0), found, C, D, 1.0)
    assert bool(torch.isfinite(even).all())


def test_a_concept_that_is_its_anchor_is_refused() -> None:
    targets = WORLD.columns("dog", 1, 4).targets
    with pytest.raises(ErasureRefusedError, match="make the same of 'dog' and of its anchor"):
        run_rounds(ROOM, Columns("dog", targets, targets.clone()), (), Limits(0.1, 0.1))


def test_a_cut_takes_as_few_detectors_as_leave_little() -> None:
    C, D = concept(4, 12)
    whole = solve_bounded(ROOM, C, D, ridge=1e-6, bound=1.0)
    ranks = [cut_map(ROOM, whole, C, D, left=left, limit=64).A.shape[0] for left in (0.9, 0.5, 0.1, 1e-6)]
    assert ranks == sorted(ranks)
    assert ranks[0] < ranks[-1]
    for left in (0.9, 0.5, 0.1):
        assert compute_left(ROOM, cut_map(ROOM, whole, C, D, left=left, limit=64), C, D) <= left


# On a tiny model

SMALL = Span(rounds=2, words=8, found=4, left=0.3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    return TinyBase.at(tmp_path_factory.mktemp("span") / "model")


def test_the_patch_protects_exactly_and_keeps_its_bound(base: TinyBase) -> None:
    request = tiny_request(eraser=SMALL)
    (patch,) = base.build(request)
    measured = {name: float(value) for name, value in patch.manifest.measured.items()}
    assert patch.manifest.separable
    assert measured["collateral"] <= SMALL.collateral
    assert measured["leak_null"] < 1e-4
    assert measured["left"] < 0.9
    assert {"columns", "found", "rounds", "left_worst", "collateral_worst"} <= measured.keys()
    weights = base.host.originals(list(patch.tensors.increments))
    words = pick_evenly(list_words(base.encoder, lambda word: word == "dog"), SMALL.words)
    moment = Moment(base.encoder.width)
    for word in words:
        moment.add(base.encoder.encode_all([template.replace("{}", word) for template in request.templates]))
    wide = {name: weight.double() for name, weight in weights.items()}
    assert measure_disturbance(patch.tensors.increments, wide, {"words": moment}) <= SMALL.collateral
    for increment in patch.tensors.increments.values():
        assert float((increment.A.double() @ patch.tensors.protected.T).abs().max()) < 1e-5


def test_the_same_request_gives_the_same_patch(base: TinyBase) -> None:
    request = tiny_request(eraser=SMALL)
    moments: dict[str, Moment] = {}
    found: list[Patch] = []
    for threads in (1, 2, 1):  # the last time with prompts that are known already
        torch.set_num_threads(threads)
        try:
            found += build_patches(base.host, base.encoder, base.identity, request, lambda *_: None, moments=moments)
        finally:
            torch.set_num_threads(1)
    assert len({patch.patch_id for patch in found}) == 1


def test_the_order_of_the_names_does_not_matter(base: TinyBase) -> None:
    names = ("puppy", "hound", "Dog", "puppy")
    targets = {Target("dog", "cat", (), order) for order in permutations(names)}
    assert {target.names for target in targets} == {("hound", "puppy")}
    (one,), (other,) = (
        base.build(replace(tiny_request(eraser=SMALL), targets=(Target("dog", "cat", (), order),)))
        for order in (names, names[::-1])
    )
    assert one.patch_id == other.patch_id
    assert one.manifest.names == ("hound", "puppy")
    again = request_of([one.manifest], tiny_request().retain, tiny_request().held_out)
    assert again.targets[0].names == ("hound", "puppy")
    assert again.eraser == SMALL


def test_every_name_is_erased_and_kept_out_of_what_stays(base: TinyBase) -> None:
    target = Target("dog", "cat", (), ("photo frame", "tree"))
    request = replace(tiny_request(eraser=SMALL), targets=(target,))
    assert [prompt for prompt in request.retained_prompts() if "tree" in prompt] == []
    C1, _ = align_columns(base.encoder, target, ("{}",), "last")
    assert C1.shape[1] == 3
    (patch,) = base.build(request)
    for name in target.spoken:
        C, anchors = align_columns(base.encoder, Target(name, "cat"), request.templates, "last")
        wanted = moved = 0.0
        for parameter, increment in patch.tensors.increments.items():
            W = base.host.originals([parameter])[parameter].double()
            wanted += float((W @ (anchors - C)).square().sum())
            moved += float((W @ (anchors - C) - increment.dense() @ C).square().sum())
        assert (moved / wanted) ** 0.5 < 0.7, name


def test_names_that_are_none_are_refused() -> None:
    with pytest.raises(ConceptError, match="named as 'dog' and as its anchor"):
        Target("dog", "cat", (), ("Cat",))
    with pytest.raises(ConceptError, match="without it"):
        Target("dog", "cat", (), ("a|b",))
    with pytest.raises(ConceptError, match="at most 4096"):
        Target("dog", "cat", (), tuple(f"{i}" * 40 for i in range(300)))
    with pytest.raises(ConceptError, match="named twice"):
        tiny_request(targets=(Target("dog", "", (), ("hound",)), Target("fox", "", (), ("Hound",))))


def test_a_bound_that_allows_nothing_is_refused(base: TinyBase) -> None:
    with pytest.raises(ErasureRefusedError, match="can be erased") as caught:
        base.build(tiny_request(eraser=replace(SMALL, collateral=1e-6)))
    assert caught.value.details["concept"] == "dog"
    assert "--set collateral=4e-06" in (caught.value.hint or "")


def test_what_is_protected_whole_is_refused(base: TinyBase) -> None:
    with pytest.raises(ErasureRefusedError, match="'dog' lies inside the protected set"):
        base.build(tiny_request(eraser=SMALL, rule=RankRule("count", 128)))


def test_two_concepts_leave_each_other_alone(base: TinyBase) -> None:
    one, other = base.build(tiny_request("dog", "fox", eraser=SMALL))
    for patch, stranger in ((one, other), (other, one)):
        X = stranger.tensors.targets.T
        for increment in patch.tensors.increments.values():
            moved = torch.linalg.vector_norm(increment.dense() @ X)
            assert moved < 0.05 * torch.linalg.vector_norm(increment.dense() @ patch.tensors.targets.T)


@pytest.mark.parametrize("setting", [{"collateral": 0.0}, {"left": 2.0}, {"rounds": -1}, {"words": 1}, {"alike": 1.5}])
def test_choices_out_of_range_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        Span(**setting)  # type: ignore[arg-type]


def test_words_are_of_the_vocabulary_and_none_that_is_left_out(base: TinyBase) -> None:
    words = list_words(base.encoder, lambda word: word.startswith("a"))
    assert words
    assert all(word.isalpha() and len(word) >= 3 and not word.startswith("a") for word in words)
    assert list_words(base.encoder, lambda word: word.startswith("a")) == words
    one, other = pick_evenly(words, 5), pick_evenly(words, 5, start=1)
    assert not set(one) & set(other)
    assert max(len(one), len(other)) <= 5


def test_a_map_tells_itself_whole() -> None:
    A, Q = factories.normal(1, 3, 8), factories.normal(2, 8, 3)
    torch.testing.assert_close(Map(A, Q, 0.0).whole, Q @ A)


def test_embeddings_are_erased_without_prompts_too() -> None:
    columns = WORLD.columns("dog", 5, 6)
    run = run_rounds(ROOM, columns, probes(5), Limits(1.0, 0.01, rounds=2, found=0))
    assert (run.probes, len(run.trail)) == (0, 2)
    assert run.targets.shape == columns.targets.shape
    own, wanted = columns.targets, columns.anchors - columns.targets
    before = run_rounds(ROOM, columns, (), Limits(1.0, 0.01, rounds=0)).found
    back, away = find_embeddings(ROOM, before, own, wanted, 1.0)
    assert compute_left(ROOM, run.found, back, away) < 0.8 * compute_left(ROOM, before, back, away)
