"""What is stored is recorded, with its facts; what is complete is routed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from pydicom.uid import generate_uid

from tests.integration.archive_fixture import Archive, image, until, written
from tests.integration.test_archive_door import ask_worklist, item
from zambezi.orthanc_client import OrthancError

RULES = {
    "Destinations": {"PACS2": {"Proof": "found"}},
    "Routing": [{"Name": "ct-to-pacs2", "When": {"Modality": ["CT"]}, "SendTo": ["PACS2"]}],
    "Hl7": {
        "Peers": {"HIS": {"Application": "HIS", "Facility": "H", "Host": "127.0.0.1", "Port": 2600}},
        "Triggers": [
            {"Name": "tell-his", "On": "study-completed", "SendTo": "HIS", "Message": "ORM^O01"},
            {"Name": "here", "On": "study-received", "SendTo": "HIS", "Template": "own"},
            {"Name": "late", "On": "study-updated", "SendTo": "HIS", "Message": "ORU^R01"},
        ],
        "Templates": {"own": {"Type": "ORM^O01", "Segments": ["ZDS|{study_uid}"]}},
    },
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    running = Archive(tmp_path_factory.mktemp("archive"), RULES).start()
    yield running
    running.leave()


def test_a_store_is_recorded_with_its_facts(archive: Archive) -> None:
    one = image(AccessionNumber="Z77")
    assert archive.send(one) == [0]
    stored = until(lambda: archive.events("stored", sop_uid=one.SOPInstanceUID))
    assert len(stored) == 1
    told = stored[0]
    assert told["study_uid"] == one.StudyInstanceUID
    assert (told["remote_aet"], told["remote_ip"], told["called_aet"]) == ("CT1", "127.0.0.1", "ZAMBEZI")
    assert (told["origin"], told["cause"], told["recovered"], told["modality"]) == (
        "DicomProtocol",
        "modality",
        False,
        "CT",
    )
    assert told["transfer_syntax"] == "1.2.840.10008.1.2.1"
    began = archive.events("study-began", study_uid=one.StudyInstanceUID)
    assert [(e["accession_number"], e["patient_id"], e["issuer"]) for e in began] == [("Z77", "P1", "HOSPITAL")]


def test_requests_that_read_the_archive_hold_up_no_store_and_no_store_them(archive: Archive) -> None:
    before = [image() for _ in range(3)]
    assert archive.send(*before) == [0, 0, 0]
    uids, ended, answers = [one.SOPInstanceUID for one in before], threading.Event(), Counter[int]()

    def ask() -> None:
        while not ended.is_set():
            answers[archive.put("/zambezi/verify", uids).status_code] += 1

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for one in askers:
        one.start()
    try:
        # Where plugin and Orthanc wait for each other this never ends, and pynetdicom gives no status after a while.
        study = generate_uid()
        assert set(archive.send(*(image(study) for _ in range(150)))) == {0}
    finally:
        ended.set()
        for one in askers:
            one.join(40)
    assert set(answers) == {200} and answers[200] > 10


def test_a_late_image_makes_the_next_generation_with_itself_alone(archive: Archive) -> None:
    study = generate_uid()
    first, second, late = image(study), image(study), image(study)
    assert archive.send(first, second) == [0, 0]
    until(lambda: archive.events("study-completed", study_uid=study, generation=1))
    assert archive.send(late) == [0]
    completed = until(lambda: archive.events("study-completed", study_uid=study, generation=2))
    assert (completed[0]["instances"], completed[0]["added"]) == (3, 1)
    routes = archive.events("routed", study_uid=study)
    assert [(r["generation"], r["rule"], r["destination"], r["proof"]) for r in routes] == [
        (1, "ct-to-pacs2", "PACS2", "found"),
        (2, "ct-to-pacs2", "PACS2", "found"),
    ]
    assert {one[2] for one in routes[0]["instances"]} == {first.SOPInstanceUID, second.SOPInstanceUID}
    assert [one[2] for one in routes[1]["instances"]] == [late.SOPInstanceUID]
    assert "Modality is CT" in routes[0]["because"]
    triggered = archive.events("hl7-triggered", study_uid=study)
    assert [(e["rule"], e.get("generation"), e.get("message"), e.get("template")) for e in triggered] == [
        ("here", None, None, "own"), ("tell-his", 1, "ORM^O01", None), ("tell-his", 2, "ORM^O01", None),
        ("late", 2, "ORU^R01", None),
    ]  # fmt: skip


def test_explain_answers_from_the_rules_in_force(archive: Archive) -> None:
    one = image(Modality="CT")
    archive.send(one)
    until(lambda: archive.events("routed", study_uid=one.StudyInstanceUID))
    told = archive.get(f"/zambezi/explain?study={one.StudyInstanceUID}").json()
    assert told["rules"][0]["matches"] == 1
    assert told["rules"][0]["routed"] == {"PACS2": 1}
    assert archive.get("/zambezi/explain?study=1.2.3").status_code == 404


def test_the_cause_comes_from_the_service_or_the_announcement(archive: Archive) -> None:
    migrated, corrected, ordered = image(), image(), image()
    studies = {
        migrated.StudyInstanceUID: {"cause": "migration", "reference": "legacy"},
        corrected.StudyInstanceUID: {"cause": "correction", "reference": "correction 4"},
        ordered.StudyInstanceUID: {"cause": "modality", "reference": "order Z1"},
    }
    restored, ours, plain = image(), image(), image()
    instances = {
        restored.SOPInstanceUID: {"cause": "restore", "reference": "hold 7"},
        ours.SOPInstanceUID: {"cause": "report", "reference": "report 1 version 2"},
    }
    answer = archive.put("/zambezi/announced", {"generation": 1, "studies": studies, "instances": instances})
    assert answer.json() == {"generation": 1}
    assert archive.send(migrated, corrected, ordered) == [0, 0, 0]
    for one, service in ((restored, "custody"), (ours, "ris"), (plain, "custody")):
        archive.as_service(service).store(written(one))
    for one, cause, reference in (
        (migrated, "migration", "legacy"),
        (corrected, "modality", None),  # a late image of a study under correction is the modality's
        (ordered, "modality", "order Z1"),
        (restored, "restore", "hold 7"),
        (ours, "report", "report 1 version 2"),
        (plain, "correction", None),
    ):
        told = until(lambda uid=one.SOPInstanceUID: archive.events("stored", sop_uid=uid))
        assert (told[0]["cause"], told[0].get("reference")) == (cause, reference)
        (began,) = archive.events("study-began", study_uid=one.StudyInstanceUID)
        assert (began["cause"], began.get("reference")) == (cause, reference)
        until(lambda uid=one.StudyInstanceUID: archive.events("study-completed", study_uid=uid))
        routes = archive.events("routed", study_uid=one.StudyInstanceUID)
        assert bool(routes) == (cause == "modality"), cause


def test_an_unknown_sender_can_not_store_and_a_known_one_can(archive: Archive) -> None:
    assert archive.send(image(), aet="NOBODY") == [None]
    assert archive.send(image(), called="OTHER") == [None]
    assert archive.send(image(), aet="CT1") == [0]


def test_the_same_image_again_is_recorded_once(archive: Archive) -> None:
    one = image()
    assert archive.send(one) == [0]
    assert archive.send(one) == [0]
    until(lambda: archive.events("study-completed", study_uid=one.StudyInstanceUID))
    assert len(archive.events("stored", sop_uid=one.SOPInstanceUID)) == 1


def test_a_bad_reload_keeps_the_old_rules(archive: Archive) -> None:
    before = archive.get("/zambezi/status").json()["configuration"]
    file = archive.environment.orthanc_config_dir / "30-zambezi.json"
    good = file.read_text()
    file.write_text('{"Zambezi": {"Routing": [{"Name": "x", "SendTo": ["NOWHERE"]}], "Wrong": 1}}')
    answer = archive.post("/zambezi/reload", {}, service="operations")
    assert answer.status_code == 409
    assert any("Wrong" in fault for fault in answer.json()["faults"])
    assert archive.get("/zambezi/status").json()["configuration"] == before
    file.write_text(good.replace('"QuietSeconds": 1', '"QuietSeconds": 1.25'))
    taken = archive.post("/zambezi/reload", {}, service="operations")
    assert taken.status_code == 200
    assert taken.json()["configuration"] != before
    assert archive.events("configured", configuration=taken.json()["configuration"])


def test_restart_and_kill_lose_nothing(tmp_path: Path) -> None:
    archive = Archive(tmp_path, {**RULES, "Completeness": {"QuietSeconds": 3}}).start()
    study = generate_uid()
    images = [image(study) for _ in range(6)]
    assert archive.send(*images[:2]) == [0, 0]
    archive.stop()
    archive.start()
    assert archive.send(*images[2:]) == [0] * 4
    archive.kill()
    archive.start()
    try:
        uids = sorted(one.SOPInstanceUID for one in images)
        until(lambda: len(archive.events("stored", study_uid=study)) >= len(images))
        assert sorted(e["sop_uid"] for e in archive.events("stored", study_uid=study)) == uids
        # On a slow machine the restarts alone may take longer than the quiet seconds: then it is two generations.
        until(lambda: archive.get("/zambezi/status").json()["studies_open"] == 0)
        routed = [one[2] for e in archive.events("routed", study_uid=study) for one in e["instances"]]
        assert sorted(routed) == uids
    finally:
        archive.stop()


def test_senders_readers_worklist_and_pushes_at_once_never_wait_for_each_other_for_good(archive: Archive) -> None:
    """Orthanc holds a lock while an arrival waits for Python's: nothing of ours may take them the other way round."""
    entries = [{"aets": ["CT1"], "study_uid": "1.2", "dicom": item("CT1", "Banze^Ana", f"Z{n}")} for n in range(50)]
    assert archive.put("/zambezi/worklist", {"generation": 1, "entries": entries}).status_code == 200
    stop = threading.Event()
    errors: list[str] = []
    done: Counter[str] = Counter()

    def again(name: str, act: Callable[[int], object]) -> Callable[[], None]:
        def run() -> None:
            while not stop.is_set():
                try:
                    act(done[name])
                except (requests.RequestException, AssertionError, OrthancError) as error:
                    errors.append(f"{name}: {type(error).__name__}")
                    return
                done[name] += 1

        return run

    def sent(_: int) -> None:
        assert archive.send(*[image() for _ in range(5)]) == [0] * 5

    def conflicting(_: int) -> None:
        one = image()
        assert archive.send(one, image(one.StudyInstanceUID, SOPInstanceUID=one.SOPInstanceUID, Rows=8)) == [0, 0]

    def pushed(_: int) -> None:
        generation = archive.get("/zambezi/status").json()["announced_generation"] + 1
        archive.put("/zambezi/announced", {"generation": generation, "studies": {}})

    def asked(_: int) -> None:
        assert "Banze" in ask_worklist(archive, "CT1")

    acts: dict[str, Callable[[int], object]] = {
        "dicom": sent, "dicom too": sent, "conflicts": conflicting, "pushes": pushed,
        "http": lambda _: archive.as_service("migration").store(written(image())),
        "reads": lambda _: archive.get("/studies"),
        "journal": lambda _: archive.get("/zambezi/journal?since=0&limit=50&wait=1"),
        "worklist": asked,
    }  # fmt: skip
    threads = [threading.Thread(target=again(name, act), daemon=True) for name, act in acts.items()]
    for one in threads:
        one.start()
    stop.wait(8)
    stop.set()
    for one in threads:
        one.join(60)
    assert not any(one.is_alive() for one in threads)
    assert errors == []
    assert all(done[name] > 2 for name in acts), done
    until(lambda: archive.get("/zambezi/status").json()["follower"]["lag"] == 0)
