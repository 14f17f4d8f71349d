"""Which study is meant where several rows carry one Study Instance UID."""

import pytest
from sqlalchemy import select

from gateway.effects import Effects
from tests.unit.patients.people import NOW, a_patient, a_study, an_order
from zambezi import chain, clock, reports, studies
from zambezi.config.settings import Zambezi
from zambezi.database.tables import Delivery, Report

UID = "1.2.1"
SETTINGS = Zambezi.model_validate(
    {
        "Hl7": {
            "Peers": {"his": {"Host": "127.0.0.1", "Port": 2575, "Application": "HIS", "Facility": "H"}},
            "Triggers": [{"Name": "told", "On": "report-signed", "SendTo": "his", "Message": "ORU^R01"}],
        }
    }
)


def sign(session, order=None):
    reports.begin(session, UID, order.id if order else None, author="ana", language="pt", now=NOW, writer="ris")
    reports.save(session, UID, 1, 0, reports.Text("", "Normal.", ""), who="ana", now=NOW, writer="ris")
    reports.sign(
        session, UID, 1, 1, who="ana", name="Ana", now=NOW, settings=SETTINGS, make_pdf=lambda _: b"%PDF", writer="ris"
    )
    return session.scalars(select(Report)).one()


def patients_told(session):
    """The patient IDs in PID-3 of what goes out."""
    bodies = [one.body.decode() for one in session.scalars(select(Delivery))]
    segments = [line for body in bodies for line in body.split("\r") if line.startswith("PID")]
    return [segment.split("|")[3].partition("^")[0] for segment in segments]


@pytest.mark.parametrize("other", ["AAA", "RUI", "ZZZ"])
def test_a_report_is_of_the_images_that_are_there_and_not_of_deleted_ones(made, other):
    """A station sent the exam under another's ID first; that study was deleted, and its row stays."""
    with made.begin() as session:
        a_study(session, other, UID, instances=0)
        there = a_study(session, "MINE", UID)
        assert studies.of_report(session, sign(session)) is there
        assert patients_told(session) == ["MINE"]


def test_of_two_patients_images_a_report_is_of_those_of_its_orders_patient(made):
    with made.begin() as session:
        order = an_order(session, a_patient(session, "MINE"), "completed", study_uid=UID)
        there = a_study(session, "MINE", UID, order)
        report = sign(session, order)
        a_study(session, "RUI", UID, order)  # linked to it by the number alone
        assert studies.of_report(session, report) is there


def test_of_two_patients_images_none_is_taken_where_nothing_tells_which(made):
    with made.begin() as session:
        a_study(session, "MINE", UID)
        report = sign(session)
        a_study(session, "RUI", UID)
        assert studies.of_report(session, report) is None


@pytest.mark.parametrize("wanted", ["ANA", "RUI"])
def test_a_message_is_about_the_study_that_the_archive_named(made, wanted):
    with made.begin() as session:
        told = {name: a_study(session, name, UID) for name in ("ANA", "RUI")}
        told["RUI"].last_at = clock.text(NOW.replace(hour=9))
        facts = {
            "study_uid": UID, "study_orthanc_id": told[wanted].orthanc_id, "rule": "t", "on": "study-completed",
            "peer": "his", "message": "ORM^O01", "because": "CT", "cause": "modality", "generation": 1,
        }  # fmt: skip
        entry = chain.seal("orthanc-x", 1, "", "hl7-triggered", NOW, facts)
        Effects(session, SETTINGS, NOW).carry_out([entry])
        assert patients_told(session) == [wanted]
