"""Earlier studies that are fetched because an exam is ordered; the clock a parameter."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from gateway import ahead
from zambezi import orders
from zambezi.config.settings import Site, Zambezi
from zambezi.database.engine import Sessions
from zambezi.database.tables import Delivery, Order

RULE = {
    "Name": "old-ones", "When": {"Modality": ["CT", "MR"]}, "Priority": 7,
    "Priors": {"FetchFrom": ["OLD"], "AheadHours": 24, "Years": 3},
}  # fmt: skip
SETTINGS = {"PriorSources": {"OLD": {}}, "Routing": [RULE], "Site": {"TimeZone": "Africa/Maputo"}}


def order(made: Sessions, now: datetime, id: str, hours: float = 3, born: str | None = "19700101", **how: Any) -> int:
    with made.begin() as session:
        patient = orders.register_patient(
            session, patient_id=id, issuer="H", family_name="Teste", birth_date=born, now=now, writer="gateway"
        )
        wanted = orders.NewOrder(scheduled_at=now + timedelta(hours=hours), **{"modality": "CT", **how})
        return orders.place_order(session, patient, wanted, now=now, site=Site(), writer="gateway").id


def look(made: Sessions, now: datetime) -> float:
    return ahead.Looker(made, Zambezi.model_validate(SETTINGS), lambda: now).round()


def fetches(made: Sessions) -> list[Delivery]:
    with made.begin() as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.priority.desc())))


def test_an_exam_within_the_hours_has_its_earlier_studies_fetched_once_and_no_other(made: Sessions, now: datetime):
    urgent = order(made, now, "P1", modality="MR", priority="STAT", study_uid="1.2.3")
    order(made, now, "P2")
    order(made, now, "of another modality", modality="US")
    order(made, now, "too far away", hours=25)
    order(made, now, "long ago", hours=-13)
    order(made, now, "born nobody knows when", born=None)
    order(made, now, "of no modality", modality="")
    assert look(made, now) == 0
    assert look(made, now) == ahead.EVERY_S
    first, second = fetches(made)
    assert (first.kind, first.destination, first.rule, first.state, first.order_id) == (
        "fetch", "OLD", "old-ones", "due", urgent,
    )  # fmt: skip
    assert (first.study_uid, first.priority, second.priority) == ("1.2.3", 100, 7)
    assert first.because == "rule old-ones: an exam is ordered for 2026-03-01 13:30"
    assert json.loads(first.body or b"") == {
        "patient_id": "P1", "issuer": "H", "birth_date": "19700101", "study_date": "20260301", "modalities": ["MR"],
        "parts": [], "how": {"Count": 2, "Years": 3.0, "Same": ["modality"]},
    }  # fmt: skip
    assert json.loads(second.body or b"")["patient_id"] == "P2"
    assert look(made, now + timedelta(hours=2)) == 0  # by now the one too far away is near enough
    assert len(fetches(made)) == 3


def test_an_exam_that_is_cancelled_takes_along_what_was_not_fetched_yet(made: Sessions, now: datetime):
    waits, done = order(made, now, "P1"), order(made, now, "P2")
    look(made, now)
    with made.begin() as session:
        for id in (waits, done):
            orders.set_status(
                session, session.get_one(Order, id), "cancelled", now=now, writer="gateway", reason="not needed"
            )
        session.scalars(select(Delivery).where(Delivery.order_id == done)).one().state = "delivered"
    look(made, now)
    assert {one.order_id: one.state for one in fetches(made)} == {waits: "cancelled", done: "delivered"}


def test_without_a_rule_for_it_nothing_is_looked_for(now: datetime):
    def no_sessions() -> None:
        raise AssertionError("the database was asked")

    nothing: Any = no_sessions
    assert ahead.Looker(nothing, Zambezi(), lambda: now).round() == ahead.NOTHING_S
