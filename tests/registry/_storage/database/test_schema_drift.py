"""`alembic check` on a fresh registry: the program's tables are the ones that the migrations make."""

from pathlib import Path

import sqlalchemy

from rasura.registry._storage.database import schema
from rasura.registry.registry import Registry


def _drift(folder: Path, change: str | None = None) -> str:
    Registry.create(str(folder), actor="tester").close()
    engine = sqlalchemy.create_engine(f"sqlite:///{folder / '.rasura' / 'registry.db'}")
    try:
        with engine.begin() as connection:
            if change:
                connection.exec_driver_sql(change)
            return schema.find_drift(connection)
    finally:
        engine.dispose()


def test_the_migrations_make_the_tables_of_the_program(tmp_path: Path) -> None:
    assert _drift(tmp_path) == ""


def test_a_column_that_no_table_has_is_drift(tmp_path: Path) -> None:
    assert "stray" in _drift(tmp_path, "ALTER TABLE base ADD COLUMN stray TEXT")
