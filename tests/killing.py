"""Random kill rounds: processes die by kill -9 in turn while a modality stores and the HIS orders."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable

from demo.hospital import Hospital
from operations import supervision
from tests import invariants
from tests.senders import Sender, order_message, send_message, small_study

VICTIMS = ("orthanc", "gateway", "ris")


def kill(hospital: Hospital, process: str) -> bool:
    """kill -9 of a process that supervisord runs, as the machine would do it; False if it is not running just now."""
    for found in supervision.processes(hospital.environment) or []:
        if found.name == process and found.state == "RUNNING" and found.pid:
            os.kill(found.pid, signal.SIGKILL)
            return True
    return False


def one_round(hospital: Hospital, instances: int, orders: int, chance: random.Random) -> str:
    """Store and order while the victims die in turn, then hold everything that must hold; what was seen, in words."""
    sender = Sender(hospital.environment.ports.dicom)
    name = uuid.uuid4().hex[:8]
    acknowledged: list[str] = []
    faults: list[BaseException] = []

    def store() -> None:
        for number in range(instances // 100):
            sender.send(small_study(f"K{name}{number}", 100))

    def order() -> None:
        for number in range(orders):
            accession = f"K{name}{number}"[:16]
            answer = send_message(
                hospital.environment.ports.mllp, order_message(f"{name}{number}", f"K{name}O{number}", accession)
            )
            assert answer == "AA", f"order {accession} was answered {answer}"
            acknowledged.append(accession)
            time.sleep(0.2)

    def guarded(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except Exception as fault:  # noqa: BLE001 - a thread's edge: the round fails with it below
                faults.append(fault)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    threads = [guarded(store), guarded(order)]
    killed = dict.fromkeys(VICTIMS, 0)
    for victim in itertools.cycle(VICTIMS):
        time.sleep(chance.uniform(0.5, 3))
        if not any(thread.is_alive() for thread in threads) and all(killed.values()):
            break
        killed[victim] += kill(hospital, victim)
    for thread in threads:
        thread.join()
    assert not faults, faults
    invariants.stored_once(hospital, sender.succeeded)
    invariants.orders_once(hospital, acknowledged)
    invariants.routed_once(hospital, sender.succeeded)
    invariants.chains_hold(hospital)
    deaths = ", ".join(f"{victim} {times} times" for victim, times in killed.items())
    return (
        f"{len(sender.succeeded)} instances and {len(acknowledged)} orders; killed: {deaths}; "
        f"the sender began again {sender.resent} times; nothing lost, nothing doubled"
    )
