"""A thread that isn't Python's own calls in more than once, as Orthanc's threads do."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import pytest

from plugins import thread_state

_WRITE = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_CLOSE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class _Functions(ctypes.Structure):
    """cookie_io_functions_t of fopencookie(3)."""

    _fields_ = (("read", ctypes.c_void_p), ("write", _WRITE), ("seek", ctypes.c_void_p), ("close", _CLOSE))


def states_of_a_foreign_thread(wrapped: Callable[[Callable[..., Any]], Callable[..., Any]]) -> int:
    """How many thread states one thread of the C library's had in two calls.

    It runs fclose(3) on a stream whose buffer and whose end are handed to callbacks of Python's.
    """
    mine, states = threading.local(), []

    def called(answer: int) -> int:
        if not hasattr(mine, "been_here"):
            mine.been_here = True
            states.append(threading.get_native_id())
        return answer

    write = wrapped(lambda _cookie, _buffer, size: called(size))
    close = wrapped(lambda _cookie: called(0))
    functions = _Functions(None, _WRITE(write), None, _CLOSE(close))
    libc = ctypes.CDLL(None)
    libc.fopencookie.argtypes, libc.fopencookie.restype = (
        (ctypes.c_void_p, ctypes.c_char_p, _Functions),
        ctypes.c_void_p,
    )
    stream = libc.fopencookie(None, b"w", functions)
    libc.fputs(b"in the buffer", ctypes.c_void_p(stream))
    thread = ctypes.c_ulong()
    assert libc.pthread_create(ctypes.byref(thread), None, libc.fclose, ctypes.c_void_p(stream)) == 0
    assert libc.pthread_join(thread, None) == 0
    assert threading.get_native_id() not in states
    return len(states)


def test_a_thread_of_orthancs_has_one_state_for_all_its_calls() -> None:
    assert states_of_a_foreign_thread(lambda callback: callback) == 2, "this test would say nothing"

    assert states_of_a_foreign_thread(thread_state.kept) == 1


def test_beyond_a_limit_threads_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_state, "MOST", 0)

    assert states_of_a_foreign_thread(thread_state.kept) == 2


def test_what_is_called_is_answered_and_what_it_raises_is_raised() -> None:
    assert thread_state.kept(divmod)(7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        thread_state.kept(divmod)(7, 0)
