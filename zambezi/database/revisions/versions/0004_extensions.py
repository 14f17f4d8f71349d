"""extensions"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("study", sa.Column("sender", sa.String(length=16), nullable=False, server_default=""))
    for name, length in _SCOPE:
        op.add_column("app_user", sa.Column(name, sa.String(length=length), nullable=False, server_default=""))
    op.create_table(
        "study_opening",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("session", sa.String(length=32), nullable=False),
        sa.Column("login", sa.String(length=80), nullable=False),
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("ends", sa.Integer(), nullable=True),
        sa.Column("opened_at", sa.String(length=27), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study_opening")),
    )
    op.create_index(op.f("ix_study_opening_session"), "study_opening", ["session"])
    op.create_index(op.f("ix_study_opening_opened_at"), "study_opening", ["opened_at"])
    op.create_table(
        "share_link",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("studies", sa.JSON(), nullable=False),
        sa.Column("recipient", sa.String(length=200), nullable=False),
        sa.Column("pin_hash", sa.Text(), nullable=True),
        sa.Column("download", sa.Boolean(), nullable=False),
        sa.Column("made_by", sa.String(length=80), nullable=False),
        sa.Column("made_at", sa.String(length=27), nullable=False),
        sa.Column("expires_at", sa.String(length=27), nullable=False),
        sa.Column("revoked_at", sa.String(length=27), nullable=True),
        sa.Column("revoked_by", sa.String(length=80), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("wrong", sa.Integer(), nullable=False),
        sa.Column("locked_until", sa.String(length=27), nullable=True),
        sa.Column("opened", sa.Integer(), nullable=False),
        sa.Column("opened_at", sa.String(length=27), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_share_link")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_share_link_secret_sha256")),
    )
    op.create_index(op.f("ix_share_link_made_by"), "share_link", ["made_by"])


def downgrade() -> None:
    op.drop_table("share_link")
    op.drop_table("study_opening")
    for name, _length in _SCOPE:
        op.drop_column("app_user", name)
    op.drop_column("study", "sender")


#: What narrows an account's view.
_SCOPE = (("scope_sites", 400), ("scope_modalities", 200), ("scope_referrer", 200))
