"""`zambezi backup` and `zambezi restore`: at the console, and by the clock (operations.backup.__main__)."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from operations.backup import making, manifest, proving, restoring, schedule, standstill
from operations.backup.copies import Postgres
from operations.backup.making import WRITER
from operations.backup.places import Mark
from operations.backup.repository import BackupFault, Repository, Snapshot
from operations.backup.restoring import Place
from zambezi import account, audit, clock, config, durable, signing
from zambezi.account import become_account
from zambezi.config import Configuration
from zambezi.database.engine import connect, sessions
from zambezi.environment import Environment, EnvironmentFault


@contextmanager
def sentences() -> Iterator[None]:
    """What stands in the way ends the command with its sentence."""
    try:
        yield
    except BackupFault as fault:
        raise click.ClickException(str(fault)) from fault


@click.group(invoke_without_command=True)
@click.pass_context
def backup(context: click.Context) -> None:
    """Copy everything of this installation, encrypted, to Backup.Repository, and verify the copy."""
    os.umask(0o077)
    if context.invoked_subcommand:
        return
    environment, found = _installation()
    with sentences():
        done = making.Backup(environment, found, click.echo, account.at_the_console()).run()
    click.echo(f"Backup {done.snapshot[:8]} of {done.instances:,} instances is whole and verified.")


@backup.command()
def init() -> None:
    """Make the repository and its password; the first time only."""
    environment, found = _installation()
    settings = found.zambezi.backup
    with sentences():
        if not settings.repository:
            raise BackupFault("write where backups go into orthanc-config/ first: Zambezi.Backup.Repository")
        repository = Repository(settings.repository, environment.backup_dir)
        is_new = not repository.password_file.exists()
        password = repository.initialise()
    click.echo(f"There is an empty, encrypted repository at {repository.address}.")
    if is_new:
        click.echo(
            f"\n    {password}\n\n"
            "This password opens the backups, and with them everything: images, reports, all keys. It is shown this\n"
            "once. Write it on two sheets, put each into a sealed envelope, and keep them in two places away from\n"
            "this machine. If it is lost, repository and password together bring everything back; without the\n"
            "password nobody can, and nobody can make it anew."
        )


@backup.command("list")
def list_command() -> None:
    """Every backup that is kept, oldest first."""
    environment, found = _installation()
    with sentences():
        repository = making.opened(environment, found, clock.now())
        for one in repository.snapshots():
            click.echo(f"{one.snapshot_id[:8]}  {one.time[:19].replace('T', ' ')}")
    known = schedule.last(environment.backup_dir)
    click.echo(
        schedule.complaint(found.zambezi.backup, known, clock.now()) or f"The last is of {known.finished[:19]} UTC."
    )


@backup.command()
@click.option("--all", "everything", is_flag=True, help="Read all data back, not only the part of the day.")
def check(everything: bool) -> None:
    """Read the repository back and say whether it is sound."""
    environment, found = _installation()
    with sentences():
        repository = making.opened(environment, found, clock.now())
        repository.unlock()
        days = found.zambezi.backup.read_all_in_days
        subset = "100%" if everything else schedule.part(clock.now().date(), days)
        repository.check(subset)
    click.echo(f"{repository.address} is sound ({subset} of its data was read back).")


@backup.command()
@click.option("--snapshot", default="latest", show_default=True, help="Which backup, as `zambezi backup list` has it.")
@click.option(
    "--into", type=click.Path(path_type=Path, file_okay=False),
    help="A folder with room for all of it; it is emptied afterwards. Default: ZAMBEZI_HOME/backup/drill.",
)  # fmt: skip
def drill(snapshot: str, into: Path | None) -> None:
    """Restore a backup into a scratch folder, prove it, and sign a report; what runs here goes on running."""
    environment, found = _installation()
    scratch = (into or environment.backup_dir / "drill").absolute()
    with sentences(), standstill.one_at_a_time(environment):
        repository = making.opened(environment, found, clock.now())
        repository.unlock()
        which = _snapshot(repository, snapshot)
        if scratch.exists() and any(scratch.iterdir()) and not Mark.file(scratch).exists():
            raise BackupFault(f"{scratch} is not empty; a drill empties its folder, so name one of its own")
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _scratch_databases(environment) as (url, index):
            place = Place(scratch, url or f"sqlite:///{scratch}/zambezi.db", lambda _: index)
            began = clock.now()
            known = restoring.put_back(place, repository, which.snapshot_id, click.echo)
            proof = proving.prove(place, known, which.snapshot_id, clock.now, click.echo)
        shutil.rmtree(scratch)
        file = environment.backup_dir / "drills" / f"{clock.text(began)[:19].replace(':', '')}.json"
        _report(environment, proof, "drill", file)
        if not proof.faults:
            last = schedule.last(environment.backup_dir)
            replace(last, drilled=proof.proven_at).write(environment.backup_dir)
    _tell(proof, file)


@click.command()
@click.option("--repository", "address", help="Where the backups are; default: Backup.Repository, if it is configured.")
@click.option("--snapshot", default="latest", show_default=True, help="Which backup, as `zambezi backup list` has it.")
@click.option(
    "--password-file", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Default: it is asked for."
)
@click.option("--accept-faults", metavar="REASON", help="Go on although the proof found faults; it is audited.")
def restore(address: str | None, snapshot: str, password_file: Path | None, accept_faults: str | None) -> None:
    """Put everything back into an empty ZAMBEZI_HOME, and prove it; starts nothing."""
    environment = Environment.read()
    given = password_file.read_text() if password_file else ""  # root's own, it may be
    become_account(environment.home)
    os.umask(0o077)
    with sentences(), standstill.one_at_a_time(environment):
        restoring.must_be_empty(environment.home)
        begun = Mark.read(environment.home)
        found = address or (begun.repository if begun else _configured(environment))
        repository = Repository(found, environment.backup_dir)
        _take_password(repository, given)
        repository.look()
        repository.unlock()
        which = _snapshot(repository, begun.snapshot if begun and snapshot == "latest" else snapshot)
        place = Place(environment.home, environment.database_url, lambda folder: _index(environment, folder))
        known = restoring.put_back(place, repository, which.snapshot_id, click.echo)
        proof = proving.prove(place, known, which.snapshot_id, clock.now, click.echo)
        for line in proving.lines(proof, clock.now()):
            click.echo(line)
        if proof.faults and not accept_faults:
            raise BackupFault(
                f"{len(proof.faults):,} things are not as they were; `zambezi up` refuses this place. Another backup "
                "(empty the folder, --snapshot ...) may have them whole. To go on without them: zambezi restore "
                "--accept-faults 'why'"
            )
        file = environment.backup_dir / "restored.json"
        _report(environment, proof, "restore", file, accept_faults or "")
        restoring.name_unknown(place, proof.orphans)
        where = restoring.configuration(environment, place)
        schedule.Last(
            finished=known.taken_at, ok=True, tried=known.taken_at, began=known.taken_at, snapshot=which.snapshot_id,
            instances=known.instances, bytes=known.bytes, repository=repository.address, drilled=proof.proven_at,
        ).write(environment.backup_dir)  # fmt: skip
        shutil.rmtree(place.staging)
        Mark.file(environment.home).unlink()
    click.echo(where)
    click.echo(f"Restored and proven; the signed report is {file}. `zambezi up` starts it.")


def _installation() -> tuple[Environment, Configuration]:
    environment = Environment.read()
    if not environment.keys_file.exists():
        raise EnvironmentFault(f"there is no installation in {environment.home}; ZAMBEZI_HOME names its folder")
    return environment, config.load(environment.config_dir, {**os.environ, **environment.variables()})


def _configured(environment: Environment) -> str:
    """The repository of the configuration that is here, if there is one."""
    found = config.load(environment.config_dir, {**os.environ, **environment.variables()}).zambezi.backup.repository
    if not found:
        raise BackupFault("say where the backups are: zambezi restore --repository /mnt/backup/zambezi")
    return found


def _take_password(repository: Repository, password: str) -> None:
    if password:
        pass
    elif repository.password_file.exists():
        return
    elif sys.stdin.isatty():
        password = click.prompt("Password of the backups (on the sheet in the envelope)", hide_input=True)
    else:
        password = sys.stdin.readline()
    if not password.strip():
        raise BackupFault("the password of the backups is needed: --password-file FILE, or type it when asked")
    durable.replace(repository.password_file, password.strip().encode())


def _snapshot(repository: Repository, wanted: str) -> Snapshot:
    found = repository.snapshots()
    if not found:
        raise BackupFault(f"there is no whole backup in {repository.address}")
    if wanted == "latest":
        return found[-1]
    fitting = [one for one in found if one.snapshot_id.startswith(wanted)]
    if len(fitting) != 1:
        raise BackupFault(f"no backup {wanted} in {repository.address}; `zambezi backup list` shows them")
    return fitting[0]


def _index(environment: Environment, saved: Path) -> Postgres | None:
    """Orthanc's index on PostgreSQL: as this machine's configuration says, else as the backup's does."""
    variables = {**os.environ, **environment.variables()}
    if any(environment.config_dir.glob("*.json")):
        here = Postgres.of_index(config.load(environment.config_dir, variables).orthanc)
        if here:
            return here
    return Postgres.of_index(config.load(saved, variables).orthanc)


@contextmanager
def _scratch_databases(environment: Environment) -> Iterator[tuple[str, Postgres | None]]:
    """Databases for a drill, beside the central one where that is PostgreSQL's; gone afterwards."""
    central = making.central_database(environment)
    if not isinstance(central, Postgres):
        yield "", None
        return
    names = [f"zambezi_drill_{kind}_{secrets.token_hex(4)}" for kind in ("central", "index")]
    with central.connect(autocommit=True) as connection:
        try:
            for name in names:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except psycopg.errors.InsufficientPrivilege as error:
            raise BackupFault(
                "a drill needs databases of its own. Let PostgreSQL's administrator say: "
                f"ALTER ROLE {central.keywords.get('user', 'zambezi')} CREATEDB"
            ) from error
        try:
            url = make_url(environment.database_url).set(database=names[0]).render_as_string(hide_password=False)
            yield url, central.to(names[1])
        finally:
            for name in names:
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _report(environment: Environment, proof: proving.Proof, kind: str, file: Path, accepted: str = "") -> None:
    """Sign the report, write it, and tell the audit trail."""
    now, who = clock.now(), account.at_the_console()
    signer = signing.current(environment.signing_dir, "drill", who, now)
    durable.replace(file, signing.canonical(proving.report(proof, kind, signer)))
    facts: dict[str, Any] = {"reason": accepted} if accepted else {}
    engine = connect(environment.database_url, WRITER)
    try:
        with sessions(engine, WRITER).begin() as session:
            known = signing.register(environment.signing_dir, "drill")
            assert known is not None
            signing.record(session, known, WRITER)
            audit.append(
                session, WRITER, "restored", now, kind=kind, snapshot=proof.snapshot, taken_at=proof.taken_at, who=who,
                instances=proof.instances, faults=len(proof.faults), report_sha256=manifest.digest(file, "sha256"),
                **facts,
            )  # fmt: skip
    finally:
        engine.dispose()


def _tell(proof: proving.Proof, file: Path) -> None:
    for line in proving.lines(proof, clock.now()):
        click.echo(line)
    click.echo(f"The signed report: {file}")
    if proof.faults:
        raise click.ClickException(f"the drill failed: {len(proof.faults):,} things are not as they were")
    click.echo("The drill passed: this backup brings everything back.")
