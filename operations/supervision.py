"""The processes of an installation under supervisord: which there are, and talking with it.

supervisord starts again whatever ends, keeps each process's log and answers on a socket that only the
account may open (ZAMBEZI_HOME/run/supervisor.sock).
"""

from __future__ import annotations

import sys
import sysconfig
import xmlrpc.client
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zambezi import clock
from zambezi.environment import REPOSITORY, Environment

#: nginx writes what goes wrong before its configuration is read to standard error, too (-e).
NGINX = "/usr/sbin/nginx -e stderr -p {run} -c {run}/nginx.conf -g 'daemon off;'"

#: Process -> module; `front` is nginx. In the order of starting.
PROCESSES: dict[str, str] = {
    "orthanc": "operations.archive",
    "ris": "ris_service.service",
    "gateway": "gateway.service",
    "migration": "migration.service",
    "operations": "operations.service",
    "front": "",
}

#: Orthanc finishes what it has accepted before it stops.
_STOP_SECONDS = {"orthanc": 60}


def stop_seconds(name: str) -> int:
    """How long a process may take to stop before it is killed."""
    return _STOP_SECONDS.get(name.partition("-")[0], 15)


@dataclass(frozen=True)
class Process:
    """What supervisord says of one process: its state (RUNNING, BACKOFF ...), since when (seconds UTC), its id."""

    name: str
    state: str
    since: int
    pid: int
    starts_failed: bool
    log: Path


def present() -> list[str]:
    """The processes whose code is in this checkout."""
    return [name for name, module in PROCESSES.items() if not module or find_spec(module)]


def configuration(environment: Environment, processes: list[str]) -> str:
    """supervisord's configuration for the processes."""
    run, logs = environment.run_dir, environment.logs_dir
    lines = [
        "; Made by `zambezi up`; changes here are lost.",
        "[unix_http_server]",
        f"file={socket(environment)}",
        "chmod=0700",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
        "[supervisord]",
        "nodaemon=true",
        "silent=true",
        "umask=077",
        f"pidfile={run}/supervisord.pid",
        f"logfile={logs}/supervisord.log",
        "logfile_maxbytes=5MB",
        "logfile_backups=3",
        f"childlogdir={logs}",
        "identifier=zambezi",
    ]
    for order, name in enumerate([*processes, *nodes(environment)]):
        lines += [
            f"[program:{name}]",
            f"command={command(environment, name)}",
            "environment=" + ",".join(f'{key}="{value}"' for key, value in variables(name).items()),
            f"directory={run}",
            f"priority={100 + order}",
            "autorestart=true",
            "startsecs=1",
            # Supervisord waits a second longer after each failed start; giving up would need a person at night.
            "startretries=1000",
            f"stopwaitsecs={stop_seconds(name)}",
            "stopasgroup=false",
            "killasgroup=true",
            "redirect_stderr=true",
            f"stdout_logfile={logs}/{name}.log",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=5",
        ]
    return "\n".join(lines) + "\n"


def nodes(environment: Environment) -> list[str]:
    """The other Orthancs of an installation that has several on this machine, as processes: `orthanc-NAME`."""
    return [f"orthanc-{node.name}" for node in environment.nodes[1:] if node.host == "127.0.0.1"]


def command(environment: Environment, name: str) -> str:
    """The command line of a process, quoted as a shell takes it."""
    module = PROCESSES[name.partition("-")[0]]
    # -P: the working folder is ZAMBEZI_HOME/run and must not be imported from.
    return f"{sys.executable} -P -m zambezi.starting {module}" if module else NGINX.format(run=environment.run_dir)


def variables(name: str) -> dict[str, str]:
    """What a process needs in its environment beside the installation's own variables."""
    process, _, node = name.partition("-")
    if process != "orthanc":
        return {"PYTHONPATH": str(REPOSITORY), "PYTHONNOUSERSITE": "1"}
    # The interpreter inside Orthanc knows nothing of our virtual environment; and Debian's DCMTK leaves
    # Nagle's algorithm on, at a third of the speed, unless this variable says otherwise.
    packages = sysconfig.get_paths()["purelib"]
    found = {"PYTHONPATH": f"{REPOSITORY}:{packages}", "PYTHONNOUSERSITE": "1", "TCP_NODELAY": "1"}
    return {**found, "ZAMBEZI_NODE": node} if node else found


def socket(environment: Environment) -> Path:
    return environment.run_dir / "supervisor.sock"


def lone(environment: Environment) -> Path:
    """The mark of an installation whose processes are supervised by others (operations.alone)."""
    return environment.run_dir / "alone"


def supervisor(environment: Environment) -> Any:
    """supervisord's XML-RPC interface (`.supervisor.getAllProcessInfo()` ...); OSError when it isn't running."""
    from supervisor.xmlrpc import SupervisorTransport  # many ask which processes there are, few talk with it

    transport = SupervisorTransport(None, None, f"unix://{socket(environment)}")
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor


def processes(environment: Environment) -> list[Process] | None:
    """Every process in the order of starting; None when nothing runs here."""
    try:
        found = supervisor(environment).getAllProcessInfo()
    except (OSError, xmlrpc.client.Error):
        return None
    order = list(PROCESSES)
    return sorted(
        (
            Process(
                name=p["name"],
                state=p["statename"],
                since=p["start"] if p["statename"] == "RUNNING" else p["stop"] or p["start"],
                pid=p["pid"],
                starts_failed=p["statename"] in ("BACKOFF", "FATAL", "EXITED"),
                log=environment.logs_dir / f"{p['name']}.log",
            )
            for p in found
        ),
        key=lambda p: order.index(p.name) if p.name in order else len(order),
    )


def restart(environment: Environment, names: Iterable[str]) -> dict[str, datetime]:
    """Stop and start processes that run; which they were, each with the moment from which on it is the new one."""
    running = [p.name for p in processes(environment) or [] if p.name in set(names)]
    asked = supervisor(environment)
    started = {}
    for name in running:
        asked.stopProcess(name)
        started[name] = clock.now()
        asked.startProcess(name, False)
    return started
