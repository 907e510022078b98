"""The database's schema: made and brought up to date by Alembic, and looked at on every opening.

`check` is what an opening costs: one small query for the version and one for the pin. The pin is a digest over all
that the database would run or enforce (tables, constraints, indexes, triggers, views, functions). A database with a
trigger of somebody else's, or without one of ours, is not written to. Opening never migrates: a reader may have no
right to write, and an upgrade is an entry of the log. Alembic is imported only where it is needed.
"""

import io
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text

from rasura.patches._io import canonical_json
from rasura.patches.errors import NoRegistryError, SchemaError
from rasura.registry._storage.digests import sha256

if TYPE_CHECKING:
    from alembic.config import Config  # as above
__all__ = ["HEAD", "check", "check_known", "find_drift", "pin", "upgrade", "version"]

HEAD: Final = "0005"
"""The migration that this program's tables belong to."""

PINS: Final = {
    "0001": {
        "sqlite": "6bd8a6a6f619b7df6f666559e9460db66b469bf9b3cc5ba75b63c62c944f4f9c",
        "postgresql": "2ebc1bf17d2282f8d6701013e0e5d98f2c9115e863e3d0ce5caa59655f84c4f3",
    },
    "0002": {
        "sqlite": "5bba3c3bd104eade8ffd5fc3322ddedc099dc7b447de62353b0dae6acc7a007b",
        "postgresql": "253caf0bd7069fe65714860295e33f9363f4a08f5fdfed657d10dd78c0f93b7e",
    },
    "0003": {
        "sqlite": "4adc6a33685fc50e97d586443ee4d28746188c315732a200340085a766f1621d",
        "postgresql": "ec4e1badb3b3f2530f59874cceeec7b4c5013e60ea19e0e48998f54c922a8443",
    },
    "0004": {
        "sqlite": "6cc73320a04317efc4d2da3881c7ae0669811ffc20b28b465cdde9dd0391a546",
        "postgresql": "44a6b6febe2d5bb264c9b8807286f49452bcc309e8fdd8943b03416142686dd4",
    },
    "0005": {
        "sqlite": "265e1b35ebc0857bb1de1a2aa05096e44ccb4b8763a7c80f087ebb648cab43e6",
        "postgresql": "e3848b790fc600b6dd348730374b0a2a681cf6b241c51d0a94a6b9f5ee168680",
    },
}
"""What `pin` must give for a database at each version. A new migration needs new ones; a test prints them."""

_NO_TABLE: Final = ("no such table", "does not exist")

_SQLITE: Final = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
# Names, types and switches instead of the server's spelling of definitions, which differs between versions.
_POSTGRES: Final = (
    """
    SELECT c.relkind::text, c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod) || a.attnotnull
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = current_schema()::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
    """,
    """
    SELECT n.contype::text, n.conname::text, n.conrelid::regclass::text, n.confrelid::regclass::text
    FROM pg_constraint n WHERE n.connamespace = current_schema()::regnamespace AND n.contype IN ('c','f','p','u')
    """,
    """
    SELECT t.tgname::text, t.tgrelid::regclass::text, p.proname::text, t.tgtype::text || t.tgenabled::text
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid
    WHERE c.relnamespace = current_schema()::regnamespace AND NOT t.tgisinternal
    """,
    """
    SELECT 'function', p.proname::text, md5(p.prosrc), p.prosecdef::text
    FROM pg_proc p WHERE p.pronamespace = current_schema()::regnamespace
    """,
    """
    SELECT 'rule', r.rulename::text, r.ev_class::regclass::text, r.ev_type::text
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE c.relnamespace = current_schema()::regnamespace
    """,
)


def check(connection: "Connection", where: str) -> None:
    """Refuses a database that is not at `HEAD` exactly as the migrations left it.

    Raises:
        NoRegistryError: the database is empty.
        SchemaError: another version, or foreign, missing or altered objects.
    """
    found = check_known(connection, where)
    if found != HEAD:
        raise SchemaError(f"{where}: expected schema {HEAD}, got the older {found}", hint="rasura init --upgrade")


def check_known(connection: "Connection", where: str) -> str:
    """The version of a database that is exactly as the migrations up to that version left it: one to upgrade from.

    Raises:
        NoRegistryError: the database is empty.
        SchemaError: a version that this program does not know, or foreign, missing or altered objects.
    """
    found = version(connection)
    if found is None:
        raise NoRegistryError(f"{where}: expected a registry, got a database without one", hint="rasura init")
    if found not in PINS:
        newer = found > HEAD
        raise SchemaError(
            f"{where}: expected schema {HEAD}, got {'the newer ' if newer else ''}{found}",
            hint="pip install --upgrade rasura" if newer else "use the rasura that made it",
        )
    seal = pin(connection)
    if seal != PINS[found][connection.dialect.name]:
        raise SchemaError(
            f"{where}: expected only rasura's own tables and triggers, got others or altered ones ({seal[:12]})",
            hint="restore the registry from a backup",
            pin=seal,
        )
    return found


def pin(connection: "Connection") -> str:
    """SHA-256 over every table, constraint, index, trigger, view and function, whatever its order or white space."""
    queries = (_SQLITE,) if connection.dialect.name == "sqlite" else _POSTGRES
    rows = [
        [_squeeze("" if value is None else str(value)) for value in row]
        for query in queries
        for row in connection.exec_driver_sql(query)
    ]
    return sha256(canonical_json.dumps(sorted(rows)))


def upgrade(connection: "Connection") -> None:
    """Runs the migrations that are missing, in the transaction that the connection is in: all of them or none.

    Raises:
        SchemaError: a migration failed.
    """
    from alembic import command  # half a second; a schema that is current needs none
    from alembic.util import CommandError

    try:
        command.upgrade(_config(connection), "head")
    except CommandError as error:
        raise SchemaError(f"migration: {error}") from error


def find_drift(connection: "Connection") -> str:
    """How tables and migrations differ, "" when they agree: `alembic check` without a command line."""
    from alembic import command  # half a second; a schema that is current needs none
    from alembic.util import AutogenerateDiffsDetected

    try:
        command.check(_config(connection))
    except AutogenerateDiffsDetected as error:
        return str(error)
    return ""


def _config(connection: "Connection") -> "Config":
    from alembic.config import Config  # as above

    config = Config(stdout=io.StringIO())  # Alembic would print
    config.set_main_option("script_location", "rasura:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def version(connection: "Connection") -> str | None:
    """The migration that a database is at, None where it has none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


@lru_cache(maxsize=1000)  # every registry that is opened has the same
def _squeeze(value: str) -> str:
    """White space and quotes are the DDL compiler's taste, not meaning."""
    return re.sub(r"\s+", " ", re.sub(r'["`]', "", value)).strip()
