"""`zambezi hl7`: what a trigger would send, without sending it."""

from __future__ import annotations

import os

import click
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from gateway.triggers import study_of
from zambezi import causes, clock, config, outbox, telling, triggers
from zambezi.config.settings import Hl7Trigger, Zambezi
from zambezi.database import engine
from zambezi.database.tables import Order, Report, Study
from zambezi.environment import Environment
from zambezi.telling import STATUS, Event
from zambezi.triggers import Happened

#: A field with a PDF in it is no use at a terminal.
_LONGEST = 400


@click.group()
def hl7() -> None:
    """HL7 messages that triggers send."""


@hl7.command("try")
@click.argument("trigger")
@click.argument("study")
@click.option("--state", type=click.Choice(sorted(STATUS)), help="On exam-changed: as if the exam had got this state.")
@click.option("--destination", help="On study-delivered, delivery-parked: as if it were this destination.")
def try_trigger(trigger: str, study: str, state: str | None, destination: str | None) -> None:
    """Show what TRIGGER (its Name) would send about STUDY (Study Instance UID or accession number). Nothing is sent.

    The configuration is read as it is in orthanc-config/ now, so that a template can be tried before it is loaded.
    The message holds a patient's data.
    """
    environment = Environment.read()
    settings = config.load(environment.config_dir, {**os.environ, **environment.variables()}).zambezi
    rule = next((one for one in settings.hl7.triggers if one.name == trigger), None)
    if rule is None:
        known = ", ".join(one.name for one in settings.hl7.triggers) or "none"
        raise click.ClickException(f"no trigger {trigger!r} in Hl7.Triggers (known: {known})")
    central = engine.connect(environment.database_url, "console", reading=True)
    try:
        with engine.sessions(central, "console")() as session:
            click.echo("\n".join(_tried(session, settings, rule, study, state, destination)))
    finally:
        central.dispose()


def _tried(
    session: Session, settings: Zambezi, rule: Hl7Trigger, number: str, state: str | None, destination: str | None
) -> list[str]:
    """The lines to show; ClickException where there is nothing that the message could be about."""
    study, order = _find(session, number)
    now = clock.now()
    event = Event(rule.on, now, reason="" if rule.on == "exam-changed" else "(reason)")
    happened = Happened(rule.on, "", study.cause if study else "", telling.modalities(study, order))
    if rule.on == "exam-changed":
        if order is None:
            raise click.ClickException("the study belongs to no order, so that no exam could change")
        event = Event(rule.on, now, state=state or order.status)
        happened = Happened(rule.on, "", "", happened.modalities, state=event.state)
    elif rule.on in ("study-delivered", "delivery-parked"):
        to = destination or next(iter((*rule.when.destination, *settings.destinations)), "")
        event = Event(rule.on, now, destination=to, reason=event.reason if rule.on == "delivery-parked" else "")
        happened = Happened(rule.on, "", happened.cause, happened.modalities, destination=to)
    elif rule.on == "report-signed":
        report = _report(session, study, order)
        event = Event(rule.on, now, report=report)
        happened = Happened(rule.on, "", "" if order else happened.cause or causes.MODALITY, happened.modalities)
    elif rule.on != "study-rejected":
        event = Event(rule.on, now)
    refusal = triggers.refusal(rule, happened)
    id = outbox.control_id(outbox.delivery_id("try", rule.name, number))
    body = telling.body(settings, rule, id, study, order, event, now)
    peer = settings.hl7.peers[rule.send_to]
    said = f"{rule.name}: On {rule.on}, {rule.says} to {rule.send_to} ({peer.host}:{peer.port}). Nothing was sent."
    would = f"It would not be sent: {refusal}." if refusal else "It would be sent."
    codec = "latin-1" if b"|8859/1" in body.split(b"\r")[0] else "utf-8"
    return [said, would, "", *map(_cut, body.decode(codec).rstrip("\r").split("\r"))]


def _find(session: Session, number: str) -> tuple[Study | None, Order | None]:
    order = session.scalars(
        select(Order).where(or_(Order.study_uid == number, Order.accession_number == number))
    ).first()
    by_number = or_(Study.study_uid == number, Study.accession_number == number)
    study = session.scalars(select(Study).where(by_number).order_by(Study.last_at.desc())).first()
    study = study or study_of(session, None, order)
    if study is None and order is None:
        raise click.ClickException(f"there is no study or order {number}")
    if order is None and study is not None and study.order_id:
        order = session.get(Order, study.order_id)
    return study, order


def _report(session: Session, study: Study | None, order: Order | None) -> Report:
    study_uid = study.study_uid if study else order.study_uid if order else ""
    signed = select(Report).where(Report.study_uid == study_uid, Report.state == "final")
    report = session.scalars(signed.order_by(Report.version.desc())).first()
    if report is None:
        raise click.ClickException("the study has no signed report to tell of")
    return report


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}... ({len(line)} characters)"
