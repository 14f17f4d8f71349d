"""After a power cut: nothing that was answered Success is lost, and nothing is recorded twice."""

from __future__ import annotations

import gzip
import json
import subprocess
import threading
from collections import Counter
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests.integration.archive_fixture import Archive, image, until, written
from zambezi import hold
from zambezi.orthanc_client import OrthancClient


def _has_every_one_once(archive: Archive, images: list[Dataset]) -> None:
    count = Counter(e["sop_uid"] for e in archive.events("stored"))
    for one in images:
        assert count[one.SOPInstanceUID] == 1, (one.SOPInstanceUID, count[one.SOPInstanceUID])
    there = archive.as_service().find("Instance", {}, expand=True)
    assert {i["MainDicomTags"]["SOPInstanceUID"] for i in there} >= {i.SOPInstanceUID for i in images}


def test_a_power_cut_in_mid_ingest_loses_nothing(tmp_path: Path) -> None:
    archive = Archive(tmp_path).start()
    early = [image() for _ in range(5)]
    assert archive.send(*early) == [0] * 5
    until(lambda: len(archive.events("stored")) == 5)
    archive.stop()  # what is early is in the index for good
    archive.start()
    assert "need not be compared" in archive.log, "the stop was clean"
    images = [image() for _ in range(400)]
    answered: list[Dataset] = []

    def send() -> None:
        for one in images:
            if archive.send(one) != [0]:
                return
            answered.append(one)

    sender = threading.Thread(target=send)
    sender.start()
    until(lambda: len(answered) > 60)
    archive.cut_power()
    sender.join()
    assert len(answered) < len(images)
    known = [row[0] for row in archive.journal_rows("SELECT orthanc_id FROM entries WHERE event = 'stored'")]
    assert len(known) > 20, "some were recorded before the cut"

    archive.start(wait=False)
    until(archive.listens, 90)
    assert "are compared with the index: there is no mark of a clean stop" in archive.log.split("need not be")[-1]
    # The DICOM port answers: everything is recorded already.
    recorded = [row[0] for row in archive.journal_rows("SELECT payload FROM entries WHERE event = 'stored'")]
    uids = {json.loads(payload)["sop_uid"] for payload in recorded}
    assert uids >= {one.SOPInstanceUID for one in answered}
    until(archive.is_up)
    _has_every_one_once(archive, early + answered)
    again = {e["orthanc_id"] for e in archive.events("stored-again")}
    assert again, "instances that were recorded before the cut are in the index again"
    assert again <= set(known)
    numbers = Counter(
        (e["change"]["index"], e["change"]["seq"])
        for e in archive.entries()
        if e["event"] in ("stored", "stored-again")
    )
    assert max(numbers.values()) > 1, "the index handed out the same numbers again"
    assert archive.events("incident") == []
    more = image()
    assert archive.send(more) == [0]
    until(lambda: archive.events("stored", sop_uid=more.SOPInstanceUID))
    archive.stop()
    archive.start()
    _has_every_one_once(archive, [*early, *answered, more])
    archive.leave()


def test_what_is_brought_back_keeps_its_cause(tmp_path: Path) -> None:
    archive = Archive(tmp_path, {"Routing": [{"Name": "all", "SendTo": ["PACS2"]}], "Destinations": {"PACS2": {}}})
    archive.start()
    report, sent = image(), image()
    instances = {report.SOPInstanceUID: {"cause": "report", "reference": "report 1 version 1"}}
    archive.put("/zambezi/announced", {"generation": 1, "studies": {}, "instances": instances})
    known = image()
    archive.as_service("ris").store(written(known))  # recorded, and announced by nobody
    until(lambda: archive.events("stored", sop_uid=known.SOPInstanceUID))
    archive.stop()
    archive.start()
    archive.as_service("ris").store(written(report))
    assert archive.send(sent) == [0]
    archive.cut_power()  # whether the journal has seen them or not
    for file in archive.environment.index_dir.iterdir():
        file.unlink()
    archive.start()
    _has_every_one_once(archive, [known, report, sent])
    causes = {
        e["sop_uid"]: (e["cause"], e.get("reference"), e["recovered"])
        for e in archive.entries()
        if e["event"] in ("stored", "stored-again") and e["recovered"]
    }
    assert causes[known.SOPInstanceUID] == ("report", None, True), "as the journal knew it"
    assert causes[report.SOPInstanceUID] == ("report", "report 1 version 1", True), "as it was announced"
    assert causes[sent.SOPInstanceUID] == ("modality", None, True)
    until(lambda: archive.get("/zambezi/status").json()["studies_open"] == 0)
    routed = {e["study_uid"] for e in archive.events("routed")}
    assert report.StudyInstanceUID not in routed
    assert sent.StudyInstanceUID in routed
    archive.leave()


def test_a_lost_index_is_made_anew_from_the_files(tmp_path: Path) -> None:
    archive = Archive(tmp_path).start()
    images = [image() for _ in range(6)]
    assert archive.send(*images) == [0] * 6
    until(lambda: len(archive.events("stored")) == 6)
    archive.stop()
    for file in archive.environment.index_dir.iterdir():
        file.unlink()
    archive.start()
    _has_every_one_once(archive, images)
    assert len(archive.events("stored-again")) == 6
    archive.leave()


def test_what_can_not_be_ingested_goes_whole_to_the_hold(tmp_path: Path) -> None:
    archive = Archive(tmp_path).start()
    archive.kill()
    broken = b"\0" * 128 + b"DICM" + b"not a data set"
    lost = archive.environment.storage_dir / "ab" / "cd" / "abcd0000-1111-2222-3333-444455556666"
    lost.parent.mkdir(parents=True)
    lost.write_bytes(broken)
    archive.start()
    held = list(hold.files(archive.environment.hold_dir))
    assert [file.read_bytes() for file in held] == [broken]
    assert not lost.exists()
    (note,) = hold.notes(archive.environment.hold_dir)
    told = json.loads(note.read_text())
    assert (told["sha256"], told["why"]) == (held[0].stem, "unreadable")
    incident = until(lambda: archive.events("incident"))
    assert incident[0]["hold"] == held[0].stem
    archive.leave()


def test_a_file_that_was_not_written_to_its_end_is_kept_and_no_incident(tmp_path: Path) -> None:
    """Orthanc was killed while it wrote: the sender heard nothing, and sends it again."""
    archive = Archive(tmp_path).start()
    archive.kill()
    half = written(image())[:-200]
    lost = archive.environment.storage_dir / "ab" / "cd" / "abcd0000-1111-2222-3333-444455556666"
    lost.parent.mkdir(parents=True)
    lost.write_bytes(half)
    archive.start()
    assert [file.read_bytes() for file in hold.files(archive.environment.hold_dir)] == [half]
    assert not lost.exists()
    (note,) = hold.notes(archive.environment.hold_dir)
    assert json.loads(note.read_text())["state"] == "kept"
    assert archive.events("incident") == []
    assert archive.events("stored") == []
    archive.leave()


def test_what_dicomweb_kept_of_a_series_is_no_image_and_no_incident(tmp_path: Path) -> None:
    """Of an archive that ran with DICOMweb's cache; the index had not written its row."""
    archive = Archive(tmp_path).start()
    archive.kill()
    lost = archive.environment.storage_dir / "ab" / "cd" / "abcd0000-1111-2222-3333-444455556666"
    lost.parent.mkdir(parents=True)
    lost.write_bytes(b"2;6d82071c9956b59d13e4960901001ad4;" + gzip.compress(b"[]"))
    archive.start()
    assert not lost.exists()
    assert list(hold.files(archive.environment.hold_dir)) == []
    assert archive.events("incident") == []
    archive.leave()


def test_a_file_that_was_never_written_is_no_loss_and_no_incident(tmp_path: Path) -> None:
    archive = Archive(tmp_path).start()
    archive.kill()
    empty = archive.environment.storage_dir / "ab" / "cd" / "abcd0000-1111-2222-3333-444455556666"
    empty.parent.mkdir(parents=True)
    empty.touch()
    archive.start()
    assert not empty.exists()
    assert not list(hold.files(archive.environment.hold_dir))
    assert archive.events("incident") == []
    # What Orthanc says comes into the log a tenth of a second later.
    until(lambda: "Orthanc has started" in archive.log.rpartition("starting Orthanc")[2])
    assert archive.log.count("Orthanc has started") <= archive.log.count("starting Orthanc"), "no second start for it"
    archive.leave()


def test_a_file_that_is_gone_keeps_nothing_else_from_being_recorded(tmp_path: Path) -> None:
    """The disk lost a file, and the journal with it: /changes is read from its beginning, that file's image first."""
    archive = Archive(tmp_path).start()
    lost, there = image(), image()
    assert archive.send(lost, there) == [0, 0]
    until(lambda: archive.events("stored", sop_uid=there.SOPInstanceUID))
    archive.stop()
    files = [file for file in archive.environment.storage_dir.rglob("*") if file.is_file()]
    (file,) = (file for file in files if str(lost.SOPInstanceUID).encode() in file.read_bytes()[132:])
    file.unlink()
    for file in archive.environment.journal_file.parent.glob("journal.db*"):
        file.unlink()
    archive.start()
    later = image()
    assert archive.send(later) == [0]
    for one in (lost, there, later):
        assert len(until(lambda uid=one.SOPInstanceUID: archive.events("stored", sop_uid=uid))) == 1
    archive.leave()


def test_deleting_the_newest_study_is_not_mistaken_for_a_power_cut(tmp_path: Path) -> None:
    archive = Archive(tmp_path).start()
    kept, newest = image(), generate_uid()
    assert archive.send(kept) == [0]
    until(lambda: archive.events("study-completed", study_uid=kept.StudyInstanceUID))
    deleted = [image(newest), image(newest)]
    assert archive.send(*deleted) == [0, 0]
    until(lambda: archive.events("study-completed", study_uid=newest))
    archive.stop()
    _delete_behind_our_back(archive, newest)
    archive.start()
    told = until(lambda: archive.events("deleted", study_uid=newest))
    assert sorted(one[2] for one in told[0]["instances"]) == sorted(i.SOPInstanceUID for i in deleted)
    assert archive.events("stored-again") == []
    assert len(archive.events("stored")) == 3
    assert len(archive.events("incident")) == 1, "nobody saw the deletion: a person must look"
    # What was deleted and is stored anew is stored anew in the journal, too.
    assert archive.send(*deleted) == [0, 0]
    until(lambda: len(archive.events("stored", study_uid=newest)) == 4)
    archive.leave()


def _delete_behind_our_back(archive: Archive, study_uid: str) -> None:
    """With an Orthanc that doesn't load our plugin: there is no way with it."""
    folder = archive.home / "bare"
    folder.mkdir()
    for file in archive.environment.orthanc_config_dir.glob("*.json"):
        if file.name != "20-plugins.json":
            (folder / file.name).write_text(file.read_text())
    bare = subprocess.Popen(["/usr/sbin/Orthanc", str(folder)], env=archive.variables, stderr=subprocess.DEVNULL)
    try:
        orthanc = OrthancClient(archive.environment, archive.keys, "gateway")
        until(lambda: archive.listens() and orthanc.system())
        (study,) = orthanc.find("Study", {"StudyInstanceUID": study_uid})
        orthanc.request("DELETE", f"/studies/{study}")
    finally:
        bare.terminate()
        bare.wait(30)


def test_a_stop_during_recovery_is_clean_and_the_next_start_finishes_it(tmp_path: Path) -> None:
    archive = Archive(tmp_path).start()
    images = [image() for _ in range(200)]
    assert archive.send(*images) == [0] * 200
    archive.stop()
    for file in archive.environment.index_dir.iterdir():
        file.unlink()
    archive.start(wait=False)
    until(
        lambda: "they are ingested before" in archive.log and "Orthanc has started" in archive.log.split("they are")[-1]
    )
    assert archive.process is not None
    archive.process.terminate()
    assert archive.process.wait(60) == 0
    assert not archive.listens()
    archive.start()
    _has_every_one_once(archive, images)
    archive.leave()
