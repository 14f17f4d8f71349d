"""`zambezi migrate`: inventory, start, pause, status, certificate, and the offline verification of one."""

from __future__ import annotations

import getpass
import json
from pathlib import Path

import click
from sqlalchemy import select
from sqlalchemy.orm import Session

from migration import certificate as certificates
from migration import inventory, ledger, office, progress, run_commands, settling, worker
from migration.source import Trouble
from zambezi import breakers, clock, signing, windows
from zambezi.database.tables import MigrationProject
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancError
from zambezi.signing import Register, SigningFault


@click.group()
def migrate() -> None:
    """Bring legacy studies over, compared instance by instance."""


@migrate.command("inventory")
@click.argument("source")
@click.option("--project", "name", required=True, help="Name of the migration, such as pacs-2026.")
def inventory_command(source: str, name: str) -> None:
    """Find every study of SOURCE (a name from Migration.Sources) and count its instances twice."""
    opened = _office()
    found = opened.configuration.zambezi.migration.sources.get(source)
    if found is None:
        known = ", ".join(sorted(opened.configuration.zambezi.migration.sources)) or "none"
        raise click.ClickException(f"no source {source} in Migration.Sources (known: {known})")
    if not windows.is_open(found.windows, clock.now(), opened.configuration.zambezi.site.zone):
        raise click.ClickException(f"the windows of {source} are closed now; {_next_opening(opened, source)}")
    try:
        project = inventory.take(opened.sessions, opened.source(source), name, source, clock.now())
    except (OrthancError, Trouble) as error:
        raise click.ClickException(f"the inventory could not be made: {error}") from error
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    coverage = project.coverage
    click.echo(
        f"{name}: {coverage['studies']} studies ({coverage['undated']} undated), asked in {coverage['queries']} queries"
    )
    for study_uid in coverage["duplicates"]:
        click.echo(f"  study {study_uid} is under {len(coverage['duplicates'][study_uid])} patients")
    for doubt in coverage["doubts"]:
        click.echo(f"  doubt: {doubt}")
    click.echo(f"Next: zambezi migrate start {name}")


@migrate.command()
@click.argument("name")
@click.option("--retry", is_flag=True, help="Try again, too, what waits for a person.")
def start(name: str, retry: bool) -> None:
    """Let the migration NAME run whenever a window of its source is open."""
    opened = _office()
    with opened.sessions.begin() as session:
        project = _project(session, name)
        if project.state == "inventory":
            raise click.ClickException(f"the inventory of {name} is not complete; run `zambezi migrate inventory`")
        if retry:
            click.echo(f"{settling.retry_all(session, project, _who(), clock.now())} studies will be tried again")
        source = project.source
        breakers.resume(session, f"source:{source}", now=clock.now(), writer=ledger.WRITER, who=_who())
        ledger.set_project(session, project, "running", "", clock.now())
    click.echo(f"{name} runs. {_next_opening(opened, source)}")


@migrate.command()
@click.argument("name")
def pause(name: str) -> None:
    """Claim no more studies of NAME; the one that is being moved is finished first."""
    with _office().sessions.begin() as session:
        ledger.set_project(session, _project(session, name), "paused", f"paused by {_who()}", clock.now())
    click.echo(f"{name} is paused. Go on: zambezi migrate start {name}")


@migrate.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(name: str | None, as_json: bool) -> None:
    """Say how far migrations are: done, failed, rate and what is left."""
    opened = _office()
    with opened.sessions.begin() as session:
        query = select(MigrationProject).order_by(MigrationProject.name)
        projects = [_project(session, name)] if name else list(session.scalars(query).all())
        configured = opened.configuration.zambezi
        facts = [
            progress.of(session, one, clock.now(), configured.migration.sources.get(one.source), configured.site)
            for one in projects
        ]
        paused = {one.name: one.words for one in breakers.paused(session)}
        waits = {project.name: paused.get(f"source:{project.source}", "") for project in projects}
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    zone = opened.configuration.zambezi.site.zone
    for fact in facts:
        click.echo(
            f"{fact['project']} ({fact['state']}): {fact['verified']} of {fact['studies']} studies verified, "
            f"{fact['failed']} for a person to look at, {fact['per_hour']:.0f} an hour, {run_commands.ends(fact, zone)}"
        )
        if fact["state"] == "running":
            click.echo(f"  {run_commands.healthy(fact['source_health'], zone)}")
        for words in filter(None, (fact["note"], waits[fact["project"]], paused.get(worker.QUEUE))):
            click.echo(f"  {words}")


@migrate.command()
@click.argument("name")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to write it; default: to screen.")
def certificate(name: str, out: Path | None) -> None:
    """Issue the signed certificate of the finished migration NAME."""
    opened = _office()
    try:
        system = office.system(opened.client())
        folder = opened.environment.signing_dir
        with opened.sessions.begin() as session:
            signer = signing.current(folder, certificates.PURPOSE, _who(), clock.now())
            made = certificates.issue(
                session, _project(session, name), signer,
                certificates.versions(system, opened.configuration.hash), _who(), clock.now(),
            )  # fmt: skip
            known = signing.register(folder, certificates.PURPOSE)
            if known is not None:
                signing.record(session, known, ledger.WRITER)
            written = certificates.to_file(made)
    except (certificates.NotFinished, OrthancError, Trouble, SigningFault) as error:
        raise click.ClickException(str(error)) from error
    if out is None:
        click.echo(written.decode(), nl=False)
        return
    out.write_bytes(written)
    click.echo(f"{out}: signed with key {signer.key_id}. Verify: zambezi migrate verify-certificate {out}")


@migrate.command("verify-certificate")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--keys", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The installation's public keys, from `zambezi key export`; default: those of this installation.",
)  # fmt: skip
@click.option("--key-id", help="The fingerprint that the installation has told you, where you have no --keys.")
def verify_certificate(file: Path, keys: Path | None, key_id: str | None) -> None:
    """Verify a certificate offline: its signature, whose it is, and that its sums are those of its instances."""
    content = file.read_bytes()
    try:
        known = Register.from_json(keys.read_bytes()) if keys else None
        if known is None and key_id is None:
            known = signing.register(Environment.read().signing_dir, certificates.PURPOSE)
    except SigningFault as fault:
        raise click.ClickException(str(fault)) from fault
    faults = certificates.faults(content, known)
    if faults:
        raise click.ClickException("; ".join(faults))
    whole = json.loads(content)
    signed_with = whole["key_id"]
    if known is None and signed_with != key_id:
        expected = f"not with {key_id}" if key_id else "and nothing here says whose key that is"
        raise click.ClickException(
            f"the certificate is whole, but it is signed with key {signed_with}, {expected}; ask the installation for "
            "its public keys (`zambezi key export`) and give them with --keys, or its fingerprint with --key-id"
        )
    counts = whole["certificate"]["counts"]
    retired = ", which has been followed by another since" if known and known.state(signed_with) == "retired" else ""
    click.echo(
        f"The certificate holds: {counts['studies']} studies, {counts['instances']} instances, "
        f"{counts['instances_by_level'].get('3', 0)} equal to the source by digest, "
        f"{len(whole['certificate']['exceptions'])} exceptions. "
        f"Signed with key {signed_with}{retired}."
    )


for command in run_commands.COMMANDS:
    migrate.add_command(command)
migrate.add_command(start, "run")


def _office() -> office.Office:
    try:
        return office.open_office()
    except FileNotFoundError as error:
        raise click.ClickException(
            f"{error.filename} is not there; start the installation with `zambezi up`"
        ) from error


def _project(session: Session, name: str) -> MigrationProject:
    project = session.scalars(select(MigrationProject).where(MigrationProject.name == name)).first()
    if project is None:
        raise click.ClickException(f"no migration {name}; `zambezi migrate status` lists them")
    return project


def _next_opening(opened: office.Office, source: str) -> str:
    settings = opened.configuration.zambezi.migration.sources.get(source)
    site = opened.configuration.zambezi.site
    opening = windows.next_opening(settings.windows, clock.now(), site.zone, site.holidays) if settings else None
    if opening is None:
        return "No window of its source ever opens."
    if opening <= clock.now():
        closing = windows.closes_at(settings.windows, clock.now(), site.zone, site.holidays) if settings else None
        until = f" until {closing.astimezone(site.zone):%Y-%m-%d %H:%M %Z}" if closing else ""
        return f"Its window is open now{until}."
    return f"Its next window opens {opening.astimezone(site.zone):%Y-%m-%d %H:%M %Z}."


def _who() -> str:
    return getpass.getuser()
