"""The tables, as SQLAlchemy sees them. Rows never leave the registry; `records` do.

Every type maps to one that SQLite's STRICT tables know (INTEGER, TEXT, BLOB), so that both databases refuse a text in
a number's place. Times are RFC 3339 texts in UTC, the same that the audit log has. Triggers that keep the ledger
append-only stand in the migrations: an ORM does not describe them.
"""

from datetime import datetime
from typing import Final

from sqlalchemy import CheckConstraint, ForeignKey, LargeBinary, MetaData, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from rasura.registry._storage.database.column_types import Flag, Instant, Long, check_hex, strict

__all__ = ["Table"]

_NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Table(DeclarativeBase):
    """Root of all rows."""

    metadata = MetaData(naming_convention=_NAMING)
    type_annotation_map = {str: Text, int: Long, bool: Flag, datetime: Instant, bytes: LargeBinary}  # noqa: RUF012


class RegistryRow(Table):
    """One row: which registry this is."""

    __tablename__ = "registry"
    __table_args__ = strict(CheckConstraint("number = 1", name="number_one"))
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    origin: Mapped[str]
    vkey: Mapped[str]
    created_at: Mapped[datetime]


class KeyRow(Table):
    """A public key that signs patches."""

    __tablename__ = "signing_key"
    __table_args__ = strict(
        check_hex("key_id"),
        CheckConstraint("owned IN (0, 1)", name="owned_flag"),
        CheckConstraint("trusted IN (0, 1)", name="trusted_flag"),
    )
    key_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    pem: Mapped[str]
    owned: Mapped[bool]
    trusted: Mapped[bool]
    revoked_at: Mapped[datetime | None]
    added_at: Mapped[datetime]


class BaseRow(Table):
    """A base; its parameters have their own table, so that a list does not load them."""

    __tablename__ = "base"
    __table_args__ = strict(check_hex("digest"))
    digest: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    source: Mapped[str]
    text_encoder: Mapped[str]
    tokenizer: Mapped[str]
    added_at: Mapped[datetime]


class ParameterRow(Table):
    """A patchable parameter of a base; shape and casts as canonical JSON."""

    __tablename__ = "base_parameter"
    __table_args__ = strict(check_hex("sha256"), UniqueConstraint("base", "name"))
    base: Mapped[str] = mapped_column(ForeignKey("base.digest"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    dtype: Mapped[str]
    shape: Mapped[str]
    sha256: Mapped[str]
    casts: Mapped[str]


class RetainSetRow(Table):
    """Prompts that patches promise to leave alone."""

    __tablename__ = "retain_set"
    __table_args__ = strict(check_hex("digest"), CheckConstraint("count >= 0", name="count_range"))
    digest: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    count: Mapped[int]


class BasisRow(Table):
    """An orthonormal basis of a protected space."""

    __tablename__ = "basis"
    __table_args__ = strict(check_hex("digest"), CheckConstraint("rank >= 0 AND rank <= dimension", name="rank_range"))
    digest: Mapped[str] = mapped_column(primary_key=True)
    dimension: Mapped[int]
    rank: Mapped[int]
    rule: Mapped[str]


class PatchRow(Table):
    """A patch. Its base may be unknown here, so that a patch can be pulled before the model is."""

    __tablename__ = "patch"
    __table_args__ = strict(check_hex("patch_id"), check_hex("base"), CheckConstraint("size >= 0", name="size_range"))
    patch_id: Mapped[str] = mapped_column(primary_key=True)
    anchor: Mapped[str]
    method: Mapped[str]
    base: Mapped[str] = mapped_column(index=True)
    basis: Mapped[str | None] = mapped_column(ForeignKey("basis.digest"))
    retain_set: Mapped[str | None] = mapped_column(ForeignKey("retain_set.digest"))
    key_id: Mapped[str | None] = mapped_column(ForeignKey("signing_key.key_id"))
    size: Mapped[int]
    added_at: Mapped[datetime]
    source: Mapped[str]


class ConceptRow(Table):
    """A concept that a patch erases, in the patch's order."""

    __tablename__ = "patch_concept"
    __table_args__ = strict()
    patch_id: Mapped[str] = mapped_column(ForeignKey("patch.patch_id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    concept: Mapped[str] = mapped_column(index=True)


class FileRow(Table):
    """A file of a patch; its bytes are a blob."""

    __tablename__ = "patch_file"
    __table_args__ = strict(check_hex("digest"))
    patch_id: Mapped[str] = mapped_column(ForeignKey("patch.patch_id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]


class SignatureRow(Table):
    """A further signature over a patch, by another key than its first; the bundle's bytes are a blob."""

    __tablename__ = "patch_signature"
    __table_args__ = strict(check_hex("digest"), UniqueConstraint("patch_id", "key_id"))
    digest: Mapped[str] = mapped_column(primary_key=True)
    patch_id: Mapped[str] = mapped_column(ForeignKey("patch.patch_id"))
    key_id: Mapped[str] = mapped_column(ForeignKey("signing_key.key_id"))
    added_at: Mapped[datetime]


class HostRow(Table):
    """A model that patches are applied to."""

    __tablename__ = "host"
    __table_args__ = strict(check_hex("state"), CheckConstraint("length(host_id) = 36", name="host_id_length"))
    host_id: Mapped[str] = mapped_column(primary_key=True)
    location: Mapped[str] = mapped_column(unique=True)
    base: Mapped[str] = mapped_column(ForeignKey("base.digest"))
    state: Mapped[str]
    updated_at: Mapped[datetime]


class AppliedRow(Table):
    """A patch in a host's stack, with its strength in sixteenths."""

    __tablename__ = "host_patch"
    __table_args__ = strict(CheckConstraint("strength BETWEEN -64 AND 64 AND strength <> 0", name="strength_range"))
    host_id: Mapped[str] = mapped_column(ForeignKey("host.host_id"), primary_key=True)
    patch_id: Mapped[str] = mapped_column(ForeignKey("patch.patch_id"), primary_key=True, index=True)
    strength: Mapped[int]


class EvaluationRow(Table):
    """What a base drew with and without a stack; scores as canonical JSON, the whole report as a blob."""

    __tablename__ = "evaluation"
    __table_args__ = strict(check_hex("digest"))
    digest: Mapped[str] = mapped_column(primary_key=True)
    base: Mapped[str] = mapped_column(ForeignKey("base.digest"))
    judge: Mapped[str]
    summary: Mapped[str]
    added_at: Mapped[datetime]


class EvaluatedRow(Table):
    """A patch in an evaluation's stack, with its strength in sixteenths."""

    __tablename__ = "evaluation_patch"
    __table_args__ = strict(CheckConstraint("strength BETWEEN -64 AND 64 AND strength <> 0", name="strength_range"))
    digest: Mapped[str] = mapped_column(ForeignKey("evaluation.digest"), primary_key=True)
    patch_id: Mapped[str] = mapped_column(ForeignKey("patch.patch_id"), primary_key=True, index=True)
    strength: Mapped[int]


class StackRow(Table):
    """A named stack; its patches have their own table."""

    __tablename__ = "stack"
    __table_args__ = strict(CheckConstraint("length(name) BETWEEN 1 AND 64", name="name_length"))
    name: Mapped[str] = mapped_column(primary_key=True)
    base: Mapped[str] = mapped_column(ForeignKey("base.digest"))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class StackPatchRow(Table):
    """A patch in a named stack, with its strength in sixteenths."""

    __tablename__ = "stack_patch"
    __table_args__ = strict(CheckConstraint("strength BETWEEN -64 AND 64 AND strength <> 0", name="strength_range"))
    stack: Mapped[str] = mapped_column(ForeignKey("stack.name"), primary_key=True)
    patch_id: Mapped[str] = mapped_column(ForeignKey("patch.patch_id"), primary_key=True, index=True)
    strength: Mapped[int]


class PolicyRow(Table):
    """The policy in force, one row at most; its TOML is a blob."""

    __tablename__ = "policy"
    __table_args__ = strict(check_hex("digest"), CheckConstraint("scope = 'registry'", name="scope_registry"))
    scope: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]
    set_at: Mapped[datetime]


class CaseRow(Table):
    """A request with its clock; no personal data."""

    __tablename__ = "case_record"
    __table_args__ = strict(
        CheckConstraint("length(case_id) BETWEEN 1 AND 64", name="case_id_length"),
        CheckConstraint("held IN (0, 1)", name="held_flag"),
    )
    case_id: Mapped[str] = mapped_column(primary_key=True)
    received_at: Mapped[datetime]
    due_at: Mapped[datetime | None]
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    held: Mapped[bool]
    forgotten_at: Mapped[datetime | None]


class CaseItemRow(Table):
    """A commitment to something that lies in the vault, or lay there."""

    __tablename__ = "case_item"
    __table_args__ = strict(check_hex("commitment"))
    case_id: Mapped[str] = mapped_column(ForeignKey("case_record.case_id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    commitment: Mapped[str]


class EntryRow(Table):
    """An audit entry: the bytes that the tree hashes, and copies of what lists filter by."""

    __tablename__ = "entry"
    __table_args__ = strict(
        CheckConstraint("position >= 0", name="position_range"),
        CheckConstraint("length(leaf_hash) = 32", name="leaf_hash_length"),
        CheckConstraint("length(body) BETWEEN 2 AND 65535", name="body_length"),
    )
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    leaf_hash: Mapped[bytes]
    body: Mapped[bytes]
    time: Mapped[datetime]
    action: Mapped[str]
    outcome: Mapped[str]
    host: Mapped[str | None] = mapped_column(index=True)
    closes: Mapped[int | None] = mapped_column(ForeignKey("entry.position"), unique=True)


class EntryPatchRow(Table):
    """A patch that an entry names, which may be one that this registry refused."""

    __tablename__ = "entry_patch"
    __table_args__ = strict(check_hex("patch_id"))
    position: Mapped[int] = mapped_column(ForeignKey("entry.position"), primary_key=True)
    ordinal: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    patch_id: Mapped[str] = mapped_column(index=True)


class CheckpointRow(Table):
    """The signed note over the first `size` entries, and the tree's frontier, so that appends cost O(log n)."""

    __tablename__ = "checkpoint"
    __table_args__ = strict(CheckConstraint("size > 0", name="size_range"))
    size: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    note: Mapped[str]
    frontier: Mapped[bytes]
