"""A migration is planned in a real browser: shown on real studies, taken, printed; held patients are told apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from migration import plans
from ris_service.app import create_app
from tests.integration.test_ris_browser import page, shot, sign_in
from tests.served import served
from tests.unit.ris_service.seeding import OURS, Clock, Hospital, seeded
from zambezi import clock
from zambezi.database.tables import MigrationProject, MigrationStudy, Patient

__all__ = ["page"]

PLAN = {
    "Skip": [{"Name": "fantomas", "When": {"PatientID": {"Pattern": "QA*"}}, "Because": "imagens de fantoma"}],
    "Rules": [{"Name": "prefixo", "Strip": {"PatientID": {"Prefix": "OLD-"}}}], "Matching": {},
}  # fmt: skip
ANA = {"PatientName": "MACUACUA^ANA", "PatientBirthDate": "19700512", "PatientSex": "F"}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Hospital, str]]:
    """The seeded hospital with the pages of migrations, one that is inventoried, and its address."""
    made = seeded(tmp_path / "home", moving=Clock(clock.now()))
    at = clock.text(made.clock())
    with made.sessions.begin() as session:
        project = MigrationProject(name="pacs", source="OLD", state="planned", created_at=at, updated_at=at)
        session.add(project)
        session.add(
            Patient(patient_id="77", issuer="HCM", family_name="Makuakua", given_name="Ana", birth_date="19700512",
                    sex="F", created_at=at, updated_at=at)
        )  # fmt: skip
        session.flush()
        found = [("OLD-4711", ANA), ("OLD-9", {"PatientName": "NYONI^GRACE"}), ("QA-1", {}), ("5\\6", ANA)]
        for n, (patient_id, said) in enumerate(found):
            session.add(
                MigrationStudy(
                    project_id=project.id, study_uid=f"1.2.{n}", patient_id=patient_id, study_date=f"202{n}0304",
                    modalities="CT", expected=40, next_at=at, facts={"PatientID": patient_id.split("\\")[0], **said},
                )
            )  # fmt: skip
    sets = (*OURS, "migration.pages:pages", "migration.run_pages:pages", "migration.plan_pages:pages")
    made.app = create_app(made.environment, made.settings, made.sessions, made.keys, made.clock, sets)
    with served(made.app) as address:
        yield made, address


def states(hospital: Hospital) -> dict[str, str]:
    with hospital.sessions.begin() as session:
        return {one.study_uid: one.state for one in session.scalars(select(MigrationStudy))}


def test_a_plan_is_shown_taken_and_its_held_patients_decided(running: tuple[Hospital, str], page: Page):
    hospital, address = running
    sign_in(page, address, "administrator")
    page.goto(f"{address}/migrations/1")
    page.get_by_role("link", name="Plano", exact=True).click()
    document = page.get_by_label("O plano (JSON)")
    document.fill('{"Matching": {"Acept": 1}}')
    page.get_by_role("button", name="Mostrar o que faria").click()
    expect(page.get_by_role("alert")).to_contain_text("Plan.Matching.Acept: essa chave não existe")
    document.fill(json.dumps(PLAN))
    page.get_by_role("button", name="Mostrar o que faria").click()
    row = page.get_by_role("row").filter(has_text="prefixo").filter(has_text="1.2.1")
    expect(row.locator("del")).to_have_text("OLD-9")
    expect(row.locator("ins")).to_have_text("9")
    expect(page.locator("main")).to_contain_text("Nada foi alterado")
    shot(page, "migration-plan-preview")
    assert set(states(hospital).values()) == {"ready"}
    page.get_by_label("Porquê").fill("números do segundo hospital")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_contain_text("faltam decidir 4 estudos")
    assert plans.catch_up(hospital.sessions, 1, hospital.clock() + timedelta(seconds=1)) == 4  # the migration process
    page.reload()
    expect(page.locator("main")).to_contain_text("De quem são os estudos")
    expect(page.locator("main")).to_contain_text("números do segundo hospital")
    shot(page, "migration-plan")
    for language in ("pt", "en"):
        answer = page.request.get(f"{address}/migrations/1/plan.pdf?lang={language}")
        assert answer.ok
        assert answer.body().startswith(b"%PDF")
    page.get_by_role("link", name="Decidir").click()
    expect(page.locator(".head")).to_contain_text("2")
    shot(page, "migration-held")
    first = page.get_by_role("region", name="OLD-4711")
    expect(first).to_contain_text("um paciente daqui parece-se com ele")
    expect(first).to_contain_text("mesma data de nascimento")
    first.get_by_label("este paciente").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.type("certidão de nascimento")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("decisão")
    expect(page.get_by_role("region", name="5\\6")).to_contain_text("5, 6")
    assert states(hospital) == {"1.2.0": "ready", "1.2.1": "ready", "1.2.2": "skipped", "1.2.3": "held"}
    with hospital.sessions.begin() as session:
        decided = session.scalars(select(MigrationStudy).where(MigrationStudy.study_uid == "1.2.0")).one()
        assert decided.changes["PatientID"] == "77"
    page.set_viewport_size({"width": 390, "height": 800})
    for path in ("plan", "held"):
        page.goto(f"{address}/migrations/1/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, f"{path} is wider than a phone"
        shot(page, f"phone-migration-{path}")
