"""Writing a registry's database as somebody would who has the file and nothing else."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from support.registries.workshop import Workshop

X = "f" * 64
"""A digest of nothing."""


@contextmanager
def writing(shop: Workshop) -> Iterator[sqlite3.Connection]:
    """The file, without triggers and foreign keys; the triggers are back afterwards."""
    with closing(sqlite3.connect(shop.folder / ".rasura" / "registry.db")) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        yield connection
        for _, sql in triggers:
            connection.execute(sql)
        connection.commit()


def run(shop: Workshop, sql: str) -> None:
    """SQL statements, separated by a semicolon and a space; `{x}`, `{dog}` and `{photo}` are filled in."""
    with writing(shop) as connection:
        for statement in sql.split("; "):
            connection.execute(statement.replace("{x}", X).replace("{dog}", shop.dog).replace("{photo}", shop.photo))
