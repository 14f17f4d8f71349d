"""What this version of Orthanc's Python plugin can't do for us: sentences for the status, never silently missing."""

from __future__ import annotations

#: A name in the module `orthanc`, and what is missing without it.
_WANTED = (
    (
        "RegisterStorageCommitmentScpCallback",
        "Orthanc answers storage commitment from its index alone; ask the gateway",
    ),
    ("EmitAuditLog", "Orthanc keeps no audit log of its own; the journal has it all"),
    ("SetStableStatus", "Orthanc's own stable events can't be set by our completeness clock"),
)


def lacks(offered: frozenset[str]) -> list[str]:
    """The sentences for a module that offers these names."""
    return [sentence for name, sentence in _WANTED if name not in offered]
