"""The thread of the process `operations` that carries out what custody has to do, one step after the other.

A step is a class in `STEPS`, made from a `Desk`; its `round` does one piece of work and says whether there may be
more at once. Each piece is claimed with a lease (zambezi.leases), so a second process may run beside this one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from zambezi.config.settings import Zambezi
from zambezi.database.engine import Sessions
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancClient, OrthancError
from zambezi.retries import Policy

log = logging.getLogger("zambezi.custody")

#: Who writes custody's audit entries (a chain of its own), and the service's user in Orthanc.
WRITER = "custody"
#: Without work, a round so often; after trouble with a neighbour, not before so long.
IDLE_S = 1.0
TROUBLE_S = 5.0

#: How custody waits after a failed attempt. One worker has one piece of work at hand: nothing comes in a herd.
RETRY = Policy(first=timedelta(seconds=5), cap=timedelta(minutes=10), attempts=30, jitter=0)

#: What custody does, in this order, as dotted names.
STEPS: tuple[str, ...] = (
    "operations.custody.integrity:Upkeep",
    "operations.custody.comparing:Comparing",
    "operations.custody.correcting:Correcting",
    "operations.custody.deleting:Deleting",
    "operations.custody.releasing:Releasing",
)


@dataclass(frozen=True)
class Desk:
    """What a step works with."""

    environment: Environment
    settings: Zambezi
    sessions: Sessions
    orthanc: OrthancClient
    now: Callable[[], datetime]
    owner: str


class Step(Protocol):
    """One sort of work."""

    def __init__(self, desk: Desk) -> None: ...

    def round(self) -> bool:
        """Do one piece of work; True if there may be more at once. May raise OrthancError, SQLAlchemyError, OSError."""


def steps(desk: Desk) -> dict[str, Step]:
    """Every step, by its dotted name."""
    made: dict[str, Step] = {}
    for dotted in STEPS:
        module, _, name = dotted.partition(":")
        made[dotted] = getattr(import_module(module), name)(desk)
    return made


class Custody(threading.Thread):
    """Runs the steps until it is stopped; `errors` says of each what is in its way.

    `may_move`: entered for each step; False while a backup copies files, which must not move then.
    """

    def __init__(
        self, made: Mapping[str, Step], may_move: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(True)
    ) -> None:
        super().__init__(name="custody", daemon=True)
        self._steps = made
        self._may_move = may_move
        self._stop_asked = threading.Event()
        self.errors: dict[str, str] = {}

    def stop(self) -> None:
        """End after the piece of work at hand."""
        self._stop_asked.set()
        if self.is_alive():
            self.join(30)

    def run(self) -> None:
        while not self._stop_asked.is_set():
            more = [self._round(dotted, step) for dotted, step in self._steps.items()]
            if not any(more):
                self._stop_asked.wait(TROUBLE_S if self.errors else IDLE_S)

    def _round(self, dotted: str, step: Step) -> bool:
        if self._stop_asked.is_set():
            return False
        try:
            with self._may_move() as may:
                more = step.round() if may else False
        except (OrthancError, SQLAlchemyError, OSError) as error:
            said = str(error).splitlines()[0] if isinstance(error, OrthancError) else type(error).__name__
            self._in_the_way(dotted, said)
            return False
        except Exception as error:  # edge of the thread: one step's fault must not end the others; status says it
            if dotted not in self.errors:
                log.exception("%s failed", dotted)
            self._in_the_way(dotted, type(error).__name__)
            return False
        self.errors.pop(dotted, None)
        return more

    def _in_the_way(self, dotted: str, why: str) -> None:
        if self.errors.get(dotted) != why:
            log.warning("%s: %s; trying again", dotted, why)
        self.errors[dotted] = why
