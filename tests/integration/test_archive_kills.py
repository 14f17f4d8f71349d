"""kill -9 while images come, and death at each commit: nothing lost, nothing recorded twice."""

from __future__ import annotations

import sqlite3
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests.integration.archive_fixture import Archive, image, until

RULES = {"Destinations": {"PACS2": {}}, "Routing": [{"Name": "all", "SendTo": ["PACS2"]}]}


def _store_all(archive: Archive, images: list[Dataset]) -> None:
    """Send until each was answered Success, whatever happens to the receiver."""
    left = images
    deadline = time.monotonic() + 120
    while left and time.monotonic() < deadline:
        answers = archive.send(*left)
        left = [one for one, status in zip(left, answers, strict=True) if status != 0]
        if left:
            time.sleep(0.2)
    assert left == []


def _settled(archive: Archive, studies: list[str], images: list[Dataset]) -> None:
    until(lambda: {e["study_uid"] for e in archive.events("study-completed")} >= set(studies), 40)
    until(lambda: archive.get("/zambezi/status").json()["studies_open"] == 0)
    count = Counter(e["sop_uid"] for e in archive.events("stored"))
    assert count == Counter(one.SOPInstanceUID for one in images)
    routed = Counter(i[2] for e in archive.events("routed") for i in e["instances"])
    assert routed == count
    assert archive.events("incident") == []


def _ended_or_told(process: subprocess.Popen[bytes], archive: Archive, study: str) -> bool:
    """Whether the process died, or what it has to tell of the study is told."""
    if process.poll() is not None:
        return True
    try:
        told = archive.journal_rows("SELECT study_uid FROM entries WHERE event = 'study-completed'")
    except sqlite3.OperationalError:  # the very first start has not made its tables yet
        return False
    return (study,) in told


def test_kill_9_while_senders_store(tmp_path: Path) -> None:
    archive = Archive(tmp_path, RULES).start()
    studies = [generate_uid() for _ in range(3)]
    images = {study: [image(study) for _ in range(250)] for study in studies}
    senders = [threading.Thread(target=_store_all, args=(archive, images[study])) for study in studies]
    for one in senders:
        one.start()
    for pause in (0.5, 0.9):
        time.sleep(pause)
        archive.kill()
        archive.start()
    for one in senders:
        one.join()
    _settled(archive, studies, [one for study in studies for one in images[study]])
    archive.leave()


def test_death_at_each_commit_of_a_scenario(tmp_path: Path) -> None:
    # started + configured, a study that is stored, its completion with a route, stopped: two events each.
    places = (range(1, 9, 2), range(2, 9, 2))
    archives = [
        Archive(tmp_path / name, RULES, {"ZAMBEZI_CRASH_DIR": str(tmp_path / name / "crash")}) for name in ("a", "b")
    ]
    with ThreadPoolExecutor() as both:  # they wait most of the time
        list(both.map(_dies_at, archives, places))


def _dies_at(archive: Archive, places: range) -> None:
    crash = archive.home / "crash"
    crash.mkdir()
    studies, images = [], []
    for n in places:
        (crash / "orthanc").write_text(str(n))
        archive.start(wait=False)
        study = generate_uid()
        studies.append(study)
        made = [image(study) for _ in range(3)]
        images += made
        sender = threading.Thread(target=_store_all, args=(archive, made))
        sender.start()
        assert archive.process is not None
        process = archive.process
        until(partial(_ended_or_told, process, archive, study), 60)
        if process.poll() is None:
            process.terminate()  # the last events are those of the stop
        process.wait(60)
        assert not (crash / "orthanc").exists(), n
        assert process.returncode in (137, 0)
        archive.start()
        sender.join()
        archive.stop()
    archive.start()
    _settled(archive, studies, images)
    archive.leave()
