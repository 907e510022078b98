"""Further signatures over patches.

Revision: 0004
Revises: 0003
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _table(
        "patch_signature",
        *map(_text, ("digest", "patch_id", "key_id", "added_at")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_patch_signature")),
        sa.UniqueConstraint("patch_id", "key_id", name=op.f("uq_patch_signature_patch_id_key_id")),
        sa.ForeignKeyConstraint(["patch_id"], ["patch.patch_id"], name=op.f("fk_patch_signature_patch_id_patch")),
        sa.ForeignKeyConstraint(["key_id"], ["signing_key.key_id"], name=op.f("fk_patch_signature_key_id_signing_key")),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_patch_signature_digest_length")),
    )


def downgrade() -> None:
    message = "the log tells of signatures: without their table it would not verify"
    raise NotImplementedError(message)


def _table(name: str, *parts: sa.Column[Any] | sa.Constraint) -> None:
    op.create_table(name, *parts, sqlite_strict=True)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)
