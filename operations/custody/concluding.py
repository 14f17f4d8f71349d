"""The end of a correction: order, reports and receivers follow, in one transaction with its state."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sqlalchemy import update
from sqlalchemy.orm import Session

from operations.custody import receivers
from operations.custody.correction_work import Work
from operations.custody.worker import WRITER
from zambezi import corrections, crash, exceptions
from zambezi.correctable import ACCESSION_NUMBER, PATIENT_ID
from zambezi.database.tables import Held
from zambezi.orthanc_client import OrthancRefused
from zambezi.relinking import relink

log = logging.getLogger("zambezi.correcting")

#: What the archive answers of patient and study -> tag.
_TAGS = {
    "PatientID": PATIENT_ID, "PatientName": "00100010", "PatientBirthDate": "00100030", "PatientSex": "00100040",
    "AccessionNumber": ACCESSION_NUMBER, "StudyDate": "00080020", "StudyTime": "00080030",
    "StudyDescription": "00081030",
}  # fmt: skip


def finish(work: Work) -> None:
    """What follows from it, in one transaction with the end."""
    with work.desk.sessions.begin() as session:
        items = corrections.items_of(session, work.row.id)
    pairs = sorted({(one.old_study_uid, one.old_study, one.new_study_uid, one.new_study) for one in items})
    facts = {new: _facts_of(work, new) for new in {pair[3] for pair in pairs}}
    left = {old: _left_in(work, old) for _, old, _, new in pairs if old != new}
    with work.desk.sessions.begin() as session:
        said = [f"{len(items)} instances corrected; the old copies are in the hold"]
        for old_uid, old, new_uid, new in pairs:
            parts = [pair for pair in pairs if pair[1] == old]
            whole = not left.get(old) and len(parts) == 1
            _follow(work, session, old_uid, old, new_uid, new, facts[new], whole)
        said += receivers.send_corrected(session, work.row.id, items, work.desk.now(), WRITER)
        staying = sum(left.values())
        if staying and work.row.kind not in ("move", "edit", "replace", "undo"):
            said.append(f"{staying} instances that came meanwhile are still in the old study")
            _tell_of_late_ones(work, session, staying)
        session.execute(
            update(Held)
            .where(Held.reference == f"{work.reference}, new copy", Held.state == "kept")
            .values(keep_until=work.at)
        )
        work.end(session, "; ".join(said))
    log.info("correction %s is done: %s instances", work.row.id, len(items))


def finish_unchanged(work: Work, studies: Sequence[tuple[str, str]]) -> None:
    """Every image has the values already: an order that was named gets these (UID, Orthanc id) all the same."""
    wants_order = work.row.request.get("order") is not None
    facts = {study: _facts_of(work, study) for _, study in studies} if wants_order else {}
    with work.desk.sessions.begin() as session:
        for uid, study in studies if wants_order else ():
            _follow(work, session, uid, study, uid, study, facts[study], whole=True)
        work.end(session, "nothing to change: every image has these values already, or there is none")


def _facts_of(work: Work, study: str) -> dict[str, str]:
    """What the archive says of a study, once its answers rest on the new images.

    Where an instance was exchanged for itself, Orthanc still answers with what the first image of patient, study
    and series said when it came: it is made to read them anew.
    """
    crash.point(WRITER)
    try:
        work.desk.orthanc.request("POST", f"/studies/{study}/reconstruct", json={}, timeout_s=600)
        found = work.desk.orthanc.get(f"/studies/{study}")
    except OrthancRefused as refused:
        if refused.status == 404:  # deleted since: nothing to say of it
            return {}
        raise
    return {**found["PatientMainDicomTags"], **found["MainDicomTags"]}


def _left_in(work: Work, study: str) -> int:
    """How many instances the old study still has."""
    try:
        return int(work.desk.orthanc.get(f"/studies/{study}/statistics")["CountInstances"])
    except OrthancRefused as refused:
        if refused.status == 404:
            return 0
        raise


def _follow(
    work: Work, session: Session, old_uid: str, old: str, new_uid: str, new: str, facts: dict[str, str], whole: bool
) -> None:
    """The tables say of the study what its images say now; order, reports and steps go with it."""
    if not facts:
        return
    relink(
        session, old_study_uid=old_uid, old_orthanc_id=old, new_study_uid=new_uid, new_orthanc_id=new,
        patient_id=facts.get("PatientID", ""), accession_number=facts.get("AccessionNumber", ""),
        order_id=work.row.request.get("order"), now=work.desk.now(), writer=WRITER, whole=whole,
        changes={tag: facts.get(keyword, "") for keyword, tag in _TAGS.items()},
    )  # fmt: skip


def _tell_of_late_ones(work: Work, session: Session, staying: int) -> None:
    exceptions.wait(
        session, corrections.ROOM, f"{work.row.id} late", now=work.desk.now(), kind="came-late",
        what=f"{staying} instances came into the old study while {work.reference} was carried out",
        suggestion="Look at them, and correct them too if they belong to it.",
    )  # fmt: skip
