"""Corrections against a real archive: each kind, undone again, and with a death at every place."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from operations.custody import correction_commands, previewing, switching
from operations.custody.correcting import Correcting
from operations.custody.correction_work import NotYet
from operations.custody.previewing import Preview
from tests.integration.archive_fixture import image
from tests.integration.correcting import AT_ONCE, LEASE, Room, a_room, desk, holds_only_new, read
from tests.unit.patients.people import a_patient, an_order
from zambezi import clock, corrections, hold
from zambezi.corrections import CorrectionRefused
from zambezi.database.tables import (
    AuditEntry,
    Correction,
    Deletion,
    DeletionItem,
    Delivery,
    ExceptionItem,
    Held,
    LegalHold,
    Order,
    Report,
    Study,
)
from zambezi.orthanc_client import OrthancClient, OrthancRefused

#: No correction here has more places to die at; the tests say so if one has.
MOST = 90


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    with a_room(tmp_path_factory.mktemp("corrections")) as made:
        yield made


def test_an_edit_keeps_the_identity_and_the_archive_answers_with_the_new_values(room: Room):
    images = room.study(3, PatientID="E1")
    room.store(*images)
    study = room.named(images)
    request = {"study": study, "set": {"00081030": "TC do tórax", "00100010": "Macuácua^Inês"}}
    row = room.correct("edit", request)
    holds_only_new(room, images, row.id, StudyDescription="TC do tórax", PatientName="Macuácua^Inês", PatientID="E1")
    found = room.orthanc.get(f"/studies/{study['orthanc_id']}")
    assert found["MainDicomTags"]["StudyDescription"] == "TC do tórax"
    assert found["PatientMainDicomTags"]["PatientName"] == "Macuácua^Inês"
    assert "3 instances corrected" in row.outcome


def test_a_study_is_reassigned_and_undone_to_the_same_bytes(room: Room):
    images = room.study(2, PatientID="R1")
    room.store(*images)
    before = room.files(images)
    into = room.patient("R2")
    row = room.correct("reassign", {"study": room.named(images), "patients": {"into": into}})
    holds_only_new(room, images, row.id, PatientID="R2", PatientName="Macuácua^Inês", IssuerOfPatientID="HCZ")
    undo = room.correct("undo", {}, undo_of=row.id)
    assert room.files(images) == before
    again = room.correct("undo", {}, undo_of=undo.id)
    holds_only_new(room, images, again.id, PatientID="R2")


@pytest.mark.parametrize("character_set", ["ISO_IR 100", "ISO_IR 192"])
def test_a_patient_id_with_letters_of_its_own_is_found_and_changed(room: Room, character_set: str):
    images = room.study(1, SpecificCharacterSet=character_set, PatientID=f"Ção {character_set[-3:]}")
    room.store(*images)
    row = room.correct("edit", {"study": room.named(images), "set": {"00100020": f"ÇÃO {character_set[-3:]}"}})
    holds_only_new(room, images, row.id, PatientID=f"ÇÃO {character_set[-3:]}")


def test_a_merge_takes_all_studies_and_a_split_takes_one_away(room: Room):
    one, other = room.study(2, PatientID="M1"), room.study(1, PatientID="M1")
    room.store(*one, *other)
    merge = room.correct("merge", {"patients": {"from": room.patient("M1"), "into": room.patient("M2")}})
    holds_only_new(room, [*one, *other], merge.id, PatientID="M2")
    for moved in other:
        moved.PatientID = "M2"
    split = room.correct("split", {"study": room.named(other), "set": {"00100020": "M3"}})
    holds_only_new(room, other, split.id, PatientID="M3")
    assert {read(found[0]).PatientID for found in room.files(one).values()} == {"M2"}
    reasons = [
        item.ReasonForTheAttributeModification
        for item in read(next(iter(room.files(other).values()))[0]).OriginalAttributesSequence
    ]
    assert reasons == ["COERCE", "CORRECT"]


def test_images_that_move_take_what_their_new_study_says(room: Room):
    mine, yours = room.study(3, PatientID="V1"), room.study(1, PatientID="V2", AccessionNumber="A2", StudyID="7")
    ids = room.store(*mine)
    room.store(*yours)
    target = str(yours[0].StudyInstanceUID)
    part = room.correct("move", {"instances": ids[:1], "set": {"0020000D": target}})
    holds_only_new(room, mine[:1], part.id, PatientID="V2", AccessionNumber="A2", StudyID="7", StudyInstanceUID=target)
    moved = read(room.files(mine[:1])[str(mine[0].SOPInstanceUID)][0])
    assert moved.SeriesInstanceUID != mine[0].SeriesInstanceUID, "a series belongs to one study"
    series = room.orthanc.find("Series", {"SeriesInstanceUID": str(mine[0].SeriesInstanceUID)})[0]
    request = {"series": {"orthanc_id": series}, "set": {"0020000D": target}}
    whole = room.correct("move", request)
    uid = str(mine[1].SeriesInstanceUID)
    holds_only_new(room, mine[1:], whole.id, StudyInstanceUID=target, SeriesInstanceUID=uid, PatientID="V2")


def test_what_is_held_takes_the_place_of_what_is_archived(room: Room):
    images = room.study(1, PatientID="H1")
    orthanc_id = room.store(*images)[0]
    newcomer = image(images[0].StudyInstanceUID, PatientID="H1", StudyDescription="outra")
    newcomer.SOPInstanceUID = newcomer.file_meta.MediaStorageSOPInstanceUID = images[0].SOPInstanceUID
    out = io.BytesIO()
    newcomer.save_as(out, enforce_file_format=True)
    sha256 = hold.put(room.archive.environment.hold_dir, out.getvalue())
    at = clock.text(clock.now())
    with room.sessions.begin() as session:
        held = Held(
            sha256=sha256, why="conflict", reason="r", reference="j/1", sop_uid=str(newcomer.SOPInstanceUID),
            study_uid=str(newcomer.StudyInstanceUID), orthanc_id=orthanc_id, held_at=at, next_at=at,
        )  # fmt: skip
        session.add(held)
    row = room.correct("replace", {"replace": held.id})
    assert room.files(images) == {str(images[0].SOPInstanceUID): [out.getvalue()]}
    room.correct("undo", {}, undo_of=row.id)
    assert read(room.files(images)[str(images[0].SOPInstanceUID)][0]).StudyDescription == "TC"


def test_what_stands_in_the_way_parks_the_correction_and_changes_nothing(room: Room):
    mine, yours = room.study(1, PatientID="C1"), room.study(1, PatientID="C2")
    yours[0].StudyInstanceUID, yours[0].SeriesInstanceUID = mine[0].StudyInstanceUID, mine[0].SeriesInstanceUID
    yours[0].SOPInstanceUID = yours[0].file_meta.MediaStorageSOPInstanceUID = mine[0].SOPInstanceUID
    room.store(*mine)
    room.store(*yours)
    before = room.files(mine)
    assert [len(found) for found in before.values()] == [2]
    asked = room.ask("reassign", {"study": room.named(mine), "set": {"00100020": "C2"}})
    row = room.carry_out(asked, "parked")
    assert "in the archive already" in row.outcome
    assert room.files(mine) == before
    with room.sessions.begin() as session:
        item = session.scalars(select(ExceptionItem).where(ExceptionItem.reference == str(asked))).one()
        assert (item.room, item.kind, item.decided_at) == ("correction", "parked", None)
        corrections.cancel(session, asked, "ana", clock.now(), "ris")
        assert item.decision == "cancelled"


def test_what_has_the_values_already_is_left_alone(room: Room):
    images = room.study(1, PatientID="N1")
    room.store(*images)
    before = room.files(images)
    row = room.correct("edit", {"study": room.named(images), "set": {"00081030": "TC"}})
    assert row.outcome.startswith("nothing to change")
    assert room.files(images) == before


def test_an_order_gets_images_that_carry_its_numbers_already(room: Room):
    images = room.study(1, PatientID="N2")
    room.store(*images)
    study = room.named(images)
    with room.sessions.begin() as session:
        order = an_order(session, a_patient(session, "N2"), "completed")
    asked = {"study": study, "order": order.id}
    room.correct("reassign", asked)
    with room.sessions.begin() as session:
        row = session.scalars(select(Study).where(Study.study_uid == study["study_uid"])).one()
        assert row.order_id == order.id
        row.order_id = None
    assert room.correct("reassign", asked).outcome.startswith("nothing to change")
    with room.sessions.begin() as session:
        row = session.scalars(select(Study).where(Study.study_uid == study["study_uid"])).one()
        assert row.order_id == order.id


def test_what_was_corrected_again_is_not_undone(room: Room):
    images = room.study(1, PatientID="U1")
    room.store(*images)
    study = room.named(images)
    first = room.correct("edit", {"study": study, "set": {"00081030": "eins"}})
    undo = room.ask("undo", {}, undo_of=first.id)
    with room.sessions.begin() as session:
        corrections.cancel(session, undo, "ana", clock.now(), "ris")
    room.correct("edit", {"study": study, "set": {"00081030": "zwei"}})
    with room.sessions.begin() as session:
        assert "changed the same instances later" in corrections.why_not_undone(session, first.id)


def test_of_two_corrections_of_the_same_images_one_comes_after_the_other(room: Room):
    images = room.study(2, PatientID="T1")
    room.store(*images)
    study = room.named(images)
    first = room.ask("edit", {"study": study, "set": {"00081030": "eins"}})
    second = room.ask("edit", {"study": study, "set": {"00200010": "zwei"}})
    room.run(rounds=1, crash_at=8)  # dies with the instances in its hands
    assert room.row(first).state == "preparing"
    step = Correcting(desk(room.archive.environment), lease=LEASE, settle=AT_ONCE)
    with room.sessions.begin() as session:
        session.get_one(Correction, first).lease_until = clock.text(clock.now() + timedelta(seconds=3))
    step.round()
    assert room.row(second).state == "retrying"
    assert f"correction {first} is changing the same instances" in room.row(second).outcome
    room.carry_out(first)
    room.carry_out(second)
    holds_only_new(room, images, second, StudyDescription="eins", StudyID="zwei")


def test_receivers_of_the_old_copy_are_sent_the_corrected_one(room: Room):
    images = room.study(2, PatientID="D1")
    ids = room.store(*images)
    uid, at = str(images[0].StudyInstanceUID), clock.text(clock.now())
    told = [[one, str(made.SeriesInstanceUID), str(made.SOPInstanceUID)] for one, made in zip(ids, images, strict=True)]
    common = {"kind": "dicom", "rule": "r", "because": "b", "study_uid": uid, "next_at": at, "created_at": at}
    with room.sessions.begin() as session:
        for number, (destination, state, which) in enumerate(
            (("PACS2", "delivered", told), ("WS1", "due", told[:1]), ("WS2", "retrying", told))
        ):
            session.add(
                Delivery(
                    id=f"d{number}", destination=destination, state=state, instances=which, updated_at=at, **common
                )
            )  # fmt: skip
    row = room.correct("reassign", {"study": room.named(images), "set": {"00100020": "D2"}})
    with room.sessions.begin() as session:
        made = session.scalars(select(Delivery).where(Delivery.rule == f"correction {row.id}")).all()
        items = {item.sop_uid: item for item in corrections.items_of(session, row.id)}
        old = {one.id: one for one in session.scalars(select(Delivery).where(Delivery.id.in_(("d0", "d1", "d2"))))}
    assert {one.destination: len(one.instances) for one in made} == {"PACS2": 2, "WS1": 1, "WS2": 2}
    assert all(one.state == "due" for one in made)
    sent = [instance for one in made for instance in one.instances]
    assert all(items[sop].new_orthanc_id == orthanc_id for orthanc_id, _, sop in sent)
    assert {one.id: one.state for one in old.values()} == {"d0": "delivered", "d1": "cancelled", "d2": "cancelled"}
    assert "PACS2 has the old copy of 2 instances" in row.outcome
    assert "WS1" not in row.outcome


def test_its_entries_name_digests_and_no_patient(room: Room):
    images = room.study(1, PatientID="X1", PatientName="Segredo^Ana")
    room.store(*images)
    row = room.correct("edit", {"study": room.named(images), "set": {"00100010": "Segredo^Maria"}})
    with room.sessions.begin() as session:
        payloads = [
            one.payload.decode()
            for one in session.scalars(select(AuditEntry).where(AuditEntry.event.in_(("correction-changed", "held"))))
        ]
        item = corrections.items_of(session, row.id)[0]
    assert any(item.old_sha256 in one and item.new_sha256 in one and '"switching"' in one for one in payloads)
    assert not any("Segredo" in one for one in payloads)


def seen(room: Room, kind: str, request: dict[str, Any], **how: Any) -> Preview:
    where = room.archive.environment.hold_dir
    return previewing.preview(room.sessions, room.orthanc, where, kind, request, now=clock.now(), **how)


def test_a_preview_shows_every_change_and_whom_it_concerns_and_changes_nothing(room: Room):
    images = room.study(3, PatientID="W1", Modality="CT")
    ids = room.store(*images)
    before, uid, at = room.files(images), str(images[0].StudyInstanceUID), clock.text(clock.now())
    into, study = room.patient("W2"), room.named(images)
    with room.sessions.begin() as session:
        order = Order(
            patient_key=into, accession_number="W77", study_uid="1.2.77", procedure_id="1", step_id="1", modality="MR",
            scheduled_at=at, created_at=at, updated_at=at,
        )  # fmt: skip
        session.add_all(
            [
                order,
                Study(**study, cause="modality", modalities="CT", first_at=at, last_at=at),
                Report(study_uid=uid, author="r", created_at=at, updated_at=at),
                LegalHold(patient_id="W1", reason="r", set_by="ana", set_at=at),
                Delivery(
                    id="w", kind="dicom", rule="r", destination="PACS2", because="b", study_uid=uid, state="delivered",
                    instances=[[ids[0], "", str(images[0].SOPInstanceUID)]], next_at=at, created_at=at, updated_at=at,
                ),
            ]
        )  # fmt: skip
    found = seen(room, "reassign", {"study": study, "order": order.id})
    told = {one.name: (one.level, one.tag, one.old, one.new, one.instances) for one in found.changes}
    assert told["PatientID"] == ("patient", "00100020", "W1", "W2", 3)
    assert told["AccessionNumber"] == ("study", "00080050", "A1", "W77", 3)
    assert told["PatientName"][3] == "Macuácua^Inês"
    assert "StudyDescription" not in told
    assert [(one.patient_id, one.new_patient_id, one.series, one.instances) for one in found.studies] == [
        ("W1", "W2", 1, 3)
    ]
    assert (found.order, found.instances, found.looked_at, found.is_possible) == ("W77", 3, 3, True)
    assert [str(one) for one in found.receivers] == ["PACS2 (1)"]
    assert [(one.version, one.state) for one in found.reports] == [(1, "draft")]
    words = " ".join(found.warnings)
    assert "order W77 is for MR, the images are CT" in words
    assert "may still be receiving images" in words
    assert "legal hold" in words
    json.dumps(found.as_json)
    assert room.files(images) == before


def test_a_preview_says_what_will_not_be_possible(room: Room):
    mine, yours = room.study(1, PatientID="K1"), room.study(1, PatientID="K2")
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(yours[0], keyword, mine[0][keyword].value)
    yours[0].file_meta.MediaStorageSOPInstanceUID = mine[0].SOPInstanceUID
    room.store(*mine)
    room.store(*yours)
    found = seen(room, "reassign", {"study": room.named(mine), "set": {"00100020": "K2"}})
    assert not found.is_possible
    assert "in the archive already" in found.warnings[0]
    cyrillic = {"study": room.named(mine), "set": {"00100010": "Иванова"}}
    assert seen(room, "edit", cyrillic).is_possible, "the file's other texts are plain ASCII"
    with pytest.raises(CorrectionRefused, match="can't be corrected"):
        seen(room, "edit", {"study": room.named(mine), "set": {"00080018": "1.2"}})


def test_a_page_looks_at_some_of_many_instances(room: Room):
    images = room.study(7, PatientID="Q1")
    room.store(*images)
    request = {"study": room.named(images), "set": {"00081030": "anders"}}
    some, every = seen(room, "edit", request, at_most=3), seen(room, "edit", request, at_most=None)
    assert (some.instances, some.looked_at, every.looked_at) == (7, 3, 7)
    assert any("3 of 7 instances were looked at" in one for one in some.warnings)
    assert every.changes[0].instances == 7


def test_the_console_shows_asks_and_takes_back(room: Room, monkeypatch: pytest.MonkeyPatch):
    for name, value in room.archive.variables.items():
        monkeypatch.setenv(name, value)
    images = room.study(2, PatientID="L1")
    room.store(*images)
    before = room.files(images)

    def run(*words: str) -> str:
        done = CliRunner().invoke(correction_commands.correct, words)
        assert done.exit_code == 0, done.output
        return done.output

    what = ("edit", "--study", str(images[0].StudyInstanceUID), "--set", "StudyDescription=Tórax")
    shown = run(*what)
    assert "StudyDescription: 'TC' -> 'Tórax' (2)" in shown
    assert "Nothing was changed." in shown
    refused = CliRunner().invoke(correction_commands.correct, [*what, "--yes"])
    assert (refused.exit_code, refused.output.strip()) == (
        1, "Error: say why: the reason stands in the audit trail"
    )  # fmt: skip
    asked = json.loads(run(*what, "--yes", "--reason", "wrong text", "--json"))
    assert asked["asked_by"].startswith("console:")
    room.carry_out(asked["id"])
    assert "2 instances corrected" in run("show", str(asked["id"]))
    assert f"{asked['id']}  " in run("list", "--state", "done")
    assert "-> 'TC' (2)" in run("undo", str(asked["id"]))
    undo = json.loads(run("undo", str(asked["id"]), "--yes", "--reason", "it was right", "--json"))
    assert room.files(images) != before
    room.carry_out(undo["id"])
    assert room.files(images) == before
    wrong = CliRunner().invoke(correction_commands.correct, ["edit", "--study", "1.2", "--set", "PatientID=X"])
    assert "Error: study 1.2 is not in the archive" in wrong.output


class Full(OrthancClient):
    """An archive whose disk is full, as long as it is said to be."""

    is_full = True

    def store(self, dicom: bytes) -> dict[str, Any]:
        if self.is_full:
            raise OrthancRefused("POST", "/instances", 507, "no room")
        return super().store(dicom)


def test_a_correction_that_was_begun_is_never_given_up_and_a_person_is_told(room: Room):
    images = room.study(1, PatientID="F1")
    room.store(*images)
    asked = room.ask("edit", {"study": room.named(images), "set": {"00081030": "anders"}})
    full = Full(room.archive.environment, room.archive.keys, "custody")
    later = timedelta()
    made = replace(desk(room.archive.environment, full), now=lambda: clock.now() + later)
    step = Correcting(made, lease=LEASE, settle=AT_ONCE)
    for _ in range(9):
        assert step.round()
        assert room.row(asked).state == "switching"
        later += timedelta(minutes=11)
    with room.sessions.begin() as session:
        item = session.scalars(select(ExceptionItem).where(ExceptionItem.reference == str(asked))).one()
        assert (item.kind, item.decided_at) == ("stuck", None)
        assert "507" in item.what
        with pytest.raises(CorrectionRefused, match="switching"):
            corrections.cancel(session, asked, "ana", clock.now(), "ris")
    full.is_full = False
    assert step.round()
    later += timedelta(seconds=1)
    assert step.round()
    holds_only_new(room, images, asked, StudyDescription="anders")
    with room.sessions.begin() as session:
        assert session.get_one(ExceptionItem, item.id).decision == "done"


def test_what_came_in_between_goes_to_the_hold_for_a_person(room: Room, monkeypatch: pytest.MonkeyPatch):
    images = room.study(1, PatientID="S1")
    orthanc_id = room.store(*images)[0]
    asked = room.ask("edit", {"study": room.named(images), "set": {"00081030": "anders"}})
    step = Correcting(desk(room.archive.environment), lease=LEASE, settle=AT_ONCE)
    with monkeypatch.context() as patch:
        patch.setattr(switching, "switch", Mock(side_effect=NotYet("not now", counts=False)))
        step.round()
    assert room.row(asked).state == "switching"
    room.orthanc.request("DELETE", f"/instances/{orthanc_id}")
    images[0].StudyDescription = "fremd"
    room.store(*images)
    stranger = hashlib.sha256(room.orthanc.file(orthanc_id)).hexdigest()
    room.carry_out(asked)
    holds_only_new(room, images, asked, StudyDescription="anders")
    with room.sessions.begin() as session:
        held = session.scalars(select(Held).where(Held.sha256 == stranger)).one()
        assert (held.why, held.state, held.reference) == ("conflict", "waiting", f"correction {asked}")
    assert read(hold.get(room.archive.environment.hold_dir, stranger)).StudyDescription == "fremd"


def test_what_is_just_being_deleted_is_waited_for(room: Room):
    images = room.study(1, PatientID="G1")
    orthanc_id = room.store(*images)[0]
    study, at = room.named(images), clock.text(clock.now())
    with room.sessions.begin() as session:
        deletion = Deletion(
            study_uid=study["study_uid"], study_orthanc_id=study["orthanc_id"], code="other", reason="r",
            state="deleting", asked_by="ana", asked_at=at, updated_at=at, next_at=at,
        )  # fmt: skip
        session.add(deletion)
        session.flush()
        session.add(
            DeletionItem(
                deletion_id=deletion.id, orthanc_id=orthanc_id, sop_uid=str(images[0].SOPInstanceUID), series_uid="1"
            )
        )  # fmt: skip
    asked = room.ask("edit", {"study": study, "set": {"00081030": "anders"}})
    row = room.carry_out(asked, "retrying")
    assert f"deletion {deletion.id}" in row.outcome
    with room.sessions.begin() as session:
        session.get_one(Deletion, deletion.id).state = "withdrawn"
    room.carry_out(asked)
    holds_only_new(room, images, asked, StudyDescription="anders")


@pytest.mark.parametrize(("kind", "changes"), [("reassign", {"00100020": "Z2"}), ("edit", {"00081030": "anders"})])
def test_a_death_at_any_place_ends_in_all_old_or_all_new(room: Room, kind: str, changes: dict[str, str]):
    deaths = 0
    for n in range(1, MOST):
        images = room.study(2, PatientID=f"Z{kind}{n}")
        room.store(*images)
        before = room.files(images)
        asked = room.ask(kind, {"study": room.named(images), "set": changes})
        died = room.run(crash_at=n)
        if room.row(asked).state in ("due", "preparing", "retrying"):
            assert room.files(images) == before, f"changed before the point of no return (place {n})"
        found = room.files(images)
        for uid, files in before.items():
            in_hold = hold.path(room.archive.environment.hold_dir, hashlib.sha256(files[0]).hexdigest())
            assert files == found[uid] or in_hold.read_bytes() == files[0], f"{uid} is lost at place {n}"
        room.lease_is_over(asked)
        assert room.run() == 0
        assert room.row(asked).state == "done", f"place {n}: {room.row(asked).outcome}"
        tags = {"PatientID": "Z2"} if kind == "reassign" else {"StudyDescription": "anders"}
        holds_only_new(room, images, asked, **tags)
        assert all(len(read(files[0]).OriginalAttributesSequence) == 1 for files in room.files(images).values())
        if died == 0:
            break
        assert died == 137
        deaths += 1
    else:
        pytest.fail(f"there are more than {MOST} places to die at: raise MOST")
    assert deaths > 25


def test_an_undo_that_dies_anywhere_gives_the_same_bytes_back(room: Room):
    for n in range(1, MOST):
        images = room.study(1, PatientID=f"Y{n}")
        room.store(*images)
        before = room.files(images)
        row = room.correct("reassign", {"study": room.named(images), "set": {"00100020": "Y"}})
        undo = room.ask("undo", {}, undo_of=row.id)
        died = room.run(crash_at=n)
        room.lease_is_over(undo)
        assert room.run() == 0
        assert room.row(undo).state == "done"
        assert room.files(images) == before
        if died == 0:
            assert n > 15
            return
    pytest.fail(f"there are more than {MOST} places to die at: raise MOST")


@pytest.mark.parametrize(("kind", "changes"), [("reassign", {"00100020": "B2"}), ("edit", {"00081030": "anders"})])
def test_a_power_cut_right_after_the_last_change_takes_nothing_back(room: Room, kind: str, changes: dict[str, str]):
    images = room.study(2, PatientID=f"B{kind}")
    room.store(*images)
    time.sleep(12)  # what is there is on disk, index and all
    asked = room.ask(kind, {"study": room.named(images), "set": changes})
    step = Correcting(desk(room.archive.environment), lease=LEASE, settle=timedelta(seconds=3))
    assert step.round()
    with room.sessions.begin() as session:
        assert {item.state for item in corrections.items_of(session, asked)} == {"done"}
    assert room.row(asked).state == "switching"
    room.archive.cut_power()
    room.archive.start()
    room.carry_out(asked)
    tags = {"PatientID": "B2"} if kind == "reassign" else {"StudyDescription": "anders"}
    holds_only_new(room, images, asked, **tags)


@pytest.mark.parametrize(("kind", "changes"), [("reassign", {"00100020": "O2"}), ("edit", {"00081030": "anders"})])
def test_orthanc_may_die_at_every_request_too(room: Room, kind: str, changes: dict[str, str]):
    killed = 0
    for n, after in ((n, after) for n in range(1, 9) for after in (False, True)):
        images = room.study(1, PatientID=f"O{kind}{n}{after}")
        room.store(*images)
        asked = room.ask(kind, {"study": room.named(images), "set": changes})
        process = room.archive.process
        assert process is not None
        room.run(rounds=2, deadly=(process.pid, n, after))
        time.sleep(0.2)
        if process.poll() is None:
            break
        killed += 1
        room.archive.start()
        with room.sessions.begin() as session:  # its wait is over
            row = session.get_one(Correction, asked)
            row.next_at = clock.text(clock.now())
            row.lease_until = row.next_at if row.lease_until else None
        room.carry_out(asked)
        tags = {"PatientID": "O2"} if kind == "reassign" else {"StudyDescription": "anders"}
        holds_only_new(room, images, asked, **tags)
    assert killed >= 5
