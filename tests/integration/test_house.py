"""The house of an installation of its own: TLS, new rules while it runs, what a kill leaves, whose its files are."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, Association, evt
from sqlalchemy import select

from demo import images
from demo.hospital import PASSWORD, Hospital, wait_for
from demo.modality import CT_IMAGE_STORAGE, Modality, ModalityRefused
from demo.neighbours import free_port
from gateway.commitment import reporting
from gateway.commitment.requests import SOP_CLASS as COMMITMENT
from gateway.commitment.requests import SOP_INSTANCE
from operations import supervision
from tests import invariants
from tests.integration.test_gateway_modalities import MPPS, begin, ending
from tests.running import a_hospital
from zambezi.access.tokens import COOKIE
from zambezi.account import ACCOUNT
from zambezi.database.tables import Delivery
from zambezi.environment import Environment

#: Where the modality CTTLS listens itself.
CTTLS_PORT = free_port()


def certify(folder: Path, name: str) -> str:
    """A self-signed certificate name.crt with its key name.key; its fingerprint as openssl prints it."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-days", "2",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    (folder / f"{name}.key").chmod(0o600)
    printed = subprocess.run(
        ["openssl", "x509", "-noout", "-fingerprint", "-sha1", "-in", folder / f"{name}.crt"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return printed.stdout.strip().partition("=")[2]


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Certificates of four modalities, name.crt and name.key in one folder (`folder`), and their fingerprints."""
    folder = tmp_path_factory.mktemp("cards")
    names = ("CTTLS", "MRTLS", "unnamed", "rogue")
    return {"folder": str(folder), **{name: certify(folder, name) for name in names}}


@pytest.fixture(scope="module")
def house(cards: dict[str, str]) -> Iterator[Hospital]:
    """A hospital whose front door has a certificate, and two modalities that have one, too."""

    def prepare(environment: Environment) -> None:
        certificates = environment.home / "certificates"
        certify(certificates, "front")
        vouched = ("CTTLS", "MRTLS", "unnamed")  # one of them is nobody in the configuration
        shutil.copy(Path(cards["folder"]) / "CTTLS.crt", certificates / "cttls.crt")
        bundle = "".join((Path(cards["folder"]) / f"{name}.crt").read_text() for name in vouched)
        (certificates / "dicom-peers.crt").write_text(bundle)
        may = '"AllowEcho": true, "AllowStore": true, "AllowFind": false, "AllowGet": false, "AllowMove": false'
        edit(
            environment.config_dir / "40-peers.json", '"DicomModalities": {',
            f'"CTTLS": {{ "AET": "CTTLS", "Host": "127.0.10.1", "Port": 104, {may} }},'
            f'"MRTLS": {{ "AET": "MRTLS", "Host": "127.0.10.2", "Port": 104, {may} }},',
        )  # fmt: skip
        at_its_end = {
            "Name": "when-it-ends", "When": {"CallingAet": "CTTLS"}, "SendTo": ["BACKUP"],
            "Completeness": {"QuietSeconds": 3600, "By": ["mpps"], "SettleSeconds": 0.5},
        }  # fmt: skip
        edit(environment.config_dir / "30-zambezi.json", '"Routing": [', f"{json.dumps(at_its_end)},")
        edit(
            environment.config_dir / "30-zambezi.json", '"Zambezi": {',
            f'"DicomTls": {{ "Certificates": {{ "CTTLS": "{cards["CTTLS"]}", '
            f'"MRTLS": "{cards["MRTLS"].replace(":", "").lower()}" }}, "Calls": {{ "CTTLS": {{ '
            f'"CaFile": "certificates/cttls.crt", "Host": "127.0.0.1", "Port": {CTTLS_PORT} }} }} }},'
            '"StorageCommitment": { "RetrySeconds": 1 },',
        )  # fmt: skip

    with a_hospital(before=prepare) as running:
        yield running


def edit(file: Path, after: str, more: str) -> None:
    """Put more text behind a place in a file of JSON."""
    text = file.read_text()
    assert after in text
    file.write_text(text.replace(after, after + more, 1))


def an_exam(word: str, modality_sends: str = "20260109") -> images.Exam:
    return images.Exam(f"HOUSE{word}", "Sithole^Farai", "19810503", "M", "", images.uid("house", word), modality_sends)


# --- TLS ------------------------------------------------------------------------------------------


def handshake(port: int, version: str, ciphers: str = "ALL") -> str:
    """What `openssl s_client` says of a handshake with one version of TLS (at level 0 it offers old ones, too)."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", f"-{version}", "-cipher", f"{ciphers}:@SECLEVEL=0"],
        input=b"", capture_output=True, timeout=30,
    )  # fmt: skip
    return (done.stdout + done.stderr).decode(errors="replace")


def test_https_speaks_tls_1_2_and_1_3_and_nothing_older(house: Hospital):
    port = house.environment.ports.https
    for old in ("tls1", "tls1_1"):
        said = handshake(port, old)
        assert "alert protocol version" in said, said[-500:]
    assert re.search(r"Protocol *: TLSv1\.2|New, TLSv1\.2", handshake(port, "tls1_2"))
    assert "New, TLSv1.3" in handshake(port, "tls1_3")
    assert "handshake failure" in handshake(port, "tls1_2", "AES128-SHA:AES256-SHA")


def test_over_https_the_cookie_stays_on_https(house: Hospital):
    url = f"https://127.0.0.1:{house.environment.ports.https}"
    trusted = str(house.environment.home / "certificates" / "front.crt")
    with requests.Session() as browser:
        browser.trust_env = False
        page = browser.get(f"{url}/session", verify=trusted, timeout=30)
        assert page.headers["Strict-Transport-Security"] == "max-age=31536000"
        word = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
        assert word
        form = {"csrf_token": word[1], "login": "radiologista", "password": PASSWORD}
        entered = browser.post(
            f"{url}/session", data=form, headers={"Referer": f"{url}/session"}, verify=trusted, timeout=30,
            allow_redirects=False,
        )  # fmt: skip
        assert entered.status_code == 303
        cookie = entered.headers["Set-Cookie"]
        assert cookie.startswith(f"{COOKIE}=v1.")
        assert {"Secure", "HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
        studies = browser.get(f"{url}/dicom-web/studies", verify=trusted, timeout=30)
        assert studies.status_code == 200
        assert studies.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_plain_http_is_for_this_machine_alone(house: Hospital):
    with socket.create_connection(("127.0.0.1", house.environment.ports.http), timeout=5):
        pass
    listening = (Path("/proc/net/tcp").read_text()).splitlines()[1:]
    bound = {line.split()[1] for line in listening if line.split()[3] == "0A"}
    assert f"0100007F:{house.environment.ports.http:04X}" in bound
    assert f"00000000:{house.environment.ports.http:04X}" not in bound


def over_tls(
    house: Hospital, cards: dict[str, str], card: str, calling: str, port: int, program: str, *more: str | Path
) -> subprocess.CompletedProcess[str]:
    """One of dcmtk's programs with one of the certificates, under an AE title; `more` are its options."""
    folder = Path(cards["folder"])
    trusted = house.environment.home / "certificates" / "front.crt"
    shown = ["+tls", folder / f"{card}.key", folder / f"{card}.crt"] if card else ["+tla"]
    options = [one for one in more if not isinstance(one, Path)]
    files = [one for one in more if isinstance(one, Path)]
    return subprocess.run(
        [program, *shown, "+cf", trusted, "-to", "10", "-aet", calling, "-aec", "ZAMBEZI", *options,
         "127.0.0.1", str(port), *files],
        capture_output=True, text=True, errors="replace", timeout=60,
    )  # fmt: skip


def store_over_tls(
    house: Hospital, cards: dict[str, str], card: str, calling: str, images_sent: list[Path]
) -> subprocess.CompletedProcess[str]:
    """C-STORE to the archive."""
    return over_tls(
        house, cards, card, calling, house.environment.ports.dicom_tls, "storescu", "-R", *images_sent
    )  # fmt: skip


def test_a_modality_with_its_certificate_stores_over_tls(house: Hospital, cards: dict[str, str], tmp_path: Path):
    for name in ("CTTLS", "MRTLS"):
        done = store_over_tls(house, cards, name, name, images.ct_slices(an_exam(name), 2, tmp_path / name))
        assert done.returncode == 0, done.stderr
        held = house.orthanc().find("Instance", {"StudyInstanceUID": an_exam(name).study_uid})
        assert len(held) == 2


@pytest.mark.parametrize(
    ("card", "calling"),
    [
        ("rogue", "CTTLS"),  # nobody vouches for it
        ("unnamed", "CTTLS"),  # vouched for, but it stands for no peer
        ("MRTLS", "CTTLS"),  # another peer's certificate
        ("CTTLS", "CT1"),  # an AE title that is believed without TLS, from its own address
        ("CTTLS", "STRANGER"),
        ("", "CTTLS"),  # no certificate at all
    ],
)
def test_a_certificate_stands_for_its_own_ae_title_and_no_other(
    house: Hospital, cards: dict[str, str], card: str, calling: str, tmp_path: Path
):
    exam = an_exam(f"TLS{card}{calling}")
    done = store_over_tls(house, cards, card, calling, images.ct_slices(exam, 1, tmp_path))
    assert done.returncode != 0
    assert over_tls(house, cards, card, calling, house.environment.ports.mpps_tls, "echoscu").returncode != 0
    assert house.orthanc().find("Instance", {"StudyInstanceUID": exam.study_uid}) == []


@contextmanager
def the_ris_node(
    house: Hospital, cards: dict[str, str], told: Callable[[evt.Event], tuple[int, None]]
) -> Iterator[Association]:
    """An association of CTTLS with the gateway, over TLS, on which commitment reports are taken."""
    trusted = ssl.create_default_context(cafile=str(house.environment.home / "certificates" / "front.crt"))
    trusted.load_cert_chain(Path(cards["folder"]) / "CTTLS.crt", Path(cards["folder"]) / "CTTLS.key")
    modality = AE("CTTLS")
    for sop_class in (MPPS, COMMITMENT):
        modality.add_requested_context(sop_class)
    made = modality.associate(
        "127.0.0.1", house.environment.ports.mpps_tls, ae_title="ZAMBEZI", tls_args=(trusted, "localhost"),
        evt_handlers=[(evt.EVT_N_EVENT_REPORT, told)],
    )  # fmt: skip
    assert made.is_established
    yield made
    made.release()


def test_a_modality_with_its_certificate_gets_its_worklist_and_hears_what_is_safe_however_long_it_waits(
    house: Hospital, cards: dict[str, str], tmp_path: Path
):
    listed = ("-W", "-k", "PatientID", "-k", "ScheduledProcedureStepSequence[0].Modality")
    for program, options in (("echoscu", ()), ("findscu", listed)):
        done = over_tls(house, cards, "CTTLS", "CTTLS", house.environment.ports.mpps_tls, program, *options)
        assert done.returncode == 0, done.stderr
    (file,) = images.ct_slices(an_exam("SAFE"), 1, tmp_path)
    assert store_over_tls(house, cards, "CTTLS", "CTTLS", [file]).returncode == 0
    sop_uid = images.uid(an_exam("SAFE").study_uid, "slice", "1")
    reports: list[tuple[int | None, list[str]]] = []

    def told(event: evt.Event) -> tuple[int, None]:
        safe = event.event_information.ReferencedSOPSequence
        reports.append((event.event_type, [one.ReferencedSOPInstanceUID for one in safe]))
        return 0, None

    _, asked = reporting.information(generate_uid(), [(CT_IMAGE_STORAGE, sop_uid)], [])
    with the_ris_node(house, cards, told) as made:
        assert made.send_n_action(asked, 1, COMMITMENT, SOP_INSTANCE)[0].Status == 0
        invariants.eventually("the report on its own association", lambda: "" if reports else "nothing came", 30)
    _, asked = reporting.information(generate_uid(), [(CT_IMAGE_STORAGE, sop_uid)], [])
    with the_ris_node(house, cards, told) as made:
        assert made.send_n_action(asked, 1, COMMITMENT, SOP_INSTANCE)[0].Status == 0
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(Path(cards["folder"]) / "CTTLS.crt", Path(cards["folder"]) / "CTTLS.key")
    listening = AE("CTTLS")
    listening.add_supported_context(COMMITMENT, scu_role=False, scp_role=True)
    server = listening.start_server(
        ("127.0.0.1", CTTLS_PORT), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, told)], ssl_context=own
    )
    try:
        invariants.eventually("the report at its address", lambda: "" if len(reports) > 1 else "nothing came", 60)
    finally:
        server.shutdown()
    assert reports == [(reporting.ALL_SAFE, [sop_uid])] * 2


def test_an_exam_that_the_modality_ends_is_routed_once_all_that_it_counts_is_here(
    house: Hospital, cards: dict[str, str], tmp_path: Path
):
    """MPPS and images, through front door, gateway, archive and central database to the other archive."""
    exam = an_exam("ENDS")
    first, second = images.ct_slices(exam, 2, tmp_path)

    def state() -> str:
        with house.database().begin() as session:
            query = select(Delivery).where(Delivery.study_uid == exam.study_uid, Delivery.rule == "when-it-ends")
            return ", ".join(row.state for row in session.scalars(query))

    begun, ended, step = begin(None), ending("COMPLETED"), generate_uid()
    begun.ScheduledStepAttributesSequence[0].StudyInstanceUID = exam.study_uid
    made_here = Dataset()
    made_here.SeriesInstanceUID = images.uid(exam.study_uid, "series")
    made_here.ReferencedImageSequence = [Dataset() for _ in (first, second)]
    for n, one in enumerate(made_here.ReferencedImageSequence, 1):
        one.ReferencedSOPClassUID = CT_IMAGE_STORAGE
        one.ReferencedSOPInstanceUID = images.uid(exam.study_uid, "slice", str(n))
    ended.PerformedSeriesSequence = [made_here]
    with the_ris_node(house, cards, lambda _: (0, None)) as made:
        assert made.send_n_create(begun, MPPS, step)[0].Status == 0
        assert store_over_tls(house, cards, "CTTLS", "CTTLS", [first]).returncode == 0
        assert made.send_n_set(ended, MPPS, step)[0].Status == 0
    time.sleep(3)
    assert state() == "", "the modality counts two images, one is here"
    assert store_over_tls(house, cards, "CTTLS", "CTTLS", [second]).returncode == 0
    invariants.eventually("the delivery", lambda: "" if state() == "delivered" else f"found {state() or 'none'}", 60)
    assert "+ when-it-ends: 2 of 2 instances meet" in house.zambezi("route", "explain", exam.study_uid)


def test_a_peer_of_tls_is_not_believed_without_it(house: Hospital, tmp_path: Path):
    ports = house.environment.ports
    with pytest.raises(ModalityRefused):
        Modality("CTTLS", ports.dicom, ports.mpps).store(images.ct_slices(an_exam("PLAIN"), 1, tmp_path))


def test_dicom_over_tls_takes_no_old_version(house: Hospital):
    for port in (house.environment.ports.dicom_tls, house.environment.ports.mpps_tls):
        said = handshake(port, "tls1_1")
        assert "alert protocol version" in said, said[-500:]


# --- new rules while it runs -----------------------------------------------------------------------------------


@pytest.fixture
def settings(house: Hospital) -> Iterator[Path]:
    """The folder of JSON, put back as it was, with a reload."""
    folder = house.environment.config_dir
    before = {file: file.read_text() for file in folder.glob("*.json")}
    yield folder
    for file, text in before.items():
        file.write_text(text)
    house.zambezi("config", "reload")


def orthanc_pid(house: Hospital) -> int:
    return next(p.pid for p in supervision.processes(house.environment) or [] if p.name == "orthanc")


def test_orthanc_runs_with_the_allocator_that_make_install_brings(house: Hospital):
    keeper = orthanc_pid(house)
    (orthanc,) = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()

    assert "libjemalloc.so.2" in Path(f"/proc/{orthanc}/maps").read_text()


def test_a_reload_brings_rules_and_peers_to_an_archive_that_runs_on(house: Hospital, settings: Path, tmp_path: Path):
    running = orthanc_pid(house)
    ports = house.environment.ports
    newcomer = Modality("NEWMR", ports.dicom, ports.mpps)
    slices = images.ct_slices(an_exam("NEW"), 2, tmp_path)
    with pytest.raises(ModalityRefused):
        newcomer.store(slices)
    peers = settings / "40-peers.json"
    peers.write_text(
        peers.read_text().replace(
            '"DicomModalities": {',
            '"DicomModalities": { "NEWMR": { "AET": "NEWMR", "Host": "127.0.0.1", "Port": 11113, "AllowEcho": true, '
            '"AllowStore": true, "AllowFind": false, "AllowGet": false, "AllowMove": false },',
        )
    )
    rules = settings / "30-zambezi.json"
    rules.write_text(
        rules.read_text().replace(
            '"Routing": [',
            '"Routing": [ { "Name": "newcomers", "When": { "CallingAet": ["NEWMR"] }, "SendTo": ["BACKUP"] },',
        )
    )
    said = house.zambezi("config", "reload")
    assert "taken by the archive" in said
    house.person("radiologista").get("/studies")  # the pages are there at once
    newcomer.store(slices)

    def routed() -> str:
        with house.database().begin() as session:
            rows = session.scalars(select(Delivery).where(Delivery.study_uid == an_exam("NEW").study_uid)).all()
        found = {(row.rule, row.destination, row.state) for row in rows}
        return "" if ("newcomers", "BACKUP", "delivered") in found else f"found {found}"

    invariants.eventually("a delivery by the new rule", routed, 60)
    assert orthanc_pid(house) == running, "Orthanc was not started again"
    assert "NEWMR" in house.orthanc().get("/modalities")


def test_a_peer_that_was_taken_out_may_store_no_more(house: Hospital, settings: Path, tmp_path: Path):
    peers = settings / "40-peers.json"
    peers.write_text(peers.read_text().replace('"AET": "CT1"', '"AET": "CT9"'))
    house.zambezi("config", "reload")
    with pytest.raises(ModalityRefused):
        house.ct.store(images.ct_slices(an_exam("GONE"), 1, tmp_path))


def test_a_reload_with_faults_names_them_all_and_changes_nothing(house: Hospital, settings: Path, tmp_path: Path):
    before = house.orthanc().get("/zambezi/status")["configuration"]
    snapshot = {file.name: file.read_bytes() for file in house.environment.orthanc_config_dir.glob("*.json")}
    since = {p.name: p.pid for p in supervision.processes(house.environment) or []}
    rules = settings / "30-zambezi.json"
    rules.write_text(rules.read_text().replace('"SendTo": ["SECOND", "BACKUP"]', '"SendTo": ["NOWHERE"], "Whom": 1'))
    own = settings / "10-orthanc.json"
    own.write_text(own.read_text().replace('"OverwriteInstances": false', '"OverwriteInstances": true'))
    done = house.try_zambezi("config", "reload")
    assert done.returncode == 2
    for fault in (
        "Zambezi.Routing[1].Whom: no such key",
        "OverwriteInstances: found True",
        "nothing was started or changed",
    ):
        assert fault in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert house.orthanc().get("/zambezi/status")["configuration"] == before
    assert {file.name: file.read_bytes() for file in house.environment.orthanc_config_dir.glob("*.json")} == snapshot
    assert {p.name: p.pid for p in supervision.processes(house.environment) or []} == since
    house.ct.store(images.ct_slices(an_exam("OLDRULES"), 1, tmp_path))


# --- whose its files are ------------------------------------------------------------------------------------------


def test_no_file_is_roots_and_none_is_open_to_others(house: Hospital, tmp_path: Path):
    house.ct.store(images.ct_slices(an_exam("FILES"), 1, tmp_path))
    house.person("radiologista").get("/studies")
    house.try_zambezi("status")
    house.zambezi("audit", "verify")
    house.zambezi("user", "list")
    house.zambezi("token", "issue", "--kind", "emergency", "--name", "files")
    house.zambezi("config", "check")
    home = house.environment.home
    assert home.owner() == (ACCOUNT if os.geteuid() == 0 else home.parent.owner())
    neighbours = home / "neighbours"  # the demo's other systems, no part of the installation
    seen = 0
    for path in home.rglob("*"):
        if path.is_relative_to(neighbours) or path == neighbours:
            continue
        found = path.lstat()
        assert found.st_uid == home.stat().st_uid, f"{path} belongs to {path.owner()}"
        if path.is_relative_to(home / "certificates") and path.suffix == ".crt":
            continue  # everybody is shown it
        if stat.S_ISREG(found.st_mode) or stat.S_ISSOCK(found.st_mode):
            reachable = all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents if parent != path)
            assert not (reachable and found.st_mode & stat.S_IRWXO), f"{path}: {stat.filemode(found.st_mode)}"
            seen += 1
    assert seen > 20
    for secret in (
        "keys.json",
        "run/front-authorization.conf",
        "orthanc/config/99-secrets.json",
        "certificates/front.key",
    ):
        assert stat.S_IMODE((home / secret).stat().st_mode) == 0o600, secret
    for folder in ("run", "logs", "orthanc", "plugin", "keys", "certificates"):
        assert not (home / folder).stat().st_mode & stat.S_IRWXO, folder


# --- what a kill leaves ------------------------------------------------------------------------------------------


def pids(house: Hospital) -> dict[str, int]:
    return {p.name: p.pid for p in supervision.processes(house.environment) or []}


def supervisord_pid(house: Hospital) -> int:
    return int(supervision.supervisor(house.environment).getPID())


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def all_well(house: Hospital) -> bool:
    found = json.loads(house.try_zambezi("status", "--json").stdout or "{}")
    return bool(found) and all(p.state == "RUNNING" for p in supervision.processes(house.environment) or [])


def test_a_start_after_supervisord_was_killed_ends_what_it_left(house: Hospital, tmp_path: Path):
    before = pids(house)
    os.kill(supervisord_pid(house), signal.SIGKILL)
    wait_for("a dead supervisord", lambda: supervision.processes(house.environment) is None)
    time.sleep(1)
    assert all(runs(pid) for pid in before.values()), "its children stay"
    assert (house.environment.run_dir / "supervisord.pid").exists(), "and so do its files"
    said = house.zambezi("up", "--detach")
    assert "were ended" in said and f"orthanc ({before['orthanc']})" in said
    assert not any(runs(pid) for pid in before.values())
    assert set(pids(house)) == set(before) and all_well(house)
    house.ct.store(images.ct_slices(an_exam("AFTER"), 2, tmp_path))
    assert "runs in" in house.zambezi("up", "--detach"), "a second start changes nothing"
    house.zambezi("audit", "verify")


def test_a_stop_after_supervisord_was_killed_ends_what_it_left(house: Hospital):
    before = pids(house)
    os.kill(supervisord_pid(house), signal.SIGKILL)
    wait_for("a dead supervisord", lambda: supervision.processes(house.environment) is None)
    assert "were ended" in house.zambezi("down")
    assert not any(runs(pid) for pid in before.values())
    assert "Nothing runs" in house.zambezi("down"), "a second stop changes nothing"
    house.zambezi("up", "--detach")
    assert all_well(house)


def test_a_start_after_everything_was_killed(house: Hospital, tmp_path: Path):
    house.ct.store(images.ct_slices(an_exam("KILLED"), 3, tmp_path))
    before = pids(house)
    for pid in (supervisord_pid(house), *before.values()):
        os.kill(pid, signal.SIGKILL)
    wait_for("an end of all", lambda: not any(runs(pid) for pid in before.values()))
    run = house.environment.run_dir
    assert (run / "supervisor.sock").exists() and (run / "supervisord.pid").exists() and (run / "nginx.pid").exists()
    house.zambezi("up", "--detach")
    assert all_well(house)
    held = house.orthanc().find("Instance", {"StudyInstanceUID": an_exam("KILLED").study_uid})
    assert len(held) == 3
    house.zambezi("audit", "verify")
