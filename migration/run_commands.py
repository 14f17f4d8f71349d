"""`zambezi migrate`: what is urgent, what waits for a person, passes for what is new, and the list for cut-over."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from datetime import tzinfo
from typing import Any, cast, get_args

import click
from sqlalchemy import select
from sqlalchemy.orm import Session

from migration import cutover, delta, office, settling
from migration.settling import Decision, Refused, Wanted
from migration.source import CutOff, Trouble
from zambezi import clock, windows
from zambezi.database.tables import MigrationProject
from zambezi.orthanc_client import OrthancError

LISTED = 200


@click.command()
@click.argument("name")
@click.argument("study_or_patient")
@click.option("--because", required=True, help="Why, such as: patient is in the room.")
def urgent(name: str, study_or_patient: str, because: str) -> None:
    """Bring a study, or all studies of a patient, before everything else of the migration NAME."""
    opened = _office()
    with opened.sessions.begin() as session:
        project = _project(session, name)
        try:
            found = settling.urgent(session, project.id, study_or_patient.strip(), because, _who(), clock.now())
        except Refused as refused:
            raise click.ClickException(str(refused)) from refused
        said = [
            f"  {row.study_uid} of {row.study_date or 'no date'}, {row.expected} images: {row.state}" for row in found
        ]
    if not found:
        raise click.ClickException(
            f"nothing of {study_or_patient} waits in {name}: no such Study UID or patient identifier, or it is at rest"
        )
    click.echo("\n".join([f"{len(found)} studies go before everything else:", *said]))


@click.command("exceptions")
@click.argument("name")
@click.option("--state", default="", type=click.Choice(["", *settling.ALLOWED]), help="Only studies in this state.")
@click.option("--text", default="", help="Only those whose reason holds this text.")
@click.option("--study", "studies", multiple=True, help="Only this Study Instance UID; may be given again.")
@click.option("--decide", "decision", type=click.Choice(get_args(Decision)), help="Decide all of them so.")
@click.option("--because", default="", help="Why; it stands in the audit trail and on the certificate.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def exceptions_command(
    name: str, state: str, text: str, studies: tuple[str, ...], decision: str | None, because: str, as_json: bool
) -> None:
    """List what waits for a person in NAME, each with what we would do; decide it with --decide."""
    opened, wanted = _office(), Wanted(state, text, studies)
    if decision:
        click.echo(f"{_decide(opened, name, wanted, cast('Decision', decision), because)} studies: {decision}")
        return
    with opened.sessions.begin() as session:
        project = _project(session, name)
        rows = settling.waiting(session, project.id, wanted, LISTED + 1)
        facts = [_fact(row) for row in rows[:LISTED]]
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    for fact in facts:
        click.echo(f"{fact['study_uid']}  {fact['state']}: {fact['reason']}")
        click.echo(f"  we would: {fact['suggested']}; allowed: {', '.join(fact['allowed'])}")
    if len(rows) > LISTED:
        click.echo(f"The first {LISTED}; narrow them by --state or --text.")
    click.echo("" if facts else f"Nothing of {name} waits for a person.", nl=not facts)


def _decide(opened: office.Office, name: str, wanted: Wanted, decision: Decision, because: str) -> int:
    done, after = 0, 0
    try:
        while True:  # a transaction each, so that workers get in between
            with opened.sessions.begin() as session:
                project = _project(session, name)
                some, behind = settling.decide_many(
                    session, project, wanted, decision, because, _who(), clock.now(), after
                )  # fmt: skip
            done += some
            if behind is None:
                return done
            after = behind
    except Refused as refused:
        raise click.ClickException(f"{refused} ({done} were decided before)") from refused


def _fact(row: Any) -> dict[str, Any]:
    allowed = settling.ALLOWED.get(row.state, ())
    return {
        "study_uid": row.study_uid, "state": row.state, "reason": row.reason, "expected": row.expected,
        "stored": row.stored, "attempts": row.attempts, "suggested": allowed[0] if allowed else "",
        "allowed": list(allowed),
    }  # fmt: skip


@click.command("delta")
@click.argument("name")
@click.option("--all", "everything", is_flag=True, help="Count every study again, not only what can have changed.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def delta_command(name: str, everything: bool, as_json: bool) -> None:
    """Look for what is new at the source of NAME since its inventory."""
    opened = _office()
    with opened.sessions.begin() as session:
        project = _project(session, name)
        project_id, source = project.id, project.source
    settings, site = opened.configuration.zambezi.migration.sources.get(source), opened.configuration.zambezi.site
    if settings is None:
        raise click.ClickException(f"the configuration has no source {source} any more (Migration.Sources)")
    if not windows.is_open(settings.windows, clock.now(), site.zone, site.holidays):
        raise click.ClickException(f"the windows of {source} are closed now")

    def said(done: int, of: int) -> None:
        if not as_json and (done % 500 == 0 or done == of):
            click.echo(f"  {done} of {of} studies looked at", err=True)

    try:
        done = delta.take(opened.sessions, opened.source(source), project_id, _who(), clock.now, everything, said)
    except (OrthancError, Trouble, CutOff) as error:
        raise click.ClickException(f"the pass was cut off, and proves nothing: {error}") from error
    if as_json:
        click.echo(json.dumps({column.name: getattr(done, column.name) for column in done.__table__.columns}, indent=1))
        return
    click.echo(
        f"Pass {done.number} of {name}: {done.studies} studies at the source, {done.counted} of them counted: "
        f"{done.new_studies} new studies, {done.new_instances} new instances in known ones, {done.doubts} doubts."
    )
    if done.new_studies or done.new_instances:
        click.echo(f"Next: zambezi migrate run {name}")


#: The lines of the checklist, in words for a terminal.
LINES = {
    "coverage": "the inventory shows that it names everything (doubts: {count})",
    "passes": "the last passes found nothing new (in a row: {count}, wanted: {wanted}): zambezi migrate delta",
    "fresh": "the last pass is of the last 24 hours (it ended: {time})",
    "at-rest": "no study is under way or waits its turn (there are: {count})",
    "decided": "nothing waits for a person (there are: {count}): zambezi migrate exceptions",
    "matched": "no study is held because nobody has said whose it is (there are: {count})",
    "routes": "modalities send their new studies here (in the last 24 hours: {count})",
    "certificate": "a certificate was issued after the last study came (it is of: {time}): zambezi migrate certificate",
}


@click.command("cutover")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def cutover_command(name: str, as_json: bool) -> None:
    """Say what has to hold before the old archive of NAME is switched off; ends with 1 unless all of it does."""
    opened = _office()
    with opened.sessions.begin() as session:
        lines = cutover.checklist(cutover.facts(session, _project(session, name), clock.now()), clock.now())
    if as_json:
        click.echo(json.dumps([{"name": one.name, "holds": one.holds, **one.facts} for one in lines], indent=1))
    else:
        for one in lines:
            click.echo(f"{'yes' if one.holds else 'NO ':3}  {LINES[one.name].format_map(one.facts)}")
    if not all(one.holds for one in lines):
        raise SystemExit(1)


def ends(fact: Mapping[str, Any], zone: tzinfo) -> str:
    """When a migration may be done, as far as that can be told."""
    told = fact["estimate"]
    if not fact["left"]:
        return "none left"
    if told is None:
        return "too little was done lately to say when it ends"
    likely, earliest, latest = (_day(told[name], zone) for name in ("likely", "earliest", "latest"))
    return f"done about {likely} (between {earliest} and {latest}, if it goes on as lately)"


def healthy(health: Mapping[str, Any], zone: tzinfo) -> str:
    """How the source is, in a line."""
    said = f"{health['in_use']} of {health['slots']} studies at once (ceiling {health['ceiling']})"
    because = f": {health['because']}" if health["because"] else ""
    change = health["window_changes"]
    window = "" if not change else f"; its window {'closes' if health['window_open'] else 'opens'} {_day(change, zone)}"
    slow = health["near_line"]
    beside = f"; near-line beside them: {slow} of {health['near_line_slots']}" if slow else ""
    return f"source: {said}{because}{beside}{window}"


def _day(moment: str | None, zone: tzinfo) -> str:
    return f"{clock.parse(moment).astimezone(zone):%Y-%m-%d %H:%M}" if moment else "in more than five years"


def _office() -> office.Office:
    try:
        return office.open_office()
    except FileNotFoundError as error:
        raise click.ClickException(f"{error.filename} is not there; start the installation: `zambezi up`") from error


def _project(session: Session, name: str) -> MigrationProject:
    project = session.scalars(select(MigrationProject).where(MigrationProject.name == name)).first()
    if project is None:
        raise click.ClickException(f"no migration {name}; `zambezi migrate status` lists them")
    return project


def _who() -> str:
    return getpass.getuser()


COMMANDS = (urgent, exceptions_command, delta_command, cutover_command)
