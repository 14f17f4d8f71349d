"""Levels of proof, the certificate and the roll-back, with a real Orthanc, our plugin and custody."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from playwright.sync_api import Page, expect
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import delete, select

from migration import extras, inventory, proof, rechecking, rollback, verifier
from migration.commands import migrate
from migration.desk import Desk
from migration.extras import Extra
from migration.source import Checked, Given, Request
from ris_service.app import create_app
from tests.integration.archive_fixture import image, written
from tests.integration.proof_room import Files, Room, room, running, study_of
from tests.integration.test_ris_browser import page, shot
from tests.served import served as pages_served
from zambezi import clock, deletions
from zambezi.access.tokens import COOKIE, begin, sign
from zambezi.config.settings import Zambezi
from zambezi.database.tables import (
    AuditEntry,
    Deletion,
    MigrationInstance,
    MigrationProject,
    MigrationStudy,
    User,
)
from zambezi.leases import Keeper

__all__ = ["page", "room", "running"]


def test_arrival_is_proven_by_what_the_hook_saw_and_the_disk_gives_back(room: Room) -> None:
    images = study_of(3)
    project = room.project(*images, Level="arrival")
    room.run(project)
    study = room.study(project)
    assert (study.state, study.level, study.stored) == ("verified", 2, 3)
    assert room.sources[project.name].asked == []  # nothing came a second time
    for one in images:
        row, content = room.instances(project)[one.SOPInstanceUID], written(one)
        assert row.arrived_sha256 == hashlib.sha256(content).hexdigest()
        assert (row.level, row.size, row.stored_syntax) == (2, len(content), "1.2.840.10008.1.2.1")
    assert study.size == sum(row.size or 0 for row in room.instances(project).values())


def test_what_the_disk_gives_back_otherwise_is_found_though_orthanc_vouches_for_it(room: Room) -> None:
    class Damaging(Files):
        def bring(self, desk: Desk, request: Request, keeper: Keeper) -> dict[str, Given]:
            given = super().bring(desk, request, keeper)
            self.file().write_bytes(b"!" * len(content))
            return given

        def file(self) -> Path:
            (orthanc_id,) = room.client.find("Instance", {"SOPInstanceUID": uid})
            return room.on_disk(orthanc_id)

    images = study_of(2)
    project = room.project(*images, Level="arrival")
    uid, (_, content) = next(iter(room.sources[project.name].files.items()))
    room.sources[project.name] = damaging = Damaging(room.client, *images)
    room.run(project)
    study = room.study(project)
    assert (study.state, study.level) == ("divergent", 1)
    assert study.reason.endswith("the file on the disk is not what arrived")
    (orthanc_id,) = room.client.find("Instance", {"SOPInstanceUID": uid})
    assert room.client.file(orthanc_id) == content  # Orthanc answers from its memory
    damaging.file().write_bytes(content)


def test_what_is_named_while_the_others_are_compared_comes_before_the_study_is_verified(room: Room) -> None:
    """The scanner stores one more at the source, and a delta pass counts it, in the middle of the comparison."""
    images = study_of(3)
    project = room.project(*images[:2], Level="source")

    class Growing(Files):
        def check(self, desk: Desk, *how: Any) -> Checked:
            with room.sessions.begin() as session:
                study = session.scalars(select(MigrationStudy).where(MigrationStudy.project_id == project.id)).one()
                if study.expected == 2:
                    late = images[2]
                    self.files[str(late.SOPInstanceUID)] = (late, written(late))
                    named = self.count(study.study_uid)
                    inventory.record(session, project.id, study.study_uid, named, room.now(), seen_in=1)
            return super().check(desk, *how)

    room.sources[project.name] = Growing(room.client, *images[:2])
    room.run(project)
    study, rows = room.study(project), room.instances(project)
    assert (study.state, study.stored, len(rows)) == ("verified", 3, 3)
    assert {row.verdict for row in rows.values()} == {"equal"}


def test_a_study_of_which_no_image_was_ever_named_is_for_a_person(room: Room) -> None:
    project = room.project(*study_of(1), Level="arrival")
    room.sources[project.name] = Files(room.client)
    with room.sessions.begin() as session:
        study = room.study(project).id
        session.execute(delete(MigrationInstance).where(MigrationInstance.study_id == study))
        session.get_one(MigrationStudy, study).expected = 0
    room.run(project)
    assert room.study(project).state == "parked"


def test_what_nobody_saw_come_must_be_proven_by_the_source(room: Room) -> None:
    images = study_of(2)
    project = room.project(*images, Level="arrival")
    room.run(project)
    assert room.sources[project.name].asked == []
    uid = str(images[0].SOPInstanceUID)
    (orthanc_id,) = room.client.find("Instance", {"SOPInstanceUID": uid})
    room.follow()
    again = room.project(*images, Level="arrival")
    with sqlite3.connect(room.archive.environment.journal_file) as journal:
        journal.execute("UPDATE instances SET sha256 = NULL WHERE orthanc_id = ?", (orthanc_id,))
    room.run(again)
    assert room.sources[again.name].asked == [uid]
    assert {one.sop_uid: one.level for one in room.instances(again).values()} == {
        uid: 3, str(images[1].SOPInstanceUID): 2
    }  # fmt: skip
    assert room.study(again).level == 2


def test_a_sample_is_compared_with_the_source_and_the_certificate_says_how_sure_that_is(
    room: Room, tmp_path: Path
) -> None:
    images = [one for _ in range(6) for one in study_of(1)]
    project = room.project(*images, Level="source", Sample={"Studies": 3, "Seed": 7})
    with room.sessions.begin() as session:
        drawn = proof.sampling.draw(session, session.get_one(MigrationProject, project.id), "ana", clock.now())
    assert drawn is not None
    room.run(project)
    levels = {uid: row.level for uid, row in room.instances(project).items()}
    assert sorted(levels.values()) == [2, 2, 2, 3, 3, 3]
    asked = {str(one.StudyInstanceUID) for one in images if str(one.SOPInstanceUID) in levels
             and levels[str(one.SOPInstanceUID)] == 3}  # fmt: skip
    assert asked == set(sorted((str(one.StudyInstanceUID) for one in images), key=lambda u: verifier.rank("7", u))[:3])
    found = room.examined(room.certificate(project, tmp_path))
    assert found.faults == []
    assert found.head["sample"] | {"compared": 3, "differing": 0, "bound": 0.631597} == found.head["sample"]


def test_only_what_the_plan_declares_may_differ_and_it_is_listed(room: Room, tmp_path: Path) -> None:
    """The archive's coercion itself is tested elsewhere: here its outcome is stored as it would be."""
    one = study_of(1)[0]
    for value, is_declared in (("NEW", True), ("OTHER", False)):
        came = Dataset()
        came.update(one)
        came.file_meta, came.SOPInstanceUID = one.file_meta, generate_uid()
        came.StudyInstanceUID = generate_uid()
        project = room.project(came)
        changed = Dataset()
        changed.update(came)
        changed.file_meta, changed.AccessionNumber = came.file_meta, value
        room.client.store(written(changed))
        with room.sessions.begin() as session:
            session.get_one(MigrationStudy, room.study(project).id).changes = {"AccessionNumber": "NEW"}
        room.run(project)
        study = room.study(project)
        assert (study.state == "verified") == is_declared
        (row,) = room.instances(project).values()
        if is_declared:
            assert (row.level, row.coerced) == (3, "(0008,0050)")
            assert row.source_digest != row.stored_digest
            found = room.examined(room.certificate(project, tmp_path))
            assert (found.faults, found.head["counts"]["coerced"]) == ([], {"(0008,0050)": 1})
        else:
            assert "AccessionNumber, which has not the declared value" in study.reason


def test_a_batch_is_taken_back_and_everything_else_stays_byte_for_byte(room: Room, tmp_path: Path) -> None:
    images, others = study_of(3), study_of(2)
    earlier = image(images[0].StudyInstanceUID, PatientID=images[0].PatientID)  # a modality's, of the same study
    assert room.archive.send(earlier, *others) == [0, 0, 0]
    room.follow()
    project = room.project(*images, batch=4, Level="arrival", Carry=["metadata"])
    uids = images[0].StudyInstanceUID, images[0].SOPInstanceUID
    room.sources[project.name].beside = [
        Extra("study", uids[0], "metadata", "1025", lambda: b'"of the study"'),
        Extra("instance", uids[1], "metadata", "1025", lambda: b"of the image"),
    ]
    room.run(project)
    number = room.study(project).id
    with room.sessions.begin() as session:
        assert [one.state for one in extras.of_study(session, number)] == ["carried", "carried"]
    room.follow()
    before = room.md5s()
    file = room.certificate(project, tmp_path).rename(tmp_path / "before.jsonl")
    with room.sessions.begin() as session:
        row = session.get_one(MigrationProject, project.id)
        (taken,) = rollback.preview(session, room.client, row, 4, "OLD")
        assert list(rollback.preview(session, room.client, row, 5, "OLD")) == []
    came = {str(one.SOPInstanceUID) for one in images}
    assert {one.sop_uid for one in next(iter(taken.going.values()))} == came
    assert taken.staying == [(earlier.SOPInstanceUID, "it was stored by another cause: modality")]
    assert room.md5s() == before  # looking takes nothing
    with room.sessions.begin() as session:
        row = session.get_one(MigrationProject, project.id)
        assert len(rollback.ask(session, row, taken, "the wrong hospital", "ana", room.now())) == 1
        assert rollback.confirm(session, row, 4, "ana", room.now(), timedelta())[0] == []  # nobody alone
        (number,), _ = rollback.confirm(session, row, 4, "rui", room.now(), timedelta())
        assert [one.refused for one in rollback.preview(session, room.client, row, 4, "OLD")] == [
            "it is being taken back already"
        ]
    while room.custody.round():
        pass
    with room.sessions.begin() as session:
        assert session.get_one(Deletion, number).state == "done"
        assert rollback.settle(session, room.now()) == 1
        assert rollback.settle(session, room.now()) == 0
        assert {one.state for one in extras.of_study(session, taken.study_id)} == {"rolled-back"}
    kept = room.client.get(f"/studies/{next(iter(taken.going))}/metadata/1025")
    assert kept == "of the study", "a modality's image keeps the study"
    gone = {one.orthanc_id for one in next(iter(taken.going.values()))}
    assert room.md5s() == {one: md5 for one, md5 in before.items() if one not in gone}
    assert room.study(project).state == "rolled-back"
    assert {one.verdict for one in room.instances(project).values()} == {"rolled-back"}
    found = room.examined(room.certificate(project, tmp_path))
    assert found.faults == []
    assert found.head["counts"]["studies_by_state"] == {"rolled-back": 1}
    with file.open("rb") as content:  # the certificate of before does not hold against the archive any more
        rechecked = rechecking.recheck(room.client, verifier.instances(content), 10, 1)
    assert len(rechecked.faults) == 3
    with room.sessions.begin() as session:
        entries = select(AuditEntry.payload).where(AuditEntry.event == "migration-rollback").order_by(AuditEntry.seq)
        told = [json.loads(one) for one in session.scalars(entries)]
        deletions.restore(session, session.get_one(Deletion, number), "rui", "it was right", room.now(), "ris")
    assert [(one["state"], one["who"]) for one in told] == [("asked", "ana"), ("done", "ana")]
    while room.custody.round():
        pass
    assert room.md5s() == before
    with room.sessions.begin() as session:
        assert rollback.settle(session, room.now()) == 1
    assert room.study(project).state == "ready"


def test_the_verifier_alone_verifies_and_the_archive_is_read_again(room: Room, tmp_path: Path) -> None:
    images = study_of(2)
    project = room.project(*images)
    room.run(project)
    file = room.certificate(project, tmp_path)
    program = tmp_path / "verifier.py"
    program.write_text(Path(verifier.__file__).read_text())
    key_id = room.examined(file).head["key_id"]

    def alone(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(program), str(file), *more]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={}, check=False)

    assert (alone("--key-id", key_id).returncode, alone("--key-id", "0" * 32).returncode) == (0, 1)
    with file.open("rb") as content:
        found = rechecking.recheck(room.client, verifier.instances(content), 10, 1)
    assert (found.drawn, found.of, found.faults) == (2, 2, [])
    damaged = room.on_disk(next(iter(room.instances(project).values())).orthanc_id or "")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    with file.open("rb") as content:
        (fault,) = rechecking.recheck(room.client, verifier.instances(content), 10, 1).faults
    assert fault.endswith("its file is not the one that was certified")
    text = file.read_text().replace('"verdict":"equal"', '"verdict":"stored"', 1)
    file.write_text(text)
    tampered = alone("--key-id", key_id)
    assert tampered.returncode == 1
    assert "it was changed" in tampered.stdout


@contextmanager
def served(room: Room) -> Iterator[str]:
    """The pages of the same installation; their address."""
    with room.sessions.begin() as session:
        for login, role in (("ana", "migration-engineer"), ("rui", "administrator")):
            session.add(User(login=login, name=login, role=role, language="pt", password_hash="",
                             created_at=clock.text(clock.now())))  # fmt: skip
    sets = ("ris_service.session_pages:pages", "migration.pages:pages", "migration.proof_pages:pages",
            "migration.run_pages:pages", "migration.rollback_pages:pages",
            "operations.custody.deletion_pages:pages")  # fmt: skip
    app = create_app(room.archive.environment, Zambezi(), room.sessions, room.archive.keys, clock.now, sets)
    with pages_served(app) as address:
        yield address


def enter(page: Page, room: Room, address: str, login: str, role: str) -> None:
    token = sign(begin(login, "session", role, int(clock.now().timestamp()), 1800, ()), room.archive.keys.session_key)
    page.context.clear_cookies()
    page.context.add_cookies([{"name": COOKIE, "value": token, "url": address}])


def test_proof_and_roll_back_in_a_browser(room: Room, page: Page, tmp_path: Path) -> None:
    images = study_of(3)
    earlier = image(images[0].StudyInstanceUID, PatientID=images[0].PatientID)
    assert room.archive.send(earlier) == [0]
    room.follow()  # its cause is what was announced when it is recorded
    project = room.project(*images, batch=1, Level="arrival", Carry=["labels", "metadata"])
    study_uid = images[0].StudyInstanceUID
    room.sources[project.name].beside = [
        Extra("study", study_uid, "metadata", "1025", lambda: b"a note"),
        Extra("series", "1.2.3", "label", "teaching"),
    ]
    room.run(project)
    room.follow()
    room.certificate(project, tmp_path)
    with served(room) as address:
        enter(page, room, address, "ana", "migration-engineer")
        page.goto(f"{address}/migrations/{project.id}/studies/{study_uid}")
        beside = page.locator("h2", has_text="Ao lado das imagens").locator("xpath=following::table[1]")
        expect(beside).to_contain_text("trazido, relido, igual")
        expect(beside).to_contain_text("o arquivo não tem isto (series), ou tem-no em dois pacientes")
        shot(page, "migration-beside")
        page.goto(f"{address}/migrations/{project.id}")
        page.get_by_role("link", name="Prova e certificado").first.click()
        expect(page.locator("main")).to_contain_text("o ficheiro no disco é, byte a byte, o que o arquivo recebeu")
        shot(page, "migration-proof")
        with page.expect_download() as downloaded:
            page.get_by_role("link", name="O ficheiro assinado").click()
        assert room.examined(downloaded.value.path()).faults == []
        page.get_by_role("link", name="Retirar …").focus()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_contain_text("Sairiam 3 imagens de 1 estudos")
        expect(page.locator("main")).to_contain_text("foi guardado por outra causa: um equipamento")
        shot(page, "migration-rollback")
        page.get_by_label("Porquê, sem o nome do paciente").focus()
        page.keyboard.type("O hospital errado.")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_contain_text("espera por uma segunda pessoa, ana")
        expect(page.locator("button", has_text="Confirmar")).to_have_count(0)
        enter(page, room, address, "rui", "administrator")
        page.goto(page.url)
        shot(page, "migration-rollback-asked")
        page.get_by_role("link", name="Eliminação").click()
        expect(page.locator("main")).to_contain_text("só as imagens da lista")
        page.go_back()
        page.get_by_role("button", name="Confirmar o lote inteiro").focus()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_contain_text("confirmada, corre o tempo de espera, ana, rui")
    with room.sessions.begin() as session:
        (deletion,) = rollback.of_batch(session, project.id, 1)
        deletions.withdraw(session, deletion, "rui", clock.now(), "ris")


def test_the_console_shows_what_would_go_and_one_person_is_not_two(
    room: Room, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in room.archive.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ZAMBEZI_CONFIG", str(room.archive.environment.orthanc_config_dir))
    project = room.project(*study_of(2), batch=2, Level="source", Sample={"Studies": 500, "Seed": 3})
    console = CliRunner()

    def said(*words: str) -> str:
        done = console.invoke(migrate, [*words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert "1 of 1 studies, drawn with seed 3" in said("sample", project.name)
    room.run(project)
    room.follow()
    shown = json.loads(said("rollback", project.name, "--batch", "2", "--json"))
    assert [(one["going"], one["staying"]) for one in shown["studies"]] == [(2, [])]
    assert shown["asked"] == []
    assert "asked for with 1 deletions" in said("rollback", project.name, "--batch", "2", "--because", "a trial")
    assert "another person must confirm it" in said("rollback", project.name, "--batch", "2", "--confirm")
    file = tmp_path / "c.jsonl"
    said("certificate", project.name, "--out", str(file), "--verifier", str(tmp_path / "v.py"))
    assert "1 of 1 drawn studies compared with the source, 0 differ" in said("verify-certificate", str(file),
                                                                           "--against-archive")  # fmt: skip
    assert room.examined(file).faults == []
    again = said("certificate", project.name, "--last")
    assert again.encode() == file.read_bytes()
    refused = console.invoke(migrate, ["rollback", "nobody", "--batch", "1"])
    assert (refused.exit_code, "no migration nobody" in refused.output) == (1, True)


@pytest.mark.parametrize(("level", "reached"), [("arrival", 2), ("source", 3)])
def test_what_the_plan_changes_is_carried_out_by_the_archive_and_proven(
    room: Room, tmp_path: Path, level: str, reached: int
) -> None:
    images = study_of(2)
    project = room.project(*images, Level=level)
    with room.sessions.begin() as session:
        session.get_one(MigrationStudy, room.study(project).id).changes = {"PatientID": "NEW7", "AccessionNumber": "A7"}
    room.run(project)
    study = room.study(project)
    assert (study.state, study.reason, study.level) == ("verified", "", reached)
    assert bool(room.sources[project.name].asked) == (level == "source")
    for row in room.instances(project).values():
        tags = room.client.get(f"/instances/{row.orthanc_id}/simplified-tags")
        assert (tags["PatientID"], tags["AccessionNumber"]) == ("NEW7", "A7")
        assert row.coerced == "(0008,0050) (0010,0020) (0400,0561)"
        assert row.arrived_sha256 == hashlib.sha256(room.client.file(row.orthanc_id or "")).hexdigest()
    found = room.examined(room.certificate(project, tmp_path))
    assert (found.faults, found.head["counts"]["coerced"]["(0010,0020)"]) == ([], 2)
