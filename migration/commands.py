"""`zambezi migrate`: inventory, start, pause, status; what proves and takes back is in migration.proof_commands."""

from __future__ import annotations

import getpass
import json

import click
from sqlalchemy import select

from migration import (
    inventory,
    ledger,
    office,
    plan_commands,
    progress,
    proof_commands,
    run_commands,
    sampling,
    settling,
    source_commands,
    worker,
)
from migration.desk import Closed
from migration.folders.commands import files_command, index_command
from migration.records.commands import records
from migration.shared_by_commands import the_migration, the_office
from migration.source import Trouble
from zambezi import breakers, clock, windows
from zambezi.database.tables import MigrationProject
from zambezi.orthanc_client import OrthancError


@click.group()
def migrate() -> None:
    """Bring legacy studies over, compared instance by instance."""


@migrate.command("inventory")
@click.argument("source")
@click.option("--project", "name", required=True, help="Name of the migration, such as pacs-2026.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def inventory_command(source: str, name: str, as_json: bool) -> None:
    """Find every study of SOURCE (a name from Migration.Sources) and count its instances twice.

    Interrupted, the same command goes on where it was.
    """
    opened = the_office()
    found = opened.configuration.zambezi.migration.sources.get(source)
    if found is None:
        known = ", ".join(sorted(opened.configuration.zambezi.migration.sources)) or "none"
        raise click.ClickException(f"no source {source} in Migration.Sources (known: {known})")
    if not windows.is_open(found.windows, clock.now(), opened.configuration.zambezi.site.zone):
        raise click.ClickException(f"the windows of {source} are closed now; {_next_opening(opened, source)}")
    try:
        step = source_commands.steps(opened, source)
        project = inventory.take(opened.sessions, opened.source(source), name, source, clock.now(), step)
    except (OrthancError, Trouble, Closed) as error:
        again = "the same command goes on from here"
        raise click.ClickException(f"the inventory is not complete: {error}; {again}") from error
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    coverage = project.coverage
    if as_json:
        click.echo(json.dumps({"project": name, "source": source, "coverage": coverage}, indent=1))
        return
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
    opened = the_office()
    with opened.sessions.begin() as session:
        project = the_migration(session, name)
        if project.state == "inventory":
            raise click.ClickException(f"the inventory of {name} is not complete; run `zambezi migrate inventory`")
        if retry:
            click.echo(f"{settling.retry_all(session, project, _who(), clock.now())} studies will be tried again")
        sampling.draw(session, project, _who(), clock.now())
        source = project.source
        breakers.resume(session, f"source:{source}", now=clock.now(), writer=ledger.WRITER, who=_who())
        ledger.set_project(session, project, "running", "", clock.now())
    click.echo(f"{name} runs. {_next_opening(opened, source)}")


@migrate.command()
@click.argument("name")
def pause(name: str) -> None:
    """Claim no more studies of NAME; the one that is being moved is finished first."""
    with the_office().sessions.begin() as session:
        ledger.set_project(session, the_migration(session, name), "paused", f"paused by {_who()}", clock.now())
    click.echo(f"{name} is paused. Go on: zambezi migrate start {name}")


@migrate.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(name: str | None, as_json: bool) -> None:
    """Say how far migrations are: done, failed, rate and what is left."""
    opened = the_office()
    with opened.sessions.begin() as session:
        query = select(MigrationProject).order_by(MigrationProject.name)
        projects = [the_migration(session, name)] if name else list(session.scalars(query).all())
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


for _command in (
    records, source_commands.sources_command, source_commands.probe_command, index_command, files_command,
    plan_commands.plan, plan_commands.document_command, plan_commands.held, plan_commands.decide,
    *proof_commands.COMMANDS, *run_commands.COMMANDS,
):  # fmt: skip
    migrate.add_command(_command)
migrate.add_command(start, "run")
