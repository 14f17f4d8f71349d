"""Several pieces of work at once, in bounded memory; whoever waits for them goes on looking whether it may."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

#: How often whoever waits looks whether it may go on.
POLL_S = 0.25
#: So many bytes are in memory at once, whatever their number; one larger object goes alone.
BYTES = 256 << 20


class _Feed(Generic[Task]):
    """Hands tasks out, one thread at a time, as long as there is room for them."""

    def __init__(self, tasks: Iterable[Task], weigh: Callable[[Task], int], stop: threading.Event) -> None:
        self._tasks, self._weigh, self._stop = iter(tasks), weigh, stop
        self._turn = threading.Lock()
        self._room = threading.Condition()
        self._used = 0

    def next(self) -> tuple[Task, int] | None:
        """The next task and its weight, once there is room for it; None at the end, and when all stops."""
        with self._turn:
            if self._stop.is_set():
                return None
            try:
                task = next(self._tasks)
            except StopIteration:
                return None
            weight = self._weigh(task)
            with self._room:
                while self._used and self._used + weight > BYTES and not self._stop.is_set():
                    self._room.wait(POLL_S)
                self._used += weight
            return (task, weight)

    def done(self, weight: int) -> None:
        with self._room:
            self._used -= weight
            self._room.notify_all()


def run(
    tasks: Iterable[Task], do: Callable[[Task, threading.Event], Result], take: Callable[[Result], None],
    look: Callable[[float], None], threads: int, weigh: Callable[[Task], int] = lambda task: 0,
) -> None:  # fmt: skip
    """Do every task, at most `threads` at once; `take` gets each result, in this thread.

    `look` is called at least every POLL_S with the seconds in which nothing was done; whatever it raises ends all.
    What a task, or asking for the next one, raises ends all, too, and is raised here, once what was under way is
    done. `do` gets the event by which it is told to wait for nothing any more. The weights (bytes) of what is under
    way are bounded.
    """
    stop = threading.Event()
    feed = _Feed(tasks, weigh, stop)
    results: SimpleQueue[tuple[bool, Result | BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            while (found := feed.next()) is not None:
                task, weight = found
                try:
                    results.put((True, do(task, stop)))
                finally:
                    feed.done(weight)
            results.put((False, None))
        except Exception as error:  # noqa: BLE001  edge of a thread: it is raised where somebody waits for it
            stop.set()
            results.put((False, error))

    workers = [threading.Thread(target=work, name=f"copy-{n}", daemon=True) for n in range(max(1, threads))]
    for worker in workers:
        worker.start()
    failure: BaseException | None = None
    working, quiet = len(workers), 0.0
    try:
        while working:
            try:
                is_result, found = results.get(timeout=POLL_S)
                quiet = 0.0
            except Empty:
                quiet += POLL_S
                look(quiet)
                continue
            if is_result:
                take(found)  # type: ignore[arg-type]  # what `do` gave
                look(0.0)
            else:
                working -= 1
                failure = failure or found  # type: ignore[assignment]  # an exception or nothing
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    if failure is not None:
        raise failure
