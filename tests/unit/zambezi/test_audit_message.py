"""DICOM audit messages of every event: as PS3.15's schema wants them, complete, bounded, without a name."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

import pytest
from pydicom import dcmread

from tests import audit_schema
from zambezi import audit_message, chain, syslog
from zambezi.audit_message import Source
from zambezi.chain import Sealed
from zambezi.events import EVENTS
from zambezi.events import outcome as ended

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
SOURCE = Source("Hospital Central", "pacs.lan")
CANARY = "ZZCANARY"
#: A value for every fact that an entry may have; names of patients are the canary.
FACTS: dict[str, Any] = {
    "study_uid": "1.2.3", "series_uid": "1.2.3.4", "sop_uid": "1.2.3.4.5", "sop_class": "1.2.840.10008.5.1.4.1.1.2",
    "patient_id": "P1001", "issuer": "HCM", "patient_name": f"{CANARY}^ANA", "birth_date": "19580412", "sex": "F",
    "accession_number": "A1", "remote_aet": "CT1", "remote_ip": "10.1.0.21", "called_aet": "ZAMBEZI", "who": "ana",
    "ip": "10.1.0.7", "reason": "because\nof <this> & \x01that", "state": "parked", "destination": "ARQUIVO",
    "peer": "HIS", "user": "rui", "instances": [{"sop_uid": f"1.2.{n}"} for n in range(5000)], "project": "old",
    "snapshot": "abc", "changed": ["patient", "order"], "session": "s1", "count": 3,
    "query": {"0010,0010": f"{CANARY}*", "0010,0020": "P1*", "0008,0052": "STUDY"}, "kind": "find",
}  # fmt: skip


def sealed(event: str, **facts: Any) -> Sealed:
    return chain.seal("ris", 7, "0" * 64, event, NOW, facts)


def read(message: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(message)  # noqa: S314  our own


@pytest.mark.parametrize("facts", [FACTS, {}, {"study_uid": "1.2.3", "instances": 4}], ids=["all", "none", "few"])
@pytest.mark.parametrize("event", EVENTS)
def test_every_event_is_a_valid_message_that_names_no_patient(event: str, facts: dict[str, Any]):
    entry = sealed(event, **facts)
    message = audit_message.message(entry, SOURCE)
    assert audit_schema.faults(message) == []
    assert len(message) <= audit_message.LARGEST
    assert CANARY.encode() not in message
    assert b"\n" not in message
    root = read(message)
    identified = root.find("EventIdentification/EventID")
    assert identified is not None
    assert identified.attrib["csd-code"] == EVENTS[event][0]
    asked = [one for one in root.findall("ActiveParticipant") if one.attrib["UserIsRequestor"] == "true"]
    assert len(asked) == 1, "one participant asked for it, and one alone (A.5.2)"
    assert f"urn:zambezi:audit:ris:7:{entry.hash}".encode() in message
    details = audit_schema.details(message)
    assert {"patient_name", "birth_date", "sex", "query"} & set(details) == set()
    assert details.get("destination") == facts.get("destination")


def test_a_store_says_who_sent_what_to_whom_and_of_whom():
    message = audit_message.message(
        sealed("stored", **{k: FACTS[k] for k in ("study_uid", "sop_uid", "sop_class", "remote_aet", "remote_ip",
                                                  "called_aet", "accession_number")}), SOURCE, "P1001",
    )  # fmt: skip
    root = read(message)
    event = root.find("EventIdentification")
    assert event is not None
    assert (event.attrib["EventActionCode"], event.attrib["EventOutcomeIndicator"]) == ("C", "0")
    people = [
        (one.attrib["UserID"], one.find("RoleIDCode").attrib["csd-code"], one.attrib["NetworkAccessPointID"])  # type: ignore[union-attr]
        for one in root.findall("ActiveParticipant")
    ]
    assert people == [("CT1", "110153", "10.1.0.21"), ("ZAMBEZI", "110152", "pacs.lan")]
    study, patient = root.findall("ParticipantObjectIdentification")[:2]
    assert (study.attrib["ParticipantObjectID"], patient.attrib["ParticipantObjectID"]) == ("1.2.3", "P1001")
    of_class = study.find("ParticipantObjectDescription/SOPClass")
    assert of_class is not None
    assert (of_class.attrib["UID"], of_class[0].attrib["UID"]) == (FACTS["sop_class"], "1.2.3.4.5")


def test_a_query_is_the_data_set_that_was_asked_for():
    root = read(audit_message.message(sealed("queried", query=FACTS["query"], kind="find", aet="WS1"), SOURCE))
    asked = root.find("ParticipantObjectIdentification/ParticipantObjectQuery")
    assert asked is not None
    found = dcmread(BytesIO(base64.b64decode(asked.text or "")), force=True)
    assert (str(found.PatientName), found.PatientID, found.QueryRetrieveLevel) == (f"{CANARY}*", "P1*", "STUDY")


@pytest.mark.parametrize(
    ("event", "facts", "outcome", "severity"),
    [
        ("signed-in", {}, "0", 5), ("sign-in-failed", {}, "4", 4), ("incident", {}, "8", 3),
        ("delivery-changed", {"state": "parked"}, "8", 3), ("delivery-changed", {"state": "delivered"}, "0", 5),
        ("hold-changed", {"state": "waiting"}, "0", 5),
    ],
)  # fmt: skip
def test_what_failed_is_told_as_a_failure_in_the_message_and_in_the_severity(event, facts, outcome, severity):
    entry = sealed(event, **facts)
    event_element = read(audit_message.message(entry, SOURCE)).find("EventIdentification")
    assert event_element is not None
    assert event_element.attrib["EventOutcomeIndicator"] == outcome
    record = syslog.record(b"<x/>", syslog.AUDIT_MESSAGE, entry.facts["at"], "pacs.lan", "ris", ended(entry.facts))
    assert record.startswith(
        f"<{80 + severity}>1 2026-03-01T08:30:00.000000Z pacs.lan zambezi ris DICOM+RFC3881 - ".encode()
    )


def test_a_syslog_message_is_framed_by_its_octets_and_its_header_is_plain_ascii():
    record = syslog.record("<x>é</x>".encode(), syslog.AUDIT_MESSAGE, "2026-03-01T08:30:00.000000Z", "à b", "ris")
    assert record.split(b" - ")[0].isascii()
    assert b" __b " in record
    assert record.endswith(b"\xef\xbb\xbf<x>\xc3\xa9</x>")
    assert syslog.framed(record) == str(len(record)).encode() + b" " + record
