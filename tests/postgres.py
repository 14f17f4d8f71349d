"""A real PostgreSQL of the tests' own: a throw-away cluster in a folder, by Debian's programs, on a free port."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.gateway_alone import free_port

#: PostgreSQL's programs refuse to run as root; the package brings this account.
ACCOUNT = "postgres"


def programs() -> Path | None:
    """Where initdb and pg_ctl of the newest PostgreSQL of this machine are; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@dataclass(frozen=True)
class Cluster:
    """A running cluster; each test takes a database of its own."""

    port: int

    def url(self, database: str) -> str:
        return f"postgresql://zambezi@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def a_database(self) -> Iterator[str]:
        """The URL of an empty database, which is gone afterwards."""
        name = f"t{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
            yield self.url(name)
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def a_cluster(found: Path) -> Iterator[Cluster]:
    """Start it, and stop it with all that is in it."""
    folder = Path(tempfile.mkdtemp(prefix="zambezi-postgres-"))
    cluster = Cluster(free_port())
    how: dict[str, object] = {
        "stdout": subprocess.DEVNULL,
        "cwd": folder,
        "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    }
    if os.getuid() == 0:
        account = pwd.getpwnam(ACCOUNT)
        os.chown(folder, account.pw_uid, account.pw_gid)
        how |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    data, log = folder / "data", folder / "log"
    control = [str(found / "pg_ctl"), "-D", str(data), "-w", "-l", str(log)]
    # fsync off: no power is cut here, and two cores are shared by many tests.
    options = f"-p {cluster.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    initdb = [str(found / "initdb"), "-D", str(data), "-U", "zambezi", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
    try:
        subprocess.run(initdb, check=True, **how)  # type: ignore[call-overload]
        subprocess.run([*control, "-o", options, "start"], check=True, **how)  # type: ignore[call-overload]
        yield cluster
    finally:
        if (data / "postmaster.pid").exists():
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, **how)  # type: ignore[call-overload]
        shutil.rmtree(folder, ignore_errors=True)
