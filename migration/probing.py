"""What a DICOM archive can do: each ability is tried and shown. Nothing is stored by it, neither there nor here.

Two of our names ask: the archive's own AE title, in whose name studies are moved, and the source's `Aet`, under which
we retrieve by ourselves (C-GET). A legacy archive must let in both.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pynetdicom import AE, build_context, build_role
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.presentation import PresentationContext

from migration.source import Probe, Trouble, trouble_of
from zambezi import retries
from zambezi.config.safety import Modality
from zambezi.orthanc_client import OrthancClient, OrthancRefused
from zambezi.retries import ErrorClass
from zambezi.retrieving import GET, LARGE_PDU, SYNTAXES

#: PS3.4 C.6.1.3, C.6.2.3: information models, patient root and study root.
FIND, MOVE = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"
_PATIENT_FIND, _PATIENT_MOVE = "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.1.2"
_VERIFICATION = "1.2.840.10008.1.1"
_CT = "1.2.840.10008.5.1.4.1.1.2"
#: So many answers to one question are read; then it is cancelled, and a source that goes on all the same is left.
_MOST_ANSWERS = 1000
_PATIENCE_S = 30
_PATIENT_ALONE = (
    "it answers by the patient root alone, by which Orthanc neither asks nor moves: have the study root switched on "
    "there, or migrate its files (Kind folder) or its DICOMweb server"
)
_MOST_ASSOCIATIONS = 9
#: PS3.7 annex C: SOP class not supported, not authorised, unrecognised operation.
_NOT_ALLOWED = (0x0122, 0x0124, 0x0211)


@dataclass
class _Answers:
    found: list[Dataset] = field(default_factory=list)
    status: int = -1  # the final one; -1: none came
    is_cancelled: bool = False


def probe(client: OrthancClient, peer: Modality, aet: str) -> Probe:
    """Try everything once; by ability, whether the source has it, and what was seen."""
    abilities = {"C-ECHO as the archive": _echo(client, peer)}
    wanted = [build_context(uid) for uid in (_VERIFICATION, FIND, MOVE, GET, _PATIENT_FIND, _PATIENT_MOVE)]
    with associated(peer, aet, wanted, [_relational()]) as (association, why):
        abilities["association as ourselves"] = (association is not None, why or f"under the AE title {aet}")
        if association is None:
            return Probe(abilities)
        offered = {str(context.abstract_syntax) for context in association.accepted_contexts}
        by_patient = _PATIENT_FIND in offered
        abilities["C-FIND, study root"] = (
            FIND in offered,
            _PATIENT_ALONE if by_patient and FIND not in offered else "",
        )
        abilities["C-FIND, patient root"] = (by_patient, "")
        relational = association.acceptor.sop_class_extended.get(UID(FIND), b"")[:1] == b"\1"
        abilities["relational queries"] = (relational, "")
        sop_class = _CT
        if FIND in offered:
            found, sop_class = _look(association)
            abilities |= found
        abilities["C-MOVE, study root"] = (MOVE in offered, "")
    abilities["C-GET, study root"] = _get(peer, aet)
    if MOVE in offered:
        abilities["C-MOVE to the archive"] = _move(client, peer)
    if abilities["C-GET, study root"][0]:
        abilities["transfer syntaxes by C-GET"] = _syntaxes(peer, aet, sop_class)
    abilities["associations at once"] = _at_once(peer, aet)
    return Probe(abilities)


@contextmanager
def associated(
    peer: Modality, aet: str, contexts: Sequence[PresentationContext], ext_neg: Iterable[Any] = (), handlers: Any = None
) -> Iterator[tuple[Association | None, str]]:  # fmt: skip
    """An association that is released at the end; None and why, where there is none."""
    entity = AE(ae_title=aet)
    entity.maximum_pdu_size = LARGE_PDU
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = _PATIENCE_S
    association = entity.associate(
        peer.host, peer.port, contexts=list(contexts), ae_title=peer.aet, ext_neg=list(ext_neg),
        evt_handlers=handlers or [],
    )  # fmt: skip
    if not association.is_established:
        how = "rejected" if association.is_rejected else "not answered"
        yield None, f"an association under the AE title {aet} is {how}"
        return
    try:
        yield association, ""
    finally:
        if association.is_established:
            association.release()


def ask(association: Association, level: str, most: int = _MOST_ANSWERS, **keys: str) -> _Answers:
    """One C-FIND, study root; read up to `most` answers, then cancelled."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    answers = _Answers()
    for status, answer in association.send_c_find(identifier, FIND, msg_id=1):
        answers.status = int(status.Status) if status and "Status" in status else -1
        if answer is not None:
            answers.found.append(answer)
        if len(answers.found) == most and not answers.is_cancelled:
            association.send_c_cancel(1, query_model=FIND)
            answers.is_cancelled = True
        if len(answers.found) >= 3 * most:
            association.abort()
            break
    return answers


def _relational() -> SOPClassExtendedNegotiation:
    """PS3.4 C.5.1.1: byte 1, relational queries."""
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid = UID(FIND)
    item.service_class_application_information = b"\1"
    return item


def _echo(client: OrthancClient, peer: Modality) -> tuple[bool, str]:
    try:
        client.post(f"/modalities/{peer.name}/echo", {})
    except OrthancRefused as refused:
        return False, str(trouble_of(refused.detail))
    return True, ""


def _look(association: Association) -> tuple[dict[str, tuple[bool, str]], str]:
    """Down the levels, along one study."""
    abilities: dict[str, tuple[bool, str]] = {}
    studies = ask(
        association, "STUDY", StudyInstanceUID="", NumberOfStudyRelatedInstances="", SpecificCharacterSet="",
        PatientName="", InstanceAvailability="",
    )  # fmt: skip
    abilities["answers at once"] = _limit(studies)
    named = [answer for answer in studies.found if answer.get("StudyInstanceUID")]
    claims = sum(1 for answer in named if answer.get("NumberOfStudyRelatedInstances"))
    abilities["numbers of instances"] = (bool(claims), f"{claims} of {len(named)} answers claim one")
    sets = {_character_set(answer) for answer in studies.found}
    abilities["character sets"] = (bool(sets), ", ".join(sorted(sets)))
    lines = {str(answer.InstanceAvailability) for answer in named if answer.get("InstanceAvailability")}
    abilities["near-line"] = (bool(lines), ", ".join(sorted(lines)))
    if not named or not association.is_established:
        return abilities, _CT
    study_uid = str(named[0].StudyInstanceUID)
    series = ask(association, "SERIES", StudyInstanceUID=study_uid, SeriesInstanceUID="")
    abilities["SERIES level"] = (bool(series.found), _said(series))
    if not series.found or not association.is_established:
        return abilities, _CT
    images = ask(
        association, "IMAGE", StudyInstanceUID=study_uid, SeriesInstanceUID=str(series.found[0].SeriesInstanceUID),
        SOPInstanceUID="", SOPClassUID="", AvailableTransferSyntaxUID="",
    )  # fmt: skip
    abilities["IMAGE level"] = (bool(images.found), _said(images))
    syntaxes = any(image.get("AvailableTransferSyntaxUID") for image in images.found)
    abilities["names transfer syntaxes"] = (syntaxes, "")
    classes = [str(image.SOPClassUID) for image in images.found if image.get("SOPClassUID")]
    return abilities, classes[0] if classes else _CT


def _limit(answers: _Answers) -> tuple[bool, str]:
    """How many answers one question gets; False where the source ended them early."""
    count = len(answers.found)
    if answers.is_cancelled:
        return True, f"{count} and more"
    if answers.status == 0x0000:
        return True, f"all {count}; an inventory finds out whether that is a limit"
    return False, f"cut off after {count}, with status 0x{answers.status & 0xFFFF:04X}: it is asked in parts"


def _said(answers: _Answers) -> str:
    return f"{len(answers.found)} answers, status 0x{answers.status & 0xFFFF:04X}"


def _character_set(answer: Dataset) -> str:
    """As PS3.3 C.12.1.1.2 names it; none is ASCII."""
    named = answer.get("SpecificCharacterSet") or "ISO_IR 6"
    return str(named) if isinstance(named, str) else "\\".join(map(str, named))


def _move(client: OrthancClient, peer: Modality) -> tuple[bool, str]:
    """Ask for a study that can't be there: whoever doesn't know where to send it says so first (A801)."""
    try:
        target = str(client.system()["DicomAet"])
        body = {
            "Level": "Study", "Resources": [{"StudyInstanceUID": generate_uid()}], "TargetAet": target,
            "Synchronous": True, "Timeout": _PATIENCE_S,
        }  # fmt: skip
        client.post(f"/modalities/{peer.name}/move", body)
    except OrthancRefused as refused:
        status = retries.dimse_status(refused.detail) or retries.dimse_status(str(refused))
        if status == 0xA801:
            return False, f"it doesn't know the AE title {target} (status 0xA801): enter it there, with its address"
        if status is None:
            return False, str(trouble_of(refused.detail))
        return True, f"status 0x{status:04X} for a study that isn't there"
    return True, "status 0x0000 for a study that isn't there"


def sure_of_get(peer: Modality, aet: str, patience_s: float = _PATIENCE_S) -> str:
    """What it says to a C-GET of a study that can't be there; Trouble, with what to do, where nobody may retrieve so.

    Some refuse by ending the association, some by saying nothing. Found out here, no study has to wait for that.
    """
    refusal = f"let {aet} retrieve by C-GET there (an Orthanc: AllowGet), or take a plan of Level arrival"
    # Verification beside it: a source that takes no context at all says the same as one that is away.
    with associated(peer, aet, [build_context(_VERIFICATION), build_context(GET)]) as (association, why):
        if association is None:
            raise Trouble(ErrorClass.TRANSIENT, why)
        if GET not in {str(context.abstract_syntax) for context in association.accepted_contexts}:
            raise Trouble(ErrorClass.CONFIGURATION, f"it offers no C-GET: {refusal}")
        association.dimse_timeout = patience_s
        began, said = time.monotonic(), -1
        try:
            for status, _ in association.send_c_get(_unknown_study(), GET):
                said = int(status.Status) if status and "Status" in status else -1
        except RuntimeError:  # it ended the association before it was asked
            said = -1
    if said == -1 and time.monotonic() - began >= patience_s:
        raise Trouble(ErrorClass.TRANSIENT, f"it says nothing to a C-GET within {patience_s:g} s: {refusal}")
    if said == -1:
        raise Trouble(ErrorClass.CONFIGURATION, f"it ends the association when asked by C-GET: {refusal}")
    if said in _NOT_ALLOWED:
        raise Trouble(ErrorClass.CONFIGURATION, f"it refuses C-GET with status 0x{said:04X}: {refusal}")
    return f"status 0x{said:04X} for a study that isn't there"


def _unknown_study() -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", generate_uid()
    return identifier


def _get(peer: Modality, aet: str) -> tuple[bool, str]:
    try:
        return True, sure_of_get(peer, aet)
    except Trouble as trouble:
        return False, str(trouble)


def _syntaxes(peer: Modality, aet: str, sop_class: str) -> tuple[bool, str]:
    """In which transfer syntaxes it would send an object of this class by C-GET."""
    contexts = [build_context(GET), *(build_context(sop_class, syntax) for syntax in SYNTAXES)]
    with associated(peer, aet, contexts, [build_role(sop_class, scp_role=True)]) as (association, why):
        if association is None:
            return False, why
        taken = {
            str(context.transfer_syntax[0])
            for context in association.accepted_contexts
            if context.abstract_syntax == sop_class and context.as_scp
        }
    compressed = sorted(UID(syntax).name for syntax in taken if UID(syntax).is_compressed)
    if not compressed:
        return (
            False,
            f"{UID(sop_class).name}: uncompressed only; whether anything lies compressed there is not to be seen",
        )
    return True, f"{UID(sop_class).name}: {', '.join(compressed)}"


def _at_once(peer: Modality, aet: str) -> tuple[bool, str]:
    """How many associations it takes at once, up to as many as we would ever make."""
    entity = AE(ae_title=aet)
    entity.acse_timeout = entity.connection_timeout = 5
    taken = []
    for _ in range(_MOST_ASSOCIATIONS):
        association = entity.associate(peer.host, peer.port, contexts=[build_context(_VERIFICATION)], ae_title=peer.aet)
        if not association.is_established:
            break
        taken.append(association)
    for association in taken:
        association.release()
    more = " and more" if len(taken) == _MOST_ASSOCIATIONS else ""
    return len(taken) > 1, f"{len(taken)}{more}"
