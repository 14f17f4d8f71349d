"""Studies that are deleted and stored again, as a correction and its undo do: what the journal's entries add up to."""

from sqlalchemy import select

from gateway.journal import Effects
from tests.unit.patients.people import NOW, a_study
from zambezi import chain, orthanc_ids
from zambezi.config.settings import Zambezi
from zambezi.database.tables import Series, Study

UID = "1.2.1"


def told(session, *events):
    """Carry out entries, each (event, patient ID, images), in one batch."""
    entries, last = [], chain.Sealed("orthanc-x", 0, "", b"")
    for event, patient_id, many in events:
        study = {"study_uid": UID, "study_orthanc_id": orthanc_ids.study(patient_id, UID)}
        one = {
            **study, "cause": "correction", "series_uid": f"{UID}.1", "modality": "CT",
            "series_orthanc_id": orthanc_ids.series(patient_id, UID, f"{UID}.1"),
        }  # fmt: skip
        gone = {**study, "instances": [["o", f"{UID}.1", f"{UID}.1.{n}"] for n in range(many)]}
        for facts in [gone] if event == "deleted" else [one] * many:
            last = chain.seal("orthanc-x", last.seq + 1, last.hash, event, NOW, facts)
            entries.append(last)
    Effects(session, Zambezi(), NOW).carry_out(entries)


def counts(session):
    session.expire_all()
    studies = {study.patient_id: study.instances for study in session.scalars(select(Study).order_by(Study.patient_id))}
    series = {one.orthanc_id: one.instances for one in session.scalars(select(Series))}
    return studies, [series.get(orthanc_ids.series(name, UID, f"{UID}.1")) for name in studies]


def test_the_same_series_uid_under_another_patient_keeps_its_count(made):
    with made.begin() as session:
        a_study(session, "A", UID, instances=3)
        a_study(session, "B", UID, instances=2)
        told(session, ("deleted", "A", 3))
        assert counts(session) == ({"A": 0, "B": 2}, [0, 2])


def test_a_deletion_that_is_read_after_the_study_came_back_is_counted_before_it(made):
    with made.begin() as session:
        a_study(session, "A", UID, instances=0)  # made anew by the undo, before the journal was read
        told(session, ("deleted", "A", 3), ("stored", "A", 3))
        assert counts(session) == ({"A": 3}, [3])


def test_what_is_no_study_any_more_takes_nothing_from_the_one_in_its_place(made):
    with made.begin() as session:
        a_study(session, "B", UID, instances=3)
        told(session, ("deleted", "A", 3))
        assert counts(session) == ({"B": 3}, [3])
