"""Patients, orders and studies for tests of merging and relinking."""

from datetime import UTC, datetime

from zambezi import clock, orders, orthanc_ids
from zambezi.config.settings import Site
from zambezi.database.tables import Order, Patient, Series, Study

SITE = Site(accession_prefix="HCM")
NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


def a_patient(session, patient_id, issuer="HIS", **facts) -> Patient:
    said = {"family_name": f"Fam{patient_id}", "given_name": "Ana", "birth_date": "19800101", "sex": "F", **facts}
    return orders.register_patient(session, patient_id=patient_id, issuer=issuer, now=NOW, writer="ris", **said)


def an_order(session, patient, status="scheduled", **facts) -> Order:
    wanted = orders.NewOrder(**{"scheduled_at": NOW, "modality": "CT", "procedure_text": "TC", **facts})
    order = orders.place_order(session, patient, wanted, now=NOW, site=SITE, writer="ris")
    if status != "scheduled":
        orders.set_status(session, order, status, now=NOW, writer="ris")
    return order


def a_study(session, patient_id, study_uid, order=None, instances=2) -> Study:
    at = clock.text(NOW)
    study = Study(
        study_uid=study_uid, orthanc_id=orthanc_ids.study(patient_id, study_uid), cause="modality",
        patient_id=patient_id, order_id=order.id if order else None, instances=instances, first_at=at, last_at=at,
        completed_at=at, accession_number=order.accession_number if order else "",
    )  # fmt: skip
    session.add(study)
    session.add(
        Series(
            series_uid=f"{study_uid}.1", orthanc_id=orthanc_ids.series(patient_id, study_uid, f"{study_uid}.1"),
            study_uid=study_uid, modality="CT", instances=instances,
        )
    )  # fmt: skip
    session.flush()
    return study
