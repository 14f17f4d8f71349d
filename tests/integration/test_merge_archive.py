"""A merge with a real archive behind it: images, orders, reports and counts follow, and come back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select

from gateway.journal import Follower
from tests.integration.archive_fixture import until
from tests.integration.correcting import Room, a_room
from zambezi import clock, orders, patients, reports
from zambezi.config.settings import Site, Zambezi
from zambezi.database.tables import Correction, Order, Patient, Report, Series, Study


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    with a_room(tmp_path_factory.mktemp("merge")) as made:
        yield made


def follow(room: Room) -> None:
    """Take over all that the archive's journal has now, as the gateway does."""
    follower = Follower(room.sessions, Zambezi(), room.archive.as_service("gateway"))
    last = int(room.orthanc.get("/changes", last="")["Last"])
    until(lambda: int(room.orthanc.get("/zambezi/status")["follower"]["change"]) >= last, 20)
    # Deletions aren't in /changes: the journal has them a moment later.
    until(lambda: follower.follow(wait_s=0) == 0 and not follower.follow(wait_s=1), 20)


def a_patient(room: Room, patient_id: str) -> int:
    with room.sessions.begin() as session:
        return orders.register_patient(
            session, patient_id=patient_id, issuer="HCZ", family_name="Tembe", given_name=patient_id,
            birth_date="19700101", sex="F", now=clock.now(), writer="ris",
        ).id  # fmt: skip


def state(room: Room) -> dict[str, object]:
    """What the tables say of the one study there is."""
    follow(room)
    with room.sessions.begin() as session:
        (study,) = session.scalars(select(Study)).all()
        order = session.get(Order, study.order_id) if study.order_id else None
        series = session.scalars(select(Series).where(Series.instances > 0)).all()
        (report,) = session.scalars(select(Report)).all()
        return {
            "patient_id": study.patient_id, "instances": study.instances, "orthanc_id": study.orthanc_id,
            "order_of": order.patient.patient_id if order else None, "status": order.status if order else None,
            "series": sum(one.instances for one in series), "report": report.order_id == study.order_id,
        }  # fmt: skip


def test_images_orders_and_counts_follow_a_merge_and_come_back(room: Room):
    a, b = a_patient(room, "MA"), a_patient(room, "MB")
    images = room.study(3, PatientID="MA")
    uid = str(images[0].StudyInstanceUID)
    with room.sessions.begin() as session:
        wanted = orders.NewOrder(scheduled_at=clock.now() - timedelta(hours=1), modality="OT", study_uid=uid)
        orders.place_order(
            session, session.get_one(Patient, a), wanted, now=clock.now(), site=Site(issuer="HCZ"), writer="ris"
        )  # fmt: skip
    room.store(*images)
    follow(room)
    with room.sessions.begin() as session:
        study = session.scalars(select(Study)).one()
        reports.begin(session, uid, study.order_id, author="ana", language="pt", now=clock.now(), writer="ris")
    before = state(room)
    assert (before["patient_id"], before["instances"], before["order_of"]) == ("MA", 3, "MA")
    with room.sessions.begin() as session:
        prior, survivor = session.get_one(Patient, a), session.get_one(Patient, b)
        how = {"now": clock.now(), "writer": "gateway", "who": "his"}
        made = patients.merge(session, prior=prior, survivor=survivor, **how)
    room.carry_out(made.correction)
    merged = state(room)
    assert merged["orthanc_id"] != before["orthanc_id"]
    assert merged == before | {"patient_id": "MB", "order_of": "MB", "orthanc_id": merged["orthanc_id"]}
    (there,) = room.orthanc.find("Study", {"StudyInstanceUID": uid}, expand=True)
    assert (there["ID"], there["PatientMainDicomTags"]["PatientID"]) == (merged["orthanc_id"], "MB")
    with room.sessions.begin() as session:
        asked = patients.ask(session, "undo", {}, reason="duas", who="ana", undo_of=made.correction,
                             now=clock.now(), writer="ris")  # fmt: skip
    room.carry_out(asked)
    assert state(room) == before


def test_images_that_come_late_under_the_old_identifier_are_corrected(room: Room):
    a, b = a_patient(room, "LA"), a_patient(room, "LB")
    with room.sessions.begin() as session:
        prior, survivor = session.get_one(Patient, a), session.get_one(Patient, b)
        patients.merge(session, prior=prior, survivor=survivor, now=clock.now(), writer="gateway", who="his")
    late = room.study(2, PatientID="LA", AccessionNumber="")
    room.store(*late)
    uid = str(late[0].StudyInstanceUID)

    def asked() -> Correction | None:
        follow(room)
        with room.sessions.begin() as session:
            return session.scalars(select(Correction).where(Correction.kind == "reassign")).first()

    room.carry_out(until(asked, 40).id)
    (there,) = room.orthanc.find("Study", {"StudyInstanceUID": uid}, expand=True)
    assert there["PatientMainDicomTags"]["PatientID"] == "LB"
