"""Every page: it opens, in both languages, light enough for a slow line."""

from __future__ import annotations

import gzip

import pytest

from tests.unit.ris_service.seeding import CHEST, FOREIGN, HTML, KNEE, OLD, Hospital

ADMINISTRATORS = ["/", "/orders/1", "/orders/new", "/orders/new?patient_id=P1001", "/orders/new?patient_id=NEW",
                  "/studies", f"/studies/{CHEST}", f"/studies/{FOREIGN}", f"/studies/{KNEE}/report", "/deliveries",
                  "/deliveries?state=all", "/exceptions", "/exceptions?show=decided", "/audit",
                  "/audit?patient=P1001&failed=1", "/audit/seen?patient=P1001",
                  "/audit/person?who=radiologist", "/users",
                  "/account", "/?q=conceicao&day=all", "/?q=nobody"]  # fmt: skip
RADIOLOGISTS = [f"/studies/{CHEST}/report", f"/studies/{CHEST}/report?prior={OLD}", f"/studies/{KNEE}/report"]
STRANGERS = ["/session", "/session/token"]
PAGES = [("administrator", page) for page in ADMINISTRATORS] + [("radiologist", page) for page in RADIOLOGISTS]
PAGES += [("", page) for page in STRANGERS]


@pytest.mark.parametrize("language", ["pt", "en"])
@pytest.mark.parametrize(("role", "page"), PAGES)
def test_a_page_opens_in_both_languages_and_weighs_less_than_40_kb(hospital, role, page, language):
    client = hospital.client()
    if role:
        client = hospital.signed_in(role)
        speak(hospital, role, language)
    else:
        page += f"?lang={language}"
    answer = client.get(page, headers=HTML)
    assert answer.status_code == 200, answer.text
    assert f'<html lang="{language}">' in answer.text
    weight = len(gzip.compress(answer.data))
    for asset in ("zambezi.css", "zambezi.js", "icon.svg"):
        weight += len(gzip.compress(client.get(f"/static/{asset}").data))
    assert weight < 40_000
    assert len(client.get("/static/zambezi.css").data) < 12_000


def speak(hospital: Hospital, login: str, language: str) -> None:
    from zambezi import users

    with hospital.sessions.begin() as session:
        users.find(session, login).language = language
