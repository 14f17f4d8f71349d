"""The front door of a whole installation: what each kind of visitor gets on each family of paths, and nothing more."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from demo import images
from demo.hospital import PASSWORD, PEOPLE, Hospital, wait_for
from operations import readiness, supervision
from ris_service.session import ENTERING, SETTLING, STRANGER, step
from tests import invariants
from tests.asking import Answer, Asker
from zambezi import clock, keys
from zambezi.access import may, routes, tokens
from zambezi.access.routes import Route, Shows
from zambezi.database.tables import AuditEntry, Series, Study

ROLES = {role: login for login, _, role in PEOPLE}
#: Nobody who is refused may read any of this.
SECRETS = ("DOORPATIENT", "DOOROTHER", "Chissano", "Macuácua")


@dataclass(frozen=True)
class Studies:
    """Two studies of one patient and one of another; `series` and `sops` are the DICOM UIDs in each, in that order."""

    uids: tuple[str, str, str]
    series: tuple[str, str, str]
    sops: tuple[str, str, str]
    orthanc_series: tuple[str, str, str]
    orthanc_studies: tuple[str, str, str]


@pytest.fixture(scope="module")
def studies(hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> Studies:
    exams = [
        images.Exam("DOORPATIENT", "Chissano^Alda", "19700101", "F", "", images.uid("door", "first"), "20260105"),
        images.Exam("DOORPATIENT", "Chissano^Alda", "19700101", "F", "", images.uid("door", "second"), "20260106"),
        images.Exam("DOOROTHER", "Macuácua^Rui", "19800101", "M", "", images.uid("door", "other"), "20260107"),
    ]
    for exam in exams:
        hospital.ct.store(images.ct_slices(exam, 2, tmp_path_factory.mktemp("door")))
    uids = [exam.study_uid for exam in exams]

    def in_the_ris() -> bool:
        with hospital.database().begin() as session:
            return len(session.scalars(select(Series).where(Series.study_uid.in_(uids))).all()) == len(uids)

    wait_for("the studies in the RIS", in_the_ris, 60)
    held = [hospital.orthanc().find("Series", {"StudyInstanceUID": uid}, expand=True)[0] for uid in uids]
    return Studies(
        *(
            (values[0], values[1], values[2])
            for values in (
                uids,
                [images.uid(uid, "series") for uid in uids],
                [images.uid(uid, "slice", "1") for uid in uids],
                [series["ID"] for series in held],
                [series["ParentStudy"] for series in held],
            )
        )
    )


@pytest.fixture(scope="module")
def stranger(hospital: Hospital) -> Asker:
    return Asker(hospital.environment.front_url)


@pytest.fixture(scope="module")
def people(hospital: Hospital) -> dict[str, Asker]:
    """A signed-in browser for each role."""
    return {
        role: Asker(hospital.environment.front_url, cookie=hospital.person(login).cookie)
        for role, login in ROLES.items()
    }


def issued(hospital: Hospital, kind: str, *more: str) -> str:
    return hospital.zambezi("token", "issue", "--kind", kind, "--name", "door", *more).strip()


@pytest.fixture(scope="module")
def share(hospital: Hospital, studies: Studies) -> Asker:
    return Asker(hospital.environment.front_url, cookie=issued(hospital, "share", "--study", studies.uids[0]))


@pytest.fixture(scope="module")
def emergency(hospital: Hospital) -> Asker:
    return Asker(hospital.environment.front_url, header=issued(hospital, "emergency"))


def session_key(hospital: Hospital) -> str:
    return keys.load(hospital.environment.keys_file).session_key


def useless_tokens(hospital: Hospital, studies: Studies) -> dict[str, str]:
    """Tokens that open nothing, each for its own reason."""
    now = int(clock.now().timestamp())
    key = session_key(hospital)
    good = tokens.begin("radiologista", "session", "radiologist", now, 600)
    unsigned = tokens.sign(good, key).rpartition(".")[0]
    claims_of_another = tokens.sign(dataclasses.replace(good, role="administrator"), key).split(".")[1]
    return {
        "forged": tokens.sign(good, "00" * 32),
        "unsigned": unsigned + ".",
        "other claims": f"v1.{claims_of_another}.{tokens.sign(good, key).split('.')[2]}",
        "expired": tokens.sign(dataclasses.replace(good, started=now - 900, expires=now - 1), key),
        "nonsense": "v1.e30.e30",
        "no role": tokens.sign(dataclasses.replace(good, role=""), key),
        **{kind: tokens.sign(step("radiologista", kind, now), key) for kind in (STRANGER, ENTERING, SETTLING)},
    }


def archive_paths(studies: Studies, which: int = 0) -> list[str]:
    """Every family of the archive's paths, for one study."""
    study, series, sop = studies.uids[which], studies.series[which], studies.sops[which]
    return [
        "/dicom-web/studies",
        f"/dicom-web/studies?StudyInstanceUID={study}",
        f"/dicom-web/studies/{study}/metadata",
        f"/dicom-web/studies/{study}/series/{series}/instances/{sop}/frames/1",
        "/dicom-web/instances",
        f"/wado?requestType=WADO&studyUID={study}&seriesUID={series}&objectUID={sop}&contentType=image/png",
        f"/web-viewer/app/viewer.html?series={studies.orthanc_series[which]}",
        f"/web-viewer/series/{studies.orthanc_series[which]}",
        f"/viewer?StudyInstanceUIDs={study}",
        "/orthanc/system",
        "/orthanc/studies",
        f"/orthanc/studies/{studies.orthanc_studies[which]}",
        f"/orthanc/studies/{studies.orthanc_studies[which]}/archive",
        "/orthanc/app/explorer.html",
    ]


RIS_PAGES = ("/", "/orders/new", "/studies", "/deliveries", "/exceptions", "/audit", "/users", "/migrations", "/health")
#: Page -> roles that may see it.
OPEN_PAGES = {
    "/": {"administrator", "pacs-administrator", "radiologist", "radiographer", "reception"},
    "/orders/new": {"administrator", "pacs-administrator", "radiographer", "reception"},
    "/studies": {"administrator", "pacs-administrator", "radiologist", "radiographer", "migration-engineer"},
    "/deliveries": {"administrator", "pacs-administrator", "radiologist", "radiographer"},
    "/exceptions": {"administrator", "pacs-administrator", "radiologist", "radiographer", "migration-engineer"},
    "/audit": {"administrator"},
    "/users": {"administrator"},
    "/migrations": {"administrator", "migration-engineer"},
    "/health": {"administrator", "pacs-administrator", "migration-engineer"},
}


def tells_nothing(answer: Answer, what: str) -> None:
    told = [secret for secret in SECRETS if secret in answer.text]
    assert not told, f"{what}: {answer.status}, and it names {told}"


# --- who gets what -----------------------------------------------------------------------------------


def test_a_stranger_gets_a_refusal_that_can_be_acted_on(stranger: Asker, studies: Studies):
    for path in archive_paths(studies):
        answer = stranger.ask(path)
        assert answer.status == 403, path
        assert 'href="/session' in answer.text, path
        tells_nothing(answer, path)
    for page in (*RIS_PAGES, f"/studies/{studies.uids[0]}", f"/studies/{studies.uids[0]}/report"):
        assert stranger.ask(page).status == 401, page
        led = stranger.ask(page, headers={"Accept": "text/html"})
        assert (led.status, led.headers["location"].partition("?")[0]) == (303, "/session"), page


def test_a_token_that_is_not_good_is_no_token(hospital: Hospital, studies: Studies):
    for why, token in useless_tokens(hospital, studies).items():
        for asker in (
            Asker(hospital.environment.front_url, cookie=token),
            Asker(hospital.environment.front_url, header=token),
        ):
            for path in archive_paths(studies):
                answer = asker.ask(path)
                assert answer.status == 403, f"{why}: {path}"
                tells_nothing(answer, f"{why}: {path}")
        for page in ("/studies", "/audit", f"/studies/{studies.uids[0]}"):
            answer = Asker(hospital.environment.front_url, cookie=token).ask(page)
            assert answer.status in (401, 403), f"{why}: {page}"
            tells_nothing(answer, f"{why}: {page}")


def test_a_sign_in_that_ended_leads_back_to_the_images(stranger: Asker, studies: Studies):
    answer = stranger.ask(f"/viewer?StudyInstanceUIDs={studies.uids[0]}")
    assert f'href="/session?next=/viewer?StudyInstanceUIDs={studies.uids[0]}"' in answer.text
    for strange in ('"><script>', "%22%3E%3Cscript%3E", "1.2&x=<b>", "//evil.example"):
        refused = stranger.ask(f"/viewer?StudyInstanceUIDs={strange}")
        assert "script" not in refused.text and "evil" not in refused.text and "<b>" not in refused.text


def test_each_role_gets_its_own_pages_and_no_other(people: dict[str, Asker]):
    for role, asker in people.items():
        for page, open_to in OPEN_PAGES.items():
            assert asker.ask(page).status == (200 if role in open_to else 403), f"{role}: {page}"


def test_each_role_gets_its_own_paths_of_the_archive_and_no_other(people: dict[str, Asker], studies: Studies):
    for role, asker in people.items():
        for path in archive_paths(studies):
            everything = path in ("/orthanc/system", "/orthanc/studies", "/orthanc/app/explorer.html")
            allowed = role == "administrator" if everything else role != "reception"
            answer = asker.ask(path)
            assert answer.status == (200 if allowed else 403), f"{role}: {path}"
            if not allowed:
                tells_nothing(answer, f"{role}: {path}")


def test_an_emergency_token_opens_images_and_no_page(emergency: Asker, studies: Studies):
    for path in archive_paths(studies):
        everything = path in ("/orthanc/system", "/orthanc/studies", "/orthanc/app/explorer.html")
        assert emergency.ask(path).status == (403 if everything else 200), path


def test_a_service_token_has_the_rights_of_its_role(hospital: Hospital, studies: Studies):
    auditor = Asker(hospital.environment.front_url, header=issued(hospital, "service", "--role", "reception"))
    assert {auditor.ask(path).status for path in archive_paths(studies)} == {403}


def test_a_share_token_opens_its_study_and_no_other(share: Asker, studies: Studies):
    broad = ("/dicom-web/studies", "/dicom-web/instances")
    for path in archive_paths(studies):
        allowed = path not in broad and not path.startswith("/orthanc/")
        answer = share.ask(path)
        assert answer.status == (200 if allowed else 403), path
        for other in (studies.uids[1], studies.uids[2]):
            assert other not in answer.text, path
    for which in (1, 2):
        for path in archive_paths(studies, which):
            if path.startswith(("/viewer", "/web-viewer/app/")):
                continue  # the viewer's own files, without an image
            answer = share.ask(path)
            assert answer.status == 403, path
            tells_nothing(answer, path)


def test_a_share_token_gets_no_other_study_by_mixing_identifiers(share: Asker, studies: Studies):
    mine, (_, theirs, stranger_uid) = studies.uids[0], studies.uids
    for which in (1, 2):
        series, sop = studies.series[which], studies.sops[which]
        for path in (
            f"/wado?requestType=WADO&studyUID={mine}&seriesUID={series}&objectUID={sop}&contentType=image/png",
            f"/wado?requestType=WADO&studyUID={mine}&objectUID={sop}&contentType=image/png",
            f"/wado?requestType=WADO&studyUID={studies.uids[which]}&studyUID={mine}&objectUID={sop}",
            f"/wado?requestType=WADO&studyUID={mine}&studyUID={studies.uids[which]}&objectUID={sop}",
            f"/dicom-web/studies/{mine}/series/{series}/metadata",
            f"/dicom-web/studies/{mine}/series/{series}/instances/{sop}",
            f"/dicom-web/studies/{mine}/series/{series}/instances/{sop}/frames/1",
            f"/dicom-web/studies/{mine}/series/{series}/instances/{sop}/rendered",
            f"/dicom-web/studies/{mine}/series/{studies.series[0]}/instances/{sop}/metadata",
            f"/dicom-web/studies/{mine}/../{theirs}/metadata",
            f"/dicom-web/studies/{mine}/%2e%2e/{theirs}/metadata",
            f"/dicom-web/studies/{mine}%2f..%2f{stranger_uid}/metadata",
            f"/dicom-web//studies//{theirs}//metadata",
            f"/dicom-web/studies/{mine}%5C{theirs}/metadata",
            f"/dicom-web/studies/{mine},{theirs}/metadata",
        ):
            answer = share.ask(path, headers={"Accept": "*/*"})
            assert answer.status >= 400, path
            tells_nothing(answer, path)
        for path in (
            f"/dicom-web/studies/{mine}/series?SeriesInstanceUID={series}",
            f"/dicom-web/studies/{mine}/instances?SOPInstanceUID={sop}",
        ):
            answer = share.ask(path)
            assert studies.uids[which] not in answer.text and sop not in answer.text, path


def test_a_list_that_names_one_study_holds_that_study_alone(share: Asker, studies: Studies):
    """OHIF asks for it first. Other studies of the same patient are in the archive."""
    mine, theirs, _ = studies.uids
    ohif = f"limit=101&offset=0&fuzzymatching=false&includefield=00081030,00080060&StudyInstanceUID={mine}"
    everything = f"StudyInstanceUID={mine}&includefield=00201200,00201202,0020000D,all"
    last_counts = f"StudyInstanceUID={theirs}&StudyInstanceUID={mine}"
    for query in (f"StudyInstanceUID={mine}", ohif, everything, last_counts):
        answer = share.ask(f"/dicom-web/studies?{query}")
        assert answer.status == 200, query
        assert [study["0020000D"]["Value"] for study in json.loads(answer.body)] == [[mine]], query
        assert "00201200" not in json.loads(answer.body)[0], "how many studies the patient has"
    for query in (
        f"StudyInstanceUID={theirs}", f"StudyInstanceUID={mine}&StudyInstanceUID={theirs}",
        f"StudyInstanceUID={mine},{theirs}", f"StudyInstanceUID={mine}%5C{theirs}",
        f"StudyInstanceUID={mine}&0020000D={theirs}",
        f"StudyInstanceUID={mine}&%30020000D={theirs}", f"studyinstanceuid={mine}",
        f"StudyInstanceUID={mine}&%53tudyInstanceUID={theirs}", f"0020000D={mine}",
        "StudyInstanceUID=", "StudyInstanceUID=*", "00100020=DOORPATIENT",
        f"StudyInstanceUID={mine}&00100020=DOORPATIENT",
        "PatientID=DOORPATIENT", f"StudyInstanceUID={mine};PatientID=DOORPATIENT", "",
    ):  # fmt: skip
        answer = share.ask(f"/dicom-web/studies?{query}")
        assert answer.status == 403, query
        tells_nothing(answer, query)


def real_path(hospital: Hospital, studies: Studies, route: Route, which: int) -> str:
    """The route's path as the front door has it, with one of the studies in it."""
    instance = hospital.orthanc().get(f"/series/{studies.orthanc_series[which]}")["Instances"][0]
    ids = {"studies": studies.orthanc_studies[which], "series": studies.orthanc_series[which], "instances": instance}
    path = route.path.replace("{study}", studies.uids[which]).replace("{series}", studies.series[which])
    path = path.replace("{instance}", studies.sops[which]).replace("{*}", "x")
    path = path.replace("/web-viewer/instances/{frame}", f"/web-viewer/instances/jpeg95-{instance}_0")
    path = path.replace("/web-viewer/series/{id}", f"/web-viewer/series/{ids['series']}")
    path = path.replace("/is-stable-series/{id}", f"/is-stable-series/{ids['series']}")
    path = path.replace("{id}", ids.get(path.split("/")[1], "x")).replace("{frame}", "1")
    path = path.replace("{", "").replace("}", "")
    if path == "/wado":
        path += (
            f"?requestType=WADO&studyUID={studies.uids[which]}&objectUID={studies.sops[which]}&contentType=image/png"
        )
    if path in ("/dicom-web/studies", "/dicom-web/series", "/dicom-web/instances"):
        path += "?limit=1"  # after the rounds of killing, a list of everything takes seconds
    return path if path.startswith(("/dicom-web/", "/wado", "/web-viewer/")) else f"/orthanc{path}"


def test_a_share_link_reaches_its_study_and_no_other_on_every_path_there_is(
    hospital: Hospital, share: Asker, studies: Studies
):
    for which, address in ((0, "127.0.1.1"), (1, "127.0.1.2"), (2, "127.0.1.3")):
        asker = dataclasses.replace(share, address=address)
        connection = asker.connection()
        for route in routes.ROUTES:
            path = real_path(hospital, studies, route, which)
            answer = asker.ask_on(connection, path)
            opens = {Shows.STUDY, Shows.VIEWER} if which == 0 else {Shows.VIEWER}
            own = route.shows in opens and not route.path.startswith("/zambezi")
            assert (answer.status not in (403, 404)) is own or (own and answer.status == 404), f"{answer.status} {path}"
            if not own:
                tells_nothing(answer, path)
        connection.close()


def test_a_sample_of_the_table_holds_for_each_role_at_the_front_door(
    hospital: Hospital, people: dict[str, Asker], emergency: Asker, stranger: Asker, studies: Studies
):
    askers = {**people, "emergency": emergency, "": stranger}
    sample = [route for shows in Shows for route in [one for one in routes.ROUTES if one.shows is shows][::9][:5]]
    for number, (role, asker) in enumerate(askers.items()):
        asking = dataclasses.replace(asker, address=f"127.0.2.{number + 1}")
        for route in sample:
            wide, explores = may(role, "images.view"), may(role, "orthanc.explore")
            sees = route.shows in (Shows.STUDY, Shows.FILES, Shows.LIST, Shows.BY_ID, Shows.SITE, Shows.VIEWER) and wide
            sees = sees or (route.shows is Shows.EXPLORER and explores)
            path = real_path(hospital, studies, route, 0)
            status = asking.ask(path).status
            closed = status == 403 or (route.path.startswith("/zambezi") and status == 404)
            assert closed is not (sees and not route.path.startswith("/zambezi")), f"{role}: {status} {path}"


def test_who_sees_a_part_opens_study_by_study_and_others_in_an_emergency_alone(hospital: Hospital, studies: Studies):
    """From the account to the filter inside Orthanc: what a sign-in opens is what its token names."""
    hospital.zambezi("user", "add", "parcial", "--name", "Dr. Parcial", "--role", "radiologist", "--password-stdin",
                     said=PASSWORD + "\n")  # fmt: skip
    assert "parcial sees CR" in hospital.zambezi("user", "scope", "parcial", "--modality", "CR")
    person = hospital.person("parcial")

    def asks(path: str) -> int:
        return Asker(hospital.environment.front_url, cookie=person.cookie).ask(path).status

    for path in archive_paths(studies):
        assert asks(path) == (200 if path.startswith(("/viewer", "/web-viewer/app/")) else 403), path
    assert (asks("/studies"), asks("/exceptions"), asks(f"/studies/{studies.uids[0]}/images")) == (200, 403, 404)
    reason = {"number": "DOOROTHER", "reason": "politrauma, bloco operatório"}
    assert "Macuácua" in person.submit("/emergency", having="number", **reason).text
    own, other = (f"/dicom-web/studies/{studies.uids[which]}/metadata" for which in (2, 0))
    assert (asks(own), asks(other), asks("/dicom-web/studies")) == (200, 403, 403)
    with hospital.database().begin() as session:
        told = session.scalars(select(AuditEntry).where(AuditEntry.event == "glass-broken")).all()
        senders = session.scalars(select(Study.sender).where(Study.study_uid.in_(studies.uids))).all()
    assert [(one.who, one.study_uid) for one in told] == [("parcial", studies.uids[2])]
    assert senders == ["CT1", "CT1", "CT1"]

    assert "parcial sees CT" in hospital.zambezi("user", "scope", "parcial", "--modality", "CT")
    invariants.eventually("the sign-in ends", lambda: "" if asks(own) == 403 else "still open", 30)
    person = hospital.person("parcial")
    assert asks(other) == 403
    person.get(f"/studies/{studies.uids[0]}/images")
    assert (asks(other), asks(own), asks("/dicom-web/studies")) == (200, 403, 403)


def test_signing_out_closes_the_archive_too(hospital: Hospital, studies: Studies):
    person = hospital.person(ROLES["radiologist"])
    asker = Asker(hospital.environment.front_url, cookie=person.cookie)
    path = f"/dicom-web/studies/{studies.uids[0]}/metadata"
    assert asker.ask(path).status == 200
    person.submit("/account", having="/session/end")
    assert asker.ask("/account").status == 401
    invariants.eventually(
        "the archive knows", lambda: "" if asker.ask(path).status == 403 else "the old cookie still opens a study", 30
    )
    assert asker.ask(f"/viewer?StudyInstanceUIDs={studies.uids[0]}").status == 403


def test_a_revoked_share_token_opens_nothing(hospital: Hospital, studies: Studies):
    token = issued(hospital, "share", "--study", studies.uids[0])
    asker = Asker(hospital.environment.front_url, header=token)
    path = f"/dicom-web/studies/{studies.uids[0]}/metadata"
    assert asker.ask(path).status == 200
    hospital.zambezi("token", "revoke", token)
    invariants.eventually("revoked", lambda: "" if asker.ask(path).status == 403 else "it still opens the study", 30)


def test_the_audit_trail_names_the_address_that_asked_not_the_one_that_was_claimed(
    hospital: Hospital, studies: Studies
):
    token = issued(hospital, "share", "--study", studies.uids[1])
    asker = Asker(hospital.environment.front_url, header=token, address="127.0.0.5")
    claims = {"X-Real-IP": "203.0.113.9", "X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    assert asker.ask(f"/dicom-web/studies/{studies.uids[1]}/metadata", headers=claims).status == 200
    session_id = tokens.read(token, session_key(hospital), 0).session

    def recorded() -> str:
        with hospital.database().begin() as session:
            entries = session.scalars(select(AuditEntry).where(AuditEntry.event == "viewed")).all()
        found = [json.loads(entry.payload) for entry in entries]
        mine = [entry for entry in found if entry["session"] == session_id]
        return "" if [entry["ip"] for entry in mine] == ["127.0.0.5"] else f"found {mine}"

    invariants.eventually("the view in the audit trail", recorded, 30)


# --- paths, methods, bodies ----------------------------------------------------------------------------


def test_the_plugins_own_paths_are_not_there(people: dict[str, Asker], stranger: Asker):
    for asker in (stranger, people["administrator"]):
        for path in (
            "/zambezi", "/zambezi/", "/zambezi/status", "/zambezi/journal?since=0", "/zambezi/door",
            "/zambezi/viewer-door",
            "//zambezi/status", "/zambezi//status", "/./zambezi/status", "/%7aambezi/status", "/orthanc/zambezi",
            "/orthanc/zambezi/status", "/orthanc//zambezi/status", "/orthanc/%7Aambezi/status",
            "/orthanc/x/../zambezi/status",
            "/orthanc/..%2fzambezi/status", "/dicom-web/..%2fzambezi/status", "/web-viewer/..%2f..%2fzambezi/status",
            "/_door", "/_viewer_door", "/_refused", "/_archive_away", "/orthanc/%2e%2e/zambezi/status",
        ):  # fmt: skip
            answer = asker.ask(path)
            assert answer.status in (400, 401, 403, 404), path
            assert b"journal" not in answer.body and b"hash" not in answer.body, path


def test_nothing_lies_behind_dots_and_doubled_or_encoded_slashes(stranger: Asker, studies: Studies):
    for path in archive_paths(studies):
        for written in (
            path.replace("/", "//", 1),
            path.replace("/", "/./", 1),
            "/x/.." + path,
            "/x/%2e%2e" + path,
            path[0] + path[1:].replace("/", "%2f", 1),
            "/viewer/.." + path,
            "/session/..%2f.." + path,
            path.replace("/", "/%5c/", 1),
        ):
            answer = stranger.ask(written)
            assert answer.status in (400, 401, 403, 404), written
            tells_nothing(answer, written)
    for outside in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc/passwd",
                    "/static/..%2f..%2fkeys.json",
                    "/.ohif", "/installed", "/keys.json", "/run/nginx.conf", "/front-authorization.conf"):  # fmt: skip
        answer = stranger.ask(outside)
        assert answer.status in (400, 401, 403, 404), outside
        assert b"root:" not in answer.body and b"session_key" not in answer.body, outside


def test_an_unknown_path_is_never_answered_with_some_other_page(stranger: Asker, people: dict[str, Asker]):
    for path in ("/nowhere", "/viewer/", "/viewer/x", "/viewer/x.js", "/index.html", "/sw.js", "/local", "/viewerx",
                 "/static/nowhere.css", "/studies/1.2.3/nowhere", "/wado/x"):  # fmt: skip
        assert people["radiologist"].ask(path).status == 404, path
        assert stranger.ask(path).status in (401, 404), path


def test_through_the_door_the_archive_is_only_read(people: dict[str, Asker], stranger: Asker, studies: Studies):
    before = hospital_count(people["administrator"])
    for asker in (stranger, people["administrator"]):
        for path in (*archive_paths(studies), "/orthanc/tools/shutdown", "/orthanc/tools/reset", "/orthanc/instances"):
            for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "MOVE"):
                if path.startswith("/viewer") and method in ("POST", "OPTIONS"):
                    continue  # a file; nginx says 405 there
                status = asker.ask(path, method, b"{}" if method in ("POST", "PUT", "PATCH") else None).status
                assert status in (400, 403, 405), f"{method} {path}"
            overridden = asker.ask(path, headers={"X-HTTP-Method-Override": "DELETE"}).status
            assert overridden in (200, 400, 403, 404, 405), path
    assert hospital_count(people["administrator"]) == before


def hospital_count(administrator: Asker) -> int:
    return int(json.loads(administrator.ask("/orthanc/statistics").body)["CountInstances"])


def test_bodies_are_limited_and_never_compressed(stranger: Asker):
    compressed = stranger.ask("/session", "POST", b"x", {"Content-Encoding": "gzip"})
    assert compressed.status == 415 and "Content-Encoding" in compressed.text
    for path in ("/session", "/dicom-web/studies", "/orthanc/instances"):
        large = stranger.ask(path, "POST", headers={"Content-Length": str(2**30)})
        assert large.status in (403, 413), path
    assert "too large" in stranger.ask("/session", "POST", headers={"Content-Length": str(2**30)}).text


def test_every_page_carries_its_security_headers(stranger: Asker, people: dict[str, Asker], studies: Studies):
    for answer in (
        stranger.ask("/session"),
        people["radiologist"].ask("/studies"),
        people["reception"].ask("/audit"),
        stranger.ask("/viewer"),
        people["radiologist"].ask(f"/viewer?StudyInstanceUIDs={studies.uids[0]}"),
    ):
        assert "default-src 'none'" in answer.headers["content-security-policy"] or (
            "default-src 'self'" in answer.headers["content-security-policy"]
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["x-frame-options"] in ("DENY", "SAMEORIGIN")
        assert "no-store" in answer.headers["cache-control"]
        assert "strict-transport-security" not in answer.headers, "there is no TLS here"
        assert "." not in answer.headers.get("server", ""), "the version is nobody's business"
    pixels = people["radiologist"].ask(f"/dicom-web/studies/{studies.uids[0]}/metadata")
    assert pixels.headers["cache-control"] == "no-store"


# --- how much -------------------------------------------------------------------------------------------


def test_a_viewers_burst_is_not_slowed(hospital: Hospital, people: dict[str, Asker], studies: Studies):
    """OHIF fetches the frames of a series on six connections, as fast as they come."""
    asker = dataclasses.replace(people["radiologist"], address="127.0.0.6")
    path = f"/dicom-web/studies/{studies.uids[0]}/series/{studies.series[0]}/instances/{studies.sops[0]}/frames/1"
    seen: list[int] = []

    def fetch() -> None:
        connection = asker.connection()
        seen.extend(asker.ask_on(connection, path).status for _ in range(50))
        connection.close()

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [200] * 300


def test_a_flood_is_answered_with_a_sentence(stranger: Asker):
    flooding = dataclasses.replace(stranger, address="127.0.0.7")
    connection = flooding.connection()
    for _ in range(20_000):
        answer = flooding.ask_on(connection, "/app-config.js")
        if answer.status != 200:
            break
    assert answer.status == 429
    assert "wait a few seconds" in answer.text
    assert stranger.ask("/app-config.js").status == 200, "others are not slowed"
    guessing = dataclasses.replace(stranger, address="127.0.0.8")
    seen = {guessing.ask("/session").status for _ in range(60)}
    assert seen == {200, 429}


# --- when a neighbour is away ------------------------------------------------------------------------------


@contextmanager
def without(hospital: Hospital, process: str) -> Iterator[None]:
    """The installation with one process stopped; afterwards it is ready again."""
    environment = hospital.environment
    supervisor = supervision.supervisor(environment)
    supervisor.stopProcess(process)
    try:
        yield
    finally:
        supervisor.startProcess(process)
        probe = readiness.probes(environment, keys.load(environment.keys_file), clock.now())[process]
        invariants.eventually(f"{process} is ready", probe, 60)
        time.sleep(1.5)  # nginx asks a neighbour that refused it again after a moment


def test_without_orthanc_the_archive_says_so_and_the_pages_open(
    hospital: Hospital, people: dict[str, Asker], studies: Studies
):
    with without(hospital, "orthanc"):
        time.sleep(1.2)  # longer than the door's answer is remembered
        for path in archive_paths(studies):
            answer = people["radiologist"].ask(path)
            assert answer.status == 503, path
            assert "try again in a minute" in answer.text, path
        for page in ("/", "/studies", f"/studies/{studies.uids[0]}"):
            assert people["radiologist"].ask(page).status == 200, page


def test_without_the_ris_an_emergency_reader_sees_images(hospital: Hospital, emergency: Asker, studies: Studies):
    by_cookie = Asker(hospital.environment.front_url, cookie=emergency.header)
    with without(hospital, "ris"):
        for asker in (emergency, by_cookie):
            for path in archive_paths(studies)[:9]:
                assert asker.ask(path).status == 200, path
        page = emergency.ask("/studies")
        assert page.status == 503
        assert "RIS is starting or stopped" in page.text


def test_behind_the_door_an_orthanc_without_our_plugin_is_closed(
    hospital: Hospital, people: dict[str, Asker], studies: Studies, tmp_path: Path
):
    config = tmp_path / "config"
    shutil.copytree(hospital.environment.orthanc_config_dir, config)
    next(file for file in config.glob("*.json") if '"PythonScript"' in file.read_text()).unlink()
    variables = {**hospital.variables(), "ZAMBEZI_HOME": str(tmp_path)}
    with without(hospital, "orthanc"), (tmp_path / "log").open("w") as log:
        bare = subprocess.Popen(["/usr/sbin/Orthanc", str(config)], env=variables, stdout=log, stderr=log)
        try:
            own = Asker(hospital.environment.orthanc_url)

            def is_up() -> bool:
                try:
                    return own.ask("/system").status == 401
                except OSError:
                    return False

            wait_for("an Orthanc without our plugin", is_up, 30)
            time.sleep(1.2)  # longer than the door's answer is remembered
            for path in archive_paths(studies):
                for role in ("administrator", "radiologist"):
                    assert people[role].ask(path).status == 403, f"{role}: {path}"
        finally:
            bare.terminate()
            bare.wait(30)


# --- what is left of it --------------------------------------------------------------------------------------


def test_logs_hold_no_query_no_token_and_no_patient(hospital: Hospital, share: Asker, studies: Studies):
    share.ask(f"/dicom-web/studies?StudyInstanceUID={studies.uids[0]}&token={share.cookie}")
    share.ask(f"/viewer?StudyInstanceUIDs={studies.uids[0]}")
    logs = {file.name: file.read_text(errors="replace") for file in hospital.environment.logs_dir.glob("*.log*")}
    assert '"GET /viewer" 200' in logs["front.log"]
    for name, text in logs.items():
        for secret in (share.cookie, share.cookie.split(".")[1], *SECRETS):
            assert secret not in text, f"{name} holds {secret[:20]}"
    assert "?" not in logs["front.log"]
    assert "StudyInstanceUID" not in logs["front.log"]
