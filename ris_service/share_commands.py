"""`zambezi share`: links that share studies, seen and revoked at the console. They are made on a study's page."""

from __future__ import annotations

import click
from sqlalchemy import select

from ris_service.commands import BY, CHAIN
from zambezi import clock, sharing
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import ShareLink
from zambezi.environment import Environment


def _database() -> Sessions:
    return sessions(connect(Environment.read().database_url, "console"), "console")


@click.group()
def share() -> None:
    """Links that share studies; they are made on a study's page."""


@share.command("list")
@click.option("--all", "everything", is_flag=True, help="With those that ended.")
def list_(everything: bool) -> None:
    """Links: number, state, who made them, until when, how often they were opened. Names stay on the pages."""
    now = clock.now()
    with _database().begin() as session:
        for link in session.scalars(select(ShareLink).order_by(ShareLink.id)):
            state = sharing.verdict(link, True, now).why
            if everything or state in ("open", "locked"):
                click.echo(
                    f"{link.id:>6}  {state:<8} by {link.made_by:<20} until {link.expires_at[:16]}  "
                    f"{len(link.studies)} studies  opened {link.opened} times"
                    f"{'  PIN' if link.pin_hash else ''}{'  download' if link.download else ''}"
                )


@share.command("revoke")
@click.argument("number", type=int)
def revoke(number: int) -> None:
    """End a link, and all that was opened by it."""
    with _database().begin() as session:
        link = session.get(ShareLink, number)
        if link is None:
            raise click.ClickException(f"no link {number}; `zambezi share list --all` shows them")
        sharing.revoke(session, link, BY, clock.now(), CHAIN)
    click.echo(f"link {number} is revoked")
