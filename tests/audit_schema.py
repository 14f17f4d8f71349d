"""The audit message schema of PS3.15 A.5.1, as a check: elements in their order, attributes, what values may be.

Written from the standard's schema, and not from what we send: each fault is a sentence.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from xml.etree import ElementTree

TOKEN = r"\S(.*\S)?"
TEXT = r"(?s).*"
BOOLEAN = r"true|false|0|1"
DATE_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"
CODED = {"csd-code": TOKEN, "codeSystemName": TOKEN, "originalText": TOKEN, "displayName?": TOKEN}


@dataclass(frozen=True)
class Element:
    """Attributes (`?`: optional) and children in their order: (name, least, most)."""

    attributes: dict[str, str]
    children: tuple[tuple[str, int, float], ...] = ()
    text: str = r"\s*"


MANY = float("inf")
ELEMENTS = {
    "AuditMessage": Element({}, (
        ("EventIdentification", 1, 1), ("ActiveParticipant", 1, MANY), ("AuditSourceIdentification", 1, 1),
        ("ParticipantObjectIdentification", 0, MANY),
    )),
    "EventIdentification": Element(
        {"EventActionCode?": "[CRUDE]", "EventDateTime": DATE_TIME, "EventOutcomeIndicator": "0|4|8|12"},
        (("EventID", 1, 1), ("EventTypeCode", 0, MANY), ("EventOutcomeDescription", 0, 1)),
    ),
    "EventID": Element(CODED), "EventTypeCode": Element(CODED), "EventOutcomeDescription": Element({}, text=TEXT),
    "ActiveParticipant": Element(
        {"UserID": r"(?s).+", "UserIsRequestor": BOOLEAN, "AlternativeUserID?": TEXT, "UserName?": TEXT,
         "NetworkAccessPointID?": TOKEN, "NetworkAccessPointTypeCode?": "[1-5]"},
        (("RoleIDCode", 0, MANY), ("MediaIdentifier", 0, 1)),
    ),
    "RoleIDCode": Element(CODED), "MediaIdentifier": Element({}, (("MediaType", 1, 1),)), "MediaType": Element(CODED),
    "AuditSourceIdentification": Element(
        {"AuditEnterpriseSiteID?": TOKEN, "AuditSourceID": TOKEN}, (("AuditSourceTypeCode", 0, MANY),)
    ),
    "AuditSourceTypeCode": Element({"csd-code": "[1-9]"}),
    "ParticipantObjectIdentification": Element(
        {"ParticipantObjectID": TOKEN, "ParticipantObjectTypeCode?": "[1-4]",
         "ParticipantObjectTypeCodeRole?": "[1-9]|1[0-9]|2[0-6]", "ParticipantObjectDataLifeCycle?": "[1-9]|1[0-5]",
         "ParticipantObjectSensitivity?": TOKEN},
        (("ParticipantObjectIDTypeCode", 1, 1), ("ParticipantObjectName", 0, 1), ("ParticipantObjectQuery", 0, 1),
         ("ParticipantObjectDetail", 0, MANY), ("ParticipantObjectDescription", 0, MANY)),
    ),
    "ParticipantObjectIDTypeCode": Element(CODED),
    "ParticipantObjectName": Element({}, text=TOKEN),
    "ParticipantObjectQuery": Element({}, text=r"[A-Za-z0-9+/=]*"),
    "ParticipantObjectDetail": Element({"type": TOKEN, "value": r"[A-Za-z0-9+/=]*"}),
    "ParticipantObjectDescription": Element({}, (
        ("MPPS", 0, MANY), ("Accession", 0, MANY), ("SOPClass", 0, MANY), ("ParticipantObjectContainsStudy", 0, 1),
        ("Encrypted", 0, 1), ("Anonymized", 0, 1),
    )),
    "Accession": Element({"Number": TOKEN}),
    "SOPClass": Element({"UID?": r"[0-9.]+", "NumberOfInstances": r"\d+"}, (("Instance", 0, MANY),)),
    "Instance": Element({"UID": r"[0-9.]+"}),
}  # fmt: skip


def faults(message: bytes) -> list[str]:
    """Everything in which the message isn't as the schema wants it; none if all is."""
    root = ElementTree.fromstring(message)  # noqa: S314  our own
    if root.tag != "AuditMessage":
        return [f"the root is {root.tag}"]
    return list(_faults(root))


def _faults(element: ElementTree.Element) -> list[str]:
    known, found = ELEMENTS[element.tag], []
    allowed = {name.rstrip("?"): pattern for name, pattern in known.attributes.items()}
    missing = [name for name in known.attributes if not name.endswith("?") and name not in element.attrib]
    found += [f"{element.tag} lacks {name}" for name in missing]
    for name, value in element.attrib.items():
        if name not in allowed or not re.fullmatch(allowed[name], value):
            found.append(f"{element.tag} has {name}={value!r}")
    if not re.fullmatch(known.text, element.text or ""):
        found.append(f"{element.tag} says {element.text!r}")
    order = [name for name, _, _ in known.children]
    places = [order.index(child.tag) if child.tag in order else -1 for child in element]
    if -1 in places or places != sorted(places):
        found.append(f"{element.tag} has {[child.tag for child in element]}")
    for name, least, most in known.children:
        number = len(element.findall(name))
        if not least <= number <= most:
            found.append(f"{element.tag} has {number} {name}")
    if element.tag == "ParticipantObjectIdentification":
        names = len(element.findall("ParticipantObjectName")) + len(element.findall("ParticipantObjectQuery"))
        found += [] if names == 1 else ["an object has a name or a query, and one of them"]
    return found + [one for child in element if child.tag in order for one in _faults(child)]


def details(message: bytes) -> dict[str, str]:
    """The details of the last object, which is the entry itself, decoded."""
    last = ElementTree.fromstring(message).findall("ParticipantObjectIdentification")[-1]  # noqa: S314  our own
    return {
        one.attrib["type"]: base64.b64decode(one.attrib["value"]).decode()
        for one in last.findall("ParticipantObjectDetail")
    }
