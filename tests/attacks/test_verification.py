"""Verification by somebody who has a copy and a public key, and no secret; and attacks that only they can see."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.commandline import rasura
from support.registries.registry_fixtures import Place, draft, filled

from rasura.patches.errors import AuditError
from rasura.registry.log.log_key import LogKey
from rasura.registry.log.notes.signed_note import Checkpoint, VerifyKey, parse_note, verify_note
from rasura.registry.log.verify import LogReport, verify_log


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(str(tmp_path / "here"), tmp_path / "here" / ".rasura", None)
    with found.create() as registry:
        filled(registry)
    return found


@pytest.fixture
def vkey(place: Place) -> str:
    with place.open() as registry:
        return registry.log_vkey()


def verify(place: Place, vkey: str | None = None, kept: bytes | None = None) -> LogReport:
    with place.open() as registry:
        return verify_log(registry, vkey=VerifyKey.parse(vkey) if vkey else None, kept=kept)


def copied(place: Place, to: Path) -> Place:
    """What an auditor gets: everything but the secrets, and nothing that can be written."""
    shutil.copytree(place.folder, to / ".rasura", ignore=shutil.ignore_patterns("keys"))
    for path in (to / ".rasura").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (to / ".rasura").chmod(0o555)
    return Place(str(to), to / ".rasura", None)


def refused(place: Place, vkey: str | None = None, kept: bytes | None = None) -> str:
    with pytest.raises(AuditError) as caught:
        verify(place, vkey, kept)
    return str(caught.value.details["check"])


def test_a_read_only_copy_verifies_with_the_public_key_alone(place: Place, vkey: str, tmp_path: Path) -> None:
    whole = verify(place)
    found = verify(copied(place, tmp_path / "copy"), vkey, whole.checkpoint.encode())
    assert (found.size, found.root, found.pinned, found.remembered, found.kept) == (
        whole.size,
        whole.root,
        True,
        False,
        whole.size,
    )
    assert (whole.pinned, whole.remembered, whole.kept) == (False, True, None)


def test_a_whole_forged_registry_passes_by_itself_and_fails_against_the_pinned_key(
    place: Place, vkey: str, tmp_path: Path
) -> None:
    forged = Place(str(tmp_path / "forged"), tmp_path / "forged" / ".rasura", None)
    with forged.create() as registry:
        filled(registry)
    assert not verify(forged).pinned
    assert refused(forged, vkey) == "key"
    # With the log's name in it, too: a name is no key.
    mine = LogKey.create(tmp_path / "mine", VerifyKey.parse(vkey).name).verify_key
    assert refused(place, str(mine)) == "key"


def test_a_log_that_was_cut_does_not_continue_the_kept_checkpoint(place: Place, vkey: str, tmp_path: Path) -> None:
    old = place.folder / "registry.db"
    before = old.read_bytes()
    with place.open() as registry:
        registry.note(draft())
    kept = verify(place).checkpoint.encode()
    old.write_bytes(before)
    copy = copied(place, tmp_path / "copy")
    assert verify(copy, vkey).kept is None  # without a checkpoint nobody sees it
    assert refused(copy, vkey, kept) == "cut"


def test_a_log_that_was_rewritten_with_the_stolen_key_does_not_continue_the_kept_checkpoint(
    place: Place, vkey: str
) -> None:
    database, memory = place.folder / "registry.db", place.folder / "keys" / "last_signed"
    before = database.read_bytes(), memory.read_bytes()
    with place.open() as registry:
        registry.note(draft(details={"story": "true"}))
    kept = verify(place).checkpoint.encode()
    database.write_bytes(before[0])
    memory.write_bytes(before[1])
    with place.open() as registry:
        registry.note(draft(details={"story": "false"}))
        registry.note(draft(details={"story": "longer"}))
    verify(place, vkey)
    assert refused(place, vkey, kept) == "exchanged"


@pytest.mark.parametrize("damage", ["another key", "a flipped byte", "no note", "another size"])
def test_a_kept_checkpoint_is_no_evidence_that_has(place: Place, vkey: str, tmp_path: Path, damage: str) -> None:
    note = verify(place).checkpoint
    bad = {
        "another key": LogKey.create(tmp_path / "m", VerifyKey.parse(vkey).name).sign(verify_checkpoint(place)),
        "a flipped byte": note.replace("rasura/log", "rasura/lag", 1),
        "no note": "whole",
        "another size": note.replace(f"\n{verify(place).size}\n", "\n1\n", 1),
    }[damage]
    assert refused(place, vkey, bad.encode()) == "kept"


def verify_checkpoint(place: Place) -> Checkpoint:
    with place.open() as registry:
        return registry.head()


def test_a_foreign_log_key_is_refused_before_it_writes_anything(place: Place, vkey: str, tmp_path: Path) -> None:
    LogKey.create(tmp_path / "foreign", VerifyKey.parse(vkey).name)
    own = place.folder / "keys" / "log.pem"
    honest = own.read_bytes()
    own.write_bytes((tmp_path / "foreign" / "log.pem").read_bytes())
    before = (place.folder / "registry.db").read_bytes()
    with place.open() as registry, pytest.raises(AuditError, match="nothing was") as caught:
        registry.note(draft())
    assert caught.value.details["check"] == "key"
    assert (place.folder / "registry.db").read_bytes() == before
    own.write_bytes(honest)
    with place.open() as registry:
        registry.note(draft())
    verify(place, vkey)


def test_the_command_line_takes_key_file_and_environment_and_says_loudly_when_it_got_none(
    place: Place, vkey: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(place.location)
    shown = rasura("key", "list", cwd=folder)
    assert f"the log is signed by {vkey}" in shown.out
    plain = rasura("audit", "verify", cwd=folder)
    assert (plain.code, "warning: no key was given from outside (--vkey)" in plain.err) == (0, True)
    assert not rasura("audit", "verify", "--json", cwd=folder).data["pinned"]
    pin, note = tmp_path / "log.vkey", tmp_path / "checkpoint"
    pin.write_text(vkey + "\n")
    note.write_text(rasura("audit", "verify", "--json", cwd=folder).data["checkpoint"])
    for given in (vkey, str(pin)):
        found = rasura("audit", "verify", "--vkey", given, "--checkpoint", str(note), cwd=folder)
        assert (found.code, found.err) == (0, "")
        assert "it continues the checkpoint of" in found.out
    other = str(LogKey.create(tmp_path / "mine", VerifyKey.parse(vkey).name).verify_key)
    monkeypatch.setenv("RASURA_VKEY", other)
    assert rasura("audit", "verify", cwd=folder).code == 4
    monkeypatch.setenv("RASURA_VKEY", vkey)
    assert rasura("audit", "verify", "--json", cwd=folder).data["pinned"]


def rotated(place: Place) -> str:
    """The key that signs from now on."""
    with place.open() as registry:
        return str(registry.rotate_log_key(draft("log.rotate")).details["new"])


def test_a_log_verifies_across_rotations_with_whichever_key_was_pinned(place: Place, vkey: str, tmp_path: Path) -> None:
    before = verify(place).checkpoint.encode()
    second = rotated(place)
    with place.open() as registry:
        registry.note(draft("doctor.repair"))
        assert registry.log_vkey() == second
    between = verify(place).checkpoint.encode()
    third = rotated(place)
    assert len({vkey, second, third}) == 3
    copy = copied(place, tmp_path / "copy")
    for where in (place, copy):
        for pinned in (vkey, second, third):
            for kept in (before, between):
                found = verify(where, pinned, kept)
                assert (found.vkey, found.pinned, found.replaced) == (third, True, pinned != third)
                assert len(found.rotations) == 2
    assert verify(place).remembered
    assert not (place.folder / "keys" / "log.pem.next").exists()


def test_the_note_of_a_rotation_is_signed_by_both_keys_and_the_next_by_the_new_one_alone(
    place: Place, vkey: str
) -> None:
    new = rotated(place)
    note = parse_note(verify(place).checkpoint.encode())
    assert {str(key) for key in verify_note(note, [VerifyKey.parse(vkey), VerifyKey.parse(new)])} == {vkey, new}
    with place.open() as registry:
        registry.note(draft("doctor.repair"))
    (only,) = parse_note(verify(place).checkpoint.encode()).signatures
    assert only.key_id == VerifyKey.parse(new).key_id


class Died(BaseException):
    """The process, between two steps."""


@pytest.mark.parametrize("step", ["adopt_next", "remember", "sign"])
def test_a_rotation_that_dies_between_two_steps_is_ended_or_undone(
    place: Place, vkey: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the commit the old key signs on; after it the new one, by whoever writes next."""

    def die(*_: object, **__: object) -> None:
        raise Died

    with monkeypatch.context() as patched, place.open() as registry:
        patched.setattr(LogKey, step, die)
        with pytest.raises(Died):
            registry.rotate_log_key(draft("log.rotate"))
    assert verify(place, vkey).pinned
    with place.open() as registry:
        named = registry.log_vkey()
        assert (named == vkey) == (step != "adopt_next")
        registry.note(draft("doctor.repair"))
    found = verify(place, vkey)
    assert found.vkey == named
    assert str(LogKey(place.folder / "keys", VerifyKey.parse(vkey).name).verify_key) == named
    rotated(place)  # and it can be rotated again
    assert verify(place, vkey).pinned


def test_a_log_that_was_handed_on_without_the_old_key_fails(place: Place, vkey: str) -> None:
    """Whoever writes the database and has no key names one of their own."""
    foreign = rotated(place)
    with closing(sqlite3.connect(place.folder / "registry.db")) as database, database:
        database.execute("DROP TRIGGER checkpoint_no_update")
        size, note = database.execute("SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
        lines = note.splitlines(keepends=True)
        own = VerifyKey.parse(foreign)
        signatures = {s.key_id: str(s) for s in parse_note(note.encode()).signatures}
        forged = "".join(lines[:4]) + signatures[own.key_id]
        database.execute("UPDATE checkpoint SET note = ? WHERE size = ?", (forged, size))
        database.execute(
            "CREATE TRIGGER checkpoint_no_update BEFORE UPDATE ON checkpoint"
            " BEGIN SELECT RAISE(ABORT, 'checkpoint is append-only'); END"
        )
    assert refused(place, vkey) == "signature"
    assert refused(place, foreign) == "signature"


def test_the_command_rotates_and_says_which_key_to_keep(place: Place, vkey: str) -> None:
    done = rasura("audit", "rotate-key", "--reason", "a laptop was lost", cwd=place.folder.parent)
    assert (done.code, vkey in done.out) == (0, True), done.err
    looked = rasura("audit", "verify", "--vkey", vkey, cwd=place.folder.parent)
    assert looked.code == 0, looked.err
    assert "give this one from now on" in " ".join(looked.err.split())
