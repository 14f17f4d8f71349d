"""Bringing the database to this version's schema: Alembic revisions, run at every start of `zambezi up`."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

REVISIONS = Path(__file__).parent / "revisions"


def newest() -> str:
    """The name of the last revision that this version has."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def upgrade(engine: Engine) -> None:
    """Run every revision that the database has not seen; nothing happens where it has seen all."""
    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(REVISIONS))
    return config
