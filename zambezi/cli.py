"""The `zambezi` command: a thin root that loads the group which is asked for."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from zambezi import __version__, composition
from zambezi.account import become_owner
from zambezi.config import ConfigurationFaults
from zambezi.environment import Environment, EnvironmentFault, take_secrets


class _Groups(click.Group):
    """Commands by their dotted names, imported only when they are called or listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(composition.COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        dotted = composition.COMMANDS.get(name)
        command: click.Command | None = composition.load(dotted) if dotted else None
        return command


@click.group(cls=_Groups)
@click.version_option(__version__)
@click.pass_context
def root(ctx: click.Context) -> None:
    """Zambezi: imaging archive, radiology information system and migration kit."""
    if ctx.invoked_subcommand in composition.OF_THE_MACHINE:
        return
    take_secrets(os.environ)
    # Whatever a command writes belongs to the installation, not to the root who typed it.
    become_owner(Environment.read().home)


def main(**how: Any) -> None:
    """The console script: faults of an administrator's making end in sentences, never in a traceback."""
    try:
        root(**how)
    except (ConfigurationFaults, EnvironmentFault) as faults:
        what = "The configuration can't be used" if isinstance(faults, ConfigurationFaults) else "This can't be done"
        click.echo(f"{what}; nothing was started or changed:", err=True)
        for line in str(faults).splitlines():
            click.echo(f"  {line}", err=True)
        sys.exit(2)
