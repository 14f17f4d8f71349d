"""What the health checks see: each process's own door, cheaply and without a trace in anybody's books."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from demo.neighbours import free_port
from operations import readiness
from zambezi import keys
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import Base
from zambezi.environment import PORTS, REPOSITORY, Environment
from zambezi.processes import heartbeat

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


def environment(home: Path, url: str = "", **ports: int) -> Environment:
    variables = {variable: str(ports.get(name) or free_port()) for name, (variable, _) in PORTS.items()}
    return Environment.read({"ZAMBEZI_HOME": str(home), "ZAMBEZI_DATABASE_URL": url, **variables})


class Door(BaseHTTPRequestHandler):
    """Answers as it is told, and keeps what it was asked."""

    status = 200
    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        type(self).asked.append((self.path, self.headers.get("Authorization", "")))
        self.send_response(type(self).status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """No word."""


@pytest.fixture
def door() -> Iterator[tuple[type[Door], int]]:
    class Mine(Door):
        asked = []  # noqa: RUF012  a list of this test's own

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Mine, server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_heartbeat_counts_while_it_is_young(tmp_path: Path, database_url: str):
    engine = connect(database_url, "operations")
    Base.metadata.create_all(engine)
    mine = environment(tmp_path, database_url)
    with sessions(engine, "operations").begin() as session:
        heartbeat(session, "migration", NOW, "0" * 64)
    for since, migration in ((NOW, ""), (NOW + timedelta(seconds=1), "no sign of life yet")):
        probes = readiness.probes(mine, keys.Keys("", {}), since)
        assert (probes["migration"](), probes["operations"]()) == (migration, "no sign of life yet")
    engine.dispose()


@pytest.mark.parametrize("url", ["", "postgresql://zambezi@127.0.0.1:1/zambezi"])
def test_a_database_that_is_away_is_said(tmp_path: Path, url: str):
    probes = readiness.probes(environment(tmp_path, url), keys.Keys("", {}), NOW)
    assert probes["migration"]() == "the database doesn't answer"


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Somebody who would see a connection: `accept` raises BlockingIOError where there was none."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


def test_orthanc_is_ready_when_the_plugin_answers_us_and_dicom_is_open(
    tmp_path: Path, door: tuple[type[Door], int], listening: socket.socket
):
    orthanc, port = door
    known = keys.Keys("", {"operations": "secret"})
    mine = environment(tmp_path, orthanc_http=port, dicom=listening.getsockname()[1])
    assert readiness.probes(mine, known, NOW)["orthanc"]() == ""
    assert orthanc.asked == [("/zambezi/door", "Basic b3BlcmF0aW9uczpzZWNyZXQ=")]
    closed = environment(tmp_path, orthanc_http=port)
    assert readiness.probes(closed, known, NOW)["orthanc"]() == f"DICOM port {closed.ports.dicom} isn't open yet"
    orthanc.status = 404  # Orthanc without our plugin
    assert readiness.probes(mine, known, NOW)["orthanc"]() == f"HTTP {port}: the plugin's door answers 404"
    away = environment(tmp_path)
    assert readiness.probes(away, known, NOW)["orthanc"]() == f"HTTP {away.ports.orthanc_http}: doesn't answer yet"


@pytest.mark.parametrize(("status", "ready"), [(200, True), (303, True), (503, True), (500, False), (502, False)])
def test_pages_are_ready_when_they_answer_or_say_that_a_neighbour_is_away(
    tmp_path: Path, door: tuple[type[Door], int], status: int, ready: bool
):
    pages, port = door
    pages.status = status
    for process, name in (("ris", "ris"), ("front", "http")):
        said = readiness.probes(environment(tmp_path, **{name: port}), keys.Keys("", {}), NOW)[process]()
        assert (said == "") is ready, said


def test_a_look_at_a_port_is_no_connection_to_it(tmp_path: Path, listening: socket.socket):
    mine = environment(tmp_path, mllp=listening.getsockname()[1])
    assert readiness.probes(mine, keys.Keys("", {}), NOW)["gateway"]() == f"MPPS port {mine.ports.mpps} isn't open yet"
    with pytest.raises(BlockingIOError):
        listening.accept()
    assert readiness.probes(environment(tmp_path), keys.Keys("", {}), NOW)["gateway"]().startswith("HL7 port")


def test_a_look_loads_nothing_heavy():
    heavy = {"sqlalchemy", "pydantic", "requests", "flask", "click"}
    look = f"import sys, operations.readiness; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", look], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
