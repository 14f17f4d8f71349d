"""HL7 in over real sockets, into a gateway process that is killed, flooded and lied to."""

from __future__ import annotations

import base64
import json
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hl7.client
import pytest

from tests.gateway_alone import Alone, Line, a_gateway, eventually
from tests.unit.hl7.messages import ADT, BAHMNI_CANCEL, ORM
from zambezi import audit
from zambezi.database.tables import AuditEntry, Correction, ExceptionItem, Message, Order, Patient

SETTINGS: dict[str, Any] = {
    "Hl7": {
        "Peers": {
            "his": {"Application": "HIS", "Facility": "HCM"},
            "bahmni": {"Application": "BahmniEMR"},
            "elsewhere": {"Application": "FAR", "Addresses": ["192.0.2.7"]},
        },
        "MaximumMessageMegabytes": 4,
        "MaximumConnections": 3,
        "IdleSeconds": 2,
    },
    "Worklist": {"Stations": {"CT1": {"Modality": ["CT"]}}},
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    with a_gateway(tmp_path_factory.mktemp("hl7"), SETTINGS) as alone:
        yield alone


@pytest.fixture
def line(gateway: Alone) -> Iterator[Line]:
    made = gateway.line()
    yield made
    made.close()


def patient(name: str, text: str = ADT) -> str:
    """The message for a patient (and under a control id, an order) of the test's own."""
    for number in ("4711", "CTL1", "CTL2", "PL1", "ACC1", "1.2.840.1.7"):
        mine = f"{number}.{sum(map(ord, name))}" if number.startswith("1.2") else f"{number}-{name}"
        text = text.replace(number, mine)
    return text


def the_patient(gateway: Alone, name: str) -> Patient:
    (found,) = gateway.all(Patient, Patient.patient_id == f"4711-{name}")
    return found


def test_a_patient_and_an_order_are_there_once_they_are_acknowledged(gateway: Alone, line: Line):
    assert line.ask(patient("a")).get("MSA-1") == "AA"
    said = line.ask(patient("a", ORM))
    assert (said.get("MSA-1"), said.get("MSA-2")) == ("AA", "CTL2-a")
    found = the_patient(gateway, "a")
    assert (found.family_name, found.given_name, found.issuer) == ("Conceição", "João", "HIS")
    (order,) = gateway.all(Order, Order.patient_key == found.id)
    assert (order.accession_number, order.procedure_text, order.source) == ("ACC1-a", "TC do crânio & órbitas", "his")


def test_the_plugin_gets_the_order_for_its_worklist(gateway: Alone, line: Line):
    line.ask(patient("w", ORM.replace("202603011000", "")))
    uid = f"1.2.840.1.7.{ord('w')}"
    pushed = lambda: [e for e in gateway.plugin.pushed.get("worklist", {}).get("entries", []) if e["study_uid"] == uid]  # noqa: E731
    (entry,) = eventually(pushed)
    assert entry["aets"] == ["CT1"]


def test_a_client_that_no_one_here_wrote_is_understood(gateway: Alone):
    with hl7.client.MLLPClient("127.0.0.1", gateway.environment.ports.mllp) as client:
        answer = client.send_message(patient("c"))
    assert b"MSA|AA|CTL1-c" in answer


def test_split_frames_and_two_messages_in_one_read_are_told_apart(gateway: Alone, line: Line):
    wire = b"".join(b"\x0b" + patient(n).encode() + b"\x1c\r" for n in ("s1", "s2"))
    for cut in (0, 1, 7, 200, 201, len(wire) - 1):
        end = {0: 1, 1: 7, 7: 200, 200: 201, 201: len(wire) - 1}.get(cut, len(wire))
        line.socket.sendall(wire[cut:end])
    answers = [line.answer(), line.answer()]
    assert [b"CTL1-s1" in answers[0], b"CTL1-s2" in answers[1]] == [True, True]


def test_a_missing_carriage_return_after_the_block_is_tolerated(gateway: Alone, line: Line):
    line.socket.sendall(b"\x0b" + patient("r").encode() + b"\x1c")
    answer = line.answer()
    assert answer is not None
    assert line.ask(patient("r2")).get("MSA-1") == "AA"


def test_a_message_that_comes_again_gets_the_same_answer_and_is_carried_out_once(gateway: Alone, line: Line):
    line.send(patient("again", ORM))
    first = line.answer()
    line.send(patient("again", ORM))
    assert line.answer() == first
    other = gateway.line()
    other.send(patient("again", ORM))
    assert other.answer() == first
    other.close()
    assert gateway.count(Message, Message.control_id == "CTL2-again") == 1
    assert gateway.count(Order, Order.placer_number == "PL1-again") == 1


def a40(name: str, survivor: str, prior: str, control: str) -> str:
    text = patient(name).replace("ADT^A04^ADT_A01", "ADT^A40^ADT_A39").replace(f"CTL1-{name}", control)
    return text.replace(f"4711-{name}", survivor).replace("PV1|1|O", f"MRG|{prior}^^^HIS^MR")


def test_a_merge_of_the_his_moves_the_orders_and_the_worklist_and_asks_for_the_images(gateway: Alone, line: Line):
    line.ask(patient("m", ORM.replace("202603011000", "")))
    prior = the_patient(gateway, "m").id
    assert line.ask(a40("m", "P7", "4711-m", "M1")).get("MSA-1") == "AA"
    assert line.ask(a40("m", "P7", "4711-m", "M2")).get("MSA-1") == "AA"
    (survivor,) = gateway.all(Patient, Patient.patient_id == "P7")
    assert the_patient(gateway, "m").merged_into == survivor.id
    (order,) = gateway.all(Order, Order.placer_number == "PL1-m")
    assert order.patient_key == survivor.id
    (asked,) = gateway.all(Correction, Correction.kind == "merge")
    assert asked.request["patients"]["from"] == prior

    def worklist() -> Any:
        entries = gateway.plugin.pushed.get("worklist", {}).get("entries", [])
        return [e for e in entries if e["study_uid"] == order.study_uid and b"P7" in base64.b64decode(e["dicom"])]

    eventually(worklist)
    refused = line.ask(a40("m", "4711-m", "P7", "M3"))
    assert (refused.get("MSA-1"), refused.get("ERR-2"), refused.get("ERR-3.1")) == ("AE", "MRG", "205")
    (waiting,) = gateway.all(Message, Message.control_id == "M3")
    assert gateway.count(ExceptionItem, ExceptionItem.reference == f"message {waiting.id}") == 1
    assert line.ask(a40("m", "P7", "P7", "M4")).get("ERR-3.1") == "205"
    text = patient("m", ORM).replace("PL1-m", "PL3-m").replace("ACC1", "ACC3").replace("CTL2", "CTL3")
    assert line.ask(text.replace("ZDS|1.2.840.1.7", "ZDS|1.2.840.1.9")).get("MSA-1") == "AA"
    (late,) = gateway.all(Order, Order.placer_number == "PL3-m")
    assert late.patient_key == survivor.id


def test_a_control_id_used_again_for_another_message_is_carried_out(gateway: Alone, line: Line):
    line.ask(patient("reused"))
    line.ask(patient("reused").replace("João", "Joaquim"))
    assert the_patient(gateway, "reused").given_name == "Joaquim Múcio"


@pytest.mark.parametrize("event", [1, 2])
def test_killed_around_the_commit_the_same_message_again_makes_one_order(tmp_path: Path, event: int):
    with a_gateway(tmp_path, SETTINGS, start=False) as alone:
        alone.start()
        eventually(lambda: alone.plugin.asked > 2)
        line = alone.line()
        line.ask(patient("before"))
        # Other threads commit, too: ask for the death until it meets this message's commit.
        alone.die_at(event)
        line.send(patient("k", ORM))
        answer = line.answer()
        alone.wait_for_death()
        alone.start()
        again = alone.line().ask(patient("k", ORM))
        assert again.get("MSA-1") == "AA"
        if answer is not None:
            assert b"MSA|AA|CTL2-k" in answer
        assert alone.count(Order, Order.placer_number == "PL1-k") == 1
        assert alone.count(Message, Message.control_id == "CTL2-k") == 1
        with alone.sessions() as session:
            assert audit.verify(session) == []


def test_killed_between_commit_and_acknowledgement_the_stored_answer_is_sent(tmp_path: Path):
    with a_gateway(tmp_path, SETTINGS) as alone:
        line = alone.line()
        line.send(patient("z", ORM))
        eventually(lambda: alone.count(Message, Message.control_id == "CTL2-z"))
        alone.kill()  # whether or not the answer went out
        stored = alone.all(Message)[0].ack
        alone.start()
        again = alone.line()
        again.send(patient("z", ORM))
        assert again.answer() == stored
        assert alone.count(Order) == 1


def test_a_stranger_by_name_is_closed_and_recorded(gateway: Alone, line: Line):
    line.send(patient("x").replace("|HIS|", "|STRANGER|"))
    assert line.answer() is None
    assert gateway.count(Patient, Patient.patient_id == "4711-x") == 0
    refusals = lambda: [e for e in gateway.all(AuditEntry, AuditEntry.event == "refused") if b"STRANGER" in e.payload]  # noqa: E731
    (refused,) = eventually(refusals)
    assert json.loads(refused.payload)["ip"] == "127.0.0.1"


def test_a_peers_name_from_another_address_is_a_stranger(gateway: Alone, line: Line):
    line.send(patient("far").replace("|HIS|HCM|", "|FAR|HCM|"))
    assert line.answer() is None


def test_a_peers_name_with_another_facility_is_a_stranger(gateway: Alone, line: Line):
    line.send(patient("facility").replace("|HIS|HCM|", "|HIS|OTHER|"))
    assert line.answer() is None


def test_a_message_of_twenty_megabytes_is_cut_off_and_others_go_on(gateway: Alone, line: Line):
    try:
        line.socket.sendall(b"\x0b" + patient("big").encode())
        for _ in range(20):
            line.socket.sendall(b"NTE|1||" + b"x" * (1 << 20) + b"\r")
        line.socket.sendall(b"\x1c\r")
        assert line.answer() is None
    except ConnectionError:
        pass
    other = gateway.line()
    assert other.ask(patient("after-big")).get("MSA-1") == "AA"
    other.close()
    assert "more than 4194304 bytes" in gateway.log
    assert gateway.count(Patient, Patient.patient_id == "4711-big") == 0


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\x0bno message at all\x1c\r", b"A" * 100_000])
def test_garbage_is_closed_without_an_answer(gateway: Alone, line: Line, junk: bytes):
    line.socket.sendall(junk)
    assert line.answer() is None


def test_half_a_message_is_no_message(gateway: Alone, line: Line):
    line.socket.sendall(b"\x0b" + patient("half").encode()[:200])
    line.socket.shutdown(socket.SHUT_WR)
    assert line.answer() is None
    assert "in the middle of a message" in gateway.log


def test_a_silent_connection_is_closed_after_its_time(gateway: Alone, line: Line):
    assert line.answer() is None
    assert "silent for 2" in gateway.log


def test_more_connections_than_allowed_are_closed_and_the_others_work(gateway: Alone):
    lines = [gateway.line() for _ in range(3)]
    assert [one.ask(patient(f"n{n}")).get("MSA-1") for n, one in enumerate(lines)] == ["AA"] * 3
    fourth = gateway.line()
    assert fourth.answer() is None
    assert lines[0].ask(patient("n9")).get("MSA-1") == "AA"
    for one in [*lines, fourth]:
        one.close()
    # The next test finds room: the server sees these ends in its own time.
    eventually(lambda: _answers(gateway))


def _answers(gateway: Alone) -> bool:
    one = gateway.line()
    try:
        one.send(patient("room"))
        return one.answer() is not None
    except ConnectionError:
        return False
    finally:
        one.close()


@pytest.mark.parametrize(
    ("declared", "codec"),
    [("8859/1", "latin-1"), ("", "latin-1"), ("UNICODE UTF-8", "latin-1"), ("8859/1", "utf-8"), ("", "utf-8")],
)
def test_accents_arrive_whatever_character_set_was_declared(gateway: Alone, line: Line, declared: str, codec: str):
    name = f"{declared.replace('/', '').replace(' ', '')}{codec}"
    message = patient(name).replace("UNICODE UTF-8", declared)
    assert line.ask(message, codec).get("MSA-1") == "AA"
    assert the_patient(gateway, name).family_name == "Conceição"


@pytest.mark.parametrize(
    ("change", "code", "error"),
    [
        (("ADT^A04^ADT_A01", "ADT^A18^ADT_A18"), "AR", "201"),
        (("ADT^A04^ADT_A01", "MFN^M02"), "AR", "200"),
        (("Conceição^João^Múcio", ""), "AE", "101"),
    ],
)
def test_what_is_not_carried_out_is_said_with_its_reason(
    gateway: Alone, line: Line, change: tuple[str, str], code: str, error: str
):
    said = line.ask(patient(f"no{error}").replace(*change))
    assert (said.get("MSA-1"), said.get("ERR-3.1")) == (code, error)
    (kept,) = gateway.all(Message, Message.control_id == f"CTL1-no{error}")
    assert kept.state == {"AR": "rejected", "AE": "waiting"}[code]
    assert gateway.count(ExceptionItem, ExceptionItem.reference == f"message {kept.id}") == (code == "AE")


def test_what_cannot_be_carried_out_changes_nothing_and_waits_for_a_person(gateway: Alone, line: Line):
    said = line.ask(patient("late", ORM).replace("ACC1-late", "ACC1-much-too-long-for-dicom"))
    assert said.get("MSA-1") == "AE"
    assert "16" in said.get("ERR-8")
    assert gateway.count(Patient, Patient.patient_id == "4711-late") == 0


def test_a_cancel_is_matched_by_the_old_number_although_it_carries_a_new_one(gateway: Alone, line: Line):
    placed = (
        BAHMNI_CANCEL.replace("ORC|CA|", "ORC|NW|")
        .replace("|CA\r", "\r")
        .replace("ORD9", "ORD8")
        .replace("ORD-999", "ORD-305")
    )
    assert line.ask(placed).get("MSA-1") == "AA"
    assert line.ask(BAHMNI_CANCEL).get("MSA-1") == "AA"
    (order,) = gateway.all(Order, Order.placer_number == "ORD-305")
    assert order.status == "cancelled"


def test_a_cancel_of_an_unknown_order_is_answered_ae(gateway: Alone, line: Line):
    said = line.ask(BAHMNI_CANCEL.replace("ORD-305", "ORD-404").replace("1.305", "1.404").replace("ORD9", "ORD7"))
    assert (said.get("MSA-1"), said.get("ERR-3.1")) == ("AE", "204")


def test_an_order_number_of_another_patient_is_never_moved(gateway: Alone, line: Line):
    line.ask(patient("p1", ORM))
    said = line.ask(patient("p2", ORM).replace("PL1-p2", "PL1-p1"))
    assert (said.get("MSA-1"), said.get("ERR-3.1")) == ("AE", "205")


def test_nothing_of_a_patient_is_in_the_log_or_the_audit_chain(gateway: Alone, line: Line):
    line.ask(patient("private", ORM))
    assert "Conceição" not in gateway.log
    assert not any("Conceição".encode() in e.payload for e in gateway.all(AuditEntry))


def test_with_the_database_out_of_order_there_is_no_answer_and_the_sender_keeps_its_message(tmp_path: Path):
    with a_gateway(tmp_path, SETTINGS) as alone:
        line = alone.line()
        assert line.ask(patient("d0")).get("MSA-1") == "AA"
        file = alone.environment.home / "zambezi.db"
        with sqlite3.connect(file, isolation_level=None) as broken:
            broken.execute("ALTER TABLE message RENAME TO message_away")
        line.send(patient("d1"))
        assert line.answer() is None
        with sqlite3.connect(file, isolation_level=None) as mended:
            mended.execute("ALTER TABLE message_away RENAME TO message")
        assert alone.line().ask(patient("d1")).get("MSA-1") == "AA"


def test_it_stops_when_told_to(tmp_path: Path):
    with a_gateway(tmp_path, SETTINGS) as alone:
        alone.line().ask(patient("last"))
        assert alone.stop() == 0
