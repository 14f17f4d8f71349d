"""The plan document and what it says of time; the commands that make it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from migration import estimate, plan_document, plan_text
from migration.commands import migrate
from tests.unit.migration.test_plans import ANA, NOW, RUI, House
from zambezi import keys
from zambezi.config.settings import Window, Zambezi
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import MigrationProject
from zambezi.database.upgrade import upgrade
from zambezi.environment import REPOSITORY, Environment

MAPUTO = ZoneInfo("Africa/Maputo")
NIGHTS = (Window.model_validate({"Days": ["Mon", "Tue", "Wed", "Thu", "Fri"], "From": "20:00", "To": "04:00"}),)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("ZAMBEZI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ZAMBEZI_CONFIG", str(REPOSITORY / "orthanc-config"))
    environment = Environment.read()
    keys.load_or_create(environment.keys_file)
    engine = connect(environment.database_url, "test")
    upgrade(engine)
    yield House(sessions(engine, "test"))
    engine.dispose()


def test_work_is_laid_into_the_windows_of_its_source() -> None:
    friday = datetime(2026, 11, 20, 19, 0, tzinfo=MAPUTO)
    speed = estimate.Rates(slow=1, usual=1, quick=2)
    found = estimate.of(10 * 3600, 0.0, speed, NIGHTS, friday, MAPUTO)
    # Ten hours: eight of Friday's night, two of Monday's.
    assert found.likely == datetime(2026, 11, 23, 22, 0, tzinfo=MAPUTO)
    assert found.earliest == datetime(2026, 11, 21, 1, 0, tzinfo=MAPUTO)
    assert found.working_hours == (5, 10, 10)
    twice = estimate.of(10 * 3600, 1.0, speed, NIGHTS, friday, MAPUTO)
    assert twice.working_hours == (10, 20, 20)
    never = (Window.model_validate({"ValidUntil": "2020-01-01"}),)
    assert estimate.of(1, 0.0, speed, never, friday, MAPUTO).likely is None


def test_what_was_measured_counts_more_than_what_is_assumed() -> None:
    ends = [(NOW + timedelta(seconds=20 * n), 100) for n in range(101)]
    assert estimate.rates(estimate.seen(ends), 4) == estimate.Rates(5, 5, 5, 100)
    assert estimate.rates(estimate.seen(ends[:30]), 1).measured == 0
    pause = [(at + timedelta(hours=n > 55), images) for n, (at, images) in enumerate(ends)]
    assert estimate.rates(estimate.seen(pause), 1).usual == 5, "a night's pause isn't slowness"


def test_the_document_says_the_same_in_both_languages(house: House) -> None:
    house.patient("77", "Silva^Ana", "19700512", "F")
    house.found("1.1", "77", **ANA)
    house.found("1.2", "4711", date="", **ANA)
    house.take(
        Skip=[{"Name": "old", "When": {"PatientName": {"Present": False}}, "Before": "2001-01-01", "Because": "law"}],
        Rules=[{"Name": "issuer", "Set": {"IssuerOfPatientID": "HCM"}}], Matching={}, Sample={"Studies": 300},
        Duties=[{"Who": "Dra. Inês", "What": "aceita"}], Carry=["labels", "attachments"],
    )  # fmt: skip
    with house.sessions.begin() as session:
        project = session.get_one(MigrationProject, house.project_id)
        settings = Zambezi.model_validate({"Migration": {"Sources": {"OLD": {"Peer": "old"}}}})
        found = plan_document.of(session, project, settings, NOW)
    texts = {language: plan_text.write(found, language, MAPUTO) for language in ("pt", "en")}
    told = {language: str(text) for language, text in texts.items()}
    assert len(texts["pt"].parts) == len(texts["en"].parts) == 13
    assert sorted(re.findall(r"\d+", told["pt"])) == sorted(re.findall(r"\d+", told["en"]))
    assert all("Dra. Inês" in one for one in told.values())
    assert "do arquivo antigo: etiquetas, anexos;" in told["pt"]
    assert "Held until a person has decided whose they are, or what they are to say: 1 study." in told["en"]
    assert "Retidos até alguém decidir de quem são ou o que devem dizer: 1 estudo." in told["pt"]
    assert "silva" not in told["en"].casefold(), "a plan document names no patient"


def test_a_plan_is_shown_taken_printed_and_its_held_patients_decided_by_command(house: House, tmp_path: Path) -> None:
    ana = house.patient("77", "Silva^Ana", "19700512", "F")
    house.found("1.1", "4711", **ANA)
    house.found("1.2", "5", **RUI)
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"Matching": {}, "Rules": [{"Name": "id", "Prefix": {"PatientID": "OLD-"}}]}))
    run = CliRunner().invoke
    shown = run(migrate, ["plan", "p", str(file)])
    assert "PatientID: 5 -> OLD-5  [id]" in shown.output
    assert "Nothing was changed" in shown.output
    assert json.loads(run(migrate, ["plan", "p", "--json"]).output) == []
    assert "say why" in run(migrate, ["plan", "p", str(file), "--take"]).output
    taken = run(migrate, ["plan", "p", str(file), "--take", "--because", "first"])
    assert "version 1 of the plan is in force: 1 held, 1 ready." in taken.output
    held = json.loads(run(migrate, ["held", "p", "--json"]).output)
    (one,) = held["patients"]
    assert [candidate["patient"] for candidate in one["candidates"]] == [ana]
    assert "1 patients would be decided" in run(
        migrate, ["decide", "p", "--from-score", "0.7", "--because", "seen"]
    ).output  # fmt: skip
    decided = run(migrate, ["decide", "p", str(one["number"]), "--patient", str(ana), "--because", "seen"])
    assert "1 studies go on" in decided.output
    assert "patient 1: seen" in run(migrate, ["held", "p", "--decided"]).output
    for language in ("pt", "en"):
        out = tmp_path / f"{language}.pdf"
        printed = run(migrate, ["plan-document", "p", "--out", str(out), "--language", language])
        assert "version 1" in printed.output
        assert out.read_bytes().startswith(b"%PDF")
    file.write_text('{"Rules": [{"Name": "id", "Set": {"Rows": "1"}}]}')
    faulty = run(migrate, ["plan", "p", str(file)])
    assert faulty.exit_code != 0
    assert "Plan.Rules[0].Set.Rows: allowed here are PatientID" in faulty.output
