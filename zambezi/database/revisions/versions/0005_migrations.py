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
    sa.Column("seen_in", sa.Integer(), nullable=False, server_default="0"),
    sa.Column("looked_at", sa.String(length=27)),
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
    sa.Column("was_there", sa.SmallInteger(), nullable=False, server_default="0"),
    sa.Column("reason", sa.Text()),
    sa.Column("coerced", sa.Text()),
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
    _upgrade_legacy()
    _inventory()
    _add_folders()
    _running()
    _plans()
    _proof()


def _upgrade_legacy() -> None:
    op.create_index("ix_patient_birth_date", "patient", ["birth_date"])
    op.create_table(
        "legacy_import",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("mapping", sa.JSON(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("mapping_sha256", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("pass_no", sa.Integer(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("position", sa.JSON(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("preview", sa.JSON(), nullable=False),
        sa.Column("who", sa.String(length=80), nullable=False),
        sa.Column("created_at", sa.String(length=27), nullable=False),
        sa.Column("updated_at", sa.String(length=27), nullable=False),
        sa.Column("finished_at", sa.String(length=27), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legacy_import")),
        sa.UniqueConstraint("name", name=op.f("uq_legacy_import_name")),
    )
    op.create_table(
        "legacy_report",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("source_key", sa.String(length=200), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("is_latest", sa.Boolean(), nullable=False),
        sa.Column("study_uid", sa.String(length=64), nullable=True),
        sa.Column("order_id", sa.Integer(), nullable=True),
        sa.Column("patient_key", sa.Integer(), nullable=True),
        sa.Column("accession_number", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("author", sa.String(length=200), nullable=False),
        sa.Column("written_at", sa.String(length=27), nullable=True),
        sa.Column("status", sa.String(length=64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("text_sha256", sa.String(length=64), nullable=False),
        sa.Column("media", sa.String(length=64), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=True),
        sa.Column("document_sha256", sa.String(length=64), nullable=True),
        sa.Column("sop_uid", sa.String(length=64), nullable=True),
        sa.Column("archive_state", sa.String(length=16), nullable=False, server_default=""),
        sa.Column("archive_reason", sa.Text(), nullable=False, server_default=""),
        sa.Column("archived_at", sa.String(length=27), nullable=True),
        sa.Column("imported_at", sa.String(length=27), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["imaging_order.id"], name=op.f("fk_legacy_report_order_id")),
        sa.ForeignKeyConstraint(["patient_key"], ["patient.id"], name=op.f("fk_legacy_report_patient_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legacy_report")),
        sa.UniqueConstraint("source", "source_key", "version", name=op.f("uq_legacy_report_source")),
    )
    for column in ("study_uid", "order_id", "patient_key", "accession_number", "archive_state"):
        op.create_index(f"ix_legacy_report_{column}", "legacy_report", [column])
    op.create_table(
        "legacy_row",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("import_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("place", sa.String(length=200), nullable=False),
        sa.Column("pass_no", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("history", sa.JSON(), nullable=False),
        sa.Column("met", sa.Integer(), nullable=False),
        sa.Column("raw", sa.JSON(), nullable=False),
        sa.Column("subject", sa.String(length=140), nullable=False),
        sa.Column("candidates", sa.JSON(), nullable=False),
        sa.Column("patient_key", sa.Integer(), nullable=True),
        sa.Column("order_id", sa.Integer(), nullable=True),
        sa.Column("report_id", sa.Integer(), nullable=True),
        sa.Column("is_ours", sa.Boolean(), nullable=False),
        sa.Column("decided_by", sa.String(length=80), nullable=True),
        sa.Column("decided_at", sa.String(length=27), nullable=True),
        sa.Column("decision", sa.Text(), nullable=True),
        sa.Column("created_at", sa.String(length=27), nullable=False),
        sa.Column("updated_at", sa.String(length=27), nullable=False),
        sa.ForeignKeyConstraint(["import_id"], ["legacy_import.id"], name=op.f("fk_legacy_row_import_id")),
        sa.ForeignKeyConstraint(["order_id"], ["imaging_order.id"], name=op.f("fk_legacy_row_order_id")),
        sa.ForeignKeyConstraint(["patient_key"], ["patient.id"], name=op.f("fk_legacy_row_patient_key")),
        sa.ForeignKeyConstraint(["report_id"], ["legacy_report.id"], name=op.f("fk_legacy_row_report_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legacy_row")),
        sa.UniqueConstraint("import_id", "kind", "key", name=op.f("uq_legacy_row_import_id")),
    )
    op.create_index("ix_legacy_row_state", "legacy_row", ["import_id", "kind", "state"])
    op.create_index("ix_legacy_row_subject", "legacy_row", ["import_id", "subject"])


def _downgrade_legacy() -> None:
    for table in ("legacy_row", "legacy_report", "legacy_import"):
        op.drop_table(table)
    op.drop_index("ix_patient_birth_date", "patient")


def _inventory() -> None:
    """Inventories, and what each has asked."""
    op.create_table(
        "migration_survey",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("began_at", sa.String(length=27), nullable=False),
        sa.Column("ended_at", sa.String(length=27)),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("named", "counted", "new", "grown", "gone")),
        sa.ForeignKeyConstraint(["project_id"], ["migration_project.id"], name=op.f("fk_migration_survey_project_id")),
        sa.PrimaryKeyConstraint("project_id", "number", name=op.f("pk_migration_survey")),
    )
    op.create_table(
        "migration_probe",
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.Column("abilities", sa.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("source", name=op.f("pk_migration_probe")),
    )
    op.create_table(
        "migration_slice",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("survey_number", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("matching", sa.JSON(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("found", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.String(length=27), nullable=False),
        sa.Column("answers", sa.LargeBinary()),
        sa.ForeignKeyConstraint(["project_id"], ["migration_project.id"], name=op.f("fk_migration_slice_project_id")),
        sa.PrimaryKeyConstraint("project_id", "survey_number", "number", name=op.f("pk_migration_slice")),
    )


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


def _running() -> None:
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
        "migration_extra",
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("migration_study.id"), primary_key=True, autoincrement=False),
        sa.Column("level", sa.String(length=8), primary_key=True),
        sa.Column("uid", sa.String(length=64), primary_key=True),
        sa.Column("kind", sa.String(length=16), primary_key=True),
        sa.Column("name", sa.String(length=100), primary_key=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64)),
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
    for table in ("migration_rollback", "migration_extra", "certificate_part", "migration_sample"):
        op.drop_table(table)
    op.drop_column("certificate", "format")
    op.drop_table("migration_match")
    op.drop_table("migration_plan")
    op.drop_index("ix_migration_study_planned", "migration_study")
    op.drop_column("announced_study", "changes")
    op.drop_table("migration_pass")
    op.drop_table("migration_pace")
    for name in _INDEXES:
        op.drop_index(name, "migration_study")
    op.drop_table("migration_walk")
    op.drop_table("migration_file")
    op.drop_table("migration_probe")
    op.drop_table("migration_slice")
    op.drop_table("migration_survey")
    _downgrade_legacy()
    for column in _INSTANCE:
        op.drop_column("migration_instance", column.name)
    for column in _STUDY:
        op.drop_column("migration_study", column.name)
    op.drop_column("migration_project", "plan")
