"""The first schema: keys, bases, patches, hosts and the audit log.

The triggers keep the log append-only and without gaps. They are a seat belt against mistakes; what an attacker with
the file does is caught by the signed checkpoints.

Revision: 0001
Revises: nothing
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_LONG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_LEDGER = ("registry", "entry", "entry_patch", "checkpoint")


def upgrade() -> None:
    _subjects()
    _patches()
    _hosts()
    _ledger()
    if op.get_context().dialect.name == "sqlite":
        _sqlite_triggers()
    else:
        _postgres_triggers()


def downgrade() -> None:
    message = "the first schema has nothing below it"
    raise NotImplementedError(message)


def _table(name: str, *parts: sa.Column[Any] | sa.Constraint) -> None:
    op.create_table(name, *parts, sqlite_strict=True)


def _text(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=null)


def _whole(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, _LONG, nullable=null, autoincrement=False)


def _flag(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False)


def _blob(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=False)


def _check(name: str, rule: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(rule, name=op.f(f"ck_{name}"))


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=op.f(f"pk_{table}"))


def _unique(table: str, *columns: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*columns, name=op.f(f"uq_{table}_{'_'.join(columns)}"))


def _foreign(table: str, column: str, other: str, target: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.{target}"], name=op.f(f"fk_{table}_{column}_{other}"))


def _index(table: str, column: str) -> None:
    op.create_index(op.f(f"ix_{table}_{column}"), table, [column])


def _subjects() -> None:
    """Keys, bases, retain sets and bases of protected spaces."""
    _table(
        "signing_key",
        *map(_text, ("key_id", "name", "pem")),
        *map(_flag, ("owned", "trusted")),
        _text("revoked_at", null=True),
        _text("added_at"),
        _key("signing_key", "key_id"),
        _unique("signing_key", "name"),
        _check("signing_key_key_id_length", "length(key_id) = 64"),
        _check("signing_key_owned_flag", "owned IN (0, 1)"),
        _check("signing_key_trusted_flag", "trusted IN (0, 1)"),
    )
    _table(
        "base",
        *map(_text, ("digest", "name", "source", "text_encoder", "tokenizer", "added_at")),
        _key("base", "digest"),
        _unique("base", "name"),
        _check("base_digest_length", "length(digest) = 64"),
    )
    _table(
        "base_parameter",
        _text("base"),
        _whole("position"),
        *map(_text, ("name", "dtype", "shape", "sha256", "casts")),
        _key("base_parameter", "base", "position"),
        _unique("base_parameter", "base", "name"),
        _foreign("base_parameter", "base", "base", "digest"),
        _check("base_parameter_sha256_length", "length(sha256) = 64"),
    )
    _table(
        "retain_set",
        *map(_text, ("digest", "name")),
        _whole("count"),
        _key("retain_set", "digest"),
        _unique("retain_set", "name"),
        _check("retain_set_digest_length", "length(digest) = 64"),
        _check("retain_set_count_range", "count >= 0"),
    )
    _table(
        "basis",
        _text("digest"),
        *map(_whole, ("dimension", "rank")),
        _text("rule"),
        _key("basis", "digest"),
        _check("basis_digest_length", "length(digest) = 64"),
        _check("basis_rank_range", "rank >= 0 AND rank <= dimension"),
    )


def _patches() -> None:
    _table(
        "patch",
        *map(_text, ("patch_id", "anchor", "method", "base")),
        *(_text(name, null=True) for name in ("basis", "retain_set", "key_id")),
        _whole("size"),
        *map(_text, ("added_at", "source")),
        _key("patch", "patch_id"),
        _foreign("patch", "basis", "basis", "digest"),
        _foreign("patch", "retain_set", "retain_set", "digest"),
        _foreign("patch", "key_id", "signing_key", "key_id"),
        _check("patch_patch_id_length", "length(patch_id) = 64"),
        _check("patch_base_length", "length(base) = 64"),
        _check("patch_size_range", "size >= 0"),
    )
    _index("patch", "base")
    _table(
        "patch_concept",
        _text("patch_id"),
        _whole("position"),
        _text("concept"),
        _key("patch_concept", "patch_id", "position"),
        _foreign("patch_concept", "patch_id", "patch", "patch_id"),
    )
    _index("patch_concept", "concept")
    _table(
        "patch_file",
        *map(_text, ("patch_id", "name", "digest")),
        _key("patch_file", "patch_id", "name"),
        _foreign("patch_file", "patch_id", "patch", "patch_id"),
        _check("patch_file_digest_length", "length(digest) = 64"),
    )


def _hosts() -> None:
    _table(
        "host",
        *map(_text, ("host_id", "location", "base", "state", "updated_at")),
        _key("host", "host_id"),
        _unique("host", "location"),
        _foreign("host", "base", "base", "digest"),
        _check("host_state_length", "length(state) = 64"),
        _check("host_host_id_length", "length(host_id) = 36"),
    )
    _table(
        "host_patch",
        *map(_text, ("host_id", "patch_id")),
        _whole("strength"),
        _key("host_patch", "host_id", "patch_id"),
        _foreign("host_patch", "host_id", "host", "host_id"),
        _foreign("host_patch", "patch_id", "patch", "patch_id"),
        _check("host_patch_strength_range", "strength BETWEEN -64 AND 64 AND strength <> 0"),
    )
    _index("host_patch", "patch_id")


def _ledger() -> None:
    _table(
        "registry",
        _whole("number"),
        *map(_text, ("origin", "vkey", "created_at")),
        _key("registry", "number"),
        _check("registry_number_one", "number = 1"),
    )
    _table(
        "entry",
        _whole("position"),
        *map(_blob, ("leaf_hash", "body")),
        *map(_text, ("time", "action", "outcome")),
        _text("host", null=True),
        _whole("closes", null=True),
        _key("entry", "position"),
        _unique("entry", "closes"),
        _foreign("entry", "closes", "entry", "position"),
        _check("entry_position_range", "position >= 0"),
        _check("entry_leaf_hash_length", "length(leaf_hash) = 32"),
        _check("entry_body_length", "length(body) BETWEEN 2 AND 65535"),
    )
    _index("entry", "host")
    _table(
        "entry_patch",
        *map(_whole, ("position", "ordinal")),
        _text("patch_id"),
        _key("entry_patch", "position", "ordinal"),
        _foreign("entry_patch", "position", "entry", "position"),
        _check("entry_patch_patch_id_length", "length(patch_id) = 64"),
    )
    _index("entry_patch", "patch_id")
    _table(
        "checkpoint",
        _whole("size"),
        _text("note"),
        _blob("frontier"),
        _key("checkpoint", "size"),
        _check("checkpoint_size_range", "size > 0"),
    )


def _sqlite_triggers() -> None:
    for table in _LEDGER:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}"
                f" BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
    for table, column, first in (("entry", "position", 0), ("checkpoint", "size", 1)):
        op.execute(
            f"CREATE TRIGGER {table}_no_gap BEFORE INSERT ON {table}"  # noqa: S608 - names from this file
            f" WHEN NEW.{column} <> (SELECT COALESCE(MAX({column}) + 1, {first}) FROM {table})"
            f" BEGIN SELECT RAISE(ABORT, '{table} has no gaps'); END"
        )


def _postgres_triggers() -> None:
    op.execute(
        "CREATE FUNCTION rasura_append_only() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    for table in _LEDGER:
        _postgres_trigger(table, "no_change", "UPDATE OR DELETE", "ROW", "rasura_append_only")
        _postgres_trigger(table, "no_truncate", "TRUNCATE", "STATEMENT", "rasura_append_only")
    for table, column, first in (("entry", "position", 0), ("checkpoint", "size", 1)):
        op.execute(
            f"CREATE FUNCTION rasura_{table}_no_gap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"  # noqa: S608
            f" IF NEW.{column} <> (SELECT COALESCE(MAX({column}) + 1, {first}) FROM {table})"
            f" THEN RAISE EXCEPTION '{table} has no gaps'; END IF; RETURN NEW; END $$"
        )
        _postgres_trigger(table, "no_gap", "INSERT", "ROW", f"rasura_{table}_no_gap")


def _postgres_trigger(table: str, name: str, event: str, level: str, function: str) -> None:
    op.execute(
        f"CREATE TRIGGER {table}_{name} BEFORE {event} ON {table} FOR EACH {level} EXECUTE FUNCTION {function}()"
    )
    # ALWAYS: session_replication_role = replica would switch an ordinary trigger off.
    op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_{name}")
