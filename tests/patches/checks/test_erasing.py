"""Numbers that say beforehand whether an erasure erases."""

import torch

from rasura.patches.checks.erasing import FEWEST, Judgement, Scale

EYE = torch.eye(6, dtype=torch.float64)


def kept(count: int) -> list[torch.Tensor]:
    return [EYE[:, [i]] for i in range(count)]


def test_the_unit_is_what_lies_between_kept_concepts() -> None:
    scale = Scale.of(kept(5), 4 * EYE)  # W = 2·I
    assert scale is not None
    assert abs(scale.unit - 2 * 2**0.5) < 1e-12
    assert abs(scale.between(EYE[:, [0]], EYE[:, [5]]) - 1) < 1e-12
    assert scale.between(EYE[:, [0]], EYE[:, [0]]) == 0


def test_what_all_prompts_share_does_not_count() -> None:
    shift = 100 * torch.ones(6, 1, dtype=torch.float64)
    one, other = Scale.of(kept(5), EYE), Scale.of([c + shift for c in kept(5)], EYE)
    assert one is not None
    assert other is not None
    assert abs(one.spread(EYE[:, [5]]) - other.spread(EYE[:, [5]] + shift)) < 1e-9


def test_a_patch_moves_its_target_by_its_kernel() -> None:
    scale = Scale.of(kept(5), EYE)
    assert scale is not None
    assert abs(scale.moved(3 * EYE[[5]], EYE[:, [5]]) * scale.unit - 3) < 1e-12
    assert scale.moved(3 * EYE[[5]], EYE[:, [0]]) == 0


def test_too_few_or_equal_concepts_are_no_scale() -> None:
    assert Scale.of(kept(FEWEST - 1), EYE) is None
    assert Scale.of([EYE[:, [0]]] * 6, EYE) is None


def test_alike_is_one_for_the_target_itself_and_never_negative() -> None:
    assert Judgement("dog", "dog", 0.0, 1.0, 1.0).alike == 1
    assert Judgement("dog", "car", 1.3, 1.0, 1.0).alike == 0
    assert not Judgement("neno", "car", 1.3, 1.0, 0.44).known
