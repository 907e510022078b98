"""What a quick look concludes: an erased concept must be gone, a kept one still there."""

import pytest

from rasura.evaluation.look import Seen, check_judge, require_unseen
from rasura.patches.errors import CheckRefusedError, InputError, NotFoundError


@pytest.mark.parametrize(
    ("seen", "holds"),
    [
        (Seen("dog", 4, 4, 1, erased=True), True),
        (Seen("dog", 4, 4, 2, erased=True), False),
        (Seen("dog", 0, 0, 0, erased=True), True),
        (Seen("dog", 4, 0, 4, erased=False), True),
        (Seen("cat", 2, 2, 1, erased=False, kept=True), True),
        (Seen("cat", 2, 2, 0, erased=False, kept=True), False),
        (Seen("cat", 2, 0, 0, erased=False, kept=True), True),
    ],
)
def test_what_is_erased_is_gone_and_what_is_kept_is_there(seen: Seen, holds: bool) -> None:
    assert seen.holds is holds


def test_a_lost_neighbour_is_said_and_stops_nothing() -> None:
    require_unseen([Seen("cat", 2, 2, 0, erased=False, kept=True)])
    with pytest.raises(
        CheckRefusedError, match="still drawn after the takedown: dog in 3 of 4 pictures \\(the base: 4\\), expected"
    ):
        require_unseen([Seen("dog", 4, 4, 3, erased=True), Seen("cat", 2, 2, 0, erased=False, kept=True)])


@pytest.mark.parametrize("judge", ["clip:nowhere", "nowhere", "onnx:nowhere.onnx"])
def test_a_judge_that_is_not_there(judge: str) -> None:
    with pytest.raises((NotFoundError, InputError)):
        check_judge(judge)


def test_a_takedown_that_takes_most_of_the_rest_is_refused() -> None:
    kept = [Seen(name, 2, 2, after, erased=False, kept=True) for name, after in (("cat", 2), ("bus", 0), ("car", 0))]
    gone = Seen("dog", 4, 4, 0, erased=True)
    with pytest.raises(CheckRefusedError, match=r"they are kept: bus in 0 of 2 .*; car in 0 of 2 .* of the 3 that"):
        require_unseen([gone, *kept])
    require_unseen([gone, *kept[:2], Seen("pig", 2, 0, 0, erased=False, kept=True)])  # the base never drew a pig
