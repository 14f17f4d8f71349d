"""The worklist: what is found, in which order, and what is done to an order by hand."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import func, select

from tests.unit.ris_service.seeding import Hospital, csrf
from zambezi import audit, orders, searching
from zambezi.database import generations
from zambezi.database.tables import Delivery, ExceptionItem, Order, Patient


def names(page: str) -> list[str]:
    return re.findall(r'class="row" href="[^"]+">([^<]+)</a>', page)


def test_the_day_is_listed_by_urgency_then_time_with_finished_work_last(hospital):
    page = hospital.signed_in("radiographer").get("/").text
    assert names(page) == [
        "Conceição, José António", "Chiweshe, Tatenda", "Mutasa, Rumbidzai", "Guambe, Celeste",
        "Machava, Lurdes", "Nhaca, Arlindo",
    ]  # fmt: skip


@pytest.mark.parametrize("query", ["conceicao", "CONCEIÇÃO jose", "jos conc", "P1001", "1001", "torax contraste"])
def test_a_patient_is_found_without_accents_in_any_order_and_by_number(hospital, query):
    page = hospital.signed_in("radiographer").get("/", query_string={"q": query}).text
    assert names(page) == ["Conceição, José António"]


def test_what_the_filters_hide_is_said_and_shown_by_one_click(hospital):
    client = hospital.signed_in("radiographer")
    page = client.get("/?q=sithole").text
    assert names(page) == []
    assert "Os filtros escondem 1 pedido." in page
    assert names(client.get("/?q=sithole&amp;day=all".replace("&amp;", "&")).text) == ["Sithole, Nyasha"]
    assert names(client.get("/?day=tomorrow").text) == ["Sithole, Nyasha"]


def test_the_reading_list_holds_exams_with_images_and_no_signed_report(hospital):
    assert names(hospital.signed_in("radiologist").get("/?state=unreported").text) == ["Conceição, José António"]


def test_times_are_those_of_the_site(hospital):
    assert "09:50" in hospital.signed_in("radiographer").get("/").text  # 07:50 UTC, Maputo is two hours ahead


def test_images_are_linked_only_where_there_are_any(hospital):
    client = hospital.signed_in("radiographer")
    with_images, without = hospital.order_ids["P1001"], hospital.order_ids["P1004"]
    assert "/viewer?StudyInstanceUIDs=1.2.3.1" in client.get(f"/orders/{with_images}").text
    assert "/viewer" not in client.get(f"/orders/{without}").text


def change(client, order_id: int, form: dict[str, str], what: str = "state"):
    word = csrf(client.get(f"/orders/{order_id}").text)
    return client.post(f"/orders/{order_id}/{what}", data={"csrf_token": word, **form})


def status(hospital: Hospital, order_id: int) -> str:
    with hospital.sessions.begin() as session:
        return session.get(Order, order_id).status


def test_an_exam_is_led_through_its_states_by_hand(hospital):
    client, order_id = hospital.signed_in("radiographer"), hospital.order_ids["P1004"]
    for state in ("arrived", "in-progress", "discontinued", "in-progress", "completed"):
        assert change(client, order_id, {"state": state}).status_code == 303
        assert status(hospital, order_id) == state
    assert change(client, order_id, {"state": "scheduled"}).status_code == 409
    assert status(hospital, order_id) == "completed"


def test_an_order_is_cancelled_with_a_reason_and_not_once_the_exam_has_begun(hospital):
    client, order_id = hospital.signed_in("reception"), hospital.order_ids["P1005"]
    assert change(client, order_id, {"reason": " "}, "cancel").status_code == 400
    assert change(client, order_id, {"reason": "Gravidez"}, "cancel").status_code == 303
    assert status(hospital, order_id) == "cancelled"
    assert change(client, hospital.order_ids["P1001"], {"reason": "Gravidez"}, "cancel").status_code == 409
    trail = hospital.signed_in("administrator").get("/audit?event=order-changed&who=reception").text
    assert "Gravidez" in trail


NEW = {"patient_id": "N1", "family_name": "Uamusse", "given_name": "Inês", "birth_date": "1990-05-01", "sex": "F",
       "modality": "US", "procedure_text": "US obstétrica", "scheduled_at": "2026-03-02T14:00",
       "priority": "HIGH"}  # fmt: skip


def place(client, **changed):
    word = csrf(client.get("/orders/new?patient_id=N1").text)
    return client.post("/orders", data={**NEW, "csrf_token": word, **changed})


def count(hospital: Hospital) -> int:
    with hospital.sessions.begin() as session:
        return session.scalar(select(func.count()).select_from(Order))


def test_an_order_by_hand_reaches_the_worklist_at_the_sites_time(hospital):
    with hospital.sessions.begin() as session:
        before = generations.current(session, "worklist")
    answer = place(hospital.signed_in("reception"))
    assert answer.status_code == 303
    with hospital.sessions.begin() as session:
        placed = session.scalars(select(Order).order_by(Order.id.desc())).first()
        assert (placed.scheduled_at, placed.priority, placed.source) == ("2026-03-02T12:00:00.000000Z", "HIGH", "ris")
        assert placed.patient.birth_date == "19900501"
        assert generations.current(session, "worklist") > before
        assert audit.verify(session) == []


@pytest.mark.parametrize(
    "changed",
    [{"patient_id": ""}, {"family_name": ""}, {"modality": "??"}, {"procedure_text": " "}, {"scheduled_at": "soon"},
     {"birth_date": "2090-01-01"}, {"birth_date": "1.5.1990"}, {"patient_id": "x" * 65}, {"priority": "NOW"}],
)  # fmt: skip
def test_an_order_that_lacks_something_says_so_and_keeps_what_was_typed(hospital, changed):
    before = count(hospital)
    answer = place(hospital.signed_in("reception"), **changed)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert count(hospital) == before


def test_an_id_of_somebody_else_is_not_taken(hospital):
    answer = place(hospital.signed_in("reception"), patient_id="P1001")
    assert answer.status_code == 400
    assert "Este número pertence a outro nome" in answer.text


def test_a_known_patient_is_not_changed_by_an_order(hospital):
    answer = place(
        hospital.signed_in("reception"), patient_id="P1001", family_name="Conceicao", given_name="José", sex="F"
    )
    assert answer.status_code == 303
    with hospital.sessions.begin() as session:
        known = orders.find_patient(session, "P1001", hospital.settings.site.issuer)
        assert (known.family_name, known.sex) == ("Conceição", "M")


def test_a_patient_who_may_be_registered_already_is_asked_about_first(hospital):
    client = hospital.signed_in("reception")
    twin = {"family_name": "Conceicao", "given_name": "Jose Antonio", "birth_date": "1958-04-12"}
    answer = place(client, **twin)
    assert answer.status_code == 400
    assert "Já está registado alguém parecido" in answer.text and "P1001" in answer.text
    assert place(client, **twin, is_another="1").status_code == 303
    with hospital.sessions.begin() as session:
        assert session.scalar(select(func.count()).select_from(Patient).where(Patient.patient_id == "N1")) == 1


def test_who_might_be_the_same_person():
    ana = ("Conceição", "Ana Maria", "19800102")
    assert searching.same_person(ana, ("CONCEICAO", "Maria Ana", "19800102"))
    assert searching.same_person(ana, ("Ana Maria", "Conceição", None))
    assert searching.same_person(ana, ("Conceição", "Ana Maria", "19800201"))  # day and month swapped
    assert not searching.same_person(ana, ("Conceição", "Ana Maria", "19750505"))
    assert not searching.same_person(ana, ("Machava", "Rui", "19800102"))


def test_a_parked_delivery_is_tried_again_or_cancelled_by_those_who_manage(hospital):
    admin, parked = hospital.signed_in("administrator"), f"{1:032}"
    word = csrf(admin.get("/deliveries").text)
    assert admin.post(f"/deliveries/{parked}/retry", data={"csrf_token": word}).status_code == 303
    with hospital.sessions.begin() as session:
        assert session.get(Delivery, parked).state == "due"
        settled = session.scalars(select(ExceptionItem).where(ExceptionItem.reference == parked)).one()
        assert settled.decided_by == "administrator"
    assert admin.post(f"/deliveries/{parked}/cancel", data={"csrf_token": word}).status_code == 303
    assert admin.post(f"/deliveries/{0:032}/cancel", data={"csrf_token": word}).status_code == 409
    assert admin.post("/deliveries/unknown/retry", data={"csrf_token": word}).status_code == 409


def test_an_exception_is_decided_once_by_one_person(hospital):
    admin = hospital.signed_in("administrator")
    word = csrf(admin.get("/exceptions").text)
    with hospital.sessions.begin() as session:
        item = session.scalars(select(ExceptionItem).where(ExceptionItem.room == "mpps")).one().id
    form = {"csrf_token": word, "decision": "Exame de ensaio."}
    assert admin.post(f"/exceptions/{item}/decide", data={"csrf_token": word}).status_code == 400
    assert admin.post(f"/exceptions/{item}/decide", data=form).status_code == 303
    assert admin.post(f"/exceptions/{item}/decide", data=form).status_code == 409
    assert "Exame de ensaio." in admin.get("/exceptions?show=decided").text


def test_markup_in_what_others_wrote_stays_text(hospital):
    with hospital.sessions.begin() as session:
        session.get(Order, hospital.order_ids["P1001"]).procedure_text = "<script>alert(1)</script>"
    page = hospital.signed_in("radiologist").get("/").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
