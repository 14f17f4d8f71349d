"""Other content under a known identity: Orthanc drops it without a word, the hold has it before."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
import requests
from pydicom import dcmread
from pydicom.data import get_testdata_files
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from plugins import header
from tests.integration.archive_fixture import Archive, image, until, written
from zambezi import hold
from zambezi.digest import fingerprint


def alike(one: Dataset, **tags: object) -> Dataset:
    """The same instance with other content."""
    identity = {
        "SOPInstanceUID": one.SOPInstanceUID, "SeriesInstanceUID": one.SeriesInstanceUID, "PatientID": one.PatientID,
    }  # fmt: skip
    made = image(one.StudyInstanceUID, **{**identity, "InstanceNumber": generate_uid()[-6:], **tags})
    made.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    return made


def post(archive: Archive, content: bytes, service: str = "migration") -> requests.Response:
    url = archive.environment.orthanc_url + "/instances"
    return requests.post(url, data=content, auth=archive.keys.basic(service), timeout=60)


def recorded(archive: Archive, *images: Dataset) -> None:
    for one in images:
        until(lambda uid=one.SOPInstanceUID: archive.events("stored", sop_uid=uid))


def held(archive: Archive) -> list[bytes]:
    """Every object in the hold; each is what its name says."""
    found = [file.stem for file in archive.environment.hold_dir.glob("*/*.dcm")]
    return [hold.get(archive.environment.hold_dir, sha256) for sha256 in found]


def conflicts(archive: Archive) -> list[tuple[str, str]]:
    """What would be a row of the hold, each once: (bytes, reference)."""
    return sorted({(e["sha256"], e["reference"]) for e in archive.events("held", why="conflict")})


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    running = Archive(tmp_path_factory.mktemp("archive")).start()
    yield running
    running.leave()


def test_other_content_is_held_before_the_sender_hears_success(archive: Archive) -> None:
    one = image()
    other = alike(one)
    assert archive.send(one) == [0]
    recorded(archive, one)
    assert archive.send(one) == [0], "the same again"
    assert archive.events("held", sop_uid=one.SOPInstanceUID) == []
    for _ in range(2):
        assert archive.send(other) == [0]
        # No waiting: it is committed when Orthanc answers.
        told = archive.events("held", sop_uid=one.SOPInstanceUID)[-1]
        (stored,) = archive.events("stored", sop_uid=one.SOPInstanceUID)
        assert (told["why"], told["state"], told["other_sha256"]) == ("conflict", "comparing", stored["sha256"])
        assert (told["orthanc_id"], told["study_uid"]) == (stored["orthanc_id"], one.StudyInstanceUID)
        assert told["patient_id"] == "P1"
        kept = hold.get(archive.environment.hold_dir, told["sha256"])
        assert dcmread(BytesIO(kept)).InstanceNumber == other.InstanceNumber
        assert told["size"] == len(kept)
    assert len({c for c in conflicts(archive) if c[1] == f"instance {told['orthanc_id']}"}) == 1
    assert "Teste" not in json.dumps(archive.events("held"))


def test_the_digest_is_of_what_orthanc_holds(archive: Archive) -> None:
    one = image()
    assert archive.send(one) == [0]
    recorded(archive, one)
    (stored,) = archive.events("stored", sop_uid=one.SOPInstanceUID)
    assert hashlib.sha256(archive.as_service().file(stored["orthanc_id"])).hexdigest() == stored["sha256"]


def test_two_contents_that_come_before_either_is_recorded_are_both_safe(archive: Archive) -> None:
    """Two senders at once: whichever Orthanc keeps, the other one is in the hold."""
    pairs = []
    for _ in range(15):
        one = image()
        pairs.append((written(one), written(alike(one))))
    answers: list[int] = []
    for pair in pairs:
        both = [threading.Thread(target=lambda c=c: answers.append(post(archive, c).status_code)) for c in pair]
        for sender in both:
            sender.start()
        for sender in both:
            sender.join()
    assert Counter(answers) == {200: 30}
    stored = archive.as_service().find("Instance", {})
    for pair in pairs:
        orthanc_id = header.read(pair[0]).orthanc_id
        assert orthanc_id in stored
        has = archive.as_service().file(orthanc_id)
        assert has in pair
        safe = held(archive)
        assert all(content == has or content in safe for content in pair)


def test_the_same_instance_under_another_patient_is_told_as_a_second_copy(archive: Archive) -> None:
    one = image()
    other = alike(one, PatientID="P2")
    assert archive.send(one, other) == [0, 0]
    (told,) = until(lambda: archive.events("conflict", sop_uid=one.SOPInstanceUID))
    there = {e["orthanc_id"] for e in archive.events("stored", sop_uid=one.SOPInstanceUID)}
    assert {told["orthanc_id"], told["other_orthanc_id"]} == there
    assert len(there) == 2
    assert archive.events("held", sop_uid=one.SOPInstanceUID) == []
    assert archive.send(one, other) == [0, 0], "both are known"
    assert archive.events("held", sop_uid=one.SOPInstanceUID) == []


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_what_has_no_identity_is_refused_and_held(archive: Archive, missing: str) -> None:
    one = image(PatientID=missing)
    delattr(one, missing)
    before = len(archive.events("held", why="no-identity"))
    answer = post(archive, written(one))
    assert answer.status_code in (400, 404)
    told = archive.events("held", why="no-identity")[before:]
    assert [e["patient_id"] for e in told] == [missing]
    assert hold.get(archive.environment.hold_dir, told[0]["sha256"]) == written(one)
    if missing != "SOPInstanceUID":  # pynetdicom doesn't send such a one
        assert archive.send(one) == [0xA700]
        assert [e["sender"] for e in archive.events("held", why="no-identity")[before + 1 :]] == ["DICOM"]


def test_a_correction_that_takes_its_place_is_no_conflict_and_a_senders_copy_is(archive: Archive) -> None:
    one = image()
    corrected = alike(one, AccessionNumber="Z1")
    sha256 = hashlib.sha256(written(corrected)).hexdigest()
    instances = {one.SOPInstanceUID: {"cause": "correction", "reference": "correction 12", "sha256": sha256}}
    generation = archive.get("/zambezi/status").json()["announced_generation"] + 1
    archive.put("/zambezi/announced", {"generation": generation, "studies": {}, "instances": instances})
    assert archive.send(one) == [0]
    recorded(archive, one)
    custody = archive.as_service("custody")
    (stored,) = archive.events("stored", sop_uid=one.SOPInstanceUID)
    custody.request("DELETE", f"/instances/{stored['orthanc_id']}")
    assert custody.store(written(corrected))["Status"] == "Success"
    assert archive.events("held", sop_uid=one.SOPInstanceUID) == []
    told = until(lambda: archive.events("stored", sop_uid=one.SOPInstanceUID, cause="correction"))
    assert told[0]["reference"] == "correction 12"
    assert told[0]["sha256"] == hashlib.sha256(written(corrected)).hexdigest()
    # A modality that still has the old copy sends it again: that one is held, announced or not.
    assert archive.send(one) == [0]
    assert len(archive.events("held", sop_uid=one.SOPInstanceUID)) == 1


def test_a_correction_to_another_patient_is_no_second_copy_and_the_old_one_coming_back_is(archive: Archive) -> None:
    one = image()
    moved, late = alike(one, PatientID="P7"), alike(one, PatientID="P8")
    assert archive.send(one) == [0]
    recorded(archive, one)
    assert archive.as_service("custody").store(written(moved))["Status"] == "Success"
    (stored,) = until(lambda: archive.events("stored", sop_uid=one.SOPInstanceUID, cause="correction"))
    assert archive.events("conflict", sop_uid=one.SOPInstanceUID) == []
    assert archive.send(late) == [0]
    told = until(lambda: archive.events("conflict", sop_uid=one.SOPInstanceUID))
    assert stored["orthanc_id"] in {e["other_orthanc_id"] for e in told}


def test_what_can_not_be_held_is_refused(archive: Archive) -> None:
    one = image()
    assert archive.send(one) == [0]
    recorded(archive, one)
    folder = archive.environment.hold_dir
    apart = folder.with_name("hold-apart")
    folder.rename(apart)
    folder.write_text("a disk that takes nothing")
    try:
        for _ in range(2):
            assert archive.send(alike(one)) == [0xA700], "out of resources: the sender keeps it"
            answer = post(archive, written(alike(one)))
            assert (answer.status_code, answer.json()["OrthancStatus"]) == (400, 15)
        assert archive.send(image()) == [0], "what is new comes in all the same"
    finally:
        folder.unlink()
        apart.rename(folder)
    late = alike(one)
    assert archive.send(late) == [0]
    assert archive.events("held", sop_uid=one.SOPInstanceUID)


def samples() -> dict[str, tuple[bytes, Dataset]]:
    """pydicom's own files that are instances: SHA-256 -> (bytes, data set)."""
    found: dict[str, tuple[bytes, Dataset]] = {}
    for name in sorted(get_testdata_files()):
        file = Path(name)
        if not file.is_file() or file.stat().st_size > 2_000_000:
            continue
        content = file.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(file, force=True)
        if dataset.get("SOPInstanceUID") and dataset.get("SOPClassUID") and content[128:132] == b"DICM":
            found.setdefault(hashlib.sha256(content).hexdigest(), (content, dataset))
    return found


def test_of_the_samples_that_share_a_uid_every_content_is_somewhere_by_rest(archive: Archive) -> None:
    sent = samples()
    assert len(sent) > 100
    identities = defaultdict(set)
    taken = {}
    for sha256, (content, _) in sent.items():
        answer = post(archive, content)
        if answer.status_code == 200:
            taken[sha256] = answer.json()["ID"]
            identities[answer.json()["ID"]].add(sha256)
    assert len(taken) > 100
    several = {one: contents for one, contents in identities.items() if len(contents) > 1}
    assert len(several) > 5, "the samples have such conflicts"
    assert {header.read(sent[sha256][0]).orthanc_id for sha256 in taken} == set(identities), "ids as Orthanc's"
    safe = {hashlib.sha256(content).hexdigest() for content in held(archive)}
    rest = archive.as_service()
    for orthanc_id, contents in identities.items():
        has = hashlib.sha256(rest.file(orthanc_id)).hexdigest()
        assert has in contents
        assert contents - {has} <= safe, orthanc_id
        told = {c[0] for c in conflicts(archive) if c[1] == f"instance {orthanc_id}"}
        assert contents - {has} <= told, "each has its row"
    recorded_ids = set(identities)
    until(lambda: {e["orthanc_id"] for e in archive.events("stored")} >= recorded_ids)
    first = {orthanc_id: hashlib.sha256(rest.file(orthanc_id)).hexdigest() for orthanc_id in identities}
    before = len(archive.events("held"))
    # Where Orthanc refused a second content, the first one's digest isn't claimed, and it is looked at closer.
    rivals = {header.read(content).orthanc_id for sha256, (content, _) in sent.items() if sha256 not in taken}
    alone = [one for one, contents in identities.items() if len(contents) == 1 and one not in rivals]
    assert len(alone) > 50
    for orthanc_id, sha256 in first.items():
        if orthanc_id in alone:
            assert post(archive, sent[sha256][0]).json()["Status"] == "AlreadyStored"
    assert len(archive.events("held")) == before, "a benign repetition makes nothing"


def test_of_the_samples_that_share_a_uid_every_content_is_somewhere_by_c_store(tmp_path: Path) -> None:
    """By DCMTK's sender, which writes the data set anew: what arrives is compared by content."""
    archive = Archive(tmp_path).start()
    taken: dict[str, dict[str, str]] = defaultdict(dict)
    for content, dataset in samples().values():
        if is_sent(archive, Path(dataset.filename)):
            said = fingerprint(content).digest
            taken[header.read(content).sop_uid][said] = Path(dataset.filename).name
    assert sum(map(len, taken.values())) > 80
    assert sum(len(contents) > 1 for contents in taken.values()) > 5
    rest = archive.as_service()
    safe = {fingerprint(content).digest for content in held(archive)}
    for sop_uid, contents in taken.items():
        there = {fingerprint(rest.file(one)).digest for one in rest.find("Instance", {"SOPInstanceUID": sop_uid})}
        assert {name for said, name in contents.items() if said not in there | safe} == set()
    archive.leave()


def is_sent(archive: Archive, file: Path) -> bool:
    """C-STORE of the file in its own transfer syntax; whether the archive answered Success."""
    port = str(archive.environment.ports.dicom)
    command = ["dcmsend", "-v", "-dn", "-nuc", "-aet", "CT1", "-aec", "ZAMBEZI", "127.0.0.1", port, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return "with status SUCCESS" in done.stderr + done.stdout


def test_kill_9_amid_conflicts_loses_nothing(tmp_path: Path) -> None:
    crash = tmp_path / "crash"
    crash.mkdir()
    archive = Archive(tmp_path, {}, {"ZAMBEZI_CRASH_DIR": str(crash)}).start()
    originals = [image() for _ in range(8)]
    versions = [[written(one)] + [written(alike(one)) for _ in range(2)] for one in originals]
    acknowledged: set[bytes] = set()
    for n, contents in enumerate(versions, 1):
        (crash / "orthanc").write_text(str(n))
        left = list(contents)
        deadline = time.monotonic() + 120
        while left:
            assert time.monotonic() < deadline
            try:
                if post(archive, left[0]).status_code == 200:
                    acknowledged.add(left.pop(0))
                    continue
            except requests.RequestException:
                pass
            assert archive.process is not None
            if archive.process.poll() is not None:
                archive.start()
        (crash / "orthanc").unlink(missing_ok=True)
        if n % 3 == 0:
            archive.kill()
            archive.start()
    until(archive.is_up)
    rest = archive.as_service()
    for contents in versions:
        has = rest.file(header.read(contents[0]).orthanc_id)
        safe = held(archive)
        for content in contents:
            assert content == has or content in safe
            sha256 = hashlib.sha256(content).hexdigest()
            assert content == has or any(sha256 == c[0] for c in conflicts(archive)), "and its row will be there"
    archive.leave()
