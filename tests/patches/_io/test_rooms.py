"""Memory for many values: as much as was asked for, zero, apart from each other, writable."""

import pytest

from rasura.patches._io.rooms import make_rooms


@pytest.mark.parametrize("unit", [1, 1_000_003])
def test_each_has_its_own_bytes(unit: int) -> None:
    sizes = {
        "a": 3 * unit,
        "none": 0,
        "b": unit,
        "c": 7 * unit,
    }  # below the bound from which pages are large, and above
    rooms = make_rooms(sizes)
    assert {key: len(room) for key, room in rooms.items()} == sizes
    assert all(room.tobytes() == bytes(len(room)) for room in rooms.values())
    for number, room in enumerate(rooms.values(), start=1):
        room[:] = bytes([number]) * len(room)
    assert all(set(room.tobytes()) == {number} for number, room in enumerate(rooms.values(), start=1) if len(room))


def test_what_one_holds_stays_when_the_others_go() -> None:
    rooms = make_rooms({"a": 5_000_000, "b": 5})
    rooms["b"][:] = b"stays"
    left = rooms.pop("b")
    del rooms
    assert left.tobytes() == b"stays"


def test_nothing_asked_for_is_nothing() -> None:
    assert make_rooms({}) == {}
