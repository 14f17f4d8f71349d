from __future__ import annotations

from datetime import UTC, datetime

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.orm import Session

from zambezi import audit, chain
from zambezi.database import upgrade as revisions
from zambezi.database.engine import connect
from zambezi.database.tables import Base
from zambezi.database.upgrade import upgrade


def test_the_revisions_make_the_tables_that_the_code_knows(database_url: str):
    engine = connect(database_url, "test")
    upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_upgrading_again_changes_nothing(database_url: str):
    engine = connect(database_url, "test")
    upgrade(engine)
    upgrade(engine)


def test_entries_of_before_get_the_columns_that_a_walk_compares(database_url: str):
    """0004 fills patient_id and outcome from the sealed payloads."""
    engine, at, prev = connect(database_url, "test"), datetime(2026, 3, 1, tzinfo=UTC), ""
    config = revisions._config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        facts = [("stored", {"patient_id": "P" * 70}), ("incident", {"reason": "x"}), ("viewed", {"who": "ana"}),
                 ("delivery-changed", {"state": "parked", "patient_id": "A\0B"})]  # fmt: skip
        for seq, (event, said) in enumerate(facts, 1):
            made = chain.seal("ris", seq, prev, event, at, said)
            row = {"s": seq, "h": made.hash, "p": made.payload, "e": event, "a": made.facts["at"], "w": said.get("who")}
            connection.execute(
                text("INSERT INTO audit_entry (journal, seq, hash, payload, event, at, who)"
                     " VALUES ('ris', :s, :h, :p, :e, :a, :w)"), row,
            )  # fmt: skip
            prev = made.hash
        connection.execute(text("INSERT INTO chain_head VALUES ('ris', 4, :h)"), {"h": prev})
    upgrade(engine)
    with Session(engine) as session:
        assert audit.verify(session) == []
        found = session.execute(text("SELECT patient_id, outcome FROM audit_entry ORDER BY seq")).all()
    assert [tuple(row) for row in found] == [("P" * 64, 0), (None, 8), (None, 0), ("AB", 8)]
    engine.dispose()
