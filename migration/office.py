"""Where service and commands get their desks: environment, configuration, keys and database put together."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from migration import predecessors, sources
from migration.desk import Desk
from migration.source import Source, Trouble
from zambezi import clock, config, keys
from zambezi.bandwidth import Line
from zambezi.config import Configuration
from zambezi.config.safety import Modality
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.disk import Gauge, Room
from zambezi.environment import Environment
from zambezi.keys import Keys
from zambezi.orthanc_client import OrthancClient, OrthancRefused
from zambezi.retries import ErrorClass

PROCESS = "migration"


@dataclass(frozen=True)
class Office:
    """One installation, opened for migrating."""

    environment: Environment
    configuration: Configuration
    keys: Keys
    sessions: Sessions
    lines: dict[str, Line] = field(default_factory=dict)  # by source: all of its workers share one
    room: Callable[[], Room] = Room
    reading: Sessions | None = None  # looks for long, and holds up no writer

    def client(self) -> OrthancClient:
        """A connection of one's own: a client is not for sharing between threads."""
        return OrthancClient(self.environment, self.keys, PROCESS, timeout_s=60)

    def source(self, name: str) -> Source:
        """What asks this source; KeyError if the configuration doesn't know it."""
        return sources.opened(name, self.client(), self.configuration, self.sessions, self.environment)

    def desk(self, source_name: str, stop: threading.Event | None = None) -> Desk:
        """A desk for one worker on one source; KeyError if the configuration doesn't know the source."""
        source = self.configuration.zambezi.migration.sources[source_name]
        client = self.client()
        return Desk(
            client=client, sessions=self.sessions, settings=source,
            peer=self.configuration.modalities.get(source.peer, Modality(source.peer, "", "", 0)),
            source=sources.opened(source_name, client, self.configuration, self.sessions, self.environment),
            target_aet=str(self.configuration.orthanc.get("DicomAet", "ZAMBEZI")),
            site=self.configuration.zambezi.site, now=clock.now,
            announced=lambda: _announced(client.get("/zambezi/status")),
            owner=predecessors.owner(socket.gethostname(), os.getpid(), threading.get_ident()),
            hold_dir=self.environment.hold_dir, stop=stop or threading.Event(),
            line=self.lines.setdefault(source_name, Line()), room=self.room, reading=self.reading,
        )  # fmt: skip


def open_office() -> Office:
    """Read everything; ConfigurationFaults, EnvironmentFault or FileNotFoundError (never started) say what is wrong."""
    environment = Environment.read()
    configuration = config.load(environment.config_dir, os.environ)
    engine = connect(environment.database_url, PROCESS)
    gauge = Gauge.of(environment, configuration.zambezi.disk)
    known = keys.load(environment.keys_file)
    reading = sessions(connect(environment.database_url, PROCESS, reading=True), PROCESS)
    return Office(environment, configuration, known, sessions(engine, PROCESS), room=gauge.look, reading=reading)


def _announced(status: dict[str, Any]) -> int:
    return int(status["announced_generation"])


def system(client: OrthancClient) -> dict[str, Any]:
    """What Orthanc says of itself; Trouble where it refuses."""
    try:
        return client.system()
    except OrthancRefused as error:
        raise Trouble(ErrorClass.CONFIGURATION, str(error)) from error
