"""What a whole stack leaves of a concept: every number against dense weights, and nothing believed of a manifest."""

from dataclasses import replace

import pytest
import torch
from support.values.factories import World, clip_like, normal

from rasura.patches._io.tensor_bytes import as_tensor
from rasura.patches.algebra.strength import Strength
from rasura.patches.checks.kernels.certificate import Certificate, certify
from rasura.patches.checks.kernels.weigh import Originals
from rasura.patches.erasers.columns import Columns
from rasura.patches.format.member import Member
from rasura.patches.format.patch import Patch
from rasura.patches.format.patch_tensors import Pairs

WORLD = World()
DOG, CAT = WORLD.columns("dog", 1, 3), WORLD.columns("cat", 2, 3)


@pytest.fixture(scope="module")
def stack() -> list[Member]:
    dog, cat = WORLD.erase(DOG, CAT)
    return [Member(dog), Member(cat, Strength(8))]


def rows(columns: Columns) -> Pairs:
    return Pairs(columns.targets.T, columns.anchors.T)


def only(found: tuple[Certificate, ...]) -> Certificate:
    (one,) = found
    return one


def share(stack: list[Member], originals: Originals, mixture: torch.Tensor, move: float = 0.0) -> float:
    """Of the dog, with dense weights, all layers below each other."""
    x, a = DOG.targets @ mixture, DOG.anchors @ mixture
    there = x + move * normal(9, x.shape[0]) / normal(9, x.shape[0]).norm()
    asked, left = [], []
    for name, weight in originals.items():
        W = as_tensor(weight).double()
        patched = W + sum(m.patch.tensors.increments[name].dense(m.strength) for m in stack)
        asked.append(W @ (x - a))
        left.append(patched @ there - W @ a)
    return float(torch.cat(left).norm() / torch.cat(asked).norm())


def test_it_bounds_what_dense_weights_do_under_the_whole_stack(stack: list[Member]) -> None:
    found = only(certify(stack[0], stack, WORLD.weights, columns=rows(DOG), words=("dog",), radius=2.0))
    mixed = found.mixtures
    assert mixed is not None
    assert mixed.ball is not None
    assert mixed.bound is not None
    assert mixed.ball.bound is not None
    assert found.words == ("dog",)
    assert {layer.name for layer in found.layers} == WORLD.weights.keys()
    columns = torch.eye(3, dtype=torch.float64)
    assert mixed.attained == pytest.approx(max(share(stack, WORLD.weights, column) for column in columns), rel=1e-6)
    for step in range(20):
        weights = normal(step, 3).exp()
        mixture = weights / weights.sum()
        assert share(stack, WORLD.weights, mixture) <= mixed.bound * (1 + 1e-9)
        assert share(stack, WORLD.weights, mixture, 2.0) <= mixed.ball.bound
        assert mixed.radius == 0 or share(stack, WORLD.weights, mixture, mixed.radius) <= 1


def test_one_layer_has_its_own_numbers(stack: list[Member]) -> None:
    found = only(certify(stack[0], stack, WORLD.weights, columns=rows(DOG)))
    for layer in found.layers:
        alone = {layer.name: WORLD.weights[layer.name]}
        shares = [share(stack, alone, column) for column in torch.eye(3, dtype=torch.float64)]
        assert layer.attained == pytest.approx(max(shares), rel=1e-6)
        assert layer.bound is None or layer.bound >= max(shares) * (1 - 1e-9)


def test_half_a_patch_leaves_half_and_no_patch_all() -> None:
    """Erased exactly, a share is what the strength leaves; the other patch alone leaves all of it."""
    one = WORLD.columns("dog", 1)
    (patch,) = WORLD.erase(one)
    whole, half = Member(patch), Member(patch, Strength(8))
    full, part = (only(certify(whole, [member], WORLD.weights)) for member in (whole, half))
    assert full.span is not None
    assert part.span is not None
    assert part.span == pytest.approx((1 + full.span) / 2, abs=0.01)
    assert part.mixtures is not None  # a single column is all that is stored of it
    other = Member(WORLD.erase(CAT)[0], Strength(0))
    assert only(certify(whole, [other], WORLD.weights)).span == pytest.approx(1)


def test_of_stored_combinations_there_is_a_span_and_no_mixture(stack: list[Member]) -> None:
    turn = torch.linalg.qr(normal(1, 3, 3))[0]
    tensors = stack[0].patch.tensors
    other = replace(tensors, targets=turn @ tensors.targets, anchors=turn @ tensors.anchors)
    turned = Patch(stack[0].patch.manifest, other.arrays)
    found, own = (only(certify(Member(p), stack, WORLD.weights)) for p in (turned, stack[0].patch))
    assert found.mixtures is own.mixtures is None
    assert found.span == pytest.approx(own.span, rel=1e-9)
    assert (found.directions, found.silent) == (own.directions, own.silent)


def test_what_a_manifest_claims_changes_nothing(stack: list[Member]) -> None:
    lying = replace(stack[0].patch.manifest, measured={**stack[0].patch.manifest.measured, "residual": "0.000e+00"})
    liar = Member(Patch(lying, stack[0].patch.arrays))
    told, own = (certify(m, [m, stack[1]], WORLD.weights, columns=rows(DOG)) for m in (liar, stack[0]))
    assert replace(told[0], patch=own[0].patch) == own[0]


def test_other_words_widen_the_set(stack: list[Member]) -> None:
    more = Pairs(
        torch.cat([DOG.targets.T, clip_like(77, 2, WORLD.width).T]), torch.cat([DOG.anchors.T, DOG.anchors.T[:2]])
    )
    wide = only(certify(stack[0], stack, WORLD.weights, columns=more, words=("dog", "hound")))
    own = only(certify(stack[0], stack, WORLD.weights, columns=rows(DOG)))
    assert wide.mixtures is not None
    assert own.mixtures is not None
    assert wide.columns == 5
    assert wide.mixtures.attained > 3 * own.mixtures.attained  # nobody erased these
