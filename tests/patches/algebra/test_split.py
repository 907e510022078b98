"""A change of weights, split and cut: the two parts add up, one sees nothing protected, and the rank is the best."""

import pytest
import torch
from support.values.factories import generator

from rasura.patches.algebra.protected_subspace import Moment, ProtectedBasis, build_protected_basis
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.algebra.split import count_rank, reduce_alone, reduce_together, split_change
from rasura.patches.types import ParamName


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


@pytest.fixture
def basis() -> ProtectedBasis:
    kept = Moment(24)
    kept.add(noise(6, 24, seed=1))
    return build_protected_basis(noise(4, 24, seed=2), kept, RankRule("count", 5))


def test_the_parts_add_up_and_one_sees_nothing_protected(basis: ProtectedBasis) -> None:
    change = noise(10, 24)
    part = split_change(change, basis)
    assert float((part @ basis.rows.T).abs().max()) < 1e-13
    rest = change - part
    assert float((rest - (rest @ basis.rows.T) @ basis.rows).abs().max()) < 1e-13
    assert float((part * rest).sum()) == pytest.approx(0, abs=1e-10)  # so their energies add up


@pytest.mark.parametrize("shape", [(30, 24), (10, 24)])
def test_of_a_rank_nothing_is_better(shape: tuple[int, int]) -> None:
    change = noise(*shape)
    values = torch.linalg.svdvals(change)
    for limit in (1, 3, 100):
        found = reduce_alone(change, 0.9, limit)
        rank = found.A.shape[0]
        assert rank <= limit
        assert found.lost == pytest.approx(float(values[rank:].square().sum()), rel=1e-9)
        assert float((found.A @ found.A.T - torch.eye(rank, dtype=torch.float64)).abs().max()) < 1e-12
    share = 1 - reduce_alone(change, 0.9, 100).lost / float(change.square().sum())
    assert 0.9 <= share < 1


def test_layers_that_share_their_rows_share_a_detector() -> None:
    rows = noise(3, 24)
    changes = {ParamName(f"l{i}"): noise(8 + i, 3, seed=i) @ rows for i in range(4)}
    found = reduce_together(changes, 1 - 1e-12, 64)
    first = found[ParamName("l0")].A
    assert first.shape[0] == 3
    assert all(torch.equal(own.A, first) for own in found.values())
    assert all(float((own.B @ own.A - changes[n]).abs().max()) < 1e-10 for n, own in found.items())


def test_layers_with_rows_of_their_own_keep_them() -> None:
    changes = {ParamName(f"l{i}"): noise(8, 2, seed=i) @ noise(2, 24, seed=10 + i) for i in range(4)}
    found = reduce_together(changes, 1 - 1e-12, 64)
    assert {own.A.shape[0] for own in found.values()} == {2}
    assert not torch.equal(found[ParamName("l0")].A, found[ParamName("l1")].A)
    assert all(own.lost < 1e-10 for own in found.values())


def test_ranks_are_counted() -> None:
    assert count_rank(noise(9, 3) @ noise(3, 24, seed=1)) == 3
    assert count_rank(torch.zeros(9, 24, dtype=torch.float64)) == 0
