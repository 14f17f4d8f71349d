"""Whether each process does its work yet: asked at its own door, not of the process table."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import datetime
from functools import partial

import requests
from sqlalchemy.exc import SQLAlchemyError

from zambezi import clock
from zambezi.database.engine import Sessions
from zambezi.database.tables import ProcessState
from zambezi.environment import Environment
from zambezi.keys import Keys
from zambezi.orthanc_client import OrthancClient, OrthancError

#: "" when ready, else what is still missing, in words.
Probe = Callable[[], str]


def probes(environment: Environment, keys: Keys, sessions: Sessions, since: datetime) -> dict[str, Probe]:
    """One probe a process; a heartbeat counts if it is younger than `since`."""
    ports = environment.ports
    return {
        "orthanc": lambda: _orthanc(environment, keys) or _port("DICOM", ports.dicom),
        **{
            f"orthanc-{node.name}": partial(_node, environment.at(node), keys)
            for node in environment.nodes[1:]
            if node.host == "127.0.0.1"
        },
        "ris": lambda: _http("its pages", f"{environment.ris_url}/health/live"),
        "gateway": lambda: _port("HL7", ports.mllp) or _port("MPPS", ports.mpps),
        "migration": lambda: _heartbeat(sessions, "migration", since),
        "operations": lambda: _heartbeat(sessions, "operations", since),
        "front": lambda: _http("the front door", f"{environment.front_url}/health/live"),
    }


def _node(environment: Environment, keys: Keys) -> str:
    return _orthanc(environment, keys) or _port("DICOM", environment.ports.dicom)


def _orthanc(environment: Environment, keys: Keys) -> str:
    own = next((node for node in environment.nodes if node.name == environment.node), None)
    try:
        OrthancClient(environment, keys, "operations", timeout_s=3, only=own).get("/zambezi/door")
    except OrthancError as error:
        return f"HTTP {environment.ports.orthanc_http}: {error}"
    return ""


def _http(what: str, url: str) -> str:
    with requests.Session() as session:
        session.trust_env = False  # loopback never goes through a proxy
        try:
            answer = session.get(url, timeout=3, allow_redirects=False)
        except requests.RequestException:
            return f"{what} don't answer yet at {url}"
    return "" if answer.status_code < 500 or answer.status_code == 503 else f"{url} answers {answer.status_code}"


def _port(what: str, port: int) -> str:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=3).close()
    except OSError:
        return f"{what} port {port} isn't open yet"
    return ""


def _heartbeat(sessions: Sessions, process: str, since: datetime) -> str:
    try:
        with sessions() as session:
            row = session.get(ProcessState, process)
            return "" if row and row.at >= clock.text(since) else "no sign of life yet"
    except SQLAlchemyError as error:
        return f"the database doesn't answer: {type(error).__name__}"
