from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

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
