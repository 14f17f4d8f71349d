"""Where versions of Orthanc's Python plugin differ: what one can't do for us (the status tells), how a call looks."""

from __future__ import annotations

from typing import Any

#: A name in the module `orthanc`, and what is missing without it.
_WANTED = (
    (
        "RegisterStorageCommitmentScpCallback",
        "Orthanc answers storage commitment from its index alone, without looking at the files",
    ),
    ("EmitAuditLog", "Orthanc keeps no audit log of its own; the journal has it all"),
    ("SetStableStatus", "Orthanc's own stable events can't be set by our completeness clock"),
)


def lacks(offered: frozenset[str]) -> list[str]:
    """The sentences for a module that offers these names."""
    return [sentence for name, sentence in _WANTED if name not in offered]


class StatusAnswer:
    """Answers a REST call with a status other than 200.

    Up to plugin 4.0 the length of the body is a third argument, later it isn't, and neither a name nor a
    docstring tells which. The arguments are checked before anything is sent, so the first answer finds out.
    """

    def __init__(self) -> None:
        self._wants_length: bool | None = None

    def send(self, output: Any, status: int, body: str) -> None:
        if self._wants_length is None:
            try:
                output.SendHttpStatus(status, body)
            except TypeError:
                self._wants_length = True
            else:
                self._wants_length = False
                return
        if self._wants_length:
            output.SendHttpStatus(status, body, len(body.encode()))
        else:
            output.SendHttpStatus(status, body)
