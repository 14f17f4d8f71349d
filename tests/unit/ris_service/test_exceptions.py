"""The pages of exceptions: nothing in a foreign language, nothing decided twice or unseen, and light on a slow line."""

from __future__ import annotations

import gzip
import html
import json
import re
from datetime import timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from ris_service.exception_commands import exceptions_group
from tests.unit.ris_service.seeding import CHEST, HTML, Hospital, csrf
from tests.unit.ris_service.test_pages import speak
from zambezi import exception_rules, exceptions, outbox
from zambezi.chain import Sealed
from zambezi.database.tables import AuditEntry, ExceptionItem, ExceptionRule
from zambezi.exception_kinds import KINDS

#: A fact for every word in braces that any kind has.
FACTS = {
    "source": "CT1", "rule": "copies", "attempts": 3, "reason": "no association: connection refused", "message":
    "ORM^O01", "number": 7, "accession": "Z0001", "place": 12, "event": "stored", "change": "revoked",
    "free": "9.1", "total": "900",
}  # fmt: skip


def one_of_each_kind(hospital: Hospital) -> None:
    with hospital.sessions.begin() as session:
        for n, kind in enumerate(KINDS):
            exceptions.wait(
                session, "archive", kind, now=hospital.clock() - timedelta(days=n), kind=kind, facts=FACTS,
                what="An English sentence that was stored.", suggestion="Do something in English.", study_uid=CHEST,
            )  # fmt: skip


def number_of(hospital: Hospital, reference: str) -> int:
    with hospital.sessions.begin() as session:
        return session.scalars(select(ExceptionItem.id).where(ExceptionItem.reference == reference)).one()


def outside_of_english(page: str) -> str:
    """The page's words without the parts that say that they are English."""
    return html.unescape(re.sub(r'<(p|small|span)[^>]* lang="en".*?</\1>', "", page, flags=re.DOTALL))


@pytest.mark.parametrize("show", ["", "?show=decided"])
def test_no_kind_speaks_english_on_a_portuguese_page(hospital, show):
    one_of_each_kind(hospital)
    with hospital.sessions.begin() as session:
        ids = list(session.scalars(select(ExceptionItem.id)))
        if show:
            exceptions.decide_items(session, ids, who="rui", decision="visto", now=hospital.clock(), writer="ris")
    client = hospital.signed_in("administrator")
    speak(hospital, "administrator", "pt")
    pages = [client.get(f"/exceptions{show}").text, *(client.get(f"/exceptions/{number}").text for number in ids)]
    for page in pages:
        words = outside_of_english(page)
        assert "English sentence" not in words and "in English" not in words
        assert "connection refused" not in words
        for kind in KINDS.values():
            assert kind.en.title not in re.sub(r"<code>.*?</code>", "", words)
    assert "CT1 começou um exame que não pertence a nenhum pedido daqui." in html.unescape(pages[0])
    speak(hospital, "administrator", "en")
    english = html.unescape(client.get(f"/exceptions{show}").text)
    assert "CT1 began an exam that belongs to no order here." in english
    assert "connection refused" in english


def test_what_has_no_words_stands_as_it_was_noted_and_says_that_it_is_english(hospital):
    with hospital.sessions.begin() as session:
        exceptions.wait(
            session, "keys", "k1", what="A key is lost.", suggestion="Find it.", now=hospital.clock(), kind="unheard"
        )
    page = hospital.signed_in("administrator").get("/exceptions").text
    assert '<p lang="en">A key is lost.</p>' in page


def test_a_kind_without_facts_keeps_what_was_noted_beside_its_words(hospital):
    with hospital.sessions.begin() as session:
        exceptions.wait(
            session, "deletion", "d1", what="deletion 7 has stopped: the disk is full", suggestion="Look at it.",
            now=hospital.clock(), kind="deletion-parked",
        )  # fmt: skip
    admin, path = hospital.signed_in("administrator"), f"/exceptions/{number_of(hospital, 'd1')}"
    speak(hospital, "administrator", "pt")
    portuguese = admin.get(path).text
    assert "Uma eliminação parou." in portuguese
    assert "deletion 7 has stopped" in portuguese and "deletion 7 has stopped" not in outside_of_english(portuguese)
    speak(hospital, "administrator", "en")
    assert "<p>deletion 7 has stopped: the disk is full</p>" in admin.get(path).text


@pytest.mark.parametrize("language", ["pt", "en"])
def test_a_hundred_items_weigh_less_than_40_kb_with_everything(hospital, language):
    with hospital.sessions.begin() as session:
        for n in range(120):
            exceptions.wait(
                session, "delivery", f"{n:032}", now=hospital.clock(), kind=list(KINDS)[n % len(KINDS)], facts=FACTS,
                what=f"sentence {n}", suggestion="", study_uid=f"1.2.840.113619.2.55.{n * 7919}",
                actions=outbox.actions(f"{n * 104729:032x}"),
            )  # fmt: skip
    client = hospital.signed_in("administrator")
    speak(hospital, "administrator", language)
    answer = client.get("/exceptions", headers=HTML)
    assert answer.text.count('name="item"') == 100
    weight = len(gzip.compress(answer.data))
    weight += sum(len(gzip.compress(client.get(f"/static/{name}").data)) for name in ("zambezi.css", "zambezi.js"))
    assert weight < 40_000


def test_the_next_page_begins_where_this_one_ends_and_filters_stay(hospital):
    with hospital.sessions.begin() as session:
        for n in range(150):
            exceptions.wait(
                session, "mpps", f"s{n}", now=hospital.clock() - timedelta(minutes=n), kind="mpps-no-order",
                facts={"source": "CT1"}, what="", suggestion="",
            )  # fmt: skip
    client = hospital.signed_in("administrator")
    first = client.get("/exceptions?room=mpps&q=CT1").text
    more = html.unescape(re.search(r'class="button" href="([^"]+after=[^"]+)"', first).group(1))
    assert "room=mpps" in more and "q=CT1" in more
    second = client.get(more).text
    found = [re.findall(r'name="item" value="(\d+)"', page) for page in (first, second)]
    assert (len(found[0]), len(found[1])) == (100, 51)
    assert not set(found[0]) & set(found[1])
    assert "after=" not in second


def test_filters_narrow_and_say_how_much_they_hide(hospital):
    one_of_each_kind(hospital)
    client = hospital.signed_in("administrator")
    page = client.get("/exceptions?kind=conflict").text
    assert page.count('name="item"') == 1
    assert f"Os filtros escondem {len(KINDS) + 1} excepções." in page
    assert client.get("/exceptions?older=7").text.count('name="item"') == len(KINDS) - 7
    assert client.get("/exceptions", query_string={"q": "retenção"}).text.count('name="item"') >= 3
    assert client.get("/exceptions?older=x&room=nowhere&after=y").status_code == 200


def test_those_who_may_decide_see_how_much_waits_and_the_others_only_look(hospital):
    one_of_each_kind(hospital)
    admin = hospital.signed_in("administrator").get("/").text
    assert f'<span class="badge">{len(KINDS) + 2}</span>' in admin
    radiographer = hospital.signed_in("radiographer")
    assert "badge" not in radiographer.get("/").text
    page = radiographer.get("/exceptions").text
    assert 'name="item"' not in page and 'name="decision"' not in page
    number = number_of(hospital, "1.2.840.99")
    word = csrf(page)
    form = {"csrf_token": word, "decision": "x", "item": [number], "kind": "conflict", "seen": "x"}
    for path in (f"/exceptions/{number}/decide", "/exceptions/decide", "/exceptions/all", "/exceptions/rules"):
        assert radiographer.post(path, data=form).status_code == 403
    assert radiographer.get("/exceptions/all?kind=conflict").status_code == 403
    assert hospital.signed_in("reception").get("/exceptions").status_code == 403


def test_an_action_is_shown_to_those_who_may_and_leads_only_into_our_own_pages(hospital):
    with hospital.sessions.begin() as session:
        exceptions.wait(
            session, "delivery", "d", what="x", suggestion="", now=hospital.clock(), kind="unheard",
            actions=[
                *outbox.actions(f"{1:032}"), {"label": "Open the study", "href": f"/studies/{CHEST}"},
                {"label": "outside", "href": "//evil.example/x"}, {"label": "script", "href": "javascript:alert(1)"},
                {"label": "nowhere", "href": "/no/such/page"},
            ],
        )  # fmt: skip
    path = f"/exceptions/{number_of(hospital, 'd')}"
    admin, radiologist = (hospital.signed_in(role).get(path).text for role in ("administrator", "radiologist"))
    assert "Tentar de novo já" in admin and "Anular" in admin and "Abrir o estudo" in admin
    assert "Tentar de novo já" not in radiologist and "Abrir o estudo" in radiologist
    assert not any(word in admin for word in ("evil.example", "javascript:", "nowhere"))


def test_several_are_decided_at_once_and_the_filters_stay(hospital):
    one_of_each_kind(hospital)
    admin = hospital.signed_in("administrator")
    word = csrf(admin.get("/exceptions").text)
    chosen = [number_of(hospital, kind) for kind in ("conflict", "damaged")]
    form = {"csrf_token": word, "decision": "Visto com a Dr.ª Ivone.", "item": chosen, "room": "archive"}
    answer = admin.post("/exceptions/decide", data=form)
    assert (answer.status_code, answer.location) == (303, "/exceptions?room=archive&said=decided")
    assert admin.post("/exceptions/decide", data=form).status_code == 409
    assert admin.post("/exceptions/decide", data=form | {"item": []}).status_code == 400
    assert admin.post("/exceptions/decide", data=form | {"item": range(500)}).status_code == 400
    assert admin.post("/exceptions/decide", data=form | {"item": [99999]}).status_code == 404
    with hospital.sessions.begin() as session:
        rows = session.scalars(
            select(AuditEntry).where(AuditEntry.event == "exception-decided").order_by(AuditEntry.seq)
        ).all()
        facts = [Sealed(row.journal, row.seq, row.hash, row.payload).facts for row in rows]
    assert [(one["exception"], one["who"]) for one in facts if one["exception"] in chosen] == [
        (number, "administrator") for number in sorted(chosen)
    ]
    page = admin.get(f"/exceptions/{chosen[0]}").text
    assert "Visto com a Dr.ª Ivone." in page and "excepção decidida" in page


def test_all_of_a_kind_are_counted_first_and_what_comes_meanwhile_goes_on_waiting(hospital):
    def come(n: int) -> None:
        with hospital.sessions.begin() as session:
            exceptions.wait(
                session, "mpps", f"x{n}", what="", suggestion="", now=hospital.clock(), kind="mpps-no-order",
                facts={"source": "CT9"},
            )  # fmt: skip

    for n in range(450):
        come(n)
    admin = hospital.signed_in("administrator")
    assert admin.get("/exceptions/all").location == "/exceptions"
    page = admin.get("/exceptions/all?kind=mpps-no-order&source=CT9").text
    assert "Ficariam decididas 450 excepções de uma vez." in page
    seen = re.search(r'name="seen" value="([^"]+)"', page).group(1)
    hospital.clock.pass_by(minutes=1)
    come(1000)
    form = {
        "csrf_token": csrf(page), "kind": "mpps-no-order", "source": "CT9", "seen": seen, "decision": "Ensaio."
    }  # fmt: skip
    assert admin.post("/exceptions/all", data=form | {"seen": "now"}).status_code == 400
    assert admin.post("/exceptions/all", data=form | {"decision": " "}).status_code == 400
    assert admin.post("/exceptions/all", data=form).status_code == 303
    assert admin.post("/exceptions/all", data=form).status_code == 409
    with hospital.sessions.begin() as session:
        waiting = session.scalars(
            select(ExceptionItem.reference).where(ExceptionItem.room == "mpps", ExceptionItem.decided_at.is_(None))
        ).all()
    assert sorted(waiting) == ["1.2.840.99", "x1000"]


def test_a_rule_is_shown_with_what_it_would_decide_then_made_then_switched_off(hospital):
    admin = hospital.signed_in("administrator")
    form = {
        "name": "ensaios", "kind": "mpps-no-order", "room": "", "source": "CT1", "older_days": "0", "days": "30",
        "decision": "Exame de ensaio.", "reason": "CT1 está em ensaio.", "daily_limit": "5",
    }  # fmt: skip
    preview = admin.get("/exceptions/rules/preview", query_string=form).text
    assert "1 excepção cabe agora nesta regra." in preview
    word = {"csrf_token": csrf(preview)}
    conflict = form | {"kind": "conflict"}
    assert admin.get("/exceptions/rules/preview", query_string=conflict).location == "/exceptions/rules"
    refused = admin.post("/exceptions/rules", data=conflict | word)
    assert (refused.status_code, "Uma regra não pode decidir este tipo." in refused.text) == (400, True)
    assert admin.post("/exceptions/rules", data=form | word).status_code == 303
    page = admin.get("/exceptions/rules").text
    assert "ensaios" in page and "Em vigor" in page
    with hospital.sessions.begin() as session:
        rule = session.scalars(select(ExceptionRule)).one().id
        zone = hospital.settings.site.zone
        assert exception_rules.carry_out(session, rule, hospital.clock(), zone, "operations") == 1
    item = admin.get(f"/exceptions/{number_of(hospital, '1.2.840.99')}").text
    assert "pela regra ensaios, feita por administrator" in item
    assert admin.post(f"/exceptions/rules/{rule}/end", data=word).status_code == 303
    assert admin.post(f"/exceptions/rules/{rule}/end", data=word).status_code == 409
    assert "Desligada" in admin.get("/exceptions/rules").text


@pytest.mark.parametrize("language", ["pt", "en"])
def test_the_other_pages_open_in_both_languages(hospital, language):
    admin = hospital.signed_in("administrator")
    speak(hospital, "administrator", language)
    number = number_of(hospital, "1.2.840.99")
    for path in (
        f"/exceptions/{number}", "/exceptions/rules", "/exceptions/rules?kind=mpps-no-order&source=CT1",
        "/exceptions/rules/preview?kind=mpps-no-order", "/exceptions/all?kind=mpps-no-order",
    ):  # fmt: skip
        answer = admin.get(path, headers=HTML)
        assert answer.status_code == 200, path
        assert f'<html lang="{language}">' in answer.text
    assert admin.get("/exceptions/99999").status_code == 404


def test_the_console_lists_shows_and_decides(hospital, monkeypatch):
    monkeypatch.setenv("ZAMBEZI_HOME", str(hospital.environment.home))
    monkeypatch.setenv("ZAMBEZI_DATABASE_URL", hospital.environment.database_url)
    number = number_of(hospital, "1.2.840.99")

    def run(*words: str, fails: bool = False) -> str:
        result = CliRunner().invoke(exceptions_group, [*words])
        assert (result.exit_code != 0) == fails, result.output
        return result.output

    assert "CT1 began an exam that belongs to no order here." in run("list")
    listed = json.loads(run("list", "--room", "mpps", "--json"))
    assert (listed["total"], listed["exceptions"][0]["id"]) == (1, number)
    assert "Find the order" in run("show", str(number))
    assert json.loads(run("show", str(number), "--json"))["facts"] == {"source": "CT1"}
    assert "conflict             serious" in run("kinds")
    assert "no exception 999" in run("show", "999", fails=True)
    assert "1 decided" in run("decide", str(number), "--decision", "A drill.")
    assert f"decided before: {number}" in run("decide", str(number), "--decision", "Again.", fails=True)
    assert "by console: A drill." in run("list", "--decided")
    with hospital.sessions.begin() as session:
        new = exception_rules.NewRule("drills", "mpps-no-order", "A drill.", "Tests.", 30, 5)
        exception_rules.make(session, new, who="marta", now=hospital.clock(), writer="ris")
    assert json.loads(run("rules", "--json"))[0]["made_by"] == "marta"
    assert "ended" in run("rules", "--end", "drills")
    assert "could be switched off" in run("rules", "--end", "drills", fails=True)
