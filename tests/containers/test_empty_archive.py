"""`docker compose up` alone: an empty archive, healthy, with one way in, and closed to everybody else."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
import requests
from flask import Flask
from pynetdicom import AE

from demo import images
from demo.doors import FRONT_PATHS, ORTHANC_PATHS, RIS_PATHS
from demo.modality import CT_IMAGE_STORAGE, Modality, ModalityRefused
from demo.person import Person, PersonStuck
from tests.containers.installation import PASSING, PROCESSES, PUBLISHED, Installation
from zambezi import composition
from zambezi.access import PUBLIC
from zambezi.access.tokens import COOKIE

#: Asks each (port, path) of its argument without and with invented credentials; prints [port, path, status] of all.
ASK = """
import base64, http.client, json, sys
seen = []
for port, path in json.loads(sys.argv[1]):
    for who in (None, "orthanc:orthanc", "front:front", "operations:"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        basic = {"Authorization": "Basic " + base64.b64encode(who.encode()).decode()} if who else {}
        connection.request("GET", path, headers=basic)
        seen.append([port, path, connection.getresponse().status])
print(json.dumps(seen))
"""

#: Prints how many instances Orthanc holds.
COUNT = """
from zambezi import keys
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancClient
environment = Environment.read()
asking = OrthancClient(environment, keys.load(environment.keys_file), "operations")
print(asking.get("/statistics")["CountInstances"])
"""


def test_every_process_is_found_healthy_and_what_prepares_has_ended_well(empty: Installation):
    assert {name: empty.health(name) for name in (*PROCESSES, "postgres")} == dict.fromkeys(
        (*PROCESSES, "postgres"), "healthy"
    )
    assert [empty.container(name).attrs["State"]["ExitCode"] for name in PASSING] == [0, 0]
    assert empty.container("orthanc").image.tags == ["zambezi-test:latest"]


def test_the_one_time_password_opens_an_archive_without_a_study(empty: Installation):
    said = empty.container("prepare").logs().decode()
    found = re.search(r"first sign-in +(\S+), one-time password (\S+)", said)
    assert found, said
    login, once = found.groups()
    person = Person(empty.front_url)
    person.submit("/session", having="password", login=login, password=once)
    chosen = "nossa-primeira-chave-2026"
    person.submit("/session/settle", having="again", password=chosen, again=chosen)
    assert "/session" not in person.get("/account").url
    assert person.get("/orthanc/statistics").json()["CountInstances"] == 0
    studies = requests.get(f"{empty.front_url}/dicom-web/studies", cookies={COOKIE: person.cookie}, timeout=30)
    assert (studies.status_code, studies.json()) == (200, [])
    with pytest.raises(PersonStuck):
        Person(empty.front_url).sign_in(login, once)


def everything_of_the_ris() -> list[tuple[str, str]]:
    """(method, path) of each view that isn't for everyone."""
    app = Flask("all views")
    for name in composition.PAGE_SETS:
        app.register_blueprint(composition.load(name))
    return [
        (method, re.sub(r"<[^>]*>", "1", rule.rule))
        for rule in app.url_map.iter_rules()
        if getattr(app.view_functions[rule.endpoint], "zambezi_requires", PUBLIC) != PUBLIC
        for method in rule.methods - {"HEAD", "OPTIONS"}
    ]


def test_no_path_of_the_front_door_answers_without_a_token(empty: Installation):
    asked = {*everything_of_the_ris(), *(("GET", path) for path in FRONT_PATHS + RIS_PATHS)}
    assert len(asked) > 60
    with requests.Session() as stranger:
        for method, path in sorted(asked):
            answer = stranger.request(method, empty.front_url + path, allow_redirects=False, timeout=30)
            assert answer.status_code in (401, 403, 404), (method, path, answer.status_code)
        page = stranger.get(empty.front_url + "/", headers={"Accept": "text/html"}, allow_redirects=False, timeout=30)
    assert (page.status_code, page.headers["Location"][:8]) == (303, "/session")


def test_orthanc_and_ris_hear_the_pod_alone_and_nobody_there_without_credentials(empty: Installation):
    pod = empty.container("pod")
    (network,) = pod.attrs["NetworkSettings"]["Networks"].values()
    address = network["IPAddress"]
    published = {int(port.partition("/")[0]) for port, where in pod.ports.items() if where}
    assert published == set(PUBLISHED) - {4252}  # a second node has it
    assert not any(empty.container(name).ports.get("5432/tcp") for name in ("postgres", "pod"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 8000), timeout=5)
    # Orthanc listens everywhere, and hears nobody who is not on its loopback, whatever he knows.
    known = json.loads(empty.run("ris", "cat", "/var/lib/zambezi/keys.json")[1])["services"]
    for path in ORTHANC_PATHS:
        for credentials in (None, ("operations", known["operations"])):
            answer = requests.get(f"http://{address}:8042{path}", auth=credentials, timeout=10)
            assert answer.status_code in (401, 403), (path, credentials and credentials[0], answer.status_code)

    paths = [[8042, path] for path in ORTHANC_PATHS] + [[8000, path] for path in RIS_PATHS]
    code, said = empty.run("ris", "/usr/bin/python3", "-c", ASK, json.dumps(paths))
    assert code == 0, said
    seen = json.loads(said)
    assert len(seen) == 4 * len(paths)
    assert [one for one in seen if one[2] != 401] == []


def test_postgresql_demands_the_password(empty: Installation):
    look = "import psycopg, sys; psycopg.connect(sys.argv[1], password=sys.argv[2])"
    for database in ("orthanc", "zambezi"):
        url = f"postgresql://{database}@postgres/{database}"
        for password in ("", "zambezi", "orthanc", "postgres"):
            code, said = empty.run("ris", "/opt/zambezi/.venv/bin/python", "-c", look, url, password)
            assert code == 1, database
            assert "password" in said, said


def test_unknown_senders_are_refused_at_each_port_and_leave_nothing(empty: Installation, tmp_path: Path):
    exam = images.Exam("NOBODY", "Ninguem", "19700101", "O", "", images.uid("containers", "stranger"), "20260105")
    (image,) = images.ct_slices(exam, 1, tmp_path)
    for aet in ("STRANGER", "CT1", "ZAMBEZI"):
        sender = Modality(aet, empty.ports[4242], empty.ports[4243])
        with pytest.raises(ModalityRefused):
            sender.store([image])
        for port in (4242, 4243):
            with pytest.raises(ModalityRefused):
                sender.worklist(empty.ports[port])
        entity = AE(aet)
        entity.add_requested_context(CT_IMAGE_STORAGE)
        assert entity.associate("127.0.0.1", empty.ports[4244], ae_title="ZAMBEZI").is_rejected, "by who listens there"
    with socket.create_connection(("127.0.0.1", empty.ports[2575]), timeout=10) as his:
        his.settimeout(20)
        assert his.recv(1) == b""  # closed before a word
    assert empty.run("orthanc", "/opt/zambezi/.venv/bin/python", "-c", COUNT) == (0, "0\n")
