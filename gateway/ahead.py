"""Earlier studies fetched because an exam is ordered, before its images come: for rules with Priors.AheadHours.

Whoever ordered it, a page of the RIS or HL7, it is a row of the central database, and there it is looked for. What is
wanted becomes a delivery as when images come (gateway.fetching): once an order and rule, inside the source's windows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from gateway.fetching import KIND, Wanted
from zambezi import causes, clock, outbox
from zambezi.config.settings import Route, Zambezi
from zambezi.database.engine import Sessions
from zambezi.database.tables import Delivery, Order, Patient

WRITER = "gateway"
#: An exam that was to be so long ago still is: the patient is late.
BACK = timedelta(hours=12)
#: So many orders of one rule in one transaction, the soonest first.
AT_ONCE = 100
EVERY_S = 5.0
#: Without a rule for it there is nothing to look for.
NOTHING_S = 3600.0


@dataclass(frozen=True)
class Ahead:
    """What one rule wants of one order: from where, and why."""

    sources: tuple[str, ...]
    because: str
    priority: int
    wanted: Wanted


def of(rule: Route, order: Order, zone: tzinfo) -> Ahead:
    """What is fetched for an order that the rule takes."""
    assert rule.priors is not None  # Looker asks no other
    patient, local = order.patient, clock.parse(order.scheduled_at).astimezone(zone)
    return Ahead(
        tuple(dict.fromkeys(rule.priors.fetch_from)),
        f"rule {rule.name}: an exam is ordered for {local:%Y-%m-%d %H:%M}",
        max(rule.priority, causes.ORDERED.get(order.priority, 0)),
        Wanted(
            patient.patient_id, patient.issuer, patient.birth_date or "", f"{local:%Y%m%d}", [order.modality], [],
            rule.priors.of_each_other,
        ),
    )  # fmt: skip


class Looker:
    """Looks for orders that are due; used by one thread. What another gateway's has found is there already."""

    def __init__(self, sessions: Sessions, settings: Zambezi, now: Callable[[], datetime] = clock.now) -> None:
        self._sessions = sessions
        self._zone = settings.site.zone
        self._rules = [one for one in settings.routing if one.priors and one.priors.ahead_hours]
        self._now = now

    def round(self) -> float:
        """Put what is due into the outbox, take out what is of no use any more; the seconds to wait."""
        if not self._rules:
            return NOTHING_S
        with self._sessions.begin() as session:
            found = sum(self._look(session, rule) for rule in self._rules)
            self._forget(session)
        return 0.0 if found else EVERY_S

    def _look(self, session: Session, rule: Route) -> int:
        now, hours = self._now(), rule.priors.ahead_hours if rule.priors else None
        test = rule.when.modality
        due = (
            select(Order)
            .join(Patient, Order.patient_key == Patient.id)
            .where(
                Order.status.in_(("scheduled", "arrived")),
                Order.scheduled_at >= clock.text(now - BACK),
                Order.scheduled_at <= clock.text(now + timedelta(hours=hours or 0)),
                Patient.birth_date != "",  # nothing would be asked for without it
                Order.modality != "",  # nor would anything be alike
                ~exists().where(
                    Delivery.study_uid == Order.study_uid, Delivery.kind == KIND, Delivery.rule == rule.name
                ),
            )
            .order_by(Order.scheduled_at, Order.id)
            .limit(AT_ONCE)
        )
        if test:
            due = due.where(Order.modality.in_([str(one) for one in test.equal]))
        orders = session.scalars(due).all()
        for order in orders:
            ahead = of(rule, order, self._zone)
            for source in ahead.sources:
                outbox.add(
                    session, id=outbox.delivery_id("order", order.id, rule.name, source), kind=KIND, rule=rule.name,
                    destination=source, because=ahead.because, now=now, writer=WRITER, study_uid=order.study_uid,
                    order_id=order.id, body=ahead.wanted.written, priority=ahead.priority,
                )  # fmt: skip
        return len(orders)

    def _forget(self, session: Session) -> None:
        """An exam that will not be needs no earlier ones."""
        gone = (
            select(Delivery.id)
            .join(Order, Delivery.order_id == Order.id)
            .where(
                Delivery.kind == KIND, Delivery.state.in_(("due", "retrying")),
                Order.status.in_(("cancelled", "discontinued")),
            )
        )  # fmt: skip
        for id in session.scalars(gone).all():
            outbox.cancel(session, id, now=self._now(), writer=WRITER, who="the order itself")
