"""Orthanc's REST API for threads of the plugin: HTTP over loopback, with a token of the plugin's own.

Never orthanc.RestApi*, nor a new token: called from a thread it deadlocks Orthanc for good as soon as another callback
waits (the core holds its mutex while it waits for Python, Python's lock while it waits for that mutex).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import socket
from typing import Any

from plugins.facts import Sender

#: Source AE title, its address, receiving AE title, as the coercing port writes them (zambezi.coercion.envelope).
_SENDER = ("SourceApplicationEntityTitle", "SourcePresentationAddress", "ReceivingApplicationEntityTitle")

log = logging.getLogger("zambezi.rest")


class RestRefused(Exception):
    """Orthanc answered with an error."""


class OrthancRest:
    """One keep-alive connection; for one thread. Only calls that may be repeated: reading, setting a value."""

    def __init__(self, port: int, authorization: str, timeout_s: float = 60) -> None:
        self._port = port
        self._headers = {"Authorization": authorization, "Content-Type": "application/json"}
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str) -> Any:
        return self._call("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        return self._call("POST", path, json.dumps(body))

    def put(self, path: str, body: Any) -> None:
        self._call("PUT", path, json.dumps(body))

    def delete(self, path: str) -> None:
        self._call("DELETE", path, None)

    def changes(self, since: int, limit: int) -> dict[str, Any]:
        """A piece of /changes behind `since`: Changes, Done, Last."""
        found: dict[str, Any] = self.get(f"/changes?since={since}&limit={limit}")
        return found

    def contents(self, orthanc_ids: list[str]) -> dict[str, dict[str, Any]]:
        """What Orthanc knows of resources, by id, metadata included; those that are gone are left out."""
        if not orthanc_ids:
            return {}
        found = self.post("/tools/bulk-content", {"Resources": orthanc_ids, "Metadata": True})
        return {one["ID"]: one for one in found}

    def instance_ids(self, since: int, limit: int) -> list[str]:
        """A page of all instances."""
        found: list[str] = self.get(f"/instances?since={since}&limit={limit}")
        return found

    def instance_count(self) -> int:
        return int(self.get("/statistics")["CountInstances"])

    def issuer(self, orthanc_id: str) -> str:
        """Issuer of Patient ID (0010,0021) of an instance; empty where it has none, is gone, or can't be read."""
        try:
            found = self.get(f"/instances/{orthanc_id}/simplified-tags")
        except RestRefused as refused:
            log.warning("an issuer of a Patient ID could not be read, the site's is taken for it: %s", refused)
            return ""
        return str(found.get("IssuerOfPatientID", "")).strip()

    def tags(self, orthanc_id: str) -> dict[str, Any]:
        """The header of an instance, by tag (`0008,0060`); empty where it is gone, or can't be read."""
        try:
            found: dict[str, Any] = self.get(f"/instances/{orthanc_id}/tags?short")
        except RestRefused as refused:
            log.warning("what rules ask of an instance could not be read, so it has none of it: %s", refused)
            return {}
        return found

    def studies_of(self, patient_id: str) -> list[str]:
        """Orthanc ids of the studies with this patient ID, which holds no wildcard; none where Orthanc refuses."""
        query = {"Level": "Study", "Query": {"0010,0020": patient_id}, "CaseSensitive": True}
        try:
            found: list[str] = self.post("/tools/find", query)
        except RestRefused as refused:
            log.warning("a patient's earlier studies could not be looked for, so none goes along: %s", refused)
            return []
        return found

    def sender(self, orthanc_id: str) -> Sender | None:
        """Whom an instance's meta header names as its sender (PS3.10 7.1); None where it is gone."""
        try:
            found = self.get(f"/instances/{orthanc_id}/header?simplify")
        except RestRefused:
            return None
        told = [str(found.get(name, "")).strip(" \0") for name in _SENDER]
        return Sender(*told)

    def sha256(self, orthanc_id: str) -> str | None:
        """The digest of an instance's file, as it is stored; None where it is gone."""
        try:
            return hashlib.sha256(self._call("GET", f"/instances/{orthanc_id}/file", None, as_it_is=True)).hexdigest()
        except RestRefused:
            return None

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _call(self, method: str, path: str, body: str | None, as_it_is: bool = False) -> Any:
        fresh = self._connection is None
        try:
            return self._exchange(method, path, body, as_it_is)
        except (OSError, http.client.HTTPException):
            self.close()
            if fresh:
                raise
        # Orthanc closes a connection that was idle for a second: once more, on a new one.
        try:
            return self._exchange(method, path, body, as_it_is)
        except (OSError, http.client.HTTPException):
            self.close()
            raise

    def _exchange(self, method: str, path: str, body: str | None, as_it_is: bool) -> Any:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout_s)
            self._connection.connect()
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RestRefused(f"{method} {path.partition('?')[0]}: HTTP {answer.status}")
        if as_it_is:
            return text
        return json.loads(text) if text.strip() else None
