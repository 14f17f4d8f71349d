"""Orthanc's REST API, as far as Zambezi uses it: typed, with time limits, speaking as one service.

Every call raises OrthancUnreachable (try again later) or OrthancRefused (the answer was an error; trying
again without a change won't help, unless `is_transient`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import requests
from pydicom.datadict import tag_for_keyword
from urllib3.exceptions import HTTPError, NewConnectionError

from zambezi.environment import Environment, Node
from zambezi.keys import Keys


def numbered(query: Mapping[str, str]) -> dict[str, str]:
    """The same query by tags (`0020,000d`) in place of keywords: for each of these Orthanc goes through all it knows.

    KeyError for what is no keyword of DICOM's.
    """
    return {_tag(keyword): value for keyword, value in query.items()}


@cache
def _tag(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(f"{keyword} is no keyword of an attribute")
    return f"{tag >> 16:04x},{tag & 0xFFFF:04x}"


class OrthancError(Exception):
    """Orthanc did not do what was asked.

    OrthancError
     +- OrthancUnreachable   no answer: not running, starting, or too slow
     +- OrthancRefused       an answer that is an error (`status`)
    """


class OrthancUnreachable(OrthancError):
    """No answer within the time limit."""


class OrthancRefused(OrthancError):
    """Orthanc answered with an HTTP error."""

    def __init__(self, method: str, path: str, status: int, text: str) -> None:
        super().__init__(f"{method} {path}: HTTP {status}: {text[:300]}")
        self.status = status
        self._text = text

    @property
    def detail(self) -> str:
        """What Orthanc says of it in words, where it says anything."""
        try:
            said = json.loads(self._text)
            return str(said.get("Details") or said.get("Message") or self)[:300]
        except (ValueError, AttributeError):
            return str(self)

    @property
    def is_transient(self) -> bool:
        return self.status in (429, 502, 503, 504)


class OrthancClient:
    """One service's connection (`service` is a name from zambezi.keys.SERVICES). Not for sharing between threads.

    Of several nodes it stays with the one that answers, and goes on to the next where nobody listens; or it is for
    `only` one of them.
    """

    def __init__(
        self, environment: Environment, keys: Keys, service: str, timeout_s: float = 30, only: Node | None = None
    ) -> None:
        self._bases = [only.url] if only else environment.orthanc_urls
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._credentials = keys.basic(service)
        self._session.auth = self._credentials
        self._session.trust_env = False  # loopback never goes through a proxy, nor takes a password from .netrc
        # Orthanc before 1.12.2 would gzip every DICOM file for a client that says it accepts it.
        self._session.headers["Accept-Encoding"] = "identity"

    @property
    def place(self) -> tuple[str, str, str]:
        """URL, user and password of the node it speaks with, for connections of another kind (migration.wire)."""
        user, password = self._credentials
        return self._bases[0], user, password

    def request(self, method: str, path: str, timeout_s: float | None = None, **how: Any) -> requests.Response:
        """Any call; `how` as in requests (json, data, params, headers). Answers other than 2xx raise."""
        for _ in self._bases:
            try:
                answer = self._session.request(
                    method, self._bases[0] + path, timeout=timeout_s or self._timeout_s, **how
                )
            except requests.RequestException as error:
                trouble = OrthancUnreachable(f"{method} {path}: {type(error).__name__}")
                self._bases = [*self._bases[1:], self._bases[0]]
                if not _nobody_listens(error):
                    raise trouble from error  # it may have been done: whoever asked decides
                continue
            if not answer.ok:
                raise OrthancRefused(method, path, answer.status_code, answer.text)
            return answer
        raise trouble

    def get(self, path: str, **params: Any) -> Any:
        """The JSON that a GET answers with. The archive's status is that of the node which records for all."""
        if path == _STATUS and len(self._bases) > 1:
            return self._status_of_nodes()
        return self.request("GET", path, params=params).json()

    def _status_of_nodes(self) -> dict[str, Any]:
        told: list[dict[str, Any]] = []
        first = self._bases
        for base in first:
            self._bases = [base]
            try:
                told.append(self.request("GET", _STATUS, timeout_s=min(_ASK_S, self._timeout_s)).json())
            except OrthancUnreachable:
                continue
            finally:
                self._bases = first
        if not told:
            raise OrthancUnreachable(f"GET {_STATUS}: none of {len(first)} nodes answers")
        recording = max(told, key=lambda one: (bool(one.get("records")), one.get("epoch", 0)))
        known = min(int(one["announced_generation"]) for one in told)
        return {**recording, "announced_generation": known, "nodes": told}

    def post(self, path: str, body: Any) -> Any:
        """The JSON that a POST of JSON answers with."""
        return self.request("POST", path, json=body).json()

    def system(self) -> dict[str, Any]:
        """Version, AE title, ports (GET /system)."""
        found: dict[str, Any] = self.get("/system")
        return found

    def store(self, dicom: bytes) -> dict[str, Any]:
        """Store one DICOM file; {"ID", "Status": Success | AlreadyStored, ...}. Never retries by itself.

        Without room on its disk the archive refuses it: OrthancRefused with status 507.
        """
        try:
            answer = self.request("POST", "/instances", data=dicom, headers={"Content-Type": "application/dicom"})
        except OrthancRefused as refused:
            if refused.status != 403:
                raise
            # A filter of Orthanc's can say no and nothing else. Who may store at all is refused for want of room alone.
            room = self.get("/zambezi/status").get("disk", {})
            why = room.get("reason") or "there was no room on the disk a moment ago"
            raise OrthancRefused("POST", "/instances", 507, why) from refused
        found: dict[str, Any] = answer.json()
        return found

    def file(self, orthanc_id: str) -> bytes:
        """The DICOM file of an instance, as it is stored."""
        path = f"/instances/{orthanc_id}/file"
        answer = self.request("GET", path, stream=True)
        try:
            content: bytes = answer.raw.read()  # at once: `content` would put it together from pieces of 10 KB
        except HTTPError as error:
            answer.close()
            raise OrthancUnreachable(f"GET {path}: {type(error).__name__}") from error
        return content

    def md5(self, orthanc_id: str) -> str:
        """The MD5 that Orthanc keeps of the file it received (lower-case hex)."""
        return self.request("GET", f"/instances/{orthanc_id}/attachments/dicom/md5").text.strip()

    def size(self, orthanc_id: str) -> int:
        """Bytes of an instance's DICOM file."""
        return int(self.request("GET", f"/instances/{orthanc_id}/attachments/dicom/size").text)

    def find(self, level: str, query: dict[str, str], expand: bool = False) -> list[Any]:
        """Local look-up: Orthanc ids, or contents with `expand`. Level: Study, Series, Instance."""
        found: list[Any] = self.post("/tools/find", {"Level": level, "Query": numbered(query), "Expand": expand})
        return found

    def contents(self, orthanc_ids: Iterable[str]) -> list[dict[str, Any]]:
        """What the index knows of these instances, with `Metadata`; those that are gone are left out."""
        found: list[dict[str, Any]] = self.post(
            "/tools/bulk-content", {"Resources": list(orthanc_ids), "Metadata": True}
        )
        return found

    def start_store(self, name: str, orthanc_ids: Iterable[str], kind: str = "modalities") -> str:
        """Begin sending instances (asynchronous job, which ends at the first refusal); the job's id.

        By C-STORE to one of `modalities`, over HTTP to one of `peers`.
        """
        body = {"Resources": list(orthanc_ids), "Synchronous": False, "Permissive": False}
        return str(self.post(f"/{kind}/{name}/store", body)["ID"])

    def job(self, job_id: str) -> dict[str, Any]:
        """State and content of a job; OrthancRefused with status 404 once it is forgotten (Orthanc was restarted)."""
        found: dict[str, Any] = self.get(f"/jobs/{job_id}")
        return found

    def start_move(self, name: str, level: str, keys: dict[str, str], target_aet: str, silence_s: float) -> str:
        """Begin to have a modality send something to `target_aet` (C-MOVE, asynchronous job); the job's id.

        It fails when the modality says nothing for so long. By a query: Orthanc 1.10.1 answers its own
        /modalities/{name}/move only when all has come, and shows no job.
        """
        made = self.post(f"/modalities/{name}/query", {"Level": level, "Query": numbered(keys)})
        body = {"TargetAet": target_aet, "Asynchronous": True, "Timeout": max(1, int(silence_s)), "Priority": 0}
        return str(self.post(f"/queries/{made['ID']}/retrieve", body)["ID"])

    def moves_of(self, study_uid: str) -> list[str]:
        """Ids of the jobs by which Orthanc, at this moment, has another archive send this study here (C-MOVE)."""
        return [
            job["ID"]
            for job in self.get("/jobs", expand="")
            if job["Type"] == "DicomMoveScu"
            and job["State"] in ("Pending", "Running")
            and any(query.get("0020,000d") == study_uid for query in job["Content"].get("Query", []))
        ]

    def verify(self, sop_uids: list[str]) -> list[dict[str, Any]]:
        """What index and disk have of the first of these instances, at least one of them (plugins/verifying.py)."""
        looked: list[dict[str, Any]] = self.request("PUT", "/zambezi/verify", timeout_s=_READ_S, json=sop_uids).json()[
            "looked"
        ]
        return looked

    def arrivals(self, sop_uids: list[str] | dict[str, list[str]]) -> list[dict[str, Any]]:
        """The same, and what each was when it came: SHA-256 of file and arrival (plugins/verifying.py).

        Who knows the Orthanc ids of each names them: the archive looks for nothing then.
        """
        looked: list[dict[str, Any]] = self.request(
            "PUT", "/zambezi/verify", timeout_s=_READ_S, json={"arrivals": sop_uids}
        ).json()["looked"]
        return looked

    def query(self, modality: str, level: str, query: dict[str, str]) -> list[dict[str, str]]:
        """C-FIND to a modality: the answers, with tag names as keys. Level: Study, Series, Instance.

        Asked for as it is: Orthanc would leave out what it doesn't count to the level (InstanceAvailability).
        """
        body = {"Level": level, "Query": numbered(query), "Normalize": False}
        made = self.post(f"/modalities/{modality}/query", body)
        answers: list[dict[str, str]] = self.get(f"/queries/{made['ID']}/answers", expand="", simplify="")
        if len(answers) > _MANY_ANSWERS:
            self.request("DELETE", f"/queries/{made['ID']}")
        return answers


#: Orthanc keeps the last hundred queries (QueryRetrieveSize) and forgets older ones by itself. Only a long list of
#: answers is worth a request that takes it out of its memory.
_MANY_ANSWERS = 1000
_STATUS = "/zambezi/status"
#: A node that hangs must not keep the others' answer waiting.
_ASK_S = 5.0
#: One file of many gigabytes is read whole from a slow disk within that time.
_READ_S = 600.0


def _nobody_listens(error: requests.RequestException) -> bool:
    """Whether the request can't have reached anybody."""
    return isinstance(getattr(error.args[0] if error.args else None, "reason", None), NewConnectionError)
