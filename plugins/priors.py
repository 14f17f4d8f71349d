"""A patient's earlier studies in this archive, which a rule sends along (zambezi.priors chooses)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from plugins.attributes import Attributes, Reader, speakers
from plugins.journal import Journal
from plugins.routing import Candidate
from zambezi.config.settings import Priors
from zambezi.priors import choose

#: So many of a patient's studies are looked at.
LOOKED_AT = 200
_WHO = ("PatientID", "IssuerOfPatientID", "PatientBirthDate", "StudyDate")
_PART = "BodyPartExamined"


@dataclass(frozen=True)
class Study:
    """A study as one may be earlier than another, and alike."""

    study_uid: str
    orthanc_id: str
    patient_id: str
    issuer: str
    birth_date: str
    date: str
    parts: frozenset[str]
    instances: tuple[Candidate, ...]

    @property
    def modalities(self) -> frozenset[str]:
        return frozenset(one.modality for one in self.instances)


class Earlier:
    """Looks for the other studies of a patient; what was found is kept until it was decided upon."""

    def __init__(self, journal: Journal, attributes: Attributes, issuer: Callable[[], str]) -> None:
        self._journal = journal
        self._attributes = attributes
        self._issuer = issuer
        self._found: dict[str, tuple[Study, list[Study]]] = {}

    def is_known(self, orthanc_id: str) -> bool:
        return orthanc_id in self._found

    def look(self, orthanc_id: str, study_uid: str, instances: Sequence[Candidate], reader: Reader) -> None:
        """Ask Orthanc for all studies with the patient's ID, and read who they are about."""
        study = self._study(orthanc_id, study_uid, instances, reader)
        others: list[Study] = []
        # In a query these would stand for others, and nothing tells them from the ID itself.
        if study.patient_id and not re.search(r"[*?\\]", study.patient_id):
            for other in reader.studies_of(study.patient_id)[:LOOKED_AT]:
                rows = self._journal.query(_INSTANCES, (other,)) if other != orthanc_id else []
                if rows:
                    found = [Candidate(*row[1:]) for row in rows]
                    others.append(self._study(other, rows[0][0], found, reader))
        self._found[orthanc_id] = (study, others)

    def study(self, orthanc_id: str) -> Study:
        """The study itself, whom it is about."""
        return self._found[orthanc_id][0]

    def chosen(self, orthanc_id: str, how: Priors) -> list[Study]:
        study, others = self._found[orthanc_id]
        return choose(study, others, how)

    def forget(self, orthanc_id: str) -> None:
        self._found.pop(orthanc_id, None)

    def _study(self, orthanc_id: str, study_uid: str, instances: Sequence[Candidate], reader: Reader) -> Study:
        plain = [replace(one, attributes={}) for one in instances]
        speaking = speakers(plain)
        who = self._read(speaking[""], _WHO, reader)
        parts = {self._read(one, (_PART,), reader)[_PART] for series, one in speaking.items() if series}
        return Study(
            study_uid, orthanc_id, who["PatientID"], who["IssuerOfPatientID"] or self._issuer(),
            who["PatientBirthDate"], who["StudyDate"], frozenset(parts - {""}), tuple(plain),
        )  # fmt: skip

    def _read(self, orthanc_id: str, keywords: Sequence[str], reader: Reader) -> dict[str, str]:
        self._attributes.read(reader, [orthanc_id], keywords)
        known: Any = self._attributes.of(orthanc_id)
        return {keyword: (known.get(keyword) or ("",))[0] for keyword in keywords}


_INSTANCES = (
    "SELECT study_uid, orthanc_id, series_uid, sop_uid, modality, remote_aet, called_aet, cause"
    " FROM instances WHERE present = 1 AND study_orthanc_id = ?"
)
