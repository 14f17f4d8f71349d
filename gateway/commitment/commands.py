"""`zambezi commitment`: what stations asked us to answer for, at the console."""

from __future__ import annotations

import click
from sqlalchemy import select

from gateway.commands import console_session, said, who
from gateway.commitment import requests
from zambezi import clock
from zambezi.database.tables import CommitmentRequest


@click.group()
def commitment() -> None:
    """Storage commitment: stations that ask whether their images are safe."""


@commitment.command("list")
@click.option("--state", help="Only these: due, working, retrying, reported, parked, cancelled, elsewhere.")
@click.option("--limit", default=50, show_default=True)
def list_requests(state: str | None, limit: int) -> None:
    """Requests, the newest first."""
    query = select(CommitmentRequest).order_by(CommitmentRequest.id.desc()).limit(limit)
    if state:
        query = query.where(CommitmentRequest.state == state)
    with console_session() as session:
        for row in session.scalars(query):
            safe = f"{len(row.instances) - len(row.failed)} of {len(row.instances)} safe" if row.checked_at else ""
            click.echo(f"{row.id:>8}  {row.asked_at[:19]}Z  {row.state:<9}  {row.aet:<16}  {safe}")
            if row.outcome:
                click.echo(f"          {row.outcome}")


@commitment.command()
@click.argument("number", type=int)
def show(number: int) -> None:
    """One request: what was asked, and each instance that is not safe, with the reason."""
    with console_session() as session:
        row = session.get(CommitmentRequest, number)
        if row is None:
            said(False, "", f"there is no request {number}")
            return
        click.echo(f"request {row.id} of {row.aet}, {row.asked_at[:19]}Z: {row.state}; {row.transaction_uid}")
        click.echo(f"{len(row.instances)} instances; {row.outcome or 'not looked into yet'}")
        for sop_class, sop_uid, reason, why in row.failed:
            click.echo(f"  {sop_uid}  0x{reason:04X}  {why}  (class {sop_class})")


@commitment.command()
@click.argument("number", type=int)
def retry(number: int) -> None:
    """Look once more, and tell the station again."""
    with console_session() as session:
        done = requests.retry(session, number, now=clock.now(), who=who())
    said(done, f"request {number} is due", f"request {number} is unknown, or is being worked on: nothing was changed")


@commitment.command()
@click.argument("number", type=int)
def cancel(number: int) -> None:
    """Don't tell the station any more."""
    with console_session() as session:
        done = requests.cancel(session, number, now=clock.now(), who=who())
    said(done, f"request {number} is cancelled", f"request {number} is unknown or was told: nothing was changed")
