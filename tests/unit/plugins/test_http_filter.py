"""Who may do what over Orthanc's HTTP: the table."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pytest

from plugins.http_filter import Decision, Request, decide
from zambezi.access import tokens

KEY = "11" * 32
NOW = 1_800_000_000
A, B = "1.2.3", "1.2.4"
SHARED = "1.2.5"  # by two patients' images
MINE = "aaaaaaaa-aaaaaaaa-aaaaaaaa-aaaaaaaa-aaaaaaaa"
THEIRS = "bbbbbbbb-bbbbbbbb-bbbbbbbb-bbbbbbbb-bbbbbbbb"
UNKNOWN = "cccccccc-cccccccc-cccccccc-cccccccc-cccccccc"


def study_of(level: str, orthanc_id: str) -> str | None:
    return {MINE: A, THEIRS: B}.get(orthanc_id)


def basic(user: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:secret".encode()).decode()


def ask(
    user: str,
    method: str,
    path: str,
    arguments: Mapping[str, str] | None = None,
    shown: str = "",
    header: str = "",
    revoked: frozenset[str] = frozenset(),
) -> Decision:
    headers = {"authorization": basic(user)} if user else {}
    if shown:
        headers["cookie"] = f"other=1; {tokens.COOKIE}={shown}"
    if header:
        headers[tokens.HEADER] = header
    asked = Request(method, path, "127.0.0.1", headers, arguments or {})
    return decide(asked, KEY, revoked, NOW, study_of, lambda uid: 2 if uid == SHARED else 1)


def token(role: str, *studies: str, lasts_s: int = 60, key: str = KEY) -> str:
    return tokens.sign(tokens.begin("ana", "session", role, NOW, lasts_s, studies), key)


@pytest.mark.parametrize(
    ("service", "method", "path", "allowed"),
    [
        ("gateway", "GET", "/instances/x/file", True),
        ("gateway", "GET", "/zambezi/journal", True),
        ("gateway", "POST", "/modalities/PACS2/store", True),
        ("gateway", "POST", "/modalities/PACS2/query", True),
        ("gateway", "POST", "/queries/0123-4567/retrieve", True),
        ("gateway", "POST", "/modalities/a/b/store", False),
        ("gateway", "PUT", "/modalities/PACS2", False),
        ("gateway", "POST", "/tools/find", True),
        ("gateway", "POST", "/tools/find/", True),
        ("gateway", "POST", "/tools/bulk-content", True),
        ("gateway", "POST", "/peers/HARARE/store", True),
        ("gateway", "POST", "/peers/HARARE/store/", True),
        ("gateway", "PUT", "/peers/HARARE", False),
        ("gateway", "POST", "/tools/bulk-delete", False),
        ("gateway", "POST", "/jobs/1/cancel", True),
        ("gateway", "DELETE", "/queries/1", True),
        ("gateway", "DELETE", "/studies/1", False),
        ("gateway", "PUT", "/zambezi/worklist", True),
        ("gateway", "POST", "/zambezi/reload", False),
        ("operations", "POST", "/zambezi/reload", True),
        ("operations", "PUT", "/zambezi/revocations", False),
        ("operations", "PUT", "/modalities/NEW", False),
        ("operations", "POST", "/modalities/CT1/echo", True),
        ("operations", "POST", "/modalities/CT1/store", False),
        ("gateway", "POST", "/instances", True),
        ("gateway", "DELETE", "/instances/x", False),
        ("ris", "POST", "/instances", True),
        ("ris", "POST", "/instances/x/modify", False),
        ("ris", "POST", "/tools/find", True),
        ("ris", "PUT", "/zambezi/worklist", False),
        ("ris", "DELETE", "/instances/x", False),
        ("migration", "POST", "/modalities/OLD/move", True),
        ("migration", "POST", "/modalities/OLD/query", True),
        ("migration", "POST", "/modalities/OLD/store", False),
        ("migration", "POST", "/queries/1/retrieve", True),
        ("migration", "DELETE", "/queries/1", True),
        ("migration", "POST", "/tools/bulk-content", True),
        ("migration", "POST", "/tools/bulk-delete", False),
        ("migration", "POST", "/jobs/1/cancel", True),
        ("migration", "POST", "/jobs/1/resubmit", False),
        ("migration", "POST", "/instances", True),
        ("operations", "GET", "/statistics", True),
        ("operations", "POST", "/tools/find", True),
        ("operations", "POST", "/instances", False),
        ("operations", "PUT", "/zambezi/worklist", False),
        ("recovery", "POST", "/instances", True),
        ("recovery", "GET", "/zambezi/status", True),
        ("recovery", "DELETE", "/instances/x", False),
        ("recovery", "DELETE", f"/instances/{MINE}", False),
        ("ris", "DELETE", f"/instances/{MINE}", False),
        ("gateway", "DELETE", f"/instances/{MINE}", False),
        ("migration", "DELETE", f"/instances/{MINE}", False),
        ("operations", "DELETE", f"/instances/{MINE}", False),
        ("custody", "DELETE", f"/instances/{MINE}", True),
        ("custody", "DELETE", f"/instances/{MINE}/", True),
        ("custody", "DELETE", f"/instances/{MINE}/metadata/1024", False),
        ("custody", "DELETE", f"/instances/{MINE}/attachments/dicom", False),
        ("custody", "DELETE", "/instances/x", False),
        ("custody", "DELETE", f"/series/{MINE}", False),
        ("custody", "DELETE", f"/studies/{MINE}", False),
        ("custody", "DELETE", f"/patients/{MINE}", False),
        ("custody", "DELETE", "/exports", False),
        ("custody", "POST", "/tools/bulk-delete", False),
        ("custody", "POST", f"/instances/{MINE}/modify", False),
        ("custody", "POST", "/instances", True),
        ("custody", "PUT", "/zambezi/announced", False),
        ("custody", "GET", "/zambezi/status", True),
        ("nobody", "GET", "/system", False),
        ("", "GET", "/system", False),
        ("GATEWAY", "GET", "/system", False),
        ("custody", "DELETE", "/instances/" + "-".join(["0123abcd"] * 5), True),
        ("custody", "DELETE", "/studies/" + "-".join(["0123abcd"] * 5), False),
        ("custody", "POST", "/studies/" + "-".join(["0123abcd"] * 5) + "/reconstruct", True),
        ("custody", "POST", "/studies/" + "-".join(["0123abcd"] * 5) + "/modify", False),
        ("gateway", "DELETE", "/instances/" + "-".join(["0123abcd"] * 5), False),
    ],
)
def test_a_service_may_do_what_is_listed(service: str, method: str, path: str, allowed: bool) -> None:
    assert ask(service, method, path).allowed is allowed


@pytest.mark.parametrize("user", ["front", "ris", "gateway", "migration", "operations", "recovery", "nobody", ""])
@pytest.mark.parametrize("path", ["/tools/reset", "/tools/shutdown", "/tools/execute-script", "/tools/reset/"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_what_would_break_the_archive_is_refused_to_everyone(user: str, path: str, method: str) -> None:
    assert not ask(user, method, path, shown=token("administrator")).allowed


@pytest.mark.parametrize("role", ["administrator", "pacs-administrator"])
@pytest.mark.parametrize("path", [f"/instances/{MINE}", f"/studies/{MINE}", "/tools/bulk-delete"])
def test_no_person_deletes_whatever_the_role(role: str, path: str) -> None:
    assert not ask("front", "DELETE", path, shown=token(role)).allowed
    assert not ask("front", "POST", path, shown=token(role)).allowed


@pytest.mark.parametrize("user", ["front", "ris", "gateway", "migration", "operations", "recovery", "custody"])
def test_changes_are_never_cleared(user: str) -> None:
    assert not ask(user, "DELETE", "/changes").allowed


@pytest.mark.parametrize(
    "path", ["/dicom-web/studies", f"/dicom-web/studies/{A}", "/wado", "/system", "/", "/zambezi/status"]
)
def test_without_a_token_the_front_door_gets_nothing(path: str) -> None:
    assert not ask("front", "GET", path, {"studyUID": A}).allowed


def test_the_front_door_may_ask_whether_the_plugin_is_there() -> None:
    assert ask("front", "GET", "/zambezi/door").allowed


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (token("radiologist", lasts_s=-1), "expired"),
        (token("radiologist", lasts_s=0), "expired"),
        (token("radiologist", key="22" * 32), "not ours"),
        (token("radiologist")[:-2] + "AA", "not ours"),
        (token("radiologist").replace("v1.", "v2."), "not a token of ours"),
        ("v1..", "not ours"),
        ("v1.e30.e30", "not ours"),
        ("v1.é.ü", "token"),
        ("v1." + "A" * 20000, "not a token of ours"),
    ],
)
def test_a_token_that_is_not_good_is_refused_with_its_reason(shown: str, why: str) -> None:
    decision = ask("front", "GET", "/dicom-web/studies", shown=shown)
    assert not decision.allowed
    assert why in decision.reason


def test_a_revoked_session_is_refused() -> None:
    shown = token("radiologist")
    session = tokens.read(shown, KEY, NOW).session
    assert ask("front", "GET", "/dicom-web/studies", shown=shown).allowed
    assert not ask("front", "GET", "/dicom-web/studies", shown=shown, revoked=frozenset({session})).allowed


def test_a_token_in_the_header_counts_as_one_in_the_cookie() -> None:
    assert ask("front", "GET", "/dicom-web/studies", header=token("radiologist")).allowed


def test_a_token_does_not_help_without_the_front_door() -> None:
    assert not ask("", "GET", "/dicom-web/studies", shown=token("administrator")).allowed


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "5", ""])
@pytest.mark.parametrize("role", ["radiologist", "administrator", "guest"])
def test_persons_only_read(method: str, role: str) -> None:
    for path in ("/dicom-web/studies", f"/studies/{MINE}", "/instances", "/zambezi/worklist"):
        assert not ask("front", method, path, shown=token(role)).allowed


@pytest.mark.parametrize(
    ("path", "arguments", "views"),
    [
        ("/dicom-web/studies", {"PatientName": "A*", "0020000D": B}, None),
        ("/dicom-web/instances", {}, None),
        (f"/dicom-web/studies/{A}", {}, A),
        (f"/dicom-web/studies/{A}/series/1.9/instances/1.8/frames/1", {"accept": "x"}, A),
        (f"/dicom-web/studies/{A}/series", {"includefield": "all", "limit": "9"}, A),
        ("/wado", {"requestType": "WADO", "studyUID": A, "objectUID": "1.9"}, A),
        ("/web-viewer/app/viewer.html", {"series": MINE}, None),
        ("/web-viewer/libs/jquery.js", {}, None),
        (f"/web-viewer/series/{MINE}", {}, A),
        (f"/web-viewer/is-stable-series/{MINE}", {}, A),
        (f"/web-viewer/instances/jpeg95-{THEIRS}_0", {}, B),
        (f"/studies/{MINE}", {}, A),
        (f"/series/{MINE}/instances", {}, A),
        (f"/instances/{MINE}/file", {}, A),
        (f"/instances/{MINE}/preview", {}, A),
    ],
)
@pytest.mark.parametrize("role", ["radiologist", "emergency", "administrator"])
def test_who_may_view_images_views_them_and_the_study_is_named(
    role: str, path: str, arguments: dict[str, str], views: str | None
) -> None:
    decision = ask("front", "GET", path, arguments, shown=token(role))
    assert decision.allowed, decision.reason
    assert decision.views == views
    assert decision.who == "ana"


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("/", {}),
        ("/system", {}),
        ("/studies", {}),
        ("/instances", {}),
        ("/patients", {}),
        (f"/patients/{MINE}", {}),
        ("/changes", {}),
        ("/modalities", {}),
        ("/jobs", {}),
        ("/app/explorer.html", {}),
        ("/dicom-web/servers", {}),
        ("/dicom-web", {}),
        ("/dicom-webx/studies", {}),
        ("/DICOM-WEB/studies", {}),
        (f"/Studies/{MINE}", {}),
        (f"/studies/{UNKNOWN}", {}),
        (f"/studies/{MINE.upper()}", {}),
        (f"/studies/{MINE}%2f..", {}),
        (f"/instances/{UNKNOWN}/file", {}),
        ("/web-viewer", {}),
        ("/web-viewer/", {}),
        ("/web-viewer/other/x", {}),
        (f"/web-viewer/instances/jpeg95-{UNKNOWN}_0", {}),
        (f"/web-viewer/instances/{MINE}", {}),
        (f"/dicom-web/studies/{A}/series", {"StudyInstanceUID": B}),
        (f"/dicom-web/studies/{A}/series", {"studyinstanceuid": B}),
        (f"/dicom-web/studies/{A}/series", {"0020000D": B}),
        (f"/dicom-web/studies/{A}/series", {"0020000d": B}),
        (f"/dicom-web/studies/{A}/series", {"0020,000D": B}),
        (f"/dicom-web/studies/{A}/series", {"%30020000D": B}),
        (f"/dicom-web/studies/{A}/instances", {"PatientID": "x"}),
        ("/dicom-web/studies/..", {}),
        ("/dicom-web/studies/%2e%2e/series", {}),
        (f"/dicom-web/studies/{A}%5C{B}", {}),
        (f"/dicom-web/studies/{A}\\{B}/series", {}),
        ("/dicom-web/studies/*/series", {}),
        ("/wado", {}),
        ("/wado", {"objectUID": "1.9"}),
        ("/wado", {"studyUID": ""}),
        ("/wado", {"studyUID": "*"}),
        ("/wado", {"studyUID": f"{A}\\{B}"}),
        ("/wado", {"studyUID": A, "StudyUID": B}),
        ("/wado", {"StudyUID": A}),
        ("/wado", {"studyUID": A, "0020000D": B}),
        ("/wado", {"studyUID": A, "%73tudyUID": B}),
        ("/wado/x", {"studyUID": A}),
        ("/zambezi/status", {}),
        ("/zambezi/journal", {}),
        ("/zambezi", {}),
        ("", {}),
    ],
)
def test_what_a_radiologist_has_no_right_to_is_refused(path: str, arguments: dict[str, str]) -> None:
    decision = ask("front", "GET", path, arguments, shown=token("radiologist"))
    assert not decision.allowed
    assert decision.reason


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", True),
        ("/app/explorer.html", True),
        ("/system", True),
        ("/studies", True),
        ("/patients", True),
        (f"/patients/{MINE}/studies", True),
        (f"/patients/{MINE}/archive", False),
        (f"/patients/{MINE}/media", False),
        ("/zambezi/journal", False),
        (f"/studies/{UNKNOWN}", False),
        ("/web-viewer/other", False),
    ],
)
def test_an_administrator_explores_reading_only(path: str, allowed: bool) -> None:
    assert ask("front", "GET", path, shown=token("administrator")).allowed is allowed


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("/zambezi/viewer-door", {}),
        ("/dicom-web/studies", {"StudyInstanceUID": A}),
        ("/dicom-web/studies/", {"StudyInstanceUID": A, "limit": "101", "offset": "0", "fuzzymatching": "false"}),
        ("/dicom-web/studies", {"StudyInstanceUID": A, "includefield": "00081030,00080060,ModalitiesInStudy"}),
        (f"/dicom-web/studies/{A}", {}),
        (f"/dicom-web/studies/{A}/metadata", {}),
        (f"/dicom-web/studies/{A}/series", {"limit": "5"}),
        ("/wado", {"studyUID": A, "objectUID": "1.9", "requestType": "WADO"}),
        ("/web-viewer/app/viewer.html", {"series": MINE}),
        (f"/web-viewer/series/{MINE}", {}),
        (f"/web-viewer/instances/jpeg95-{MINE}_0", {}),
    ],
)
@pytest.mark.parametrize("role", ["guest", "referrer", "radiologist", "administrator"])
def test_a_token_that_names_a_study_opens_it(role: str, path: str, arguments: dict[str, str]) -> None:
    assert ask("front", "GET", path, arguments, shown=token(role, A)).allowed


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("/dicom-web/studies", {}),
        ("/dicom-web/series", {"StudyInstanceUID": A}),
        ("/dicom-web/instances", {"StudyInstanceUID": A, "0020000D": B}),
        (f"/dicom-web/studies/{B}", {}),
        (f"/dicom-web/studies/{A}/series", {"StudyInstanceUID": B}),
        (f"/dicom-web/studies/{A}/series", {"0020000D": B}),
        (f"/dicom-web/studies/{A}", {"0020000D": A}),
        (f"/dicom-web/studies/{A}.1", {}),
        (f"/dicom-web/studies/{A}%2e1", {}),
        ("/wado", {"studyUID": B}),
        ("/wado", {"studyUID": A, "studyuid": B}),
        (f"/web-viewer/series/{THEIRS}", {}),
        (f"/web-viewer/is-stable-series/{THEIRS}", {}),
        (f"/web-viewer/instances/jpeg95-{THEIRS}_0", {}),
        (f"/studies/{MINE}", {}),
        (f"/series/{MINE}", {}),
        (f"/instances/{MINE}/file", {}),
        (f"/instances/{THEIRS}/file", {}),
        ("/studies", {}),
        ("/system", {}),
        ("/app/explorer.html", {}),
        ("/tools/find", {}),
        ("/zambezi/status", {}),
    ],
)
@pytest.mark.parametrize("role", ["guest", "referrer", "radiologist", "administrator"])
def test_a_token_that_names_a_study_reaches_no_other(role: str, path: str, arguments: dict[str, str]) -> None:
    assert not ask("front", "GET", path, arguments, shown=token(role, A)).allowed


@pytest.mark.parametrize(
    "arguments",
    [
        {"StudyInstanceUID": B},
        {"StudyInstanceUID": ""},
        {"StudyInstanceUID": "*"},
        {"StudyInstanceUID": f"{A},{B}"},
        {"StudyInstanceUID": f"{A}\\{B}"},
        {"StudyInstanceUID": f"{A};StudyInstanceUID={B}"},
        {"StudyInstanceUID": f"{A} "},
        {"StudyInstanceUID": f"{A}\n"},
        {"studyinstanceuid": A},
        {"STUDYINSTANCEUID": A, "StudyInstanceUID": A},
        {"StudyInstanceUID": A, "studyInstanceUID": B},
        {"StudyInstanceUID": A, "%53tudyInstanceUID": B},
        {"StudyInstanceUID ": A},
        {"0020000D": A},
        {"0020000d": A},
        {"StudyInstanceUID": A, "0020000D": A},
        {"StudyInstanceUID": A, "0020,000d": B},
        {"StudyInstanceUID": A, "00100020": "P"},
        {"StudyInstanceUID": A, "PatientID": "P"},
        {"StudyInstanceUID": A, "Limit": "5"},
        {"StudyInstanceUID": A, "limit": "-1"},
        {"StudyInstanceUID": A, "limit": "5\n"},
        {"StudyInstanceUID": A, "fuzzymatching": "true"},
        {"StudyInstanceUID": A, "includefield": "0020000D=1.2"},
        {"StudyInstanceUID": A, "": ""},
        {"PatientID": "P"},
        {"00100020": "P"},
        {"limit": "1"},
    ],
)
@pytest.mark.parametrize("role", ["guest", "radiologist"])
def test_a_list_of_studies_names_one_study_or_is_refused_to_a_token_that_names_studies(
    role: str, arguments: dict[str, str]
) -> None:
    assert not ask("front", "GET", "/dicom-web/studies", arguments, shown=token(role, A)).allowed


def test_a_list_that_names_one_study_is_on_record_as_its_view() -> None:
    assert ask("front", "GET", "/dicom-web/studies", {"StudyInstanceUID": A}, shown=token("guest", A)).views == A


@pytest.mark.parametrize("role", ["guest", "referrer"])
def test_a_narrow_role_without_studies_opens_none(role: str) -> None:
    assert not ask("front", "GET", f"/dicom-web/studies/{A}", shown=token(role)).allowed


@pytest.mark.parametrize("role", ["reception", "unknown", ""])
def test_a_role_without_images_opens_none(role: str) -> None:
    viewer = ("/web-viewer/app/viewer.html", "/zambezi/viewer-door")
    for path in (f"/dicom-web/studies/{A}", "/dicom-web/studies", *viewer):
        assert not ask("front", "GET", path, shown=token(role)).allowed
        assert not ask("front", "GET", path, shown=token(role, A)).allowed


def test_the_front_doors_word_counts_for_the_address_and_nobody_elses() -> None:
    headers = {"authorization": basic("front"), "x-real-ip": "10.1.2.3"}
    assert Request("GET", "/", "127.0.0.1", headers, {}).address == "10.1.2.3"
    headers["authorization"] = basic("ris")
    assert Request("GET", "/", "127.0.0.1", headers, {}).address == "127.0.0.1"


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic !!!", "Bearer abc", "Basic " + base64.b64encode(b"\xff").decode()]
)
def test_an_authorization_that_can_not_be_read_is_nobody(header: str) -> None:
    assert Request("GET", "/", "127.0.0.1", {"authorization": header}, {}).user == ""


@pytest.mark.parametrize(
    ("accept", "arguments", "allowed"),
    [
        ("", {}, True),
        ("multipart/related; type=application/octet-stream; transfer-syntax=*", {}, True),
        ('multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1', {}, True),
        ("multipart/related; type=image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50, */*", {}, True),
        ("multipart/related; type=application/dicom; transfer-syntax=1.2.840.10008.1.2.4.80", {}, False),
        ("image/jpeg, multipart/related; type=application/dicom; transfer-syntax=1.2.840.10008.1.2.4.81", {}, False),
        ('multipart/related; type="image/JLS"', {}, False),
        ("image/x-dicom+jpeg-ls", {}, False),
        ("", {"accept": "multipart/related; type=application/dicom; transfer-syntax=1.2.840.10008.1.2.4.90"}, False),
    ],
)
def test_nobody_has_the_archive_compress_into_what_it_may_not_survive(
    accept: str, arguments: dict[str, str], allowed: bool
) -> None:
    headers = {"authorization": basic("front"), "accept": accept, "cookie": f"{tokens.COOKIE}={token('radiologist')}"}
    for path in (f"/dicom-web/studies/{A}/series/1.1/instances/1.2", f"/dicom-web/studies/{A}/series/1.1"):
        found = decide(
            Request("GET", path, "127.0.0.1", headers, arguments), KEY, frozenset(), NOW, study_of, lambda _: 1
        )
        assert found.allowed is allowed, found.reason
    for name in ("transferSyntax", "transcode"):
        syntax = {name: "1.2.840.10008.1.2.1" if allowed else "1.2.840.10008.1.2.4.80"}
        wado = {"studyUID": A, "requestType": "WADO", "contentType": "application/dicom", **syntax}
        assert ask("front", "GET", "/wado", wado, token("radiologist")).allowed is (allowed and name != "transcode")


@pytest.mark.parametrize("path", [f"/dicom-web/studies/{SHARED}/series", f"/dicom-web/studies/{SHARED}"])
def test_who_may_see_one_study_sees_none_of_two_patients_that_carry_its_uid(path: str):
    for narrow in (token("guest", SHARED), token("radiologist", SHARED)):
        decided = ask("front", "GET", path, shown=narrow)
        assert (decided.allowed, "two patients" in decided.reason) == (False, True)
    assert ask("front", "GET", path.replace(SHARED, A), shown=token("guest", A)).allowed
    assert ask("front", "GET", path, shown=token("radiologist")).allowed


@pytest.mark.parametrize("role", ["administrator", "pacs-administrator"])
def test_nobody_reads_the_headers_of_all_of_a_patients_studies_with_no_view_on_record(role: str):
    for what in ("instances-tags", "shared-tags"):
        assert not ask("front", "GET", f"/patients/{MINE}/{what}", shown=token(role)).allowed
