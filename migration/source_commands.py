"""`zambezi migrate sources` and `zambezi migrate probe`: what there is to migrate from, and what each can do."""

from __future__ import annotations

import json
import time

import click

from migration import directory
from migration.desk import Closed
from migration.notebook import Step
from migration.office import Office
from migration.shared_by_commands import the_office
from migration.source import Trouble
from zambezi import clock, windows
from zambezi.orthanc_client import OrthancError

#: Long work says how far it is.
_SAY_S = 3.0


@click.command("sources")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def sources_command(as_json: bool) -> None:
    """List the sources: how each is reached, whether it may be asked now, what it could do when that was tried."""
    opened = the_office()
    zambezi = opened.configuration.zambezi
    with opened.sessions.begin() as session:
        found = directory.entries(session, zambezi.migration, zambezi.site, clock.now())
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    if not found:
        click.echo("No sources. Write the first one into Migration.Sources (orthanc-config/README.md).")
    for one in found:
        window = "its window is open" if one["is_open"] else f"its next window opens {one['opens'] or 'never'}"
        click.echo(f"{one['source']} ({one['kind']}, {one['peer']}): {window}; projects: {_list(one['projects'])}")
        if one["paused_until"] is not None:
            click.echo(f"  left alone until {one['paused_until']}: {one['paused_because']}")
        if one["probed_at"] is None:
            click.echo(f"  never probed: zambezi migrate probe {one['source']}")
        elif one["probe_failed"]:
            click.echo(f"  probed {one['probed_at']}: {one['probe_failed']}")
        else:
            lacks = [name for name, ability in one["abilities"].items() if not ability["has"]]
            click.echo(f"  probed {one['probed_at']}; lacks: {_list(lacks)}")


@click.command("probe")
@click.argument("source")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def probe_command(source: str, as_json: bool) -> None:
    """Try what SOURCE can do, and show it. Nothing is stored by it, neither there nor here."""
    opened = the_office()
    sources = opened.configuration.zambezi.migration.sources
    if source not in sources:
        raise click.ClickException(f"no source {source} in Migration.Sources (known: {_list(sorted(sources))})")
    found, reason = None, ""
    try:
        found = opened.source(source).probe()
    except (OrthancError, Trouble) as error:
        reason = str(error)
    with opened.sessions.begin() as session:
        directory.keep_probe(session, source, found, reason, clock.now())
    if found is None:
        raise click.ClickException(f"{source} could not be probed: {reason}")
    if as_json:
        told = {name: {"has": has, "seen": seen} for name, (has, seen) in found.abilities.items()}
        click.echo(json.dumps({"source": source, "abilities": told}, indent=1))
        return
    for name, (has, seen) in found.abilities.items():
        click.echo(f"{'yes' if has else 'no':<4}{name}{f': {seen}' if seen else ''}")


def steps(opened: Office, source: str) -> Step:
    """Says on stderr how far an inventory is, every few seconds; Closed at the end of the source's window."""
    settings = opened.configuration.zambezi.migration.sources[source]
    site = opened.configuration.zambezi.site
    said = time.monotonic()

    def step(words: str) -> None:
        nonlocal said
        if not windows.is_open(settings.windows, clock.now(), site.zone, site.holidays):
            raise Closed(f"the window of {source} has closed")
        if time.monotonic() - said > _SAY_S:
            said = time.monotonic()
            click.echo(f"  {words}", err=True)

    return step


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none"
