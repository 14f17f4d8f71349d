"""Whether each process does its work yet: asked at its own door, not of the process table.

A container's health check asks this every half minute, six of them on a machine of two cores: nothing here loads more
than it needs (`zambezi ready` costs a second of a core, these probes a tenth).
"""

from __future__ import annotations

import base64
import http.client
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from zambezi import clock, keys
from zambezi.environment import Environment, EnvironmentFault, Node, take_secrets
from zambezi.keys import Keys

#: "" when ready, else what is still missing, in words.
Probe = Callable[[], str]

#: A sign of life that is older doesn't count.
ALIVE = timedelta(seconds=30)

_SECONDS = 3
_LISTENS = "0A"  # a socket's state in /proc/net/tcp
_LAST_SIGN = "SELECT at FROM process_state WHERE process = "


def probes(environment: Environment, keys: Keys, since: datetime) -> dict[str, Probe]:
    """One probe a process; a heartbeat counts if it is younger than `since`."""
    ports, url = environment.ports, environment.database_url
    return {
        "orthanc": lambda: _orthanc(ports.orthanc_http, keys) or _port("DICOM", ports.dicom),
        **{
            f"orthanc-{node.name}": partial(_node, node, keys)
            for node in environment.nodes[1:]
            if node.host == "127.0.0.1"
        },
        "ris": lambda: _http("its pages", ports.ris),
        "gateway": lambda: _port("HL7", ports.mllp) or _port("MPPS", ports.mpps),
        "migration": lambda: _heartbeat(url, "migration", since),
        "operations": lambda: _heartbeat(url, "operations", since),
        "front": lambda: _http("the front door", ports.http),
    }


def _node(node: Node, keys: Keys) -> str:
    return _orthanc(node.orthanc_http, keys) or _port("DICOM", node.dicom)


def _orthanc(port: int, keys: Keys) -> str:
    basic = base64.b64encode(":".join(keys.basic("operations")).encode()).decode()
    status = _status(port, "/zambezi/door", {"Authorization": f"Basic {basic}"})
    if 200 <= status < 300:
        return ""
    return f"HTTP {port}: " + (f"the plugin's door answers {status}" if status else "doesn't answer yet")


def _http(what: str, port: int) -> str:
    status = _status(port, "/health/live", {})
    if not status:
        return f"{what} don't answer yet at http://127.0.0.1:{port}/health/live"
    return "" if status < 500 or status == 503 else f"http://127.0.0.1:{port}/health/live answers {status}"


def _status(port: int, path: str, headers: dict[str, str]) -> int:
    """The status that a GET on loopback is answered with; 0 for no answer."""
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)) as connection:
            connection.request("GET", path, headers=headers)
            return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0


def _port(what: str, port: int) -> str:
    """Looked up, not knocked at: a connection that says nothing would stand in the audit trail as a stranger's."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else []:
            fields = line.split()
            if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                return ""
    return f"{what} port {port} isn't open yet"


def _heartbeat(url: str, process: str, since: datetime) -> str:
    last = _last_on_sqlite(url, process) if url.startswith("sqlite") else _last_on_postgresql(url, process)
    if last is None:
        return "the database doesn't answer"
    return "" if last >= clock.text(since) else "no sign of life yet"


def _last_on_sqlite(url: str, process: str) -> str | None:
    file = url.removeprefix("sqlite:///")
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=_SECONDS)) as database:
            row = database.execute(_LAST_SIGN + "?", (process,)).fetchone()
    except sqlite3.Error:
        return None
    return str(row[0]) if row else ""


def _last_on_postgresql(url: str, process: str) -> str | None:
    import psycopg  # where the database is another's, and there alone

    try:
        with psycopg.connect(url, connect_timeout=_SECONDS) as database:
            row = database.execute(_LAST_SIGN + "%s", (process,)).fetchone()
    except psycopg.Error:
        return None
    return str(row[0]) if row else ""


def look(environment: Environment, process: str) -> str:
    """One process now: "" when it does its work, else what is missing."""
    try:
        kept = keys.load(environment.keys_file)
    except FileNotFoundError:
        return f"{environment.keys_file} is not there: nothing was prepared yet"
    return probes(environment, kept, clock.now() - ALIVE)[process]()


def main() -> None:
    """`python -m operations.readiness PROCESS`: exit code 0, or 1 and the reason (docker/healthy)."""
    try:
        take_secrets(os.environ)
        why = look(Environment.read(), sys.argv[1])
    except EnvironmentFault as fault:
        why = str(fault)
    if why:
        sys.exit(why)
    sys.stdout.write("ready\n")


if __name__ == "__main__":
    main()
