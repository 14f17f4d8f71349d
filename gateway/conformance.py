"""What Zambezi's DICOM ports negotiate, from the configuration: the tables of a conformance statement (PS3.2).

`zambezi conformance` prints them for an installation, docs/conformance/dicom.md has them for the configuration as it
is shipped. A test negotiates with the running servers and finds each SOP class and transfer syntax as it is said here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click
from pydicom.uid import UID
from pynetdicom.presentation import AllStoragePresentationContexts

from gateway import dicom_server
from zambezi import config
from zambezi.config import Configuration
from zambezi.environment import Environment, Ports

#: Orthanc takes storage in every syntax that its DICOM library knows (these by 1.10.1), all else uncompressed.
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
COMPRESSED = (
    "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5",
    *(f"1.2.840.10008.1.2.4.{n}" for n in (*range(50, 67), 70, 80, 81, *range(90, 96), *range(100, 109))),
)  # fmt: skip
#: Storage classes of what belongs to no patient: Orthanc doesn't negotiate them.
NO_PATIENT = (
    "1.2.840.10008.5.1.4.1.1.200.1", "1.2.840.10008.5.1.4.1.1.200.3", "1.2.840.10008.5.1.4.1.1.200.7",
    "1.2.840.10008.5.1.4.38.1", "1.2.840.10008.5.1.4.39.1", "1.2.840.10008.5.1.4.43.1", "1.2.840.10008.5.1.4.44.1",
    "1.2.840.10008.5.1.4.45.1",
)  # fmt: skip

_QUERY, _MOVE, _GET = "1.2.840.10008.5.1.4.1.2.{}.1", "1.2.840.10008.5.1.4.1.2.{}.2", "1.2.840.10008.5.1.4.1.2.{}.3"


@dataclass(frozen=True)
class Service:
    """A SOP class that a port offers as SCP, to peers with a right of DicomModalities."""

    sop_class: str
    what: str
    right: str


#: Port 4242, beside storage.
ARCHIVE = (
    Service("1.2.840.10008.1.1", "C-ECHO", "AllowEcho"),
    Service(_QUERY.format(1), "C-FIND", "AllowFind"),
    Service(_QUERY.format(2), "C-FIND", "AllowFind"),
    Service("1.2.840.10008.5.1.4.31", "C-FIND", "AllowFindWorklist"),
    Service(_MOVE.format(1), "C-MOVE", "AllowMove"),
    Service(_MOVE.format(2), "C-MOVE", "AllowMove"),
    Service(_GET.format(1), "C-GET", "AllowGet"),
    Service(_GET.format(2), "C-GET", "AllowGet"),
    Service("1.2.840.10008.1.20.1", "N-ACTION, N-EVENT-REPORT", "AllowStorageCommitment"),
)
#: Port 4243: what is done with each of gateway.dicom_server.OFFERED.
GATEWAY = {
    "1.2.840.10008.1.1": "C-ECHO",
    "1.2.840.10008.3.1.2.3.3": "N-CREATE, N-SET",
    "1.2.840.10008.5.1.4.31": "C-FIND",
    "1.2.840.10008.1.20.1": "N-ACTION; N-EVENT-REPORT of destinations that were asked",
}
#: Calls by us: who calls, SOP class, role, what for.
OUT = (
    ("orthanc", "Storage, every SOP class", "SCU", "deliveries, C-MOVE of others"),
    ("orthanc", _QUERY.format(2), "SCU", "proof *found*, inventory of a migration"),
    ("orthanc", _MOVE.format(2), "SCU", "migration, earlier studies that a rule fetches"),
    ("gateway", "Storage, every SOP class", "SCU", "deliveries that Orthanc's sender can't do"),
    ("gateway", _QUERY.format(2), "SCU", "proof *found* of such a delivery"),
    ("gateway", _GET.format(2), "SCU", "earlier studies, from a source with `Retrieve` get"),
    ("gateway", "1.2.840.10008.1.20.1", "SCU", "N-ACTION, proof *committed*"),
    ("gateway", "1.2.840.10008.1.20.1", "SCP", "N-EVENT-REPORT, where the peer left its association"),
    ("migration", _GET.format(2), "SCU", "the second, independent retrieve"),
    ("console, ris", "1.2.840.10008.1.1", "SCU", "a person's echo to a peer of TLS"),
)


def storage_classes() -> tuple[str, ...]:
    """Standard storage SOP classes (PS3.6) that are taken and that pydicom can name, by UID."""
    known = {str(one.abstract_syntax) for one in AllStoragePresentationContexts}
    return tuple(sorted((uid for uid in known if uid not in NO_PATIENT and _name(uid) != uid), key=_in_order))


def document(configuration: Configuration, ports: Ports) -> str:
    """The tables as Markdown."""
    return "\n".join(_lines(configuration.orthanc, ports)) + "\n"


def _lines(orthanc: Mapping[str, Any], ports: Ports) -> Iterator[str]:
    title = str(orthanc.get("DicomAet", "ORTHANC"))
    yield "# DICOM: what is negotiated"
    yield ""
    yield "Printed by `zambezi conformance` from the configuration; a test negotiates with both servers and compares."
    yield "What is done with what comes, and what is answered: [conformance.md](../conformance.md)."
    yield ""
    yield "## Application entities"
    yield ""
    yield from _table(
        ("AE title", "port", "process", "associations"),
        [
            (title, str(ports.dicom), "orthanc", "from peers, each from its own address"),
            (dicom_server.AE_TITLE, str(ports.mpps), "gateway", "the same"),
        ],
    )
    yield from _peers(orthanc.get("DicomModalities", {}))
    yield f"## Port {ports.dicom}, as SCP"
    yield ""
    yield from _table(
        ("SOP class", "UID", "DIMSE", "right of the peer"),
        [(_name(one.sop_class), one.sop_class, one.what, f"`{one.right}`") for one in ARCHIVE],
    )
    yield "In these transfer syntaxes:"
    yield ""
    yield from _table(("transfer syntax", "UID"), [(_name(uid), uid) for uid in UNCOMPRESSED])
    yield from _storage(orthanc)
    yield f"## Port {ports.mpps}, as SCP"
    yield ""
    yield from _table(("SOP class", "UID", "DIMSE"), [(_name(uid), uid, GATEWAY[uid]) for uid in dicom_server.OFFERED])
    yield "In these transfer syntaxes:"
    yield ""
    yield from _table(("transfer syntax", "UID"), [(_name(uid), uid) for uid in dicom_server.SYNTAXES])
    yield "## Calls by us"
    yield ""
    yield from _table(("process", "SOP class", "UID", "role", "for"), [
        (who, _name(uid) if uid[0].isdigit() else uid, uid if uid[0].isdigit() else "", role, what)
        for who, uid, role, what in OUT
    ])  # fmt: skip


def _peers(peers: Mapping[str, Any]) -> Iterator[str]:
    yield "## Peers"
    yield ""
    if not peers:
        yield "None is configured: nobody is let in."
        yield ""
        return
    rights = ("Echo", "Store", "Find", "FindWorklist", "Move", "Get", "StorageCommitment")
    rows = []
    for name, peer in sorted(peers.items()):
        if isinstance(peer, list):
            rows.append((name, str(peer[0]), f"{peer[1]}:{peer[2]}", "all"))
        else:
            may = ", ".join(right for right in rights if peer.get(f"Allow{right}", True))
            rows.append((name, str(peer["AET"]), f"{peer['Host']}:{peer['Port']}", may or "none"))
    yield from _table(("peer", "AE title", "address", "may at the archive's port"), rows)


def _storage(orthanc: Mapping[str, Any]) -> Iterator[str]:
    classes = storage_classes()
    yield f"Storage (C-STORE, right `AllowStore`), {len(classes)} standard SOP classes:"
    yield ""
    yield from _table(("SOP class", "UID"), [(_name(uid), uid) for uid in classes])
    if orthanc.get("UnknownSopClassAccepted"):
        yield "And every other SOP class that no service has: private ones, retired ones, those of later editions."
        yield ""
    yield "Not those of what belongs to no patient (protocols, templates, palettes). Each in these transfer syntaxes,"
    yield "as 1.10.1 negotiates them; later versions take newer ones besides. What comes is stored as it came:"
    yield ""
    yield from _table(("transfer syntax", "UID"), [(_name(uid), uid) for uid in (*UNCOMPRESSED, *COMPRESSED)])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _name(uid: str) -> str:
    return UID(uid).name


def _in_order(uid: str) -> list[int]:
    return [int(part) for part in uid.split(".")]


@click.command()
def conformance() -> None:
    """Print the tables of a DICOM conformance statement for this installation."""
    environment = Environment.read()
    click.echo(document(config.load(environment.config_dir, os.environ), environment.ports), nl=False)
