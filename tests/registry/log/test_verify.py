"""Tampering: an attacker who can write the database, and sometimes more, against the verifier.

Each attack is carried out on a real database by hand. Triggers are dropped for it and put back afterwards, as an
attacker would, so that what catches it is the log and not the seat belt.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace as changed
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from support.registries.registry_fixtures import (
    EPOCH,
    HOST,
    Clock,
    Place,
    base,
    digest,
    draft,
    filled,
    host,
    key,
    on_both,
    stack,
)

from rasura.patches.checks.policy import Policy
from rasura.patches.errors import AuditError, RegistryError
from rasura.registry._storage.database.tables import EntryRow
from rasura.registry.log.entries.entry import Placement, decode, encode
from rasura.registry.log.entries.entry_changes import removal_of
from rasura.registry.log.entries.replay import Replay, compare
from rasura.registry.log.entries.stored_entries import patches_of
from rasura.registry.log.log_key import LastSigned, LogKey
from rasura.registry.log.merkle import Frontier, hash_leaf, prove_consistency
from rasura.registry.log.notes.signed_note import Checkpoint, VerifyKey, parse_note, verify_note
from rasura.registry.log.verify import LogReport, verify_log
from rasura.registry.log.verifying.merkle_proofs import verify_consistency
from rasura.registry.registry import Registry

Attack = Callable[["Intruder"], None]


class Intruder:
    """Somebody with the database's superuser, or its file, and SQL."""

    def __init__(self, place: Place, run: Callable[[str, Sequence[object]], list[Any]]) -> None:
        self.place = place
        self._run = run

    def __call__(self, sql: str, *values: object) -> list[Any]:
        return self._run(sql, values)

    def size(self) -> int:
        return int(self("SELECT COUNT(*) FROM entry")[0][0])

    def rewrite(self, index: int, old: bytes, new: bytes, *, leaf: bool = True) -> None:
        """Changes the bytes of an entry, and its leaf hash with them."""
        body = bytes(self("SELECT body FROM entry WHERE position = ?", index)[0][0])
        assert old in body
        body = body.replace(old, new)
        self("UPDATE entry SET body = ? WHERE position = ?", body, index)
        if leaf:
            self("UPDATE entry SET leaf_hash = ? WHERE position = ?", hash_leaf(body), index)

    def cut(self, size: int) -> None:
        """Removes all entries from `size` on, without a trace in the tables of the log."""
        for table in ("checkpoint WHERE size > ?", "entry_patch WHERE position >= ?", "entry WHERE position >= ?"):
            self(f"DELETE FROM {table}", size)


@contextmanager
def intruder(place: Place) -> Iterator[Intruder]:
    """The database without triggers and foreign keys; both are back afterwards."""
    if place.url is None:
        with closing(sqlite3.connect(place.folder / "registry.db")) as connection:
            triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for name, _ in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            yield Intruder(place, lambda sql, values: connection.execute(sql, values).fetchall())
            for _, sql in triggers:
                connection.execute(sql)
            connection.commit()
        return
    import psycopg

    tables = (
        "registry",
        "entry",
        "entry_patch",
        "checkpoint",
        "patch",
        "patch_file",
        "host",
        "host_patch",
        "evaluation",
        "evaluation_patch",
        "stack",
        "stack_patch",
        "policy",
        "signing_key",
    )
    with psycopg.connect(place.url) as server:
        for table in tables:
            server.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")

        def run(sql: str, values: Sequence[object]) -> list[Any]:
            cursor = server.execute(sql.replace("?", "%s"), values)
            return cursor.fetchall() if cursor.description else []

        yield Intruder(place, run)
        own = server.execute("SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal").fetchall()
        for table in tables:
            server.execute(f"ALTER TABLE {table} ENABLE TRIGGER ALL")
        for table, name in own:
            server.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


def verify(place: Place) -> LogReport:
    with place.open() as registry:
        return verify_log(registry)


def refused(place: Place) -> AuditError:
    with pytest.raises(AuditError) as caught:
        verify(place)
    assert caught.value.exit_code == 4
    assert caught.value.hint
    return caught.value


# ── Sound logs ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_log_verifies(registry: Registry) -> None:
    report = verify_log(registry)
    assert (report.size, report.unfinished, report.backwards) == (1, (), ())


def test_a_used_log_verifies_and_its_checkpoint_stands_alone(full: Place) -> None:
    report = verify(full)
    note = parse_note(report.checkpoint.encode())
    key_of_log = VerifyKey.parse(report.vkey)
    assert verify_note(note, [key_of_log]) == (key_of_log,)
    assert Checkpoint.parse(note.text) == Checkpoint(key_of_log.name, report.size, report.root)
    assert report.size == 8
    assert report.first < report.last


def test_a_later_log_is_consistent_with_a_checkpoint_that_was_kept(full: Place) -> None:
    kept = verify(full)
    with full.open() as registry:
        registry.note(draft())
        registry.note(draft())
        later = verify_log(registry)
        leaves = [entry.leaf_hash for entry in registry.entries(newest=False)]
    verify_consistency(kept.size, later.size, kept.root, later.root, prove_consistency(leaves, kept.size))


def test_what_was_begun_and_a_clock_that_was_set_back_are_reported(made: Place) -> None:
    clock = Clock(EPOCH + timedelta(days=2))
    with Registry.open(made.location, now=clock) as registry:
        registry.note(draft("stack.apply", "begun", host=HOST))
        clock.time -= timedelta(hours=5)
        registry.note(draft())
        report = verify_log(registry)
    assert (report.unfinished, report.backwards) == ((1,), (2,))


def test_of_a_long_log_old_signatures_are_verified_where_somebody_asks(full: Place) -> None:
    with intruder(full) as database:
        note = str(database("SELECT note FROM checkpoint WHERE size = 2")[0][0])
        other = note[:-6] + ("A" if note[-6] != "A" else "B") + note[-5:]
        database("UPDATE checkpoint SET note = ? WHERE size = 2", other)
    with full.open() as registry:
        report = verify_log(registry, closely=3)
        assert (report.size, report.signatures) == (8, 3)
        with pytest.raises(AuditError) as caught:
            verify_log(registry, closely=None)
    assert (caught.value.details["check"], caught.value.details["index"]) == ("signature", 1)
    # What it says is compared with the tree all the same, and so is who says to have signed it.
    for text in (note.replace("\n2\n", "\n3\n"), note.replace("rasura/log/", "rasura/lag/")):
        with intruder(full) as database:
            database("UPDATE checkpoint SET note = ? WHERE size = 2", text)
        with full.open() as registry, pytest.raises(AuditError):
            verify_log(registry, closely=3)


@pytest.mark.parametrize(("kind", "batch"), on_both([1, 2, 3, 10, 11]))
def test_a_log_verifies_in_any_batches(full: Place, batch: int) -> None:
    with full.open() as registry:
        assert verify_log(registry, batch=batch) == verify_log(registry)


# ── Attacks on the log ───────────────────────────────────────────────────────────────────────────────────────────


def edit_an_entry(db: Intruder) -> None:
    db.rewrite(3, b"alice", b"mallo", leaf=False)


def edit_an_entry_and_its_hash(db: Intruder) -> None:
    db.rewrite(3, b"alice", b"mallo")


def edit_the_last_entry_and_its_hash(db: Intruder) -> None:
    db.rewrite(db.size() - 1, b"alice", b"mallo")


def respell_an_entry(db: Intruder) -> None:
    db.rewrite(3, b'"v":1', b'"v": 1')


def swap_two_entries(db: Intruder) -> None:
    for old, new in ((2, 902), (3, 2), (902, 3)):
        for table in ("entry", "entry_patch"):
            db(f"UPDATE {table} SET position = ? WHERE position = ?", new, old)


def remove_an_entry_in_the_middle(db: Intruder) -> None:
    db("DELETE FROM entry WHERE position = 2")


def remove_an_entry_and_close_the_gap(db: Intruder) -> None:
    last = db.size() - 1
    db("DELETE FROM entry WHERE position = 2")
    for index in range(3, last + 1):
        for table in ("entry", "entry_patch"):
            db(f"UPDATE {table} SET position = ? WHERE position = ?", index - 1, index)
    db("DELETE FROM checkpoint WHERE size = ?", last + 1)


def cut_the_tail(db: Intruder) -> None:
    db.cut(db.size() - 2)


def cut_the_last_entry(db: Intruder) -> None:
    db.cut(db.size() - 1)


def cut_everything(db: Intruder) -> None:
    db.cut(0)


def cut_entries_and_leave_checkpoints(db: Intruder) -> None:
    last = db.size() - 1
    db("DELETE FROM entry_patch WHERE position = ?", last)
    db("DELETE FROM entry WHERE position = ?", last)


def change_a_column_beside_an_entry(db: Intruder) -> None:
    db("UPDATE entry SET outcome = 'refused' WHERE position = 3")


def change_the_host_beside_an_entry(db: Intruder) -> None:
    db("UPDATE entry SET host = NULL WHERE outcome = 'begun'")


def change_the_time_beside_an_entry(db: Intruder) -> None:
    db("UPDATE entry SET time = '2020-01-01T00:00:00.000000Z' WHERE position = 3")


def respell_the_time_beside_an_entry(db: Intruder) -> None:
    db("UPDATE entry SET time = replace(time, 'Z', '+00:00') WHERE position = 3")


def ruin_the_time_beside_an_entry(db: Intruder) -> None:
    db("UPDATE entry SET time = 'yesterday' WHERE position = 3")


def move_the_patches_to_the_entry_before(db: Intruder) -> None:
    first = int(db("SELECT MIN(position) FROM entry_patch")[0][0])
    db("UPDATE entry_patch SET position = ? WHERE position = ?", first - 1, first)


def list_one_more_patch_beside_an_entry(db: Intruder) -> None:
    db("INSERT INTO entry_patch (position, ordinal, patch_id) VALUES (3, 999, ?)", digest("another"))


def list_no_patches_beside_an_entry(db: Intruder) -> None:
    db("DELETE FROM entry_patch")


def change_the_patches_beside_an_entry(db: Intruder) -> None:
    db("UPDATE entry_patch SET patch_id = ?", digest("another"))


def list_patches_for_no_entry(db: Intruder) -> None:
    db("INSERT INTO entry_patch (position, ordinal, patch_id) VALUES (999, 0, ?)", digest("another"))


def remove_a_checkpoint(db: Intruder) -> None:
    db("DELETE FROM checkpoint WHERE size = 3")


def exchange_a_checkpoint_for_an_older_one(db: Intruder) -> None:
    note = db("SELECT note FROM checkpoint WHERE size = 2")[0][0]
    db("UPDATE checkpoint SET note = ? WHERE size = 3", note)


def edit_a_checkpoint(db: Intruder) -> None:
    note = str(db("SELECT note FROM checkpoint WHERE size = 3")[0][0])
    db("UPDATE checkpoint SET note = ? WHERE size = 3", note.replace("\n3\n", "\n4\n"))


def ruin_a_checkpoint(db: Intruder) -> None:
    db("UPDATE checkpoint SET note = 'nothing' WHERE size = 3")


def change_a_frontier(db: Intruder) -> None:
    db("UPDATE checkpoint SET frontier = ? WHERE size = 4", bytes(32))


def add_a_checkpoint_of_the_future(db: Intruder) -> None:
    note = db("SELECT note FROM checkpoint WHERE size = 3")[0][0]
    db("INSERT INTO checkpoint (size, note, frontier) VALUES (999, ?, ?)", note, bytes(32))


def append_without_the_key(db: Intruder) -> None:
    _append_forged(db, "rasura/log/mine", None)


def append_with_another_key(db: Intruder) -> None:
    folder = db.place.folder / "mine"
    _append_forged(db, _origin(db), LogKey.create(folder, _origin(db)))
    shutil.rmtree(folder)


def rewrite_all_with_another_key(db: Intruder) -> None:
    """The whole tree recomputed and signed, and the registry's row says that the key is ours."""
    folder = db.place.folder / "mine"
    mine = LogKey.create(folder, _origin(db))
    db.rewrite(3, b"alice", b"mallo")
    tree = Frontier()
    for index in range(db.size()):
        tree = tree.append(bytes(db("SELECT leaf_hash FROM entry WHERE position = ?", index)[0][0]))
        note = mine.sign(Checkpoint(_origin(db), tree.size, tree.root()))
        db("UPDATE checkpoint SET note = ?, frontier = ? WHERE size = ?", note, tree.to_bytes(), tree.size)
    db("UPDATE registry SET vkey = ?", str(mine.verify_key))
    shutil.rmtree(folder)


ATTACKS: dict[Attack, str] = {
    edit_an_entry: "leaf",
    edit_an_entry_and_its_hash: "root",
    edit_the_last_entry_and_its_hash: "root",
    respell_an_entry: "entry",
    swap_two_entries: "place",
    remove_an_entry_in_the_middle: "order",
    remove_an_entry_and_close_the_gap: "place",
    cut_the_tail: "cut",
    cut_the_last_entry: "cut",
    cut_everything: "cut",
    cut_entries_and_leave_checkpoints: "cut",
    change_a_column_beside_an_entry: "columns",
    change_the_host_beside_an_entry: "columns",
    change_the_time_beside_an_entry: "columns",
    respell_the_time_beside_an_entry: "columns",
    ruin_the_time_beside_an_entry: "columns",
    move_the_patches_to_the_entry_before: "entry",
    list_one_more_patch_beside_an_entry: "entry",
    list_no_patches_beside_an_entry: "entry",
    change_the_patches_beside_an_entry: "entry",
    list_patches_for_no_entry: "patches",
    remove_a_checkpoint: "checkpoint",
    exchange_a_checkpoint_for_an_older_one: "root",
    edit_a_checkpoint: "signature",
    ruin_a_checkpoint: "signature",
    change_a_frontier: "frontier",
    add_a_checkpoint_of_the_future: "checkpoint",
    append_without_the_key: "signature",
    append_with_another_key: "signature",
    rewrite_all_with_another_key: "key",
}


@pytest.mark.parametrize(("kind", "attack"), on_both(ATTACKS), ids=lambda value: getattr(value, "__name__", None))
def test_an_attack_on_the_log_is_caught(full: Place, attack: Attack) -> None:
    verify(full)
    with intruder(full) as db:
        attack(db)
    assert refused(full).details["check"] == ATTACKS[attack]


@pytest.mark.parametrize(("kind", "attack"), on_both(ATTACKS), ids=lambda value: getattr(value, "__name__", None))
def test_an_attack_far_back_in_a_long_log_is_caught(full: Place, attack: Attack) -> None:
    """Of old checkpoints the signature is not verified; what they say is held to the tree all the same."""
    with intruder(full) as db:
        attack(db)
    with full.open() as registry, pytest.raises(AuditError) as caught:
        verify_log(registry, closely=0 if attack not in NEWEST else 1)
    assert caught.value.details["check"] == ATTACKS[attack]


NEWEST = (append_with_another_key, append_without_the_key)
"""What the newest signature alone shows, which is always verified."""


SPELLINGS = {
    "a day that no month has": (b'"time":"2026-01-31', b'"time":"2026-02-31'),
    "a number with a sign that changes nothing": (b'"size":12', b'"size":-0'),
    "names out of order": (b'"details":{"size":12,"story":"true"}', b'"details":{"story":"true","size":12}'),
    "a name that is there twice": (b'"details":{"size":12,"story":"true"}', b'"details":{"size":12,"size":12}'),
    "an escape where none is due": (b'"story":"true"', b'"story":"tru\\u0065"'),
    "another version": (b'"v":1}', b'"v":2}'),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_even_the_keys_owner_writes_no_entry_in_another_spelling(made: Place, name: str) -> None:
    """Bytes that the log's own key signed, and that no strict reader takes."""
    old, new = SPELLINGS[name]
    with Registry.open(made.location, now=Clock(EPOCH)) as registry:
        registry.note(draft(details={"size": 12, "story": "true"}))
        key_of_log = registry.log_key
        assert verify_log(registry).size == 2
    with intruder(made) as db:
        db.rewrite(1, old, new)
        tree = Frontier()
        for index in range(2):
            tree = tree.append(bytes(db("SELECT leaf_hash FROM entry WHERE position = ?", index)[0][0]))
        signed = Checkpoint(_origin(db), 2, tree.root())
        db("UPDATE checkpoint SET note = ?, frontier = ? WHERE size = 2", key_of_log.sign(signed), tree.to_bytes())
    key_of_log.remember(LastSigned(signed))
    assert refused(made).details["check"] == "entry"


def test_an_old_copy_is_caught_by_the_verifier_and_by_the_next_writer(folder: Path) -> None:
    place = Place(str(folder), folder / ".rasura", None)
    database, copy = place.folder / "registry.db", folder / "old.db"
    with place.create() as registry:
        filled(registry)
    shutil.copy(database, copy)
    with place.open() as registry:
        registry.revoke_key("alice", EPOCH, draft("key.revoke"))
    shutil.copy(copy, database)
    assert refused(place).details["check"] == "cut"
    with place.open() as registry, pytest.raises(AuditError, match="old copy"):
        registry.add_key(key("mallory"), draft("key.add"))
    with place.open() as registry, pytest.raises(AuditError, match="old copy"):
        registry.keys()


def test_a_writer_does_not_go_on_where_the_tail_was_cut(full: Place) -> None:
    with intruder(full) as db:
        cut_the_last_entry(db)
    with full.open() as registry, pytest.raises(AuditError, match="cut"):
        registry.note(draft())
    assert refused(full).details["check"] == "cut"


def test_an_exchanged_log_of_the_same_length_is_caught(folder: Path) -> None:
    """Whoever restores an old copy and appends with the stolen key, but not the memory of what was signed."""
    place = Place(str(folder), folder / ".rasura", None)
    database, memory = place.folder / "registry.db", place.folder / "keys" / "last_signed"
    with place.create() as registry:
        filled(registry)
    old, remembered = database.read_bytes(), memory.read_bytes()
    with place.open() as registry:
        registry.note(draft(details={"story": "true"}))
    honest = memory.read_bytes()
    database.write_bytes(old)
    memory.write_bytes(remembered)
    with place.open() as registry:
        registry.note(draft(details={"story": "false"}))
    memory.write_bytes(honest)
    assert refused(place).details["check"] == "exchanged"
    with place.open() as registry, pytest.raises(AuditError, match="others"):
        registry.note(draft())


@pytest.mark.parametrize("text", [None, "", "rasura last-signed v2\n\nx\n1\nAAAA\n", "rasura last-signed v1\n\nx\n"])
def test_a_memory_that_is_gone_or_garbled_is_no_excuse(full: Place, text: str | None) -> None:
    memory = full.folder / "keys" / "last_signed"
    if text is None:
        memory.unlink()
    else:
        memory.write_text(text)
    with pytest.raises(AuditError):
        verify(full)
    with full.open() as registry, pytest.raises(AuditError):
        registry.note(draft())


@pytest.mark.parametrize("pem", ["", "nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_broken_key_is_a_typed_error_that_quotes_nothing(full: Place, pem: str) -> None:
    (full.folder / "keys" / "log.pem").write_text(pem)
    with full.open() as registry, pytest.raises(RegistryError, match="expected Ed25519") as caught:
        registry.note(draft())
    assert "AAAA" not in str(caught.value)


# ── Attacks on the tables ────────────────────────────────────────────────────────────────────────────────────────

TABLE_ATTACKS = {
    "a key becomes trusted": "UPDATE signing_key SET trusted = 1 - trusted",
    "a revocation is forged": "UPDATE signing_key SET revoked_at = '2026-01-01T00:00:00.000000Z'",
    "a key is exchanged": "UPDATE signing_key SET pem = 'mine'",
    "a key is renamed": "UPDATE signing_key SET name = 'bob'",
    "a key appears": "INSERT INTO signing_key SELECT '{x}', 'x', pem, owned, trusted, revoked_at, added_at FROM signing_key",
    "a key is gone": "DELETE FROM signing_key",
    "a parameter is changed": "UPDATE base_parameter SET sha256 = '{x}' WHERE position = 1",
    "a parameter is gone": "DELETE FROM base_parameter WHERE position = 1",
    "a parameter makes no sense": "UPDATE base_parameter SET shape = 'wide' WHERE position = 1",
    "a base is renamed": "UPDATE base SET name = 'other'",
    "a retain set shrinks": "UPDATE retain_set SET count = 1",
    "a basis grows": "UPDATE basis SET rank = 768",
    "a patch is gone": "DELETE FROM patch WHERE anchor = 'art' AND patch_id NOT IN (SELECT patch_id FROM host_patch)",
    "a file is exchanged": "UPDATE patch_file SET digest = '{x}' WHERE name = 'manifest.json'",
    "a concept is changed": "UPDATE patch_concept SET concept = 'nothing' WHERE position = 0",
    "a patch is of another base": "UPDATE patch SET base = '{x}'",
    "a patch is off a host": "DELETE FROM host_patch",
    "a strength is changed": "UPDATE host_patch SET strength = 1",
    "a host is elsewhere": "UPDATE host SET location = '/other'",
    "a host has another state": "UPDATE host SET state = '{x}'",
    "an evaluation appears": "INSERT INTO evaluation SELECT '{x}', base, judge, summary, added_at FROM evaluation",
    "an evaluation is gone": "DELETE FROM evaluation",
    "a report is exchanged": "UPDATE evaluation SET digest = '{x}'",
    "a score is flattered": 'UPDATE evaluation SET summary = \'{"forget":"1.000"}\'',
    "a score is respelled": "UPDATE evaluation SET summary = summary || ' '",
    "scores make no sense": "UPDATE evaluation SET summary = '[1]'",
    "a judge is exchanged": "UPDATE evaluation SET judge = 'me'",
    "an evaluation is of another base": "UPDATE evaluation SET base = '{x}'",
    "an evaluation is older": "UPDATE evaluation SET added_at = '2020-01-01T00:00:00.000000Z'",
    "an evaluated strength is changed": "UPDATE evaluation_patch SET strength = 1",
    "another patch was evaluated": "UPDATE evaluation_patch SET patch_id = '{x}'",
    "nothing was evaluated": "DELETE FROM evaluation_patch",
    "a time makes no sense": "UPDATE host SET updated_at = 'yesterday'",
}


@pytest.mark.parametrize(("kind", "name"), on_both(TABLE_ATTACKS))
def test_a_table_that_the_log_does_not_tell_of_is_caught(full: Place, name: str) -> None:
    with intruder(full) as db:
        db(TABLE_ATTACKS[name].replace("{x}", digest("x")))
    assert refused(full).details["check"] == "tables"


CHOICE_ATTACKS = {
    "a stack is renamed": "UPDATE stack SET name = 'other'; UPDATE stack_patch SET stack = 'other'",
    "a stack is of another base": "UPDATE stack SET base = '{x}'",
    "a stack is older": "UPDATE stack SET created_at = '2020-01-01T00:00:00.000000Z'",
    "a stack was changed earlier": "UPDATE stack SET updated_at = '2020-01-01T00:00:00.000000Z'",
    "a stack appears": "INSERT INTO stack SELECT 'mine', base, created_at, updated_at FROM stack",
    "a stack with a bad name appears": "INSERT INTO stack SELECT '-', base, created_at, updated_at FROM stack",
    "a stack is gone": "DELETE FROM stack_patch; DELETE FROM stack",
    "a deleted stack is back": "INSERT INTO stack SELECT 'gone', base, created_at, updated_at FROM stack",
    "a patch is off a stack": "DELETE FROM stack_patch",
    "a stack's strength is changed": "UPDATE stack_patch SET strength = 8",
    "a stack's patch is exchanged": "UPDATE stack_patch SET patch_id = '{x}'",
    "the policy is exchanged": "UPDATE policy SET digest = '{x}'",
    "the policy is older": "UPDATE policy SET set_at = '2020-01-01T00:00:00.000000Z'",
    "the policy is gone": "DELETE FROM policy",
}


@pytest.mark.parametrize(("kind", "name"), on_both(CHOICE_ATTACKS))
def test_a_stack_or_policy_that_the_log_does_not_tell_of_is_caught(full: Place, name: str) -> None:
    with full.open() as registry:
        (first,) = registry.patches(concept="van gogh")
        registry.add_stack(stack("brand", first), draft("stack.create"))
        registry.add_stack(stack("gone", first), draft("stack.create"))
        registry.remove_stack(registry.stack("gone"), draft("stack.delete"))
        registry.set_policy(Policy(pair=0.01), draft("policy.set"))
        verify_log(registry)
    with intruder(full) as db:
        for statement in CHOICE_ATTACKS[name].split("; "):
            db(statement.replace("{x}", digest("x")))
    assert refused(full).details["check"] == "tables"


def test_an_entry_that_removes_what_is_not_there_is_caught(full: Place) -> None:
    with full.open() as registry:
        entry = registry.note(draft())
    with pytest.raises(AuditError, match="removes stack brand, which was not there"):
        Replay().follow(entry, (removal_of(stack("brand")),))


def test_the_stack_that_entries_spell_out_is_the_one_in_the_tables(full: Place) -> None:
    """A writer whose entries give a right digest and a wrong story: caught by following the story."""
    with full.open() as registry, registry.reading() as session:
        replay = Replay()
        for entry, changes in _told(session):
            replay.follow(entry, tuple(changed(c, applied={}) if c.kind == "host" else c for c in changes))
        with pytest.raises(AuditError, match="other patches than the entries"):
            compare(registry.records(session), replay)


def test_an_entry_that_did_nothing_changes_nothing(full: Place) -> None:
    with full.open() as registry, registry.reading() as session:
        entry, changes = next((e, c) for e, c in _told(session) if c)
    with pytest.raises(AuditError, match="says refused and changes"):
        Replay().follow(changed(entry, outcome="refused"), changes)


def test_every_change_of_a_stack_replays(registry: Registry) -> None:
    first = filled(registry)
    other = registry.patches(concept="mickey mouse")[0]
    for record in (host(first, other), host(other, strength=-8), host(), host(first)):
        registry.set_host(record, draft("stack.switch", "done"))
        verify_log(registry)
    registry.set_trusted("alice", trusted=False, entry=draft("key.distrust"))
    registry.revoke_key("alice", EPOCH, draft("key.revoke"))
    registry.add_base(base("sd15"), draft("base.add"))
    assert verify_log(registry).size == 15


def _told(session: Any) -> list[Any]:
    rows = session.scalars(select(EntryRow).order_by(EntryRow.position)).all()
    beside = patches_of(session, [row.position for row in rows])
    decoded = [decode(row.body, beside.get(row.position, ())) for row in rows]
    return [(entry, changes) for entry, _, changes in decoded]


def _origin(db: Intruder) -> str:
    return str(db("SELECT origin FROM registry")[0][0])


def _append_forged(db: Intruder, name: str, mine: LogKey | None) -> None:
    """One more entry with a right tree; signed by a key of the attacker's, or with the last entry's signature."""
    size = db.size()
    place = Placement(_origin(db), size, "00000000-0000-4000-8000-0000000000ff", EPOCH)
    body = encode(draft("key.trust"), place)
    db(
        "INSERT INTO entry (position, leaf_hash, body, time, action, outcome) VALUES (?, ?, ?, ?, 'key.trust', 'success')",
        size,
        hash_leaf(body),
        body,
        "2026-01-31T12:00:00.000250Z",
    )
    row = db("SELECT note, frontier FROM checkpoint WHERE size = ?", size)[0]
    tree = Frontier.from_bytes(size, bytes(row[1])).append(hash_leaf(body))
    signed = Checkpoint(_origin(db), tree.size, tree.root())
    note = mine.sign(signed) if mine else signed.text + "\n" + str(row[0]).partition("\n\n")[2]
    db("INSERT INTO checkpoint (size, note, frontier) VALUES (?, ?, ?)", tree.size, note, tree.to_bytes())
