"""The central database: `engine` (how to reach it), `tables` (what is in it), `revisions` (Alembic), `upgrade`."""
