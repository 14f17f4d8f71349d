"""`zambezi audit`: verify the trail, look things up in it, take it out, sign and seal it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import TypeVar

import click
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from operations import auditing
from operations.status import database_trouble
from operations.trail import keeping, mailing, shipping
from operations.trail.collector import Collector, CollectorFailed
from zambezi import account, audit_export, audit_search, clock, config, durable, signing
from zambezi.audit_search import Wanted
from zambezi.checkpoints import CheckpointFault
from zambezi.config import Configuration
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import AuditEntry
from zambezi.environment import Environment, EnvironmentFault
from zambezi.events import EVENTS
from zambezi.segments import SegmentFault

T = TypeVar("T")
WRITER = "operations"

_who = click.option("--who", default="", help="Of this person (login).")
_patient = click.option("--patient", default="", help="Of this patient (identifier), with all studies.")
_study = click.option("--study", default="", help="Of this study (Study Instance UID).")
_event = click.option("--event", default="", type=click.Choice(["", *sorted(EVENTS)]), help="Only this event.")
_since = click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="From this day of the site on.")
_until = click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="Up to this day of the site, all of it.")
_failed = click.option("--failed", is_flag=True, help="Only what failed or was refused.")


@click.group()
def audit() -> None:
    """The audit trail: verify it, search it, take it out, sign and seal it."""


@audit.command("verify")
@click.option(
    "--against", "against", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file from elsewhere: checkpoints that were taken out, or the collector's log. May be repeated.",
)  # fmt: skip
def verify_command(against: tuple[Path, ...]) -> None:
    """Walk every chain, entry by entry; name each place where one doesn't hold (exit code 1)."""
    environment = Environment.read()
    try:
        verdict = _looked(
            environment,
            lambda session: auditing.verify(session, environment.journal_file, environment.home, against),
        )
    except CheckpointFault as fault:
        raise click.ClickException(str(fault)) from fault
    for journal, entries in verdict.chains.items():
        click.echo(f"  {journal:<24}{entries:>9,} entries")
    if verdict.journal:
        click.echo(f"  its journal file        {verdict.journal_entries:>9,} entries walked")
    click.echo(f"  held against {verdict.checkpoints:,} checkpoints, {verdict.segments:,} sealed segments", nl=False)
    click.echo(f" and {verdict.elsewhere:,} entries and checkpoints from elsewhere" if against else "")
    for place in verdict.broken:
        click.echo(f"BROKEN  {place}")
    if verdict.broken:
        sys.exit(1)
    click.echo(f"the audit trail holds: {len(verdict.chains)} chains, {sum(verdict.chains.values()):,} entries")


@audit.command()
@click.option("--lines", "number", default=20, show_default=True, help="How many.")
@_event
def tail(number: int, event: str) -> None:
    """The last entries, oldest first."""
    wanted = Wanted(event=event)
    with _reading(Environment.read(), "tail", wanted) as session:
        rows = session.scalars(audit_search.query(session, wanted).limit(number)).all()
        for row in reversed(rows):
            click.echo(_line(row))


@audit.command()
@_who
@_patient
@_study
@_event
@_since
@_until
@_failed
@click.option("--lines", "number", default=100, show_default=True, help="At most so many, the newest.")
def search(
    who: str, patient: str, study: str, event: str, since: datetime | None, until: datetime | None, failed: bool,
    number: int,
) -> None:  # fmt: skip
    """Entries that fit, oldest first. That you searched, and for what, is recorded."""
    environment = Environment.read()
    wanted = _wanted(_loaded(environment), who, patient, study, event, since, until, failed)
    with _reading(environment, "search", wanted) as session:
        rows = session.scalars(audit_search.query(session, wanted).limit(number + 1)).all()
        for row in reversed(rows[:number]):
            click.echo(_line(row))
    if len(rows) > number:
        click.echo(f"there are more; --lines {number * 10} or a narrower search shows them", err=True)


@audit.command()
@click.argument("patient")
def seen(patient: str) -> None:
    """Who has seen images or reports of PATIENT (identifier), the last one first."""
    with _reading(Environment.read(), "seen", Wanted(patient=patient)) as session:
        found = audit_search.who_saw(session, patient)
    for one in found:
        click.echo(
            f"{one.who or '(a device)':<24}{one.times:>6} times, {one.studies} studies, first {one.first[:16]}, "
            f"last {one.last[:16]}"
        )
    click.echo(f"{len(found)} persons have seen patient {patient}" if found else "nobody has seen this patient here")


@audit.command()
@click.argument("login")
@_since
@_until
def person(login: str, since: datetime | None, until: datetime | None) -> None:
    """What LOGIN has done, by event; `audit search --who LOGIN` lists it."""
    environment = Environment.read()
    wanted = _wanted(_loaded(environment), login, "", "", "", since, until, False)
    with _reading(environment, "person", wanted) as session:
        found = audit_search.what_did(session, login, wanted.since, wanted.until)
    for one in found:
        failed = f", {one.failed} in vain" if one.failed else ""
        words = EVENTS.get(one.event, ("", "", one.event))[2]
        click.echo(f"{one.event:<24}{one.times:>6} times{failed}, last {one.last[:16]}: {words}")
    if not found:
        click.echo(f"nothing is recorded of {login}")


@audit.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--format", "kind", type=click.Choice(list(audit_export.FORMATS)), default="csv", show_default=True)
@_who
@_patient
@_study
@_event
@_since
@_until
@_failed
def export(
    file: Path, kind: str, who: str, patient: str, study: str, event: str, since: datetime | None,
    until: datetime | None, failed: bool,
) -> None:  # fmt: skip
    """Write entries that fit into FILE: csv, json, or xml of DICOM audit messages."""
    environment = Environment.read()
    loaded = _loaded(environment)
    wanted = _wanted(loaded, who, patient, study, event, since, until, failed)
    with _reading(environment, "export", wanted, format=kind) as session:
        query = audit_search.query(session, wanted)
        try:
            count = audit_export.count(session, query)
        except audit_export.TooMany:
            raise click.ClickException(
                f"more than {audit_export.MOST:,} entries fit; narrow it by --since and --until"
            ) from None
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as out:
            for piece in audit_export.written(kind, audit_export.rows(session, query), keeping.source(loaded)):
                out.write(piece)
    click.echo(f"{file}: {count:,} entries")


@audit.command()
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to write it, on a stick say; default: screen."
)
@click.option("--mail", is_flag=True, help="Mail it to Audit.CheckpointMailTo, now.")
def checkpoint(out: Path | None, mail: bool) -> None:
    """Sign where every chain stands now, and hand it out: `audit verify --against` holds the trail against it."""
    environment = Environment.read()
    settings = _loaded(environment).zambezi
    to = ", ".join(settings.audit.checkpoint_mail_to)
    if mail and not to:
        raise click.ClickException("nobody is configured (Zambezi.Audit.CheckpointMailTo)")
    with _writing(environment) as writing:
        made = keeping.checkpoint(
            writing, environment, settings.audit, account.at_the_console(), clock.now(), at_once=True
        )
        if made is None:
            raise click.ClickException("there is nothing to sign yet")
        if mail and (why := mailing.Mailer(writing, writing, settings, environment.home).mail(made)):
            raise click.ClickException(f"checkpoint {made.body['number']} was signed, but not mailed: {why}")
    if mail:
        click.echo(f"checkpoint {made.body['number']} was mailed to {to}")
        if out is None:
            return
    text = made.to_json().decode() + "\n"
    if out is None:
        click.echo(text, nl=False)
    else:
        durable.replace(out, text.encode())
        click.echo(f"{out}: checkpoint {made.body['number']}, signed with key {made.body['key_id']}")


@audit.command()
@click.option("--before", required=True, type=click.DateTime(["%Y-%m-%d"]), help="All that is older than this day.")
@click.option("--prune", is_flag=True, help="Then take it out of the table, too; the files hold it from then on.")
def seal(before: datetime, prune: bool) -> None:
    """Seal old entries into signed files (ZAMBEZI_HOME/audit/segments). By itself: Zambezi.Audit.KeepDays."""
    environment = Environment.read()
    loaded = _loaded(environment)
    cut = datetime.combine(before.date(), time(), loaded.zambezi.site.zone)
    now, who = clock.now(), account.at_the_console()
    if cut > now:
        raise click.ClickException(f"--before: found {before.date()}, allowed is a day that has begun")
    with _writing(environment) as writing:
        for file in keeping.seal(writing, environment, cut, who, now):
            click.echo(f"sealed  {file}")
        if prune:
            for name, count, why in keeping.prune(writing, environment, loaded.zambezi.audit, cut, who, now):
                click.echo(f"stays   {name}: {why}" if why else f"pruned  {name}: {count:,} entries left the table")


@audit.command()
def collector() -> None:
    """Ask the collector whether it takes what we send; nothing is sent."""
    environment = Environment.read()
    wanted = _loaded(environment).zambezi.audit.collector
    if not wanted.host:
        raise click.ClickException("none is configured (Zambezi.Audit.Collector)")
    asked = Collector(wanted, environment.home)
    found = _looked(environment, lambda session: shipping.state(session, asked.name))
    click.echo(f"{found.name}: {found.backlog:,} entries wait, last told {found.sent_at[:19] or 'never'}")
    try:
        asked.send([])
    except CollectorFailed as failed:
        raise click.ClickException(str(failed)) from failed
    click.echo("it answers, and knows us")


def _wanted(
    loaded: Configuration, who: str, patient: str, study: str, event: str, since: datetime | None,
    until: datetime | None, failed: bool,
) -> Wanted:  # fmt: skip
    zone = loaded.zambezi.site.zone
    begin = clock.text(since.replace(tzinfo=zone)) if since else ""
    end = clock.text((until + timedelta(days=1)).replace(tzinfo=zone)) if until else ""
    return Wanted(who, patient, study, event, begin, end, failed)


def _line(row: AuditEntry) -> str:
    facts = [("who", row.who), ("study_uid", row.study_uid), *audit_search.facts_of(row)]
    told = ", ".join(f"{name}={value}" for name, value in facts if value)
    return f"{row.at} {row.journal} {row.seq} {row.event}: {told}"


def _loaded(environment: Environment) -> Configuration:
    return config.load(environment.config_dir, {**os.environ, **environment.variables()})


@contextmanager
def _reading(environment: Environment, how: str, wanted: Wanted, **facts: object) -> Iterator[Session]:
    """A session that reads, once the trail says that somebody does."""
    with _writing(environment) as writing, writing.begin() as session:
        audit_search.note(
            session, WRITER, account.at_the_console(), how, wanted, clock.now(), anew=how == "export", **facts
        )
    with _asking(environment, reading=True) as reading, reading() as session:
        yield session


@contextmanager
def _writing(environment: Environment) -> Iterator[Sessions]:
    with _asking(environment, reading=False) as writing:
        yield writing


@contextmanager
def _asking(environment: Environment, reading: bool) -> Iterator[Sessions]:
    engine = connect(environment.database_url, WRITER, reading=reading)
    try:
        yield sessions(engine, WRITER)
    except SQLAlchemyError as error:
        raise EnvironmentFault(database_trouble(error)) from error
    except (signing.SigningFault, SegmentFault) as fault:
        raise click.ClickException(str(fault)) from fault
    finally:
        engine.dispose()


def _looked(environment: Environment, look: Callable[[Session], T]) -> T:
    with _asking(environment, reading=True) as reading, reading() as session:
        return look(session)
