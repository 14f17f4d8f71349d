import json

import pytest
from sqlalchemy import select

from gateway.effects import Effects
from tests.unit.patients.people import NOW, a_patient, a_study, an_order
from zambezi import chain, clock, exceptions, identifiers, legacy, orders, orthanc_ids, patients, reports
from zambezi.config.settings import Zambezi
from zambezi.database.tables import AuditEntry, ExceptionItem, PerformedStep, Report, Series, Study

UID = "1.2.1"


def relink(session, old, patient_id, study_uid="", order=None, accession="", **how):
    new_uid = study_uid or old[0]
    return patients.relink(
        session, old_study_uid=old[0], old_orthanc_id=old[1], new_study_uid=new_uid,
        new_orthanc_id=orthanc_ids.study(patient_id, new_uid), patient_id=patient_id, accession_number=accession,
        order_id=order.id if order else None, now=NOW, writer="custody", **how,
    )  # fmt: skip


def key(study):
    return study.study_uid, study.orthanc_id


def a_report(session, uid, order, sign=True):
    draft = reports.begin(session, uid, order.id if order else None, author="ana", language="pt", now=NOW, writer="ris")
    reports.save(session, uid, 1, 0, reports.Text("", "Normal.", ""), who="ana", now=NOW, writer="ris")
    if sign:
        reports.sign(
            session, uid, 1, 1, who="ana", name="Ana", now=NOW, settings=Zambezi(), make_pdf=lambda _: b"%PDF",
            writer="ris",
        )  # fmt: skip
    return draft


def a_step(session, order, uid):
    at = clock.text(NOW)
    step = PerformedStep(
        sop_uid=f"{uid}.99", status="COMPLETED", study_uid=uid, order_id=order.id, station_aet="CT1", attributes={},
        created_at=at, updated_at=at,
    )  # fmt: skip
    session.add(step)
    session.flush()
    return step


def waiting(session):
    return [item.kind for item in session.scalars(select(ExceptionItem).where(ExceptionItem.decided_at.is_(None)))]


def test_an_old_systems_report_follows_its_images_and_not_another_patients(made):
    with made.begin() as session:
        ana, rui = a_patient(session, "ANA"), a_patient(session, "RUI")
        old = a_study(session, "ANA", UID)
        said = legacy.PastReport("old", "1", "Normal.", "text/plain", study_uid=UID)
        legacy.record_report(session, ana, said, now=NOW)
        new = relink(session, key(old), "ANA", "1.2.9")
        assert [one.report.source_key for one in legacy.reports_of(session, new, None)] == ["1"]
        of_rui = relink(session, key(new), "RUI", "1.2.9")
        assert legacy.reports_of(session, of_rui, None) == [], "it was written of Ana, whoever the images are"
        patients.merge(session, prior=ana, survivor=rui, now=NOW, writer="ris", who="eva")
        assert len(legacy.reports_of(session, of_rui, None)) == 1, "who turned out to be one has one's reports"


@pytest.fixture
def mixed_up(made):
    """The modality took Rui's worklist entry for Ana's exam."""
    with made.begin() as session:
        rui, ana = a_patient(session, "RUI"), a_patient(session, "ANA")
        of_rui, of_ana = an_order(session, rui, "completed", study_uid=UID), an_order(session, ana)
        study = a_study(session, "RUI", UID, of_rui)
        yield session, study, of_rui, of_ana


def test_another_patients_order_gets_the_images_and_the_first_is_to_be_done_still(mixed_up):
    session, study, of_rui, of_ana = mixed_up
    step = a_step(session, of_rui, UID)
    made = relink(session, key(study), "ANA", order=of_ana, accession=of_ana.accession_number)
    assert (made.order_id, made.patient_id, made.accession_number) == (of_ana.id, "ANA", of_ana.accession_number)
    assert (of_ana.status, of_rui.status) == ("completed", "scheduled")
    assert of_rui.study_uid != UID
    session.refresh(step)
    assert (step.order_id, step.study_uid) == (of_ana.id, UID)
    assert [one.orthanc_id for one in session.scalars(select(Study))] == [made.orthanc_id]
    assert session.scalars(select(Series)).all() == []  # the journal tells of the new ones


def test_the_report_goes_with_the_images_and_a_signed_one_is_put_before_a_person(mixed_up):
    session, study, of_rui, of_ana = mixed_up
    a_report(session, UID, of_rui)
    assert of_rui.report_status == "final"
    relink(session, key(study), "ANA", order=of_ana)
    (report,) = session.scalars(select(Report)).all()
    assert report.order_id == of_ana.id
    assert (of_rui.report_status, of_ana.report_status) == ("none", "final")
    assert waiting(session) == ["signed-report"]


def test_twice_is_once(mixed_up):
    session, study, of_rui, of_ana = mixed_up
    old = key(study)
    relink(session, old, "ANA", order=of_ana)
    uid_of_rui = of_rui.study_uid
    relink(session, old, "ANA", order=of_ana)
    assert (of_ana.status, of_rui.status, of_rui.study_uid) == ("completed", "scheduled", uid_of_rui)
    told = [json.loads(row.payload) for row in session.scalars(select(AuditEntry))]
    assert sum(entry.get("changed") == ["relinked"] for entry in told) == 1


def test_an_undo_brings_everything_back(mixed_up):
    session, study, of_rui, of_ana = mixed_up
    a_step(session, of_rui, UID)
    old = key(study)
    accession = of_rui.accession_number
    made = relink(session, old, "ANA", order=of_ana, accession=of_ana.accession_number)
    back = relink(session, key(made), "RUI", accession=accession)
    assert (key(back), back.order_id) == (old, of_rui.id)
    assert (of_rui.status, of_rui.study_uid, of_ana.status) == ("completed", UID, "scheduled")


def test_without_an_order_of_the_new_patient_the_study_has_none(mixed_up):
    session, study, of_rui, _of_ana = mixed_up
    made = relink(session, key(study), "CRISTO")
    assert made.order_id is None
    assert of_rui.status == "scheduled"


def test_an_edit_in_place_keeps_order_report_and_series(made):
    with made.begin() as session:
        order = an_order(session, a_patient(session, "P1"), "completed", study_uid=UID)
        study = a_study(session, "P1", UID, order)
        a_report(session, UID, order)
        changes = {"00081030": "TC tórax", "00100010": "Tembe^Ana", "00080050": None}
        made_row = relink(session, key(study), "P1", changes=changes)
        assert made_row is study
        assert (study.order_id, study.description, study.patient_name) == (order.id, "TC tórax", "Tembe^Ana")
        assert (order.status, order.report_status) == ("completed", "final")
        assert len(session.scalars(select(Series)).all()) == 1
        assert waiting(session) == []


def test_after_a_merge_order_and_report_stay_together(made):
    with made.begin() as session:
        prior, survivor = a_patient(session, "A"), a_patient(session, "B")
        order = an_order(session, prior, "completed", study_uid=UID)
        study = a_study(session, "A", UID, order)
        a_report(session, UID, order)
        patients.merge(session, prior=prior, survivor=survivor, now=NOW, writer="ris", who="his")
        made_row = relink(session, key(study), "B", accession=order.accession_number)
        assert made_row.order_id == order.id
        assert (order.status, order.report_status) == ("completed", "final")
        assert waiting(session) == []


def test_a_part_that_moves_leaves_report_and_exam_with_the_rest(mixed_up):
    session, study, of_rui, of_ana = mixed_up
    a_report(session, UID, of_rui)
    made = relink(session, key(study), "ANA", study_uid="1.2.77", order=of_ana, whole=False)
    assert made.order_id == of_ana.id
    assert (study.order_id, of_rui.status, of_rui.report_status) == (of_rui.id, "completed", "final")
    assert of_ana.status == "completed"


def test_two_studies_with_reports_that_become_one_wait_for_a_person(made):
    with made.begin() as session:
        patient = a_patient(session, "P1")
        one, other = (an_order(session, patient, "completed", study_uid=uid) for uid in (UID, "1.2.2"))
        study = a_study(session, "P1", UID, one)
        a_study(session, "P1", "1.2.2", other)
        for order in (one, other):
            a_report(session, order.study_uid, order)
        relink(session, key(study), "P1", study_uid="1.2.2", order=other)
        assert sorted(report.study_uid for report in session.scalars(select(Report))) == [UID, "1.2.2"]
        assert waiting(session) == ["two-reports"]


@pytest.mark.parametrize("whole", [True, False])
def test_an_order_that_lost_its_images_gets_them_back_by_nobody(made, whole):
    """The station had taken the wrong line of the worklist, and said so (MPPS 110514)."""
    with made.begin() as session:
        rui, ana = a_patient(session, "RUI"), a_patient(session, "ANA")
        of_rui = an_order(session, rui, "in-progress", study_uid=UID)
        study = a_study(session, "RUI", UID, of_rui)
        if whole:
            orders.set_status(session, of_rui, "scheduled", now=NOW, writer="gateway", reason="wrong worklist entry")
        corrected = relink(session, key(study), "ANA", whole=whole)
        facts = {"study_uid": UID, "study_orthanc_id": corrected.orthanc_id, "cause": "correction", "generation": 1}
        entry = chain.seal("orthanc-x", 1, "", "study-completed", NOW, {**facts, "instances": 2, "added": 2})
        Effects(session, Zambezi(), NOW).carry_out([entry])
        assert corrected.order_id is None
        # What stays behind (`whole`: nothing) is Rui's still.
        assert (of_rui.study_uid == UID, of_rui.status) == (not whole, "scheduled" if whole else "in-progress")
        assert identifiers.is_called(session, ana, corrected.patient_id)


def test_the_mismatch_is_settled_once_the_images_are_the_orders_patients(mixed_up):
    session, study, _, of_ana = mixed_up
    exceptions.wait(
        session, "archive", f"study {UID}", now=NOW, kind="patient-mismatch", what="another ID", suggestion="Compare.",
        study_uid=UID,
    )  # fmt: skip
    relink(session, key(study), "CRISTO")
    assert waiting(session) == ["patient-mismatch"]
    relink(session, (UID, orthanc_ids.study("CRISTO", UID)), "ANA", order=of_ana)
    assert waiting(session) == []


@pytest.fixture
def shared(made):
    """Two patients' images carry one Study Instance UID; Ana has a report and a performed step."""
    with made.begin() as session:
        ana, rui = a_patient(session, "ANA"), a_patient(session, "RUI")
        of_ana, of_rui = an_order(session, ana, "completed", study_uid=UID), an_order(session, rui, "completed")
        a_study(session, "ANA", UID, of_ana)
        a_report(session, UID, of_ana)
        step = a_step(session, of_ana, UID)
        yield session, a_study(session, "RUI", UID, of_rui), of_ana, of_rui
        (report,) = session.scalars(select(Report)).all()
        session.refresh(step)
        assert (report.order_id, step.order_id, of_ana.report_status) == (of_ana.id, of_ana.id, "final")
        assert of_rui.report_status == "none"


def test_an_edit_of_ones_images_takes_nothing_of_anothers_who_has_the_same_uid(shared):
    session, of_ruis, _, of_rui = shared
    relink(session, key(of_ruis), "RUI", accession=of_rui.accession_number, changes={"00081030": "TC"})


def test_a_reassignment_whose_deletions_are_counted_takes_nothing_of_anothers_who_has_the_same_uid(shared):
    session, of_ruis, _, _ = shared
    of_ruis.instances = 0
    relink(session, key(of_ruis), "CRISTO")


def test_the_step_of_the_orders_other_study_stays_there(made):
    with made.begin() as session:
        ana, rui = a_patient(session, "ANA"), a_patient(session, "RUI")
        order, other = an_order(session, ana, "completed", study_uid=UID), an_order(session, rui)
        study = a_study(session, "ANA", UID, order)
        a_study(session, "ANA", "1.2.2", order)
        mine, others = a_step(session, order, UID), a_step(session, order, "1.2.2")
        relink(session, key(study), "RUI", order=other)
        for step, its in ((mine, other), (others, order)):
            session.refresh(step)
            assert step.order_id == its.id


@pytest.mark.parametrize("whole", [True, False])
def test_images_that_move_into_another_study_of_the_patient_are_its_orders(made, whole):
    with made.begin() as session:
        ana = a_patient(session, "ANA")
        first, second = (an_order(session, ana, "completed", study_uid=uid) for uid in (UID, "1.2.2"))
        moved, there = a_study(session, "ANA", UID, first), a_study(session, "ANA", "1.2.2", second)
        a_report(session, "1.2.2", second)
        relink(session, key(moved), "ANA", "1.2.2", accession=second.accession_number, whole=whole)
        assert (there.order_id, second.report_status) == (second.id, "final")
        assert first.status == ("scheduled" if whole else "completed")
        if not whole:  # and back
            relink(session, key(there), "ANA", UID, accession=first.accession_number, whole=False)
            assert (moved.order_id, there.order_id) == (first.id, second.id)
