"""Named stacks of patches, and the policy in force.

Revision: 0003
Revises: 0002
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_LONG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _table(
        "stack",
        *map(_text, ("name", "base", "created_at", "updated_at")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_stack")),
        sa.ForeignKeyConstraint(["base"], ["base.digest"], name=op.f("fk_stack_base_base")),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 64", name=op.f("ck_stack_name_length")),
    )
    _table(
        "stack_patch",
        *map(_text, ("stack", "patch_id")),
        sa.Column("strength", _LONG, nullable=False),
        sa.PrimaryKeyConstraint("stack", "patch_id", name=op.f("pk_stack_patch")),
        sa.ForeignKeyConstraint(["stack"], ["stack.name"], name=op.f("fk_stack_patch_stack_stack")),
        sa.ForeignKeyConstraint(["patch_id"], ["patch.patch_id"], name=op.f("fk_stack_patch_patch_id_patch")),
        sa.CheckConstraint("strength BETWEEN -64 AND 64 AND strength <> 0", name=op.f("ck_stack_patch_strength_range")),
    )
    op.create_index(op.f("ix_stack_patch_patch_id"), "stack_patch", ["patch_id"])
    _table(
        "policy",
        *map(_text, ("scope", "digest", "set_at")),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_policy")),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_policy_digest_length")),
        sa.CheckConstraint("scope = 'registry'", name=op.f("ck_policy_scope_registry")),
    )


def downgrade() -> None:
    message = "the log tells of stacks and of a policy: without their tables it would not verify"
    raise NotImplementedError(message)


def _table(name: str, *parts: sa.Column[Any] | sa.Constraint) -> None:
    op.create_table(name, *parts, sqlite_strict=True)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)
