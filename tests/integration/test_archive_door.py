"""The two locks on Orthanc's HTTP, the journal's route and the worklist, on the real thing."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from tests.integration.archive_fixture import Archive, image, until, written
from zambezi import viewer_cache
from zambezi.access import tokens

PATHS = (
    "/", "/app/explorer.html", "/system", "/studies", "/instances", "/changes", "/statistics", "/modalities", "/jobs",
    "/dicom-web/studies", "/wado?requestType=WADO&studyUID=1.2&objectUID=1.2", "/web-viewer/app/viewer.html",
    "/zambezi/status", "/zambezi/journal", "/tools/find", "/plugins", "/ui/app/", "/no-such-path",
)  # fmt: skip


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    running = Archive(tmp_path_factory.mktemp("archive")).start()
    yield running
    running.leave()


def token(archive: Archive, role: str = "radiologist", studies: tuple[str, ...] = (), lasts_s: int = 600) -> str:
    made = tokens.begin("ana", "session", role, int(time.time()), lasts_s, studies)
    return tokens.sign(made, archive.keys.session_key)


def see(archive: Archive, path: str, shown: str, method: str = "GET") -> int:
    """What the front door gets for a person who shows this token."""
    return requests.request(
        method,
        archive.environment.orthanc_url + path,
        auth=archive.keys.basic("front"),
        cookies={tokens.COOKIE: shown} if shown else {},
        timeout=30,
    ).status_code


@pytest.mark.parametrize("path", PATHS)
def test_a_stranger_gets_nothing(archive: Archive, path: str) -> None:
    url = archive.environment.orthanc_url + path
    for method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
        assert requests.request(method, url, timeout=30).status_code in (401, 404 if method == "HEAD" else 401)
        assert requests.request(method, url, auth=("orthanc", "orthanc"), timeout=30).status_code in (401, 404)
        if path != "/zambezi/door":
            assert see(archive, path, "", method) in (403, 404 if method == "HEAD" else 403)


def test_without_the_plugin_orthanc_is_closed_all_the_same(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    (archive.environment.orthanc_config_dir / "20-plugins.json").unlink()
    folder = str(archive.environment.orthanc_config_dir)
    bare = subprocess.Popen(["/usr/sbin/Orthanc", folder], env=archive.variables, stderr=subprocess.DEVNULL)
    try:
        until(archive.listens)
        for path in PATHS:
            assert requests.get(archive.environment.orthanc_url + path, timeout=30).status_code == 401
        # The front door asks this first: without the plugin it is closed, too.
        assert archive.get("/zambezi/door", "front").status_code == 404
    finally:
        bare.terminate()
        bare.wait(30)


def test_the_first_view_is_in_the_journal_before_the_answer(archive: Archive) -> None:
    one = image()
    archive.send(one)
    study = one.StudyInstanceUID
    until(lambda: archive.events("stored", study_uid=study))
    shown = token(archive)
    assert see(archive, f"/dicom-web/studies/{study}/metadata", shown) == 200
    rows = archive.journal_rows("SELECT payload FROM entries WHERE event = 'viewed'")
    assert study in [json.loads(row[0])["study_uid"] for row in rows]
    assert see(archive, f"/dicom-web/studies/{study}/series", shown) == 200
    assert len(archive.events("viewed", study_uid=study)) == 1, "once a session"
    (viewed,) = archive.events("viewed", study_uid=study)
    assert (viewed["who"], viewed["role"], viewed["kind"]) == ("ana", "radiologist", "session")


def test_what_the_web_viewer_showed_is_gone_from_its_cache_when_it_is_deleted(archive: Archive) -> None:
    gone, kept = image(), image()
    archive.send(gone, kept)
    shown, ids = token(archive), {}
    for one in (gone, kept):
        until(lambda one=one: archive.events("stored", sop_uid=one.SOPInstanceUID))
        (ids[one.SOPInstanceUID],) = archive.as_service().find("Instance", {"SOPInstanceUID": one.SOPInstanceUID})

    def look(one: Dataset) -> int:
        return see(archive, f"/web-viewer/instances/jpeg95-{ids[one.SOPInstanceUID]}_0", shown)

    def cached() -> set[str]:
        """What the files in the cache show, by Orthanc's ids."""
        folder = archive.environment.orthanc_dir / "viewer-cache"
        there = {file.name for file in folder.glob("??/??/*")}
        return {what for file, what in viewer_cache.listed(folder).items() if file in there}

    assert (look(gone), look(kept)) == (200, 200)
    assert cached() >= set(ids.values())
    archive.as_service("custody").request("DELETE", f"/instances/{ids[gone.SOPInstanceUID]}")
    until(lambda: ids[gone.SOPInstanceUID] not in cached())
    assert (look(gone) == 200, look(kept)) == (False, 200)
    assert ids[kept.SOPInstanceUID] in cached()
    archive.stop()
    archive.start()
    assert cached() == set()
    assert look(kept) == 200


def test_viewers_are_told_of_a_corrected_image_what_the_archive_has(archive: Archive) -> None:
    """As a correction does it: the same instance goes, and comes again with another name; its series stays."""
    one = image(PatientName="Antes^Nome")
    other = image(one.StudyInstanceUID, one.SeriesInstanceUID, PatientName="Antes^Nome")
    assert archive.send(one, other) == [0, 0]
    until(lambda: archive.events("stored", sop_uid=other.SOPInstanceUID))
    shown = token(archive)

    def told() -> dict[str, str]:
        path = f"/dicom-web/studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}/metadata"
        answer = requests.get(
            archive.environment.orthanc_url + path, auth=archive.keys.basic("front"), timeout=30,
            cookies={tokens.COOKIE: shown},
        )  # fmt: skip
        return {told["00080018"]["Value"][0]: told["00100010"]["Value"][0]["Alphabetic"] for told in answer.json()}

    assert set(told().values()) == {"Antes^Nome"}
    custody = archive.as_service("custody")
    (there,) = custody.find("Instance", {"SOPInstanceUID": one.SOPInstanceUID})
    custody.request("DELETE", f"/instances/{there}")
    until(lambda: archive.events("deleted", study_uid=one.StudyInstanceUID))
    one.PatientName = "Depois^Nome"
    custody.store(written(one))
    assert told() == {one.SOPInstanceUID: "Depois^Nome", other.SOPInstanceUID: "Antes^Nome"}


def test_a_narrow_token_opens_its_study_and_no_other(archive: Archive) -> None:
    mine, other = image(), image()
    archive.send(mine, other)
    until(lambda: archive.events("stored", study_uid=other.StudyInstanceUID))
    shown = token(archive, "guest", (mine.StudyInstanceUID,))
    a, b = mine.StudyInstanceUID, other.StudyInstanceUID
    series = {
        i["ParentSeries"]: i["ID"] for i in archive.as_service().find("Instance", {"StudyInstanceUID": a}, expand=True)
    }
    ((my_series, my_instance),) = series.items()
    (theirs,) = archive.as_service().find("Instance", {"StudyInstanceUID": b}, expand=True)
    wado = f"/wado?requestType=WADO&studyUID={a}&seriesUID={mine.SeriesInstanceUID}&objectUID={mine.SOPInstanceUID}"
    assert see(archive, f"/dicom-web/studies/{a}/series", shown) == 200
    assert see(archive, wado, shown) == 200
    assert see(archive, "/web-viewer/app/viewer.html", shown) == 200
    assert see(archive, f"/web-viewer/series/{my_series}", shown) == 200
    assert see(archive, f"/web-viewer/instances/jpeg95-{my_instance}_0", shown) == 200
    for path in (
        "/dicom-web/studies", "/dicom-web/series", "/dicom-web/instances", "/studies", "/instances", "/system",
        f"/dicom-web/studies/{b}/series", f"/dicom-web/studies/{a}/series?StudyInstanceUID={b}",
        f"/dicom-web/studies/{a}/series?0020000D={b}", f"/dicom-web/studies/{a}/../{b}/series",
        f"/dicom-web/studies/{a}%2f..%2f{b}/series", f"/dicom-web//studies/{b}/series",
        f"/wado?requestType=WADO&studyUID={b}&objectUID={other.SOPInstanceUID}",
        f"/wado?requestType=WADO&studyUID={a}&studyUID={b}&objectUID={other.SOPInstanceUID}",
        f"/wado?requestType=WADO&objectUID={other.SOPInstanceUID}",
        f"/web-viewer/series/{theirs['ParentSeries']}", f"/web-viewer/instances/jpeg95-{theirs['ID']}_0",
        f"/instances/{my_instance}/file", f"/instances/{theirs['ID']}/file",
    ):  # fmt: skip
        session = requests.Session()
        wanted = requests.Request("GET", archive.environment.orthanc_url, cookies={tokens.COOKIE: shown})
        prepared = session.prepare_request(wanted)
        prepared.url = archive.environment.orthanc_url + path  # as it stands: no tidying by the client
        prepared.prepare_auth(archive.keys.basic("front"))
        assert session.send(prepared, timeout=30).status_code == 403, path
    # WADO holds the object against the study that it names, and a doubled name's last value counts.
    mixed = f"/wado?requestType=WADO&studyUID={a}&objectUID={other.SOPInstanceUID}"
    assert see(archive, mixed, shown) == 404
    doubled = f"/wado?requestType=WADO&studyUID={b}&studyUID={a}&objectUID={other.SOPInstanceUID}"
    assert see(archive, doubled, shown) == 404
    crossed = f"/dicom-web/studies/{a}/series/{other.SeriesInstanceUID}/instances/{other.SOPInstanceUID}"
    for path in ("", "/metadata", "/frames/1", "/rendered", "/bulk/7fe00010"):
        assert see(archive, crossed + path, shown) in (400, 404), path


def test_who_may_see_one_study_sees_nothing_once_it_is_two_patients(archive: Archive) -> None:
    mine = image(PatientID="MINE")
    assert archive.send(mine) == [0]
    until(lambda: archive.events("stored", sop_uid=mine.SOPInstanceUID))
    uid, guest = mine.StudyInstanceUID, token(archive, "guest", (mine.StudyInstanceUID,))
    (held,) = archive.as_service().find("Instance", {"StudyInstanceUID": uid}, expand=True)
    paths = (
        f"/dicom-web/studies/{uid}/series", f"/dicom-web/studies/{uid}/metadata",
        f"/dicom-web/studies?StudyInstanceUID={uid}", f"/web-viewer/series/{held['ParentSeries']}",
        f"/wado?requestType=WADO&studyUID={uid}&seriesUID={mine.SeriesInstanceUID}&objectUID={mine.SOPInstanceUID}",
    )  # fmt: skip
    assert [see(archive, path, guest) for path in paths] == [200] * len(paths)
    theirs = image(uid, PatientID="THEIRS")
    assert archive.send(theirs) == [0]
    until(lambda: archive.events("stored", sop_uid=theirs.SOPInstanceUID))
    assert [see(archive, path, guest) for path in paths] == [403] * len(paths)
    assert see(archive, paths[0], token(archive)) == 200


def test_no_viewer_has_the_archive_compress_into_what_it_may_not_survive(archive: Archive) -> None:
    one = image()
    archive.send(one)
    until(lambda: archive.events("stored", sop_uid=one.SOPInstanceUID))
    path = f"/dicom-web/studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}/instances/{one.SOPInstanceUID}"
    shown = {tokens.COOKIE: token(archive)}
    for frames, accept, status in (
        ("/frames/1", "multipart/related; type=application/octet-stream; transfer-syntax=*", 200),
        ("", "multipart/related; type=application/dicom; transfer-syntax=1.2.840.10008.1.2.1", 200),
        ("", "multipart/related; type=application/dicom; transfer-syntax=1.2.840.10008.1.2.4.80", 403),
        ("/frames/1", "multipart/related; type=image/jls", 403),
    ):
        answered = requests.get(
            archive.environment.orthanc_url + path + frames, auth=archive.keys.basic("front"), cookies=shown,
            headers={"Accept": accept}, timeout=30,
        )  # fmt: skip
        assert answered.status_code == status, accept


def test_a_revoked_session_is_closed_at_once(archive: Archive) -> None:
    made = tokens.begin("rui", "session", "radiologist", int(time.time()), 600)
    shown = tokens.sign(made, archive.keys.session_key)
    assert see(archive, "/dicom-web/studies", shown) == 200
    archive.put("/zambezi/revocations", {"generation": 5, "sessions": {made.session: made.expires}})
    assert see(archive, "/dicom-web/studies", shown) == 403
    old = archive.put("/zambezi/revocations", {"generation": 4, "sessions": {}})
    assert old.json() == {"generation": 5}
    assert see(archive, "/dicom-web/studies", shown) == 403


def test_a_faked_method_is_seen_as_what_it_does(archive: Archive) -> None:
    shown = token(archive, "administrator")
    assert see(archive, "/studies", shown) == 200
    assert see(archive, "/studies?_method=DELETE", shown) == 403
    answer = archive.get("/changes", headers={"X-HTTP-Method-Override": "DELETE"})
    assert answer.status_code == 403


def test_refusals_are_in_the_journal_and_bounded(archive: Archive) -> None:
    for _ in range(50):
        assert archive.get("/tools/reset", "migration").status_code == 403
    told = until(lambda: [e for e in archive.events("refused") if e.get("who") == "migration"])
    assert len(told) <= 2


def test_the_journal_is_followed_by_its_hash(archive: Archive) -> None:
    archive.send(image())
    until(lambda: archive.get("/zambezi/status").json()["seq"] > 3)
    page = archive.get("/zambezi/journal?since=0&limit=3").json()
    assert [one["seq"] for one in page["entries"]] == [1, 2, 3]
    third = page["entries"][2]
    after = archive.get(f"/zambezi/journal?since=3&hash={third['hash']}&limit=1")
    assert after.json()["entries"][0]["seq"] == 4
    for since, head in ((3, "0" * 64), (3, ""), (99_999_999, third["hash"])):
        wrong = archive.get(f"/zambezi/journal?since={since}&hash={head}")
        assert wrong.status_code == 409
        assert wrong.json()["journal"] == page["journal"]
    assert archive.get("/zambezi/journal?since=x").status_code == 400


def test_a_long_poll_answers_when_there_is_something(archive: Archive) -> None:
    time.sleep(1.5)  # studies that are open complete
    status = archive.get("/zambezi/status").json()
    answer: dict[str, Any] = {}

    def poll() -> None:
        began = time.monotonic()
        page = archive.get(f"/zambezi/journal?since={status['seq']}&hash={status['hash']}&wait=20").json()
        answer.update(seconds=time.monotonic() - began, entries=page["entries"])

    waiting = threading.Thread(target=poll)
    waiting.start()
    time.sleep(0.4)
    assert archive.get("/system").elapsed.total_seconds() < 1, "others are served meanwhile"
    archive.send(image())
    waiting.join()
    assert answer["entries"]
    assert answer["seconds"] < 3


def item(aet: str, name: str, accession: str) -> str:
    """A worklist item, as the gateway pushes it."""
    dataset, step = Dataset(), Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID, dataset.AccessionNumber = name, "X1", accession
    dataset.StudyInstanceUID = generate_uid()
    step.Modality, step.ScheduledStationAETitle = "CT", aet
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = "20260301", "0900"
    dataset.ScheduledProcedureStepSequence = [step]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.31"
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return base64.b64encode(out.getvalue()).decode()


def ask_worklist(archive: Archive, aet: str, name: str = "") -> str:
    """What DCMTK's findscu gets."""
    keys = [
        f"PatientName={name}",
        "AccessionNumber",
        "SpecificCharacterSet",
        "ScheduledProcedureStepSequence[0].Modality=CT",
    ]
    done = subprocess.run(
        ["findscu", "-W", "-aet", aet, "-aec", "ZAMBEZI", "127.0.0.1", str(archive.environment.ports.dicom)]
        + [part for key in keys for part in ("-k", key)],
        capture_output=True,
        check=False,
    )
    return (done.stdout + done.stderr).decode("latin-1")


def test_the_worklist_is_answered_to_its_station_with_accents_and_after_a_restart(archive: Archive) -> None:
    entries = [
        {"aets": ["CT1"], "study_uid": "1.2", "dicom": item("CT1", "Conceição^João", "Z1")},
        {"aets": ["US1"], "study_uid": "1.3", "dicom": item("US1", "Outro^Paciente", "Z2")},
    ]
    assert archive.put("/zambezi/worklist", {"generation": 7, "entries": entries}).json() == {"generation": 7}
    answer = ask_worklist(archive, "CT1")
    assert "Conceição^João" in answer
    assert "Outro" not in answer
    assert "Outro" in ask_worklist(archive, "US1")
    assert archive.put("/zambezi/worklist", {"generation": 6, "entries": []}).json() == {"generation": 7}
    assert archive.put("/zambezi/worklist", {"generation": 8, "entries": [{"aets": []}]}).status_code == 400
    archive.stop()
    archive.start()
    assert "Conceição^João" in ask_worklist(archive, "CT1")
    assert "Conceição" not in ask_worklist(archive, "NOBODY")
    asked = until(lambda: archive.events("queried", kind="worklist", aet="CT1"))
    assert asked[0]["called_aet"] == "ZAMBEZI"
    assert asked[0]["query"]["0040,0100"][0]["0008,0060"] == "CT"


def test_a_fault_in_the_configuration_stops_orthanc_with_every_fault(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    (archive.environment.orthanc_config_dir / "30-zambezi.json").write_text('{"Zambezi": {"A": 1, "B": 2}}')
    archive.start(wait=False)
    assert archive.process is not None
    assert archive.process.wait(30) == 2
    assert "Zambezi.A" in archive.log
    assert "Zambezi.B" in archive.log
    orthanc = ["/usr/sbin/Orthanc", str(archive.environment.orthanc_config_dir)]
    variables = {**archive.variables, "PYTHONPATH": f"{Path.cwd()}:{Path(requests.__file__).parent.parent}"}
    ended = subprocess.run(orthanc, env=variables, capture_output=True, check=False, timeout=60)
    assert ended.returncode == 255
    assert b"Zambezi.A" in ended.stderr
    assert b"Zambezi.B" in ended.stderr


def test_a_port_in_use_is_said_in_a_sentence(tmp_path: Path, archive: Archive) -> None:
    other = Archive(tmp_path, variables={"ZAMBEZI_DICOM_PORT": str(archive.environment.ports.dicom)})
    other.start(wait=False)
    assert other.process is not None
    assert other.process.wait(30) == 2
    assert f"port {archive.environment.ports.dicom} (DICOM) is in use" in other.log
    assert "Traceback" not in other.log
