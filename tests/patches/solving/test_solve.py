"""What every eraser's solution is held to before it becomes a patch."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.values.factories import TinyBase, tiny_request

from rasura.patches.algebra.increment import Increment
from rasura.patches.erasers.closed_form.null_space import NullSpace
from rasura.patches.erasers.interface import Erasure, Problem
from rasura.patches.errors import ErasureRefusedError


@dataclass(frozen=True, slots=True)
class Faint(NullSpace):
    """An eraser whose solution is shorter than the grid can say."""

    def solve(self, problem: Problem) -> tuple[Erasure, ...]:
        return tuple(
            replace(found, increments={n: Increment.quantised(i.A, 1e-9 * i.B) for n, i in found.increments.items()})
            for found in NullSpace.solve(self, problem)
        )


def test_a_solution_that_is_nothing_is_no_patch(tmp_path: Path) -> None:
    """It would pass every check of the composer: it disturbs nobody."""
    base = TinyBase.at(tmp_path / "model")
    request = tiny_request(eraser=NullSpace())
    assert len(base.build(request)) == len(request.targets)
    with pytest.raises(
        ErasureRefusedError, match="erasing 'dog' by null-space with these choices changes nothing"
    ) as caught:
        base.build(replace(request, eraser=Faint()))
    assert caught.value.hint.startswith("rasura erase --base MODEL --concept dog")
