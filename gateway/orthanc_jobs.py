"""Sending by Orthanc's own jobs: the quickest way, and no byte is changed.

A job is one attempt at one part. It stops at the first instance that is refused, and how far it came is read from its
progress; the rest of that part then goes by an association of our own, which learns each instance's status.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import requests

from gateway.sending import (
    AttemptFailed,
    Carrier,
    Closed,
    CutShort,
    Fault,
    Instance,
    Interrupted,
    IsOpen,
    Sent,
    Shipment,
)
from zambezi import retries
from zambezi.config.safety import OrthancPeer
from zambezi.orthanc_client import OrthancClient, OrthancError, OrthancRefused, OrthancUnreachable, numbered
from zambezi.retries import ErrorClass

#: Instances in one job: more cost less, but what was sent of a job that failed is known to the percent alone.
PART = 500
#: How often a job is looked at: at these times at the least and at the most, between them after so much of its age.
JOB_POLL_S = (0.005, 0.3)
_SHARE = 0.03
#: States of Orthanc's jobs that are over.
_OVER = ("Success", "Failure")
_ANSWER_S = 60
#: Types of Orthanc's jobs that send.
_SENDS = ("DicomModalityStore", "OrthancPeerStore")
#: A job that is cancelled ends with the image that is under way.
_LAST_IMAGE_S = 5.0


class Jobs:
    """Jobs of one kind to one place, each waited for until its end."""

    def __init__(
        self, orthanc: OrthancClient, kind: str, name: str, stop: threading.Event, is_open: IsOpen = lambda: True
    ) -> None:
        """`kind` as Orthanc's paths have it: modalities, peers."""
        self.orthanc = orthanc
        self.name = name
        self._kind = kind
        self._stop_asked = stop
        self._is_open = is_open

    def store(self, instances: Sequence[Instance]) -> Sent:
        """One job with all of them; it is ended where the window closes meanwhile."""
        if not self._is_open():
            return Sent(fault=Closed())
        try:
            job_id = self.orthanc.start_store(self.name, [one.orthanc_id for one in instances], self._kind)
        except OrthancRefused as refused:
            if refused.status == 404 or self._lacks(instances):
                gone = "the archive no longer has some of the instances"
                return Sent(fault=AttemptFailed(ErrorClass.OBJECT, gone))
            return Sent(fault=refusal(refused, "store", f"the archive can't send to {self.name}"))
        except OrthancUnreachable as away:
            raise Interrupted(str(away)) from away
        try:
            job, was_closed = self.ended(job_id)
        except OrthancRefused as refused:
            return Sent(fault=refusal(refused, "store", f"the archive can't send to {self.name}"))
        if job["State"] == "Success":
            return Sent(tuple(instances))
        said = job.get("ErrorDetails") or job.get("ErrorDescription") or "no reason given"
        kind = retries.of_orthanc(str(said), "store", job.get("ErrorCode"))
        words = f"sending {len(instances)} instances to {self.name} failed: {said}"
        fault = Closed() if was_closed else AttemptFailed(kind, words)
        return Sent(tuple(instances[: done(job.get("Progress", 0), len(instances))]), fault)

    def _lacks(self, instances: Sequence[Instance]) -> bool:
        """Whether the archive has not all of these any more: 1.13.0 answers 500 then, as it does to much else."""
        try:
            return len(self.orthanc.contents(one.orthanc_id for one in instances)) < len(instances)
        except OrthancError:
            return False

    def ended(self, job_id: str) -> tuple[dict[str, Any], bool]:
        """The job as it ended, and whether that is because the window closed. Interrupted, CutShort, OrthancRefused."""
        begun, (least, most) = time.monotonic(), JOB_POLL_S
        was_closed = False
        try:
            while (job := self.orthanc.job(job_id))["State"] not in _OVER:
                if self._stop_asked.wait(min(max(least, (time.monotonic() - begun) * _SHARE), most)):
                    self._cancel(job_id)  # else it would go on beside the next gateway's
                    raise Interrupted("the gateway stops")
                if not was_closed and not self._is_open():
                    was_closed = True
                    self._cancel(job_id)
        except OrthancUnreachable as away:
            raise CutShort(f"the archive went away while it was sending ({away})") from away
        except OrthancRefused as refused:
            if refused.status == 404:  # jobs end with the process
                raise CutShort("the archive was restarted while it was sending") from refused
            raise
        return job, was_closed

    def _cancel(self, job_id: str) -> None:
        with suppress(OrthancError):  # it is over already, or the next look tells what is the matter
            self.orthanc.request("POST", f"/jobs/{job_id}/cancel", json={})


class ModalityJobs:
    """Carrier: C-STORE and C-FIND by Orthanc, and what it can't tell apart by `careful`."""

    part = PART

    def __init__(self, jobs: Jobs, careful: Carrier) -> None:
        self._jobs = jobs
        self._careful = careful

    def store(self, study_uid: str, instances: Sequence[Instance]) -> Sent:
        sent = self._jobs.store(instances)
        if sent.fault is None or not sent.fault.is_about_objects:
            return sent
        left = instances[len(sent.acknowledged) :]
        acknowledged, remarks = sent.acknowledged, sent.remarks
        fault: Fault | None = None
        for begin in range(0, len(left), self._careful.part):
            more = self._careful.store(study_uid, left[begin : begin + self._careful.part])
            acknowledged += more.acknowledged
            remarks += more.remarks
            fault = more.fault or fault
            if more.fault is not None and not more.fault.is_about_objects:
                break
        return Sent(acknowledged, fault, remarks)

    def lacking(self, shipment: Shipment) -> tuple[Instance, ...]:
        name = self._jobs.name
        lacking: list[Instance] = []
        for series_uid, instances in by_series(shipment).items():
            query = {"StudyInstanceUID": shipment.study_uid, "SeriesInstanceUID": series_uid, "SOPInstanceUID": ""}
            try:
                answers = self._jobs.orthanc.query(name, "Instance", query)
            except OrthancRefused as refused:
                raise refusal(refused, "query", f"{name} does not answer to a query") from refused
            except OrthancUnreachable as away:
                raise Interrupted(str(away)) from away
            there = {answer.get("SOPInstanceUID", "") for answer in answers}
            lacking += [one for one in instances if one.sop_uid not in there]
        return tuple(lacking)


class PeerJobs:
    """Carrier to another Orthanc, over HTTP."""

    part = PART

    def __init__(self, jobs: Jobs, peer: OrthancPeer, authorities: str = "") -> None:
        """`authorities`: a file of certificates to trust, as Orthanc's HttpsCACertificates; else those of requests."""
        self._jobs = jobs
        self._peer = peer
        self._authorities = authorities

    def store(self, _study_uid: str, instances: Sequence[Instance]) -> Sent:
        return self._jobs.store(instances)

    def lacking(self, shipment: Shipment) -> tuple[Instance, ...]:
        # Orthanc's identifiers derive from the patient's, study's, series' and instance's own: equal ones are the same.
        body = {"Level": "Instance", "Query": numbered({"StudyInstanceUID": shipment.study_uid}), "Expand": False}
        peer = self._peer
        signs_in = (peer.user, peer.password) if peer.user else None
        try:
            with requests.Session() as session:
                session.trust_env = False  # no password from .netrc
                answer = session.post(
                    f"{peer.url}/tools/find", json=body, auth=signs_in, timeout=_ANSWER_S,
                    verify=self._authorities or True,
                )  # fmt: skip
            if not answer.ok:
                kind = retries.of_http(answer.status_code) or ErrorClass.OBJECT
                raise AttemptFailed(kind, f"{self._jobs.name} does not answer to a query: HTTP {answer.status_code}")
            there = set(answer.json())
        except requests.RequestException as error:
            words = f"{self._jobs.name} does not answer to a query: {type(error).__name__}"
            raise AttemptFailed(retries.of_os(error), words) from error
        return tuple(one for one in shipment.instances if one.orthanc_id not in there)


def end_left_behind(orthanc: OrthancClient) -> int:
    """End what a gateway that died left Orthanc sending: it would go on beside its successor's; how many jobs.

    Nobody else has Orthanc send. Of each at most one image is still under way afterwards. OrthancError.
    """
    left = _sending(orthanc)
    for job_id in left:
        with suppress(OrthancRefused):  # it has just ended
            orthanc.request("POST", f"/jobs/{job_id}/cancel", json={})
    until = time.monotonic() + _LAST_IMAGE_S
    while left and _sending(orthanc) and time.monotonic() < until:
        time.sleep(JOB_POLL_S[1])
    return len(left)


def _sending(orthanc: OrthancClient) -> list[str]:
    jobs = orthanc.get("/jobs", expand="")
    return [job["ID"] for job in jobs if job["Type"] in _SENDS and job["State"] not in _OVER]


def done(percent: int, count: int) -> int:
    """How many of `count` instances a job that ended early has sent for certain; of at most a hundred it is exact.

    Orthanc rounds 100 * sent / count to the nearest. This is the least that gives the percentage.
    """
    return min(max(math.ceil((percent - 0.5) * count / 100), 0), count - 1)


def by_series(shipment: Shipment) -> dict[str, list[Instance]]:
    """Its instances, series by series."""
    found: dict[str, list[Instance]] = defaultdict(list)
    for one in shipment.instances:
        found[one.series_uid].append(one)
    return found


def refusal(refused: OrthancRefused, service: retries.Service, what: str) -> AttemptFailed:
    """What Orthanc's refusal means for an attempt."""
    return AttemptFailed(retries.of_orthanc(str(refused), service), f"{what}: {_reason(refused)}")


def _reason(error: OrthancError) -> str:
    # Orthanc's answer is JSON with the DICOM error in words; the whole of it is more than a page can show.
    return str(error).partition("HTTP")[2][:200] or str(error)[:200]
