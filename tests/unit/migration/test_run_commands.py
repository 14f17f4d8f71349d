"""`zambezi migrate urgent|exceptions|delta|cutover|status`, on an installation whose archive nobody asks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from migration.commands import migrate
from migration.office import Office, open_office
from zambezi import clock, keys
from zambezi.database.tables import MigrationProject, MigrationStudy
from zambezi.environment import REPOSITORY, Environment


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_tables: Path) -> Office:
    environ = {"ZAMBEZI_HOME": str(tmp_path), "ZAMBEZI_CONFIG": str(REPOSITORY / "orthanc-config")}
    environ |= {"ZAMBEZI_REPOSITORY": str(REPOSITORY), "ZAMBEZI_DATABASE_URL": f"sqlite:///{tmp_path}/z.db"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    shutil.copy(empty_tables, tmp_path / "z.db")
    keys.load_or_create(Environment.read(environ).keys_file)
    opened, at = open_office(), clock.text(clock.now())
    with opened.sessions.begin() as session:
        project = MigrationProject(id=1, name="p", source="GONE", state="paused", created_at=at, updated_at=at)
        session.add(project)
        for n, (state, reason) in enumerate(
            (("ready", ""), ("parked", "DIMSE status 0xC000"), ("parked", "timed out"), ("verified", ""))
        ):
            session.add(
                MigrationStudy(
                    project_id=1, study_uid=f"1.{n}", patient_id=f"P{n}", state=state, reason=reason,
                    next_at=at, expected=10,
                )
            )  # fmt: skip
    return opened


def run(*words: str) -> Result:
    return CliRunner().invoke(migrate, list(words))


def states(office: Office) -> dict[str, str]:
    with office.sessions() as session:
        return {row.study_uid: row.state for row in session.query(MigrationStudy)}


def test_what_waits_is_listed_with_what_we_would_do_and_decided_by_rule(office: Office):
    listed = run("exceptions", "p").output
    assert "1.1  parked: DIMSE status 0xC000" in listed
    assert "we would: retry; allowed: retry, waive" in listed
    facts = json.loads(run("exceptions", "p", "--text", "timed", "--json").output)
    assert [(one["study_uid"], one["suggested"]) for one in facts] == [("1.2", "retry")]
    refused = run("exceptions", "p", "--state", "parked", "--decide", "waive")
    assert refused.exit_code == 1
    assert "needs a reason" in refused.output
    assert run("exceptions", "p", "--text", "0xc000", "--decide", "waive", "--because", "lost").output == (
        "1 studies: waive\n"
    )
    assert states(office) == {"1.0": "ready", "1.1": "waived", "1.2": "parked", "1.3": "verified"}
    assert run("exceptions", "p", "--study", "1.1", "--decide", "retry").output == "1 studies: retry\n"
    assert states(office)["1.1"] == "ready"


def test_urgent_names_what_goes_first_and_says_where_nothing_waits(office: Office):
    assert "1.0 of no date, 10 images: ready" in run("urgent", "p", "P0", "--because", "patient in the room").output
    at_rest = run("urgent", "p", "P3", "--because", "x")
    assert at_rest.exit_code == 1
    assert "it is at rest" in at_rest.output


def test_cut_over_says_line_by_line_what_is_missing_and_ends_with_one(office: Office):
    said = run("cutover", "p")
    assert said.exit_code == 1
    assert "NO   no study is under way or waits its turn (there are: 1)" in said.output
    assert {one["name"] for one in json.loads(run("cutover", "p", "--json").output) if one["holds"]} == {
        "coverage", "matched"
    }  # fmt: skip


def test_a_source_that_is_configured_no_more_is_named(office: Office):
    assert "no source GONE any more (Migration.Sources)" in run("delta", "p").output
    assert "no migration q" in run("exceptions", "q").output


def test_status_says_what_is_not_known_and_has_all_of_it_for_programs(office: Office):
    assert "2 for a person to look at, 0 an hour, too little was done lately" in run("status", "p").output
    (fact,) = json.loads(run("status", "p", "--json").output)
    assert (fact["instances"], fact["instances_left"], fact["left"], fact["estimate"]) == (40, 10, 1, None)
    assert fact["source_health"]["slots"] == 1
