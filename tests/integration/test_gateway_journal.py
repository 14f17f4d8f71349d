"""The follower against the plugin's stand-in: nothing missed, nothing doubled, and messages out to a peer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from demo.neighbours import free_port
from gateway.hl7.mllp import Framer, frame
from operations.trail import keeping
from tests.gateway_alone import Alone, a_gateway, eventually
from tests.unit.hl7.messages import ORM
from zambezi import audit, chain, clock, orders
from zambezi.config.settings import Audit, Site
from zambezi.database.tables import (
    AuditEntry,
    Delivery,
    ExceptionItem,
    Generation,
    Held,
    Order,
    Series,
    Study,
    TriggerCursor,
)
from zambezi.environment import Environment
from zambezi.hl7.read import Reading, read

UID = "1.2.840.1.7"


class Peer:
    """A HIS that listens: keeps what it got, answers by `says`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.got: list[Reading] = []
        self.says: Callable[[Reading], bytes | None] = self.accept

    @staticmethod
    def accept(message: Reading) -> bytes:
        return f"MSH|^~\\&|HIS|HCM|ZAMBEZI||20260301||ACK|1|P|2.5.1\rMSA|AA|{message.control_id}\r".encode()

    @staticmethod
    def reject(message: Reading) -> bytes:
        return (
            f"MSH|^~\\&|HIS|HCM|ZAMBEZI||20260301||ACK|1|P|2.5.1\rMSA|AR|{message.control_id}|no such ward\r".encode()
        )

    @contextmanager
    def listening(self) -> Iterator[None]:
        server = socket.create_server(("127.0.0.1", self.port))
        server.settimeout(0.1)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        def talk(connection: socket.socket) -> None:
            framer = Framer(1 << 24)
            with connection:
                while data := connection.recv(65536):
                    for raw in framer.feed(data):
                        self.got.append(read(raw))
                        answer = self.says(self.got[-1])
                        if answer is None:
                            return
                        connection.sendall(frame(answer))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            server.close()


def settings(peer: Peer | None = None, **his: Any) -> dict[str, Any]:
    one = {"Application": "HIS", "Facility": "HCM", **his}
    if peer:
        one |= {"Host": "127.0.0.1", "Port": peer.port}
    return {
        "Hl7": {
            "Peers": {"his": one},
            "Triggers": [{"Name": "images", "On": "study-completed", "SendTo": "his", "Message": "ORM^O01"}]
            if peer
            else [],
        }
    }


def began(alone: Alone, uid: str = UID, **facts: Any) -> None:
    told = {
        "study_uid": uid, "study_orthanc_id": "o1", "cause": "modality", "patient_id": "4711", "issuer": "HIS",
        "patient_name": "Conceição^João", "birth_date": "19800229", "sex": "M", "accession_number": "ACC1",
        "study_date": "20260301", "study_time": "1030", "description": "TC", **facts,
    }  # fmt: skip
    alone.plugin.add("study-began", **told)


def stored(alone: Alone, number: int, uid: str = UID, **facts: Any) -> None:
    told = {
        "study_uid": uid, "series_uid": f"{uid}.1", "sop_uid": f"{uid}.1.{number}", "orthanc_id": f"i{number}",
        "study_orthanc_id": "o1", "series_orthanc_id": "s1", "modality": "CT", "cause": "modality", **facts,
    }  # fmt: skip
    alone.plugin.add("stored", **told)


def completed(alone: Alone, uid: str = UID, generation: int = 1, cause: str = "modality") -> None:
    alone.plugin.add(
        "study-completed",
        study_uid=uid,
        study_orthanc_id="o1",
        cause=cause,
        generation=generation,
        instances=3,
        added=3,
    )


def followed(alone: Alone) -> bool:
    with alone.sessions() as session:
        return audit.head(session, alone.plugin.journal)[0] == len(alone.plugin.entries)


def the_order(alone: Alone) -> Order:
    (order,) = alone.all(Order)
    return order


def test_an_exam_without_mpps_follows_its_images(tmp_path: Path):
    with a_gateway(tmp_path, settings()) as alone:
        assert alone.line().ask(ORM).get("MSA-1") == "AA"
        assert the_order(alone).status == "scheduled"
        began(alone)
        for n in range(3):
            stored(alone, n)
        eventually(lambda: the_order(alone).status == "in-progress")
        completed(alone)
        eventually(lambda: the_order(alone).status == "completed")
        (study,) = alone.all(Study)
        assert (study.instances, study.order_id, study.modalities) == (3, the_order(alone).id, "CT")
        assert (study.patient_name, study.completed_at is not None) == ("Conceição^João", True)
        (series,) = alone.all(Series)
        assert (series.series_uid, series.instances) == (f"{UID}.1", 3)
        with alone.sessions() as session:
            assert audit.verify(session) == []


def test_images_of_a_migration_change_no_exam(tmp_path: Path):
    with a_gateway(tmp_path, settings()) as alone:
        alone.line().ask(ORM)
        began(alone, cause="migration")
        stored(alone, 1, cause="migration")
        completed(alone, cause="migration")
        eventually(lambda: followed(alone))
        assert the_order(alone).status == "scheduled"


def test_a_study_is_linked_by_accession_number_and_patient_when_the_modality_made_its_own_uid(tmp_path: Path):
    with a_gateway(tmp_path, settings()) as alone:
        alone.line().ask(ORM)
        began(alone, uid="1.9.9")
        began(alone, uid="1.9.8", patient_id="other", study_orthanc_id="o2")
        eventually(lambda: followed(alone))
        links = {study.study_uid: study.order_id for study in alone.all(Study)}
        assert links == {"1.9.9": the_order(alone).id, "1.9.8": None}


def test_images_with_another_patient_id_than_the_order_wait_for_a_person(tmp_path: Path):
    with a_gateway(tmp_path, settings()) as alone:
        alone.line().ask(ORM)
        began(alone, patient_id="0815")
        eventually(lambda: alone.count(ExceptionItem, ExceptionItem.reference == f"study {UID}"))


def test_a_route_is_one_delivery_however_often_the_gateway_dies(tmp_path: Path):
    with a_gateway(tmp_path, settings(), start=False) as alone:
        began(alone)
        for n in range(3):
            stored(alone, n)
        completed(alone)
        routed = alone.plugin.add(
            "routed", rule="r", destination="PACS", proof="found", because="CT", study_uid=UID, cause="modality",
            generation=1, configuration="c", instances=[["i0", f"{UID}.1", f"{UID}.1.0"]],
        )  # fmt: skip
        for event in range(1, 9):
            alone.die_at(event)
            alone.start(wait=False)  # it may die before it listens
            alone.wait_for_death()
        alone.start()
        eventually(lambda: followed(alone))
        (delivery,) = alone.all(Delivery)
        assert (delivery.kind, delivery.destination, len(delivery.instances)) == ("dicom", "PACS", 1)
        assert alone.count(AuditEntry, AuditEntry.journal == alone.plugin.journal) == routed.seq
        assert [study.instances for study in alone.all(Study)] == [3]
        with alone.sessions() as session:
            assert audit.verify(session) == []


def test_a_delivery_to_a_place_the_configuration_does_not_name_waits_for_a_person(tmp_path: Path):
    with a_gateway(tmp_path, settings()) as alone:
        began(alone)
        alone.plugin.add(
            "routed", rule="r", destination="GONE", proof="found", because="CT", study_uid=UID, cause="modality",
            generation=1, configuration="c", instances=[],
        )  # fmt: skip
        eventually(lambda: [d for d in alone.all(Delivery) if d.state == "parked"])
        assert alone.count(ExceptionItem, ExceptionItem.room == "delivery") == 1


def test_a_stop_waits_for_no_archive_that_has_nothing_to_tell(tmp_path: Path):
    with a_gateway(tmp_path, settings(), start=False) as alone:
        alone.plugin.waits_s = 60
        alone.start()
        eventually(lambda: alone.plugin.waiting == 1)
        assert alone.stop() == 0
        assert alone.plugin.waiting == 1


def test_a_new_journal_is_an_incident_and_following_goes_on(tmp_path: Path):
    with a_gateway(tmp_path, settings()) as alone:
        began(alone)
        eventually(lambda: followed(alone))
        with alone.plugin.changing:
            alone.plugin.journal, alone.plugin.entries = "orthanc-second", []
            began(alone, uid="1.5")
        eventually(lambda: alone.count(Study, Study.study_uid == "1.5"))
        assert alone.count(ExceptionItem, ExceptionItem.room == "archive") == 1
        assert alone.count(AuditEntry, AuditEntry.event == "incident") == 1


def test_a_journal_that_was_put_back_is_an_incident_and_what_it_says_now_is_carried_out(tmp_path: Path):
    with a_gateway(tmp_path, settings()) as alone:
        for n in range(6):
            began(alone, uid=f"1.5.{n}", study_orthanc_id=f"o{n}")
        eventually(lambda: followed(alone))
        del alone.plugin.entries[3:]
        for n in (7, 8):
            began(alone, uid=f"1.5.{n}", study_orthanc_id=f"o{n}")
        eventually(lambda: alone.count(Study) == 8)
        began(alone, uid="1.5.9", study_orthanc_id="o9")
        eventually(lambda: alone.count(Study) == 9)
        (incident,) = alone.all(AuditEntry, AuditEntry.journal == "gateway", AuditEntry.event == "incident")
        assert b"behind entry 3" in incident.payload
        assert alone.count(AuditEntry, AuditEntry.journal == "orthanc-fake-fork") == 4
        with alone.sessions() as session:
            assert audit.verify(session) == []


@pytest.mark.parametrize(("kept", "behind"), [(3, 0), (6, 6)], ids=["before what is sealed", "behind it"])
def test_a_journal_that_was_put_back_is_followed_where_old_entries_are_sealed(tmp_path: Path, kept: int, behind: int):
    """Of what a segment holds the table knows the last hash alone."""
    with a_gateway(tmp_path, settings()) as alone:
        for n in range(8):
            if n == 6:
                eventually(lambda: followed(alone))
                seal_all(alone, tmp_path)
            began(alone, uid=f"1.5.{n}", study_orthanc_id=f"o{n}")
        eventually(lambda: alone.count(Study) == 8)
        del alone.plugin.entries[kept:]
        began(alone, uid="1.5.9", study_orthanc_id="o9")
        eventually(lambda: alone.count(Study) == 9)
        (incident,) = alone.all(AuditEntry, AuditEntry.journal == "gateway", AuditEntry.event == "incident")
        assert f"behind entry {behind}".encode() in incident.payload
        with alone.sessions() as session:
            assert audit.verify(session) == []


def seal_all(alone: Alone, home: Path) -> None:
    """Everything but the end of each chain is sealed, and leaves the table."""
    environment = Environment.read({"ZAMBEZI_HOME": str(home / "sealed")})
    now = clock.now() + timedelta(days=1)
    assert list(keeping.seal(alone.sessions, environment, now, "test", now))
    assert all(not why for _, _, why in keeping.prune(alone.sessions, environment, Audit(), now, "test", now))


def test_one_odd_entry_waits_for_a_person_and_the_others_are_carried_out(tmp_path: Path):
    with a_gateway(tmp_path, settings()) as alone:
        alone.plugin.add("study-completed", study_uid="1.404", study_orthanc_id="nobody", cause="modality")
        began(alone)
        eventually(lambda: alone.count(Study))
        (item,) = alone.all(ExceptionItem)
        assert (item.room, item.reference) == ("archive", "orthanc-fake/1")


def triggered(alone: Alone, uid: str = UID) -> None:
    alone.plugin.add(
        "hl7-triggered", rule="images", on="study-completed", peer="his", message="ORM^O01", because="complete",
        study_uid=uid, cause="modality", generation=1, configuration="c",
    )  # fmt: skip


def test_the_peer_is_told_that_images_are_there(tmp_path: Path):
    peer = Peer(free_port())
    with a_gateway(tmp_path, settings(peer)) as alone, peer.listening():
        alone.line().ask(ORM)
        began(alone)
        stored(alone, 1)
        completed(alone)
        triggered(alone)
        eventually(lambda: [d for d in alone.all(Delivery) if d.state == "delivered"])
        (message,) = peer.got
        assert (message.kind, message.get("ZDS-1.1"), message.get("OBR-18")) == ("ORM^O01", UID, "ACC1")
        (delivery,) = alone.all(Delivery)
        assert (delivery.proof, message.control_id) == ("acknowledged", delivery.id[:20])


def test_a_message_waits_for_a_peer_that_is_down(tmp_path: Path):
    peer = Peer(free_port())
    with a_gateway(tmp_path, settings(peer, RetrySeconds=0.2)) as alone:
        began(alone)
        triggered(alone)
        eventually(lambda: [d for d in alone.all(Delivery) if d.attempts >= 2])
        assert "no acknowledgement from" in alone.all(Delivery)[0].outcome
        with peer.listening():
            eventually(lambda: [d for d in alone.all(Delivery) if d.state == "delivered"])
        assert len(peer.got) == 1


def test_a_peer_that_says_no_is_asked_again_and_then_a_person_sees_its_words(tmp_path: Path):
    peer = Peer(free_port())
    peer.says = peer.reject
    with a_gateway(tmp_path, settings(peer, RetrySeconds=0.1, Attempts=3)) as alone, peer.listening():
        began(alone)
        triggered(alone)
        eventually(lambda: [d for d in alone.all(Delivery) if d.state == "parked"])
        assert len(peer.got) == 3
        assert len({message.control_id for message in peer.got}) == 1
        (item,) = alone.all(ExceptionItem)
        assert "his answered AR: no such ward" in item.what


def test_a_peer_that_closes_without_an_answer_gets_the_message_again_under_the_same_control_id(tmp_path: Path):
    peer = Peer(free_port())
    peer.says = lambda message: None if len(peer.got) < 3 else peer.accept(message)
    with a_gateway(tmp_path, settings(peer, RetrySeconds=0.1)) as alone, peer.listening():
        began(alone)
        triggered(alone)
        eventually(lambda: [d for d in alone.all(Delivery) if d.state == "delivered"])
        assert len({message.control_id for message in peer.got}) == 1


def test_an_acknowledgement_of_another_message_is_none(tmp_path: Path):
    peer = Peer(free_port())
    peer.says = lambda message: peer.accept(message).replace(message.control_id.encode(), b"OTHER")
    with a_gateway(tmp_path, settings(peer, RetrySeconds=0.1, Attempts=2)) as alone, peer.listening():
        began(alone)
        triggered(alone)
        eventually(lambda: [d for d in alone.all(Delivery) if d.state == "parked"])


def test_what_happens_to_exams_is_told_once_through_any_kill_of_the_gateway(tmp_path: Path):
    peer = Peer(free_port())
    told = settings(peer, RetrySeconds=0.1)
    told["Hl7"]["Triggers"] = [{"Name": "exams", "On": "exam-changed", "SendTo": "his", "Message": "ORM^O01"}]
    with a_gateway(tmp_path, told, start=False) as alone, peer.listening():
        alone.start()
        eventually(lambda: alone.all(TriggerCursor))
        with alone.sessions.begin() as session:
            who = {"patient_id": "1", "issuer": "HIS", "family_name": "X", "now": clock.now(), "writer": "ris"}
            order = orders.place_order(
                session, orders.register_patient(session, **who), orders.NewOrder(scheduled_at=clock.now()),
                now=clock.now(), site=Site(), writer="ris",
            )  # fmt: skip
        for event, status in ((1, "arrived"), (2, "in-progress"), (4, "completed")):
            alone.die_at(event)  # commits of every thread count: the death comes at another step of it each time
            with alone.sessions.begin() as session:
                orders.set_status(
                    session, session.get_one(Order, order.id), status, now=clock.now(), writer="ris", reason="test"
                )
            alone.wait_for_death()
            alone.start()
        eventually(lambda: alone.count(Delivery, Delivery.state == "delivered") == 4)
        once = {message.control_id: message.get("ORC-5") for message in peer.got}
        assert sorted(once.values()) == ["CM", "IP", "IP", "SC"]
        assert alone.count(AuditEntry, AuditEntry.event == "hl7-triggered") == 4


def test_the_plugin_is_brought_up_to_date_after_it_lost_its_copies(tmp_path: Path):
    with a_gateway(tmp_path, settings()) as alone:
        first = eventually(lambda: alone.plugin.generations["worklist"])
        alone.plugin.generations["worklist"] = 0
        assert eventually(lambda: alone.plugin.generations["worklist"]) >= first


def test_a_database_that_was_put_back_is_heard_again(tmp_path: Path):
    with a_gateway(tmp_path, settings()) as alone:
        alone.plugin.generations["announced"] = 4711
        eventually(lambda: alone.plugin.generations["announced"] > 4711)
        assert alone.count(Generation, Generation.name == "announced", Generation.number > 4711) == 1


def test_reading_the_fake_journal_is_like_reading_a_real_one():
    entry = chain.seal("j", 1, "", "stored", clock.now(), {})
    assert chain.first_broken([entry]) is None


def test_what_the_plugin_held_is_a_row_of_the_hold_once(tmp_path: Path):
    sha256, orthanc_id = "ab" * 32, "a-b-c-d-e"
    told = {
        "sha256": sha256, "size": 10, "why": "conflict", "state": "comparing", "reason": "other bytes",
        "reference": f"instance {orthanc_id}", "sender": "DICOM", "sop_uid": "1.5", "study_uid": UID,
        "series_uid": "1.4", "patient_id": "P1", "orthanc_id": orthanc_id, "other_sha256": "cd" * 32,
    }  # fmt: skip
    with a_gateway(tmp_path, settings()) as alone:
        alone.plugin.add("held", **told)
        alone.plugin.add("held", **told)
        missing = {"why": "no-identity", "state": "waiting", "reason": "no UID", "reference": "arrival"}
        alone.plugin.add("held", sha256="ef" * 32, size=3, sender="HTTP", **missing)
        eventually(lambda: alone.count(Held) == 2)
        (conflict,) = alone.all(Held, Held.why == "conflict")
        assert {name: getattr(conflict, name) for name in told} == told
        assert conflict.times == 2
        (waiting,) = alone.all(Held, Held.why == "no-identity")
        assert (waiting.state, waiting.sop_uid, waiting.patient_id) == ("waiting", None, "")


def test_a_second_copy_waits_for_a_person_once_for_two_studies(tmp_path: Path):
    both = {
        "study_uid": UID, "study_orthanc_id": "new", "other_study_uid": "1.9", "other_study_orthanc_id": "old",
        "other_orthanc_id": "o-1", "reason": "twice",
    }  # fmt: skip
    with a_gateway(tmp_path, settings()) as alone:
        for n in range(3):
            alone.plugin.add("conflict", sop_uid=f"1.5.{n}", orthanc_id=f"n-{n}", **both)
        alone.plugin.add(
            "conflict", **{**both, "other_study_uid": UID, "other_study_orthanc_id": "third"}, sop_uid="1.6"
        )
        eventually(lambda: alone.count(ExceptionItem, ExceptionItem.kind == "second-copy") == 2)
        item, alike = alone.all(ExceptionItem, ExceptionItem.kind == "second-copy")
        assert (item.room, item.study_uid) == ("archive", UID)
        assert all(uid in item.what for uid in (UID, "1.9", "new", "old"))
        assert [action["href"] for action in item.actions] == [f"/studies/{UID}", "/studies/1.9"]
        assert [action["href"] for action in alike.actions] == [f"/studies/{UID}"]
