"""What waits for a person: raised, found, decided, by hand and by rule."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import clock, exception_kinds, exception_rules, exceptions
from zambezi.chain import Sealed
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import AuditEntry, ExceptionItem, ExceptionRule
from zambezi.environment import REPOSITORY
from zambezi.exception_kinds import KINDS, RULED
from zambezi.exception_rules import NewRule, RuleRefused
from zambezi.exceptions import Place, Selection, Waiting

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
MAPUTO = ZoneInfo("Africa/Maputo")
ROOMS = ("zambezi", "plugins", "ris_service", "gateway", "migration", "operations")


@pytest.fixture
def session(tables_url: str) -> Iterator[Session]:
    engine = connect(tables_url, "test")
    with sessions(engine, "test")() as opened:
        yield opened
    engine.dispose()


def raised(
    session: Session, reference: str = "1", kind: str = "mpps-no-order", source: str = "CT1", days_ago: float = 0,
    room: str = "mpps", study: str | None = None,
) -> int:  # fmt: skip
    exceptions.wait(
        session, room, reference, what=f"{source} did something", suggestion="Look.", kind=kind, study_uid=study,
        facts={"source": source}, now=NOW - timedelta(days=days_ago),
    )  # fmt: skip
    query = select(ExceptionItem.id).where(ExceptionItem.room == room, ExceptionItem.reference == reference)
    return session.scalars(query).one()


def item(session: Session, number: int) -> ExceptionItem:
    return session.get_one(ExceptionItem, number, populate_existing=True)


def entries(session: Session, event: str) -> list[dict]:
    rows = session.scalars(select(AuditEntry).where(AuditEntry.event == event).order_by(AuditEntry.seq))
    return [Sealed(row.journal, row.seq, row.hash, row.payload).facts for row in rows]


def ids(session: Session, selection: Selection) -> list[int]:
    return [row.id for row in exceptions.found(session, selection, NOW, 100)[0]]


# --- raising ------------------------------------------------------------------------------------------


def test_what_still_waits_keeps_its_age_and_that_somebody_was_told(session: Session):
    number = raised(session, days_ago=3)
    item(session, number).alerted_at = clock.text(NOW)
    session.flush()
    assert raised(session, source="CT2") == number
    again = item(session, number)
    assert (again.since, again.alerted_at) == (clock.text(NOW - timedelta(days=3)), clock.text(NOW))
    assert again.facts == {"source": "CT2"}


def test_what_was_decided_and_comes_again_waits_anew(session: Session):
    number = raised(session, days_ago=3)
    exceptions.decide_items(session, [number], who="marta", decision="done", now=NOW, writer="ris")
    raised(session)
    again = item(session, number)
    assert (again.since, again.alerted_at, again.decided_at, again.decision) == (clock.text(NOW), None, None, None)


# --- deciding -----------------------------------------------------------------------------------------


def test_every_decision_is_an_entry_of_its_own_and_nobody_decides_twice(session: Session):
    first, second, third = (raised(session, str(n), study="1.2.3") for n in range(3))
    assert exceptions.decide_items(session, [first], who="rui", decision="seen", now=NOW, writer="ris") == [first]
    done = exceptions.decide_items(
        session, [first, second, third, 999], who="marta", decision="all right", now=NOW, writer="ris"
    )
    assert done == [second, third]
    assert item(session, first).decided_by == "rui"
    told = entries(session, "exception-decided")
    assert [(e["exception"], e["who"], e["decision"]) for e in told] == [
        (first, "rui", "seen"), (second, "marta", "all right"), (third, "marta", "all right"),
    ]  # fmt: skip
    assert {e["study_uid"] for e in told} == {"1.2.3"}


def test_a_room_settles_its_own_with_an_entry_only_where_something_waited(session: Session):
    number = raised(session)
    for _ in range(2):
        exceptions.decide(session, "mpps", "1", who="the exam", decision="found", now=NOW, writer="gateway")
    assert item(session, number).decided_by == "the exam"
    assert [e["journal"] for e in entries(session, "exception-decided")] == ["gateway"]


def test_too_many_at_once_would_hold_up_other_writers(session: Session):
    with pytest.raises(ValueError, match="at most 200"):
        exceptions.decide_items(session, range(201), who="a", decision="b", now=NOW, writer="ris")


# --- finding ------------------------------------------------------------------------------------------


def test_a_selection_narrows_by_each_of_its_words(session: Session):
    old = raised(session, "a", days_ago=10, study="1.2.3")
    new = raised(session, "b", source="CT2")
    other = raised(session, "c", kind="disk-low", room="disk", days_ago=2)
    assert ids(session, Selection()) == [old, other, new]
    assert ids(session, Selection(room="disk")) == [other]
    assert ids(session, Selection(kind="mpps-no-order")) == [old, new]
    assert ids(session, Selection(study="1.2.3")) == [old]
    assert ids(session, Selection(source="CT2")) == [new]
    assert ids(session, Selection(older_days=2)) == [old, other]
    assert ids(session, Selection(text="ct2 SOMETHING")) == [new]
    assert ids(session, Selection(text="pertence")) == [old, new]  # the Portuguese words of the kind
    assert ids(session, Selection(text="50%")) == []
    assert exceptions.count(session, Selection(older_days=2), NOW) == 2
    exceptions.decide_items(session, [old], who="a", decision="forgotten", now=NOW, writer="ris")
    assert ids(session, Selection(decided=True, text="forgotten")) == [old]


@pytest.mark.parametrize("decided", [False, True])
def test_pages_hold_every_item_once_though_moments_are_equal_and_new_ones_come(session: Session, decided: bool):
    made = [raised(session, str(n), days_ago=n // 3) for n in range(20)]
    if decided:
        for n, number in enumerate(made):
            at = NOW + timedelta(minutes=n // 3)
            exceptions.decide_items(session, [number], who="a", decision="b", now=at, writer="ris")
    seen: list[int] = []
    after: Place | None = None
    while True:
        rows, after = exceptions.found(session, Selection(decided=decided), NOW, 3, after)
        seen += [row.id for row in rows]
        if len(seen) == 6 and not decided:  # decided meanwhile: nothing is skipped behind it
            exceptions.decide_items(session, seen[:3], who="a", decision="b", now=NOW, writer="ris")
        if after is None:
            break
        after = Place.read(str(after))
        assert after is not None
    assert sorted(seen) == sorted(made)
    assert len(set(seen)) == 20


@pytest.mark.parametrize("written", ["", "x", "2026-03-02~1", "2026-03-02T08:30:00.000000Z~", "~5"])
def test_a_place_that_nobody_made_is_the_beginning(written: str):
    assert Place.read(written) is None


def test_what_waits_is_counted_by_room_and_kind_with_the_oldest(session: Session):
    raised(session, "a", days_ago=1)
    raised(session, "b", days_ago=5)
    settled = raised(session, "c", days_ago=9)
    raised(session, "d", kind="disk-low", room="disk")
    exceptions.decide_items(session, [settled], who="a", decision="b", now=NOW, writer="ris")
    assert exceptions.waiting(session) == [
        Waiting("mpps", "mpps-no-order", 2, clock.text(NOW - timedelta(days=5))),
        Waiting("disk", "disk-low", 1, clock.text(NOW)),
    ]


# --- words --------------------------------------------------------------------------------------------


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_kind_says_the_same_in_both_languages(name: str):
    kind = KINDS[name]
    assert fields(kind.en.what) == fields(kind.pt.what)
    assert fields(kind.en.suggestion) == fields(kind.pt.suggestion)
    assert all((w.title and w.what and w.suggestion) for w in (kind.en, kind.pt))
    assert not fields(kind.en.title + kind.pt.title)


def calls() -> list[tuple[str, str, set[str]]]:
    """(place, kind, names of its facts) of each `exceptions.wait` in the rooms whose kind and facts stand there."""
    found = []
    for room in ROOMS:
        for file in sorted((REPOSITORY / room).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "exceptions.wait":
                    given = {word.arg: word.value for word in node.keywords}
                    kind, facts = given.get("kind"), given.get("facts")
                    names = (
                        {ast.literal_eval(key) for key in facts.keys if key} if isinstance(facts, ast.Dict) else set()
                    )
                    if kind is None or isinstance(kind, ast.Constant):
                        found.append((f"{file}:{node.lineno}", kind.value if kind else "", names))
    return found


def test_whoever_raises_something_gives_a_kind_and_every_fact_that_its_words_need():
    assert len(calls()) >= 9
    for place, kind, facts in calls():
        assert kind in KINDS, f"{place}: no kind {kind!r} in zambezi/exception_kinds.py"
        assert fields(KINDS[kind].en.what + KINDS[kind].en.suggestion) <= facts, place


def test_a_kind_nobody_knows_or_without_its_facts_has_no_words_and_falls_back():
    assert exception_kinds.words("unheard", "pt", {}) is None
    assert exception_kinds.words("mpps-no-order", "pt", {}) is None
    assert exception_kinds.title("unheard", "pt") == "unheard"
    said = exception_kinds.words("mpps-no-order", "pt", {"source": "CT1"})
    assert said is not None
    assert said.what == "CT1 começou um exame que não pertence a nenhum pedido daqui."


# --- rules --------------------------------------------------------------------------------------------


def new(**changed) -> NewRule:
    given = {"name": "drills", "kind": "mpps-no-order", "decision": "A drill.", "reason": "CT1 is tested.", "days": 30,
             "daily_limit": 3, "source": "CT1"}  # fmt: skip
    return NewRule(**{**given, **changed})


def made(session: Session, **changed) -> ExceptionRule:
    return exception_rules.make(session, new(**changed), who="marta", now=NOW, writer="ris")


def test_no_rule_may_touch_what_could_harm_somebody():
    refused = {
        "conflict", "damaged", "audit-broken", "patient-mismatch", "mpps-wrong-entry", "discard-asked", "disk-low",
        "delivery-parked", "message-refused", "study-divergent", "study-parked", "journal-new", "journal-changed",
    }  # fmt: skip
    assert refused & RULED == set()
    assert not any(KINDS[kind].serious for kind in RULED)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"kind": "conflict"}, "kind"), ({"kind": ""}, "kind"), ({"name": " "}, "name"), ({"reason": ""}, "reason"),
        ({"decision": ""}, "decision"), ({"days": 0}, "days"), ({"days": 367}, "days"),
        ({"daily_limit": 0}, "daily_limit"), ({"daily_limit": 1001}, "daily_limit"), ({"older_days": -1}, "older_days"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_is_refused_with_its_reason(session: Session, changed: dict, field: str):
    with pytest.raises(RuleRefused) as refused:
        made(session, **changed)
    assert refused.value.field == field
    assert entries(session, "exception-rule-changed") == []


def test_a_name_is_never_used_again(session: Session):
    rule = made(session)
    exception_rules.end(session, rule.id, who="marta", now=NOW, writer="ris")
    with pytest.raises(RuleRefused, match="already"):
        made(session)


def test_a_rule_decides_what_fits_the_oldest_first_and_each_decision_names_it_and_its_maker(session: Session):
    fits = [raised(session, str(n), days_ago=9 - n) for n in range(2)]
    raised(session, "other source", source="CT2")
    raised(session, "other kind", kind="mpps-wrong-entry")
    rule = made(session)
    assert exception_rules.carry_out(session, rule.id, NOW, MAPUTO, "operations") == 2
    assert [item(session, number).rule_id for number in fits] == [rule.id] * 2
    assert exceptions.count(session, Selection(), NOW) == 2
    told = entries(session, "exception-decided")
    assert [(e["exception"], e["rule"], e["made_by"], e["decision"]) for e in told] == [
        (number, "drills", "marta", "A drill.") for number in fits
    ]
    assert [e["change"] for e in entries(session, "exception-rule-changed")] == ["made"]


def test_the_days_limit_is_the_sites_day_and_holds_though_items_come_back(session: Session):
    rule = made(session, daily_limit=3)
    for n in range(5):
        raised(session, str(n))
    assert exception_rules.carry_out(session, rule.id, NOW, MAPUTO, "operations") == 3
    raised(session, "0")  # comes again, and waits again
    assert exception_rules.quota(rule, NOW, MAPUTO) == exception_rules.Quota(0, "limit")
    assert exception_rules.carry_out(session, rule.id, NOW, MAPUTO, "operations") == 0
    evening = datetime(2026, 3, 2, 21, 59, tzinfo=UTC)
    assert exception_rules.carry_out(session, rule.id, evening, MAPUTO, "operations") == 0
    midnight = datetime(2026, 3, 2, 22, 0, tzinfo=UTC)  # 00:00 in Maputo
    assert exception_rules.carry_out(session, rule.id, midnight, MAPUTO, "operations") == 3
    assert (rule.decided_on_day, rule.decided_total) == (3, 6)


def test_a_rule_waits_for_the_age_it_names(session: Session):
    young, old = raised(session, "young", days_ago=6.9), raised(session, "old", days_ago=7)
    rule = made(session, older_days=7)
    exception_rules.carry_out(session, rule.id, NOW, MAPUTO, "operations")
    assert (item(session, young).decided_at, item(session, old).rule_id) == (None, rule.id)


@pytest.mark.parametrize("because", ["ended", "expired", "not-ruled"])
def test_a_rule_out_of_force_decides_nothing(session: Session, because: str):
    raised(session)
    rule, now = made(session), NOW
    if because == "ended":
        assert exception_rules.end(session, rule.id, who="rui", now=NOW, writer="ris")
        assert not exception_rules.end(session, rule.id, who="rui", now=NOW, writer="ris")
    elif because == "expired":
        now = NOW + timedelta(days=30)
    else:
        rule.kind = "conflict"
    assert exception_rules.quota(rule, now, MAPUTO).because == because
    assert exception_rules.carry_out(session, rule.id, now, MAPUTO, "operations") == 0
    assert exceptions.count(session, Selection(), NOW) == 1
