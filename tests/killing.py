"""Processes die by kill -9 while a modality stores and the HIS orders, and what must hold does."""

from __future__ import annotations

import itertools
import math
import os
import queue
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sqlalchemy import select

from demo.hospital import PASSWORD, Hospital
from demo.person import Person
from operations import supervision
from tests import invariants
from tests.senders import Sender, order_message, send_message, small_study
from zambezi import clock
from zambezi.database.tables import Delivery

VICTIMS = ("orthanc", "gateway", "ris")
#: Instances in one study of a day's work.
STUDY = 100


def kill(hospital: Hospital, process: str) -> bool:
    """kill -9 of a process that supervisord runs, as the machine would do it; False if it is not running just now."""
    pid = _pid(hospital, process)
    if pid:
        os.kill(pid, signal.SIGKILL)
    return bool(pid)


def stop(hospital: Hospital, *processes: str) -> None:
    """Stop processes and leave them stopped."""
    for process in processes:
        supervision.supervisor(hospital.environment).stopProcess(process)


def start(hospital: Hospital, *processes: str) -> None:
    """Start processes that were stopped."""
    for process in processes:
        supervision.supervisor(hospital.environment).startProcess(process, False)


def stopped(hospital: Hospital) -> list[str]:
    """The processes that somebody stopped."""
    found = supervision.processes(hospital.environment) or []
    return [one.name for one in found if one.state == "STOPPED"]


def empty_second(hospital: Hospital) -> None:
    """dcmqrscp reads its whole index for each image it takes: after some rounds it would be all that is waited for."""
    hospital.neighbours.control("stop", "second")
    for file in (hospital.neighbours.folder / "second").iterdir():
        file.unlink()
    hospital.neighbours.control("start", "second")


def waits_for(hospital: Hospital, *destinations: str) -> bool:
    """Whether a delivery to each of the destinations was tried in vain."""
    with hospital.database().begin() as session:
        return set(destinations) <= set(
            session.scalars(select(Delivery.destination).where(Delivery.state == "retrying"))
        )


def cut_power(hospital: Hospital) -> None:
    """kill -9 of every writer at one moment, and none starts again; what Orthanc's index had not on disk is gone.

    A frozen process can't do anything with supervisord's SIGTERM any more; supervisord learns that the
    end was wanted, so that it starts nothing before the files are away.
    """
    invariants.eventually("all of them run", lambda: [one for one in VICTIMS if not _pid(hospital, one)])
    pids = [pid for process in VICTIMS for pid in family(_pid(hospital, process))]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    supervisor = supervision.supervisor(hospital.environment)
    for process in VICTIMS:
        supervisor.stopProcess(process, False)
    for pid in pids:
        with suppress(ProcessLookupError):  # Orthanc dies with its keeper
            os.kill(pid, signal.SIGKILL)
    invariants.eventually(
        "all of them are gone", lambda: [one for one in VICTIMS if _state(hospital, one) != "STOPPED"]
    )
    for name in ("index-wal", "index-shm"):
        (hospital.environment.index_dir / name).unlink(missing_ok=True)


def family(pid: int) -> list[int]:
    """A process and its children: Orthanc is the child of its keeper."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [pid, *(int(child) for thread in threads for child in (thread / "children").read_text().split())]


def _pid(hospital: Hospital, process: str) -> int:
    found = supervision.processes(hospital.environment) or []
    return next((one.pid for one in found if one.name == process and one.state == "RUNNING"), 0)


def _state(hospital: Hospital, process: str) -> str:
    found = supervision.processes(hospital.environment) or []
    return next((one.state for one in found if one.name == process), "")


@dataclass
class Work:
    """A modality stores, a HIS orders, a radiologist signs, each in a thread, until all are through."""

    hospital: Hospital
    instances: int
    orders: int
    reports: int = 0
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    since: str = field(default_factory=lambda: clock.text(clock.now()))
    acknowledged: list[bytes] = field(default_factory=list)
    signed: list[str] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)
    _studies: queue.Queue[str] = field(default_factory=queue.Queue)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sender = Sender(self.hospital.environment.ports.dicom)
        self._begin(self._store)
        self._begin(self._order)
        self._begin(self._report)

    @property
    def goes_on(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def finish(self) -> invariants.Figures:
        """Wait for the end of it, and hold everything that must hold."""
        for thread in self._threads:
            thread.join()
        assert not self.faults, self.faults
        assert len(self.sender.succeeded) == self.instances
        assert len(self.acknowledged) == self.orders
        assert len(self.signed) == self.reports
        return invariants.hold(self.hospital, self.sender.succeeded, self.acknowledged, self.since, self.signed)

    def _store(self) -> None:
        for number in range(self.instances // STUDY):
            study_uid = f"2.25.{uuid.uuid4().int}"
            self.sender.send(small_study(f"K{self.name}{number}", STUDY, study_uid))
            self._studies.put(study_uid)

    def _order(self) -> None:
        for number in range(self.orders):
            accession = f"K{self.name}{number}"[:16]
            message = order_message(f"{self.name}{number}", f"K{self.name}O{number}", accession)
            answer = send_message(self.hospital.environment.ports.mllp, message)
            assert answer == "AA", f"order {accession} was answered {answer}"
            self.acknowledged.append(message)
            time.sleep(0.2)

    def _report(self) -> None:
        person = Person(self.hospital.environment.front_url)
        if self.reports:
            person.insist(lambda: person.sign_in("radiologista", PASSWORD))
        for _ in range(self.reports):
            study_uid = self._studies.get(timeout=300)
            written = partial(person.report, study_uid, findings="Nada.", impression="Normal.")
            person.insist(written, deadline_s=300)  # on a busy machine the RIS is seldom up between two deaths
            self.signed.append(study_uid)

    def _begin(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception as fault:  # noqa: BLE001 - a thread's edge: the round fails with it in `finish`
                self.faults.append(fault)

        thread = threading.Thread(target=run)
        thread.start()
        self._threads.append(thread)


@contextmanager
def told(deeds: Sequence[str]) -> Iterator[None]:
    """A failure inside the block also says what was done to the installation before it, and when."""
    try:
        yield
    except BaseException as fault:
        fault.add_note("what was done: " + (", ".join(deeds) or "nothing yet"))
        raise


def one_round(
    hospital: Hospital, instances: int, orders: int, reports: int, chance: random.Random,
    others: Mapping[str, Callable[[], bool]] | None = None, most: float = math.inf,
) -> str:  # fmt: skip
    """Store, order and sign while the victims die in turn, then hold what must hold; what was seen, in words.

    `others`: victims that supervisord doesn't run, each with how it is killed and started again. Each dies at least
    once, and until the work is done, but no oftener than `most`.
    """
    empty_second(hospital)
    begun = time.monotonic()
    work = Work(hospital, instances, orders, reports)
    deaths = {name: partial(kill, hospital, name) for name in VICTIMS} | dict(others or {})
    killed = dict.fromkeys(deaths, 0)
    deeds: list[str] = []
    with told(deeds):
        for victim, die in itertools.cycle(deaths.items()):
            time.sleep(chance.uniform(0.5, 3))
            deaths_of_the_safest = min(killed.values())
            if deaths_of_the_safest and (not work.goes_on or deaths_of_the_safest >= most):
                break
            if die():
                killed[victim] += 1
                deeds.append(f"{victim} killed after {time.monotonic() - begun:.1f} s")
        stored = time.monotonic() - begun
        seen = work.finish()
    how_often = ", ".join(f"{victim} {times} times" for victim, times in killed.items())
    return (
        f"{seen}, {orders} orders, {reports} reports; killed: {how_often}; "
        f"the sender began again {work.sender.resent} times; nothing lost, "
        f"nothing doubled; {stored:.0f} s of work and {time.monotonic() - begun - stored:.0f} s until all had caught up"
    )
