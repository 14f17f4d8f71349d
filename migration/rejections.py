"""Rejection notes (IHE RAD, Imaging Object Change Management): images that somebody took back at the source.

A rejection note is a Key Object Selection whose title says why (PS3.16 CID 7011) and which names what it takes back.
A source that does not act on them gives away rejected images like any other. They come over, since nothing is lost
by that, and are listed for a person: brought back to life without a word they are never.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from migration.desk import Desk
from migration.source import Study
from zambezi import exceptions

KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
#: PS3.16 CID 7011, coding scheme DCM.
TITLES = {
    "113001": "rejected for quality reasons", "113037": "rejected for patient safety reasons",
    "113038": "incorrect modality worklist entry", "113039": "data retention policy expired",
}  # fmt: skip


@dataclass(frozen=True)
class Note:
    """One rejection note: why, in words, and the SOP Instance UIDs that it takes back."""

    why: str
    sop_uids: frozenset[str]


def note_of(tags: Mapping[str, Any]) -> Note | None:
    """The note in an object's tags, as Orthanc simplifies them; None where it is another Key Object Selection."""
    title = next(iter(tags.get("ConceptNameCodeSequence") or [{}]))
    code = str(title.get("CodeValue", ""))
    if code not in TITLES or title.get("CodingSchemeDesignator") != "DCM":
        return None
    taken_back = frozenset(
        str(image.get("ReferencedSOPInstanceUID", ""))
        for study in tags.get("CurrentRequestedProcedureEvidenceSequence") or []
        for series in study.get("ReferencedSeriesSequence") or []
        for image in series.get("ReferencedSOPSequence") or []
    )
    return Note(TITLES[code], taken_back - {""})


def look(desk: Desk, project: str, study: Study) -> None:
    """List, for a person, the images of a study that are in the archive and were taken back at the source."""
    for sop_uid, named in sorted(study.expected.items()):
        if named.sop_class != KEY_OBJECTS or sop_uid not in study.held:
            continue
        note = note_of(desk.client.get(f"/instances/{study.held[sop_uid][0]}/simplified-tags"))
        here = sorted(note.sop_uids & set(study.held)) if note else []
        if note is None or not here:
            continue
        what = f"{len(here)} images of this study were taken back at the source: {note.why}"
        with desk.sessions.begin() as session:
            exceptions.wait(
                session, "migration", f"{study.uid} {sop_uid}"[:200], what=f"{what} ({', '.join(here[:20])})",
                suggestion="Look at them; reject them here, too, where the note is right.", now=desk.now(),
                kind="study-rejected-images", study_uid=study.uid,
                facts={"source": project, "count": len(here), "reason": f"{note.why}: {', '.join(here[:20])}"},
                actions=[{"label": "Study", "href": f"/studies/{study.uid}"}],
            )  # fmt: skip
