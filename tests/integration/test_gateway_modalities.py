"""MPPS and worklist on the gateway's own DICOM port, with pynetdicom and dcmtk's findscu as modalities."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, Association

from tests.gateway_alone import Alone, a_gateway, eventually
from tests.unit.hl7.messages import ORM
from zambezi.database.tables import AuditEntry, ExceptionItem, Order, PerformedStep

MPPS = "1.2.840.10008.3.1.2.3.3"
SETTINGS: dict[str, Any] = {
    "Hl7": {"Peers": {"his": {"Application": "HIS"}}},
    "Worklist": {"Stations": {"CT1": {"Modality": ["CT"]}, "US1": {"Modality": ["US"]}}},
}
MODALITIES = {"ct": ["CT1", "127.0.0.1", 11112], "us": ["US1", "127.0.0.1", 11113], "far": ["FAR", "192.0.2.1", 104]}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    with a_gateway(tmp_path_factory.mktemp("mpps"), SETTINGS, MODALITIES) as alone:
        yield alone


@contextmanager
def association(gateway: Alone, caller: str = "CT1", called: str = "ZAMBEZI") -> Iterator[Association]:
    ae = AE(caller)
    ae.add_requested_context(MPPS)
    made = ae.associate("127.0.0.1", gateway.environment.ports.mpps, ae_title=called)
    yield made
    if made.is_established:
        made.release()


def an_order(gateway: Alone, number: str) -> Order:
    text = ORM.replace("202603011000", "").replace("4711", f"P{number}").replace("CTL2", f"C{number}")
    text = (
        text.replace("PL1", f"PL{number}").replace("ACC1", f"ACC{number}").replace("1.2.840.1.7", f"1.2.840.1.{number}")
    )
    assert gateway.line().ask(text).get("MSA-1") == "AA"
    return the_order(gateway, number)


def the_order(gateway: Alone, number: str) -> Order:
    (found,) = gateway.all(Order, Order.accession_number == f"ACC{number}")
    return found


def begin(order: Order | None, status: str = "IN PROGRESS") -> Dataset:
    step = Dataset()
    step.StudyInstanceUID = order.study_uid if order else "1.2.3.404"
    step.AccessionNumber = order.accession_number if order else ""
    made = Dataset()
    made.ScheduledStepAttributesSequence = [step]
    made.PatientName = "Conceição^João"
    made.PatientID = order.patient.patient_id if order else "unknown"
    made.PerformedProcedureStepID = "1"
    made.PerformedStationAETitle = "CT1"
    made.PerformedProcedureStepStatus = status
    made.SpecificCharacterSet = "ISO_IR 100"
    return made


def ending(status: str, reason: str = "") -> Dataset:
    made = Dataset()
    made.PerformedProcedureStepStatus = status
    if reason:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = reason, "DCM", "x"
        made.PerformedProcedureStepDiscontinuationReasonCodeSequence = [code]
    return made


def create(made: Association, uid: str, attributes: Dataset) -> int:
    status, _ = made.send_n_create(attributes, MPPS, uid)
    return int(status.Status)


def change(made: Association, uid: str, changes: Dataset) -> int:
    status, _ = made.send_n_set(changes, MPPS, uid)
    return int(status.Status)


def test_an_exam_follows_its_modality(gateway: Alone):
    order, uid = an_order(gateway, "1"), generate_uid()
    with association(gateway) as ct:
        assert create(ct, uid, begin(order)) == 0x0000
        assert the_order(gateway, "1").status == "in-progress"
        assert change(ct, uid, ending("COMPLETED")) == 0x0000
        assert the_order(gateway, "1").status == "completed"
    # The archive is told, for rules that go by it.
    eventually(lambda: order.study_uid in gateway.plugin.pushed.get("ready", {}).get("studies", {}))
    (step,) = gateway.all(PerformedStep, PerformedStep.sop_uid == uid)
    assert (step.status, step.order_id, step.station_aet) == ("COMPLETED", order.id, "CT1")


def test_what_is_ended_never_changes(gateway: Alone):
    order, uid = an_order(gateway, "2"), generate_uid()
    with association(gateway) as ct:
        create(ct, uid, begin(order))
        assert change(ct, uid, ending("DISCONTINUED")) == 0x0000
        assert change(ct, uid, ending("COMPLETED")) == 0x0110
    assert the_order(gateway, "2").status == "discontinued"


def test_objects_are_created_once_and_known_before_they_are_changed(gateway: Alone):
    order, uid = an_order(gateway, "3"), generate_uid()
    with association(gateway) as ct:
        assert change(ct, uid, ending("COMPLETED")) == 0x0112
        assert create(ct, uid, begin(order)) == 0x0000
        assert create(ct, uid, begin(order)) == 0x0111


def test_an_object_begins_in_progress(gateway: Alone):
    with association(gateway) as ct:
        assert create(ct, generate_uid(), begin(None, "COMPLETED")) == 0x0106
        assert create(ct, generate_uid(), begin(None, "")) == 0x0120


def test_a_wrong_worklist_entry_puts_the_order_back_and_before_a_person(gateway: Alone):
    order, uid = an_order(gateway, "4"), generate_uid()
    with association(gateway) as ct:
        create(ct, uid, begin(order))
        assert change(ct, uid, ending("DISCONTINUED", "110514")) == 0x0000
    assert the_order(gateway, "4").status == "scheduled"
    assert gateway.count(ExceptionItem, ExceptionItem.reference == uid) == 1


def test_an_exam_without_an_order_is_kept_and_waits_for_a_person(gateway: Alone):
    uid = generate_uid()
    with association(gateway) as ct:
        assert create(ct, uid, begin(None)) == 0x0000
        assert change(ct, uid, ending("COMPLETED")) == 0x0000
    assert gateway.count(ExceptionItem, ExceptionItem.room == "mpps", ExceptionItem.reference == uid) == 1


def test_who_is_let_in_is_in_the_audit_trail(gateway: Alone):
    with association(gateway) as made:
        assert made.is_established
    eventually(lambda: any(b'"CT1"' in e.payload for e in gateway.all(AuditEntry, AuditEntry.event == "associated")))


@pytest.mark.parametrize(
    ("caller", "called", "reason"),
    [
        ("STRANGER", "ZAMBEZI", b"the AE title is unknown"),
        ("FAR", "ZAMBEZI", b"the AE title belongs to another address"),
        ("CT1", "OTHER", b"it calls an AE title that is not ours"),
    ],
)
def test_strangers_get_no_association(gateway: Alone, caller: str, called: str, reason: bytes):
    with association(gateway, caller, called) as made:
        assert made.is_rejected or made.is_aborted  # a slow reader finds the connection closed before the reason
        assert not made.is_established
    eventually(
        lambda: any(
            caller.encode() in e.payload and reason in e.payload
            for e in gateway.all(AuditEntry, AuditEntry.event == "refused")
        )
    )


def test_what_was_answered_survives_a_kill(tmp_path: Path):
    with a_gateway(tmp_path, SETTINGS, MODALITIES) as alone:
        order, uid = an_order(alone, "9"), generate_uid()
        with association(alone) as ct:
            assert create(ct, uid, begin(order)) == 0x0000
            alone.kill()
        alone.start()
        assert the_order(alone, "9").status == "in-progress"
        with association(alone) as ct:
            assert create(ct, uid, begin(order)) == 0x0111
            assert change(ct, uid, ending("COMPLETED")) == 0x0000


def find(gateway: Alone, folder: Path, *keys: str, caller: str = "CT1") -> list[Dataset]:
    from pydicom import dcmread

    out = folder / f"answers-{len(list(folder.iterdir()))}"
    out.mkdir()
    subprocess.run(
        [
            shutil.which("findscu", path="/usr/bin"), "-W", "-X", "-od", out, "-aet", caller, "-aec", "ZAMBEZI",
            "127.0.0.1", str(gateway.environment.ports.mpps), *(arg for key in keys for arg in ("-k", key)),
        ],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return [dcmread(file, force=True) for file in sorted(out.iterdir())]


STEP = "ScheduledProcedureStepSequence[0]"


def test_a_station_gets_its_worklist_with_accents(gateway: Alone, tmp_path: Path):
    order = an_order(gateway, "5")
    keys = (
        "PatientName",
        "PatientID=P5",
        "AccessionNumber",
        "StudyInstanceUID",
        f"{STEP}.Modality",
        f"{STEP}.ScheduledStationAETitle",
    )
    (answer,) = find(gateway, tmp_path, *keys)
    assert str(answer.PatientName) == "Conceição^João"
    assert (answer.SpecificCharacterSet, answer.AccessionNumber) == ("ISO_IR 100", "ACC5")
    assert answer.StudyInstanceUID == order.study_uid
    step = answer.ScheduledProcedureStepSequence[0]
    assert (step.Modality, step.ScheduledStationAETitle) == ("CT", "CT1")


def test_another_station_does_not_see_it(gateway: Alone, tmp_path: Path):
    an_order(gateway, "6")
    assert find(gateway, tmp_path, "PatientID=P6", caller="US1") == []


@pytest.mark.parametrize(
    ("key", "found"),
    [("PatientName=conceicao*", 1), ("PatientName=CONCEIÇÃO^J*", 1), ("PatientName=Silva*", 0), ("PatientID=P7", 1),
     (f"{STEP}.Modality=MR", 0), (f"{STEP}.Modality=CT", 1), (f"{STEP}.ScheduledProcedureStepStartDate=20200101-", 1),
     (f"{STEP}.ScheduledProcedureStepStartDate=-20200101", 0)],
)  # fmt: skip
def test_keys_narrow_the_worklist(gateway: Alone, tmp_path: Path, key: str, found: int):
    if not gateway.count(Order, Order.accession_number == "ACC7"):
        an_order(gateway, "7")
    assert len(find(gateway, tmp_path, "AccessionNumber=ACC7", "(0008,0005)=ISO_IR 192", key)) == found


def test_an_exam_that_is_over_leaves_the_worklist(gateway: Alone, tmp_path: Path):
    order, uid = an_order(gateway, "8"), generate_uid()
    with association(gateway) as ct:
        create(ct, uid, begin(order))
        assert len(find(gateway, tmp_path, "PatientID=P8")) == 1
        change(ct, uid, ending("COMPLETED"))
    assert find(gateway, tmp_path, "PatientID=P8") == []
