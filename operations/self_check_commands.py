"""`zambezi self-check`: the doors of this installation, tried for real."""

from __future__ import annotations

import sys

import click

from operations import self_check
from zambezi import keys
from zambezi.environment import Environment


@click.command("self-check")
def command() -> None:
    """Try the doors of what runs here (default account, scripts, bodies, old TLS); exit code 1 if one is open."""
    environment = Environment.read()
    try:
        found = self_check.look(environment, keys.load(environment.keys_file))
    except FileNotFoundError:
        raise click.ClickException(f"{environment.keys_file} is not there yet; `zambezi up` makes it") from None
    for one in found:
        said = "nothing answers there" if one.answered == 0 else "refused" if one.is_well else one.fault
        click.echo(f"{' ' if one.is_well else '!'} {one.tried:<22}{said}")
    sys.exit(0 if all(one.is_well for one in found) else 1)
