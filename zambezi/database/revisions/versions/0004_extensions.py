"""extensions"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("delivery", sa.Column("priority", sa.Integer(), server_default="0", nullable=False))
    op.add_column("delivery", sa.Column("acknowledged", sa.JSON(), server_default="[]", nullable=False))
    op.create_table(
        "commitment_asked",
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("delivery_id", sa.String(length=40), nullable=False),
        sa.Column("aet", sa.String(length=16), nullable=False),
        sa.Column("asked_at", sa.String(length=27), nullable=False),
        sa.Column("until", sa.String(length=27), nullable=False),
        sa.Column("answered_at", sa.String(length=27), nullable=True),
        sa.Column("committed", sa.JSON(), nullable=False),
        sa.Column("failures", sa.JSON(), nullable=False),
        sa.Column("closed_at", sa.String(length=27), nullable=True),
        sa.PrimaryKeyConstraint("transaction_uid", name=op.f("pk_commitment_asked")),
    )
    op.create_index(op.f("ix_commitment_asked_delivery_id"), "commitment_asked", ["delivery_id"])
    op.create_table(
        "pseudonym_key",
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("destination", name=op.f("pk_pseudonym_key")),
    )
    op.create_table(
        "pseudonym",
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("pseudonym", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("original", sa.String(length=64), nullable=False),
        sa.Column("made_at", sa.String(length=27), nullable=False),
        sa.PrimaryKeyConstraint("destination", "pseudonym", name=op.f("pk_pseudonym")),
    )
    op.create_index(op.f("ix_pseudonym_original"), "pseudonym", ["original"])


def downgrade() -> None:
    op.drop_table("pseudonym")
    op.drop_table("pseudonym_key")
    op.drop_table("commitment_asked")
    op.drop_column("delivery", "acknowledged")
    op.drop_column("delivery", "priority")
