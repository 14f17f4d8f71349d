"""A migration on PostgreSQL whose workers, database and archive die: nothing is lost, nothing verified moves again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pydicom
import pytest
from pydicom.uid import (
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)
from sqlalchemy import event, select
from sqlalchemy.exc import SQLAlchemyError

from migration import dicom_source, inventory, ledger, pace, transfer, worker
from migration.desk import Desk
from migration.dicom_source import DicomSource
from migration.office import open_office
from migration.pace import Pace
from migration.service import Migrations
from migration.source import Given, Request, Trouble
from tests import postgres
from tests.integration.migration_lab import Lab, a_lab, sample, wait_for
from zambezi import audit, clock, digest
from zambezi.database import generations
from zambezi.database.tables import AuditEntry, Breaker, MigrationProject, MigrationStudy
from zambezi.leases import Keeper
from zambezi.retries import ErrorClass

#: More events than any study has; the test says so if one has more.
MOST = 40
KILLED = 137


@pytest.fixture(scope="module")
def lab(postgres_cluster: postgres.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("deaths")
    windows = [{"Days": [f"{datetime.now(UTC) + timedelta(days=n):%a}" for n in (-1, 0, 1)]}]
    with postgres_cluster.a_database() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZAMBEZI_CLOCK", str(folder / "ahead"))
        with a_lab(folder, patch, database_url=url, Ceiling=4, Windows=windows) as running:
            (folder / "crash").mkdir()
            patch.setattr(dicom_source, "_POLL_SECONDS", 0.02)  # one image each: a study would wait ten times its work
            yield running


def a_study(dataset: pydicom.Dataset) -> None:
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = (generate_uid() for _ in range(3))


def load(lab: Lab, many: int, project: str) -> MigrationProject:
    """So many more studies at the source, in a project of their own, which runs."""
    files = [lab.altered("CT_small.dcm", a_study) for _ in range(many)]
    lab.load_together(*files)
    return take(lab, project, *files)


def take(lab: Lab, project: str, *files: Path) -> MigrationProject:
    """A project of these files' studies, which runs."""
    source, at = lab.office.source("LEGACY"), clock.text(clock.now())
    counted = {uid: source.count(uid, times=1) for uid in map(study_of, files)}
    with lab.office.sessions.begin() as session:
        made = MigrationProject(name=project, source="LEGACY", state="running", created_at=at, updated_at=at)
        session.add(made)
        session.flush()
        for uid, instances in counted.items():
            inventory.record(session, made.id, uid, instances, clock.now())
        return made


def study_of(file: Path) -> str:
    return str(pydicom.dcmread(file, stop_before_pixels=True).StudyInstanceUID)


def of(lab: Lab, project: MigrationProject) -> list[MigrationStudy]:
    query = select(MigrationStudy).where(MigrationStudy.project_id == project.id)
    with lab.office.sessions.begin() as session:
        return list(session.scalars(query))


def states(lab: Lab, project: MigrationProject) -> Counter[str]:
    return Counter(row.state for row in of(lab, project))


def dies_at(lab: Lab, project: MigrationProject, n: int) -> bool:
    """A worker, a process of its own, brings one study on and is killed at its n-th commit event, if it has so many."""
    crash = lab.folder / "crash" / "migration"
    crash.write_text(str(n))
    child = os.fork()
    if not child:
        os.environ["ZAMBEZI_CRASH_DIR"] = str(crash.parent)
        worker.work(replace(open_office().desk("LEGACY"), settle_seconds=0.5), project)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    crash.unlink(missing_ok=True)
    return os.waitstatus_to_exitcode(status) == KILLED


def test_a_death_at_any_commit_of_a_study_costs_nothing_but_time(lab: Lab):
    project = load(lab, 36, "deaths")
    deaths = 0
    for n in range(1, MOST):
        if not dies_at(lab, project, n):
            break
        deaths += 1
        begun = [row for row in of(lab, project) if row.state in ("moving", "verifying")]
        there = bool(begun) and bool(transfer.stored(lab.desk(), begun[0].study_uid))
        done, moves = states(lab, project)["verified"], lab.moves()
        lab.let_time_pass()
        assert worker.work(lab.desk(), project)
        assert states(lab, project)["verified"] == done + 1
        asked = lab.moves() - moves
        assert asked == (0 if there else 1), f"after the death at event {n} what was there was asked for again"
    else:
        pytest.fail(f"a worker still came to its {MOST}th commit event: raise MOST")
    assert deaths >= 10, "claim, announce, look, count, verdicts, end: before and after each"
    with lab.office.sessions.begin() as session:
        assert audit.verify(session) == []


def test_a_database_that_goes_away_at_any_commit_costs_nothing_but_time(lab: Lab):
    project = load(lab, 24, "away")
    engine = lab.office.sessions.kw["bind"]
    left = [0]

    def cut(_connection: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            url = lab.environ["ZAMBEZI_DATABASE_URL"]
            with psycopg.connect(url, autocommit=True) as other:
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

    event.listen(engine, "commit", cut)
    try:
        for n in range(1, MOST):
            left[0] = n
            try:
                worker.work(lab.desk(), project)
            except SQLAlchemyError:
                lab.let_time_pass()
                moves, there = lab.moves(), n_stored(lab, project)
                while left[0] <= 0 and not states(lab, project)["verified"] >= n:
                    assert worker.work(lab.desk(), project)
                assert lab.moves() - moves == n_stored(lab, project) - there, "what was there was asked for again"
            else:
                break
    finally:
        event.remove(engine, "commit", cut)
    assert n > 4
    with lab.office.sessions.begin() as session:
        assert audit.verify(session) == []


def n_stored(lab: Lab, project: MigrationProject) -> int:
    return sum(bool(transfer.stored(lab.desk(), row.study_uid)) for row in of(lab, project))


def test_two_processes_share_the_slots_and_the_one_that_lives_ends_what_the_killed_one_began(lab: Lab):
    one, other = lab.start_service("one"), lab.start_service("other")
    project = load(lab, 14, "two")  # both are up by then: of few studies none is left for one that starts late

    def owners() -> set[int]:
        at_work = {row.lease_owner for row in of(lab, project) if row.lease_owner}
        return {int(owner.split(":")[1]) for owner in at_work}

    seen: set[int] = set()

    def both_work() -> bool:
        seen.update(owners())
        return seen == {one.pid, other.pid}

    def is_caught_at_work() -> bool:
        one.send_signal(signal.SIGSTOP)
        if one.pid in owners():
            return True
        one.send_signal(signal.SIGCONT)
        return False

    wait_for("both to work", both_work)
    wait_for("the one to be at work", is_caught_at_work)
    one.kill()
    one.wait()
    archive = lab.processes["archive"]
    archive.kill()  # in the middle of moves
    archive.wait()
    lab.start("archive", [str(word) for word in archive.args], PYTHONNOUSERSITE="1")
    wait_for("all to be verified", lambda: passed(lab, project, one.pid), 90)
    other.terminate()
    assert other.wait(30) == 0
    with lab.office.sessions.begin() as session:
        assert audit.verify(session) == []
        changes = select(AuditEntry).where(AuditEntry.event == "migration-changed")
        said = [entry.payload for entry in session.scalars(changes)]
    assert any(b"the lease of" in payload for payload in said), "whom it was taken from stands in the audit"
    assert n_stored(lab, project) == 14


def passed(lab: Lab, project: MigrationProject, dead: int) -> bool:
    """All are verified; the waits of what failed meanwhile, and the dead one's leases, are cut short."""
    found = states(lab, project)
    with lab.office.sessions.begin() as session:
        for row in session.scalars(select(MigrationStudy).where(MigrationStudy.project_id == project.id)):
            if row.state == "retrying":
                row.next_at = ""
            if row.lease_owner and f":{dead}:" in row.lease_owner:
                row.lease_until = ""
    return found["verified"] == sum(found.values())


def a_cine(lab: Lab) -> Path:
    """Of 101 MB, uncompressed, in colour."""
    image = pydicom.dcmread(sample("CT_small.dcm"))
    a_study(image)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = MultiFrameTrueColorSecondaryCaptureImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.Rows, image.Columns, image.SamplesPerPixel, image.NumberOfFrames = 480, 640, 3, 110
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.PhotometricInterpretation, image.PlanarConfiguration = "RGB", 0
    image.PixelData = bytes(range(256)) * (480 * 640 * 3 * 110 // 256)
    image["PixelData"].VR = "OB"
    image.save_as(lab.folder / "cine.dcm")
    return lab.folder / "cine.dcm"


def in_fragments(dataset: pydicom.Dataset) -> None:
    """Twelve frames of JPEG 2000, each in five fragments, with a table of offsets."""
    (frame,) = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)
    a_study(dataset)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.NumberOfFrames = 12
    dataset.PixelData = pydicom.encaps.encapsulate([frame] * 12, fragments_per_frame=5)


def test_a_cine_of_100_megabytes_and_one_in_fragments_are_proven_by_a_second_retrieve(lab: Lab):
    files = [a_cine(lab), lab.altered("examples_jpeg2k.dcm", in_fragments)]
    lab.load(*files)
    project = take(lab, "cines", *files)
    while worker.work(lab.desk(), project):
        pass
    assert {(row.state, row.level) for row in of(lab, project)} == {("verified", 3)}
    for file in files:
        came = digest.fingerprint(file.read_bytes())
        ((stored,),) = transfer.stored(lab.desk(), study_of(file)).values()
        there = digest.fingerprint(lab.office.client().file(stored))
        assert (there.digest, there.transfer_syntax) == (came.digest, came.transfer_syntax)


def four_at_once(lab: Lab) -> None:
    """As it was found out before."""
    with lab.office.sessions.begin() as session:
        pace.locked(session, "LEGACY")
        pace.write(session, "LEGACY", Pace(slots=4), clock.now())


@contextmanager
def a_service(lab: Lab, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """The migration process, which ends well; all clocks are right afterwards."""
    process = lab.start_service(name)
    try:
        yield process
        assert process.poll() is None, f"it ended with {process.returncode}"
    finally:
        process.terminate()
        code = process.wait(30)
        (lab.folder / "ahead").unlink(missing_ok=True)
    assert code == 0


def test_a_postmaster_that_is_killed_costs_nothing_but_time(lab: Lab, postgres_cluster: postgres.Cluster):
    project = load(lab, 12, "postmaster")
    with a_service(lab, "survivor"):
        wait_for("some to be verified", lambda: states(lab, project)["verified"] >= 2)
        before = lab.asked_for()
        postgres_cluster.kill()
        killed = clock.now()
        postgres_cluster.start()
        found = of(lab, project)
        proven = {row.study_uid for row in found if row.state == "verified"}
        untouched = {row.study_uid for row in found if not row.attempts}
        assert len(proven) < 12, "it was killed too late"
        let_leases_end(lab, project, before=killed + ledger.LEASE)
        wait_for("all to be verified", lambda: states(lab, project)["verified"] == 12, 60)
    assert n_stored(lab, project) == 12
    asked = lab.asked_for()
    assert {asked[uid] - before[uid] for uid in proven} <= {0}, "what is verified is asked for no more"
    assert {asked[uid] for uid in untouched} <= {1}, "but for those that were under way nothing was asked for twice"
    with lab.office.sessions.begin() as session:
        assert audit.verify(session) == []


def let_leases_end(lab: Lab, project: MigrationProject, before: datetime) -> None:
    """Those that would end before then, of workers that met the death of the database, end now."""
    met = MigrationStudy.lease_until.between("1", clock.text(before))
    with lab.office.sessions.begin() as session:
        for row in session.scalars(select(MigrationStudy).where(MigrationStudy.project_id == project.id, met)):
            row.lease_until = clock.text(clock.now())


def test_the_next_start_waits_for_no_lease_of_those_that_died_here(lab: Lab):
    """A lease is half a minute; what a worker elsewhere holds, which may live, is left alone."""
    project = load(lab, 8, "again")
    four_at_once(lab)  # the lease that is left alone takes a slot
    first = lab.start_service("first")

    def is_caught_at_work() -> bool:
        first.send_signal(signal.SIGSTOP)
        if states(lab, project)["moving"]:
            return True
        first.send_signal(signal.SIGCONT)
        return False

    wait_for("it to be at work", is_caught_at_work)
    first.kill()
    first.wait()
    with lab.office.sessions.begin() as session:
        of_project = select(MigrationStudy).where(MigrationStudy.project_id == project.id)
        one = session.scalars(of_project.where(MigrationStudy.state == "ready")).first()
        assert one is not None
        one.state, one.lease_owner = "moving", "elsewhere:1:1"
        one.lease_until = clock.text(clock.now() + ledger.LEASE)
    began = clock.now()
    with a_service(lab, "second"):
        wait_for("the rest to be verified", lambda: states(lab, project)["verified"] == 7, 20)
        assert clock.now() - began < ledger.LEASE
        assert states(lab, project)["moving"] == 1
        lab.let_time_pass()
        wait_for("that one, too", lambda: states(lab, project)["verified"] == 8, 20)
    assert "held by workers of this machine that died" in (lab.folder / "second.log").read_text()


def let(lab: Lab, project: MigrationProject, state: str) -> None:
    with lab.office.sessions.begin() as session:
        session.get_one(MigrationProject, project.id).state = state


def test_a_clock_that_jumps_ends_no_migration_and_moves_nothing_twice(lab: Lab):
    """Ahead by a week, in the middle of moves; into days on which the window is closed; and back behind the start."""
    project = load(lab, 14, "clock")
    four_at_once(lab)  # the dead one's lease takes a slot
    moves = lab.moves()

    def verified(many: int) -> Callable[[], bool]:
        return lambda: states(lab, project)["verified"] >= many

    with a_service(lab, "clock"):
        wait_for("some to be verified", verified(2))
        lab.put_clock(days=7)
        wait_for("some more", verified(5))
        lab.put_clock(days=10)
        wait_for("the window to be closed", lambda: not any(row.lease_owner for row in of(lab, project)))
        let(lab, project, "paused")
        with lab.office.sessions.begin() as session:  # as they are left by those who died in the days ahead
            query = select(MigrationStudy).where(MigrationStudy.project_id == project.id)
            late, dead, due, *_ = session.scalars(query.where(MigrationStudy.state == "ready"))
            ahead = clock.now()
            late.state, late.next_at = "retrying", clock.text(ahead + timedelta(minutes=5))
            dead.state, dead.lease_owner, dead.lease_until = "moving", "dead:1:1", clock.text(ahead + ledger.LEASE)
            due.next_at = clock.text(ahead)
            session.merge(Breaker(name="source:LEGACY", state="open", failures=5, opened=1, probe=1, reason="away",
                                  probe_at=clock.text(ahead + timedelta(minutes=1)), updated_at=""))  # fmt: skip
        lab.put_clock(hours=-5)
        let(lab, project, "running")
        wait_for("all but the dead one's to be verified", verified(13), 30)
        assert states(lab, project)["moving"] == 1, "a lease that may be a living one's is let run out"
        lab.put_clock(hours=-5, minutes=1)
        wait_for("the dead one's to be verified, and the end to be seen", lambda: finished(lab, project), 30)
    assert re.search(r"the clock was put back by ((7|10) days, )?5:00:00", (lab.folder / "clock.log").read_text())
    assert states(lab, project) == {"verified": 14}
    assert lab.moves() - moves <= 14 + 4, "but for those that were under way nothing was asked for twice"
    with lab.office.sessions.begin() as session:
        assert audit.verify(session) == []


def finished(lab: Lab, project: MigrationProject) -> bool:
    with lab.office.sessions.begin() as session:
        return session.get_one(MigrationProject, project.id).state == "finished"


def test_a_source_that_bears_two_at_once_is_asked_for_no_more_than_it_bears(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """Two projects on one source, with four workers each, that rejects the third association."""
    first, second = load(lab, 12, "busy"), load(lab, 6, "beside")
    crowd, rejected, lock = [0], [0], threading.Lock()
    really = DicomSource.bring

    def bring(self: DicomSource, desk: Desk, request: Request, keeper: Keeper) -> dict[str, Given]:
        with lock:
            crowd[0] += 1
            is_full = crowd[0] > 2
            rejected[0] += is_full
        try:
            threading.Event().wait(0.3)  # it is a slow source: whoever asks meanwhile is one too many
            if is_full:
                raise Trouble(ErrorClass.TRANSIENT, "association rejected: local limit exceeded")
            return really(self, desk, request, keeper)
        finally:
            with lock:
                crowd[0] -= 1

    monkeypatch.setattr(DicomSource, "bring", bring)
    migrations = Migrations(lab.office)

    def done() -> bool:
        migrations.sweep()
        return all(passed(lab, one, 0) for one in (first, second))

    four_at_once(lab)
    with lab.office.sessions.begin() as session:
        told = generations.current(session, "announced")
    wait_for("all to be verified", done, 90)
    migrations.stop.set()
    migrations.wait()
    with lab.office.sessions.begin() as session:
        found = pace.read(session, "LEGACY")
        assert generations.current(session, "announced") - told < 9, "what comes next is announced together"
    assert found.doubles_until, "trouble was met, and halved it"
    assert 1 <= rejected[0] <= 12, f"{rejected[0]} of 18 studies were rejected: it did not learn"
