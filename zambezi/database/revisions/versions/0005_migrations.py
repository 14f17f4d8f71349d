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
    sa.Column("plan_version", sa.Integer(), nullable=False, server_default="0"),
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
    _plans()


def _plans() -> None:
    op.add_column("announced_study", sa.Column("changes", sa.Text(), nullable=False, server_default=""))
    op.create_index("ix_migration_study_planned", "migration_study", ["project_id", "state", "plan_version"])
    op.create_table(
        "migration_plan",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("made_by", sa.String(length=80), nullable=False),
        sa.Column("because", sa.Text(), nullable=False),
        sa.Column("made_at", sa.String(length=27), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["migration_project.id"], name=op.f("fk_migration_plan_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_migration_plan")),
        sa.UniqueConstraint("project_id", "version", name=op.f("uq_migration_plan_project_id")),
    )
    op.create_table(
        "migration_match",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("identity", sa.String(length=64), nullable=False),
        sa.Column("patient_id", sa.String(length=64), nullable=False),
        sa.Column("said", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("patient_key", sa.Integer(), nullable=True),
        sa.Column("given_id", sa.String(length=64), nullable=False),
        sa.Column("score", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("candidates", sa.JSON(), nullable=False),
        sa.Column("decided_by", sa.String(length=80), nullable=False),
        sa.Column("decided_at", sa.String(length=27), nullable=True),
        sa.Column("because", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["migration_project.id"], name=op.f("fk_migration_match_project_id")),
        sa.ForeignKeyConstraint(["patient_key"], ["patient.id"], name=op.f("fk_migration_match_patient_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_migration_match")),
        sa.UniqueConstraint("project_id", "identity", name=op.f("uq_migration_match_project_id")),
    )
    op.create_index("ix_migration_match_state", "migration_match", ["project_id", "state"])


def downgrade() -> None:
    op.drop_table("migration_match")
    op.drop_table("migration_plan")
    op.drop_index("ix_migration_study_planned", "migration_study")
    op.drop_column("announced_study", "changes")
    for column in _INSTANCE:
        op.drop_column("migration_instance", column.name)
    for column in _STUDY:
        op.drop_column("migration_study", column.name)
    op.drop_column("migration_project", "plan")
