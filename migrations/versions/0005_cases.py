"""Cases: requests with their clocks, and commitments to what was said in them.

Revision: 0005
Revises: 0004
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _table(
        "case_record",
        _text("case_id"),
        _text("received_at"),
        _text("due_at", nullable=True),
        _text("opened_at"),
        _text("closed_at", nullable=True),
        sa.Column("held", sa.Integer(), nullable=False),
        _text("forgotten_at", nullable=True),
        sa.PrimaryKeyConstraint("case_id", name=op.f("pk_case_record")),
        sa.CheckConstraint("length(case_id) BETWEEN 1 AND 64", name=op.f("ck_case_record_case_id_length")),
        sa.CheckConstraint("held IN (0, 1)", name=op.f("ck_case_record_held_flag")),
    )
    _table(
        "case_item",
        *map(_text, ("case_id", "name", "commitment")),
        sa.PrimaryKeyConstraint("case_id", "name", name=op.f("pk_case_item")),
        sa.ForeignKeyConstraint(["case_id"], ["case_record.case_id"], name=op.f("fk_case_item_case_id_case_record")),
        sa.CheckConstraint("length(commitment) = 64", name=op.f("ck_case_item_commitment_length")),
    )


def downgrade() -> None:
    message = "the log tells of cases: without their tables it would not verify"
    raise NotImplementedError(message)


def _table(name: str, *parts: sa.Column[Any] | sa.Constraint) -> None:
    op.create_table(name, *parts, sqlite_strict=True)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)
