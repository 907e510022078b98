# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Cases, typed: from a request that came to what was done about it, and to personal data that is gone."""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.commandline import Run, rasura
from support.registries.workshop import ALICE, Workshop, workshop

from rasura.registry._storage.files.vault import commit, derive_key
from rasura.registry.cases.handle_case import REQUESTER, TEXT, forget_case
from rasura.registry.cases.retention import list_due
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry

ASKED = "Vera Kolář, vera@example.org"
WROTE = "Please take my dog Brutus out of your pictures."
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


def typed(shop: Workshop, *arguments: str | Path, code: int = 0) -> Run:
    run = rasura(*arguments, cwd=shop.folder)
    assert run.code == code, run.out + run.err
    return run


def opened(shop: Workshop, case: str = "118", *more: str) -> None:
    (shop.folder / "letter.txt").write_text(WROTE)
    given = more or ("--received", "3h", "--deadline", "48h")
    typed(shop, "case", "open", case, *given, "--requester", ASKED, "--text", "letter.txt")


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_case_is_not_acted_on_before_its_change_stands_at_strength_one(workshop: Workshop) -> None:
    opened(workshop)
    place = ("--model", "the model", "--case", "118")
    typed(workshop, "patch", "apply", workshop.dog, "--strength", "-1", *place)
    assert rasura("case", "show", "118", "--json", cwd=workshop.folder).data["acted_entry"] is None
    assert "due in 44 h" in typed(workshop, "case", "list").out
    typed(workshop, "stack", "create", "one", workshop.dog)
    typed(workshop, "patch", "switch", "one", *place)
    found = rasura("case", "show", "118", "--json", cwd=workshop.folder).data
    newest = rasura("audit", "log", "--case", "118", "--json", cwd=workshop.folder).data["entries"][0]
    assert (newest["action"], newest["outcome"], newest["index"]) == ("patch.switch", "done", found["acted_entry"])


def test_a_case_from_its_opening_to_its_end(workshop: Workshop) -> None:
    opened(workshop)
    assert "118   open" in typed(workshop, "case", "list").out
    assert "due in 44 h" in typed(workshop, "case", "list").out
    typed(workshop, "patch", "apply", workshop.dog, "--model", "the model", "--case", "118")
    found = rasura("case", "show", "118", "--json", cwd=workshop.folder).data
    assert found["said"] == {REQUESTER: ASKED, TEXT: WROTE}
    assert (found["state"], found["late"], len(found["entries"])) == ("open", False, 3)
    shown = rasura("audit", "log", "--case", "118", "--json", cwd=workshop.folder).data["entries"]
    assert [e["action"] for e in shown] == ["patch.apply", "patch.apply", "case.open"]
    assert found["acted_entry"] == shown[0]["index"]
    assert "in force after 3 h" in typed(workshop, "case", "list").out
    assert "expected how the case ended" in typed(workshop, "case", "close", "118", code=1).err
    typed(workshop, "case", "close", "118", "--reason", "in force everywhere")
    assert typed(workshop, "case", "list").out == "no open cases\n"
    assert "in time" in typed(workshop, "case", "list", "--all").out
    late = typed(workshop, "patch", "revert", workshop.dog, "--model", "the model", "--yes", "--case", "118", code=7)
    assert "case 118 is closed" in late.err
    assert "rasura case reopen 118" in late.err
    typed(workshop, "case", "reopen", "118")
    typed(workshop, "patch", "revert", workshop.dog, "--model", "the model", "--yes", "--case", "118")
    typed(workshop, "audit", "verify")


def test_what_was_said_is_nowhere_but_in_the_vault(workshop: Workshop) -> None:
    opened(workshop)
    home = workshop.folder / ".rasura"
    cases = home / "cases"
    for path in sorted(home.rglob("*")):
        if path.is_file() and cases not in path.parents:
            assert ASKED.encode() not in path.read_bytes()
            assert b"Brutus" not in path.read_bytes()
    assert ASKED.encode() in everything(cases)
    (folder,) = cases.iterdir()
    assert {oct(path.stat().st_mode & 0o777) for path in (cases, folder)} == {"0o700"}
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o600"}


def test_a_commitment_can_be_checked_by_hand_and_one_item_opened_by_itself(workshop: Workshop) -> None:
    opened(workshop)
    with workshop.open() as registry:
        record = registry.case("118")
        key = (registry.vault.path("118") / "key").read_bytes()
        by_hand = hmac.new(hmac.new(key, b"text", hashlib.sha256).digest(), WROTE.encode(), hashlib.sha256)
        assert record.commitments[TEXT] == by_hand.hexdigest() == commit(key, TEXT, WROTE.encode())
        assert registry.vault.open_item(record, TEXT) == derive_key(key, TEXT) != derive_key(key, REQUESTER)
        assert registry.vault.read(record, REQUESTER).decode() == ASKED


def test_forgetting_deletes_what_was_said_and_the_log_still_verifies(workshop: Workshop, tmp_path: Path) -> None:
    opened(workshop)
    (workshop.folder / "picture.png").write_bytes(PNG)
    assert "as picture-1" in typed(workshop, "case", "add", "118", "--picture", "picture.png").out
    assert "is open: nothing was deleted" in typed(workshop, "case", "forget", "118", code=7).err
    typed(workshop, "case", "close", "118", "--reason", "done")
    typed(workshop, "case", "hold", "118", "--reason", "order of the court")
    assert "under a legal hold" in typed(workshop, "case", "forget", "118", code=7).err
    assert ASKED.encode() in everything(workshop.folder / ".rasura" / "cases")
    assert "yes" in typed(workshop, "case", "list", "--all").out
    typed(workshop, "case", "release", "118", "--reason", "order lifted")
    foreseen = typed(workshop, "case", "forget", "118", "--dry-run").out
    assert foreseen.startswith("would delete of case 118: ")
    found = rasura("case", "forget", "118", "-o", "gone.proof", "--json", cwd=workshop.folder).data
    assert found["deleted"] == ["picture-1", REQUESTER, TEXT]
    assert list((workshop.folder / ".rasura" / "cases").iterdir()) == []
    assert b"Brutus" not in everything(workshop.folder / ".rasura")
    key = rasura("key", "list", "--json", cwd=workshop.folder).data["log_key"]
    proof = rasura("audit", "verify", workshop.folder / "gone.proof", "--vkey", key, "--json", cwd=tmp_path).data
    assert [entry["action"] for entry in proof["shown"]] == ["case.forget"]
    assert "was deleted" in typed(workshop, "case", "show", "118").out
    with workshop.open() as registry:
        assert (verify_log(registry).size, registry.vault.is_empty("118")) == (found["size"], True)
    again = rasura("case", "forget", "118", "--json", cwd=workshop.folder).data
    assert (again["entry"], again["size"]) == (found["entry"], found["size"])
    held = typed(workshop, "case", "hold", "118", "--reason", "too late", code=7)
    assert "nothing to hold" in held.err


def test_a_picture_or_a_letter_that_was_changed_is_not_believed(workshop: Workshop) -> None:
    opened(workshop)
    (folder,) = (workshop.folder / ".rasura" / "cases").iterdir()
    (folder / TEXT).write_text(WROTE + "!")
    assert "expected the bytes that the log's commitment is to" in typed(workshop, "case", "show", "118", code=4).err


def test_a_late_case_says_so(workshop: Workshop) -> None:
    opened(workshop, "118", "--received", "3d", "--deadline", "48h")
    opened(workshop, "119", "--received", "1h", "--deadline", "48h")
    lines = typed(workshop, "case", "list").out.splitlines()
    assert [row.split()[0] for row in lines[1:]] == ["118", "119"]
    assert "LATE by 24 h" in lines[1]
    found = rasura("case", "list", "--json", cwd=workshop.folder).data["cases"]
    assert [each["late"] for each in found] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("open", "Vera K"), "expected a ticket's number"),
        (("open", "1", "--received", "2999-01-01"), "expected a time that has passed"),
        (("open", "1", "--deadline", "soon"), "deadline: expected 48h"),
        (("open", "1", "--deadline", "2001-01-01"), "expected a time after"),
        (("open", "1", "--text", "nowhere"), "does not exist"),
        (("show", "99"), "no case 99"),
        (("add", "99", "--picture", "letter.txt"), "no case 99"),
    ],
)
def test_what_cannot_be_is_refused(workshop: Workshop, arguments: tuple[str, ...], said: str) -> None:
    (workshop.folder / "letter.txt").write_text(WROTE)
    run = rasura("case", *arguments, cwd=workshop.folder)
    assert run.code not in {0, 70}
    assert said in run.err
    assert not (workshop.folder / ".rasura" / "cases").exists()


def test_a_command_for_a_case_that_is_not_there_does_nothing(workshop: Workshop) -> None:
    before = workshop.tables()
    run = typed(workshop, "patch", "apply", workshop.dog, "--model", "the model", "--case", "118", code=8)
    assert "rasura case list" in run.err
    assert workshop.tables() == before


def test_the_entries_of_a_case_leave_the_registry_as_one_file(workshop: Workshop, tmp_path: Path) -> None:
    opened(workshop)
    typed(workshop, "patch", "apply", workshop.dog, "--model", "the model", "--case", "118")
    typed(workshop, "patch", "apply", workshop.photo, "--model", "the model")
    typed(workshop, "audit", "prove", "--case", "118", "-o", "case.jsonl")
    key = rasura("key", "list", "--json", cwd=workshop.folder).data["log_key"]
    found = rasura("audit", "verify", workshop.folder / "case.jsonl", "--vkey", key, "--json", cwd=tmp_path).data
    assert [e["details"]["case"] for e in found["shown"]] == ["118"] * 3
    assert ASKED.encode() not in (workshop.folder / "case.jsonl").read_bytes()
    assert "expected the number" in typed(workshop, "audit", "prove", code=2).err
    head = json.loads((workshop.folder / "case.jsonl").read_text().splitlines()[0])
    assert (head["entries"], head["whole"]) == (3, False)


def test_the_policy_says_how_long_what_was_said_is_kept(workshop: Workshop) -> None:
    (workshop.folder / "policy.toml").write_text(
        '[retention]\ndefault = "to 30 days"\ntakedown = "30 days to 26 weeks"\ncourt = "hold"\n'
    )
    typed(workshop, "policy", "set", "policy.toml")
    assert '[retention]\ncourt = "hold"\ndefault = "to 30 days"' in typed(workshop, "policy", "show").out
    assert (
        "the policy has court, default, takedown"
        in typed(workshop, "case", "open", "1", "--retention", "no-such", code=1).err
    )
    for case, kind in (("118", "takedown"), ("119", "court"), ("120", "")):
        opened(workshop, case, *(("--retention", kind) if kind else ("--received", "3h")))
    said = typed(workshop, "status").out
    assert "open: case 118: nothing in force" in said
    for case in ("118", "119", "120"):
        typed(workshop, "case", "close", case, "--reason", "done")
    assert "kept until" in typed(workshop, "case", "forget", "118", code=7).err
    assert "which the policy holds" in typed(workshop, "case", "forget", "119", "--dry-run", code=7).err
    assert "takedown: not deleted before" in typed(workshop, "case", "show", "118").out
    assert "court: nothing is deleted" in typed(workshop, "case", "show", "119").out
    with Registry.open(workshop.folder, now=lambda: datetime.now(UTC) + timedelta(days=31)) as later:
        assert [record.case_id for record, _ in list_due(later)] == ["120"]
        assert forget_case(later, "118", ALICE).items == (REQUESTER, TEXT)  # its thirty days are over
    with Registry.open(workshop.folder, now=lambda: datetime.now(UTC) + timedelta(days=400)) as later:
        assert [record.case_id for record, _ in list_due(later)] == ["120"]  # one is deleted, the other held
    assert "nothing is open" in typed(workshop, "status").out
