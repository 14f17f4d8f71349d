"""Which part of the site a person sees: by site, by modality, or the studies of their own orders. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Seen:
    """Whether something lies in a person's part, and why."""

    yes: bool
    because: str


@dataclass(frozen=True)
class Part:
    """What counts of a study or an order: its sites, its modalities, and who asked for it."""

    sites: frozenset[str] = frozenset()
    modalities: frozenset[str] = frozenset()
    referrer: str = ""


@dataclass(frozen=True)
class Scope:
    """A person's part of the site; what is empty doesn't narrow, and all that is not must hold.

    `referrer`: only what this physician asked for, written as orders write it, in whatever order of words.
    `own_only`: the role sees no more than that, even where no name says whose orders are meant.
    """

    sites: frozenset[str] = field(default_factory=frozenset)
    modalities: frozenset[str] = field(default_factory=frozenset)
    referrer: str = ""
    own_only: bool = False

    @property
    def narrows(self) -> bool:
        """Whether there is anything that the person does not see."""
        return bool(self.sites or self.modalities or self.referrer or self.own_only)

    def holds(self, part: Part) -> Seen:
        """Whether it lies within; what is not known of it (no site, no modality) lies outside."""
        if self.sites and not self.sites & part.sites:
            return Seen(False, f"of {_listed(part.sites, 'no known site')}, and theirs is {_listed(self.sites, '-')}")
        if self.modalities and not self.modalities & part.modalities:
            return Seen(False, f"{_listed(part.modalities, 'no modality')} is not {_listed(self.modalities, '-')}")
        if (self.referrer or self.own_only) and (
            not _words(self.referrer) or _words(self.referrer) != _words(part.referrer)
        ):
            return Seen(False, "somebody else asked for it")
        return Seen(True, "within their part of the site")


def part_of(
    sites: Mapping[str, tuple[Sequence[str], Sequence[str]]], *, aets: Sequence[str | None], source: str | None,
    modalities: str, referrer: str | None,
) -> Part:  # fmt: skip
    """What counts of a study or order. `sites`: name -> (AE titles, HL7 peers); `modalities` joined by backslashes."""
    own = {aet for aet in aets if aet}
    named = frozenset(name for name, (stations, peers) in sites.items() if own & set(stations) or source in peers)
    return Part(named, frozenset(one for one in modalities.split("\\") if one), referrer or "")


def _words(name: str) -> frozenset[str]:
    """`Dr.ª Sitoe^Ivone` and `ivone sitoe` are one: titles are no part of a name."""
    plain = unicodedata.normalize("NFKD", name.replace("ª", "").replace("º", ""))
    letters = "".join(c for c in plain if not unicodedata.combining(c)).casefold()
    words = "".join(c if c.isalnum() else " " for c in letters).split()
    return frozenset(word for word in words if word not in ("dr", "dra", "prof", "sr", "sra", "md"))


def _listed(names: frozenset[str], otherwise: str) -> str:
    return ", ".join(sorted(names)) or otherwise
