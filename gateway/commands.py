"""`zambezi route` and `zambezi message`: looking at deliveries and messages at the console, and acting on them."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway import rule_commands
from gateway.hl7 import inbox
from zambezi import audit, breakers, clock, config, outbox
from zambezi.database import engine
from zambezi.database.tables import Delivery, Message, Pseudonym
from zambezi.environment import Environment

WRITER = "gateway"


@click.group()
def route() -> None:
    """Deliveries: images and messages on their way out."""


route.add_command(rule_commands.explain)
route.add_command(rule_commands.dry_run)


@route.command("list")
@click.option("--state", help="Only these: due, sending, delivered, retrying, parked, cancelled.")
@click.option("--to", help="Only those to this destination or peer.")
@click.option("--study", help="Only those of this Study Instance UID.")
@click.option("--limit", default=50, show_default=True)
def list_deliveries(state: str | None, to: str | None, study: str | None, limit: int) -> None:
    """Deliveries, the newest first."""
    query = select(Delivery).order_by(Delivery.created_at.desc()).limit(limit)
    for column, wanted in ((Delivery.state, state), (Delivery.destination, to), (Delivery.study_uid, study)):
        if wanted:
            query = query.where(column == wanted)
    with console_session() as session:
        for found in breakers.paused(session):
            click.echo(f"! {found.words}")
        for row in session.scalars(query):
            kinds = {"dicom": f"{len(row.instances)} instances", "fetch": "earlier studies to here"}
            what = kinds.get(row.kind, "message")
            what += f", {len(row.acknowledged)} acknowledged" if row.acknowledged and row.instances else ""
            what += f", priority {row.priority}" if row.priority else ""
            click.echo(f"{row.id}  {row.state:<9}  {row.destination:<16}  {row.rule:<20}  {what}")
            click.echo(f"    {row.because}" + (f" -> {row.outcome}" if row.outcome else ""))


@route.command()
@click.argument("delivery")
def retry(delivery: str) -> None:
    """Try a delivery again now, with all attempts anew."""
    with console_session() as session:
        done = outbox.retry(session, delivery, now=clock.now(), writer=WRITER, who=who())
    said(done, f"{delivery} is due", f"{delivery} is unknown, being sent or delivered: nothing was changed")


@route.command()
@click.argument("delivery")
def cancel(delivery: str) -> None:
    """Don't carry a delivery out any more."""
    with console_session() as session:
        done = outbox.cancel(session, delivery, now=clock.now(), writer=WRITER, who=who())
    said(done, f"{delivery} is cancelled", f"{delivery} is unknown, delivered or cancelled: nothing was changed")


@route.command()
@click.argument("name")
def resume(name: str) -> None:
    """Go on at once with a paused destination, peer or queue, and with what its configuration had parked."""
    with console_session() as session:
        closed, retried = outbox.resume(session, name, now=clock.now(), writer=WRITER, who=who())
    well = f"{', '.join(closed) or name} is asked again; {retried} parked deliveries are due"
    said(bool(closed or retried), well, f"{name} is not paused: nothing was changed")


@route.command()
@click.argument("pseudonym")
def whose(pseudonym: str) -> None:
    """Which patient or study a pseudonym stands for that was sent to a destination. The question is audited."""
    with console_session() as session:
        rows = session.scalars(select(Pseudonym).where(Pseudonym.pseudonym == pseudonym)).all()
        for row in rows:
            click.echo(f"{row.destination}: {row.kind} {row.original}, first sent {row.made_at[:19]}Z")
        audit.append(
            session, WRITER, "pseudonym-read", clock.now(), pseudonym=pseudonym, who=who(), found=len(rows),
            destination=", ".join(row.destination for row in rows),
        )  # fmt: skip
    if not rows:
        said(False, "", f"nothing was sent under the name {pseudonym}")


@click.group()
def message() -> None:
    """HL7 messages that came in, and those that go out."""


@message.command("list")
@click.option("--state", help="Only these: applied, rejected, waiting.")
@click.option("--limit", default=50, show_default=True)
def list_messages(state: str | None, limit: int) -> None:
    """Messages that came in, the newest first."""
    query = select(Message).order_by(Message.id.desc()).limit(limit)
    if state:
        query = query.where(Message.state == state)
    with console_session() as session:
        for row in session.scalars(query):
            why = f"  {row.reason}" if row.reason else ""
            click.echo(f"{row.id:>8}  {row.received_at}  {row.peer:<16}  {row.kind:<8}  {row.state:<8}{why}")


@message.command()
@click.argument("number", type=int)
def show(number: int) -> None:
    """One message that came in, as it was received, and its acknowledgement. It holds a patient's data."""
    with console_session() as session:
        row = session.get(Message, number)
        if row is None:
            said(False, "", f"there is no message {number}")
            return
        click.echo(f"message {row.id} from {row.peer}, {row.received_at}, {row.encoding}, {row.state} {row.reason}")
        codec = row.encoding.split(" ")[0] or "utf-8"
        for part in (row.raw, row.ack):
            click.echo(part.decode(codec, "replace").replace("\r\n", "\n").replace("\r", "\n"))


@message.command("retry")
@click.argument("number", type=int)
def retry_message(number: int) -> None:
    """Carry out a message that waits (its sender was told AE)."""
    environment = Environment.read()
    settings = config.load(environment.config_dir, os.environ).zambezi
    with console_session() as session:
        row = session.get(Message, number)
        if row is None:
            why = f"there is no message {number}"
        else:
            why = inbox.try_again(session, row, settings, now=clock.now(), writer=WRITER, who=who())
    said(not why, f"message {number} is carried out", why)


@message.command()
@click.argument("delivery")
def resend(delivery: str) -> None:
    """Send a message of ours once more, though it was delivered; `zambezi route list` names it."""
    with console_session() as session:
        done = outbox.resend(session, delivery, now=clock.now(), writer=WRITER, who=who())
    said(done, f"{delivery} is due", f"{delivery} is unknown or being sent: nothing was changed")


@contextmanager
def console_session() -> Iterator[Session]:
    """A transaction on the central database, for what a person does at the console."""
    made = engine.sessions(engine.connect(Environment.read().database_url, "console"), "console")
    with made.begin() as session:
        yield session


def who() -> str:
    """Who types, as the audit trail names it."""
    return f"console:{getpass.getuser()}"


def said(done: bool, well: str, ill: str) -> None:
    """What came of it; where nothing was done, on stderr and with exit code 1."""
    click.echo(well if done else ill, err=not done)
    if not done:
        sys.exit(1)
