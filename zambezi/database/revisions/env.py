"""Alembic's entry: it runs inside the connection that zambezi.database.upgrade hands over."""

from alembic import context

from zambezi.database.tables import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
context.run_migrations()
