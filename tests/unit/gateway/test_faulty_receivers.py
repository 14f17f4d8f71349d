"""Deliveries to receivers that do what receivers do.

Each fault is met at the strictest proof that can be had there, and in the end the receiver has everything, once,
or a person knows what it hasn't, and why.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import CTImageStorage, MRImageStorage

from tests.integration.archive_fixture import image
from tests.misbehaving import Receiver
from zambezi import outbox
from zambezi.config.settings import DestinationTls
from zambezi.database.tables import Delivery, ExceptionItem

SILENCE_S = 0.6
REFUSED_FOR_NOW = 0xA700


def kept_but_every_second(_event: Any, number: int) -> int | None:
    return None if number % 2 else 0


def hangs_at_the_third(event: Any, number: int) -> int | None:
    if number == 3:
        time.sleep(SILENCE_S * 2)
        event.assoc.abort()
    return None


def breaks_the_line_at_the_third(event: Any, number: int) -> int | None:
    if number == 3:
        event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        time.sleep(0.1)
        return 0
    return None


def is_full_at_the_third(_event: Any, number: int) -> int | None:
    return REFUSED_FOR_NOW if number == 3 else None


@pytest.mark.parametrize("proof", ["acknowledged", "found", "committed"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (hangs_at_the_third, "was silent for 0.6 s in mid-study"),
        (breaks_the_line_at_the_third, "ended the association in mid-study"),
        (is_full_at_the_third, "status 0xA700"),
    ],
)
def test_what_broke_in_mid_study_goes_on_where_it_was(bench, proof, fault, said):
    one = bench(Receiver(fault), proof=proof, silence_s=SILENCE_S if fault is hangs_at_the_third else 20)
    with one.receiver.listening():
        failed = one.attempt()
        assert failed.state == "retrying"
        assert said in failed.outcome
        one.sender._courier._own._silence_s = 20
        kept = set(one.receiver.has)
        done = one.attempt()
    assert (done.state, done.proof) == ("delivered", proof)
    assert set(one.receiver.has) == one.wanted
    # What was acknowledged before isn't sent again; of the third nobody could know.
    assert {sop for sop, times in one.receiver.offered.items() if times > 1} <= one.wanted - (kept - {*list(kept)[2:3]})
    assert sum(one.receiver.offered.values()) <= len(one.wanted) + 1


@pytest.mark.parametrize("proof", ["found", "committed"])
@pytest.mark.parametrize(
    ("lies", "missing"), [(lambda event, number: 0, 4), (kept_but_every_second, 2)], ids=["all", "every second"]
)
def test_a_receiver_that_says_success_and_keeps_nothing_is_found_out_within_one_check(bench, proof, lies, missing):
    one = bench(Receiver(lies), proof=proof)
    with one.receiver.listening():
        failed = one.attempt()
        assert failed.state == "retrying"
        assert f"{missing} of 4 instances" in failed.outcome
        one.receiver.does = lambda event, number: None  # somebody repairs it
        had = set(one.receiver.has)
        done = one.attempt()
    assert done.state == "delivered"
    assert set(one.receiver.has) == one.wanted
    assert {sop for sop, times in one.receiver.offered.items() if times == 1} == had


def test_a_liar_that_goes_on_lying_ends_before_a_person(bench):
    one = bench(Receiver(lambda event, number: 0), attempts=3)
    with one.receiver.listening():
        for _ in range(3):
            row = one.attempt()
    assert row.state == "parked"
    with one.made.begin() as session:
        assert session.query(ExceptionItem).filter_by(reference=one.id).one().facts["attempts"] == 3


def test_at_acknowledged_a_liar_is_believed_and_the_outcome_says_what_it_rests_on(bench):
    one = bench(Receiver(lambda event, number: 0), proof="acknowledged")
    with one.receiver.listening():
        row = one.attempt()
    assert (row.state, row.proof) == ("delivered", "acknowledged")
    assert "acknowledged each of 4" in row.outcome


def test_a_warning_is_no_refusal_and_is_told(bench):
    one = bench(Receiver(lambda event, number: 0xB000))
    with one.receiver.listening():
        row = one.attempt()
    assert row.state == "delivered"
    assert "4 with the warning 0xB000" in row.outcome
    one.arrived_once()


def test_a_receiver_down_for_a_day_gets_everything_once_when_it_is_back(bench):
    one = bench(Receiver(), attempts=50)
    for _ in range(12):
        row = one.attempt()
    assert row.state == "retrying"
    assert "Connection refused" in row.outcome
    with one.receiver.listening():
        assert one.attempt().state == "delivered"
    one.arrived_once()


@pytest.mark.parametrize(
    ("rejects", "state", "said"),
    [
        ((2, 3, 2), "retrying", "refuses the association: local limit exceeded"),
        ((1, 1, 3), "parked", "it doesn't know our AE title"),
        ((1, 1, 7), "parked", "its AE title is another one"),
    ],
)
def test_a_refused_association_is_for_now_or_for_a_person(bench, rejects, state, said):
    one = bench(Receiver(rejects=rejects))
    with one.receiver.listening():
        row = one.attempt()
    assert (row.state, said in row.outcome) == (state, True), row.outcome
    assert not one.receiver.offered


def a_certificate(folder: Path, name: str) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
         "-keyout", f"{name}.key", "-out", f"{name}.pem"], check=True, cwd=folder, capture_output=True,
    )  # fmt: skip


def test_a_receiver_that_shows_another_certificate_gets_nothing_and_a_person_is_told(bench, tmp_path):
    for name in ("theirs", "other"):
        a_certificate(tmp_path, name)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(tmp_path / "theirs.pem", tmp_path / "theirs.key")
    one = bench(Receiver(tls=theirs))

    def trusts(**tls: str) -> Delivery:
        one.sender = one.a_sender(tls=DestinationTls(**tls))
        row = one.attempt()
        with one.made.begin() as session:
            outbox.resume(session, one.name, now=one.now, writer="test", who="maria")
        return row

    with one.receiver.listening():
        row = trusts(ca_file="other.pem")
        assert (row.state, "self-signed certificate" in row.outcome) == ("parked", True), row.outcome
        row = trusts(ca_file="missing.pem")
        assert (row.state, "the files of Tls can't be used" in row.outcome) == ("parked", True), row.outcome
        assert not one.receiver.offered
        assert trusts(ca_file="theirs.pem", server_name="somebody").state == "parked"
        assert trusts(ca_file="theirs.pem").state == "delivered"
    one.arrived_once()


def test_a_receiver_that_drops_each_association_is_tried_again(bench):
    one = bench(Receiver(lambda event, number: event.assoc.abort() or 0))
    with one.receiver.listening():
        assert one.attempt().state == "retrying"
        one.receiver.does = lambda event, number: None
        assert one.attempt().state == "delivered"
    assert set(one.receiver.has) == one.wanted


@pytest.mark.parametrize("proof", ["acknowledged", "found"])
def test_one_class_that_isnt_taken_keeps_no_other_back_and_a_person_is_told(bench, proof):
    study = image().StudyInstanceUID
    images = [image(study, SOPClassUID=MRImageStorage if n == 1 else CTImageStorage) for n in range(4)]
    for one in images:
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one = bench(Receiver(classes=(CTImageStorage,)), images=images, proof=proof)
    with one.receiver.listening():
        states = [one.attempt() for _ in range(3)]
    assert [row.state for row in states] == ["retrying", "retrying", "parked"]
    assert "it takes no 1.2.840.10008.5.1.4.1.1.4" in states[0].outcome
    assert "takes none of: MR Image Storage" in states[-1].outcome
    assert set(one.receiver.has) == one.wanted - {str(images[1].SOPInstanceUID)}
    assert set(one.receiver.offered.values()) == {1}


def test_a_status_that_refuses_one_image_keeps_no_other_back(bench):
    one = bench(Receiver(lambda event, number: 0xC000 if number == 2 else None))
    with one.receiver.listening():
        row = one.attempt()
        assert len(one.receiver.has) == 3
        assert "1 of 4 instances don't go" in row.outcome
        assert "status 0xC000" in row.outcome
        assert one.attempt().state == "delivered"
