"""The schema: made by migrations alone, pinned, append-only, and refused when it is anybody else's."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from support.registries.registry_fixtures import (
    EPOCH,
    Clock,
    Place,
    add_patch,
    base,
    draft,
    evaluation,
    filled,
    host,
    key,
    patch,
    report_of,
    stack,
)

from rasura.patches.errors import (
    AuditError,
    BusyError,
    ExistsError,
    NoRegistryError,
    RasuraError,
    RegistryError,
    SchemaError,
)
from rasura.registry._storage.database import schema
from rasura.registry._storage.database.database import journal_mode
from rasura.registry._storage.database.tables import RetainSetRow
from rasura.registry._storage.records.case_record import CaseRecord
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import EntryFilter, Registry

Sql = Callable[[str], None]


@pytest.fixture
def sql(made: Place) -> Sql:
    """Runs statements as the database's owner, outside rasura."""

    def run(statement: str) -> None:
        if made.url is None:
            with closing(sqlite3.connect(made.folder / "registry.db")) as connection:
                connection.executescript(statement)
            return
        import psycopg

        with psycopg.connect(made.url) as server:
            server.execute(statement)

    return run


def test_migrations_give_the_tables_that_the_program_has(registry: Registry) -> None:
    with registry.reading() as session:
        assert schema.find_drift(session.connection()) == ""


def test_a_column_added_outside_is_drift(made: Place, registry: Registry, sql: Sql) -> None:
    sql("ALTER TABLE patch ADD COLUMN note TEXT")
    with registry.reading() as session:
        assert "note" in schema.find_drift(session.connection())


def test_the_pins_are_those_of_the_migrations(registry: Registry) -> None:
    with registry.reading() as session:
        connection = session.connection()
        assert schema.pin(connection) == schema.PINS[schema.HEAD][connection.dialect.name]
        assert schema.version(connection) == schema.HEAD


def test_the_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", "rasura:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD


FOREIGN = {
    "a table": "CREATE TABLE extra (x TEXT)",
    "a column": "ALTER TABLE patch ADD COLUMN note TEXT",
    "an index": "CREATE INDEX extra ON patch (method)",
    "a view": "CREATE VIEW extra AS SELECT * FROM patch",
    "a trigger is gone": "DROP TRIGGER entry_no_gap{on}",
    "a table is gone": "DROP TABLE host_patch",
    "an index is gone": "DROP INDEX ix_patch_base",
}
FOREIGN_SQLITE = {
    "a trigger": "CREATE TRIGGER extra AFTER INSERT ON patch BEGIN DELETE FROM host_patch; END",
    "a trigger that does less": (
        "DROP TRIGGER entry_no_update;"
        "CREATE TRIGGER entry_no_update BEFORE UPDATE ON entry WHEN 0 BEGIN SELECT RAISE(ABORT, 'no'); END"
    ),
    "a check is gone": (
        "PRAGMA writable_schema = ON;"
        "UPDATE sqlite_master SET sql = replace(sql, 'strength <> 0', 'strength <> 9') WHERE name = 'host_patch'"
    ),
}
FOREIGN_POSTGRESQL = {
    "a trigger": (
        "CREATE FUNCTION extra() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER extra BEFORE INSERT ON patch FOR EACH ROW EXECUTE FUNCTION extra()"
    ),
    "a rule": "CREATE RULE extra AS ON INSERT TO patch DO INSTEAD NOTHING",
    "a trigger that does less": (
        "CREATE OR REPLACE FUNCTION rasura_append_only() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN NEW; END $$"
    ),
    "a trigger that is off": "ALTER TABLE entry DISABLE TRIGGER entry_no_change",
    "a trigger that replication skips": "ALTER TABLE entry ENABLE TRIGGER entry_no_change",
    "a check is gone": "ALTER TABLE host_patch DROP CONSTRAINT ck_host_patch_strength_range",
}


@pytest.mark.parametrize("name", dict.fromkeys([*FOREIGN, *FOREIGN_SQLITE, *FOREIGN_POSTGRESQL]))
def test_anything_foreign_or_missing_is_refused_before_anything_is_read(made: Place, sql: Sql, name: str) -> None:
    statements = {**FOREIGN, **(FOREIGN_SQLITE if made.url is None else FOREIGN_POSTGRESQL)}
    if name not in statements:
        pytest.skip("the other database's")
    sql(statements[name].replace("{on}", "" if made.url is None else " ON entry"))
    with pytest.raises(SchemaError, match="tables and triggers"):
        made.open()


def test_a_newer_schema_is_refused_with_the_way_out(made: Place, sql: Sql) -> None:
    sql("UPDATE alembic_version SET version_num = '0099'")
    for opening in (made.open, lambda: Registry.upgrade(made.location)):
        with pytest.raises(SchemaError, match="newer 0099") as caught:
            opening()
        assert caught.value.hint == "pip install --upgrade rasura"


def test_a_schema_older_than_any_is_refused(made: Place, sql: Sql) -> None:
    sql("UPDATE alembic_version SET version_num = '0000'")
    for opening in (made.open, lambda: Registry.upgrade(made.location)):
        with pytest.raises(SchemaError, match=f"expected schema {schema.HEAD}, got 0000"):
            opening()


# What registries of older schemas do not have. That nothing else differs is what their pins say.
BACK_TO_0004 = "DROP TABLE case_item; DROP TABLE case_record; UPDATE alembic_version SET version_num = '0004';"
BACK_TO_0003 = BACK_TO_0004 + "DROP TABLE patch_signature; UPDATE alembic_version SET version_num = '0003';"
BACK_TO_0002 = (
    BACK_TO_0003
    + "DROP TABLE stack_patch; DROP TABLE stack; DROP TABLE policy; UPDATE alembic_version SET version_num = '0002';"
)
BACK_TO_0001 = (
    BACK_TO_0002
    + "DROP TABLE evaluation_patch; DROP TABLE evaluation; UPDATE alembic_version SET version_num = '0001';"
)


@pytest.fixture
def first_schema(made: Place, sql: Sql) -> Place:
    """A registry as the first schema left it, with a bit of everything that it knew."""
    with made.open() as registry:
        known(registry)
    sql(BACK_TO_0001)
    return made


def known(registry: Registry) -> None:
    registry.add_key(key(), draft("key.add"))
    registry.add_base(base(), draft("base.add"))
    first = add_patch(registry, "van gogh")
    registry.set_host(host(first), draft("stack.apply", "done"))


def test_an_older_schema_is_refused_with_the_way_out(first_schema: Place) -> None:
    with pytest.raises(SchemaError, match="got the older 0001") as caught:
        first_schema.open()
    assert caught.value.hint == "rasura init --upgrade"


def test_an_older_registry_is_upgraded(first_schema: Place) -> None:
    clock = Clock(EPOCH + timedelta(days=2))
    assert Registry.upgrade(first_schema.location, actor="eve", reason="new program", now=clock) == "0001"
    with first_schema.open() as registry:
        entry = registry.entries(limit=1)[0]
        assert (entry.action, entry.actor, entry.reason) == ("registry.upgrade", "eve", "new program")
        assert dict(entry.details) == {"from": "0001", "to": schema.HEAD}
        assert (registry.keys(), registry.base("sd14"), registry.hosts()) == ((key(),), base(), (host(patch()),))
        assert registry.evaluations() == ()
        assert registry.add_evaluation(evaluation(patch()), report_of(patch()), draft("evaluation.add"))
        assert verify_log(registry).size == 7
        with registry.reading() as session:
            connection = session.connection()
            assert schema.pin(connection) == schema.PINS[schema.HEAD][connection.dialect.name]
            assert schema.find_drift(connection) == ""


def test_a_registry_of_the_fourth_schema_is_upgraded(made: Place, sql: Sql) -> None:
    with made.open() as registry:
        filled(registry)
    sql(BACK_TO_0004)
    assert Registry.upgrade(made.location, now=Clock(EPOCH + timedelta(days=2))) == "0004"
    with made.open() as registry:
        assert registry.cases() == ()
        opened = CaseRecord("118", EPOCH, None, EPOCH, None, held=False, forgotten_at=None, commitments={})
        registry.open_case(opened, {"text": b"please"}, draft("case.open"))
        record = registry.case("118")
        assert registry.vault.read(record, "text") == b"please"
        (entry,) = registry.entries(EntryFilter(case="118"))
        assert (entry.action, entry.details["case"]) == ("case.open", "118")
        registry.forget_case(record, replace(record, forgotten_at=EPOCH), draft("case.forget"))
        verify_log(registry)
        with registry.reading() as session:
            assert schema.find_drift(session.connection()) == ""


def test_a_registry_of_the_second_schema_is_upgraded(made: Place, sql: Sql) -> None:
    with made.open() as registry:
        first = filled(registry)
    sql(BACK_TO_0002)
    with pytest.raises(SchemaError, match="got the older 0002"):
        made.open()
    assert Registry.upgrade(made.location, now=Clock(EPOCH + timedelta(days=2))) == "0002"
    with made.open() as registry:
        assert (registry.stacks(), registry.policy_record(), len(registry.evaluations())) == ((), None, 1)
        registry.add_stack(stack("brand", first), draft("stack.create"))
        assert registry.stack("brand") == stack("brand", first)
        assert verify_log(registry).size == 10
        with registry.reading() as session:
            assert schema.find_drift(session.connection()) == ""


def test_what_is_up_to_date_is_left_alone(made: Place) -> None:
    assert Registry.upgrade(made.location) is None
    with made.open() as registry:
        assert len(registry.entries()) == 1


def test_an_older_registry_with_something_foreign_is_not_upgraded(first_schema: Place, sql: Sql) -> None:
    sql(FOREIGN["a column"])
    for opening in (first_schema.open, lambda: Registry.upgrade(first_schema.location)):
        with pytest.raises(SchemaError, match="tables and triggers"):
            opening()


def test_an_upgrade_that_cannot_be_logged_changes_nothing(first_schema: Place) -> None:
    """The tables and the entry are one transaction."""
    key_file = first_schema.folder / "keys" / "log.pem"
    pem = key_file.read_bytes()
    key_file.write_bytes(b"nonsense")
    with pytest.raises(RegistryError, match="Ed25519"):
        Registry.upgrade(first_schema.location)
    key_file.write_bytes(pem)
    with pytest.raises(SchemaError, match="older 0001"):
        first_schema.open()
    assert Registry.upgrade(first_schema.location, now=Clock(EPOCH + timedelta(days=2))) == "0001"


def test_an_upgrade_after_the_log_was_cut_is_refused(first_schema: Place) -> None:
    memory = first_schema.folder / "keys" / "last_signed"
    memory.unlink()
    with pytest.raises(AuditError):
        Registry.upgrade(first_schema.location)
    with pytest.raises(SchemaError, match="older 0001"):
        first_schema.open()


def test_of_two_upgrades_at_once_one_is_done(first_schema: Place) -> None:
    ends: list[object] = []

    def upgrade() -> None:
        try:
            ends.append(Registry.upgrade(first_schema.location, now=Clock(EPOCH + timedelta(days=2)), busy_seconds=20))
        except BusyError as error:
            ends.append(error.code)

    threads = [threading.Thread(target=upgrade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends.count("0001") == 1
    assert set(ends) <= {"0001", "busy", None}
    with first_schema.open() as registry:
        assert [e.action for e in registry.entries()].count("registry.upgrade") == 1
        verify_log(registry)


def test_there_is_nothing_to_upgrade(tmp_path: Path) -> None:
    with pytest.raises(NoRegistryError):
        Registry.upgrade(tmp_path)
    assert not any(tmp_path.iterdir())


FORBIDDEN = [
    "UPDATE entry SET outcome = 'failed'",
    "DELETE FROM entry WHERE position = 1",
    "UPDATE checkpoint SET note = ''",
    "DELETE FROM checkpoint",
    "UPDATE entry_patch SET ordinal = ordinal + 1",
    "DELETE FROM entry_patch",
    "UPDATE registry SET vkey = 'mine'",
    "DELETE FROM registry",
    "INSERT INTO entry SELECT position + 2, leaf_hash, body, time, action, outcome, host, NULL FROM entry",
    "INSERT INTO checkpoint SELECT size + 3, note, frontier FROM checkpoint",
    "INSERT INTO registry SELECT 2, origin, vkey, created_at FROM registry",
    "UPDATE evaluation_patch SET strength = 0",
    "UPDATE evaluation SET digest = 'short'",
]
FORBIDDEN_SQLITE = [
    "INSERT OR REPLACE INTO entry SELECT * FROM entry WHERE position = 1",
    "INSERT INTO host_patch VALUES ('x', 'y', 'one')",
    "UPDATE evaluation_patch SET strength = 'one'",
    "UPDATE evaluation SET judge = x'00'",
    "UPDATE signing_key SET trusted = 2",
    "UPDATE signing_key SET trusted = x'00'",
]
FORBIDDEN_POSTGRESQL = [
    "TRUNCATE entry CASCADE",
    "TRUNCATE checkpoint",
    "SET session_replication_role = replica; DELETE FROM checkpoint",
    "UPDATE signing_key SET trusted = 2",
]


@pytest.mark.parametrize("statement", dict.fromkeys([*FORBIDDEN, *FORBIDDEN_SQLITE, *FORBIDDEN_POSTGRESQL]))
def test_the_ledger_only_grows_at_its_end(made: Place, sql: Sql, statement: str) -> None:
    if statement not in [*FORBIDDEN, *(FORBIDDEN_SQLITE if made.url is None else FORBIDDEN_POSTGRESQL)]:
        pytest.skip("the other database's")
    with made.open() as registry:
        filled(registry)
        before = registry.entries()
        with pytest.raises(Exception, match=r"append-only|no gaps|constraint|cannot store|violates"):
            sql(statement)
        assert registry.entries() == before


def test_a_trigger_that_says_no_is_a_typed_error(made: Place, sql: Sql) -> None:
    """A trigger added while the registry is open, past the pin: the writer reports it and changes nothing."""
    with made.open() as registry:
        if made.url is None:
            sql("CREATE TRIGGER extra BEFORE INSERT ON signing_key BEGIN SELECT RAISE(ABORT, 'not today'); END")
        else:
            sql(
                FOREIGN_POSTGRESQL["a trigger"]
                .replace("RETURN NULL", "RAISE EXCEPTION 'not today'")
                .replace("ON patch", "ON signing_key")
            )
        with pytest.raises(RegistryError, match="not today"):
            registry.add_key(key(), draft("key.add"))
        assert registry.keys() == ()
        assert len(registry.entries()) == 1


def test_tables_are_strict_and_keys_are_enforced(made: Place) -> None:
    if made.url is not None:
        pytest.skip("SQLite's settings")
    with closing(sqlite3.connect(made.folder / "registry.db")) as connection:
        tables = connection.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'").fetchall()
        loose = [name for name, strict in tables if not strict and not name.startswith("sqlite_")]
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    assert loose == ["alembic_version"]
    assert mode == journal_mode(sqlite3.sqlite_version_info)[0].lower()
    with made.open() as registry, registry.reading() as session:
        pragmas = {
            name: session.connection().exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("foreign_keys", "recursive_triggers", "trusted_schema", "query_only")
        }
    assert pragmas == {"foreign_keys": 1, "recursive_triggers": 1, "trusted_schema": 0, "query_only": 0}


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ((3, 40, 1), "DELETE"),
        ((3, 44, 5), "DELETE"),
        ((3, 44, 6), "WAL"),
        ((3, 45, 0), "DELETE"),
        ((3, 50, 6), "DELETE"),
        ((3, 50, 7), "WAL"),
        ((3, 51, 0), "DELETE"),
        ((3, 51, 2), "DELETE"),
        ((3, 51, 3), "WAL"),
        ((4, 0, 0), "WAL"),
    ],
)
def test_wal_only_where_it_does_not_lose_data(version: tuple[int, ...], mode: str) -> None:
    assert journal_mode(version) == (mode, "FULL" if mode == "WAL" else "EXTRA")


def test_a_reader_cannot_write(registry: Registry) -> None:
    def write() -> None:
        with registry.reading() as session:
            session.add(RetainSetRow(digest="a" * 64, name="x", count=1))
            session.flush()

    with pytest.raises(RegistryError, match=r"read-?only"):
        write()


def test_an_empty_database_in_use_gets_nothing_but_ours(place: Place) -> None:
    """A PostgreSQL database that has other tables is not taken over."""
    if place.url is None:
        pytest.skip("SQLite's file is our own")
    import psycopg

    with psycopg.connect(place.url) as server:
        server.execute("CREATE TABLE theirs (x TEXT)")
    with pytest.raises(ExistsError, match="empty database"):
        place.create()
    assert not place.folder.exists()


def test_an_old_sqlalchemy_renders_the_same_schema(made: Place) -> None:
    """The pin looks at meaning: white space and quotes are squeezed out."""
    if made.url is not None:
        pytest.skip("SQLite keeps the text of its schema")
    with closing(sqlite3.connect(made.folder / "registry.db")) as connection:
        connection.executescript(
            "PRAGMA writable_schema = ON;"
            "UPDATE sqlite_master SET sql = replace(sql, char(10), '   ') WHERE name = 'patch';"
        )
    made.open().close()


def test_heavy_libraries_are_imported_only_where_needed(made: Place) -> None:
    if made.url is not None:
        pytest.skip("one database is enough")
    with made.open() as registry:
        add_patch(registry)
    program = (
        "import sys\n"
        "from rasura.registry.registry import Registry\n"
        "with Registry.open(sys.argv[1]) as registry:\n"
        "    assert len(registry.patches()) == 1 and registry.hosts() == ()\n"
        "heavy = {'torch', 'numpy', 'diffusers', 'transformers', 'huggingface_hub', 'alembic', 'cryptography', 'psycopg'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, made.location], capture_output=True, text=True, check=False, cwd=Path("/")
    )
    assert done.stdout == "[]\n", done.stderr


def test_errors_of_the_database_are_ours(made: Place) -> None:
    if made.url is not None:
        pytest.skip("a damaged file")
    with made.open() as registry:
        for i in range(12):
            add_patch(registry, f"concept {i}")
    data = bytearray((made.folder / "registry.db").read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    (made.folder / "registry.db").write_bytes(data)
    with pytest.raises(RasuraError), made.open() as registry:
        registry.patches()
