"""Play steps 1 to 3: the HIS orders, the CT gets its worklist, does the exam and sends the images."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from pydicom.dataset import Dataset
from sqlalchemy import select

from demo import images
from demo.hospital import Hospital, Run, StepFailed, must, wait_for
from zambezi.database.tables import Order

SLICES = 12


def his_orders(hospital: Hospital, run: Run) -> str:
    """Step 1: ADT^A04 and ORM^O01 over MLLP (python-hl7's mllp_send); AA comes back; the order is on the page."""
    head = {3: "HIS", 4: "HCZ", 5: "ZAMBEZI", 6: "HCZ", 7: f"{run.study_date}080000", 11: "P", 12: "2.5.1", 17: "MOZ",
            18: "UNICODE UTF-8"}  # fmt: skip
    doctor = "123^Macuácua^Lídia"
    person = _segment("PID", {1: "1", 3: f"{run.patient_id}^^^HCZ^PI", 5: run.patient_name, 7: "19790412", 8: "M",
                              11: "Av. Eduardo Mondlane 12^^Quelimane"})  # fmt: skip
    visit = _segment("PV1", {1: "1", 2: "O", 3: "CONS^^^HCZ", 8: doctor})
    placer = f"P{run.number}"
    admit = [_message_head({**head, 9: "ADT^A04^ADT_A01", 10: f"D{run.number}A"}),
             _segment("EVN", {1: "A04", 2: f"{run.study_date}080000"}), person, visit]  # fmt: skip
    order = [
        _message_head({**head, 9: "ORM^O01^ORM_O01", 10: f"D{run.number}O"}), person, visit,
        _segment("ORC", {1: "NW", 2: placer, 7: f"^^^{run.study_date}083000^^R", 12: doctor, 18: "CT1"}),
        _segment("OBR", {1: "1", 2: placer, 4: "TCTORAX^TC Tórax sem contraste", 16: doctor, 18: run.accession_number,
                         24: "CT", 31: "Tosse há três meses; exclusão de tuberculose"}),
    ]  # fmt: skip
    for name, message in (("ADT^A04", admit), ("ORM^O01", order)):
        answer = _send("\r".join(message) + "\r", hospital.environment.ports.mllp)
        must("MSA|AA|" in answer, f"the answer to {name} is not AA but: {answer[:200]!r}")
    page = hospital.person("recepcao").page("/")
    must(run.accession_number in page, f"accession number {run.accession_number} is not on the worklist page")
    must("Conceição" in page, "the patient's name is not on the worklist page with its accents")
    return f"two AA; order {run.accession_number} of João António Conceição is on the worklist page"


def ct_gets_its_worklist(hospital: Hospital, run: Run) -> str:
    """Step 2: `findscu -W` as CT1 gets exactly that order, accents right."""

    def look() -> list[Dataset] | None:
        return [item for item in hospital.ct.worklist() if item.AccessionNumber == run.accession_number]

    items = wait_for("the order on the CT's worklist", look)
    must(len(items) == 1, f"expected one worklist item, got {len(items)}")
    item = items[0]
    name = str(item.PatientName)
    must(name == run.patient_name, f"patient's name: expected {run.patient_name!r}, got {name!r}")
    run.order = {"study_uid": str(item.StudyInstanceUID)}
    others = [other for other in hospital.ct.worklist() if other.PatientID == run.patient_id]
    must(len(others) == 1, f"the patient has {len(others)} worklist items instead of one")
    return f"one item, {name}, Study UID {run.order['study_uid']}"


def ct_does_the_exam(hospital: Hospital, run: Run) -> str:
    """Step 3: MPPS in progress, images by C-STORE (dcmtk's storescu), MPPS completed; the exam's state follows."""
    item = next(item for item in hospital.ct.worklist() if item.AccessionNumber == run.accession_number)
    step_uid = hospital.ct.begin(item)
    wait_for("the exam in progress", lambda: _status(hospital, run) == "in-progress")
    with tempfile.TemporaryDirectory() as folder:
        slices = images.ct_slices(run.exam, SLICES, Path(folder))
        hospital.ct.store(slices)
    sop_uids = [images.uid(run.exam.study_uid, "slice", str(number)) for number in range(1, SLICES + 1)]
    hospital.ct.complete(step_uid, images.uid(run.exam.study_uid, "series"), sop_uids)
    wait_for("the exam completed", lambda: _status(hospital, run) == "completed")
    return f"in progress, {SLICES} images stored, completed"


def _message_head(fields: dict[int, str]) -> str:
    # MSH-1 is the separator itself, so that MSH-2 follows the name directly
    return "MSH|^~\\&|" + "|".join(fields.get(number, "") for number in range(3, max(fields) + 1))


def _segment(name: str, fields: dict[int, str]) -> str:
    return "|".join([name, *(fields.get(number, "") for number in range(1, max(fields) + 1))])


def _send(message: str, port: int) -> str:
    program = str(Path(sys.executable).parent / "mllp_send")
    with tempfile.NamedTemporaryFile("wb", suffix=".hl7") as file:
        # mllp_send cuts its input at MLLP frames, which the file must therefore hold
        file.write(b"\x0b" + message.encode("utf-8") + b"\x1c\r")
        file.flush()
        done = subprocess.run([program, "--file", file.name, "--port", str(port), "127.0.0.1"],
                              capture_output=True, timeout=60)  # fmt: skip
    if done.returncode:
        raise StepFailed(f"mllp_send ended with {done.returncode}: {done.stderr.decode(errors='replace')[-300:]}")
    return done.stdout.decode("utf-8", errors="replace")


def _status(hospital: Hospital, run: Run) -> str:
    with hospital.database().begin() as session:
        return str(session.scalars(select(Order.status).where(Order.accession_number == run.accession_number)).one())
