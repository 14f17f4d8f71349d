"""What the central chains tell of becomes messages: once each, and nothing of before, on both engines."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from gateway.effects import Effects
from gateway.triggers import Watcher
from zambezi import audit, chain, clock, deletions, leases, orders, outbox
from zambezi.config import Configuration
from zambezi.config.settings import Zambezi
from zambezi.database.tables import AuditEntry, ChainHead, Delivery, ExceptionItem, Order, Study, TriggerCursor
from zambezi.hl7.read import Reading, read

PEERS = {"his": {"Application": "HIS", "Host": "127.0.0.1"}, "lab": {"Application": "LAB", "Host": "127.0.0.1"}}


def configuration(*rules: dict[str, Any], **more: Any) -> Configuration:
    triggers = [{"Name": f"t{n}", "SendTo": "his", "Message": "ORM^O01", **rule} for n, rule in enumerate(rules)]
    section = {"Destinations": {"B": {}, "C": {}}, "Hl7": {"Peers": PEERS, "Triggers": triggers, **more}}
    return Configuration({}, Zambezi.model_validate(section), "c0ffee")


EXAMS = configuration({"On": "exam-changed"})


def an_order(session, now, **facts) -> Order:
    patient = orders.register_patient(
        session, patient_id="4711", issuer="HIS", family_name="Conceição", given_name="João", now=now, writer="ris"
    )
    wanted = orders.NewOrder(scheduled_at=now, modality="CT", procedure_text="TC", source="ris", **facts)
    return orders.place_order(session, patient, wanted, now=now, site=EXAMS.zambezi.site, writer="ris")


def a_study(session, now, order: Order | None = None, **facts) -> Study:
    row = Study(
        study_uid="1.2", orthanc_id="o", patient_id="4711", patient_name="Conceição^João", modalities="CT", instances=3,
        first_at=clock.text(now), last_at=clock.text(now), order_id=order.id if order else None,
        **{"cause": "modality", **facts},
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def rounds(made, now, config=EXAMS) -> list[Reading]:
    """What is in the outbox for peers, once a watcher has seen all there is."""
    watcher = Watcher(made, config, lambda: now)
    while not watcher.round():
        pass
    with made.begin() as session:
        rows = session.scalars(select(Delivery).where(Delivery.kind == "hl7").order_by(Delivery.created_at)).all()
        return [read(row.body) for row in rows]


@pytest.fixture
def begun(made, now):
    rounds(made, now)
    return made


def test_what_was_before_the_first_look_is_not_told(made, now):
    with made.begin() as session:
        order = an_order(session, now)
    assert rounds(made, now) == []
    with made.begin() as session:
        orders.set_status(session, session.get_one(Order, order.id), "arrived", now=now, writer="gateway")
    (message,) = rounds(made, now)
    assert (message.get("ORC-1"), message.get("ORC-5"), message.get("OBR-18")) == ("SC", "IP", order.accession_number)


@pytest.mark.parametrize(
    ("state", "control", "status"),
    [("arrived", "SC", "IP"), ("completed", "SC", "CM"), ("discontinued", "SC", "DC"), ("cancelled", "OC", "CA")],
)
def test_each_state_of_an_exam_has_its_status(begun, now, state, control, status):
    with begun.begin() as session:
        order = an_order(session, now)
        orders.set_status(session, order, state, now=now, writer="ris", reason="her wish")
    placed, changed = rounds(begun, now + timedelta(seconds=1))
    assert (placed.get("ORC-1"), placed.get("ORC-5")) == ("SC", "SC")
    assert (changed.get("ORC-1"), changed.get("ORC-5")) == (control, status)
    said = "exam-changed: her wish" if state in ("discontinued", "cancelled") else ""
    assert changed.get("NTE-3") == said


def test_a_watcher_that_died_before_its_commit_tells_once_and_one_whose_cursor_was_lost_doubles_nothing(begun, now):
    with begun.begin() as session:
        an_order(session, now)

    class Dies(Exception):
        pass

    def dying():
        raise Dies

    with pytest.raises(Dies):
        Watcher(begun, EXAMS, dying).round()
    assert len(rounds(begun, now)) == len(rounds(begun, now)) == 1
    with begun.begin() as session:
        session.execute(update(TriggerCursor).values(seq=0))
    assert len(rounds(begun, now)) == 1


def test_the_decision_is_an_entry_that_names_what_it_follows_and_the_deliverys_id_comes_from_it(begun, now):
    with begun.begin() as session:
        an_order(session, now)
    rounds(begun, now)
    with begun.begin() as session:
        (told,) = session.scalars(select(AuditEntry.payload).where(AuditEntry.event == "hl7-triggered")).all()
        (row,) = session.scalars(select(Delivery)).all()
        head = session.get_one(ChainHead, "ris").seq
        assert b'"entry":"ris/' + str(head).encode() in told
        assert (row.rule, row.destination, row.because) == ("t0", "his", "rule t0: the exam is scheduled")
        assert b"Concei" not in told
        assert audit.verify(session) == []


def test_a_peer_is_not_told_what_it_said_itself_and_others_are(begun, now):
    config = configuration({"On": "exam-changed"}, {"On": "exam-changed", "SendTo": "lab"})
    with begun.begin() as session:
        order = an_order(session, now)
        orders.set_status(session, order, "cancelled", now=now, writer="gateway", who="his")
    rounds(begun, now, config)
    with begun.begin() as session:
        told = session.execute(select(Delivery.destination, Delivery.because)).all()
    assert sorted(told) == [
        ("his", "rule t0: the exam is scheduled"), ("lab", "rule t1: the exam is cancelled"),
        ("lab", "rule t1: the exam is scheduled"),
    ]  # fmt: skip


def test_what_the_plugin_decided_is_made_as_it_was_decided_though_the_rule_is_gone(made, now):
    own = {"Type": "ORM^O01", "Segments": ["ZDS|{study_uid}|{event}|{instances}|{order_status}"]}
    settings = configuration(Templates={"own": own}).zambezi
    facts = {
        "rule": "here",
        "on": "study-received",
        "peer": "his",
        "template": "own",
        "because": "b",
        "study_uid": "1.2",
    }
    entry = chain.seal("orthanc-x", 7, "", "hl7-triggered", now, facts)
    with made.begin() as session:
        a_study(session, now)
        for _ in range(2):
            Effects(session, settings, now).carry_out([entry])
        (row,) = session.scalars(select(Delivery)).all()
    assert (row.id, row.destination) == (outbox.delivery_id("orthanc-x", 7, "here", "his"), "his")
    assert b"\rZDS|1.2|study-received|3|IP\r" in row.body


def test_what_was_caught_up_at_once_goes_out_in_the_order_in_which_it_happened(made, now):
    settings = configuration().zambezi
    words = ("study-received", "study-completed", "study-updated")
    entries = [
        chain.seal(
            "orthanc-x", n, "", "hl7-triggered", now,
            {"rule": on, "on": on, "peer": "his", "message": "ORM^O01", "because": "b", "study_uid": "1.2"},
        )
        for n, on in enumerate(words, 1)
    ]  # fmt: skip
    with made.begin() as session:
        a_study(session, now)
        Effects(session, settings, now).carry_out(entries)
    sent, later = [], now + timedelta(seconds=1)
    for _ in words:
        with made.begin() as session:
            row, held = outbox.claim(
                session, "hl7", now=later, owner="w", lease=timedelta(seconds=60), writer="gateway", destination="his"
            )
            sent.append(row.rule)
            outbox.delivered(session, held, proof="", outcome="", now=later, writer="gateway")
    assert tuple(sent) == words


def deliver(session, now, id: str, destination: str, kind: str = "dicom") -> leases.Lease:
    outbox.add(
        session, id=id, kind=kind, rule="r", destination=destination, because="x", now=now, writer="gateway",
        study_uid="1.2", instances=[["i", "s", "p"]], body=b"x",
    )  # fmt: skip
    lease = timedelta(seconds=60)
    found = outbox.claim(session, kind, now=now, owner="w", lease=lease, writer="gateway", destination=destination)
    assert found is not None
    return found[1]


def test_deliveries_of_images_are_told_and_those_of_messages_never(begun, now):
    config = configuration(
        {"On": "study-delivered", "When": {"Destination": ["B"]}}, {"On": "study-delivered", "Causes": ["migration"]},
        {"On": "delivery-parked"},
    )  # fmt: skip
    rounds(begun, now, config)
    with begun.begin() as session:
        a_study(session, now)
        for id, kind, to in (("d1", "dicom", "B"), ("d2", "dicom", "C"), ("d3", "hl7", "his")):
            held = deliver(session, now, id, to, kind)
            outbox.delivered(session, held, proof="found", outcome="3 of 3", now=now, writer="gateway")
        held = deliver(session, now, "d4", "C")
        outbox.failed(
            session, held, kind=outbox.ErrorClass.CONFLICT, outcome="A801: unknown | AE", now=now, writer="gateway",
            policy=config.zambezi.destinations["C"].policy, draw=0.0,
        )  # fmt: skip
        session.execute(update(Delivery).where(Delivery.kind == "hl7").values(kind="sent"))
    told = sorted((one.get("ORC-5"), one.get("NTE-3")) for one in rounds(begun, now, config))
    assert told == [("A", "delivery-parked: C; A801: unknown | AE"), ("A", "study-delivered: B")]


def test_a_rejected_study_is_told_with_its_reason_and_as_a_result_that_is_gone(begun, now):
    config = configuration({"On": "study-rejected", "Message": "ORU^R01"})
    rounds(begun, now, config)
    with begun.begin() as session:
        a_study(session, now)
        row = deletions.ask(
            session, study_uid="1.2", study_orthanc_id="o", code="quality", reason="moved", who="ana", now=now,
            writer="ris",
        )  # fmt: skip
        row.state = "done"
        deletions.note(session, row, "operations", now, count=3)
    (message,) = rounds(begun, now, config)
    assert (message.kind, message.get("OBX-5"), message.get("OBX-11")) == ("ORU^R01", "1.2", "D")
    assert message.get("NTE-3") == "study-rejected: Rejected for Quality Reasons: moved"


def test_a_template_says_what_it_was_asked_to(begun, now):
    own = {"Type": "ZRM^Z01", "Segments": ["ZEX|{accession_number}|{state}|{family_name}^{happened_at}"]}
    config = configuration({"On": "exam-changed", "Message": None, "Template": "own"}, Templates={"own": own})
    with begun.begin() as session:
        order = an_order(session, now)
    (message,) = rounds(begun, now, config)
    values = [message.get(f"ZEX-{place}") for place in ("1", "2", "3.1", "3.2")]
    assert values == [order.accession_number, "scheduled", "Conceição", "20260301103000+0200"]
    assert message.kind == "ZRM^Z01"


def test_an_entry_that_no_message_can_be_made_of_waits_for_a_person_and_the_next_is_told(begun, now):
    config = configuration({"On": "study-delivered"})
    rounds(begun, now, config)
    with begun.begin() as session:
        held = deliver(session, now, "d1", "B")  # of a study that nobody knows
        outbox.delivered(session, held, proof="found", outcome="", now=now, writer="gateway")
    assert rounds(begun, now, config) == []
    with begun.begin() as session:
        (item,) = session.scalars(select(ExceptionItem)).all()
        assert (item.kind, item.facts["event"]) == ("trigger-failed", "delivery-changed")
        a_study(session, now)
        held = deliver(session, now, "d2", "B")
        outbox.delivered(session, held, proof="found", outcome="", now=now, writer="gateway")
    assert len(rounds(begun, now, config)) == 1


def test_more_than_a_batch_is_told_to_the_end(begun, now, monkeypatch):
    monkeypatch.setattr("gateway.triggers.BATCH", 2)
    with begun.begin() as session:
        order = an_order(session, now)
        for n in range(4):
            orders.schedule_order(session, order, now + timedelta(minutes=n + 1), now=now, writer="ris")
    assert len(rounds(begun, now)) == 5


def test_without_a_rule_nothing_is_read_and_a_later_one_tells_nothing_of_before(begun, now):
    assert Watcher(begun, configuration(), lambda: now).round() > 600
    with begun.begin() as session:
        an_order(session, now)
    assert rounds(begun, now) == []
