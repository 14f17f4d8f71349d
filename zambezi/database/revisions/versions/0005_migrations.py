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
    sa.Column("coerced", sa.Text()),
)


def upgrade() -> None:
    op.add_column("migration_project", sa.Column("plan", sa.JSON(), nullable=False, server_default="{}"))
    for column in _STUDY:
        op.add_column("migration_study", column)
    for column in _INSTANCE:
        op.add_column("migration_instance", column)
    _proof()


def _proof() -> None:
    """Sample, certificate's lines, roll-back; what was proven before there were levels was compared with the source."""
    op.add_column("certificate", sa.Column("format", sa.SmallInteger(), nullable=False, server_default="2"))
    op.execute("UPDATE migration_instance SET level = 3 WHERE verdict = 'equal'")
    op.execute("UPDATE migration_instance SET level = 1 WHERE verdict IN ('stored', 'different')")
    op.execute(
        "UPDATE migration_study SET level = coalesce((SELECT min(one.level) FROM migration_instance one"
        " WHERE one.study_id = migration_study.id), 0)"
    )
    op.create_table(
        "migration_sample",
        sa.Column("project_id", sa.Integer(), sa.ForeignKey("migration_project.id"), primary_key=True),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("seed", sa.String(length=64), nullable=False),
        sa.Column("threshold", sa.String(length=64), nullable=False),
        sa.Column("population", sa.Integer(), nullable=False),
        sa.Column("drawn_at", sa.String(length=27), nullable=False),
        sa.Column("drawn_by", sa.String(length=80), nullable=False),
    )
    op.create_table(
        "certificate_part",
        sa.Column("certificate_id", sa.Integer(), sa.ForeignKey("certificate.id"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "migration_rollback",
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("migration_study.id"), primary_key=True),
        sa.Column("deletion_id", sa.Integer(), sa.ForeignKey("deletion.id"), primary_key=True),
        sa.Column("asked_by", sa.String(length=80), nullable=False),
        sa.Column("asked_at", sa.String(length=27), nullable=False),
        sa.Column("because", sa.Text(), nullable=False),
        sa.Column("settled_at", sa.String(length=27)),
    )


def downgrade() -> None:
    for table in ("migration_rollback", "certificate_part", "migration_sample"):
        op.drop_table(table)
    op.drop_column("certificate", "format")
    for column in _INSTANCE:
        op.drop_column("migration_instance", column.name)
    for column in _STUDY:
        op.drop_column("migration_study", column.name)
    op.drop_column("migration_project", "plan")
