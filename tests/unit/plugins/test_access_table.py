"""The table of paths (zambezi/access/routes.py) against the filter: every path, role, service and method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from plugins import http_filter
from tests.unit.plugins.test_http_filter import KEY, MINE, NOW, THEIRS, A, B, ask
from zambezi.access import ROLES, may, routes, tokens
from zambezi.access.routes import ROUTES, Route, Shows

SERVICES = ("gateway", "ris", "migration", "operations", "recovery", "custody")
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "5")


def filled(route: Route, uid: str = A, orthanc_id: str = MINE) -> str:
    """The path with something fitting in each changing part: the study `uid`, a resource that belongs to it."""
    path = route.path.replace("{study}", uid).replace("{*}", "x")
    return path.replace("/web-viewer/instances/{frame}", f"/web-viewer/instances/jpeg95-{orthanc_id}_0").replace(
        "{id}", orthanc_id
    ).replace("{", "").replace("}", "")  # fmt: skip


def arguments(route: Route, uid: str = A) -> dict[str, str]:
    return {"studyUID": uid} if route.path == "/wado" else {}


def token(role: str, *studies: str, **more: object) -> str:
    made = tokens.begin("ana", str(more.pop("kind", "session")), role, NOW, 60, studies)
    return tokens.sign(dataclasses.replace(made, **more), KEY)  # type: ignore[arg-type]  # a token's own fields


def allowed(route: Route, shown: str, uid: str = A, orthanc_id: str = MINE) -> bool:
    return ask("front", "GET", filled(route, uid, orthanc_id), arguments(route, uid), shown=shown).allowed


def test_each_role_reads_what_the_table_shows_to_it():
    wide = {Shows.STUDY, Shows.FILES, Shows.LIST, Shows.BY_ID, Shows.SITE}
    for role in [*ROLES, "unheard-of"]:
        sees = {Shows.ANYONE}
        sees |= wide if may(role, "images.view") else set()
        sees |= {Shows.VIEWER} if may(role, "images.view") or may(role, "images.view-own") else set()
        sees |= {Shows.EXPLORER} if may(role, "orthanc.explore") else set()
        wrong = [route.path for route in ROUTES if allowed(route, token(role)) is not (route.shows in sees)]
        assert wrong == [], role


#: Tokens that open study A alone, each for its own reason; whether they hand over files.
NARROW: dict[str, tuple[Callable[[], str], bool]] = {
    "share link, to view": (lambda: token("guest", A, kind="share"), False),
    "share link, to download": (lambda: token("guest", A, kind="share", download=True), True),
    "a part of the site": (lambda: token("radiologist", A, narrow=True), True),
    "an administrator's, narrowed": (lambda: token("administrator", A), True),
    "a referrer": (lambda: token("referrer", A, narrow=True), True),
    "break-glass": (lambda: token("radiologist", narrow=True, until=((A, NOW + 1),)), True),
}


@pytest.mark.parametrize("who", NARROW)
def test_who_may_open_one_study_reaches_nothing_else_on_any_path(who: str):
    make, has_files = NARROW[who]
    shown, own = make(), {Shows.ANYONE, Shows.VIEWER, Shows.STUDY} | ({Shows.FILES} if has_files else set())
    for route in ROUTES:
        assert allowed(route, shown) is (route.shows in own), route.path
        elsewhere = {Shows.ANYONE, Shows.VIEWER}
        assert allowed(route, shown, B, THEIRS) is (route.shows in elsewhere), f"{route.path} of another study"


def test_a_link_that_shows_images_hands_no_file_over_by_wado_either():
    wado = {"studyUID": A, "requestType": "WADO", "contentType": "application/dicom"}
    assert not ask("front", "GET", "/wado", wado, shown=token("guest", A, kind="share")).allowed
    assert not ask("front", "GET", "/wado", wado | {"contentType": "Application/DICOM"},
                   shown=token("guest", A, kind="share")).allowed  # fmt: skip
    assert ask("front", "GET", "/wado", wado, shown=token("guest", A, kind="share", download=True)).allowed
    assert ask(
        "front", "GET", "/wado", wado | {"contentType": "image/png"}, shown=token("guest", A, kind="share")
    ).allowed


def test_what_opens_until_a_moment_is_closed_from_then_on():
    shown = token("radiologist", narrow=True, until=((A, NOW),))
    assert not any(allowed(route, shown) for route in ROUTES if route.shows in (Shows.STUDY, Shows.FILES))
    assert not ask("front", "GET", "/dicom-web/studies", {"StudyInstanceUID": A}, shown=shown).allowed


def test_who_sees_a_part_of_the_site_and_has_opened_nothing_opens_nothing():
    for role in ("radiologist", "administrator", "referrer"):
        shown = token(role, narrow=True)
        opened = {route.path for route in ROUTES if allowed(route, shown)}
        assert opened == {route.path for route in ROUTES if route.shows in (Shows.ANYONE, Shows.VIEWER)}


def test_each_service_does_what_the_table_lists_and_nothing_more():
    for route in ROUTES:
        for method in METHODS:
            for service in SERVICES:
                listed = method == "GET" or service in route.writes.get(method, ())
                expected = listed and route.shows is not Shows.NOBODY
                # The gateway may put whatever the plugin's own routes take: what those are is theirs to say.
                if service == "gateway" and method == "PUT" and route.path.startswith("/zambezi/"):
                    continue
                decision = ask(service, method, filled(route))
                assert decision.allowed is expected, f"{service} {method} {route.path}: {decision.reason}"


def test_no_person_writes_on_any_path():
    for role in ROLES:
        shown = token(role)
        for route in ROUTES:
            assert not any(ask("front", method, filled(route), shown=shown).allowed for method in METHODS[1:])


@pytest.mark.parametrize(
    "path",
    [
        "/ui/app", "/tools/find/x", "/studies/{MINE}/unknown", "/instances/{MINE}/frames/0/unknown", "/webdav",
        "/webdav/x", "/orthanc", "/dicom-web/studies/1.2.3/series/4/unknown", "/wado/x", "/modalities/x/y/z", "/app2",
        "/stone-webviewer",
        "/tools/{*}", "/{}", "/{*}/x", "/studies/{}/unknown", "/zambezi2",
    ],
)  # fmt: skip
def test_a_path_that_is_not_listed_is_refused_to_everyone(path: str):
    written = path.replace("{MINE}", MINE)
    assert routes.find(written) is None
    assert not ask("front", "GET", written, shown=token("administrator")).allowed
    assert not any(ask(service, "GET", written).allowed for service in SERVICES)


def test_a_subject_that_was_revoked_is_refused_with_all_of_its_sessions():
    made = tokens.begin("share:7", "share", "guest", NOW, 60, (A,))
    shown = tokens.sign(made, KEY)
    path = f"/dicom-web/studies/{A}/metadata"
    assert ask("front", "GET", path, shown=shown).allowed
    assert not ask("front", "GET", path, shown=shown, revoked=frozenset({"share:7"})).allowed


def test_the_filters_services_are_those_of_the_table():
    assert set(http_filter._SERVICES) == set(SERVICES)
