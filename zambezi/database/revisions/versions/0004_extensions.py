"""extensions"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_entry = sa.table(
    "audit_entry", sa.column("journal"), sa.column("seq"), sa.column("payload"), sa.column("event"),
    sa.column("patient_id"), sa.column("outcome"),
)  # fmt: skip
_BATCH = 5000

#: What narrows an account's view.
_SCOPE = (("scope_sites", 400), ("scope_modalities", 200), ("scope_referrer", 200))


def upgrade() -> None:
    op.create_table(
        "trigger_cursor",
        sa.Column("journal", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("journal", name=op.f("pk_trigger_cursor")),
    )
    op.create_table(
        "ready_sign",
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("by", sa.String(length=16), nullable=False),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("study_uid", "by", name=op.f("pk_ready_sign")),
    )
    op.create_index(op.f("ix_ready_sign_at"), "ready_sign", ["at"])
    op.add_column("delivery", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "commitment_request",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("aet", sa.String(length=16), nullable=False),
        sa.Column("called_aet", sa.String(length=16), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("instances", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("failed", sa.JSON(), nullable=False),
        sa.Column("study_uids", sa.JSON(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.String(length=27), nullable=False),
        sa.Column("checked_at", sa.String(length=27), nullable=True),
        sa.Column("updated_at", sa.String(length=27), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.String(length=27), nullable=False),
        sa.Column("lease_owner", sa.String(length=80), nullable=True),
        sa.Column("lease_until", sa.String(length=27), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment_request")),
        sa.UniqueConstraint("aet", "transaction_uid", name=op.f("uq_commitment_request_aet")),
    )
    op.create_index("ix_commitment_request_due", "commitment_request", ["state", "next_at"])
    op.add_column("audit_entry", sa.Column("patient_id", sa.String(length=64), nullable=True))
    op.add_column("audit_entry", sa.Column("outcome", sa.SmallInteger(), server_default="0", nullable=False))
    _fill()
    op.create_index(op.f("ix_audit_entry_patient_id"), "audit_entry", ["patient_id"], unique=False)
    op.create_index(
        "ix_audit_entry_failed", "audit_entry", ["at"], unique=False,
        sqlite_where=sa.text("outcome > 0"), postgresql_where=sa.text("outcome > 0"),
    )  # fmt: skip
    op.create_table(
        "audit_checkpoint",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.String(length=100), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_checkpoint")),
    )
    op.create_table(
        "audit_segment",
        sa.Column("journal", sa.String(length=64), nullable=False),
        sa.Column("first", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("file", sa.String(length=200), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.String(length=100), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("sealed_at", sa.String(length=27), nullable=False),
        sa.Column("pruned_at", sa.String(length=27), nullable=True),
        sa.PrimaryKeyConstraint("journal", "first", name=op.f("pk_audit_segment")),
    )
    op.create_table(
        "audit_collector",
        sa.Column("name", sa.String(length=300), nullable=False),
        sa.Column("sent_at", sa.String(length=27), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.String(length=27), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("error_since", sa.String(length=27), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_audit_collector")),
    )
    op.create_table(
        "audit_shipment",
        sa.Column("collector", sa.String(length=300), nullable=False),
        sa.Column("journal", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("collector", "journal", name=op.f("pk_audit_shipment")),
    )
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


def _fill() -> None:
    """Both columns are copies of what the sealed payloads say, as zambezi.audit makes them; here as it was then."""
    connection = op.get_bind()
    at = ("", 0)
    update = (
        sa.update(_entry)
        .where(_entry.c.journal == sa.bindparam("j"), _entry.c.seq == sa.bindparam("s"))
        .values(patient_id=sa.bindparam("p"), outcome=sa.bindparam("o"))
    )
    while True:
        rows = connection.execute(
            sa.select(_entry.c.journal, _entry.c.seq, _entry.c.payload)
            .where(sa.tuple_(_entry.c.journal, _entry.c.seq) > sa.tuple_(*map(sa.literal, at)))
            .order_by(_entry.c.journal, _entry.c.seq)
            .limit(_BATCH)
        ).all()
        if not rows:
            return
        found = []
        for journal, seq, payload in rows:
            facts = json.loads(payload)
            patient, ended = str(facts.get("patient_id") or "").replace("\0", "")[:64] or None, _outcome(facts)
            if patient or ended:
                found.append({"j": journal, "s": seq, "p": patient, "o": ended})
        if found:
            connection.execute(update, found)
        at = (rows[-1][0], rows[-1][1])


def _outcome(facts: dict[str, object]) -> int:
    states = {"retrying": 4, "rejected": 4, "refused": 4, "waiting": 4, "open": 4, "parked": 8, "failed": 8}
    with_states = (
        "delivery-changed", "message-received", "neighbour-changed", "migration-changed", "correction-changed",
        "deletion-changed",
    )  # fmt: skip
    if facts["event"] in with_states:
        return states.get(str(facts.get("state")), 0)
    return {"refused": 4, "sign-in-failed": 4, "conflict": 4, "incident": 8}.get(str(facts["event"]), 0)


def downgrade() -> None:
    op.drop_table("pseudonym")
    op.drop_table("pseudonym_key")
    op.drop_table("commitment_asked")
    op.drop_column("delivery", "acknowledged")
    op.drop_table("share_link")
    op.drop_table("study_opening")
    for name, _length in _SCOPE:
        op.drop_column("app_user", name)
    op.drop_column("study", "sender")
    op.drop_table("audit_shipment")
    op.drop_table("audit_collector")
    op.drop_table("audit_segment")
    op.drop_table("audit_checkpoint")
    op.drop_index("ix_audit_entry_failed", table_name="audit_entry")
    op.drop_index(op.f("ix_audit_entry_patient_id"), table_name="audit_entry")
    op.drop_column("audit_entry", "outcome")
    op.drop_column("audit_entry", "patient_id")
    op.drop_table("commitment_request")
    op.drop_column("delivery", "priority")
    op.drop_index(op.f("ix_ready_sign_at"), table_name="ready_sign")
    op.drop_table("ready_sign")
    op.drop_table("trigger_cursor")
