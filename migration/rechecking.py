"""Holding a certificate against the archive as it is now: a random sample of its instances is read again."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zambezi.orthanc_client import OrthancClient

_PIECE = 100


@dataclass
class Rechecked:
    """How many were drawn of how many, and what is not as the certificate says, in words."""

    drawn: int = 0
    of: int = 0
    faults: list[str] = field(default_factory=list)


def draw(instances: Iterable[Mapping[str, Any]], count: int, seed: int) -> tuple[list[Mapping[str, Any]], int]:
    """So many of the instances that the certificate proves, each with the same chance; and of how many."""
    chance, drawn, seen = random.Random(seed), list[Mapping[str, Any]](), 0  # noqa: S311  # drawn, not secret
    for one in instances:
        if one["level"] < 1:
            continue
        seen += 1
        if len(drawn) < count:
            drawn.append(one)
        elif (place := chance.randrange(seen)) < count:
            drawn[place] = one
    return drawn, seen


def recheck(client: OrthancClient, instances: Iterable[Mapping[str, Any]], count: int, seed: int) -> Rechecked:
    """Draw, and compare each file's digest with the certificate's. Raises OrthancError."""
    drawn, seen = draw(instances, count, seed)
    found = Rechecked(len(drawn), seen)
    wanted = {str(one["instance"]): one for one in drawn}
    left = sorted(wanted)
    while left:
        told = client.arrivals(left[:_PIECE])
        for one in told:
            why = differs(wanted[one["sop_uid"]], one["copies"])
            if why:
                found.faults.append(f"study {wanted[one['sop_uid']]['study']}, instance {one['sop_uid']}: {why}")
        left = left[len(told) :]
    return found


def differs(certified: Mapping[str, Any], copies: Iterable[Mapping[str, Any]]) -> str:
    """Why an instance is not what was certified; "" if one of its copies is."""
    there = list(copies)
    if not there:
        return "it is not in the archive any more"
    if "sha256" in certified:
        is_same = any(copy["file_sha256"] == certified["sha256"] for copy in there)
    elif "md5" in certified:
        is_same = any(_md5(copy) == certified["md5"] for copy in there)
    else:
        return "the certificate has no digest of its file"
    return "" if is_same else "its file is not the one that was certified"


def _md5(copy: Mapping[str, Any]) -> str:
    """Of the file on the disk: read, or recorded of the very bytes that are there."""
    if copy["file_md5"] is not None:
        return str(copy["file_md5"])
    return str(copy["md5"]) if copy["file_sha256"] == copy["arrived_sha256"] else ""
