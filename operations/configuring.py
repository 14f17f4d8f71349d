"""`zambezi config`: check the administrator's JSON, print its schema, bring new rules to a running archive."""

from __future__ import annotations

import json
import os
import sys

import click

from operations import preparing
from zambezi import config as configuration
from zambezi import keys
from zambezi.account import become_owner
from zambezi.config import schema as schema_of
from zambezi.environment import Environment, EnvironmentFault
from zambezi.orthanc_client import OrthancClient, OrthancRefused, OrthancUnreachable


@click.group()
def config() -> None:
    """Check and reload the JSON in orthanc-config/."""


@config.command()
def check() -> None:
    """Read all of it; print every fault, or the configuration's hash."""
    environment = Environment.read()
    found = configuration.load(environment.config_dir, {**os.environ, **environment.variables()})
    faults = preparing.machine_faults(found)
    if faults:
        raise EnvironmentFault("\n".join(faults))
    click.echo(f"{environment.config_dir}: good, configuration {found.hash}")


@config.command()
def schema() -> None:
    """Print the JSON Schema of the Zambezi section, for editors."""
    click.echo(schema_of.text(), nl=False)


@config.command("reload")
def reload_rules() -> None:
    """Check the JSON and let the running processes take it; on a fault everything stays as it was.

    Rules, destinations, HL7 peers and DICOM peers change at once; ports, folders and the plugin list at the
    next `zambezi down` and `zambezi up`.
    """
    environment = Environment.read()
    become_owner(environment.home)
    found = configuration.load(environment.config_dir, {**os.environ, **environment.variables()})
    made = keys.load(environment.keys_file)
    preparing.write_orthanc_configuration(environment, made)
    try:
        OrthancClient(environment, made, "operations").post("/zambezi/reload", {})
    except OrthancRefused as refused:
        click.echo(f"The archive keeps its rules: {refused}", err=True)
        sys.exit(1)
    except OrthancUnreachable:
        click.echo("The archive doesn't answer; it takes the new rules when it starts.", err=True)
        sys.exit(1)
    restarted = preparing.restart_readers(environment)
    click.echo(f"Configuration {found.hash[:12]} is in force: archive (reloaded), {', '.join(restarted)} (restarted).")
