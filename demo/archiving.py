"""Play step 4: the archive records, routes, and the other archives and the HIS get what the rules say."""

from __future__ import annotations

import pydicom
from sqlalchemy import select

from demo import his, images
from demo.hospital import Hospital, Run, must, wait_for
from demo.ordering import SLICES
from zambezi.database.tables import AuditEntry, Delivery, Study


def archive_routes(hospital: Hospital, run: Run) -> str:
    """Every instance has one audit entry, both archives hold every one, the HIS knows, RIS and images are linked."""
    study_uid = run.exam.study_uid
    expected = {images.uid(study_uid, "slice", str(number)) for number in range(1, SLICES + 1)}

    def delivered() -> list[Delivery] | None:
        with hospital.database().begin() as session:
            found = session.scalars(select(Delivery).where(Delivery.study_uid == study_uid)).all()
        return list(found) if len(found) >= 3 and all(row.state == "delivered" for row in found) else None

    deliveries = wait_for("two routes and a message delivered", delivered, 90)
    dicom = {row.destination: row for row in deliveries if row.kind == "dicom"}
    must(sorted(dicom) == ["BACKUP", "SECOND"], f"routes go to {sorted(dicom)} instead of BACKUP and SECOND")
    must(dicom["SECOND"].proof == "found", f"SECOND was proven {dicom['SECOND'].proof!r} instead of found")
    must(dicom["BACKUP"].proof == "acknowledged", f"BACKUP was proven {dicom['BACKUP'].proof!r}")
    for row in dicom.values():
        sent = {instance[2] for instance in row.instances}
        must(sent == expected, f"the route to {row.destination} names {len(sent)} of {len(expected)} instances")

    held = {pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID
            for file in hospital.neighbours.backup_files.iterdir() if file.is_file()}  # fmt: skip
    must(expected <= held, f"storescp's folder lacks {len(expected - held)} of {len(expected)} instances")
    second = {answer["SOPInstanceUID"] for answer in hospital_query(hospital, run)}
    must(second == expected, f"dcmqrscp answers {len(second & expected)} of {len(expected)} instances")

    told = [message for message in his.received(hospital.neighbours.his_inbox) if study_uid in str(message)]
    must(told, "the HIS got no message with the Study UID")
    must(str(told[0].segment("MSH")(9)).startswith("ORM"), f"the HIS got {told[0].segment('MSH')(9)} first")

    with hospital.database().begin() as session:
        stored = session.scalars(
            select(AuditEntry.sop_uid).where(AuditEntry.event == "stored", AuditEntry.sop_uid.in_(expected))
        ).all()
        study = session.scalars(select(Study).where(Study.study_uid == study_uid)).one()
    must(
        sorted(filter(None, stored)) == sorted(expected), f"{len(stored)} stored entries for {len(expected)} instances"
    )
    must(study.order_id, "the study is not linked to its order")
    because = dicom["SECOND"].because
    return f"{SLICES} audit entries; SECOND found all, BACKUP acknowledged all ({because}); HIS told; RIS linked"


def hospital_query(hospital: Hospital, run: Run) -> list[dict[str, str]]:
    """What SECOND answers at IMAGE level for the run's series, asked by Orthanc as the gateway."""
    from zambezi import keys
    from zambezi.orthanc_client import OrthancClient

    gateway = OrthancClient(hospital.environment, keys.load(hospital.environment.keys_file), "gateway")
    series_uid = images.uid(run.exam.study_uid, "series")
    return gateway.query("SECOND", "Instance", {
        "StudyInstanceUID": run.exam.study_uid, "SeriesInstanceUID": series_uid, "SOPInstanceUID": "",
    })  # fmt: skip
