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
    sa.Column("looked_at", sa.String(length=27)),
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
    sa.Column("was_there", sa.SmallInteger(), nullable=False, server_default="0"),
    sa.Column("reason", sa.Text()),
)
_INDEXES = {
    "ix_migration_study_turn": ["project_id", "state", "priority", "study_date", "id", "modalities"],
    "ix_migration_study_due": ["project_id", "state", "next_at", "expected"],
    "ix_migration_study_leased": ["project_id", "lease_until"],
    "ix_migration_study_patient": ["project_id", "patient_id"],
    "ix_migration_study_verified": ["project_id", "verified_at"],
}


def upgrade() -> None:
    op.add_column("migration_project", sa.Column("plan", sa.JSON(), nullable=False, server_default="{}"))
    for column in _STUDY:
        op.add_column("migration_study", column)
    for column in _INSTANCE:
        op.add_column("migration_instance", column)
    for name, columns in _INDEXES.items():
        op.create_index(name, "migration_study", columns)
    op.create_table(
        "migration_pace",
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("doubles_until", sa.Integer(), nullable=False),
        sa.Column("studies", sa.Integer(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("quickest", sa.Float(), nullable=False),
        sa.Column("quickest_slots", sa.Integer(), nullable=False),
        sa.Column("because", sa.Text(), nullable=False),
        sa.Column("cut_at", sa.String(length=27)),
        sa.Column("changed_at", sa.String(length=27), nullable=False),
        sa.PrimaryKeyConstraint("source", name=op.f("pk_migration_pace")),
    )
    op.create_table(
        "migration_pass",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("began_at", sa.String(length=27), nullable=False),
        sa.Column("ended_at", sa.String(length=27)),
        *(
            sa.Column(name, sa.Integer(), nullable=False)
            for name in ("studies", "counted", "new_studies", "new_instances", "doubts")
        ),
        sa.Column("who", sa.String(length=80), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["migration_project.id"], name=op.f("fk_migration_pass_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_migration_pass")),
        sa.UniqueConstraint("project_id", "number", name=op.f("uq_migration_pass_project_id")),
    )


def downgrade() -> None:
    op.drop_table("migration_pass")
    op.drop_table("migration_pace")
    for name in _INDEXES:
        op.drop_index(name, "migration_study")
    for column in _INSTANCE:
        op.drop_column("migration_instance", column.name)
    for column in _STUDY:
        op.drop_column("migration_study", column.name)
    op.drop_column("migration_project", "plan")
