"""`zambezi move`: an archive changes its engines, whatever cuts the move off, and nothing follows from it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from operations import recovery
from operations.moving import engines
from tests import postgres
from tests.integration.archive_fixture import Archive, image, until
from zambezi import audit, clock, config, hold
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import Patient
from zambezi.database.upgrade import upgrade
from zambezi.environment import REPOSITORY, Environment

pytestmark = pytest.mark.timeout(1500)

RULES = {"Routing": [{"Name": "all", "SendTo": ["PACS2"]}], "Destinations": {"PACS2": {}}}
#: A user's own, by numbers from 1024.
USERS = {"metadata/1025": "teaching", "attachments/1026/data": "a note"}
PLUGIN = "/usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so"


class House:
    """An archive with a central database, whose engines the test changes."""

    def __init__(self, folder: Path, index_url: str, central_url: str) -> None:
        self.archive = Archive(folder, RULES)
        self.environment = self.archive.environment
        self.sqlite = f"sqlite:///{folder}/zambezi.db"
        self.index_url, self.postgresql = index_url, central_url
        self.crash = folder.parent / "crash"
        self.crash.mkdir()
        self.wanted = folder.parent / "config"
        self.use("sqlite")

    def use(self, engine: str) -> None:
        """What an administrator changes: JSON and ZAMBEZI_DATABASE_URL."""
        shutil.rmtree(self.wanted, ignore_errors=True)
        shutil.copytree(self.environment.orthanc_config_dir, self.wanted)
        (self.wanted / "99-secrets.json").unlink()
        (self.wanted / "25-postgresql.json").unlink(missing_ok=True)
        text = (self.wanted / "20-plugins.json").read_text()
        plugins = json.loads(text[text.index("{") :])  # comments stand above
        plugins["Plugins"] = [one for one in plugins["Plugins"] if one != PLUGIN]
        if engine == "postgresql":
            plugins["Plugins"].append(PLUGIN)
            url = urlsplit(self.index_url)
            section = {
                "EnableIndex": True, "EnableStorage": False, "Host": url.hostname, "Port": url.port,
                "Database": url.path[1:], "Username": url.username, "Password": "",
            }  # fmt: skip
            (self.wanted / "25-postgresql.json").write_text(json.dumps({"PostgreSQL": section}))
        (self.wanted / "20-plugins.json").write_text("//\n" + json.dumps(plugins))
        self.url = self.sqlite if engine == "sqlite" else self.postgresql

    def variables(self) -> dict[str, str]:
        return {
            **os.environ, **self.archive.variables, "PYTHONPATH": str(REPOSITORY), "ZAMBEZI_CONFIG": str(self.wanted),
            "ZAMBEZI_DATABASE_URL": self.url, "ZAMBEZI_CRASH_DIR": str(self.crash),
        }  # fmt: skip

    def faults(self) -> list[str]:
        variables = self.variables()
        return engines.faults(Environment.read(variables), config.load(self.wanted, variables))

    def move(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`zambezi move WORDS`, under the account of the test: the archive of the fixture has no other."""
        code = "from operations.moving import commands as c; c.become_account = lambda home: None; c.move()"
        return subprocess.run(
            [sys.executable, "-c", code, *words], env=self.variables(), capture_output=True, text=True, timeout=120,
            cwd=REPOSITORY, check=False,
        )  # fmt: skip

    def start(self) -> None:
        """As `zambezi up` does: the checked configuration is copied, then the archive starts."""
        for file in self.environment.orthanc_config_dir.glob("*.json"):
            if file.name != "99-secrets.json":
                file.unlink()
        self.environment.orthanc_config_dir.mkdir(exist_ok=True)
        for file in self.wanted.glob("*.json"):
            shutil.copy(file, self.environment.orthanc_config_dir)
        secrets = {"RegisteredUsers": self.archive.keys.services}
        (self.environment.orthanc_config_dir / "99-secrets.json").write_text(json.dumps(secrets))
        self.archive.start()

    def contents(self) -> dict[str, tuple[str, str]]:
        """Every instance: its SOP Instance UID, and the MD5 of the bytes that Orthanc gives."""
        orthanc = self.archive.as_service()
        return {
            one["ID"]: (one["MainDicomTags"]["SOPInstanceUID"], orthanc.md5(one["ID"]))
            for one in orthanc.find("Instance", {}, expand=True)
        }

    def patients(self) -> list[str]:
        engine = connect(self.url, "test", reading=True)
        with sessions(engine, "test")() as session:
            assert audit.verify(session) == []
            found = sorted(one.patient_id for one in session.query(Patient))
        engine.dispose()
        return found


@pytest.fixture
def house(tmp_path: Path, postgres_cluster: postgres.Cluster) -> Iterator[House]:
    with postgres_cluster.a_database() as index, postgres_cluster.a_database() as central:
        made = House(tmp_path / "home", index, central)
        yield made
        if made.archive.process and made.archive.process.poll() is None:
            made.archive.kill()


def fill(house: House) -> None:
    """Twelve images of four studies, routed, and a central database with rows and a chain."""
    studies = [image().StudyInstanceUID for _ in range(4)]
    house.start()
    assert set(house.archive.send(*(image(study) for study in studies for _ in range(3)))) == {0}
    until(lambda: len(house.archive.events("study-completed")) == 4)
    engine = connect(house.sqlite, "test")
    upgrade(engine)
    with sessions(engine, "test").begin() as session:
        for n in range(3):
            now = clock.now()
            session.add(
                Patient(
                    patient_id=f"P{n}", issuer="H", family_name="Conceição", created_at=clock.text(now),
                    updated_at=clock.text(now),
                )
            )  # fmt: skip
            audit.append(session, "ris", "patient-changed", now, who="test", reason=f"é {n}")
    engine.dispose()


def mark(house: House, orthanc_id: str) -> None:
    """A user's own metadata and attachment, by an Orthanc without our plugin: with it there is no way."""
    bare = house.archive.home / "bare"
    bare.mkdir()
    for file in house.environment.orthanc_config_dir.glob("*.json"):
        if file.name != "20-plugins.json":
            shutil.copy(file, bare)
    with recovery.running("/usr/sbin/Orthanc", bare, house.variables(), log=bare / "log"):
        orthanc = house.archive.as_service()
        recovery.wait_until_up(orthanc)
        for path, value in USERS.items():
            orthanc.request("PUT", f"/instances/{orthanc_id}/{path.removesuffix('/data')}", data=value.encode())


def counted(house: House) -> Counter[str]:
    told = Counter(one["event"] for one in house.archive.entries())
    return Counter({event: told[event] for event in ("stored", "stored-again", "routed", "study-completed", "deleted")})


def test_there_and_back_with_every_cut(house: House) -> None:
    fill(house)
    before, events = house.contents(), counted(house)
    house.archive.stop()
    old = sorted(file.name for file in house.environment.storage_dir.rglob("*-*") if file.is_file())

    house.use("postgresql")
    assert "an empty archive would start" in house.faults()[0]
    early = late = 0
    changing = engines.phase_file(house.environment)
    while True:
        # Each run goes two commits further; while the two change places, before each of the two steps that are left.
        (house.crash / "move").write_text(str((1, 2, 1, 2, 9)[late] if changing.exists() else 2 * early + 2))
        began_late = changing.exists()
        done = house.move("to", "postgresql")
        if done.returncode != 137:
            break
        early, late = early + (not began_late), late + began_late
        assert house.faults(), "no start finds half an archive"
        assert early < 30
    assert done.returncode == 0, done.stderr
    (house.crash / "move").unlink(missing_ok=True)
    assert early >= 3 and late == 4, (early, late)
    assert house.faults() == []
    proof = done.stdout.split("proven: ")[1].split("\n")[0]
    assert "the proof holds: 12 instances" in house.move("verify", proof).stdout
    kept = next(house.environment.home.glob("orthanc-before-move-*"))
    assert sorted(file.name for file in (kept / "storage").rglob("*-*") if file.is_file()) == old
    house.move("forget", "--yes")
    assert kept.exists(), "the new one has not been started yet"

    house.start()
    assert house.contents() == before
    moved = until(lambda: house.archive.events("archive-moved"))
    assert (len(moved), moved[0]["instances"], moved[0]["proof"]) == (1, 12, Path(proof).name)
    more = image()
    assert house.archive.send(more) == [0]
    until(lambda: house.archive.events("study-completed", study_uid=more.StudyInstanceUID))
    assert counted(house) - events == Counter({"stored": 1, "routed": 1, "study-completed": 1})
    assert house.archive.events("incident") == []
    assert house.patients() == ["P0", "P1", "P2"]
    now, before = counted(house), house.contents()
    house.archive.stop()

    house.use("sqlite")
    done = house.move("to", "sqlite", "--database-was", house.postgresql)
    assert done.returncode == 0, done.stderr
    house.start()
    assert house.contents() == before
    assert counted(house) == now
    assert house.patients() == ["P0", "P1", "P2"]
    assert len(house.archive.events("archive-moved")) == 2
    house.archive.stop()
    assert house.move("forget", "--yes").returncode == 0
    assert not list(house.environment.home.glob("orthanc-before-*"))


def test_between_two_runs_the_old_archive_is_used_and_a_damaged_file_stops_the_move(house: House) -> None:
    fill(house)
    marked = sorted(house.contents())[0]
    house.archive.stop()
    mark(house, marked)
    house.use("postgresql")
    (house.crash / "move").write_text("2")  # behind the first commit of what was copied
    assert house.move("to", "postgresql").returncode == 137

    house.use("sqlite")
    assert house.faults() == []
    house.start()
    more = image()
    assert house.archive.send(more) == [0]
    until(lambda: house.archive.events("study-completed", study_uid=more.StudyInstanceUID))
    before = house.contents()
    house.archive.stop()
    database = sqlite3.connect(house.environment.index_dir / "index")
    with closing(database):
        sql = "SELECT uuid FROM AttachedFiles f JOIN Resources r ON r.internalId = f.id ORDER BY f.id DESC LIMIT 1"
        ((name,),) = database.execute(sql).fetchall()
    damaged = house.environment.storage_dir / name[:2] / name[2:4] / name
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + b"?")

    house.use("postgresql")
    done = house.move("to", "postgresql")
    assert done.returncode == 1
    assert "1 instances could not be moved" in done.stderr and "not what the old archive recorded" in done.stderr
    assert damaged.exists(), "the old archive is in place"
    done = house.move("to", "postgresql", "--leave-damaged")
    assert done.returncode == 0, done.stderr
    house.start()
    there = house.contents()
    assert there.items() <= before.items() and len(there) == len(before) - 1
    assert [file.read_bytes() for file in hold.files(house.environment.hold_dir)] == [content[:-1] + b"?"]
    assert len(until(lambda: house.archive.events("deleted", noticed="unseen"))) == 1
    for path, value in USERS.items():
        assert house.archive.get(f"/instances/{marked}/{path}").text.strip() == value, "a user's own goes along"
    metadata = house.archive.get(f"/instances/{marked}/metadata?expand").json()
    assert (metadata["RemoteAET"], metadata["HttpUsername"]) == ("", "move"), "Orthanc's own can't"
    kept = next((house.environment.home / "proofs").glob("*/others.jsonl.gz"))
    lines = gzip.decompress(kept.read_bytes()).splitlines()
    assert ["instances", marked, "metadata", 3, "CT1", ""] in [json.loads(line) for line in lines]
    house.archive.stop()


def test_an_archive_that_was_not_followed_to_its_end_is_not_moved(house: House) -> None:
    fill(house)
    house.archive.stop()
    with closing(sqlite3.connect(house.environment.journal_file)) as journal:
        journal.execute("DELETE FROM instances WHERE orthanc_id = (SELECT max(orthanc_id) FROM instances)")
        journal.commit()
    house.use("postgresql")
    done = house.move("to", "postgresql")
    assert done.returncode == 1
    assert "1 instances are not in the journal yet, and 0 that it has" in done.stderr
