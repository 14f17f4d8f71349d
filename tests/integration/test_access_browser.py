"""The pages about access in a real browser: a part of the site given, an emergency, a link made, opened and revoked."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.integration.test_ris_browser import page, running, shot, sign_in  # noqa: F401  # fixtures
from tests.unit.ris_service.seeding import CHEST, KNEE


@pytest.fixture(autouse=True)
def narrow(running):  # noqa: F811
    """Some pages have more to show where sites are configured."""
    hospital, _address = running
    access = hospital.settings.access.model_validate({"Sites": {"Beira": {"AETs": ["CT1"]}, "Tete": {}}})
    parts = hospital.app.extensions["zambezi"]
    object.__setattr__(parts, "settings", parts.settings.model_copy(update={"access": access}))


def test_a_part_is_given_with_the_keyboard_and_an_emergency_opens_more(running, page):  # noqa: F811
    _hospital, address = running
    sign_in(page, address, "administrator")
    page.goto(f"{address}/users")
    page.locator("tr", has_text="Amélia").get_by_role("link", name="Parte da instituição").click()
    expect(page.get_by_label("Beira")).to_be_visible()
    page.get_by_label("DX", exact=True).focus()
    page.keyboard.press("Space")
    shot(page, "scope")
    page.get_by_role("button", name="Guardar").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("A parte da instituição foi alterada")
    expect(page.locator("tr", has_text="Amélia")).to_contain_text("vê DX")
    page.get_by_role("button", name="Sair").click()

    sign_in(page, address, "radiologist")
    page.goto(f"{address}/studies")
    expect(page.locator("tbody tr")).to_have_count(1)
    shot(page, "studies-of-a-part")
    page.get_by_role("link", name="Emergência").press("Enter")
    page.get_by_label("ID do paciente").fill("P1001")
    page.get_by_label("Porquê").fill("trauma, médico de serviço")
    shot(page, "emergency")
    page.get_by_role("button", name="Abrir as imagens").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("60 minutos")
    expect(page.locator(f"a[href='/studies/{CHEST}/images']")).to_be_visible()
    shot(page, "emergency-opened")


def test_a_link_is_made_opened_by_a_stranger_and_revoked(running, page):  # noqa: F811
    _hospital, address = running
    sign_in(page, address, "radiologist")
    page.goto(f"{address}/studies/{KNEE}")
    page.get_by_role("link", name="Partilhar por ligação").press("Enter")
    page.get_by_label("Para quem").fill("Dr. Gumbo, Harare")
    page.get_by_label("PIN").fill("471147")
    shot(page, "share-new")
    page.get_by_role("button", name="Fazer a ligação").press("Enter")
    link = page.locator("code.secret").inner_text()
    shot(page, "shares")
    stranger = page.context.browser.new_context().new_page()
    stranger.goto(link)
    shot(stranger, "share-door")
    stranger.get_by_label("PIN").fill("471147")
    stranger.keyboard.press("Enter")
    expect(stranger.locator("h1")).to_contain_text("Partilhados comigo")
    expect(stranger.locator("section")).to_have_count(1)
    shot(stranger, "shared")
    page.goto(f"{address}/shares")
    page.get_by_role("button", name="Revogar").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("já não abre nada")
    stranger.goto(link + "?lang=en")
    expect(stranger.locator("h1")).to_have_text("This link opens nothing")
    stranger.context.close()
