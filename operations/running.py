"""`zambezi up` and `zambezi down`: all processes of an installation, under supervisord."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xmlrpc.client
from contextlib import suppress
from datetime import datetime

import click
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from operations import coming_up, encryption, leftovers, preparing, readiness, supervision
from zambezi import clock, users
from zambezi.account import become_account
from zambezi.config import Configuration
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import User
from zambezi.environment import Environment, EnvironmentFault

#: The first start of a large archive looks through its files; nothing else takes longer.
_READY_SECONDS = 300
#: The login that is made where there is none.
FIRST_LOGIN = "administrator"


@click.command()
@click.option("--detach", is_flag=True, help="Go on in the background, once every process is ready.")
def up(detach: bool) -> None:
    """Start every process of this installation (ZAMBEZI_HOME); works on an empty one."""
    environment = Environment.read()
    become_account(environment.home)
    os.umask(0o077)
    if supervision.processes(environment) is not None:
        click.echo(f"Zambezi runs in {environment.home} already: `zambezi status` shows it, `zambezi down` ends it.")
        return
    _end_leftovers(environment)
    faults = preparing.port_faults(environment, os.environ)
    if faults:
        raise EnvironmentFault("\n".join(faults))
    configuration, keys = preparing.prepare(environment, os.environ)
    supervision.lone(environment).unlink(missing_ok=True)
    say_where(environment, configuration)
    offer_first_sign_in(environment)
    command, variables = _supervisord(environment)
    if not detach:
        click.echo("Ctrl-C stops everything.")
        sys.stdout.flush()
        os.execve(command[0], command, variables)  # noqa: S606 - supervisord takes our place
    started = clock.now()
    with (environment.logs_dir / "supervisord.out").open("ab") as out:
        subprocess.Popen(
            command, env=variables, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    here = {*supervision.present(), *supervision.nodes(environment)} & {*readiness.probes(environment, keys, started)}
    if not coming_up.wait(environment, keys, dict.fromkeys(sorted(here), started), _READY_SECONDS):
        sys.exit(1)


@click.command()
def down() -> None:
    """Stop every process of this installation; Orthanc finishes what it has accepted first."""
    environment = Environment.read()
    running = supervision.processes(environment)
    if running is None:
        if not _end_leftovers(environment):
            click.echo(f"Nothing runs in {environment.home}.")
        return
    supervisor = supervision.supervisor(environment)
    pid = supervisor.getPID()
    # Supervisord would stop one after the other; only Orthanc has a reason to be the last: the others ask it.
    for process in running:
        if not process.name.startswith("orthanc"):
            with suppress(xmlrpc.client.Fault):  # it runs no more
                supervisor.stopProcess(process.name, False)
    supervisor.shutdown()
    while leftovers.is_alive(pid):
        time.sleep(0.1)
    click.echo(f"Stopped: {', '.join(p.name for p in running)}.")


def _end_leftovers(environment: Environment) -> bool:
    """End what an earlier start left behind, and say so; False where nothing was left."""
    if supervision.lone(environment).exists() and leftovers.find(environment):
        raise EnvironmentFault(
            f"the processes in {environment.home} run under another supervisor; stop them there "
            "(systemctl stop zambezi.target)"
        )
    ended = leftovers.end(environment)
    if ended:
        names = ", ".join(f"{one.name} ({one.pid})" for one in ended)
        click.echo(f"An earlier start was killed and left these behind; they were ended: {names}.")
    return bool(ended)


def _supervisord(environment: Environment) -> tuple[list[str], dict[str, str]]:
    conf = environment.run_dir / "supervisord.conf"
    command = [sys.executable, "-P", "-m", "supervisor.supervisord", "-c", str(conf)]
    variables = {**os.environ, **environment.variables()}
    variables["ZAMBEZI_CONFIG"] = str(environment.orthanc_config_dir)  # the copy that was checked
    return command, variables


def say_where(environment: Environment, configuration: Configuration) -> None:
    """Print where this installation is reached."""
    ports = environment.ports
    click.echo(f"Zambezi in {environment.home}, configuration {configuration.hash[:12]}")
    click.echo(f"  pages and viewers  {environment.front_url}/")
    aet = configuration.orthanc["DicomAet"]
    click.echo(f"  DICOM              port {ports.dicom}, AE title {aet}; worklist and MPPS also on {ports.mpps}")
    click.echo(f"  HL7                port {ports.mllp}")
    found = encryption.look(encryption.places(environment, configuration.orthanc, os.environ))
    complaint = encryption.complaint(found)
    if complaint:
        click.echo(f"  encryption         {complaint}")


def first_administrator(session: Session, now: datetime) -> str | None:
    """Where nobody can sign in yet, make somebody who can; the one-time password, or None."""
    if session.scalars(select(User.id).limit(1)).first() is not None:
        return None
    password = users.one_time_password()
    users.add(session, FIRST_LOGIN, "Administrator", "administrator", password, now, "operations", "zambezi up")
    return password


def offer_first_sign_in(environment: Environment) -> None:
    """Where nobody can sign in yet, make the first administrator and print the one-time password."""
    engine = connect(environment.database_url, "operations")
    try:
        with sessions(engine, "operations").begin() as session:
            password = first_administrator(session, clock.now())
    except OperationalError:
        click.echo("  first sign-in      as before; the central database is away just now")
        return
    finally:
        engine.dispose()
    if password:
        click.echo(
            f"  first sign-in      {FIRST_LOGIN}, one-time password {password} (shown once; then choose your own)"
        )
