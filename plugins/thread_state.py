"""Orthanc's threads keep their thread state of Python's between two calls.

Orthanc's Python plugin takes Python's lock for each call and gives it back (PyGILState_Ensure, PyGILState_Release).
A thread without a state of its own is given a new one each time; since Python 3.11 that maps memory and unmaps it
again, which interrupts every processor that runs a thread of Orthanc's. Ensured once more than released, it stays.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

#: So many threads keep theirs. Orthanc's threads are pools of fixed size; should one make threads without end, the
#: others do without.
MOST = 256

_mine = threading.local()
_counting = threading.Lock()
_count = 0


def kept(callback: Callable[..., Any]) -> Callable[..., Any]:
    """The same callback; whoever calls it keeps its thread state."""

    def called(*args: Any, **named: Any) -> Any:
        if not hasattr(_mine, "asked"):
            _mine.asked = True
            _keep()
        return callback(*args, **named)

    return called


def _keep() -> None:
    global _count
    with _counting:
        if _count >= MOST:
            return
        _count += 1
    ctypes.pythonapi.PyGILState_Ensure()
