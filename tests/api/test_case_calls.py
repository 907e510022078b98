# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Cases from Python: the same clock, vault and log as on the command line, and a report of one that verifies."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commandline import rasura as typed
from support.registries.workshop import Workshop, workshop

import rasura
from rasura.patches.errors import ConflictError, ExistsError, InputError, NotFoundError

WROTE = "Please take my dog Brutus out of your pictures."
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[rasura.Registry]:
    with rasura.open(workshop.folder, actor="alice") as opened:
        opened.open_case("118", received="3h", deadline="48h", requester="Vera Kolář", text=WROTE, reason="mail")
        yield opened


def test_a_case_from_its_opening_to_its_end(workshop: Workshop, registry: rasura.Registry) -> None:
    assert [each.record.case_id for each in registry.cases()] == ["118"]
    assert (registry.case("118").state, registry.case("118").took) == ("open", None)
    with registry.of_case("118"):
        registry.apply(workshop.model, workshop.dog)
    standing = registry.case("118")
    assert [entry.action for entry in standing.entries] == ["case.open", "patch.apply", "patch.apply"]
    assert standing.acted == registry.log(case="118")[0]
    assert standing.took is not None
    assert 3 <= standing.took.total_seconds() / 3600 < 4
    assert not standing.late
    (workshop.folder / "sent.png").write_bytes(PNG)
    registry.add_to_case("118", workshop.folder / "sent.png")
    registry.close_case("118", reason="in force everywhere")
    assert registry.cases() == ()
    assert registry.cases(closed=True)[0].state == "closed"
    with pytest.raises(ConflictError, match="case 118 is closed"), registry.of_case("118"):
        pass
    registry.reopen_case("118")
    assert typed("case", "show", "118", "--json", cwd=workshop.folder).data["state"] == "open"
    registry.verify()


def test_what_cannot_be_done_with_a_case(workshop: Workshop, registry: rasura.Registry) -> None:
    (workshop.folder / "letter.txt").write_text("no picture")
    with workshop.unchanged():
        with pytest.raises(ExistsError, match="118"):
            registry.open_case("118")
        with pytest.raises(InputError, match="expected how the case ended"):
            registry.close_case("118", reason="")
        with pytest.raises(InputError, match="PNG"):
            registry.add_to_case("118", workshop.folder / "letter.txt")
        with pytest.raises(ConflictError, match="open"):
            registry.forget_case("118")
        with pytest.raises(NotFoundError, match="119"):
            registry.case("119")


def test_a_hold_keeps_what_was_said_until_it_is_released(workshop: Workshop, registry: rasura.Registry) -> None:
    registry.close_case("118", reason="done")
    assert registry.hold_case("118", reason="court order").held
    with pytest.raises(ConflictError, match="hold"):
        registry.forget_case("118")
    assert not registry.release_case("118", reason="court order lifted").held
    gone = registry.forget_case("118", reason="a year is over")
    assert set(gone.items) == {"requester", "text"}
    assert registry.case("118").state == "forgotten"
    assert registry.entry(gone.index).action == "case.forget"
    kept = (path.read_bytes() for path in (workshop.folder / ".rasura").rglob("*") if path.is_file())
    assert not any(b"Brutus" in data for data in kept)
    registry.verify()


def test_a_report_is_written_and_verified_and_a_spoilt_one_is_not(
    workshop: Workshop, registry: rasura.Registry
) -> None:
    with registry.of_case("118"):
        registry.apply(workshop.model, workshop.dog)
    page = workshop.folder / "report.html"
    made = registry.report(page, case="118", key="alice")
    assert (page.read_bytes(), page.with_suffix(".json").read_bytes()) == (made.page, made.twin)
    vkey = registry.verify().vkey
    for file in (page, page.with_suffix(".json")):
        found = rasura.verify_report(file, vkey=vkey, key=registry.key("alice").pem)
        about: Any = found.document["about"]
        assert about["name"] == "118"
    assert WROTE.encode() not in registry.report(page, case="118", withhold=True).page
    page.write_bytes(made.page.replace(b"118", b"119"))
    with pytest.raises(rasura.errors.VerificationError):
        rasura.verify_report(page, vkey=vkey)


@pytest.mark.parametrize(
    ("name", "about"), [("r.html", {}), ("r.html", {"case": "118", "stack": "brand"}), ("r.pdf", {"case": "118"})]
)
def test_a_report_of_nothing_or_two_things_is_none(
    name: str, about: dict[str, str], workshop: Workshop, registry: rasura.Registry
) -> None:
    with workshop.unchanged(), pytest.raises(InputError, match="expected one of case, stack and model"):
        registry.report(workshop.folder / name, **about)  # type: ignore[arg-type]
    assert not (workshop.folder / name).exists()
