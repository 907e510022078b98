"""The joint eraser: its patches are shares of one least-squares map; its sentences follow from the lists."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.values import factories
from support.values.closed_form import encoder
from support.values.factories import TinyBase, World, tiny_request

from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.checks.check import check
from rasura.patches.checks.policy import Policy
from rasura.patches.checks.verdict import Accepted
from rasura.patches.erasers.closed_form.joint.eraser import Joint
from rasura.patches.erasers.closed_form.joint.pairs import Factors, part_shares
from rasura.patches.erasers.closed_form.joint.sentences import list_contexts, list_sentences, pick_scattered
from rasura.patches.erasers.closed_form.joint.shares import LeastSquares, cut_share
from rasura.patches.erasers.closed_form.null_space import compute_gram_of, compute_roots, make_projector
from rasura.patches.erasers.closed_form.span.eraser import find_free
from rasura.patches.erasers.columns import Columns
from rasura.patches.errors import ErasureRefusedError
from rasura.patches.format.member import Member
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.prompts.retain_set import naming
from rasura.patches.solving.from_manifest import request_of

WORLD = World(width=96, retained=12, outs=(40, 40, 64))
WEIGHTS = {name: weight.double() for name, weight in WORLD.weights.items()}
BASIS = WORLD.basis()
FREE = find_free(make_projector(BASIS, [BASIS.rows[:0]], 0))
KEPT = factories.moment(factories.clip_like(9, 300, WORLD.width)).mean
SMALL = Joint(words=6, sentences=2, contexts=4)


def concepts(seed: int, count: int) -> list[Columns]:
    return [WORLD.columns(f"concept {i}", seed + i, 3 + i % 4) for i in range(count)]


def solve_shares(given: list[Columns], kept: torch.Tensor, ridge: float) -> list[torch.Tensor]:
    least = LeastSquares.of(FREE, given, kept, ridge)
    return [least.share(number) for number in range(len(given))]


def weigh(M: torch.Tensor, given: list[Columns], ridge: float) -> torch.Tensor:
    """What the map is to make the smallest."""
    inner = torch.stack([FREE.T @ c.targets @ c.targets.T @ FREE / c.targets.shape[1] for c in given]).sum(0)
    missed = [(M @ c.targets - (c.anchors - c.targets)).square().sum() / c.targets.shape[1] for c in given]
    size = ridge * torch.trace(inner) / inner.shape[0] * M.square().sum()
    return torch.stack(missed).sum() + torch.trace(M @ KEPT @ M.T) + size


@given(st.integers(0, 20), st.integers(1, 6), st.sampled_from([1e-6, 1e-2, 1.0]))
@settings(deadline=None, max_examples=20)
def test_the_shares_add_up_to_the_least_squares_map(seed: int, count: int, ridge: float) -> None:
    given = concepts(seed, count)
    total = torch.stack(solve_shares(given, KEPT, ridge)).sum(0)
    best = weigh(total, given, ridge)
    noise = torch.randn(total.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for step in (1e-3, -1e-3, 1e-1):  # any other map that leaves the protected alone is worse
        other = total + step * (noise @ FREE) @ FREE.T * total.norm() / noise.norm()
        assert weigh(other, given, ridge) > best
    assert float((total @ BASIS.rows.T).norm()) < 1e-9 * float(total.norm())


@given(st.integers(0, 20), st.integers(2, 6))
@settings(deadline=None, max_examples=10)
def test_the_order_of_the_concepts_does_not_matter(seed: int, count: int) -> None:
    given = concepts(seed, count)
    found, turned = solve_shares(given, KEPT, 1e-2), solve_shares(given[::-1], KEPT, 1e-2)
    for one, other in zip(found, turned[::-1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_more_weight_on_what_stays_moves_it_less_and_leaves_more() -> None:
    given = concepts(3, 3)
    moved, left = [], []
    for weight in (0.0, 1.0, 100.0):
        total = torch.stack(solve_shares(given, weight * KEPT, 1e-6)).sum(0)
        moved.append(float(torch.trace(total @ KEPT @ total.T)))
        left.append(sum(float((total @ c.targets - c.anchors + c.targets).norm()) for c in given))
    assert moved == sorted(moved, reverse=True)
    assert left == sorted(left)
    assert moved[-1] < 0.5 * moved[0]


def test_a_cut_keeps_the_leading_directions_of_the_outputs() -> None:
    (columns,) = concepts(4, 1)
    (share,) = solve_shares([columns], KEPT, 1e-6)
    roots = compute_roots(compute_gram_of(WEIGHTS))
    ranks = []
    for energy in (0.5, 0.9, 1.0):
        A, Q = cut_share(share, columns.targets, roots, energy=energy, limit=64)
        whole, cut = roots[0] @ share @ columns.targets, roots[0] @ Q @ A @ columns.targets
        assert float(cut.square().sum()) >= (energy - 1e-9) * float(whole.square().sum())
        ranks.append(A.shape[0])
    assert ranks == sorted(ranks)
    assert cut_share(share, columns.targets, roots, energy=1.0, limit=1)[0].shape[0] == 1
    U, _, _ = torch.linalg.svd(roots[0] @ share @ columns.targets, full_matrices=False)  # the plain way to say it
    A, Q = cut_share(share, columns.targets, roots, energy=1.0, limit=2)
    plain = U[:, :2].T @ roots[0] @ share
    torch.testing.assert_close(Q @ A, roots[1] @ U[:, :2] @ plain, rtol=1e-8, atol=1e-10)


@given(st.integers(0, 20), st.integers(1, 3))
@settings(deadline=None, max_examples=10)
def test_a_share_held_off_directions_is_the_least_squares_map_among_those(seed: int, count: int) -> None:
    """Against the gradient: what the quadratic form still wants lies in the held directions alone."""
    given = concepts(seed, 2)
    least = LeastSquares.of(FREE, given, KEPT, 1e-2)
    held = torch.linalg.qr(FREE @ FREE.T @ given[1].targets[:, :count])[0]  # [d, count]
    share = least.share(0, held)
    assert float((share @ held).norm()) < 1e-9 * float(share.norm())
    wanted = least.asked[0].T - share @ FREE @ least.lower @ least.lower.T  # [d, f]: minus half the gradient
    inside = FREE.T @ held
    assert float((wanted - wanted @ inside @ torch.linalg.pinv(inside)).norm()) < 1e-9 * float(wanted.norm() + 1)
    assert float((share - least.share(0)).norm()) > 1e-6 * float(share.norm())


@given(st.integers(0, 20), st.integers(2, 5), st.sampled_from([0.01, 0.1, 1.0]))
@settings(deadline=None, max_examples=15)
def test_no_share_moves_more_of_another_concept_than_allowed(seed: int, count: int, limit: float) -> None:
    given = concepts(seed, count)
    near = given[0].targets + 0.1 * given[1].targets[:, :1]  # a neighbour: nearly the same columns
    given.append(Columns("near", near, given[1].anchors[:, :1].expand_as(near)))
    least, roots = LeastSquares.of(FREE, given, KEPT, 1e-2), compute_roots(compute_gram_of(WEIGHTS))
    solved: list[int] = []

    def solve(number: int, held: torch.Tensor | None) -> Factors:
        solved.append(number)
        return cut_share(least.share(number, held), given[number].targets, roots, energy=1.0, limit=64)

    found = part_shares(solve, [c.targets for c in given], roots[0], FREE, limit)
    moved = torch.tensor([[float((roots[0] @ Q @ (A @ other.targets)).norm()) for other in given] for A, Q in found])
    pairs = moved / moved.diagonal()
    pairs.fill_diagonal_(0)
    assert len(solved) > len(given) or limit == 1.0  # something was in the way
    assert (
        float(pairs[1:-1].max()) <= limit
    )  # the twins may have no room: held off each other nothing is left of either
    whole = [solve(number, None) for number in range(len(given))]
    alone = [float((roots[0] @ Q @ (A @ c.targets)).norm()) for (A, Q), c in zip(whole, given, strict=True)]
    assert bool((moved.diagonal() >= 0.5 * torch.tensor(alone)).all())


def test_a_share_without_room_keeps_half_of_its_effect_and_more_than_allowed() -> None:
    """Concepts whose columns are everything that is free: held off all of them nothing would be left."""
    width = FREE.shape[1]
    given = [WORLD.columns(f"concept {i}", 50 + i, width) for i in range(4)]
    least, roots = LeastSquares.of(FREE, given, KEPT, 1e-2), compute_roots(compute_gram_of(WEIGHTS))

    def solve(number: int, held: torch.Tensor | None) -> Factors:
        return cut_share(least.share(number, held), given[number].targets, roots, energy=1.0, limit=64)

    def measure(factors: Factors, columns: Columns) -> float:
        A, Q = factors
        return float((roots[0] @ Q @ (A @ columns.targets)).norm())

    found = part_shares(solve, [c.targets for c in given], roots[0], FREE, 1e-6)
    for number, (columns, factors) in enumerate(zip(given, found, strict=True)):
        assert measure(factors, columns) >= 0.5 * measure(solve(number, None), columns)
    assert measure(found[0], given[1]) > 1e-6 * measure(found[1], given[1])  # which the composer refuses


# Sentences


def test_sentences_follow_from_the_list_and_name_nothing_that_is_erased() -> None:
    words = ("cat", "tree", "a", "painting", "photo")
    found = list(list_sentences(encoder(), words, 3, naming(("dog", "photo"))))
    assert found == list(list_sentences(encoder(), words, 3, naming(("dog", "photo"))))
    assert len(found) > len(words)
    assert not any("photo" in sentence.replace(",", " ").split() for sentence in found)
    assert all("{}" not in sentence for sentence in found)
    assert list(list_sentences(encoder(), ("cat",), 3, naming(()))) == []  # nothing stands beside it
    assert list(list_sentences(encoder(), ("cat " * 90, "tree"), 1, naming(()))) == []  # too long to be read


_WORDS = ("cat", "tree", "painting", "car", "house", "boat", "kettle", "river", "stone", "chair")


@given(st.permutations(_WORDS), st.sampled_from(_WORDS), st.integers(1, 4))
@settings(deadline=None, max_examples=20)
def test_a_list_that_lost_a_word_gives_the_same_but_for_what_named_it(order: list[str], lost: str, each: int) -> None:
    """In any order; and what changed stands together, so that few blocks of prompts are read anew."""
    whole = list(list_sentences(encoder(), _WORDS, each, naming(())))
    assert list(list_sentences(encoder(), order, each, naming(()))) == whole
    kept = [word for word in order if word != lost]
    fewer = list(list_sentences(encoder(), kept, each, naming(())))
    named = [sentence for sentence in whole if lost in sentence.replace(",", " ").split()]
    assert set(whole) - set(named) <= set(fewer)
    assert len(set(fewer) - set(whole)) <= each  # every word before it on the ring found one other
    contexts = set(list_contexts(encoder(), "dog", order, 6))
    assert {c for c in contexts if lost not in c.replace(",", " ").split()} <= set(
        list_contexts(encoder(), "dog", kept, 6)
    )
    assert set(pick_scattered(_WORDS, 4)) - {lost} <= set(pick_scattered(kept, 4))
    assert pick_scattered(order, 4) == pick_scattered(_WORDS, 4)


def test_contexts_are_templates_with_the_concept_first_and_last() -> None:
    found = list_contexts(encoder(), "dog", ("cat", "tree", "painting"), 6)
    assert all(template.count("{}") == 1 for template in found)
    assert any(template.index("{}") < 5 for template in found)
    assert any(template.endswith("{}") for template in found)
    assert list_contexts(encoder(), "dog", (), 6) == ()
    assert list_contexts(encoder(), "dog", ("cat",), 0) == ()


# On a tiny model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    return TinyBase.at(tmp_path_factory.mktemp("joint") / "model")


def test_the_null_prompt_is_held_exactly_and_the_rest_moves_little(base: TinyBase) -> None:
    (patch,) = base.build(tiny_request(eraser=SMALL))
    measured = {name: float(value) for name, value in patch.manifest.measured.items()}
    assert patch.manifest.separable
    assert measured["leak_null"] < 1e-4
    assert measured["leak_retained"] < measured["effect"]
    assert measured["residual"] < 0.9
    for increment in patch.tensors.increments.values():
        assert float((increment.A.double() @ patch.tensors.protected.T).abs().max()) < 1e-5


def test_the_same_request_gives_the_same_patch_and_is_read_from_its_manifest(base: TinyBase) -> None:
    request = tiny_request(eraser=SMALL)
    (one,), (other,) = base.build(request), base.build(request)
    assert one.patch_id == other.patch_id
    again = request_of([one.manifest], request.retain, request.held_out)
    assert again.eraser == SMALL


def test_two_concepts_are_solved_as_one_and_the_composer_says_what_they_move(base: TinyBase) -> None:
    request = replace(tiny_request(eraser=SMALL), targets=(Target("dog", "cat"), Target("tree", "painting")))
    request = replace(request, retain=request.retain and request.retain.without(("dog", "tree")))
    patches = base.build(request)
    assert {patch.manifest.concept.text for patch in patches} == {"dog", "tree"}
    verdict = check([Member(patch) for patch in patches], Policy(pair=10.0))
    assert isinstance(verdict, Accepted)
    pairs = [relation.value for relation in verdict.relations if relation.check == "pair"]
    assert len(pairs) == 2
    assert max(pairs) < 1


def test_what_is_protected_whole_is_refused(base: TinyBase) -> None:
    with pytest.raises(ErasureRefusedError, match="'dog' lies inside the protected set"):
        base.build(tiny_request(eraser=SMALL, rule=RankRule("count", 128)))
