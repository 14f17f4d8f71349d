from datetime import timedelta

import pytest
from sqlalchemy import select

from gateway.commitments_asked import Commitments, is_answered, question, take
from zambezi import clock, leases, outbox
from zambezi.config.settings import Zambezi
from zambezi.database.tables import AuditEntry, Delivery, ExceptionItem, Report, Study
from zambezi.retries import ErrorClass, Policy

LEASE = timedelta(seconds=60)
POLICY = Policy(timedelta(seconds=10), multiplier=2, cap=timedelta(seconds=25), attempts=3, object_attempts=1)
HOW = {"kind": ErrorClass.TRANSIENT, "policy": POLICY, "draw": 0.0, "writer": "gateway"}
SETTINGS = Zambezi.model_validate(
    {
        "Hl7": {
            "Peers": {"his": {"Application": "HIS", "Host": "127.0.0.1"}},
            "Triggers": [
                {"Name": "tell-report", "On": "report-signed", "SendTo": "his", "Message": "ORU^R01"},
                {"Name": "tell-images", "On": "study-completed", "SendTo": "his", "Message": "ORM^O01"},
            ],
        }
    }
)


def a_delivery(session, now, id="d1", **facts):
    facts = {"kind": "dicom", "rule": "r", "destination": "PACS", "because": "it must", **facts}
    return outbox.add(session, id=id, now=now, writer="gateway", **facts)


def claimed(session, now, owner="w1", **how):
    found = outbox.claim(session, "dicom", now=now, owner=owner, lease=LEASE, writer="gateway", **how)
    return found[1] if found else None


def parks(session, held, now):
    how = HOW | {"kind": ErrorClass.CONFLICT}
    assert outbox.failed(session, held, outcome="", now=now, **how).state == "parked"


def state_of(session, id="d1"):
    return session.scalars(select(Delivery).where(Delivery.id == id)).one().state


def test_the_same_cause_read_twice_is_one_delivery(made, now):
    with made.begin() as session:
        assert a_delivery(session, now)
        assert not a_delivery(session, now)
        assert len(session.scalars(select(Delivery)).all()) == 1


def test_the_id_of_a_delivery_comes_from_its_cause_alone():
    assert outbox.delivery_id("j", 7, "rule", "PACS") == outbox.delivery_id("j", 7, "rule", "PACS")
    assert outbox.delivery_id("j", 7, "rule", "PACS") != outbox.delivery_id("j", 8, "rule", "PACS")
    assert len(outbox.delivery_id("j", 7, "rule", "PACS")) == 32


def test_a_claimed_delivery_is_not_claimed_again_until_its_lease_ends(made, now):
    with made.begin() as session:
        a_delivery(session, now)
        assert claimed(session, now)
        assert claimed(session, now + LEASE / 2) is None
        second = claimed(session, now + LEASE, "w2")
        assert second is not None
        assert second.fence == 2


def test_what_a_worker_was_sending_when_it_died_is_due_again_as_soon_as_its_successor_starts(made, now):
    with made.begin() as session:
        a_delivery(session, now)
        before = claimed(session, now, "host:2575/run1/dicom-out-PACS")
        assert outbox.release_predecessors(session, "host:2575", "run2", now=now) == 1
        assert claimed(session, now, "host:2575/run2/dicom-out-PACS")
        with pytest.raises(leases.Fenced):
            outbox.delivered(session, before, proof="found", outcome="x", now=now, writer="gateway")


def test_a_successor_leaves_its_own_leases_and_those_of_other_places_alone(made, now):
    with made.begin() as session:
        owners = {"d1": "host:2575/run2/hl7-out-HIS", "d2": "host:25755/run1/x", "d3": "h_st:2575/run1/x"}
        for id, owner in owners.items():
            a_delivery(session, now, id)
            assert claimed(session, now, owner)
        assert outbox.release_predecessors(session, "host:2575", "run2", now=now) == 0
        assert outbox.release_predecessors(session, "h_st:2575", "run2", now=now) == 1


def test_a_zombie_can_finish_nothing(made, now):
    with made.begin() as session:
        a_delivery(session, now)
        zombie = claimed(session, now)
        claimed(session, now + LEASE, "w2")
        for act in (
            lambda: outbox.delivered(session, zombie, proof="found", outcome="", now=now, writer="gateway"),
            lambda: outbox.failed(session, zombie, outcome="", now=now, **HOW),
            lambda: leases.renew(session, zombie, now=now, lease=LEASE),
            lambda: outbox.let_go(session, zombie, now=now),
        ):
            with pytest.raises(leases.Fenced):
                act()
        assert state_of(session) == "sending"


def test_who_let_a_lease_run_out_stands_in_the_audit(made, now):
    with made.begin() as session:
        a_delivery(session, now)
        claimed(session, now, "w1")
        assert claimed(session, now + LEASE, "w2").taken_from == "w1"
        entries = session.scalars(
            select(AuditEntry).where(AuditEntry.event == "delivery-changed").order_by(AuditEntry.seq)
        ).all()
        assert b"the lease of w1 ran out; w2 goes on" in entries[-1].payload


def test_a_full_disk_of_ours_costs_a_delivery_no_attempt(made, now):
    with made.begin() as session:
        a_delivery(session, now)
        for _ in range(POLICY.attempts + 1):
            held = claimed(session, now)
            decided = outbox.failed(session, held, outcome="full", now=now, **HOW | {"kind": ErrorClass.DISK})
            assert (decided.state, decided.pauses) == ("retrying", "queue")
            now += timedelta(minutes=1)
        assert session.get_one(Delivery, "d1").attempts == 0


def test_what_a_wrong_configuration_parked_is_due_again_when_a_person_resumes_the_destination(made, now):
    with made.begin() as session:
        a_delivery(session, now, "d1")
        a_delivery(session, now + timedelta(seconds=1), "d2")
        moment = now + timedelta(seconds=1)
        for kind in (ErrorClass.CONFIGURATION, ErrorClass.OBJECT):
            outbox.failed(session, claimed(session, moment), outcome="no", now=moment, **HOW | {"kind": kind})
        assert outbox.resume(session, "PACS", now=moment, writer="gateway", who="maria") == ([], 1)
        assert (state_of(session, "d1"), state_of(session, "d2")) == ("due", "parked")


def test_a_renewed_lease_holds_longer(made, now):
    with made.begin() as session:
        a_delivery(session, now)
        held = claimed(session, now)
        leases.renew(session, held, now=now + LEASE / 2, lease=LEASE)
        assert claimed(session, now + LEASE, "w2") is None


def test_a_failed_delivery_is_tried_again_and_in_the_end_a_person_must_look(made, now):
    with made.begin() as session:
        a_delivery(session, now)
        moment = now
        for expected in ("retrying", "retrying", "parked"):
            held = claimed(session, moment)
            assert claimed(session, moment) is None
            assert outbox.failed(session, held, outcome="no", now=moment, **HOW).state == expected
            moment += timedelta(seconds=30)
        assert claimed(session, moment + timedelta(days=9)) is None
        item = session.scalars(select(ExceptionItem)).one()
        assert "failed 3 times: no" in item.what
        assert item.decided_at is None


def test_a_person_tries_a_parked_delivery_again(made, now):
    with made.begin() as session:
        a_delivery(session, now)
        parks(session, claimed(session, now), now)
        assert outbox.retry(session, "d1", now=now, writer="ris", who="maria")
        row, _ = outbox.claim(session, "dicom", now=now, owner="w", lease=LEASE, writer="gateway")
        assert row.attempts == 1
        item = session.scalars(select(ExceptionItem)).one()
        assert (item.decided_by, item.decision) == ("maria", "try again")


def test_a_delivery_that_parks_again_waits_for_a_person_again(made, now):
    with made.begin() as session:
        a_delivery(session, now)
        for _ in range(2):
            held = claimed(session, now)
            parks(session, held, now)
            assert session.scalars(select(ExceptionItem)).one().decided_at is None
            outbox.retry(session, "d1", now=now, writer="ris", who="maria")
            session.flush()
            session.expire_all()


def test_what_is_being_sent_can_be_cancelled_and_its_worker_finishes_nothing(made, now):
    with made.begin() as session:
        a_delivery(session, now)
        held = claimed(session, now)
        assert outbox.cancel(session, "d1", now=now, writer="ris", who="maria")
        with pytest.raises(leases.Fenced):
            outbox.delivered(session, held, proof="found", outcome="", now=now, writer="gateway")
        assert not outbox.cancel(session, "d1", now=now, writer="ris", who="maria")


def test_what_is_delivered_is_not_retried_but_resent_on_demand(made, now):
    with made.begin() as session:
        a_delivery(session, now)
        outbox.delivered(session, claimed(session, now), proof="found", outcome="all", now=now, writer="gateway")
        assert not outbox.retry(session, "d1", now=now, writer="ris", who="maria")
        assert outbox.resend(session, "d1", now=now, writer="ris", who="maria")
        assert state_of(session) == "due"


def test_a_worker_that_stops_gives_its_delivery_back_without_counting_an_attempt(made, now):
    with made.begin() as session:
        a_delivery(session, now)
        outbox.let_go(session, claimed(session, now), now=now)
        row, _ = outbox.claim(session, "dicom", now=now, owner="w", lease=LEASE, writer="gateway")
        assert row.attempts == 1


def test_a_message_waits_for_earlier_ones_about_the_same_study_only(made, now):
    with made.begin() as session:
        for n, study in enumerate(("1.1", "1.1", "1.2")):
            a_delivery(session, now + timedelta(seconds=n), id=f"d{n}", study_uid=study)
        later = now + timedelta(minutes=1)
        first = claimed(session, later, destination="PACS")
        other = claimed(session, later, destination="PACS")
        assert (first.id, other.id) == ("d0", "d2")
        assert claimed(session, later, destination="PACS") is None
        outbox.delivered(session, first, proof="", outcome="", now=later, writer="gateway")
        assert claimed(session, later, destination="PACS").id == "d1"


def a_report(session, now, **facts):
    session.add(
        Study(
            study_uid="1.2",
            orthanc_id="o",
            patient_id="P1",
            patient_name="Conceição^João",
            accession_number="A1",
            first_at=clock.text(now),
            last_at=clock.text(now),
            **{"cause": "modality", **facts},
        )
    )
    session.flush()
    return Report(
        study_uid="1.2", version=1, state="final", findings="Sem alterações.\nSegunda linha.", impression="Normal",
        technique="", author="ana", signed_by="ana", signed_at=clock.text(now), pdf=b"%PDF-",
    )  # fmt: skip


def test_a_signed_report_is_a_message_to_each_peer_that_a_trigger_names(made, now):
    with made.begin() as session:
        made_ids = outbox.report_signed(session, a_report(session, now), now, SETTINGS)
        delivery = session.scalars(select(Delivery)).one()
        assert [delivery.id] == made_ids
        assert (delivery.kind, delivery.destination, delivery.rule) == ("hl7", "his", "tell-report")
        body = delivery.body.decode()
        assert f"|{delivery.id[:20]}|P|2.5.1|" in body
        assert "Sem alterações.~Segunda linha." in body
        assert "^Application^PDF^Base64^JVBERi0=" in body


def test_signing_twice_in_one_version_is_one_message(made, now):
    with made.begin() as session:
        report = a_report(session, now)
        outbox.report_signed(session, report, now, SETTINGS)
        assert outbox.report_signed(session, report, now, SETTINGS) == []


def test_an_addendum_is_sent_as_a_correction(made, now):
    with made.begin() as session:
        report = a_report(session, now)
        report.version = 2
        outbox.report_signed(session, report, now, SETTINGS)
        body = session.scalars(select(Delivery)).one().body.decode()
        assert "|C|" in body.split("\rOBR|")[1].split("\r")[0]


def test_a_report_on_a_migrated_study_tells_nobody_unless_a_trigger_names_that_cause(made, now):
    with made.begin() as session:
        assert outbox.report_signed(session, a_report(session, now, cause="migration"), now, SETTINGS) == []


def test_the_higher_priority_goes_first_whatever_has_waited_longer(made, now):
    with made.begin() as session:
        for n, (id, priority) in enumerate((("night", 0), ("urgent", 5), ("stat", 9), ("later", 9))):
            at = now + timedelta(hours=n)
            a_delivery(session, at, id=id, study_uid=f"1.2.{n}")
            session.get_one(Delivery, id).priority = priority
    order = []
    for _ in range(4):
        with made.begin() as session:
            found = outbox.claim(
                session, "dicom", now=now + timedelta(hours=9), owner="w", lease=LEASE, writer="gateway",
                destination="PACS",
            )  # fmt: skip
            order.append(found[0].id)
    assert order == ["stat", "later", "urgent", "night"]


@pytest.mark.parametrize(
    ("other", "goes_first"),
    [
        ({}, True), ({"priority": 5}, False), ({"destination": "OTHER"}, False), ({"study_uid": "1.2"}, False),
        ({"state": "parked"}, False), ({"minutes": 1}, False),
    ],
)  # fmt: skip
def test_what_goes_first_is_due_at_the_same_destination_and_of_higher_priority(made, now, other, goes_first):
    facts = {"priority": 9, "destination": "PACS", "study_uid": "1.3", "state": "due", "minutes": 0, **other}
    with made.begin() as session:
        a_delivery(session, now, study_uid="1.2")
        a_delivery(session, now + timedelta(minutes=facts.pop("minutes")), id="d2")
        for name, value in facts.items():
            setattr(session.get_one(Delivery, "d2"), name, value)
        row = session.get_one(Delivery, "d1")
        row.priority = 5
        session.flush()
        assert outbox.goes_first(session, row, now=now) is goes_first


def test_late_images_go_while_a_commitment_for_the_first_ones_is_awaited(made, now):
    with made.begin() as session:
        a_delivery(session, now, study_uid="1.2")
        a_delivery(session, now + timedelta(minutes=1), id="late", study_uid="1.2")
        held = claimed(session, now, destination="PACS")
    later = now + timedelta(minutes=2)
    with made.begin() as session:
        assert claimed(session, later - timedelta(seconds=90), destination="PACS") is None
    Commitments(made, {}, lambda: now).begin("d1", "PACS", timedelta(hours=6))
    with made.begin() as session:
        outbox.wait(session, held, until=now + timedelta(hours=6), outcome="", now=now)
        assert claimed(session, later, destination="PACS").id == "late"


@pytest.mark.parametrize("when", ["while it is put down", "hours later"])
def test_a_delivery_that_waits_for_a_commitment_goes_on_when_it_comes(made, now, when):
    commitments = Commitments(made, {}, lambda: now)
    until, later = now + timedelta(hours=6), now + timedelta(hours=3)
    with made.begin() as session:
        a_delivery(session, now)
        held = claimed(session, now)
    uid = commitments.begin("d1", "PACS", timedelta(hours=6))
    report = question(uid, [("1.2", "1.2.3")])

    def told(at):
        with made.begin() as session:
            assert take(session, "PACS", report, {}, at) == 0

    if when == "while it is put down":
        told(now)
    with made.begin() as session:
        outbox.wait(session, held, until=until, outcome="all was sent", now=now)
        if is_answered(session, "d1"):
            outbox.due_now(session, "d1", now=now)
    with made.begin() as session:
        assert outbox.awaited(session, ["d1", "d2"]) == {"d1"}
        assert (claimed(session, later) is not None) == (when == "while it is put down")
    if when == "hours later":
        told(later)
        with made.begin() as session:
            assert claimed(session, later)
    assert commitments.open("d1").committed == {"1.2.3"}
    with made.begin() as session:
        assert session.get_one(Delivery, "d1").attempts == 1


def test_a_person_who_sends_a_delivered_one_again_sends_all_of_it(made, now):
    with made.begin() as session:
        a_delivery(session, now)
        row = session.get_one(Delivery, "d1")
        row.state, row.acknowledged = "parked", ["1.2.3"]
        assert outbox.retry(session, "d1", now=now, writer="ris", who="maria")
        assert session.get_one(Delivery, "d1").acknowledged == ["1.2.3"]
        row.state = "delivered"
        session.flush()
        assert outbox.resend(session, "d1", now=now, writer="ris", who="maria")
        assert session.get_one(Delivery, "d1").acknowledged == []
