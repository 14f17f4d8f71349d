"""Under which names de-identified studies go out to a destination, and how they are found again.

Every identifier that leaves is derived from the real one with a key of that destination (HMAC-SHA256), so what is sent
later, or again, belongs to what went before, and two destinations can't be matched with one another. The key
lies in the database; patients and studies are written down before they go, so that a question from outside can be
answered.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable
from datetime import datetime

from pydicom.dataset import Dataset
from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from gateway.outgoing import Deidentify
from gateway.sending import AttemptFailed
from zambezi import clock
from zambezi.database.engine import Sessions
from zambezi.database.tables import Pseudonym, PseudonymKey
from zambezi.deidentify import NotDeidentifiable, deidentify
from zambezi.retries import ErrorClass


class Pseudonyms:
    """Names of one destination (gateway.own_sender.Names)."""

    def __init__(self, sessions: Sessions, destination: str, now: Callable[[], datetime]) -> None:
        self._sessions = sessions
        self._destination = destination
        self._now = now
        self._key = b""

    def uid(self, uid: str) -> str:
        """A UID of the form 2.25.NUMBER (PS3.5 B.2)."""
        return f"2.25.{int.from_bytes(self._derived('uid', uid)[:16], 'big')}"

    def patient(self, patient_id: str) -> str:
        return "Z" + base64.b32encode(self._derived("patient", patient_id)[:10]).decode()

    def deidentify(self, study_uid: str) -> Deidentify:
        """Takes the patient out of each image of a study; who it was is written down at the first."""
        known: set[str] = set()

        def change(dataset: Dataset) -> None:
            patient_id = str(dataset.get("PatientID", "") or "").strip()
            stands_for = self.patient(patient_id)
            try:
                deidentify(dataset, self.uid, stands_for)
            except NotDeidentifiable as why:
                raise AttemptFailed(ErrorClass.OBJECT, f"it can't be de-identified: {why}") from why
            if patient_id not in known:
                self._remember({stands_for: ("patient", patient_id), self.uid(study_uid): ("study", study_uid)})
                known.add(patient_id)

        return change

    def _derived(self, kind: str, what: str) -> bytes:
        self._key = self._key or self._loaded()
        return hmac.digest(self._key, f"{kind}/{what}".encode(), hashlib.sha256)

    def _loaded(self) -> bytes:
        with self._sessions.begin() as session:
            mine = {"destination": self._destination, "key": secrets.token_bytes(32)}
            session.execute(_insert(session)(PseudonymKey).values(**mine).on_conflict_do_nothing())
            query = select(PseudonymKey.key).where(PseudonymKey.destination == self._destination)
            return bytes(session.scalars(query).one())

    def _remember(self, pairs: dict[str, tuple[str, str]]) -> None:
        with self._sessions.begin() as session:
            for pseudonym, (kind, original) in pairs.items():
                row = _insert(session)(Pseudonym).values(
                    destination=self._destination, pseudonym=pseudonym, kind=kind, original=original[:64],
                    made_at=clock.text(self._now()),
                )  # fmt: skip
                session.execute(row.on_conflict_do_nothing())


def _insert(session: Session) -> Callable[..., postgresql.Insert | sqlite.Insert]:
    return sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
