"""Pages of plans: who may, what a wrong number finds, how large they are."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from migration import plans
from ris_service.app import create_app
from tests.unit.migration.test_migration_pages import NOW, Pages
from zambezi import clock
from zambezi.config.settings import Zambezi
from zambezi.database.tables import MigrationMatch, MigrationProject

PATHS = ("plan", "held", "plan.pdf", "plan/1.json")


@pytest.fixture
def pages(tmp_path: Path) -> Pages:
    made = Pages(tmp_path)
    sets = ("ris_service.session_pages:pages", "migration.pages:pages", "migration.plan_pages:pages")
    made.app = create_app(made.app.extensions["zambezi"].environment, Zambezi(), made.sessions, made.keys,
                          lambda: NOW, sets)  # fmt: skip
    made.app.config["WTF_CSRF_ENABLED"] = False
    at = clock.text(NOW)
    with made.sessions.begin() as session:
        session.add(MigrationProject(name="other", source="L", state="planned", created_at=at, updated_at=at))
        for n in range(60):
            session.add(
                MigrationMatch(project_id=1, identity=str(n), patient_id=str(n), state="held", reason="x",
                               said={"PatientName": f"NYONI^GRACE{n}", "PatientID": str(n)})
            )  # fmt: skip
    plans.record(made.sessions, 1, {"Matching": {}}, who="eva", because="a test", now=NOW)
    return made


def post(client: FlaskClient, path: str, **form: str) -> int:
    return client.post(f"/migrations/{path}", data=form).status_code


def test_only_who_runs_migrations_sees_plans_and_decides(pages: Pages) -> None:
    engineer, radiologist = pages.client("migration-engineer"), pages.client("radiologist")
    assert [engineer.get(f"/migrations/1/{path}").status_code for path in PATHS] == [200] * 4
    assert [radiologist.get(f"/migrations/1/{path}").status_code for path in PATHS] == [403] * 4
    for path in ("1/plan", "1/plan/take", "1/held", "1/held/1"):
        assert post(radiologist, path, document="{}", because="x", whose="own", least="75") == 403
    assert pages.app.test_client().get("/migrations/1/held").status_code == 401


def test_pages_are_small_and_show_no_more_than_fifty_patients(pages: Pages) -> None:
    client = pages.client("migration-engineer")
    for path in ("plan", "held"):
        assert len(gzip.compress(client.get(f"/migrations/1/{path}").data)) < 40_000
    first = client.get("/migrations/1/held").text
    assert "GRACE49" in first
    assert "GRACE50" not in first
    assert "GRACE59" in client.get("/migrations/1/held?after=50").text


def test_what_is_not_there_or_cannot_be_meant_is_said_and_changes_nothing(pages: Pages) -> None:
    client = pages.client("migration-engineer")
    assert client.get("/migrations/9/plan").status_code == 404
    assert post(client, "2/held/1", whose="own", because="x") == 404, "another migration's patient"
    assert post(client, "1/held/1", whose="", because="x") == 422
    assert post(client, "1/held/1", whose="77", because="x") == 409, "nobody here has this number"
    assert post(client, "1/held/1", whose="own", because=" ") == 409
    assert post(client, "1/held", least="many") == 422
    assert post(client, "1/plan", document="[1]") == 422
    assert post(client, "1/plan/take", document="{}", because="") == 409
    with pages.sessions.begin() as session:
        assert session.get_one(MigrationMatch, 1).state == "held"
        assert session.get_one(MigrationProject, 1).plan["Version"] == 1
    assert post(client, "1/held/1", whose="own", because="nobody's") == 303
