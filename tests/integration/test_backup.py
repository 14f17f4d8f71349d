"""Backup, loss of the machine, restore and proof, with a real Orthanc, real restic and both engines."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from operations import preparing
from operations.backup import making, manifest, restoring, schedule
from operations.backup.copies import Postgres
from operations.backup.repository import BackupFault, Repository
from operations.backup.restoring import Place
from tests import postgres
from tests.integration.archive_fixture import Archive, image, until
from zambezi import audit, config, signing
from zambezi import hold as held
from zambezi.chain import Sealed
from zambezi.database.engine import connect, sessions
from zambezi.database.upgrade import upgrade
from zambezi.environment import REPOSITORY, Environment

#: A window that is over: nothing may be interrupted.
CLOSED = {"ValidUntil": "2020-01-01"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the account, as which root's `zambezi restore` goes on, can get in."""
    made = Path(tempfile.mkdtemp(prefix="zambezi-backup-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def given_to_the_account(path: Path) -> None:
    """As on a disk that was plugged into another machine, and given to its account."""
    if os.geteuid() == 0:
        for one in (path, *path.rglob("*")):
            shutil.chown(one, "zambezi", "zambezi")


@dataclass
class Site:
    """An archive whose Orthanc is started again whenever it ends, with a central database and a repository."""

    archive: Archive
    url: str
    said: list[str] = field(default_factory=list)

    @property
    def environment(self) -> Environment:
        return Environment.read(self.variables)

    @property
    def variables(self) -> dict[str, str]:
        home = self.archive.home
        return {**self.archive.variables, "ZAMBEZI_CONFIG": f"{home}/orthanc/config", "ZAMBEZI_DATABASE_URL": self.url}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Started, and started again whenever it ends."""
        self.archive.start()
        ended = threading.Event()

        def look_after() -> None:
            while not ended.wait(0.05):
                if self.archive.process and self.archive.process.poll() is not None:
                    self.archive.start(wait=False)

        supervisor = threading.Thread(target=look_after, daemon=True)
        supervisor.start()
        try:
            yield
        finally:
            ended.set()
            supervisor.join()
            self.archive.kill()

    def fill(self) -> None:
        """What the gateway would have brought into the central database: the journal's entries so far."""
        rows = self.archive.journal_rows("SELECT seq, hash, payload FROM entries ORDER BY seq")
        name = self.archive.journal_rows("SELECT value FROM meta WHERE key = 'journal'")[0][0]
        engine = connect(self.url, "test")
        upgrade(engine)
        with sessions(engine, "test").begin() as session:
            audit.take_over(session, [Sealed(name, seq, digest, bytes(payload)) for seq, digest, payload in rows])
        engine.dispose()

    def zambezi(self, *words: str, said: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """`zambezi WORDS`, as at the console."""
        command = [sys.executable, "-c", "from zambezi.cli import main; main()", *words]
        environ = {**os.environ, **self.variables, "PYTHONPATH": str(REPOSITORY), **variables}
        return subprocess.run(command, env=environ, input=said, capture_output=True, text=True, timeout=120)

    def backup(self, during: Any = None) -> schedule.Last:
        """One backup; `during` is called when databases are copied and files are not."""

        def say(words: str) -> None:
            self.said.append(words)
            if during and words.startswith("Writing files"):
                during()

        found = config.load(self.environment.config_dir, {**os.environ, **self.variables})
        return making.Backup(self.environment, found, say, "test").run()

    def repository(self) -> Repository:
        return Repository(self.archive.rules["Backup"]["Repository"], self.environment.backup_dir)

    def instances(self) -> dict[str, str]:
        """Orthanc id and MD5 of everything, as Orthanc says them."""
        orthanc = self.archive.as_service("operations")
        return {one: orthanc.md5(one) for one in orthanc.get("/instances")}


def a_site(
    folder: Path, name: str, url: str = "", index: dict[str, Any] | None = None, quiet_seconds: float = 1
) -> Site:
    home = folder / name
    home.mkdir(exist_ok=True)
    backup = {"Repository": f"{folder}/repository", "Windows": [CLOSED]}
    archive = Archive(home, {"Backup": backup, "Completeness": {"QuietSeconds": quiet_seconds}})
    if index:
        put_index_into_postgresql(home / "orthanc" / "config", index)
    return Site(archive, url or f"sqlite:///{home}/zambezi.db")


def an_empty_machine(folder: Path, site: Site, url: str = "") -> Site:
    """Nothing but this software, an empty folder, and the configuration of the lost machine on a stick."""
    home = folder / "new"
    new = Site.__new__(Site)
    made = Archive.__new__(Archive)
    made.home, made.rules, made.process = home, site.archive.rules, None
    made.variables = {**site.archive.variables, "ZAMBEZI_HOME": str(home)}
    made.environment = Environment.read(made.variables)
    new.archive, new.url, new.said = made, url or f"sqlite:///{home}/zambezi.db", []
    return new


def stored(site: Site, *images: Dataset) -> None:
    """Sent, accepted, and seen to be complete."""
    assert site.archive.send(*images) == [0] * len(images)
    until(lambda: site.archive.journal_rows("SELECT count(*) FROM clocks") == [(0,)])


def a_restic_that_was_killed(repository: Repository) -> None:
    """It leaves its lock behind, which keeps others from tidying up."""
    environ = {**os.environ, "RESTIC_PASSWORD_FILE": str(repository.password_file)}
    command = ["restic", "--no-cache", "-r", repository.address, "backup", "--stdin"]
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        locks = Path(repository.address) / "locks"
        until(lambda: any(locks.iterdir()))
        process.kill()
    assert any(locks.iterdir())


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(bytes(content))


def test_a_lost_machine_comes_back_from_repository_and_password(folder: Path):
    site = a_site(folder, "old", quiet_seconds=3)
    first, late = [image() for _ in range(3)], image()
    with site.running():
        made = site.zambezi("backup", "init")
        assert made.returncode == 0, made.stderr
        password = site.repository().password_file.read_text()
        assert password in made.stdout
        assert site.repository().password_file.stat().st_mode & 0o777 == 0o600
        assert site.archive.send(*first) == [0, 0, 0]
        until(lambda: site.archive.journal_rows("SELECT count(*) FROM clocks") != [(0,)])
        # Its study is still coming in, and the window is closed: nobody is interrupted.
        with pytest.raises(BackupFault, match="CT1 is storing"):
            site.backup()
        assert not schedule.last(site.environment.backup_dir).ok
        until(lambda: site.archive.journal_rows("SELECT count(*) FROM clocks") == [(0,)])
        site.fill()
        kept = held.put(site.environment.hold_dir, b"held")
        before = site.instances()

        a_restic_that_was_killed(site.repository())
        done = site.backup(during=lambda: stored(site, late))

        assert done.ok
        assert done.instances == 3
        assert done.gap_s is not None
        assert done.gap_s < 30
        assert json.loads((site.environment.backup_dir / "last.json").read_bytes())["finished"] == done.finished
        after = site.instances()
        assert len(after) == 4
        drilled = site.zambezi("backup", "drill")
        assert drilled.returncode == 0, drilled.stdout + drilled.stderr
        assert "The drill passed" in drilled.stdout
        report = json.loads(next((site.environment.backup_dir / "drills").iterdir()).read_bytes())
        assert signing.holds(
            report["public_key"], signing.canonical(report["report"]), base64.b64decode(report["signature"])
        )
        assert (report["report"]["instances"], report["report"]["holds"]) == (3, True)
        # Here nothing is lost, so nothing is overwritten.
        assert "holds an installation already" in site.zambezi("restore", said=password).stderr
        journal = site.archive.journal_rows("SELECT seq, hash FROM entries ORDER BY seq")
    shutil.rmtree(site.archive.home)
    given_to_the_account(folder / "repository")

    new = an_empty_machine(folder, site)
    words = ("restore", "--repository", str(folder / "repository"))
    wrong = new.zambezi(*words, said="AAAAA-BBBBB\n")
    assert "is not the one of the repository" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    (new.environment.backup_dir / "password").unlink()
    back = new.zambezi(*words, said=password + "\n")
    assert back.returncode == 0, back.stdout + back.stderr
    assert "1 files came while the backup was made" in back.stdout
    assert "CT1 (3 so far)" in back.stdout
    assert held.get(new.environment.hold_dir, kept) == b"held"
    again = Archive(new.archive.home, site.archive.rules, variables=site.archive.variables | {
        "ZAMBEZI_HOME": str(new.archive.home)})  # fmt: skip
    again.start()
    revived = Site(again, new.url)
    assert revived.instances() == after  # the late one, too: its file was there, and the index learnt of it again
    assert before.items() <= after.items()
    known = [row for row in again.journal_rows("SELECT seq, hash FROM entries ORDER BY seq") if row in journal]
    assert len(known) >= len([e for e in journal if e[0] <= known[-1][0]]) > 3
    verified = revived.zambezi("audit", "verify")
    assert verified.returncode == 0, verified.stdout
    again.stop()


def test_postgresql_comes_back_and_the_proof_finds_what_is_not_as_it_was(
    folder: Path, postgres_cluster: postgres.Cluster
):
    with (
        postgres_cluster.a_database() as url,
        postgres_cluster.a_database() as index_url,
        postgres_cluster.a_database() as new_url,
        postgres_cluster.a_database() as new_index_url,
    ):
        site = a_site(folder, "old", url, on_postgres(index_url))
        late = image()
        with site.running():
            assert site.zambezi("backup", "init").returncode == 0
            stored(site, *[image() for _ in range(3)])
            site.fill()
            done = site.backup(during=lambda: stored(site, late))
            assert (done.instances, done.gap_s) == (3, None)  # nobody waited
            after = site.instances()
            drilled = site.zambezi("backup", "drill")
            assert drilled.returncode == 0, drilled.stdout + drilled.stderr
            password = site.repository().password_file
            # The disk loses a file: a backup that can't be whole says so, and doesn't count.
            lost = next(file for file in site.environment.storage_dir.rglob("*-*") if file.is_file())
            content = lost.read_bytes()
            lost.unlink()
            with pytest.raises(BackupFault, match=f"{lost.name}.* is missing"):
                site.backup()
            assert schedule.last(site.environment.backup_dir).finished == done.finished
            assert [one.snapshot_id for one in site.repository().snapshots()] == [done.snapshot]
            lost.write_bytes(content)
        password.rename(folder / "password")
        shutil.rmtree(site.archive.home)
        given_to_the_account(folder / "repository")

        new = an_empty_machine(folder, site, new_url)
        words = ("restore", "--repository", str(folder / "repository"))
        words = (*words, "--password-file", str(folder / "password"))
        rules = (folder / "stick").absolute()
        shutil.copytree(REPOSITORY / "orthanc-config", rules)
        put_index_into_postgresql(rules, on_postgres(new_index_url))
        # What came back is looked at, not believed: somebody damages it before the proof.
        place = Place(new.archive.home, new_url, lambda _: Postgres.of_url(new_index_url))
        repository = Repository(str(folder / "repository"), new.environment.backup_dir)
        new.environment.backup_dir.mkdir(parents=True)
        shutil.copy(folder / "password", repository.password_file)
        restoring.put_back(place, repository, done.snapshot, new.said.append)
        flipped, gone = [new.archive.home / one.path for one in manifest.attachments(place.staging)][:2]
        kept = gone.read_bytes()
        flip(flipped)
        gone.unlink()
        refused = new.zambezi(*words, ZAMBEZI_CONFIG=str(rules))
        assert refused.returncode == 1
        assert f"MISSING  orthanc/storage/{gone.name[:2]}" in refused.stdout
        assert f"DAMAGED  orthanc/storage/{flipped.name[:2]}" in refused.stdout
        assert any("restore" in fault for fault in preparing.environment_faults(new.environment))
        flip(flipped)
        gone.write_bytes(kept)
        back = new.zambezi(*words[:3], ZAMBEZI_CONFIG=str(rules))  # the password is known by now
        assert back.returncode == 0, back.stdout + back.stderr
        assert "start with ZAMBEZI_CONFIG=" in back.stdout
        assert preparing.environment_faults(new.environment) == []
        assert schedule.last(new.environment.backup_dir).snapshot == done.snapshot

        revived = a_site(folder, "new", new_url, on_postgres(new_index_url))
        revived.archive.start()
        assert revived.instances() == after  # with the one whose file was newer than the index
        verified = revived.zambezi("audit", "verify")
        assert verified.returncode == 0, verified.stdout
        revived.archive.stop()
        for pack in (folder / "repository" / "data").rglob("*"):
            if pack.is_file():
                flip(pack)
        with pytest.raises(BackupFault, match="is damaged"):
            repository.check("100%")


def put_index_into_postgresql(rules: Path, index: dict[str, Any]) -> None:
    """Section and plugin, as tools/index-in-postgresql writes them, with the section's own words."""
    plugins = rules / "20-plugins.json"
    plugin = "/usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so"
    plugins.write_text(plugins.read_text().replace('libOrthancGdcm.so"', f'libOrthancGdcm.so", "{plugin}"'))
    (rules / "25-postgresql.json").write_text(json.dumps({"PostgreSQL": index}))


def on_postgres(url: str) -> dict[str, Any]:
    """Orthanc's section for an index in the tests' PostgreSQL."""
    known = Postgres.of_url(url).keywords
    return {
        "EnableIndex": True, "EnableStorage": False, "Host": known["host"], "Port": int(known["port"]),
        "Database": known["dbname"], "Username": known["user"], "Password": known.get("password", ""),
    }  # fmt: skip
