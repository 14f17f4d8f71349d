"""`zambezi move`: the archive and the central database from SQLite to PostgreSQL, and back."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import click

from operations import leftovers, preparing, recovery, supervision
from operations.archive import ArchiveFault
from operations.moving import engines, proof, steps
from operations.moving.central import CentralFault
from operations.moving.copying import CopyFault
from operations.moving.engines import Engines
from operations.moving.source import Unreadable
from operations.moving.steps import Move, MoveFault
from operations.recovery import RecoveryFault
from zambezi import config, keys, signing
from zambezi.account import at_the_console, become_account
from zambezi.environment import Environment, EnvironmentFault
from zambezi.signing import SigningFault


@click.group()
def move() -> None:
    """Move the archive and the central database from SQLite to PostgreSQL, or back, with a proof."""


@move.command()
@click.argument("engine", type=click.Choice([engines.POSTGRESQL, engines.SQLITE]))
@click.option("--database-was", default="", help="URL of the old central database, where its password isn't known.")
@click.option("--leave-damaged", is_flag=True, help="Let files stay behind that are not what was recorded.")
def to(engine: str, database_was: str, leave_damaged: bool) -> None:
    """Bring all to ENGINE, which the configuration names already; Zambezi must be down.

    The old archive stays until the new one has given every instance back as it was. Cut off at any moment, the same
    command goes on; `zambezi up` with the old configuration goes back to the old archive meanwhile.
    """
    environment = Environment.read()
    become_account(environment.home)
    os.umask(0o077)
    asked = _asked(environment, engine, database_was)
    try:
        folder = steps.run(asked, os.environ, leave_damaged)
    except (MoveFault, CopyFault, CentralFault, Unreadable, RecoveryFault, SigningFault, ArchiveFault) as fault:
        for line in str(fault).splitlines():
            click.echo(line, err=True)
        sys.exit(1)
    click.echo(f"Moved, and proven: {folder}")
    said = json.loads((folder / "proof.json").read_bytes())["proof"]
    for what, count in said["others"].items():
        click.echo(f"  {what}: {count:,}")
    if said["left_behind"]:
        click.echo(f"  images left behind, in the hold where there was a file: {len(said['left_behind']):,}")
    click.echo("Start it: `zambezi up`. When you trust it: `zambezi move forget`, which lets the old archive go.")


@move.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--keys", "file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Public keys.")
def verify(folder: Path, file: Path | None) -> None:
    """Whether a proof holds: signature, key, both lists (exit code 1 if not)."""
    environment = Environment.read()
    try:
        known = (
            signing.Register.from_json(file.read_bytes())
            if file
            else signing.register(environment.signing_dir, proof.PURPOSE)
        )
    except SigningFault as fault:
        raise click.ClickException(str(fault)) from fault
    found = proof.faults(folder, known)
    for one in found:
        click.echo(f"FAULT  {one}", err=True)
    if found:
        sys.exit(1)
    said = json.loads((folder / "proof.json").read_bytes())["proof"]
    click.echo(f"the proof holds: {said['instances']:,} instances, {said['bytes']:,} bytes, before and after the same")
    click.echo(
        f"  {said['from']['index']} ({said['from']['orthanc']}) to {said['to']['index']} ({said['to']['orthanc']})"
    )


@move.command()
@click.option("--yes", is_flag=True, help="Without asking.")
def forget(yes: bool) -> None:
    """Remove the files of archives that were moved away; their proofs stay."""
    environment = Environment.read()
    become_account(environment.home)
    old = sorted(environment.home.glob("orthanc-before-move-*"))
    if not old:
        click.echo("No old archive is kept here.")
        return
    if environment.moved_file.exists() or (environment.home / "move").exists():
        raise EnvironmentFault("the new archive has not been started yet: `zambezi up` first, and look at it")
    for folder in old:
        if yes or click.confirm(f"Remove {folder} for good?"):
            shutil.rmtree(folder)
            click.echo(f"{folder.name} is gone.")
    click.echo("The old databases are yours to remove: that of Orthanc's index, and the central one.")


def _asked(environment: Environment, engine: str, database_was: str) -> Move:
    """What is to be done; EnvironmentFault where it can't be."""
    target = config.load(environment.config_dir, {**os.environ, **environment.variables()})
    there, wanted = engines.present(environment), engines.wanted(environment, target)
    if there is None:
        raise EnvironmentFault(f"there is no archive in {environment.home}: nothing is to be moved")
    old_database = _old_database(environment, there, wanted, database_was)
    changing = {wanted.index} if wanted.index != there.index else set()
    changing |= {wanted.database} if old_database else set()
    if engine not in changing and not engines.phase_file(environment).exists():
        raise EnvironmentFault(
            f"nothing is to be moved to {engine}: Orthanc's index is on {there.index} and the configuration names"
            f" {wanted.index}; the central database is on {there.database} and ZAMBEZI_DATABASE_URL names one on"
            f" {wanted.database} (docs/administrator.md)"
        )
    faults = preparing.machine_faults(target)
    if supervision.processes(environment) is not None or leftovers.find(environment):
        faults.append("Zambezi runs: `zambezi down` first")
    elif recovery.is_taken(environment.ports.orthanc_http) or recovery.is_taken(environment.ports.dicom):
        faults.append("Orthanc's ports are in use: stop the archive (and every other Orthanc on these ports) first")
    if faults:
        raise EnvironmentFault("\n".join(faults))
    keys.load_or_create(environment.keys_file)
    who = at_the_console()
    return Move(environment, target, there, wanted, old_database, who, click.echo)


def _old_database(environment: Environment, there: Engines, wanted: Engines, named: str) -> str:
    """The old central database's URL, where it moves; "" where it stays where it is."""
    if not there.database or there.database == wanted.database:
        return ""
    beside = environment.home / "zambezi.db"
    if there.database == engines.SQLITE and beside.exists():
        return named or f"sqlite:///{beside}"  # also where ZAMBEZI_HOME was brought to another place
    return named or there.database_at
