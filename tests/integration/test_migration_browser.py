"""A running migration in a real browser: its picture, what waits for a person, what is urgent, cut-over."""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from migration import lanes, ledger, pace
from migration.pace import Pace
from ris_service.app import create_app
from tests.integration.test_ris_browser import page, shot, sign_in
from tests.served import served
from tests.unit.ris_service.seeding import OURS, Clock, Hospital, seeded
from zambezi import clock, exceptions
from zambezi.config.settings import Migration, MigrationSource, Window
from zambezi.database.tables import MigrationInstance, MigrationPass, MigrationProject, MigrationStudy

__all__ = ["page"]

KINDS = ("CT", "CT", "CR", "CR", "CR", "US", "MR", "DX\\PR", "MG")
STATES = ("verified",) * 12 + ("ready",) * 5 + ("held",)
CONFLICT = "2.25.4001"


def fill(session: Session, hospital: Hospital) -> None:
    """A migration of 1,500 studies of twenty years, two days on its way."""
    now, chance = hospital.clock(), random.Random(6)
    at = clock.text(now)
    project = MigrationProject(
        id=1, name="pacs-antigo", source="LEGACY", state="running", created_at=at, updated_at=at,
        coverage={"studies": 1500, "undated": 3, "queries": 212, "duplicates": {}, "doubts": []},
    )  # fmt: skip
    session.add(project)
    session.flush()
    for n in range(1500):
        state = STATES[n % len(STATES)] if n < 1100 else "ready"
        ago = timedelta(minutes=chance.triangular(5, 2800, 300))
        session.add(
            MigrationStudy(
                project_id=1, study_uid=f"2.25.{n}", patient_id=f"P{n // 3}", state=state, next_at=at,
                study_date="" if n % 500 == 499 else f"{2025 - n // 75}{1 + n % 12:02}{1 + n % 28:02}",
                modalities=KINDS[n % len(KINDS)], expected=20 + n % 40, stored=20 + n % 40, facts={},
                verified_at=clock.text(now - ago) if state == "verified" else None,
                priority=lanes.priority(0, {"InstanceAvailability": "NEARLINE" if n == 1450 else "ONLINE"}),
            )
        )  # fmt: skip
    for n in range(6):
        said = "all but 1 of 40 instances are verified: 1 instances did not arrive (Instance: DIMSE status 0xC000)"
        waits(session, project, f"2.25.300{n}", "incomplete", said, expected=40, stored=39)
    words = "the archive had 1 instances before, under the same UIDs, with other content, in (7fe0,0010)"
    study = waits(session, project, CONFLICT, "conflict", words, expected=2, stored=2)
    for n, verdict in enumerate(("different", "equal")):
        session.add(
            MigrationInstance(
                study_id=study.id, sop_uid=f"2.25.5{n}", series_uid="2.25.6", verdict=verdict, was_there=1 - n,
                source_digest="ab12" * 16, stored_digest=("cd34" if n == 0 else "ab12") * 16,
                reason="(7fe0,0010)" if n == 0 else None, source_syntax="1.2.840.10008.1.2.1",
            )
        )  # fmt: skip
    session.add(
        MigrationPass(project_id=1, number=1, began_at=at, ended_at=at, studies=1500, counted=12, new_studies=4,
                      new_instances=31, doubts=0, who="ana")
    )  # fmt: skip
    pace.locked(session, "LEGACY")
    pace.write(session, "LEGACY", Pace(slots=3, because="the last 2 went well"), now)


def waits(session: Session, project: MigrationProject, uid: str, state: str, why: str, **counts: int) -> MigrationStudy:
    """A study that a person must look at."""
    at = clock.text(clock.now())
    study = MigrationStudy(
        project_id=project.id, study_uid=uid, state=state, reason=why, next_at=at, study_date="20190304",
        modalities="CT", attempts=3, facts={}, **counts,
    )  # fmt: skip
    session.add(study)
    session.flush()
    exceptions.wait(session, "migration", uid, what=why, suggestion="", now=clock.now(), kind=f"study-{state}")
    return study


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Hospital, str]]:
    """The seeded hospital with a migration on its way, and its address."""
    made = seeded(tmp_path / "home", moving=Clock(clock.now()))
    source = MigrationSource(peer="old", ceiling=4, windows=(Window(holidays="closed"),))
    settings = made.settings.model_copy(update={"migration": Migration(sources={"LEGACY": source})})
    with made.sessions.begin() as session:
        fill(session, made)
    sets = (*OURS, "migration.pages:pages", "migration.run_pages:pages")
    made.app = create_app(made.environment, settings, made.sessions, made.keys, made.clock, sets)
    with served(made.app) as address:
        yield made, address


def test_a_migration_is_watched_decided_and_hurried_by_keyboard(running: tuple[Hospital, str], page: Page):
    hospital, address = running
    sign_in(page, address, "administrator")
    answer = page.goto(f"{address}/migrations/1")
    assert answer is not None
    assert len(gzip.compress(answer.body())) < 40_000
    main = page.locator("main")
    expect(main).to_contain_text("7 estudos esperam por uma pessoa")
    expect(main).to_contain_text("3 permitidos, tecto 4")
    expect(main).to_contain_text(re.compile(r"Entre \d\d/\d\d/\d{4}"))
    shot(page, "migration-progress")
    page.get_by_role("link", name="7 estudos esperam por uma pessoa").focus()
    page.keyboard.press("Enter")
    page.get_by_label("O motivo contém").fill("0xC000")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(6)
    shot(page, "migration-exceptions")
    page.get_by_label("Decisão").select_option(label="Deixar como está")
    page.get_by_label("Motivo, para a auditoria e o certificado").fill("o objecto está estragado na origem")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("A sua decisão está registada")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(main).to_contain_text("já estava no arquivo")
    expect(main).to_contain_text("(7fe0,0010)")
    shot(page, "migration-study")
    page.get_by_role("button", name="Decidir").click()  # the source's: but the journal knows of no such study
    expect(page.get_by_role("alert")).to_contain_text("keep-source needs a reason")
    page.get_by_label("Decisão").select_option(label="Ficar com o do arquivo")
    page.get_by_label("Motivo, para a auditoria e o certificado").fill("corrigida cá")
    page.get_by_role("button", name="Decidir").click()
    expect(main).to_contain_text("Deixado como está, por decisão de uma pessoa")
    page.goto(f"{address}/migrations/1?find=2.25.1450")
    page.get_by_role("link", name="2.25.1450").click()
    expect(main).to_contain_text("vem da memória lenta da origem, ao lado dos outros")
    page.get_by_role("button", name="Antes de tudo o resto").click()
    expect(main).to_contain_text("administrator: O paciente está na sala")
    page.get_by_role("link", name="Passagem definitiva").click()
    expect(main).to_contain_text("o arquivo antigo tem de continuar")
    shot(page, "migration-cutover")
    page.set_viewport_size({"width": 390, "height": 800})
    for name in ("", "/exceptions", "/cutover", f"/studies/{CONFLICT}"):
        page.goto(f"{address}/migrations/1{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, f"{name} is wider than a phone"
    shot(page, "phone-migration-study")
    with hospital.sessions.begin() as session:
        counts = ledger.states(session, 1)
        hurried = session.query(MigrationStudy).filter_by(study_uid="2.25.1450").one()
    assert (counts["waived"], counts.get("incomplete", 0), counts.get("conflict", 0)) == (7, 0, 0)
    assert (lanes.rank(hurried.priority), lanes.is_near_line(hurried.priority)) == (ledger.URGENT, True)
