"""Asking about DICOM peers, and asking them: what the console and the page do alike."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from operations import echoing, front_door, modalities
from operations.echoing import Echo
from operations.modalities import Overview
from zambezi import config
from zambezi.config import Configuration, ConfigurationFaults
from zambezi.config.settings import DestinationTls
from zambezi.database.engine import Sessions
from zambezi.database.tables import ProcessState
from zambezi.environment import Environment, EnvironmentFault
from zambezi.keys import Keys
from zambezi.orthanc_client import OrthancClient, OrthancError, OrthancRefused

#: A peer that doesn't answer an echo within so many seconds is away.
ECHO_S = 5


class NoSuchPeer(LookupError):
    """No peer has this name in DicomModalities."""


@dataclass(frozen=True)
class Desk:
    """One installation, as the service `operations` sees it."""

    environment: Environment
    keys: Keys
    sessions: Sessions

    def configuration(self) -> Configuration:
        """As it runs; ConfigurationFaults where it can't be read."""
        folder = self.environment.orthanc_config_dir
        there = folder if any(folder.glob("*.json")) else self.environment.config_dir
        return config.load(there, {**os.environ, **self.environment.variables()})

    def look(self) -> Overview:
        """Everything that is known now; what could not be asked is said, not raised."""
        rows: list[dict[str, Any]] = []
        trouble: list[str] = []
        for node in self.environment.nodes or (None,):
            try:
                rows += OrthancClient(self.environment, self.keys, "operations", 5, node).get("/zambezi/callers")[
                    "callers"
                ]
            except OrthancError as error:
                trouble.append(f"the archive{f', node {node.name}' if node else ''} could not be asked: {error}")
        try:
            with self.sessions() as session:
                gateway = session.get(ProcessState, "gateway")
                rows += gateway.details.get("callers", []) if gateway else []
        except SQLAlchemyError as error:
            trouble.append(f"the database could not be asked: {type(error).__name__}")
        try:
            found = self.configuration()
        except ConfigurationFaults as faults:
            return Overview([], [], [*trouble, *(str(fault) for fault in faults.faults)])
        return modalities.overview(found.modalities, found.orthanc.get("DicomModalities", {}), rows, trouble)

    def echo(self, name: str) -> Echo:
        """Ask a peer by C-ECHO, over TLS where it is called so; NoSuchPeer.

        Plainly it is the archive that asks; OrthancError where that doesn't answer.
        """
        known = self.configuration()
        if name not in known.modalities:
            raise NoSuchPeer(name)
        way = echoing.way(name, known.zambezi)
        if isinstance(way, Echo):
            return way
        if way is not None:
            return self._over_tls(known, name, way)
        client = OrthancClient(self.environment, self.keys, "operations", ECHO_S + 15)
        try:
            client.request("POST", f"/modalities/{name}/echo", json={"Timeout": ECHO_S})
        except OrthancRefused as refused:
            if refused.status == 404:
                raise NoSuchPeer(name) from refused
            return Echo(False, refused.detail)
        return Echo(True)

    def _over_tls(self, known: Configuration, name: str, way: DestinationTls) -> Echo:
        try:
            front = front_door.certificate(self.environment, os.environ)
        except EnvironmentFault as fault:
            if not way.certificate_file:
                return Echo(False, str(fault))
            front = None
        to = known.zambezi.destinations.get(name)
        our_aet = (to.aet if to else "") or str(known.orthanc.get("DicomAet", "ZAMBEZI"))
        return echoing.over_tls(known.modalities[name], way, our_aet, self.environment.home, front, ECHO_S)
