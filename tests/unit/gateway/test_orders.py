import dataclasses
from datetime import timedelta

import pytest
from sqlalchemy import select

from zambezi import audit, orders
from zambezi.config.settings import Site
from zambezi.database import generations
from zambezi.database.tables import AuditEntry

SITE = Site(accession_prefix="HCM")


def a_patient(session, now):
    return orders.register_patient(
        session, patient_id="P1", issuer="HIS", family_name="Conceição", given_name="João", birth_date="19800101",
        sex="M", now=now, writer="gateway",
    )  # fmt: skip


def an_order(session, now, **facts):
    wanted = orders.NewOrder(**{"scheduled_at": now, "modality": "CT", **facts})
    return orders.place_order(session, a_patient(session, now), wanted, now=now, site=SITE, writer="gateway")


def chain(session):
    """The gateway's chain as it is stored."""
    return session.scalars(select(AuditEntry).where(AuditEntry.journal == "gateway").order_by(AuditEntry.seq)).all()


def events(session):
    return [row.event for row in chain(session)]


def test_an_order_gets_its_own_accession_number_and_study_uid(made, now):
    with made.begin() as session:
        first, second = an_order(session, now), an_order(session, now)
        assert (first.accession_number, second.accession_number) == ("HCM2603010001", "HCM2603010002")
        assert first.study_uid.startswith("2.25.")
        assert len(first.study_uid) <= 64
        assert first.study_uid != second.study_uid


def test_accession_numbers_begin_anew_with_the_day_of_the_site(made, now):
    with made.begin() as session:
        an_order(session, now)
        assert an_order(session, now.replace(hour=22, minute=1)).accession_number == "HCM2603020001"


def test_the_longest_prefix_still_fits_into_a_short_string(made, now):
    with made.begin() as session:
        wanted = orders.NewOrder(scheduled_at=now)
        site = Site(accession_prefix="ABCDEF")
        order = orders.place_order(session, a_patient(session, now), wanted, now=now, site=site, writer="gateway")
        assert order.accession_number == "ABCDEF2603010001"
        assert len(order.accession_number) == 16


def test_numbers_that_came_are_kept(made, now):
    with made.begin() as session:
        order = an_order(session, now, accession_number="HIS-77", study_uid="1.2.3")
        assert (order.accession_number, order.study_uid) == ("HIS-77", "1.2.3")


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"accession_number": "12345678901234567"}, "17 characters"),
        ({"accession_number": "A\\B"}, "backslash"),
        ({"study_uid": "1.2.x"}, "digits and dots"),
        ({"priority": "SOON"}, "SOON"),
    ],
)
def test_numbers_that_dicom_cannot_carry_are_refused(made, now, facts, says):
    with made.begin() as session, pytest.raises(orders.OrderRefused, match=says):
        an_order(session, now, **facts)


def test_an_accession_number_belongs_to_one_order(made, now):
    with made.begin() as session:
        an_order(session, now, accession_number="A1")
        with pytest.raises(orders.OrderRefused, match="A1 belongs to order 1"):
            an_order(session, now, accession_number="A1")


def test_registering_again_changes_what_is_new_and_keeps_what_is_not_said(made, now):
    with made.begin() as session:
        a_patient(session, now)
        again = orders.register_patient(
            session, patient_id="P1", issuer="HIS", family_name="Conceição", given_name="Joana", birth_date="",
            now=now + timedelta(days=1), writer="gateway",
        )  # fmt: skip
        assert (again.given_name, again.birth_date, again.sex) == ("Joana", None, "M")
        assert events(session) == ["patient-changed", "patient-changed"]


def test_registering_the_same_again_writes_nothing(made, now):
    with made.begin() as session:
        a_patient(session, now)
        a_patient(session, now)
        assert events(session) == ["patient-changed"]


def test_an_exam_goes_its_way_and_each_step_is_in_the_chain(made, now):
    with made.begin() as session:
        order = an_order(session, now)
        before = generations.current(session, "worklist")
        for status in ("arrived", "in-progress", "completed"):
            assert orders.set_status(session, order, status, now=now, writer="gateway")
        assert not orders.set_status(session, order, "completed", now=now, writer="gateway")
        assert events(session)[2:] == ["exam-changed"] * 3
        assert generations.current(session, "worklist") == before + 4


@pytest.mark.parametrize(
    ("before", "after"), [("completed", "scheduled"), ("cancelled", "in-progress"), ("in-progress", "arrived")]
)
def test_an_exam_does_not_go_back(made, now, before, after):
    with made.begin() as session:
        order = an_order(session, now)
        orders.set_status(session, order, before, now=now, writer="gateway")
        with pytest.raises(orders.OrderRefused, match=f"can't become {after}"):
            orders.set_status(session, order, after, now=now, writer="gateway")


def test_an_order_whose_exam_has_begun_is_cancelled_by_a_person_only(made, now):
    with made.begin() as session:
        order = an_order(session, now)
        orders.set_status(session, order, "in-progress", now=now, writer="gateway")
        with pytest.raises(orders.OrderRefused, match="only a person"):
            orders.cancel_order(session, order, now=now, writer="gateway")


def test_cancelling_twice_is_cancelling_once(made, now):
    with made.begin() as session:
        order = an_order(session, now)
        assert orders.cancel_order(session, order, now=now, writer="gateway")
        assert not orders.cancel_order(session, order, now=now, writer="gateway")


def test_an_order_gets_another_time_while_it_is_open(made, now):
    with made.begin() as session:
        order = an_order(session, now)
        later = now + timedelta(hours=2)
        changed = orders.schedule_order(session, order, later, "CT2", now=now, writer="ris")
        assert set(changed) == {"scheduled_at", "station_aet"}
        orders.cancel_order(session, order, now=now, writer="ris")
        with pytest.raises(orders.OrderRefused, match="can't be changed"):
            orders.schedule_order(session, order, later, now=now, writer="ris")


def test_no_entry_of_the_chain_names_a_patient(made, now):
    with made.begin() as session:
        an_order(session, now)
        for row in chain(session):
            assert "Conceição".encode() not in row.payload
        assert audit.verify(session) == []


def test_a_new_order_is_what_was_asked_for(made, now):
    facts = {"procedure_code": "TC1", "procedure_text": "TC crânio", "priority": "STAT", "source": "his"}
    with made.begin() as session:
        order = an_order(session, now, **facts)
        for name, value in facts.items():
            assert getattr(order, name) == value
        assert {f.name for f in dataclasses.fields(orders.NewOrder)} <= set(order.__mapper__.columns.keys())
