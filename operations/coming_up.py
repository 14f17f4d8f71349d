"""Waiting for processes that were just started, until each does its work: a line each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime

import click

from operations import readiness, supervision
from zambezi.environment import Environment
from zambezi.keys import Keys

#: A process that ended so many times while it was starting won't come up by waiting.
_FAILED_STARTS = 4


def wait(environment: Environment, keys: Keys, started: Mapping[str, datetime], seconds: float) -> bool:
    """Wait for the processes in `started` (each with the moment of its start), no longer than `seconds`.

    False when one did not come up, said with the end of its log.
    """
    waiting = {name: readiness.probes(environment, keys, since)[name] for name, since in started.items()}
    failed: dict[str, set[int]] = {}
    why = dict.fromkeys(waiting, "")
    begun = time.monotonic()
    while waiting and time.monotonic() - begun < seconds:
        seen = {p.name: p for p in supervision.processes(environment) or []}
        for name in list(waiting):
            process = seen.get(name)
            if process and process.state == "RUNNING":
                why[name] = waiting[name]()
                if not why[name]:
                    click.echo(f"  ready after {time.monotonic() - begun:4.1f} s  {name}")
                    del waiting[name]
            elif process and process.starts_failed:
                failed.setdefault(name, set()).add(process.since)
        if any(len(times) >= _FAILED_STARTS for times in failed.values()):
            break
        time.sleep(0.2)
    for name in waiting:
        click.echo(f"{name} did not come up{': ' + why[name] if why[name] else ''}. The end of its log:", err=True)
        log = environment.logs_dir / f"{name}.log"
        for line in log.read_text(errors="replace").splitlines()[-12:] if log.exists() else ["(no log)"]:
            click.echo(f"    {line}", err=True)
    if waiting:
        click.echo("The others go on; `zambezi down` stops them.", err=True)
    return not waiting
