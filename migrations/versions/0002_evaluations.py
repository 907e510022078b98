"""Evaluations: what a base drew with and without a stack of patches.

Revision: 0002
Revises: 0001
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_LONG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _table(
        "evaluation",
        *map(_text, ("digest", "base", "judge", "summary", "added_at")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_evaluation")),
        sa.ForeignKeyConstraint(["base"], ["base.digest"], name=op.f("fk_evaluation_base_base")),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_evaluation_digest_length")),
    )
    _table(
        "evaluation_patch",
        *map(_text, ("digest", "patch_id")),
        sa.Column("strength", _LONG, nullable=False),
        sa.PrimaryKeyConstraint("digest", "patch_id", name=op.f("pk_evaluation_patch")),
        sa.ForeignKeyConstraint(["digest"], ["evaluation.digest"], name=op.f("fk_evaluation_patch_digest_evaluation")),
        sa.ForeignKeyConstraint(["patch_id"], ["patch.patch_id"], name=op.f("fk_evaluation_patch_patch_id_patch")),
        sa.CheckConstraint(
            "strength BETWEEN -64 AND 64 AND strength <> 0", name=op.f("ck_evaluation_patch_strength_range")
        ),
    )
    op.create_index(op.f("ix_evaluation_patch_patch_id"), "evaluation_patch", ["patch_id"])


def downgrade() -> None:
    message = "the log tells of evaluations: without their tables it would not verify"
    raise NotImplementedError(message)


def _table(name: str, *parts: sa.Column[Any] | sa.Constraint) -> None:
    op.create_table(name, *parts, sqlite_strict=True)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)
