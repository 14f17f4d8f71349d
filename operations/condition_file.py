"""What is remembered of conditions, in a file of operations' own: the database may be what is away.

ZAMBEZI_HOME/alerts/conditions.json. Pages and `zambezi status` read it. A disk without room keeps it in memory.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from operations.condition_words import CONDITIONS
from operations.conditions import Condition, Going
from zambezi import durable
from zambezi.environment import Environment

log = logging.getLogger("operations.conditions")

#: Messages whose entry in the audit trail waits for the database; beyond, the oldest are in the log alone.
UNAUDITED = 200


@dataclass
class Sent:
    """How a channel stands with conditions; moments as zambezi.clock.text, "" for none."""

    sent_at: str = ""
    failures: int = 0
    next_at: str = ""
    error: str = ""
    error_since: str = ""


@dataclass
class Memory:
    """All of it. `seen`: by AE title, when it was last seen; `since`: from when on something is watched at all;
    `unaudited`: what was told and is not in the audit trail yet."""

    going: dict[str, Going] = field(default_factory=dict)
    channels: dict[str, Sent] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)
    since: dict[str, str] = field(default_factory=dict)
    unaudited: list[dict[str, Any]] = field(default_factory=list)


def path(environment: Environment) -> Path:
    """Where it lies."""
    return environment.home / "alerts" / "conditions.json"


def load(file: Path) -> Memory:
    """What was remembered; nothing where the file isn't there or can't be read (then all is told anew)."""
    try:
        said = json.loads(file.read_bytes())
        going = [_going(one) for one in said["going"]]
        return Memory(
            {one.found.key: one for one in going if one.found.kind in CONDITIONS},
            {name: Sent(**one) for name, one in said["channels"].items()},
            dict(said["seen"]), dict(said["since"]), list(said["unaudited"])[-UNAUDITED:],
        )  # fmt: skip
    except FileNotFoundError:
        return Memory()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s can't be read (%s): what goes on is told anew", file, type(error).__name__)
        return Memory()


def save(file: Path, memory: Memory) -> None:
    """Remember it; OSError where the disk takes nothing."""
    durable.replace(file, json.dumps(document(memory)).encode())


def document(memory: Memory) -> dict[str, Any]:
    """The file's content."""
    return {
        "going": [
            {
                "about": one.found.about, "source": one.found.source, "kind": one.found.kind,
                "facts": dict(one.found.facts), "grade": one.found.grade, "since": one.since, "gone_at": one.gone_at,
                "is_over": one.is_over, "told": {name: list(when) for name, when in one.told.items()},
            }
            for one in memory.going.values()
        ],
        "channels": {name: vars(one) for name, one in memory.channels.items()},
        "seen": memory.seen, "since": memory.since, "unaudited": memory.unaudited,
    }  # fmt: skip


def _going(said: dict[str, Any]) -> Going:
    found = Condition(said["about"], said["source"], said["kind"], said["facts"], int(said["grade"]))
    told = {name: (str(at), int(grade)) for name, (at, grade) in said["told"].items()}
    return Going(found, said["since"], said["gone_at"], bool(said["is_over"]), told)
