"""From a neighbour's settings to what brings images there, or from there to here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from gateway.associations import Address
from gateway.coercing_admission import Gate
from gateway.commitments_asked import Commitments
from gateway.courier import Courier
from gateway.fetching import Fetcher
from gateway.orthanc_jobs import Jobs, ModalityJobs, PeerJobs
from gateway.outgoing import Packer
from gateway.own_sender import OwnSender, Same
from gateway.pseudonyms import Pseudonyms
from gateway.retrieves import ByGet, ByMove, Way
from gateway.sending import IsOpen
from zambezi import clock, windows
from zambezi.bandwidth import Line
from zambezi.config.safety import Modality, OrthancPeer
from zambezi.config.settings import Destination, DestinationTls, PriorSource, Site
from zambezi.database.engine import Sessions
from zambezi.orthanc_client import OrthancClient
from zambezi.tls import to_peer


@dataclass(frozen=True)
class Neighbourhood:
    """Where destinations are, who we are to them, and where files of ours lie."""

    modalities: Mapping[str, Modality]
    peers: Mapping[str, OrthancPeer]
    site: Site
    our_aet: str
    home: Path
    authorities: str = ""  # Orthanc's HttpsCACertificates


def courier(
    sessions: Sessions, orthanc: OrthancClient, name: str, destination: Destination, there: Neighbourhood,
    commitments: Commitments, line: Line, stop: threading.Event, now: Callable[[], datetime] = clock.now,
) -> Courier:  # fmt: skip
    """The way that the destination's settings ask for. `line` is shared by all couriers to it."""

    def is_open() -> bool:
        return windows.is_open(destination.windows, now(), there.site.zone, there.site.holidays)

    if destination.kind == "peer":
        jobs = Jobs(orthanc, "peers", name, stop, is_open)
        return Courier(name, destination, PeerJobs(jobs, there.peers[name], there.authorities), None, commitments, now)

    def owes(size: int) -> float:
        cap = windows.cap_at(destination.windows, now(), there.site.zone, there.site.holidays)
        return line.used(size, cap, now())

    names = Pseudonyms(sessions, name, now) if destination.deidentify else Same()
    our_aet = destination.aet or there.our_aet
    address = called(there.modalities[name], our_aet, destination.tls, there.home)
    own = OwnSender(address, Packer(orthanc, destination, there.home), stop, owes, names, is_open=is_open)
    carrier = own if destination.is_sent_by_us else ModalityJobs(Jobs(orthanc, "modalities", name, stop, is_open), own)
    return Courier(name, destination, carrier, own, commitments, now)


def fetcher(
    sessions: Sessions, orthanc: OrthancClient, name: str, source: PriorSource, there: Neighbourhood, gate: Gate,
    stop: threading.Event, now: Callable[[], datetime] = clock.now,
) -> Fetcher:  # fmt: skip
    """The way that the source's settings ask for; `gate`: who may send what by HTTP."""
    peer, line = there.modalities[name], Line()

    def owes(size: int) -> float:
        return line.used(size, windows.cap_at(source.windows, now(), there.site.zone, there.site.holidays), now())

    def by_move(may_go_on: IsOpen) -> Way:
        return ByMove(orthanc, name, there.our_aet, stop, may_go_on)

    def by_get(may_go_on: IsOpen) -> Way:
        address = Address(name, peer.aet, peer.host, peer.port, there.our_aet)
        return ByGet(orthanc, address, gate, stop, may_go_on, owes)

    way = by_get if source.retrieve == "get" else by_move
    return Fetcher(sessions, orthanc, name, source, there.site, way, now)


def called(peer: Modality, our_aet: str, tls: DestinationTls, home: Path) -> Address:
    """How a peer is called: plainly, or over TLS where `tls` names an authority."""
    if not tls.ca_file:
        return Address(peer.name, peer.aet, peer.host, peer.port, our_aet)
    made = partial(to_peer, tls, home)
    return Address(peer.name, peer.aet, tls.host or peer.host, tls.port, our_aet, made, tls.server_name)
