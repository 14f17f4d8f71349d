"""The central database on another engine: every row, every chain, all or nothing; and numbers go on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, text

from operations.moving import central, engines, proof, steps
from operations.moving.central import CentralFault
from operations.moving.steps import Move
from tests import postgres
from tests.schema import upgraded
from zambezi import audit, clock, config, signing
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import AuditEntry, Correction, Patient
from zambezi.environment import REPOSITORY, Environment


@pytest.fixture
def elsewhere(postgres_cluster: postgres.Cluster) -> Iterator[str]:
    with postgres_cluster.a_database() as url:
        yield url


def a_patient(name: str) -> Patient:
    now = clock.text(clock.now())
    return Patient(patient_id=name, issuer="H", family_name="Conceição", created_at=now, updated_at=now)


def fill(url: str) -> None:
    engine = upgraded(url)
    with sessions(engine, "test").begin() as session:
        session.add_all(a_patient(f"P{n}") for n in range(1500))
        for n in range(5):
            audit.append(session, "ris", "patient-changed", clock.now(), who="test", reason=f"açúcar {n}")
    engine.dispose()


def the_move(home: Path, old: str, new: str) -> Move:
    environment = Environment.read({"ZAMBEZI_HOME": str(home), "ZAMBEZI_DATABASE_URL": new})
    target = config.load(REPOSITORY / "orthanc-config", {})
    wanted = engines.wanted(environment, target)
    was = "sqlite" if old.startswith("sqlite") else "postgresql"
    there = replace(wanted, database=was, database_at=engines.without_password(old))
    return Move(environment, target, there, wanted, old, "console:test", lambda _: None)


def test_the_central_database_moves_alone_and_back(tmp_path: Path, elsewhere: str):
    here = f"sqlite:///{tmp_path}/zambezi.db"
    fill(here)
    there = the_move(tmp_path, here, elsewhere)
    folder = steps.run(there, {}, False)
    assert proof.faults(folder, signing.register(there.environment.signing_dir, proof.PURPOSE)) == []
    assert engines.present(there.environment) == there.wanted
    engine = connect(elsewhere, "test")
    with sessions(engine, "test").begin() as session:
        session.add(a_patient("the next"))
        session.flush()
        assert session.scalars(select(Patient.id).where(Patient.patient_id == "the next")).one() == 1501
        audit.append(session, "ris", "patient-changed", clock.now(), who="test")
        assert session.query(AuditEntry).where(AuditEntry.event == "key-changed").count() == 1
    engine.dispose()

    back = the_move(tmp_path, elsewhere, here)
    steps.run(back, {}, False)
    engine = connect(here, "test")
    with sessions(engine, "test").begin() as session:
        assert session.query(Patient).count() == 1501
        assert audit.verify(session) == []
    engine.dispose()
    assert len(list(tmp_path.glob("zambezi.db.before-*"))) >= 1, "the file of before is kept apart"


def test_a_database_of_somebody_elses_is_not_overwritten(tmp_path: Path, elsewhere: str):
    here = f"sqlite:///{tmp_path}/zambezi.db"
    fill(here)
    fill(elsewhere)
    with pytest.raises(CentralFault, match="has rows already"):
        central.copy(here, elsewhere, False, lambda _: None)


def test_what_the_other_engine_refuses_leaves_it_empty_and_is_said(tmp_path: Path, elsewhere: str):
    here = f"sqlite:///{tmp_path}/zambezi.db"
    fill(here)
    engine = connect(here, "test")
    with sessions(engine, "test").begin() as session:
        session.add(a_patient("P" * 65))  # SQLite doesn't look at lengths
    engine.dispose()
    with pytest.raises(CentralFault, match="too long"):
        central.copy(here, elsewhere, False, lambda _: None)
    engine = connect(elsewhere, "test")
    with sessions(engine, "test")() as session:
        assert session.query(Patient).count() == session.query(Correction).count() == 0
    engine.dispose()


def test_a_database_of_another_version_is_not_read_as_if_it_were_of_this_one(tmp_path: Path, elsewhere: str):
    here = f"sqlite:///{tmp_path}/zambezi.db"
    fill(here)
    engine = connect(here, "test")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    engine.dispose()
    with pytest.raises(CentralFault, match="another version of Zambezi"):
        central.copy(here, elsewhere, False, lambda _: None)
