"""Who sees a part of the site: lists, pages, the way to the viewers, and emergencies with a reason."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from ris_service import app as application
from tests.unit.ris_service.seeding import CHEST, FOREIGN, HTML, KNEE, OLD, PASSWORD, Hospital, csrf
from zambezi import users
from zambezi.access import may
from zambezi.access.tokens import COOKIE, Token, read
from zambezi.database.tables import AuditEntry, ExceptionItem, Study, User

#: Seeded: CHEST is CT of Dr. Elias Tembe, KNEE DX of Dr.ª Ivone Sitoe, OLD CR and FOREIGN US without an order.


def narrowed(hospital: Hospital, login: str, **scope):
    with hospital.sessions.begin() as session:
        users.set_scope(
            session, users.find(session, login), now=hospital.clock(), writer="ris", by="test",
            **{"sites": (), "modalities": (), "referrer": "", **scope},
        )  # fmt: skip


def enter(hospital: Hospital, login: str):
    """Sign in by the form, as a person does."""
    client = hospital.client()
    word = csrf(client.get("/session").text)
    answer = client.post("/session", data={"csrf_token": word, "login": login, "password": PASSWORD})
    assert answer.status_code == 303, answer.text[:500]
    return client


def carried(hospital: Hospital, client) -> Token:
    return read(client.get_cookie(COOKIE).value, hospital.keys.session_key, int(hospital.clock().timestamp()))


def entries(hospital: Hospital, event: str) -> list[dict]:
    with hospital.sessions.begin() as session:
        rows = session.scalars(
            select(AuditEntry.payload).where(AuditEntry.event == event).order_by(AuditEntry.seq)
        ).all()
    return [json.loads(row) for row in rows]


def test_a_radiologist_of_one_modality_sees_its_studies_and_orders_alone(hospital):
    narrowed(hospital, "radiologist", modalities=["DX"])
    client = enter(hospital, "radiologist")
    listed = client.get("/studies").text
    assert KNEE in listed and not any(uid in listed for uid in (CHEST, OLD, FOREIGN))
    assert client.get("/studies?q=P1001").text.count("/report") == 0
    orders = client.get("/?day=all").text
    assert "RX joelho direito" in orders and "TC tórax" not in orders and "US abdomen" not in orders
    assert client.get(f"/studies/{KNEE}").status_code == 200
    assert client.get(f"/studies/{KNEE}/report").status_code == 200
    for uid in (CHEST, OLD, FOREIGN):
        for path in (f"/studies/{uid}", f"/studies/{uid}/report", f"/studies/{uid}/images", f"/shares/new?study={uid}"):
            assert client.get(path).status_code == 404, path
    assert client.get(f"/orders/{hospital.order_ids['P1002']}").status_code == 200
    assert client.get(f"/orders/{hospital.order_ids['P1001']}").status_code == 404
    word = csrf(client.get("/account").text)
    for path in (f"/orders/{hospital.order_ids['P1001']}/state", f"/studies/{CHEST}/report", "/shares"):
        answer = client.post(path, data={"csrf_token": word, "state": "completed", "study": CHEST})
        assert answer.status_code in (403, 404), path


def test_who_sees_a_part_reaches_no_page_that_is_not_narrowed(hospital):
    narrowed(hospital, "administrator", modalities=["DX"])
    client = enter(hospital, "administrator")
    tried = 0
    for rule in hospital.app.url_map.iter_rules():
        if "GET" not in rule.methods or rule.arguments or rule.endpoint == "static":
            continue
        needed = application.permission_of(hospital.app, rule.endpoint)
        if needed in ("public", "signed-in") or not may("administrator", needed):
            continue
        expected = 200 if application.is_narrowed(hospital.app, rule.endpoint) else 403
        assert client.get(rule.rule, headers=HTML).status_code in (expected, 404 if expected == 200 else 403), rule.rule
        tried += expected == 403
    assert tried >= 4
    page = client.get("/").text
    assert 'href="/audit"' not in page and 'href="/users"' not in page and 'href="/emergency"' in page


def test_opening_a_study_of_ones_part_names_it_in_the_token_and_no_other(hospital):
    narrowed(hospital, "radiologist", modalities=["DX", "CR"])
    client = enter(hospital, "radiologist")
    assert (carried(hospital, client).narrow, carried(hospital, client).studies) == (True, ())
    assert f'href="/studies/{KNEE}/images"' in client.get("/studies").text
    answer = client.get(f"/studies/{KNEE}/images")
    assert answer.headers["Location"] == f"/viewer?StudyInstanceUIDs={KNEE}"
    assert carried(hospital, client).studies == (KNEE,)
    first = client.get_cookie(COOKIE).value
    client.get(f"/studies/{OLD}/images")
    assert set(carried(hospital, client).studies) == {KNEE, OLD}
    client.set_cookie(COOKIE, first)  # another tab comes with the cookie of before
    hospital.clock.pass_by(minutes=5)
    client.get("/session/renew")
    assert set(carried(hospital, client).studies) == {KNEE, OLD}


def test_a_wide_token_of_before_counts_no_more_once_the_account_is_narrow(hospital):
    client = hospital.signed_in("radiologist")
    assert client.get("/studies").status_code == 200
    with hospital.sessions.begin() as session:
        session.get(User, users.find(session, "radiologist").id).scope_modalities = "DX"
    assert client.get("/studies").status_code == 401


def test_a_site_is_what_its_devices_sent(hospital):
    with hospital.sessions.begin() as session:
        session.get(Study, (FOREIGN, "foreign")).sender = "US2"
    settings = hospital.settings.access.model_validate({"Sites": {"Beira": {"AETs": ["US2"]}}})
    parts = hospital.app.extensions["zambezi"]
    object.__setattr__(parts, "settings", parts.settings.model_copy(update={"access": settings}))
    narrowed(hospital, "radiologist", sites=["Beira"])
    client = enter(hospital, "radiologist")
    listed = client.get("/studies").text
    assert FOREIGN in listed and not any(uid in listed for uid in (CHEST, KNEE, OLD))


def test_a_referrer_sees_the_studies_of_own_orders(hospital):
    narrowed(hospital, "referrer", referrer="Tembe^Elias")
    client = enter(hospital, "referrer")
    page = client.get("/shared").text
    assert CHEST in page and KNEE not in page
    assert client.get(f"/studies/{CHEST}/report").status_code == 200
    assert client.get(f"/studies/{KNEE}/report").status_code == 404
    assert client.get(f"/studies/{CHEST}/images").status_code == 303
    assert carried(hospital, client).studies == (CHEST,)
    assert client.get(f"/studies/{KNEE}/images").status_code == 404
    assert "RX tórax PA" not in client.get("/shared?q=P1003").text


def test_in_an_emergency_a_study_opens_for_a_while_with_a_reason_that_somebody_reads(hospital):
    narrowed(hospital, "radiologist", modalities=["MR"])
    client = enter(hospital, "radiologist")
    assert 'href="/emergency"' in client.get("/studies").text
    word = csrf(client.get("/emergency").text)
    without = client.post("/emergency", data={"csrf_token": word, "number": "P1001", "reason": "please"})
    unknown = client.post("/emergency", data={"csrf_token": word, "number": "nobody", "reason": ""})
    assert (without.status_code, unknown.status_code) == (
        400,
        400,
    )  # the same, so that nothing is told without a reason
    assert "José António" not in without.text and entries(hospital, "glass-broken") == []
    before = client.get_cookie(COOKIE).value
    reason = "trauma, sala de emergência, médico de serviço"
    opened = client.post("/emergency", data={"csrf_token": word, "number": "P1001", "reason": reason})
    assert opened.status_code == 200 and f"/studies/{CHEST}/images" in opened.text
    stale = hospital.client()  # a tab whose cookie is of before: what it opens ends with the emergency, too
    for one in (client, stale):
        if one is stale:
            one.set_cookie(COOKIE, before)
        assert one.get(f"/studies/{CHEST}/images").headers["Location"] == f"/viewer?StudyInstanceUIDs={CHEST}"
        assert one.get(f"/studies/{KNEE}/images").status_code == 404
    token = carried(hospital, client)
    now_s = int(hospital.clock().timestamp())
    assert dict(token.until) == {CHEST: now_s + 3600, OLD: now_s + 3600}  # both are this patient's
    assert token.opens(CHEST, now_s + 3599) and not token.opens(CHEST, now_s + 3600) and not token.opens(KNEE, now_s)
    assert client.get(f"/studies/{CHEST}").status_code == 200
    assert client.get(f"/studies/{KNEE}").status_code == 404
    told = entries(hospital, "glass-broken")
    assert {(one["study_uid"], one["who"], one["reason"]) for one in told} == {
        (uid, "radiologist", reason) for uid in (CHEST, OLD)
    }
    with hospital.sessions.begin() as session:
        waiting = session.scalars(select(ExceptionItem).where(ExceptionItem.kind == "glass-broken")).all()
        assert {item.study_uid for item in waiting} == {CHEST, OLD}
        assert all(item.decided_at is None for item in waiting)
    page = hospital.signed_in("administrator").get("/exceptions?kind=glass-broken").text
    assert "radiologist" in page
    for _ in range(3):
        hospital.clock.pass_by(minutes=21)
        client.get("/session/renew")
    assert (carried(hospital, client).until, carried(hospital, client).studies) == ((), ())
    assert client.get(f"/studies/{CHEST}").status_code == 404


@pytest.mark.parametrize("role", ["reception", "migration-engineer"])
def test_who_may_not_break_glass_finds_no_such_page(hospital, role):
    assert hospital.signed_in(role).get("/emergency").status_code == 403


def test_the_administrator_gives_a_part_on_a_page_and_sign_ins_end(hospital):
    before = hospital.signed_in("radiologist")
    with hospital.sessions.begin() as session:
        user_id = users.find(session, "radiologist").id
    administrator = hospital.signed_in("administrator")
    page = administrator.get(f"/users/{user_id}/scope")
    assert page.status_code == 200
    data = {"csrf_token": csrf(page.text), "modality": ["CT", "MR"], "referrer": ""}
    assert administrator.post(f"/users/{user_id}/scope", data={**data, "site": "Nowhere"}).status_code == 400
    assert administrator.post(f"/users/{user_id}/scope", data=data).status_code == 303
    assert "CT, MR" in administrator.get("/users").text
    assert before.get("/studies").status_code == 401
    assert [one["modalities"] for one in entries(hospital, "user-changed") if one.get("change") == "scope"] == [
        "CT\\MR"
    ]
