"""What each `zambezi migrate` command begins with: the office, and a migration by its name; faults in sentences."""

from __future__ import annotations

import click
from sqlalchemy import select
from sqlalchemy.orm import Session

from migration.office import Office, open_office
from zambezi.database.tables import MigrationProject


def the_office() -> Office:
    """As the installation is set up."""
    try:
        return open_office()
    except FileNotFoundError as error:
        words = f"{error.filename} is not there; start the installation with `zambezi up`"
        raise click.ClickException(words) from error


def the_migration(session: Session, name: str) -> MigrationProject:
    """The one of this name."""
    project = session.scalars(select(MigrationProject).where(MigrationProject.name == name)).first()
    if project is None:
        raise click.ClickException(f"no migration {name}; `zambezi migrate status` lists them")
    return project
