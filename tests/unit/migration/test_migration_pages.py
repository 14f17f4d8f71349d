"""The pages of migrations, in the RIS's application."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update

from migration import certificate, progress, verifier
from ris_service.app import create_app
from tests.schema import upgraded
from zambezi import clock, keys, signing
from zambezi.access.tokens import COOKIE, begin, sign
from zambezi.config.settings import Zambezi
from zambezi.database.engine import Sessions, sessions
from zambezi.database.tables import MigrationInstance, MigrationProject, MigrationStudy, User
from zambezi.environment import Environment

NOW = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)
STUDIES = (("verified", "20200101"), ("divergent", ""), ("verified", "20210102"))


class Pages:
    """The application with one finished migration in its database."""

    def __init__(self, home: Path) -> None:
        environment = Environment.read({"ZAMBEZI_HOME": str(home)})
        self.keys = keys.load_or_create(environment.keys_file)
        engine = upgraded(environment.database_url)
        self.sessions: Sessions = sessions(engine, "test")
        with self.sessions.begin() as session:
            self.project_id = a_project(session)
            for role in ("migration-engineer", "reception", "referrer", "radiologist"):
                session.add(
                    User(login=role, name=role, role=role, language="en", password_hash="", created_at=clock.text(NOW))
                )
        sets = (
            "ris_service.session_pages:pages", "migration.pages:pages", "migration.run_pages:pages",
            "migration.proof_pages:pages",
        )  # fmt: skip
        self.app = create_app(environment, Zambezi(), self.sessions, self.keys, lambda: NOW, sets)

    def client(self, role: str) -> FlaskClient:
        client = self.app.test_client()
        token = begin(role, "session", role, int(NOW.timestamp()), 1800, ())
        client.set_cookie(COOKIE, sign(token, self.keys.session_key))
        return client


def a_project(session) -> int:
    at = clock.text(NOW)
    project = MigrationProject(
        name="pacs-2026", source="LEGACY", state="finished", created_at=at, updated_at=at,
        coverage={"studies": 3, "undated": 1, "queries": 99, "duplicates": {},
                  "doubts": ["something is doubtful", "7 studies are not named under any patient"]},
    )  # fmt: skip
    session.add(project)
    session.flush()
    for number, (state, date) in enumerate(STUDIES):
        study = MigrationStudy(
            project_id=project.id, study_uid=f"1.2.{number}", study_date=date, modalities="CT", expected=1,
            state=state, level=3 if state == "verified" else 1, next_at=at,
            verified_at=at if state == "verified" else None,
        )  # fmt: skip
        session.add(study)
        session.flush()
        same = state == "verified"
        session.add(
            MigrationInstance(
                study_id=study.id,
                sop_uid=f"1.3.{number}",
                series_uid="1.4",
                source_digest="a" * 64,
                stored_digest="a" * 64 if same else "b" * 64,
                verdict="equal" if same else "different",
                level=3 if same else 1,
            )
        )
    return project.id


@pytest.fixture
def pages(tmp_path: Path) -> Pages:
    return Pages(tmp_path)


def test_the_list_shows_each_migration_with_its_progress_in_words(pages):
    page = pages.client("migration-engineer").get("/migrations").text
    assert "pacs-2026" in page
    assert "<svg" in page
    assert "2 proven, 1 failed" in page


def test_the_pages_are_in_portuguese_for_who_reads_it(pages):
    with pages.sessions.begin() as session:
        session.execute(update(User).values(language="pt"))
    page = pages.client("migration-engineer").get(f"/migrations/{pages.project_id}").text
    assert "2 provados, 1 falhados" in page
    assert "Sem data" in page
    assert "7 estudos não são nomeados em nenhum paciente" in page
    assert '<span lang="en">something is doubtful</span>' in page, "what nobody has translated says what it is"


def test_a_migration_names_what_needs_a_person_first(pages):
    page = pages.client("migration-engineer").get(f"/migrations/{pages.project_id}").text
    assert "something is doubtful" in page
    assert page.index("1.2.1") < page.index("1.2.0")


def test_the_certificate_can_be_downloaded_once_it_is_issued(pages, tmp_path):
    path = f"/migrations/{pages.project_id}/certificate"
    client = pages.client("migration-engineer")
    assert client.get(path).status_code == client.get(path + ".pdf").status_code == 404
    assert "No certificate yet" in client.get(f"/migrations/{pages.project_id}/proof").text
    signer = signing.current(tmp_path / "signing", "certificate", "ana", NOW)
    certificate.issue(pages.sessions, pages.project_id, signer, {}, "somebody", NOW)
    found = verifier.examine(io.BytesIO(client.get(path).data))
    assert found.faults == []
    assert found.head["counts"]["instances_by_level"] == {"1": 1, "3": 2}
    assert found.head["counts"]["studies_by_year"] == {"2020": 1, "2021": 1, "undated": 1}
    assert client.get(path + ".pdf").data.startswith(b"%PDF")
    page = client.get(f"/migrations/{pages.project_id}/proof").text
    assert path in page
    assert "source: compared with the source itself, and equal" in page
    assert f"/migrations/{pages.project_id}/proof" in client.get(f"/migrations/{pages.project_id}").text
    assert client.get("/migrations/verifier.py").data == Path(verifier.__file__).read_bytes()


@pytest.mark.parametrize("role", ["reception", "referrer", "radiologist"])
def test_who_has_no_business_with_migrations_is_refused(pages, role):
    assert pages.client(role).get("/migrations").status_code == 403


def test_a_stranger_is_refused(pages):
    assert pages.app.test_client().get("/migrations").status_code == 401


def test_a_bar_is_as_wide_as_its_studies_are_many():
    pieces = progress.bar({"verified": 2, "parked": 1, "ready": 1})
    assert [(piece.kind, piece.start, piece.width) for piece in pieces] == [
        ("done", 0, 50), ("failed", 50, 25), ("waiting", 75, 25),
    ]  # fmt: skip
