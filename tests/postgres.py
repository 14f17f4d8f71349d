"""A real PostgreSQL of the tests' own: a throw-away cluster in a folder, by Debian's programs, on a free port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from demo.neighbours import free_port
from zambezi.environment import REPOSITORY

#: PostgreSQL's programs refuse to run as root; the package brings this account.
ACCOUNT = "postgres"


def programs() -> Path | None:
    """Where initdb and pg_ctl of the newest PostgreSQL of this machine are; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def installed() -> Path:
    """The same; where there is none the test is skipped, and says what brings one (`make test` installs it)."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed; tools/install --tests brings it")
    return found


@dataclass(frozen=True)
class Cluster:
    """A cluster in a folder; each test takes a database of its own. It can be killed, and started again."""

    port: int
    folder: Path
    programs: Path
    is_durable: bool = False

    def url(self, database: str) -> str:
        return f"postgresql://{ACCOUNT}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def a_database(self) -> Iterator[str]:
        """The URL of an empty database, which is gone afterwards."""
        name = f"t{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        yield self.url(name)
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:  # it may have been killed meanwhile
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def run(self, *statements: str) -> None:
        """Run statements as the superuser."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[arg-type]  # the test's own words, not a literal

    def make_databases(self, password: str) -> None:
        """Zambezi's roles and databases, by what an administrator makes them with (tools/postgresql.sql)."""
        psql = [str(self.programs / "psql"), self.url("postgres"), "--quiet"]
        command = [*psql, "--file", str(REPOSITORY / "tools" / "postgresql.sql")]
        subprocess.run(command, check=True, env={"PATH": "/usr/bin:/bin", "PGPASSWORD": password})

    def start(self, deadline_s: float = 60) -> None:
        """Start it, as often as it takes: processes of a killed one may still be ending."""
        # No power is cut where it isn't durable, and two cores are shared by many tests.
        fsync = "on" if self.is_durable else "off"
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync={fsync}"
        end = time.monotonic() + deadline_s
        while True:
            try:
                self._control("-w", "-l", str(self.folder / "log"), "-o", options, "start")
            except subprocess.CalledProcessError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
            else:
                return

    def stop(self) -> None:
        """As somebody would who upgrades it."""
        self._control("-w", "-m", "fast", "stop")

    def kill(self) -> None:
        """kill -9 of the postmaster; the others see that and end by themselves."""
        os.kill(self._pid, signal.SIGKILL)

    @property
    def is_up(self) -> bool:
        """Whether it takes connections."""
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def make(self) -> None:
        """An empty cluster; everybody on this machine may be its superuser, all others have a password."""
        account = _account()
        if account:
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        words = ("-U", ACCOUNT, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        self._program("initdb", "-D", str(self._data), *words, *([] if self.is_durable else ["--no-sync"]))
        who = f"host all {ACCOUNT} 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (self._data / "pg_hba.conf").write_text(who)

    def end(self) -> None:
        """Stop it at once, with all that is in it."""
        if (self._data / "postmaster.pid").exists() and Path(f"/proc/{self._pid}").exists():
            self._control("-w", "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _pid(self) -> int:
        return int((self._data / "postmaster.pid").read_text().splitlines()[0])

    def _control(self, *words: str) -> None:
        self._program("pg_ctl", "-D", str(self._data), *words)

    def _program(self, name: str, *words: str) -> None:
        how: dict[str, object] = {"env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, "cwd": self.folder}
        account = _account()
        if account:
            how |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        command = [str(self.programs / name), *words]
        subprocess.run(  # type: ignore[call-overload]  # the account differs by who runs the tests
            command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **how
        )


def keep(url: str) -> None:
    """Remember what is in a database's tables, for `bring_back`."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_KEEP)


def bring_back(url: str) -> None:
    """Have in the tables what was kept, and nobody else in the database: a twentieth of what a new one costs."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_BRING_BACK)


_KEEP = """
CREATE SCHEMA kept;
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('CREATE TABLE kept.%I AS TABLE public.%I', name, name);
    END LOOP;
END $$;
CREATE TABLE kept.numbers AS SELECT sequencename AS name, last_value FROM pg_sequences WHERE schemaname = 'public';
"""
#: Foreign keys are not looked at meanwhile (replica): whole tables go, and whole tables come.
_BRING_BACK = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
SET session_replication_role = replica;
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        IF to_regclass(format('kept.%I', name)) IS NULL THEN
            EXECUTE format('DROP TABLE public.%I CASCADE', name);  -- a test made it
            CONTINUE;
        END IF;
        EXECUTE format('DELETE FROM public.%I', name);
        EXECUTE format('INSERT INTO public.%I SELECT * FROM kept.%I', name, name);
    END LOOP;
END $$;
SELECT setval(format('public.%I', name)::regclass, coalesce(last_value, 1), last_value IS NOT NULL) FROM kept.numbers;
"""


def _account() -> pwd.struct_passwd | None:
    return pwd.getpwnam(ACCOUNT) if os.getuid() == 0 else None


@contextmanager
def a_cluster(found: Path, is_durable: bool = False) -> Iterator[Cluster]:
    """Start one, and stop it with all that is in it. `is_durable`: it survives the mains (fsync)."""
    cluster = Cluster(free_port(), Path(tempfile.mkdtemp(prefix="zambezi-postgres-")), found, is_durable)
    try:
        cluster.make()
        cluster.start()
        yield cluster
    finally:
        cluster.end()
