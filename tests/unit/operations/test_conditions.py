"""What begins and ends by itself: told once, again by policy, and when it is over; never to and fro. Time is given."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from string import Formatter
from zoneinfo import ZoneInfo

import pytest

from operations import condition_messages, conditions
from operations.alerts import Channel
from operations.condition_words import CONDITIONS
from operations.conditions import Condition, Going, News
from zambezi import clock
from zambezi.config.settings import Alerts, ExpectedModality, Site, Window

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)  # a Monday
MAPUTO = ZoneInfo("Africa/Maputo")
SETTINGS = Alerts(interval_minutes=1, calm_minutes=5, repeat_hours=24)
CALM = timedelta(minutes=5)
DEAD = Condition("process", "gateway", "process-dead", {"source": "gateway", "state": "fatal"})
LOW = Condition("disk", "images", "disk-low", {"source": "images", "free": "9.0", "total": "100"}, 1)
FULL = replace(LOW, kind="disk-full", grade=3)


class Line:
    """One channel over time: what it says at each minute of a story."""

    def __init__(self, name: str = "mail") -> None:
        self.name = name
        self.going: dict[str, Going] = {}
        self.sent: datetime | None = None

    def minute(self, at: float, *found: Condition, unknown: tuple[str, ...] = ()) -> list[str]:
        now = NOW + timedelta(minutes=at)
        self.going = conditions.follow(self.going, found, unknown, CALM, now)
        said = conditions.news(self.going, self.name, Channel(self.sent), SETTINGS, now)
        if said:
            self.sent = now
            self.going = conditions.remembered(self.going, self.name, said, now)
        told = (("begun", said.new), ("still", said.still), ("over", said.over))
        return [f"{state} {one.found.kind}" for state, ones in told for one in ones]


def test_it_is_told_once_and_when_it_is_over():
    line = Line()
    assert line.minute(0, LOW) == ["begun disk-low"]
    assert [line.minute(at, LOW) for at in range(1, 60)] == [[]] * 59
    assert [line.minute(at) for at in range(60, 65)] == [[]] * 5, "it may come again"
    assert line.minute(65) == ["over disk-low"]
    assert line.minute(66) == []
    assert line.going == {}
    assert line.minute(100, LOW) == ["begun disk-low"]


def test_what_comes_and_goes_is_one_thing():
    line = Line()
    told = [line.minute(at, *([LOW] if at % 3 else [])) for at in range(120)]
    assert [one for one in told if one] == [["begun disk-low"]]


def test_a_process_that_is_started_again_is_no_news_and_nothing_is_over_of_which_nobody_was_told():
    line = Line()
    assert line.minute(0, DEAD) == line.minute(1, DEAD) == []
    assert [line.minute(at) for at in range(2, 12)] == [[]] * 10
    assert [line.minute(20, DEAD), line.minute(22, DEAD)] == [[], ["begun process-dead"]]


def test_what_gets_worse_is_told_at_once_and_what_gets_better_is_not():
    line = Line()
    assert line.minute(0, LOW) == ["begun disk-low"]
    assert line.minute(2, FULL) == ["begun disk-full"]
    assert line.minute(4, LOW) == line.minute(6, FULL) == []
    assert line.minute(8) == []
    assert line.minute(20) == ["over disk-full"]


def test_what_goes_on_is_told_again_by_policy():
    line = Line()
    line.minute(0, LOW)
    told = {at: said for at in range(10, 3 * 24 * 60, 10) if (said := line.minute(at, LOW))}
    assert told == {24 * 60: ["still disk-low"], 48 * 60: ["still disk-low"]}


def test_what_can_not_be_known_stays_as_it_was():
    line = Line()
    line.minute(0, DEAD)
    assert line.minute(3, DEAD) == ["begun process-dead"]
    assert [line.minute(at, unknown=("process",)) for at in range(4, 60)] == [[]] * 56
    assert line.minute(60) == []
    assert line.minute(66) == ["over process-dead"]


def test_each_channel_is_told_by_itself_and_it_is_over_once_all_were_told():
    mail, hook = Line("mail"), Line("webhook")
    assert mail.minute(0, LOW) == ["begun disk-low"]
    hook.going = mail.going
    assert hook.minute(0, LOW) == ["begun disk-low"]
    mail.going = hook.going
    assert mail.minute(10) == []
    assert mail.minute(16) == ["over disk-low"]
    hook.going = mail.going
    assert hook.minute(17) == ["over disk-low"]
    assert hook.going == {}
    assert conditions.only(mail.going, ["mail"]) == {}, "a channel that is gone has nothing left to tell"


def test_a_message_a_moment_ago_and_a_failure_make_it_wait_and_a_clock_put_back_does_not():
    going = conditions.follow({}, [LOW], (), CALM, NOW)

    def told(channel: Channel) -> News:
        return conditions.news(going, "mail", channel, SETTINGS, NOW)

    assert not told(Channel(NOW - timedelta(seconds=59)))
    assert not told(Channel(None, "", 2, NOW + timedelta(seconds=1)))
    assert told(Channel(NOW + timedelta(days=300))).new
    assert told(Channel(None, "", 2, NOW + timedelta(days=300))).new
    late = conditions.follow(going, [], (), CALM, NOW)
    assert late == {} or not next(iter(late.values())).is_over
    back = conditions.follow(late, [], (), CALM, NOW - timedelta(days=300))
    assert not any(one.is_over for one in back.values()), "five minutes begin anew"


# --- modalities


OFFICE = Window.model_validate({"Days": ["Mon", "Tue", "Wed", "Thu", "Fri"], "From": "08:00", "To": "17:00"})
WEEK = ExpectedModality(hours=4, windows=(OFFICE,))


@pytest.mark.parametrize(
    ("last", "now", "is_silent"),
    [
        # Times on the wall in Maputo (UTC+2); 2 March 2026 is a Monday.
        ("2026-03-02 08:00", "2026-03-02 11:55", False),
        ("2026-03-02 08:00", "2026-03-02 12:05", True),
        # Over a week-end: two hours on Friday and two on Monday.
        ("2026-02-27 15:00", "2026-03-02 09:50", False),
        ("2026-02-27 15:00", "2026-03-02 10:10", True),
        # What is silent at night and on Sunday does what it should.
        ("2026-02-27 16:55", "2026-03-01 20:00", False),
        # Months ago is not forgotten, even before the week begins.
        ("2025-11-03 10:00", "2026-03-02 07:00", True),
    ],
)
def test_a_modality_is_silent_by_the_hours_in_which_it_works(last: str, now: str, is_silent: bool):
    moments = [datetime.strptime(one, "%Y-%m-%d %H:%M").replace(tzinfo=MAPUTO) for one in (last, now)]
    found = conditions.silent("CT1", WEEK, moments[0].astimezone(UTC), MAPUTO, (), moments[1].astimezone(UTC))
    assert (found is not None) == is_silent
    if found:
        assert found.facts == {"source": "CT1", "last": last}


# --- words


def test_words_in_both_languages_speak_of_the_same_facts():
    for kind in CONDITIONS.values():
        facts = [
            {name for _, name, _, _ in Formatter().parse(said.title + said.what + said.suggestion) if name}
            for said in (kind.en, kind.pt)
        ]
        assert facts[0] == facts[1]


@pytest.mark.parametrize(
    ("language", "subject", "lines"),
    [
        ("pt", "Zambezi, Hospital: Disco cheio: imagens recusadas (começou) +1",
         ["! Disco cheio: imagens recusadas: começou, há 3 horas",
          "✓ Um processo não funciona: acabou, durou 2 horas"]),
        ("en", "Zambezi, Hospital: Disk full: images are refused (begun) +1",
         ["! Disk full: images are refused: begun, for 3 hours", "✓ A process does not run: over, lasted 2 hours"]),
    ],
)  # fmt: skip
def test_a_mail_says_what_began_and_what_is_over(language: str, subject: str, lines: list[str]):
    since = clock.text(NOW - timedelta(hours=3))
    full = Going(FULL, since)
    dead = Going(DEAD, since, clock.text(NOW - timedelta(hours=1)), True, {"mail": (since, 1)})
    site = Site(language=language)
    told = condition_messages.document(News((full,), (), (dead,)), 1, site, "https://pacs.example", NOW)
    assert (told["new"], told["over"], told["serious"], told["open"]) == (1, 1, 1, 1)
    assert told["href"] == "https://pacs.example/health"
    written, text = condition_messages.mail(told, language, NOW)
    assert written == subject
    assert [line for line in lines if line not in text.splitlines()] == []
    assert f"({'imagens' if language == 'pt' else 'images'})" in text
