"""`zambezi hold`: what lies in the hold, and what becomes of it, at the console."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from sqlalchemy import select
from sqlalchemy.orm import Session

from operations.custody import integrity
from operations.custody.worker import WRITER
from zambezi import account, audit, clock, holding
from zambezi import hold as files
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import Held
from zambezi.environment import Environment
from zambezi.holding import HoldRefused

#: What needs somebody; the others are shown with --all.
OPEN_STATES = ("comparing", "waiting", "releasing", "discard-asked")
_REASON = click.option("--reason", required=True, help="It stands in the audit trail; name no patient.")
_FACTS = (
    "id", "state", "why", "reason", "study_uid", "series_uid", "sop_uid", "orthanc_id", "sha256", "other_sha256",
    "size", "sender", "times", "held_at", "keep_until", "is_intact", "checked_at", "reference", "differs", "asked_by",
    "asked_at", "decided_by", "decided_at", "decision", "correction_id",
)  # fmt: skip


@click.group()
def hold() -> None:
    """Objects that wait for a person, and safe copies."""


@hold.command("list")
@click.option(
    "--why", help="Only these: conflict, no-identity, identity, unreadable, quarantine, corrected, deleted, found."
)
@click.option(
    "--state", help="Only these: comparing, waiting, kept, same, releasing, released, discard-asked, discarded."
)
@click.option("--all", "everything", is_flag=True, help="Also what needs nobody: safe copies, and what is over.")
@click.option("--limit", default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(why: str | None, state: str | None, everything: bool, limit: int, as_json: bool) -> None:
    """What lies there, the oldest first."""
    query = select(Held).order_by(Held.held_at, Held.id).limit(limit)
    if why:
        query = query.where(Held.why == why)
    if state:
        query = query.where(Held.state == state)
    elif not everything:
        query = query.where(Held.state.in_(OPEN_STATES))
    with _sessions().begin() as session:
        rows = session.scalars(query).all()
    if as_json:
        click.echo(json.dumps([_facts(row) for row in rows], indent=1))
        return
    for row in rows:
        damaged = "" if row.is_intact else "  DAMAGED"
        click.echo(
            f"{row.id:>6}  {row.state:<13}  {row.why:<11}  {row.held_at[:16]}  {row.size:>10}  {row.sender}{damaged}"
        )
        click.echo(f"        {row.reason}")


@hold.command()
@click.argument("number", type=int)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(number: int, as_json: bool) -> None:
    """All that is known of NUMBER, without what the object itself says of the patient."""
    with _sessions().begin() as session:
        facts = _facts(_found(session, number))
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        if value not in (None, "", []):
            click.echo(f"{name:<14} {', '.join(value) if isinstance(value, list) else value}")


@hold.command()
@click.argument("number", type=int)
@click.option("--reason", default="", help="It stands in the audit trail; name no patient.")
def release(number: int, reason: str) -> None:
    """Let NUMBER go into the archive."""
    with _deciding(number) as (session, held):
        holding.ask_release(session, held, account.at_the_console(), reason, clock.now(), WRITER)
    click.echo(f"{number} goes into the archive; `zambezi hold show {number}` says when it is there")


@hold.command()
@click.argument("number", type=int)
@_REASON
def discard(number: int, reason: str) -> None:
    """Ask to discard NUMBER; another person must confirm."""
    with _deciding(number) as (session, held):
        holding.ask_discard(session, held, account.at_the_console(), reason, clock.now(), WRITER)
    click.echo(f"{number} is discarded once another person confirms: zambezi hold confirm {number}, or its page")


@hold.command()
@click.argument("number", type=int)
def confirm(number: int) -> None:
    """Confirm that NUMBER is discarded, as the second person."""
    with _deciding(number) as (session, held):
        holding.confirm_discard(session, held, account.at_the_console(), clock.now(), WRITER)
    click.echo(f"{number} is discarded")


@hold.command()
@click.argument("number", type=int)
def withdraw(number: int) -> None:
    """Don't discard NUMBER after all."""
    with _deciding(number) as (session, held):
        holding.withdraw_discard(session, held, account.at_the_console(), clock.now(), WRITER)
    click.echo(f"{number} is not discarded")


@hold.command()
@click.argument("number", type=int)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def export(number: int, file: Path) -> None:
    """Write the object NUMBER to FILE, as it came; the audit trail says who took it."""
    environment = Environment.read()
    if file.exists():
        raise click.ClickException(f"{file} is there already; name another file")
    with _sessions().begin() as session:
        held = _found(session, number)
        try:
            content = files.get(environment.hold_dir, held.sha256)
        except files.NotHeld as why:
            raise click.ClickException(str(why)) from None
        audit.append(
            session, WRITER, "viewed", clock.now(), who=account.at_the_console(), study_uid=held.study_uid,
            held=held.id, path="export",
        )  # fmt: skip
    # Recorded first; mode 0600: it is a patient's.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
    click.echo(f"{file}: {len(content)} bytes")


@hold.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def check(as_json: bool) -> None:
    """Look at every file of the hold now; exit code 1 where one is damaged, missing or unaccounted for."""
    environment = Environment.read()
    found = integrity.look(_sessions(), environment.hold_dir, clock.now())
    told = {"files": found.files, "damaged": found.damaged, "found": found.found, "left": found.left}
    click.echo(json.dumps(told) if as_json else str(found))
    if found.damaged or found.found:
        sys.exit(1)


def _sessions() -> Sessions:
    return sessions(connect(Environment.read().database_url, "console"), "console")


@contextmanager
def _deciding(number: int) -> Iterator[tuple[Session, Held]]:
    try:
        with _sessions().begin() as session:
            yield session, _found(session, number)
    except HoldRefused as why:
        raise click.ClickException(f"{number}: {why}") from None


def _found(session: Session, number: int) -> Held:
    held = session.get(Held, number)
    if held is None:
        raise click.ClickException(f"there is no number {number} in the hold; `zambezi hold list --all` shows all")
    return held


def _facts(held: Held) -> dict[str, Any]:
    return {name: getattr(held, name) for name in _FACTS}
