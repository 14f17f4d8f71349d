"""`zambezi delete` and `zambezi legal-hold`: what the pages do, at the console."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import click
from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import clock, config, deletions
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import Deletion, LegalHold, Study
from zambezi.deletions import Refused
from zambezi.environment import Environment

#: What is done at the console goes into the chain of the pages.
CHAIN = "ris"


@click.group()
def delete() -> None:
    """Images leave the archive: asked for by one, confirmed by another, after a wait; copies stay in the hold."""


@delete.command()
@click.argument("study_uid")
@click.option("--archive-id", help="Orthanc's id of the study, where patients' studies share the Study Instance UID.")
@click.option("--series", "series_uid", help="One series only: its Series Instance UID.")
@click.option("--image", "sop_uid", help="One image of the series only: its SOP Instance UID.")
@click.option("--code", required=True, type=click.Choice(list(deletions.CODES)), help="Why, as IHE IOCM names it.")
@click.option("--reason", required=True, help="Why, in words. No patient's name.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def ask(
    study_uid: str, archive_id: str | None, series_uid: str | None, sop_uid: str | None, code: str, reason: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Ask for the deletion of the study STUDY_UID; another person must confirm it."""

    def act(session: Session) -> Deletion:
        found = session.scalars(select(Study).where(Study.study_uid == study_uid)).all()
        chosen = [one for one in found if archive_id in (None, one.orthanc_id)]
        if len(chosen) > 1:
            ids = ", ".join(f"--archive-id {one.orthanc_id}" for one in chosen)
            raise click.ClickException(f"{len(chosen)} patients' studies have this UID; say which: {ids}")
        if not chosen:
            raise click.ClickException(f"the archive has no study {study_uid}")
        return deletions.ask(
            session, study_uid=study_uid, study_orthanc_id=chosen[0].orthanc_id, series_uid=series_uid,
            sop_uid=sop_uid, code=code, reason=reason, who=_who(), now=clock.now(), writer=CHAIN,
        )  # fmt: skip

    _say(_done(act), as_json)


@delete.command()
@click.argument("number", type=int)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def confirm(number: int, as_json: bool) -> None:
    """Confirm deletion NUMBER as the second person."""
    hours = config.load(Environment.read().config_dir, os.environ).zambezi.deletion.waiting_hours
    _say(
        _decided(
            number,
            lambda session, one: deletions.confirm(session, one, _who(), clock.now(), CHAIN, timedelta(hours=hours)),
        ),
        as_json,
    )


@delete.command()
@click.argument("number", type=int)
@click.option("--reason", default="", help="Why, in words.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def withdraw(number: int, reason: str, as_json: bool) -> None:
    """Withdraw deletion NUMBER: nothing goes. Until its first image is deleted."""
    _say(
        _decided(number, lambda session, one: deletions.withdraw(session, one, _who(), clock.now(), CHAIN, reason)),
        as_json,
    )


@delete.command()
@click.argument("number", type=int)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def again(number: int, as_json: bool) -> None:
    """Try deletion NUMBER again, which has stopped, once what was in the way is put right."""
    _say(_decided(number, lambda session, one: deletions.again(session, one, _who(), clock.now(), CHAIN)), as_json)


@delete.command()
@click.argument("number", type=int)
@click.option("--reason", required=True, help="Why, in words.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def restore(number: int, reason: str, as_json: bool) -> None:
    """Put back what deletion NUMBER removed, byte for byte."""
    _say(
        _decided(number, lambda session, one: deletions.restore(session, one, _who(), reason, clock.now(), CHAIN)),
        as_json,
    )


@delete.command("list")
@click.option("--all", "show_all", is_flag=True, help="Those that are over, too.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(show_all: bool, as_json: bool) -> None:
    """Deletions, the newest first."""
    with _database().begin() as session:
        query = select(Deletion).order_by(Deletion.id.desc())
        if not show_all:
            query = query.where(Deletion.state.in_((*deletions.OPEN, "restoring")))
        found = [_facts(session, one) for one in session.scalars(query).all()]
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for one in found:
        when = f"not before {_local(one['not_before'])}" if one["state"] == "confirmed" else one["outcome"]
        click.echo(f"{one['deletion']:>5} {one['state']:<10} {one['code']:<15} {one['study_uid']} {when}".rstrip())


@delete.command()
@click.argument("number", type=int)
@click.option("--json", "as_json", is_flag=True, help="For programs: with the list of instances and digests.")
def show(number: int, as_json: bool) -> None:
    """Everything that is known of deletion NUMBER."""
    with _database().begin() as session:
        found = _facts(session, _deletion(session, number))
        listed = deletions.items(session, _deletion(session, number))
        found["instances"] = [
            {"sop_uid": one.sop_uid, "series_uid": one.series_uid, "sha256": one.sha256, "state": one.state}
            for one in listed
        ]
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    counts = f"{len(listed)} listed, {found['gone']} left the archive"
    for name, value in {**found, "instances": counts}.items():
        if value not in (None, "", []):
            click.echo(f"{name.replace('_', ' '):<14} {value}")


@click.group("legal-hold")
def legal_hold() -> None:
    """Nothing of a study or of a patient may be deleted while a legal hold stands."""


@legal_hold.command("set")
@click.option("--study", "study_uid", help="Study Instance UID.")
@click.option("--patient", "patient_id", help="Patient ID.")
@click.option("--reason", required=True, help="Why, and who asked for it.")
def set_(study_uid: str | None, patient_id: str | None, reason: str) -> None:
    """Set a legal hold; what was confirmed is stopped at once."""
    made = _done(
        lambda session: deletions.set_legal_hold(
            session, study_uid=study_uid, patient_id=patient_id, reason=reason, who=_who(), now=clock.now(),
            writer=CHAIN,
        )
    )  # fmt: skip
    click.echo(f"legal hold {made.id} stands")


@legal_hold.command()
@click.argument("number", type=int)
@click.option("--reason", required=True, help="Why, in words.")
def lift(number: int, reason: str) -> None:
    """Lift legal hold NUMBER. What it stopped must be confirmed anew."""

    def act(session: Session) -> LegalHold:
        found = session.get(LegalHold, number)
        if found is None:
            raise click.ClickException(f"no legal hold {number}; `zambezi legal-hold list` shows them")
        return deletions.lift_legal_hold(session, found, reason, _who(), clock.now(), CHAIN)

    _done(act)
    click.echo(f"legal hold {number} is lifted")


@legal_hold.command("list")
@click.option("--all", "show_all", is_flag=True, help="Those that were lifted, too.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_holds(show_all: bool, as_json: bool) -> None:
    """Legal holds, the newest first."""
    with _database().begin() as session:
        query = select(LegalHold).order_by(LegalHold.id.desc())
        found = [_hold_facts(one) for one in session.scalars(query).all() if show_all or one.lifted_at is None]
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for one in found:
        about = f"study {one['study_uid']}" if one["study_uid"] else f"patient {one['patient_id']}"
        lifted = f", lifted by {one['lifted_by']} {_local(one['lifted_at'])}" if one["lifted_at"] else ""
        click.echo(
            f"{one['legal_hold']:>5} {about}, set by {one['set_by']} {_local(one['set_at'])}{lifted}: {one['reason']}"
        )


def _database() -> Sessions:
    return sessions(connect(Environment.read().database_url, "console"), "console")


def _who() -> str:
    """The machine's account that typed it, as the system knows it: what $USER says could be anybody."""
    return f"console:{pwd.getpwuid(os.getuid()).pw_name}"


def _done(act: Callable[[Session], Any]) -> Any:
    try:
        with _database().begin() as session:
            return act(session)
    except Refused as refused:
        raise click.ClickException(str(refused)) from None


def _decided(number: int, act: Callable[[Session, Deletion], Deletion]) -> Deletion:
    made: Deletion = _done(lambda session: act(session, _deletion(session, number)))
    return made


def _deletion(session: Session, number: int) -> Deletion:
    found = session.get(Deletion, number)
    if found is None:
        raise click.ClickException(f"no deletion {number}; `zambezi delete list --all` shows them")
    return found


def _say(deletion: Deletion, as_json: bool) -> None:
    if as_json:
        with _database().begin() as session:
            click.echo(json.dumps(_facts(session, deletion), indent=1))
        return
    then = {
        "asked": f"another person confirms it: on the page /deletions/{deletion.id}, or "
        f"`zambezi delete confirm {deletion.id}` from another account",
        "confirmed": f"carried out not before {_local(deletion.not_before)}; until then: "
        f"`zambezi delete withdraw {deletion.id}`",
        "retrying": "custody takes it up at once",
        "restoring": "custody puts the copies back at once",
        "withdrawn": "nothing is deleted",
    }
    click.echo(f"deletion {deletion.id} is {deletion.state}: {then.get(deletion.state, deletion.outcome)}")


def _facts(session: Session, one: Deletion) -> dict[str, Any]:
    return {
        "deletion": one.id, "state": one.state, "study_uid": one.study_uid, "series_uid": one.series_uid,
        "sop_uid": one.sop_uid, "code": one.code, "reason": one.reason, "asked_by": one.asked_by,
        "asked_at": one.asked_at, "confirmed_by": one.confirmed_by, "confirmed_at": one.confirmed_at,
        "not_before": one.not_before, "done_at": one.done_at, "restored_by": one.restored_by,
        "restored_at": one.restored_at, "outcome": one.outcome,
        "gone": deletions.gone_counts(session, [one.id]).get(one.id, 0),
    }  # fmt: skip


def _hold_facts(one: LegalHold) -> dict[str, Any]:
    return {
        "legal_hold": one.id, "study_uid": one.study_uid, "patient_id": one.patient_id, "reason": one.reason,
        "set_by": one.set_by, "set_at": one.set_at, "lifted_by": one.lifted_by, "lifted_at": one.lifted_at,
        "lift_reason": one.lift_reason,
    }  # fmt: skip


def _local(written: str | None) -> str:
    if not written:
        return "-"
    zone = config.load(Environment.read().config_dir, os.environ).zambezi.site.zone
    return f"{clock.parse(written).astimezone(zone):%Y-%m-%d %H:%M}"
