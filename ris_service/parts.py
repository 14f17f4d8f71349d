"""What pages work with, and where they find it: `current_app.extensions["zambezi"]`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from flask import current_app

from zambezi.config.settings import Zambezi
from zambezi.database.engine import Sessions
from zambezi.environment import Environment
from zambezi.keys import Keys

#: The RIS's own audit chain.
CHAIN = "ris"


@dataclass(frozen=True)
class Parts:
    """The installation, its settings, its database, its keys and its clock.

    `reading` only looks, and waits for no writer: for what a page shows beside its own work, such as its navigation.
    """

    environment: Environment
    settings: Zambezi
    sessions: Sessions
    reading: Sessions
    keys: Keys
    clock: Callable[[], datetime]


def parts() -> Parts:
    """The parts of the application that answers this request."""
    found: Parts = current_app.extensions["zambezi"]
    return found
