"""migrations: what a source says of a study, plans, levels of proof"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_STUDY: tuple[sa.Column[Any], ...] = (
    sa.Column("facts", sa.JSON(), nullable=False, server_default="{}"),
    sa.Column("batch", sa.Integer(), nullable=False, server_default="0"),
    sa.Column("priority", sa.Integer(), nullable=False, server_default="0"),
    sa.Column("urgent_because", sa.Text(), nullable=False, server_default=""),
    sa.Column("changes", sa.JSON(), nullable=False, server_default="{}"),
    sa.Column("stored", sa.Integer(), nullable=False, server_default="0"),
    sa.Column("size", sa.BigInteger(), nullable=False, server_default="0"),
    sa.Column("level", sa.Integer(), nullable=False, server_default="0"),
    sa.Column("found_at", sa.String(length=27), nullable=False, server_default=""),
)
_INSTANCE: tuple[sa.Column[Any], ...] = (
    sa.Column("sop_class", sa.String(length=64)),
    sa.Column("source_syntax", sa.String(length=64)),
    sa.Column("stored_syntax", sa.String(length=64)),
    sa.Column("size", sa.BigInteger()),
    sa.Column("source_md5", sa.String(length=32)),
    sa.Column("given_md5", sa.String(length=32)),
    sa.Column("arrived_sha256", sa.String(length=64)),
    sa.Column("level", sa.SmallInteger(), nullable=False, server_default="0"),
)


def upgrade() -> None:
    op.add_column("migration_project", sa.Column("plan", sa.JSON(), nullable=False, server_default="{}"))
    for column in _STUDY:
        op.add_column("migration_study", column)
    for column in _INSTANCE:
        op.add_column("migration_instance", column)

    _add_folders()


def _add_folders() -> None:
    op.create_table(
        "migration_file",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("medium", sa.String(length=64)),
        sa.Column("extension", sa.String(length=8), nullable=False),
        sa.Column("archive_id", sa.Integer()),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("walk", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("same_as", sa.Integer()),
        sa.Column("named", sa.Boolean()),
        sa.Column("md5", sa.String(length=32)),
        sa.Column("digest", sa.String(length=64)),
        sa.Column("held_sha256", sa.String(length=64)),
        sa.Column("study_uid", sa.String(length=64)),
        sa.Column("series_uid", sa.String(length=64)),
        sa.Column("sop_uid", sa.String(length=64)),
        sa.Column("patient_id", sa.String(length=64), nullable=False),
        sa.Column("sop_class", sa.String(length=64)),
        sa.Column("syntax", sa.String(length=64)),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_migration_file")),
        sa.UniqueConstraint("source", "key", name=op.f("uq_migration_file_source")),
    )
    op.create_index("ix_migration_file_study", "migration_file", ["source", "kind", "study_uid", "sop_uid"])
    op.create_index("ix_migration_file_verdict", "migration_file", ["source", "verdict"])
    op.create_index("ix_migration_file_medium", "migration_file", ["source", "medium"])
    op.create_index(op.f("ix_migration_file_archive_id"), "migration_file", ["archive_id"])
    op.create_table(
        "migration_walk",
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.String(length=27), nullable=False),
        sa.Column("updated_at", sa.String(length=27), nullable=False),
        sa.Column("finished_at", sa.String(length=27)),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("read", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source", name=op.f("pk_migration_walk")),
    )


def downgrade() -> None:
    op.drop_table("migration_walk")
    op.drop_table("migration_file")
    for column in _INSTANCE:
        op.drop_column("migration_instance", column.name)
    for column in _STUDY:
        op.drop_column("migration_study", column.name)
    op.drop_column("migration_project", "plan")
