"""What was found, and the sources: as pages say it, in both languages."""

from __future__ import annotations

import gzip
from datetime import timedelta

import pytest
from sqlalchemy import update

from migration import directory, findings, inventory
from migration.source import Probe
from ris_service.app import create_app
from tests.unit.migration.test_migration_pages import NOW, Pages
from tests.unit.migration.test_resuming import Legacy
from zambezi.config.settings import Migration, MigrationSource, Zambezi
from zambezi.database.tables import User

SETS = ("ris_service.session_pages:pages", "migration.pages:pages", "migration.source_pages:pages")


@pytest.fixture
def pages(tmp_path):
    made = Pages(tmp_path)
    settings = Zambezi(migration=Migration(sources={"LEGACY": MigrationSource(peer="legacy")}))
    environment = made.app.extensions["zambezi"].environment
    made.app = create_app(environment, settings, made.sessions, made.keys, lambda: NOW, SETS)
    source = Legacy(
        {
            "1.2.1": ("P1", "20190305", ["1.2.1.1", "1.2.1.2"]),
            "1.2.2": ("P2", "20200230", ["1.2.2.1"]),
            "1.2.3": ("", "", ["1.2.3.1"]),
        }
    )
    made.project_id = inventory.take(made.sessions, source, "old-ct", "LEGACY", NOW - timedelta(hours=1)).id
    with made.sessions.begin() as session:
        abilities = {
            "C-GET, study root": (True, ""),
            "near-line": (False, ""),
            "answers at once": (True, "all 3; an inventory finds out whether that is a limit"),
        }
        directory.keep_probe(session, "LEGACY", Probe(abilities), "", NOW)
    return made


def test_what_was_found_is_shown_before_a_byte_moves(pages):
    client = pages.client("migration-engineer")
    answer = client.get(f"/migrations/{pages.project_id}/found")
    page = answer.text
    assert answer.status_code == 200
    assert "3 studies, 1 of them undated" in page
    assert "4 images were named one by one" in page
    assert "3 studies say how many images they have: 4 in all" in page
    assert "a study date that no calendar has" in page
    assert "<title>2019, CT: 1</title>" in page
    assert "<title>Undated, CT: 1</title>" in page
    assert "3 new, 0 grew, 0 gone" in page
    assert len(gzip.compress(answer.data)) < 40_000
    with pages.sessions.begin() as session:
        session.execute(update(User).values(language="pt"))
    assert "uma data do estudo que nenhum calendário tem" in client.get(f"/migrations/{pages.project_id}/found").text
    assert client.get("/migrations/99/found").status_code == 404


def test_sources_are_listed_with_their_abilities(pages):
    page = pages.client("migration-engineer").get("/migrations/sources").text
    assert "LEGACY" in page
    assert "offers C-GET" in page
    assert "May be asked now." in page
    assert "old-ct" in page
    assert pages.client("radiologist").get("/migrations/sources").status_code == 403
    assert "all 3; an inventory finds out" in page
    with pages.sessions.begin() as session:
        session.execute(update(User).values(language="pt"))
    page = pages.client("migration-engineer").get("/migrations/sources").text
    assert "todas as 3; um inventário descobre se isso é um limite" in page
    assert 'lang="en"' not in page.partition("<main")[2]


def test_the_picture_holds_every_study():
    counts = {("2019", "CT"): 3, ("2019", "MR"): 1, ("2020", "CT"): 4, ("", "US"): 2} | {
        ("2020", f"X{n}"): 1 for n in range(8)
    }
    chart = findings.chart(counts)
    assert [year.name for year in chart.years] == ["2019", "2020", ""]
    assert sum(piece.count for year in chart.years for piece in year.pieces) == sum(counts.values())
    assert sum(count for _, _, count in chart.modalities) == sum(counts.values())
    tallest = chart.years[1]
    assert sum(piece.height for piece in tallest.pieces) == pytest.approx(findings.HEIGHT, abs=0.1)
    assert chart.modalities[0][0] == "CT"
    assert findings.chart({}).years == []
