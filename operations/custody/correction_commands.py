"""`zambezi correct`: what the archive holds is put right from the console. Without --yes it is only shown."""

from __future__ import annotations

import functools
import getpass
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from sqlalchemy import select
from sqlalchemy.orm import Session

from operations.custody import previewing
from operations.custody.previewing import Preview
from operations.custody.worker import WRITER
from zambezi import clock, corrections, keys, patients
from zambezi.correctable import SERIES_UID, STUDY_UID, ValueRefused, tag_of
from zambezi.corrections import CorrectionRefused
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import Correction, CorrectionItem, Order, Patient
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancClient, OrthancError

Command = TypeVar("Command", bound=Callable[..., Any])
_UIDS = {"Study": "StudyInstanceUID", "Series": "SeriesInstanceUID", "Instance": "SOPInstanceUID"}


@dataclass(frozen=True)
class Console:
    """What a command works with."""

    environment: Environment
    sessions: Sessions
    orthanc: OrthancClient

    @classmethod
    def open(cls) -> Console:
        environment = Environment.read()
        made = sessions(connect(environment.database_url, "console"), "console")
        client = OrthancClient(environment, keys.load(environment.keys_file), WRITER, timeout_s=120)
        return cls(environment, made, client)


@click.group()
def correct() -> None:
    """Corrections: reassign, merge, split, fix and move what the archive holds, and take that back.

    A correction is shown with all that will change; --yes asks for it, and the process `operations` carries it out.
    """


def told(command: Command) -> Command:
    """Faults that a person can mend are told in words, not as a traceback."""

    @functools.wraps(command)
    def run(*args: Any, **how: Any) -> Any:
        try:
            return command(*args, **how)
        except (CorrectionRefused, ValueRefused, OrthancError) as fault:
            raise click.ClickException(str(fault)) from fault

    return run  # type: ignore[return-value]  # wraps keeps the command's own signature


def asking(command: Command) -> Command:
    """The options of every command that asks for a correction."""
    made = told(command)
    made = click.option("--json", "as_json", is_flag=True, help="For machines.")(made)
    made = click.option("--yes", is_flag=True, help="Ask for it; without this it is only shown.")(made)
    return click.option("--reason", default="", help="Why; it stands in the audit trail. Needed with --yes.")(made)


@correct.command()
@click.option("--study", help="Study Instance UID.")
@click.option("--series", help="Series Instance UID.")
@click.option("--instance", "instances", multiple=True, help="SOP Instance UID; may be given several times.")
@click.option("--patient-id", default="", help="Where two patients have this study.")
@click.option("--set", "values", multiple=True, help="ATTRIBUTE=VALUE, such as PatientBirthDate=19800131.")
@click.option("--remove", multiple=True, help="An attribute to take away.")
@asking
def edit(
    study: str | None, series: str | None, instances: Sequence[str], patient_id: str, values: Sequence[str],
    remove: Sequence[str], **how: Any,
) -> None:  # fmt: skip
    """Fix identifiers, names, dates and descriptions."""
    console = Console.open()
    request = {**_about(console, study, series, instances, patient_id), "set": _changes(values, remove)}
    _ask(console, "edit", request, **how)


@correct.command()
@click.option("--study", "studies", multiple=True, required=True, help="Study Instance UID; several times for several.")
@click.option("--patient-id", default="", help="Who has it now, where two patients have this study.")
@click.option("--order", help="Accession number of the order that it belongs to.")
@click.option("--patient", help="Patient ID of the patient that it belongs to (ID@ISSUER where two issuers have it).")
@asking
def reassign(studies: Sequence[str], patient_id: str, order: str | None, patient: str | None, **how: Any) -> None:
    """Studies belong to another patient, or to another order."""
    console = Console.open()
    request: dict[str, Any] = {"studies": [_place(console, "Study", one, patient_id) for one in studies]}
    with console.sessions.begin() as session:
        if order:
            found = session.scalars(select(Order).where(Order.accession_number == order)).first()
            if found is None:
                raise CorrectionRefused(f"there is no order with the accession number {order}")
            request["order"] = found.id
        if patient:
            request["patients"] = {"into": _patient(session, patient)}
    _ask(console, "reassign", request, **how)


@correct.command()
@click.argument("prior")
@click.argument("survivor")
@asking
def merge(prior: str, survivor: str, **how: Any) -> None:
    """All studies of the patient PRIOR become SURVIVOR's (ID, or ID@ISSUER where two issuers have it)."""
    console = Console.open()
    with console.sessions.begin() as session:
        goes, stays = (session.get_one(Patient, _patient(session, one)) for one in (prior, survivor))
        named = patients.named(session, goes, stays)
    _ask(console, "merge", {"patients": named}, **how)


@correct.command()
@click.option("--study", "studies", multiple=True, required=True, help="Study Instance UID; several times for several.")
@click.option("--patient-id", default="", help="Who has it now, where two patients have this study.")
@click.option("--patient", help="Patient ID of a registered patient (ID@ISSUER where two issuers have it).")
@click.option("--set", "values", multiple=True, help="ATTRIBUTE=VALUE of a patient that isn't registered.")
@asking
def split(studies: Sequence[str], patient_id: str, patient: str | None, values: Sequence[str], **how: Any) -> None:
    """Studies that were put under a patient by mistake go to another patient ID."""
    console = Console.open()
    named = [_place(console, "Study", one, patient_id) for one in studies]
    request: dict[str, Any] = {"studies": named, "set": _changes(values, ())}
    if patient:
        with console.sessions.begin() as session:
            request["patients"] = {"into": _patient(session, patient)}
    _ask(console, "split", request, **how)


@correct.command()
@click.option("--series", help="Series Instance UID.")
@click.option("--instance", "instances", multiple=True, help="SOP Instance UID; may be given several times.")
@click.option("--patient-id", default="", help="Where two patients have these images.")
@click.option("--into-study", required=True, help="Study Instance UID of the study that they belong to.")
@click.option("--into-series", help="Series Instance UID, where they belong to another series, too.")
@asking
def move(
    series: str | None, instances: Sequence[str], patient_id: str, into_study: str, into_series: str | None, **how: Any
) -> None:
    """Images go to another study, and take what it says of patient and study."""
    console = Console.open()
    changes = {STUDY_UID: into_study, **({SERIES_UID: into_series} if into_series else {})}
    request = {**_about(console, None, series, instances, patient_id), "set": changes}
    _ask(console, "move", request, **how)


@correct.command()
@click.argument("number", type=int)
@asking
def undo(number: int, **how: Any) -> None:
    """Give the archive the bytes back that it had before a correction."""
    _ask(Console.open(), "undo", {}, undo_of=number, **how)


@correct.command()
@click.argument("number", type=int)
@told
def retry(number: int) -> None:
    """Try a correction again that a person had to look at."""
    _decide(number, corrections.retry)


@correct.command()
@click.argument("number", type=int)
@told
def cancel(number: int) -> None:
    """Don't carry a correction out; possible until the archive is being changed."""
    _decide(number, corrections.cancel)


@correct.command("list")
@click.option("--state", help="Only these: due, preparing, switching, retrying, done, parked, cancelled.")
@click.option("--limit", default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def list_corrections(state: str | None, limit: int, as_json: bool) -> None:
    """Corrections, the newest first."""
    query = select(Correction).order_by(Correction.id.desc()).limit(limit)
    if state:
        query = query.where(Correction.state == state)
    with Console.open().sessions.begin() as session:
        rows = session.scalars(query).all()
    if as_json:
        click.echo(json.dumps([_facts(row) for row in rows], indent=2))
        return
    for row in rows:
        click.echo(
            f"{row.id:>6}  {row.created_at[:16]}  {row.kind:<8}  {row.state:<9}  {row.asked_by:<16}  {row.reason}"
        )


@correct.command()
@click.argument("number", type=int)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def show(number: int, as_json: bool) -> None:
    """One correction: what was asked, how far it is, and each of its instances. It holds a patient's data."""
    with Console.open().sessions.begin() as session:
        row = session.get(Correction, number)
        items = corrections.items_of(session, number)
    if row is None:
        raise click.ClickException(f"there is no correction {number}")
    if as_json:
        click.echo(
            json.dumps({**_facts(row), "request": row.request, "items": [_item(one) for one in items]}, indent=2)
        )
        return
    click.echo(f"correction {row.id} ({row.kind}), {row.state}, asked by {row.asked_by} on {row.created_at}")
    click.echo(f"reason: {row.reason}")
    for tag, value in (row.request.get("set") or {}).items():
        click.echo(f"    {tag}: {'removed' if value is None else value}")
    if row.outcome:
        click.echo(f"outcome: {row.outcome}")
    for one in items:
        click.echo(f"  {one.state:<8}  {one.sop_uid}  {one.old_orthanc_id} -> {one.new_orthanc_id or '?'}")


def _ask(
    console: Console, kind: str, request: Mapping[str, Any], reason: str, yes: bool, as_json: bool,
    undo_of: int | None = None,
) -> None:  # fmt: skip
    if not yes:
        seen = previewing.preview(
            console.sessions, console.orthanc, console.environment.hold_dir, kind, request, now=clock.now(),
            undo_of=undo_of, at_most=None,
        )  # fmt: skip
        _show(seen, as_json)
        return
    with console.sessions.begin() as session:
        number = patients.ask(
            session, kind, request, reason=reason, who=_who(), now=clock.now(), writer=WRITER, undo_of=undo_of
        )
        row = session.get_one(Correction, number)
    said = f"correction {row.id} is asked for; zambezi correct show {row.id} says how far it is"
    click.echo(json.dumps(_facts(row), indent=2) if as_json else said)


def _decide(number: int, act: Callable[..., None]) -> None:
    with Console.open().sessions.begin() as session:
        act(session, number, _who(), clock.now(), WRITER)
        click.echo(f"correction {number} is {session.get_one(Correction, number).state}")


def _show(seen: Preview, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(seen.as_json, indent=2))
        return
    for study in seen.studies:
        of = f"study {study.study_uid}, patient {study.patient_id}"
        click.echo(f"{study.instances} instances in {study.series} series of {of}")
        if (study.study_uid, study.patient_id) != (study.new_study_uid, study.new_patient_id):
            click.echo(f"    -> study {study.new_study_uid}, patient {study.new_patient_id}")
    if seen.order:
        click.echo(f"    -> order {seen.order}")
    for change in seen.changes:
        click.echo(f"  {change.name}: {change.old!r} -> {change.new!r} ({change.instances})")
    for receiver in seen.receivers:
        click.echo(
            f"  {receiver.name} has the old copy of {receiver.instances} instances and will be sent the corrected one"
        )
    for report in seen.reports:
        click.echo(f"  report {report.id}, version {report.version}, {report.state}, is on study {report.study_uid}")
    for warning in seen.warnings:
        click.echo(f"  ! {warning}", err=True)
    click.echo("Nothing was changed." + (" --yes --reason WHY asks for it." if seen.is_possible else ""))


def _about(
    console: Console, study: str | None, series: str | None, instances: Sequence[str], patient_id: str
) -> dict[str, Any]:
    named = {name: value for name, value in (("study", study), ("series", series), ("instances", instances)) if value}
    if len(named) != 1:
        raise CorrectionRefused("name what it is about by one of --study, --series and --instance")
    if study:
        return {"study": _place(console, "Study", study, patient_id)}
    if series:
        return {"series": _place(console, "Series", series, patient_id)}
    return {"instances": [_place(console, "Instance", one, patient_id)["orthanc_id"] for one in instances]}


def _place(console: Console, level: str, uid: str, patient_id: str) -> dict[str, str]:
    """Where the archive has it; CorrectionRefused unless that is one place."""
    query = {_UIDS[level]: uid, **({"PatientID": patient_id} if patient_id else {})}
    found = [str(one) for one in console.orthanc.find(level, query)]
    if len(found) != 1:
        which = "is not in the archive" if not found else f"is under {len(found)} patients: say which by --patient-id"
        raise CorrectionRefused(f"{level.lower()} {uid} {which}")
    return {"orthanc_id": found[0], **({f"{level.lower()}_uid": uid} if level != "Instance" else {})}


def _patient(session: Session, named: str) -> int:
    patient_id, _, issuer = named.partition("@")
    query = select(Patient.id).where(Patient.patient_id == patient_id)
    found = session.scalars(query.where(Patient.issuer == issuer) if issuer else query).all()
    if len(found) != 1:
        which = "several issuers have it: write ID@ISSUER" if found else "register the patient first"
        raise CorrectionRefused(f"patient {named}: {which}")
    return found[0]


def _changes(values: Sequence[str], remove: Sequence[str]) -> dict[str, str | None]:
    changes: dict[str, str | None] = {tag_of(name): None for name in remove}
    for one in values:
        name, equals, value = one.partition("=")
        if not equals:
            raise CorrectionRefused(f"--set {one}: write ATTRIBUTE=VALUE")
        changes[tag_of(name)] = value
    return changes


def _facts(row: Correction) -> dict[str, Any]:
    names = ("id", "kind", "state", "reason", "asked_by", "undo_of", "outcome", "created_at", "updated_at", "done_at")
    return {name: getattr(row, name) for name in names}


def _item(one: CorrectionItem) -> dict[str, Any]:
    names = ("sop_uid", "state", "old_orthanc_id", "new_orthanc_id", "old_study_uid", "new_study_uid")
    return {name: getattr(one, name) for name in (*names, "old_sha256", "new_sha256")}


def _who() -> str:
    return f"console:{getpass.getuser()}"
