# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Attacks by whoever can write the database and nothing else: rows are flipped, used, and flipped back."""

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest
from support.registries.tampering import X, run
from support.registries.workshop import ALICE, Workshop, workshop

from rasura.patches.algebra.strength import ONE
from rasura.patches.checks.policy import Policy
from rasura.patches.errors import AuditError
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.log.entries.stored_entries import EntryFilter
from rasura.registry.log.told.file import ToldFile
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.stacks import edit
from rasura.registry.stacks.policy_file import put_in_force
from rasura.registry.stacks.stack_ref import goal_of
from rasura.registry.trust.keys.key_files import make_key


@pytest.fixture
def shop(workshop: Workshop) -> Workshop:
    """With a second key that is not trusted any more, a stack, a policy, a cover and a model with a patch."""
    with workshop.open() as registry:
        make_key(registry, "mallory", Draft("a", "", "key.add", "success"))
        registry.revoke_key("mallory", registry.now(), Draft("a", "", "key.revoke", "success"))
        edit.create(registry, "brand", {workshop.dog: ONE}, ALICE)
        put_in_force(registry, Policy(pair=0.04), ALICE)
        registry.note(Draft("a", "", "takedown.cover", "success", (workshop.dog,)))
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    return workshop


def apply(shop: Workshop, registry: Registry) -> object:
    return operations.apply(registry, shop.host(), [shop.photo], ALICE)


USES: dict[str, tuple[str, Callable[[Workshop, Registry], object]]] = {
    "a key is trusted again": ("UPDATE signing_key SET revoked_at = NULL WHERE name = 'mallory'", apply),
    "a key is exchanged": ("UPDATE signing_key SET pem = (SELECT pem FROM signing_key WHERE name = 'mallory')", apply),
    "a key appears": (
        "INSERT INTO signing_key SELECT '{x}', 'eve', pem, 0, 1, NULL, added_at FROM signing_key WHERE name = 'mallory'",
        apply,
    ),
    "a revocation is gone with its key": ("DELETE FROM signing_key WHERE name = 'mallory'", apply),
    "the policy is an older one": ("UPDATE policy SET digest = '{x}'", apply),
    "no policy is in force": ("DELETE FROM policy", apply),
    "a parameter of the base is another": ("UPDATE base_parameter SET sha256 = '{x}' WHERE position = 1", apply),
    "the base lies elsewhere": ("UPDATE base SET source = '/elsewhere'", apply),
    "a patch has another file": (
        "UPDATE patch_file SET digest = '{x}' WHERE name = 'basis.safetensors' AND patch_id = '{photo}'",
        apply,
    ),
    "a patch is signed by another": (
        "UPDATE patch SET key_id = (SELECT key_id FROM signing_key WHERE name = 'mallory') WHERE patch_id = '{photo}'",
        apply,
    ),
    "a stack has another member": (
        "UPDATE stack_patch SET patch_id = '{photo}'",
        lambda _, registry: goal_of(registry, "brand"),
    ),
    "a stack is gone": (
        "DELETE FROM stack_patch; DELETE FROM stack",
        lambda _, registry: edit.create(registry, "brand", {}, ALICE),
    ),
    "a model has nothing on it": ("DELETE FROM host_patch", apply),
    "a model has another state": ("UPDATE host SET state = '{x}'", apply),
    "a model is unknown": ("DELETE FROM host_patch; DELETE FROM host", apply),
    "a cover is hidden": (
        "UPDATE entry SET action = 'something.else' WHERE action = 'takedown.cover'",
        lambda _, registry: registry.entries(EntryFilter(action="takedown.cover")),
    ),
    "an entry reads otherwise": (
        "UPDATE entry SET body = CAST(replace(CAST(body AS TEXT), 'ticket 7', 'ticket 8') AS BLOB)",
        lambda _, registry: registry.entries(),
    ),
    "an end is hidden": (
        "UPDATE entry SET closes = NULL",
        lambda _, registry: registry.unfinished(),
    ),
}


@pytest.mark.parametrize("attack", USES)
def test_a_row_is_not_believed_at_use_when(shop: Workshop, attack: str) -> None:
    sql, use = USES[attack]
    database = shop.folder / ".rasura" / "registry.db"
    honest, files = database.read_bytes(), shop.digests()
    run(shop, sql)
    flipped = database.read_bytes()
    assert flipped != honest
    with shop.open() as registry, pytest.raises(AuditError) as caught:
        use(shop, registry)
    assert (caught.value.exit_code, bool(caught.value.hint)) == (4, True)
    assert shop.digests() == files  # so there is nothing that flipping back could hide


def test_rows_are_read_by_an_index_that_a_lost_file_does_not_weaken(shop: Workshop) -> None:
    index = shop.folder / ".rasura" / "keys" / "told"
    assert index.stat().st_mode & 0o777 == 0o600
    whole = index.read_bytes()
    run(shop, "UPDATE signing_key SET revoked_at = NULL WHERE name = 'mallory'")
    for data in (
        None,
        b"",
        b"nonsense\n",
        b"rasura told v1\n00 00 []\n",
        whole[:-7],
        whole.replace(b"key.revoke", b"key.reboke"),
        whole[: len(whole) // 2],
    ):
        index.unlink(missing_ok=True)
        if data is not None:
            index.write_bytes(data)
        with shop.open() as registry, pytest.raises(AuditError, match="not what the last entry"):
            registry.keys()


def test_the_index_of_a_registry_that_had_none_is_made_by_its_next_change(shop: Workshop) -> None:
    index = shop.folder / ".rasura" / "keys" / "told"
    index.unlink()
    with shop.open() as registry:
        registry.keys()
        assert not index.exists()  # readers write nothing
        registry.note(Draft("a", "", "something.else", "success"))
        size = registry.head().size
    assert ToldFile(index).size() == size
    with shop.open() as registry:
        registry.keys()
        verify_log(registry)


def test_an_index_that_grew_with_its_entries_is_the_one_that_is_read_from_their_bytes(shop: Workshop) -> None:
    index = shop.folder / ".rasura" / "keys" / "told"
    with shop.open() as registry:
        operations.revert(registry, shop.host(), None, ALICE)
        edit.delete(registry, "brand", ALICE)
        size = registry.head().size

    def rows() -> list[list[tuple[object, ...]]]:
        with closing(sqlite3.connect(index)) as connection:
            queries = (f"SELECT * FROM {table} WHERE idx < {size} ORDER BY 1, 2, 3" for table in ("line", "record"))
            return [connection.execute(query).fetchall() for query in queries]

    grown = rows()
    assert [row[0] for row in grown[0]] == list(range(size))
    assert any(row[5] is not None for row in grown[0])  # an end of what was begun
    assert any(row[3] is None for row in grown[1])  # a record that is gone
    index.unlink()
    with shop.open() as registry:
        registry.note(Draft("a", "", "something.else", "success"))
    assert rows() == grown


def test_an_index_that_is_wrong_accuses_nobody_and_is_made_anew(shop: Workshop) -> None:
    """As after a power cut: it opens, and tells of other digests than the log."""
    index = shop.folder / ".rasura" / "keys" / "told"
    with closing(sqlite3.connect(index)) as connection, connection:
        connection.execute("UPDATE record SET record = ?", (X,))
        connection.execute("UPDATE line SET leaf = ? WHERE idx < 3", (b"x" * 32,))
    with shop.open() as registry:
        assert registry.keys()
        assert len(registry.entries()) == registry.head().size
        registry.note(Draft("a", "", "something.else", "success"))
    told = ToldFile(index)
    assert told.leaf(0) == shop.entries()[0].leaf_hash
    assert told.record("key", shop_key(shop), told.size()) not in {None, X}
    told.close()


def shop_key(shop: Workshop) -> str:
    with shop.open() as registry:
        return registry.key("alice").key_id


def test_an_index_goes_back_with_a_registry_that_was_put_back(shop: Workshop) -> None:
    """Database and `last_signed` of an earlier moment, and the index of a later one."""
    home = shop.folder / ".rasura"
    kept = {name: (home / name).read_bytes() for name in ("registry.db", "keys/last_signed")}
    with shop.open() as registry:
        operations.revert(registry, shop.host(), None, ALICE)
        make_key(registry, "later", Draft("a", "", "key.add", "success"))
    for name, data in kept.items():
        (home / name).write_bytes(data)
    with shop.open() as registry:
        registry.note(Draft("a", "", "something.else", "success"))
        assert [key.name for key in registry.keys()] == ["alice", "mallory"]
        assert registry.unfinished() == ()
        verify_log(registry)
    with shop.open() as registry:
        assert len(registry.entries()) == registry.head().size == ToldFile(home / "keys" / "told").size()
        assert registry.hosts()


ORPHANS = {
    "a stack's member": "INSERT INTO stack_patch VALUES ('not yet', '{photo}', 16)",
    "a model's patch": "INSERT INTO host_patch VALUES ('00000000-0000-4000-8000-00000000000a', '{photo}', 16)",
    "a file": "INSERT INTO patch_file VALUES ('{x}', 'manifest.json', '{x}')",
    "a concept": "INSERT INTO patch_concept VALUES ('{x}', 0, 'dog')",
    "a parameter": "INSERT INTO base_parameter VALUES ('{x}', 0, 'unet.a', 'F16', '[1]', '{x}', '{}')",
}


@pytest.mark.parametrize("orphan", ORPHANS)
def test_an_audit_finds_a_row_that_waits_for_its_parent(shop: Workshop, orphan: str) -> None:
    run(shop, ORPHANS[orphan])
    with shop.open() as registry, pytest.raises(AuditError, match="belongs to no") as caught:
        verify_log(registry)
    assert caught.value.details["check"] == "tables"


def test_a_motion_names_who_signed_and_the_policy_that_it_was_held_to(shop: Workshop) -> None:
    begun, done = shop.entries()[-2:]
    with shop.open() as registry:
        alice, policy = registry.key("alice").key_id, registry.policy_record()
    assert policy is not None
    for entry in (begun, done):
        assert (entry.details["signers"], entry.details["policy"]) == (alice, policy.digest)


def test_an_audit_asks_whether_a_signer_was_trusted_at_that_moment(shop: Workshop) -> None:
    """A writer who lets a revoked key pass, and whose log and tables agree."""
    with shop.open() as registry:
        mallory = registry.key("mallory").key_id
        draft = Draft("m", "", "patch.apply", "begun", (shop.dog,), details={"signers": mallory})
        begun = registry.note(draft)
        with pytest.raises(AuditError, match="was not trusted then") as caught:
            verify_log(registry)
    assert (caught.value.details["check"], caught.value.details["index"]) == ("trust", begun.index)
