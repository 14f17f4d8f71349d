"""Sample, certificate and roll-back on SQLite and PostgreSQL alike."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from migration import certificate, rollback, sampling, verifier
from tests.unit.migration.test_certificate import AT, NOW, instance, study
from zambezi import deletions, signing
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import Deletion, MigrationProject, MigrationStudy, Study
from zambezi.database.upgrade import upgrade


def a_finished_project(opened: Sessions) -> int:
    plan = {"Level": "source", "Sample": {"Studies": 2}}
    with opened.begin() as session:
        project = MigrationProject(name="p", source="OLD", state="finished", created_at=AT, updated_at=AT, plan=plan)
        session.add(project)
        session.flush()
        for one, rows in (study(f"1.2.{n}", instance(n)) for n in range(5)):
            one.project_id = project.id
            session.add(one)
            session.flush()
            for row in rows:
                row.study_id = one.id
            session.add_all(rows)
        session.add(Study(study_uid="1.2.1", orthanc_id="s", cause="migration", first_at=AT, last_at=AT))
        assert sampling.draw(session, project, "ana", NOW) is sampling.draw(session, project, "rui", NOW)
        return project.id


def test_it_is_the_same(database_url: str, tmp_path: Path) -> None:
    engine = connect(database_url, "test")
    upgrade(engine)
    opened = sessions(engine, "test")
    project_id = a_finished_project(opened)
    signer = signing.current(tmp_path, "certificate", "ana", NOW)

    def head() -> dict[str, object]:
        number = certificate.issue(opened, project_id, signer, {}, "ana", NOW)
        found = verifier.examine(io.BytesIO(b"".join(certificate.lines(opened, number))))
        assert found.faults == []
        return found.head

    sample = head()["sample"]
    assert isinstance(sample, dict)
    assert (sample["population"], sample["drawn"], sample["compared"]) == (5, 2, 2)
    with opened.begin() as session:
        project = session.get_one(MigrationProject, project_id)
        row = session.scalars(select(MigrationStudy).where(MigrationStudy.study_uid == "1.2.1")).one()
        taken = rollback.Taken(row.id, row.study_uid)
        taken.going["s"].append(deletions.Listed("o", "1.4", "1.3.1", "e" * 64))
        (number,) = rollback.ask(session, project, taken, "a trial", "ana", NOW)
        assert rollback.confirm(session, project, 0, "rui", NOW, timedelta()) == ([number], [])
        deletion = session.get_one(Deletion, number)
        deletion.state = "done"
        for item in deletions.items(session, deletion):
            item.state = "gone"
        session.flush()
        assert rollback.settle(session, NOW) == 1
        assert rollback.batches(session, project_id) == {0: {"verified": 4, "rolled-back": 1}}
    counts = head()["counts"]
    assert isinstance(counts, dict)
    assert counts["instances_by_verdict"] == {"equal": 4, "rolled-back": 1}
    engine.dispose()
