"""One delivery to a receiver: a study, a sender of ours, real DICOM on loopback, the clock a parameter."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from gateway.associations import Address, Owes
from gateway.commitments_asked import Commitments
from gateway.courier import Courier
from gateway.deliveries import DicomSender
from gateway.outgoing import Packer
from gateway.own_sender import OwnSender, Same
from tests.integration.archive_fixture import written
from tests.misbehaving import Receiver, Shelf
from zambezi import outbox, windows
from zambezi.config.settings import Destination, DestinationTls, Site
from zambezi.database.engine import Sessions
from zambezi.database.tables import Delivery
from zambezi.tls import to_peer


@dataclass
class Bench:
    """One study, a sender of ours and a receiver."""

    made: Sessions
    now: datetime
    receiver: Receiver
    destination: Destination
    images: list[Dataset]
    home: Path
    silence_s: float = 20.0
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        files = {f"id{n}": one for n, one in enumerate(self.images)}
        self.shelf = Shelf(
            {id: written(one) for id, one in files.items()},
            {
                id: {"SopClassUid": str(one.SOPClassUID), "TransferSyntax": str(one.file_meta.TransferSyntaxUID)}
                for id, one in files.items()
            },
        )
        self.study = str(self.images[0].StudyInstanceUID)
        self.wanted = {str(one.SOPInstanceUID) for one in self.images}
        self.name = f"PACS-{self.study[-12:]}"
        self.add(
            "d" + self.study[-20:],
            [[id, str(one.SeriesInstanceUID), str(one.SOPInstanceUID)] for id, one in files.items()],
        )
        self.sender = self.a_sender()

    def add(self, id: str, instances: list[list[str]], priority: int = 0) -> None:
        self.id = id
        with self.made.begin() as session:
            outbox.add(
                session, id=id, kind="dicom", rule="r", destination=self.name, because="it must", now=self.now,
                writer="gateway", study_uid=self.study, instances=instances,
            )  # fmt: skip
            session.get_one(Delivery, id).priority = priority

    def a_sender(
        self, names: Any = None, linger_s: float = 0.5, owes: Owes = lambda size: 0, tls: DestinationTls | None = None
    ) -> DicomSender:
        address = Address(
            self.name, self.receiver.aet, "127.0.0.1", self.receiver.port, self.destination.aet or "US",
            partial(to_peer, tls, self.home) if tls else None, tls.server_name if tls else "",
        )  # fmt: skip
        own = OwnSender(
            address,
            Packer(self.shelf, self.destination, self.home),
            self.stop,
            owes,
            names or Same(),
            self.silence_s,
            lambda: windows.is_open(self.destination.windows, self.now, Site().zone),
        )  # type: ignore[arg-type]  # the shelf stands in for Orthanc
        self.commitments = Commitments(self.made, {}, lambda: self.now)
        courier = Courier(self.name, self.destination, own, own, self.commitments, lambda: self.now, linger_s)
        return DicomSender(
            self.made, courier, self.name, self.destination, Site(), "host:1/run", self.stop, lambda: self.now,
            lambda: 0.0,
        )  # fmt: skip

    def attempt(self, after: timedelta = timedelta(hours=2)) -> Delivery:
        """One attempt once that much time has passed; the row as it is then."""
        self.now += after
        assert self.sender.deliver_one()
        return self.row()

    def row(self) -> Delivery:
        with self.made.begin() as session:
            return session.get_one(Delivery, self.id)

    def arrived_once(self) -> None:
        """It has all of it, and got nothing twice that it had."""
        assert set(self.receiver.has) == self.wanted
        assert set(self.receiver.offered.values()) == {1}
