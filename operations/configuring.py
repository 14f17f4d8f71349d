"""`zambezi config`: check the administrator's JSON, print its schema, bring new rules to a running archive."""

from __future__ import annotations

import os
import sys

import click

from operations import coming_up, postgresql, preparing, source_certificates, supervision
from zambezi import clock, keys
from zambezi import config as configuration
from zambezi.config import schema as schema_of
from zambezi.environment import Environment, EnvironmentFault
from zambezi.keys import Keys
from zambezi.orthanc_client import OrthancClient, OrthancRefused, OrthancUnreachable

#: Processes that read their settings when they start; each may be stopped at any moment.
READERS = ("ris", "gateway", "migration", "operations")
#: They come up in seconds; where the central database is away, nobody should wait longer for what isn't theirs.
_READY_SECONDS = 60


@click.group()
def config() -> None:
    """Check and reload the JSON in orthanc-config/."""


@config.command()
def check() -> None:
    """Read all of it; print every fault, or the configuration's hash."""
    environment = Environment.read()
    found = configuration.load(environment.config_dir, {**os.environ, **environment.variables()})
    faults = preparing.machine_faults(found) + [fault.words for fault in postgresql.faults(environment, found)]
    # No reason not to start: without a source the archive does all else.
    faults += source_certificates.faults(found, clock.now())
    if faults:
        raise EnvironmentFault("\n".join(faults))
    click.echo(f"{environment.config_dir}: good, configuration {found.hash}")


@config.command()
def schema() -> None:
    """Print the JSON Schema of the Zambezi section, for editors."""
    click.echo(schema_of.text(), nl=False)


@config.command("keys")
def keys_of_the_section() -> None:
    """Print every key of the Zambezi section with its default and meaning (Markdown)."""
    click.echo(schema_of.manual(), nl=False)


def _reload(environment: Environment, made: Keys) -> None:
    """Let the archive take the rules, each of its nodes. A refusal is raised at once, a node that is away last."""
    away: list[OrthancUnreachable] = []
    for node in environment.nodes or (None,):
        try:
            OrthancClient(environment, made, "operations", only=node).post("/zambezi/reload", {})
        except OrthancUnreachable as error:
            away.append(error)
    if away:
        raise away[0]


@config.command("reload")
def reload_rules() -> None:
    """Check the JSON and let the running processes take it; on a fault everything stays as it was.

    Rules, destinations, HL7 peers and DICOM peers change at once; ports, folders, certificates and the plugin list
    at the next `zambezi down` and `zambezi up`.
    """
    reload()


def reload() -> None:
    """What `zambezi config reload` does.

    The process ends with 1 where the archive keeps what it has, or one that was started again does not come up.
    """
    environment = Environment.read()
    found = configuration.load(environment.config_dir, {**os.environ, **environment.variables()})
    if not environment.keys_file.exists():
        raise EnvironmentFault(f"nothing was ever started in {environment.home}; `zambezi up` takes the configuration")
    made = keys.load(environment.keys_file)
    before = {file: file.read_bytes() for file in environment.orthanc_config_dir.glob("*.json")}
    preparing.write_orthanc_configuration(environment, made)
    try:
        _reload(environment, made)
    except OrthancRefused as refused:
        for file in environment.orthanc_config_dir.glob("*.json"):
            file.unlink()
        for file, content in before.items():
            file.write_bytes(content)
            file.chmod(0o600)
        click.echo(f"The archive keeps the rules it has, and so do the others: {refused}", err=True)
        sys.exit(1)
    except OrthancUnreachable:
        click.echo("The archive doesn't answer; it takes the new rules when it starts.", err=True)
    restarted = supervision.restart(environment, READERS)
    if supervision.lone(environment).exists() and not restarted:
        units = " ".join(f"zambezi@{one}" for one in READERS)
        click.echo(f"Configuration {found.hash[:12]}: taken by the archive. The others take it when they start again:")
        click.echo(f"  systemctl restart {units}")
        return
    click.echo(f"Configuration {found.hash[:12]}: taken by the archive, {', '.join(restarted)} started again with it.")
    # Until then the pages say that they are away, and a sender of HL7 finds nobody.
    if not coming_up.wait(environment, made, restarted, _READY_SECONDS):
        sys.exit(1)
