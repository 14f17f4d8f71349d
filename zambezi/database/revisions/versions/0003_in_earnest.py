"""in earnest"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "follower_lease",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.String(length=27), nullable=False),
        sa.Column("lease_owner", sa.String(length=80), nullable=True),
        sa.Column("lease_until", sa.String(length=27), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_follower_lease")),
    )
    op.create_table(
        "node_journal",
        sa.Column("journal", sa.String(length=64), nullable=False),
        sa.Column("node", sa.String(length=40), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("seen_at", sa.String(length=27), nullable=False),
        sa.PrimaryKeyConstraint("journal", name=op.f("pk_node_journal")),
    )
    op.create_table(
        "fenced_entries",
        sa.Column("journal", sa.String(length=64), nullable=False),
        sa.Column("first", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("journal", "first", name=op.f("pk_fenced_entries")),
    )


def downgrade() -> None:
    op.drop_table("fenced_entries")
    op.drop_table("node_journal")
    op.drop_table("follower_lease")
