"""A sealed entry as a DICOM audit message: the XML of PS3.15 A.5.1, filled as A.5.3 wants it for each event.

A patient is the identifier, a study its UID; a name stands at most in what a peer's query asked for, which A.5.3.10
wants whole. Each message ends with an object that is the
entry itself (`urn:zambezi:audit:CHAIN:SEQ:HASH`), so that what lies with a collector can be held against the chain.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from zambezi.audit_query import encoded_query, sop_class
from zambezi.chain import Sealed
from zambezi.events import EVENTS, outcome

#: PS3.15 A.5.3 fixes what the event is called and, for most, its action.
EVENT_IDS = {
    "110100": ("Application Activity", "E"),
    "110101": ("Audit Log Used", "R"),
    "110102": ("Begin Transferring DICOM Instances", "E"),
    "110103": ("DICOM Instances Accessed", ""),
    "110104": ("DICOM Instances Transferred", ""),
    "110105": ("DICOM Study Deleted", "D"),
    "110106": ("Export", "R"),
    "110107": ("Import", "C"),
    "110108": ("Network Entry", "E"),
    "110109": ("Order Record", ""),
    "110110": ("Patient Record", ""),
    "110111": ("Procedure Record", ""),
    "110112": ("Query", "E"),
    "110113": ("Security Alert", "E"),
    "110114": ("User Authentication", "E"),
}
#: Event types of CID 401, 402 and 403, where one says what happened here.
_TYPES = {
    "started": ("110120", "Application Start"),
    "stopped": ("110121", "Application Stop"),
    "signed-in": ("110122", "Login"),
    "sign-in-failed": ("110122", "Login"),
    "signed-out": ("110123", "Logout"),
    "user-changed": ("110137", "User Security Attributes Changed"),
    "key-changed": ("110129", "Security Configuration"),
    "certificate-changed": ("110129", "Security Configuration"),
    "legal-hold-changed": ("110135", "Object Security Attributes Changed"),
}
_NODE_AUTHENTICATION = ("110126", "Node Authentication")
_RESTRICTED_FUNCTION = ("110132", "Use of Restricted Function")
_URI = ("110037", "URI")  # CID 405: all our exports and imports are files
_APPLICATION, _LAUNCHER = ("110150", "Application"), ("110151", "Application Launcher")
_DESTINATION, _SOURCE = ("110152", "Destination Role ID"), ("110153", "Source Role ID")
_DESTINATION_MEDIA, _SOURCE_MEDIA = ("110154", "Destination Media"), ("110155", "Source Media")

#: Facts that the message says elsewhere, that name a patient, or that may fill books.
_UNSAID = {
    "journal", "seq", "prev", "event", "at", "who", "study_uid", "patient_id", "patient_name", "birth_date", "sex",
    "query", "instances", "listed", "original",
}  # fmt: skip
#: A receiver of RFC 5425 should take 8192 octets and may cut off what is longer; header and framing want some, too.
LARGEST = 7800
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Source:
    """The installation that reports: its site, the name of its machine, the archive's AE title."""

    site: str
    machine: str
    aet: str = "ZAMBEZI"


def message(entry: Sealed, source: Source, patient_id: str = "") -> bytes:
    """The AuditMessage, UTF-8, on one line of at most LARGEST octets.

    `patient_id`: whose study it is, where the entry knows the study alone. What doesn't fit is left out of the
    entry's details; the chain has it.
    """
    facts = entry.facts
    for left in (40, 12, 4, 0):
        written = _written(entry, facts, source, patient_id, left)
        if len(written) <= LARGEST:
            break
    return written


def _written(entry: Sealed, facts: Mapping[str, Any], source: Source, patient_id: str, details: int) -> bytes:
    code, action, words = EVENTS.get(facts["event"], ("110100", "E", str(facts["event"])))
    title, fixed = EVENT_IDS[code]
    root = ElementTree.Element("AuditMessage")
    ended = outcome(facts)
    event = _add(
        root, "EventIdentification", EventActionCode=fixed or action, EventDateTime=facts["at"],
        EventOutcomeIndicator=ended,
    )  # fmt: skip
    _coded(event, "EventID", (code, title))
    for kind in _types(facts):
        _coded(event, "EventTypeCode", kind)
    _coded(event, "EventTypeCode", (facts["event"], words), "Zambezi")
    if ended and facts.get("reason"):
        _add(event, "EventOutcomeDescription").text = _clean(" ".join(str(facts["reason"]).split())[:500])
    for one in _participants(code, facts, source):
        one.write(root)
    reporting = _add(root, "AuditSourceIdentification", AuditEnterpriseSiteID=source.site, AuditSourceID=source.machine)
    _add(reporting, "AuditSourceTypeCode", **{"csd-code": "4"})
    if facts.get("study_uid"):
        _study(root, facts)
    patient = str(facts.get("patient_id") or patient_id)
    if patient:
        _object(root, "1", "1", patient, ("2", "Patient Number"), "RFC-3881")
    if code == "110112":
        _query(root, facts)
    if facts.get("user"):
        _object(root, "1", "11", facts["user"], ("11", "User Identifier"), "RFC-3881")
    if code == "110101":
        _object(root, "2", "13", "urn:zambezi:audit", ("12", "URI"), "RFC-3881", "Security Audit Log")
    _entry(root, entry, facts, code, details)
    written: bytes = ElementTree.tostring(root, encoding="utf-8")
    return b'<?xml version="1.0" encoding="UTF-8"?>' + written


@dataclass(frozen=True)
class _Active:
    """An ActiveParticipant."""

    user: str
    is_requestor: bool = False
    role: tuple[str, str] | None = None
    address: str = ""
    machine: str = ""
    is_medium: bool = False

    def write(self, root: ElementTree.Element) -> None:
        where = {}
        if self.address or self.machine:
            where["NetworkAccessPointID"] = self.address or self.machine
            where["NetworkAccessPointTypeCode"] = "2" if self.address else "1"
        asked = "true" if self.is_requestor else "false"
        made = _add(root, "ActiveParticipant", UserID=self.user, UserIsRequestor=asked, **where)
        if self.role:
            _coded(made, "RoleIDCode", self.role)
        if self.is_medium:
            _coded(_add(made, "MediaIdentifier"), "MediaType", _URI)


def _participants(code: str, facts: Mapping[str, Any], source: Source) -> Iterator[_Active]:
    """Who took part, as A.5.3 lists them for this event; one at most asked for it."""
    chain, who = facts["journal"], str(facts.get("who") or "")
    address = str(facts.get("ip") or facts.get("remote_ip") or "")
    peer = str(facts.get("remote_aet") or facts.get("aet") or facts.get("sender") or facts.get("http_user") or "")
    to = str(facts.get("destination") or facts.get("peer") or facts.get("channel") or "")
    ours = _Active(chain, machine=source.machine)
    person = _Active(who, True, address=address) if who else None
    if code == "110100":
        yield _Active(chain, person is None, _APPLICATION, machine=source.machine)
        if person:
            yield _Active(who, True, _LAUNCHER, address)
    elif code == "110102" or (code == "110104" and to):
        yield _Active(source.aet, person is None, _SOURCE, machine=source.machine)
        yield _Active(to or "unknown", False, _DESTINATION)
        if person:
            yield person
    elif code == "110104":
        yield _Active(peer or chain, person is None, _SOURCE, address)
        yield _Active(str(facts.get("called_aet") or source.aet), False, _DESTINATION, machine=source.machine)
        if person:
            yield person
    elif code == "110106":
        yield _Active(who or chain, True, _SOURCE, address, source.machine)
        medium = str(facts.get("snapshot") or facts.get("file") or "unknown")
        yield _Active(medium, False, _DESTINATION_MEDIA, is_medium=True)
    elif code == "110107":
        yield _Active(who or chain, True, _DESTINATION, address, source.machine)
        came_from = str(to or facts.get("project") or facts.get("snapshot") or facts.get("from_index") or "unknown")
        yield _Active(came_from, False, _SOURCE)
        yield _Active(came_from, False, _SOURCE_MEDIA, is_medium=True)
    elif code == "110112":
        yield _Active(peer or "unknown", True, _SOURCE, address)
        yield _Active(str(facts.get("called_aet") or source.aet), False, _DESTINATION, machine=source.machine)
    elif code == "110114":
        yield _Active(who or "unknown", True, address=address)
        yield ours
    elif code == "110113" and not person and (peer or address):
        yield ours
        yield _Active(peer or address, True, address=address)
    elif person:
        yield person
        yield ours
    else:
        yield _Active(peer or chain, True, address=address, machine=source.machine)


def _types(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    event = facts["event"]
    if event == "refused":
        yield _NODE_AUTHENTICATION if facts.get("aet") or facts.get("door") else _RESTRICTED_FUNCTION
    elif event in _TYPES:
        yield _TYPES[event]


def _study(root: ElementTree.Element, facts: Mapping[str, Any]) -> None:
    name = str(facts.get("accession_number") or facts["study_uid"])
    made = _object(root, "2", "3", facts["study_uid"], ("110180", "Study Instance UID"), "DCM", name)
    described = _add(made, "ParticipantObjectDescription")
    if facts.get("accession_number"):
        _add(described, "Accession", Number=facts["accession_number"])
    instances = facts.get("instances")
    count = len(instances) if isinstance(instances, list) else instances if isinstance(instances, int) else 0
    count = 1 if facts.get("sop_uid") else count
    if count:
        uid = {"UID": facts["sop_class"]} if facts.get("sop_class") else {}
        of_class = _add(described, "SOPClass", NumberOfInstances=count, **uid)
        if facts.get("sop_uid"):
            _add(of_class, "Instance", UID=facts["sop_uid"])


def _query(root: ElementTree.Element, facts: Mapping[str, Any]) -> None:
    asked, syntax = encoded_query(facts.get("query"))
    made = _add(
        root, "ParticipantObjectIdentification", ParticipantObjectID=sop_class(facts), ParticipantObjectTypeCode="2",
        ParticipantObjectTypeCodeRole="3",
    )  # fmt: skip
    _coded(made, "ParticipantObjectIDTypeCode", ("110181", "SOP Class UID"))
    _add(made, "ParticipantObjectQuery").text = base64.b64encode(asked).decode()
    _detail(made, "TransferSyntax", syntax)


def _entry(root: ElementTree.Element, entry: Sealed, facts: Mapping[str, Any], code: str, details: int) -> None:
    """The entry as an object, with its facts as details: base64, as A.5.1 wants every value."""
    name = f"urn:zambezi:audit:{entry.journal}:{entry.seq}:{entry.hash}"
    made = _object(root, "2", "13", name, ("12", "URI"), "RFC-3881", "Audit trail entry")
    if code == "110113":
        _detail(made, "Alert Description", str(facts.get("reason") or EVENTS[facts["event"]][2])[:500])
    told = ((fact, value) for fact, value in sorted(facts.items()) if fact not in _UNSAID and value not in ("", None))
    for fact, value in list(told)[:details]:
        said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if len(said) <= 1000:
            _detail(made, fact, said)


def _object(
    root: ElementTree.Element, kind: str, role: str, identifier: Any, coded: tuple[str, str], system: str,
    name: str = "",
) -> ElementTree.Element:  # fmt: skip
    made = _add(
        root, "ParticipantObjectIdentification", ParticipantObjectID=identifier, ParticipantObjectTypeCode=kind,
        ParticipantObjectTypeCodeRole=role,
    )  # fmt: skip
    _coded(made, "ParticipantObjectIDTypeCode", coded, system)
    _add(made, "ParticipantObjectName").text = _clean(name or identifier)
    return made


def _detail(made: ElementTree.Element, kind: str, value: str) -> None:
    _add(made, "ParticipantObjectDetail", type=kind).set("value", base64.b64encode(value.encode()).decode())


def _coded(parent: ElementTree.Element, tag: str, coded: tuple[str, str], system: str = "DCM") -> None:
    code, words = coded
    _add(parent, tag, **{"csd-code": code, "codeSystemName": system, "originalText": words})


def _add(parent: ElementTree.Element, tag: str, /, **attributes: Any) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, {name: _clean(value) for name, value in attributes.items()})


def _clean(value: Any) -> str:
    """A text that XML 1.0 allows."""
    return _NOT_XML.sub("?", str(value))[:1000]
