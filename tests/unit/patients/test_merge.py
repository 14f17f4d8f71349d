import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from tests.unit.patients.people import NOW, a_patient, a_study, an_order
from zambezi import audit, clock, identifiers, orders, patients
from zambezi.database import generations
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import AuditEntry, Base, Correction, CorrectionItem, ExceptionItem, Order, Patient
from zambezi.patients import MergeRefused


def merge(session, prior, survivor):
    return patients.merge(session, prior=prior, survivor=survivor, now=NOW, writer="ris", who="his", reason="A40")


def unmerge(session, prior):
    return patients.unmerge(session, prior=prior, now=NOW, writer="ris", who="nelson", reason="two people after all")


def carried_out(session, correction) -> Correction:
    """As the worker leaves it: done, with what became of each instance."""
    correction.state, correction.done_at = "done", clock.text(NOW)
    for study in correction.request["patients"]["studies"]:
        uid = study["study_uid"]
        session.add(
            CorrectionItem(
                correction_id=correction.id, old_orthanc_id=f"old-{uid}", sop_uid=f"{uid}.1.1", old_study_uid=uid,
                old_series_uid=f"{uid}.1", new_study_uid=uid, new_series_uid=f"{uid}.1", new_orthanc_id=f"new-{uid}",
                new_sha256="0", state="done",
            )
        )  # fmt: skip
    session.flush()
    return correction


def corrections_of(session) -> list[Correction]:
    return list(session.scalars(select(Correction).order_by(Correction.id)))


def test_orders_go_to_the_survivor_and_one_correction_is_asked_for_the_images(made):
    with made.begin() as session:
        prior, survivor = a_patient(session, "T12"), a_patient(session, "P7", family_name="Tembe", sex="M")
        ours, theirs = an_order(session, prior, "completed"), an_order(session, survivor)
        a_study(session, "T12", "1.2.1", ours)
        a_study(session, "T12", "1.2.2")
        a_study(session, "P7", "1.2.3", theirs)
        worklist = generations.current(session, "worklist")
        outcome = merge(session, prior, survivor)
        assert (outcome.is_new, outcome.orders, outcome.studies) == (True, (ours.id,), ("1.2.1", "1.2.2"))
        assert ours.patient is survivor
        assert identifiers.survivor_of(session, prior) is survivor
        assert generations.current(session, "worklist") > worklist
        (asked,) = corrections_of(session)
        assert (asked.id, asked.kind, asked.state, asked.asked_by) == (outcome.correction, "merge", "due", "his")
        patients_said = asked.request["patients"]
        assert (patients_said["from"], patients_said["into"]) == (prior.id, survivor.id)
        assert [one["study_uid"] for one in patients_said["studies"]] == ["1.2.1", "1.2.2"]
        assert (asked.request["set"]["00100020"], asked.request["set"]["00100010"]) == ("P7", "Tembe^Ana")


def test_twice_is_once(made):
    with made.begin() as session:
        prior, survivor = a_patient(session, "A"), a_patient(session, "B")
        a_study(session, "A", "1.2.1")
        merge(session, prior, survivor)
        again = merge(session, prior, survivor)
        assert (again.is_new, again.correction) == (False, None)
        assert len(corrections_of(session)) == 1


def test_without_images_the_merge_is_on_record_all_the_same(made):
    with made.begin() as session:
        merge(session, a_patient(session, "A"), a_patient(session, "B"))
        (asked,) = corrections_of(session)
        assert (asked.state, asked.outcome) == ("done", "no image carries the identifier")


def test_a_patient_is_not_merged_with_itself_nor_back_nor_into_a_second(made):
    with made.begin() as session:
        a, b, c = (a_patient(session, name) for name in "ABC")
        with pytest.raises(MergeRefused, match="itself") as itself:
            merge(session, a, a)
        merge(session, a, b)
        with pytest.raises(MergeRefused, match="A was merged into B before") as reverse:
            merge(session, b, a)
        with pytest.raises(MergeRefused, match="A was merged into B before; undo") as second:
            merge(session, a, c)
        assert [error.value.code for error in (itself, reverse, second)] == ["205", "205", "204"]
        assert c.merged_into is None


def test_a_chain_leads_to_its_end(made):
    with made.begin() as session:
        a, b, c, d = (a_patient(session, name) for name in "ABCD")
        order = an_order(session, a)
        merge(session, a, b)
        merge(session, b, c)
        assert order.patient is c
        assert merge(session, a, c).is_new is False
        assert merge(session, d, a).survivor == c.id
        assert {patient.patient_id for patient in identifiers.former(session)[c.id]} == {"A", "B", "D"}


def test_images_whose_number_several_issuers_gave_out_wait_for_a_person(made):
    with made.begin() as session:
        prior, namesake, survivor = (
            a_patient(session, "7", "HIS"),
            a_patient(session, "7", "LAB"),
            a_patient(session, "8"),
        )
        a_study(session, "7", "1.2.1", an_order(session, prior, "completed"))
        a_study(session, "7", "1.2.2", an_order(session, namesake, "completed"))
        a_study(session, "7", "1.2.3")
        assert merge(session, prior, survivor).studies == ("1.2.1",)
        (waiting,) = session.scalars(select(ExceptionItem)).all()
        assert (waiting.room, waiting.kind) == ("correction", "unclear-patient")
        assert waiting.what.startswith("1 studies")


def test_another_issuer_is_said_on_the_images(made):
    with made.begin() as session:
        prior, survivor = a_patient(session, "7", "OLD"), a_patient(session, "7", "HIS")
        a_study(session, "7", "1.2.1", an_order(session, prior, "completed"))
        merge(session, prior, survivor)
        assert corrections_of(session)[0].request["set"]["00100021"] == "HIS"


def test_registering_a_merged_identifier_gives_the_survivor_and_leaves_its_name(made):
    with made.begin() as session:
        survivor = a_patient(session, "P7", family_name="Tembe")
        merge(session, a_patient(session, "T12", family_name="DESCONHECIDO"), survivor)
        again = a_patient(session, "T12", family_name="DESCONHECIDO")
        assert again is survivor
        assert survivor.family_name == "Tembe"
        assert orders.find_patient(session, "T12", "HIS") is survivor


def test_no_name_is_in_the_audit_trail(made):
    with made.begin() as session:
        prior, survivor = a_patient(session, "A"), a_patient(session, "B")
        an_order(session, prior)
        merge(session, prior, survivor)
        unmerge(session, prior)
        entries = [json.loads(row.payload) for row in session.scalars(select(AuditEntry).order_by(AuditEntry.seq))]
        changes = [entry["changed"] for entry in entries if entry["event"] == "patient-changed"]
        assert changes[-2:] == [["merged"], ["merge undone"]]
        assert all("Fam" not in json.dumps(entry) for entry in entries)
        assert audit.verify(session) == []


def test_a_merge_is_taken_back_with_its_orders_and_its_images(made):
    with made.begin() as session:
        prior, survivor = a_patient(session, "A"), a_patient(session, "B")
        moved, stays = an_order(session, prior, "completed"), an_order(session, survivor)
        a_study(session, "A", "1.2.1", moved)
        merge(session, prior, survivor)
        done = carried_out(session, corrections_of(session)[0])
        later = an_order(session, a_patient(session, "A"))
        outcome = unmerge(session, prior)
        assert outcome.orders == (moved.id,)
        assert (moved.patient, stays.patient, later.patient) == (prior, survivor, survivor)
        undo = corrections_of(session)[1]
        assert (undo.kind, undo.undo_of, undo.asked_by) == ("undo", done.id, "nelson")
        assert merge(session, prior, survivor).is_new


def test_a_merge_whose_images_were_not_begun_is_called_off(made):
    with made.begin() as session:
        prior, survivor = a_patient(session, "A"), a_patient(session, "B")
        a_study(session, "A", "1.2.1")
        merge(session, prior, survivor)
        assert unmerge(session, prior).correction is None
        (called_off,) = corrections_of(session)
        session.refresh(called_off)
        assert called_off.state == "cancelled"


def test_a_merge_whose_images_are_just_being_changed_is_not_undone(made):
    with made.begin() as session:
        prior, survivor = a_patient(session, "A"), a_patient(session, "B")
        a_study(session, "A", "1.2.1")
        merge(session, prior, survivor)
        corrections_of(session)[0].state = "switching"
        with pytest.raises(MergeRefused, match="it is switching"):
            unmerge(session, prior)


def test_images_that_come_late_under_the_old_identifier_are_corrected_once_and_parted_again(made):
    with made.begin() as session:
        prior, survivor = a_patient(session, "A"), a_patient(session, "B")
        merge(session, prior, survivor)
        late = a_study(session, "A", "1.2.9")
        number = patients.follow_merge(session, late, now=NOW, writer="gateway")
        assert patients.follow_merge(session, late, now=NOW, writer="gateway") is None
        asked = session.get_one(Correction, number)
        assert (asked.kind, asked.request["set"]["00100020"]) == ("reassign", "B")
        assert patients.follow_merge(session, a_study(session, "B", "1.2.8"), now=NOW, writer="gateway") is None
        unmerge(session, prior)
        session.refresh(asked)
        assert asked.state == "cancelled"


def test_what_was_merged_last_is_undone_first(made):
    with made.begin() as session:
        a, b, c = (a_patient(session, name) for name in "ABC")
        merge(session, a, b)
        merge(session, b, c)
        with pytest.raises(MergeRefused, match="undo that merge first"):
            unmerge(session, a)
        with pytest.raises(MergeRefused, match="not merged"):
            unmerge(session, c)
        unmerge(session, b)
        unmerge(session, a)
        assert identifiers.former(session) == {}


def test_a_new_identifier_takes_over_and_the_old_one_still_leads_there(made):
    with made.begin() as session:
        old = a_patient(session, "P1", family_name="Tembe")
        order = an_order(session, old)
        change = {"patient_id": "P2", "issuer": "HIS", "now": NOW, "writer": "ris", "who": "his"}
        assert patients.change_identifier(session, old=old, **change).is_new
        assert (order.patient.patient_id, order.patient.family_name) == ("P2", "Tembe")
        assert patients.change_identifier(session, old=old, **change).is_new is False
        a_patient(session, "P3")
        with pytest.raises(MergeRefused, match="another patient's"):
            patients.change_identifier(session, old=order.patient, **(change | {"patient_id": "P3"}))


steps = st.lists(st.tuples(st.sampled_from(["merge", "undo"]), st.integers(0, 4), st.integers(0, 4)), max_size=14)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_whatever_is_merged_and_undone_every_order_is_with_a_survivor_and_comes_home(tmp_path_factory, steps):
    engine = connect(f"sqlite:///{tmp_path_factory.mktemp('merge')}/z.db", "ris")
    Base.metadata.create_all(engine)
    with sessions(engine, "ris").begin() as session:
        people = [a_patient(session, f"P{n}") for n in range(5)]
        home = {an_order(session, person).id: person.id for person in people}
        for what, one, other in steps:
            with suppress(MergeRefused):
                if what == "merge":
                    merge(session, people[one], people[other])
                else:
                    unmerge(session, people[one])
            for order in session.scalars(select(Order)):
                owner = session.get_one(Patient, order.patient_key)
                assert owner.merged_into is None
                assert identifiers.survivor_of(session, session.get_one(Patient, home[order.id])) is owner
        while any(person.merged_into for person in people):
            for person in people:
                with suppress(MergeRefused):
                    unmerge(session, person)
        assert {order.id: order.patient_key for order in session.scalars(select(Order))} == home
    engine.dispose()
