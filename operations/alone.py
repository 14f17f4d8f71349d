"""`zambezi prepare` and `zambezi run PROCESS`: one process by itself, for who supervises processes by other means.

Under `zambezi up` supervisord starts what this starts. Containers and systemd units have a supervisor already: they
run `zambezi prepare` once before anything else, and then `zambezi run` for each process, in the same ZAMBEZI_HOME.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Collection

import click
from sqlalchemy.exc import OperationalError

from operations import preparing, readiness, running, supervision
from operations.supervision import Process
from zambezi import clock, keys
from zambezi.account import become_account
from zambezi.database.engine import connect
from zambezi.environment import Environment


def is_prepared(environment: Environment) -> bool:
    """Whether this installation's processes are supervised by others than supervisord."""
    return supervision.lone(environment).exists()


def seen(environment: Environment, but: Collection[str] = ()) -> list[Process]:
    """Each process (but some), asked at its own door: there is no supervisor of ours that could be asked."""
    probes = readiness.probes(environment, keys.load(environment.keys_file), clock.now() - readiness.ALIVE)
    return [
        Process(name, "STOPPED" if probe() else "RUNNING", 0, 0, False, environment.logs_dir / f"{name}.log")
        for name, probe in probes.items()
        if name not in but
    ]


@click.command()
@click.option("--wait-for-database", is_flag=True, help="Until a PostgreSQL that starts later answers.")
def prepare(wait_for_database: bool) -> None:
    """Check everything and write what the processes start from; for containers and systemd units."""
    environment = Environment.read()
    become_account(environment.home)
    os.umask(0o077)
    if wait_for_database:
        _wait_for_database(environment.database_url)
    configuration, _ = preparing.prepare(environment, os.environ)
    supervision.lone(environment).touch()
    running.say_where(environment, configuration)
    running.offer_first_sign_in(environment)


def _wait_for_database(url: str) -> None:
    said = False
    while True:
        engine = connect(url, "operations")
        try:
            engine.connect().close()
            return
        except OperationalError as error:
            if not said:
                click.echo(f"waiting for the database: {str(error).splitlines()[0]}", err=True)
            said = True
            time.sleep(3)
        finally:
            engine.dispose()


@click.command("run")
@click.argument("process", type=click.Choice(list(supervision.PROCESSES)))
def run_alone(process: str) -> None:
    """Be one PROCESS of this installation (`zambezi prepare` comes first); it ends when the process ends."""
    environment = Environment.read()
    become_account(environment.home)
    os.umask(0o077)
    os.chdir(environment.run_dir)
    command = shlex.split(supervision.command(environment, process))
    variables = {**os.environ, **environment.variables(), **supervision.variables(process)}
    variables["ZAMBEZI_CONFIG"] = str(environment.orthanc_config_dir)  # the copy that was checked
    if process == "front":
        _let_stdout_be_opened()
    os.execve(command[0], command, variables)  # noqa: S606  the process takes our place


def _let_stdout_be_opened() -> None:
    """Put a pipe before what nginx couldn't open as /dev/stdout: a socket (the journal's), or what is root's own."""
    try:
        os.close(os.open("/dev/stdout", os.O_WRONLY | os.O_APPEND))
    except OSError:
        forward = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
        assert forward.stdin is not None
        os.dup2(forward.stdin.fileno(), 1)


@click.command()
@click.argument("process", type=click.Choice(list(supervision.PROCESSES)))
def ready(process: str) -> None:
    """Say whether one PROCESS does its work; exit code 1 and the reason where it doesn't."""
    why = readiness.look(Environment.read(), process)
    if why:
        click.echo(why, err=True)
        sys.exit(1)
    click.echo("ready")
