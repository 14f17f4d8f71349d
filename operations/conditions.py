"""What goes on and ends by itself: a disk, a process, the database, a silent modality, a certificate, a backup.

Unlike an exception nobody decides a condition: it begins, gets worse, and is over. Persons are told when it begins,
when it gets worse, again after some hours, and when it is over; what comes and goes within minutes is told once. All of
it is pure, and none of it needs the central database: its going away is a condition, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo

from operations.alerts import LONGEST_WAIT, Channel
from operations.condition_words import CONDITIONS
from zambezi import clock, windows
from zambezi.config.settings import Alerts, ExpectedModality
from zambezi.holidays import Holiday

#: For so long these must go on before anybody is told: a process that is started again is no news.
PATIENCE = {
    "process-dead": timedelta(minutes=2), "database-away": timedelta(minutes=1), "archive-away": timedelta(minutes=5),
    "collector-away": timedelta(minutes=5), "checkpoint-not-mailed": timedelta(hours=1),
}  # fmt: skip
#: A modality's silence is looked for so far back, in such steps.
FAR_BACK = timedelta(days=35)
STEP = timedelta(minutes=5)


@dataclass(frozen=True)
class Condition:
    """What was found now. `about` and `source` name the same thing for as long as it goes on; `kind` is how it is
    called (operations.condition_words), `facts` are what its words speak of; a higher `grade` is worse."""

    about: str
    source: str
    kind: str
    facts: Mapping[str, str | int] = field(default_factory=dict)
    grade: int = 1

    @property
    def key(self) -> str:
        return f"{self.about} {self.source}"


@dataclass(frozen=True)
class Going:
    """A condition over time, moments as zambezi.clock.text. `gone_at`: not found since then ("": it goes on); `told`:
    by channel, when and of which grade."""

    found: Condition
    since: str
    gone_at: str = ""
    is_over: bool = False
    told: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def is_serious(self) -> bool:
        return CONDITIONS[self.found.kind].serious


def follow(
    going: Mapping[str, Going], found: Sequence[Condition], unknown: Collection[str], calm: timedelta, now: datetime
) -> dict[str, Going]:
    """What goes on now. Of the `unknown` (by `about`) nothing could be found out: they stay as they were.

    What was not found for `calm` is over, and stays until each channel that told of it has said so.
    """
    at = clock.text(now)
    after: dict[str, Going] = {}
    for one in found:
        before = going.get(one.key)
        if before is None or before.is_over:
            # What is over and not yet told as such has come back: for those who were told, it never went.
            before = replace(before, is_over=False) if before else Going(one, at)
        after[one.key] = replace(before, found=one, gone_at="")
    for key, was in going.items():
        if key in after:
            continue
        if was.found.about in unknown and not was.is_over:
            after[key] = was
            continue
        gone = was if was.gone_at else replace(was, gone_at=at)
        waited = now - clock.parse(gone.gone_at)
        if waited < timedelta():  # the clock was put back
            gone = replace(gone, gone_at=at)
        gone = replace(gone, is_over=gone.is_over or waited >= calm)
        if gone.told or not gone.is_over:
            after[key] = gone
    return after


@dataclass(frozen=True)
class News:
    """What a channel has to tell now: begun or worse, still going on, over."""

    new: tuple[Going, ...] = ()
    still: tuple[Going, ...] = ()
    over: tuple[Going, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.still or self.over)


def news(
    going: Mapping[str, Going], name: str, channel: Channel, settings: Alerts, now: datetime
) -> News:  # fmt: skip
    """What the channel `name` must tell now; nothing while it waits after a failure, or told a moment ago."""
    nothing = News()
    if channel.next_at and timedelta() < channel.next_at - now <= LONGEST_WAIT:
        return nothing
    if channel.sent_at and timedelta() <= now - channel.sent_at < timedelta(minutes=settings.interval_minutes):
        return nothing
    open_ones = [one for one in going.values() if not one.is_over and not one.gone_at]
    new = tuple(one for one in open_ones if is_due(one, now) and _grade(one, name) < one.found.grade)
    still = tuple(one for one in open_ones if one not in new and _is_told_long_ago(one, name, settings, now))
    over = tuple(one for one in going.values() if one.is_over and name in one.told)
    return News(new, still, over)


def is_due(one: Going, now: datetime) -> bool:
    """Whether it has gone on long enough to be worth a word."""
    return now - clock.parse(one.since) >= PATIENCE.get(one.found.kind, timedelta())


def _is_told_long_ago(one: Going, name: str, settings: Alerts, now: datetime) -> bool:
    if not settings.repeat_hours or name not in one.told:
        return False
    # A clock that was put back must not silence anybody.
    return not timedelta() <= now - clock.parse(one.told[name][0]) < timedelta(hours=settings.repeat_hours)


def _grade(one: Going, name: str) -> int:
    return one.told[name][1] if name in one.told else 0


def remembered(going: Mapping[str, Going], name: str, told: News, now: datetime) -> dict[str, Going]:
    """What goes on, once the channel has told it: what is over and told by everybody is gone."""
    at = clock.text(now)
    after = dict(going)
    for one in (*told.new, *told.still):
        after[one.found.key] = replace(one, told={**one.told, name: (at, one.found.grade)})
    for one in told.over:
        others = {channel: when for channel, when in one.told.items() if channel != name}
        if others:
            after[one.found.key] = replace(one, told=others)
        else:
            after.pop(one.found.key, None)
    return after


def only(going: Mapping[str, Going], names: Collection[str]) -> dict[str, Going]:
    """What goes on, as these channels know it: one that is no longer configured has nothing left to tell."""
    kept = {
        key: replace(one, told={name: when for name, when in one.told.items() if name in names})
        for key, one in going.items()
    }
    return {key: one for key, one in kept.items() if one.told or not one.is_over}


def silent(
    aet: str, expected: ExpectedModality, last: datetime, zone: tzinfo, holidays: Sequence[Holiday], now: datetime
) -> Condition | None:
    """Whether a modality that was last seen at `last` is silent for too many hours of its windows."""
    lacking = timedelta(hours=expected.hours)
    waited, at = timedelta(), now
    while at > last and now - at < FAR_BACK:
        if windows.is_open(expected.windows, at, zone, holidays):
            waited += min(STEP, at - last)
            if waited >= lacking:
                wall = last.astimezone(zone).strftime("%Y-%m-%d %H:%M")
                return Condition("modality", aet, "modality-silent", {"source": aet, "last": wall})
        at -= STEP
    return None
