"""Who may send what to the coercing port, by `Zambezi.Admission`: Orthanc's own check never sees what comes by HTTP.

What is to be held is in the hold, with its row in the central database, before the sender is answered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from sqlalchemy.exc import DBAPIError

from zambezi import admission, hold, holding
from zambezi.admission import Newcomer, Terms, Verdict
from zambezi.coercion import envelope
from zambezi.config.safety import Modality
from zambezi.config.settings import Admission
from zambezi.database.engine import Sessions

log = logging.getLogger("zambezi.coercing")

WRITER = "gateway"
_ASKED = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID"]


class Gate:
    """Used by several threads."""

    def __init__(
        self, sessions: Sessions, settings: Admission, peers: Mapping[str, Modality], folder: Path,
        now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._sessions = sessions
        self._folder = folder
        self._now = now
        self._terms = {peer.aet: admission.terms(settings, name) for name, peer in peers.items()}

    def judge(self, content: bytes, caller: str) -> Verdict:
        """What is done with a file of zambezi.coercion.envelope. What is to be held is held when this returns."""
        terms = self._terms.get(caller, Terms())
        if terms == Terms():
            return Verdict()
        try:
            asked = dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=_ASKED)
        except Exception as error:  # noqa: BLE001  the request's edge: pydicom raises what it likes; the plugin holds such
            log.warning("%s: what came can't be read (%s); the archive decides", caller, type(error).__name__)
            return Verdict()
        told = {name: str(asked.get(name) or "").strip(" \0") for name in _ASKED}
        one = Newcomer(
            told["SOPClassUID"], told["SOPInstanceUID"], told["StudyInstanceUID"], told["SeriesInstanceUID"],
            told["PatientID"], len(content),
        )  # fmt: skip
        verdict = admission.judge(one, terms)
        if verdict.action == "hold" and not self._held(content, one, verdict, caller):
            return Verdict("refuse", admission.NO_RESOURCES, "it could not be held")
        return verdict

    def _held(self, content: bytes, one: Newcomer, verdict: Verdict, caller: str) -> bool:
        plain, _ = envelope.unwrap(content)
        try:
            sha256 = hold.put(self._folder, plain)
            with self._sessions.begin() as session:
                holding.hold(
                    session, sha256=sha256, size=len(plain), why="identity", reason=verdict.reason, reference="",
                    now=self._now(), writer=WRITER, sop_uid=one.sop_uid or None, series_uid=one.series_uid or None,
                    study_uid=one.study_uid or None, patient_id=one.patient_id, sender=caller,
                )  # fmt: skip
        except (OSError, DBAPIError) as error:
            log.warning("%s: what came could not be held: %s", caller, type(error).__name__)
            return False
        return True
