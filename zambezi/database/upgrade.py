"""Bringing the database to this version's schema: Alembic revisions, run at every start of `zambezi up`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

if TYPE_CHECKING:  # it takes a fifth of a second to load: who has nothing to bring over goes without
    from alembic.config import Config

REVISIONS = Path(__file__).parent / "revisions"


def newest() -> str:
    """The name of the last revision that this version has."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def upgrade(engine: Engine) -> None:
    """Run every revision that the database has not seen; nothing happens where it has seen all."""
    from alembic import command

    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(REVISIONS))
    return config
