"""When persons are told of what: pure decisions, and what a message holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operations import alerts
from operations.alerts import Channel, Concern, Message
from zambezi import clock
from zambezi.config.settings import Alerts, Site
from zambezi.exception_kinds import KINDS

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
MAPUTO = ZoneInfo("Africa/Maputo")
QUIET = Alerts(digest_hour=None)


def concern(number: int = 1, minutes_ago: float = 0, kind: str = "conflict") -> Concern:
    since = NOW - timedelta(minutes=minutes_ago)
    settings = Alerts()
    return Concern(
        f"exception {number} {since}", "hold", kind, clock.text(since), since + alerts.patience(kind, settings),
        alerts.is_serious(kind), number,
    )  # fmt: skip


def decided(concerns: list[Concern], now: datetime = NOW, settings: Alerts = QUIET, **how) -> alerts.Decision:
    told, channel = how.pop("told", ()), Channel(**how)
    return alerts.decide(concerns, told, channel, settings, MAPUTO, now)


def test_serious_kinds_are_told_at_once_and_the_others_when_they_are_old_enough():
    assert decided([concern(kind="conflict")]).message
    assert not decided([concern(kind="mpps-no-order", minutes_ago=24 * 60 - 1)]).message
    assert decided([concern(kind="mpps-no-order", minutes_ago=24 * 60)]).message
    assert not decided([concern(kind="", minutes_ago=60)]).message


def test_the_configuration_says_how_patient_each_kind_is():
    settings = Alerts(hours=48, hours_of_kind={"conflict": 2, "mpps-no-order": 0})
    waits = {
        kind: alerts.patience(kind, settings) for kind in ("conflict", "mpps-no-order", "delivery-parked", "damaged")
    }
    assert waits == {
        "conflict": timedelta(hours=2), "mpps-no-order": timedelta(), "delivery-parked": timedelta(hours=48),
        "damaged": timedelta(),
    }  # fmt: skip


def test_what_was_told_is_not_told_again():
    one, other = concern(1), concern(2)
    assert not decided([one], told=[one.key]).message
    message = decided([one, other], told=[one.key]).message
    assert message is not None
    assert message.new == (other,)


def test_the_interval_keeps_messages_apart_and_a_clock_put_back_does_not_silence_anybody():
    recently = NOW - timedelta(minutes=14)
    assert decided([concern()], sent_at=recently).because == "the last message was a moment ago"
    assert decided([concern()], sent_at=NOW - timedelta(minutes=15)).message
    assert decided([concern()], sent_at=NOW + timedelta(days=300)).message
    assert decided([concern()], next_at=NOW + timedelta(days=300)).message


def test_after_a_failure_it_waits_longer_each_time_up_to_an_hour():
    waits = [alerts.back_off(n) // timedelta(minutes=1) for n in range(1, 9)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert alerts.back_off(10_000) == timedelta(hours=1)
    assert not decided([concern()], failures=3, next_at=NOW + timedelta(seconds=1)).message
    assert decided([concern()], failures=3, next_at=NOW).message


@pytest.mark.parametrize(
    ("hour", "minute", "last", "is_due"),
    [
        (4, 59, "2026-03-01", False),  # 06:59 in Maputo
        (5, 0, "2026-03-01", True),
        (5, 0, "2026-03-02", False),
        (21, 59, "2026-03-02", False),
        (22, 30, "2026-03-02", False),  # 00:30 of the next day
        (20, 0, "", True),  # the machine was off at seven
    ],
)
def test_the_digest_comes_once_a_day_from_its_hour_at_the_site_on(hour: int, minute: int, last: str, is_due: bool):
    now = NOW.replace(hour=hour, minute=minute)
    assert alerts.digest_is_due(last, Alerts(), MAPUTO, now) == is_due
    message = decided([concern(kind="mpps-no-order")], now, Alerts(), digest_day=last).message
    assert (message is not None and message.about == "digest") == is_due
    assert not decided([], now, Alerts(), digest_day=last).message


concerns = st.builds(
    concern, st.integers(1, 30), st.integers(0, 3 * 24 * 60), st.sampled_from(["", "unheard", *sorted(KINDS)])
)


@given(
    st.lists(st.tuples(st.integers(0, 4 * 24 * 60), concerns), max_size=30),
    st.lists(st.booleans(), min_size=50, max_size=50),
    st.sampled_from([None, 0, 7, 23]), st.sampled_from([1, 15, 240]),
)  # fmt: skip
def test_everything_due_is_told_once_never_too_often_however_the_receiver_fails(
    comes: list[tuple[int, Concern]], works: list[bool], digest_hour: int | None, interval: int
):
    """Four days in steps of ten minutes: what is due is told within interval and back-off, once, and spaced."""
    settings = Alerts(digest_hour=digest_hour, interval_minutes=interval)
    channel, told, sent, attempts = Channel(), {}, [], 0
    for step in range(4 * 24 * 6):
        now = NOW + timedelta(minutes=10 * step)
        present = list({one.key: one for minute, one in comes if minute <= 10 * step}.values())
        message = alerts.decide(present, told, channel, settings, MAPUTO, now).message
        if message is None:
            continue
        attempts += 1
        if attempts <= len(works) and not works[attempts - 1]:
            failures = channel.failures + 1
            channel = replace(channel, failures=failures, next_at=now + alerts.back_off(failures))
            continue
        assert all(one.due_at <= now and one.key not in told for one in message.new)
        if sent:
            assert now - sent[-1] >= timedelta(minutes=interval)
        sent.append(now)
        told |= {one.key: now for one in message.new}
        today = alerts.day(MAPUTO, now) if message.about == "digest" else channel.digest_day
        channel = Channel(now, today)
    end = NOW + timedelta(days=4)
    # Every failure costs an hour at most; thereafter the interval alone.
    grace = timedelta(minutes=interval + 20) + timedelta(hours=works.count(False) + 1)
    arrived = {one.key: NOW + timedelta(minutes=minute) for minute, one in reversed(comes)}
    for minute, one in comes:
        first = max(one.due_at, NOW + timedelta(minutes=minute))
        assert one.key in told or first + grace > end, (one, arrived)
    days = [alerts.day(MAPUTO, at) for at in sent]
    if digest_hour is None and not comes:
        assert not days


def test_a_message_names_ids_counts_and_ages_and_is_bounded():
    many = (*(concern(n, minutes_ago=n) for n in range(500)), concern(900, 3000, "mpps-no-order"))
    told = alerts.document(Message("alert", many, many), Site(name="HCM"), "https://pacs", NOW)
    assert (told["new"], told["serious"], told["open"]) == (501, 500, 501)
    first, second = told["groups"]
    assert (first["kind"], first["new"], first["serious"], len(first["ids"])) == ("conflict", 500, True, 20)
    assert first["href"] == "https://pacs/exceptions?room=hold&kind=conflict"
    assert second["title"] == "Exame sem pedido"
    subject, text = alerts.mail(told, "pt", NOW)
    assert subject == "Zambezi, HCM: à espera de uma pessoa: 501 (graves: 500)"
    assert "! Imagens em conflito (hold): novas 500, à espera 500, a mais antiga há 8 horas" in text
    assert "- Exame sem pedido (hold): novas 1, à espera 1, a mais antiga há 2 dias" in text
    sorts = tuple(replace(concern(n), room=f"room{n}") for n in range(100))
    bounded = alerts.document(Message("digest", (), sorts), Site(), "", NOW)
    assert (len(bounded["groups"]), bounded["more_groups"]) == (40, 60)
    assert len(alerts.mail(bounded, "en", NOW)[1]) < 20_000


def test_a_line_break_in_the_sites_name_ends_no_header():
    told = alerts.document(Message("test"), Site(name="A\r\nBcc: x@y.z"), "", NOW)
    assert "\n" not in alerts.mail(told, "en", NOW)[0]
