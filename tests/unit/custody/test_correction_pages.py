"""The pages of corrections in the RIS's application, with a seeded hospital."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from demo.neighbours import free_port
from ris_service.app import create_app
from tests.unit.custody.fake_archive import Archive
from tests.unit.ris_service import seeding
from tests.unit.ris_service.seeding import CHEST, KNEE, OLD, OURS, Hospital, csrf
from zambezi import clock, hold, orders, patients
from zambezi.database.tables import Correction, CorrectionItem, Delivery, Order, Patient, Series, Study
from zambezi.environment import Environment

SETS = (*OURS, "operations.custody.correction_pages:pages")


@pytest.fixture(scope="module")
def archive() -> Archive:
    return Archive()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, archive: Archive) -> Hospital:
    made = seeding.seeded(tmp_path_factory.mktemp("original") / "home")
    archive.filled(made.sessions)
    return made


@pytest.fixture
def hospital(tmp_path: Path, original: Hospital, archive: Archive) -> Iterator[Hospital]:
    made = seeding.copied(tmp_path / "home", original)
    port = free_port()
    environ = {"ZAMBEZI_HOME": str(tmp_path / "home"), "ZAMBEZI_ORTHANC_HTTP_PORT": str(port)}
    made.environment = Environment.read(environ)
    made.app = create_app(made.environment, made.settings, made.sessions, made.keys, made.clock, SETS)
    archive.is_away = False
    with archive.serving(port):
        yield made


@pytest.fixture
def client(hospital: Hospital) -> FlaskClient:
    made = hospital.signed_in("pacs-administrator")
    made.get("/")
    return made


def said(answer) -> str:
    """The words of a page, without its tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.get_data(as_text=True))).split())


def post(client: FlaskClient, path: str, **fields):
    token = csrf(client.get("/?lang=en").get_data(as_text=True))
    return client.post(path, data={"csrf_token": token, **fields})


def place(hospital: Hospital, uid: str) -> str:
    with hospital.sessions.begin() as session:
        study = session.scalars(select(Study).where(Study.study_uid == uid)).one()
        return f"{uid}|{study.orthanc_id}"


def new(hospital: Hospital, uid: str, kind: str = "", **more: str) -> str:
    study, orthanc = place(hospital, uid).split("|")
    query = "&".join(f"{name}={value}" for name, value in {"kind": kind, **more}.items() if value)
    return f"/corrections/new?study={study}&orthanc={orthanc}&{query}"


def asked(hospital: Hospital) -> list[Correction]:
    with hospital.sessions.begin() as session:
        return list(session.scalars(select(Correction).order_by(Correction.id)))


def patient_key(hospital: Hospital, patient_id: str) -> int:
    with hospital.sessions.begin() as session:
        return session.scalars(select(Patient.id).where(Patient.patient_id == patient_id)).one()


@pytest.mark.parametrize("role", ["radiologist", "radiographer", "reception", "referrer", "migration-engineer"])
def test_who_may_not_correct_sees_neither_pages_nor_links(hospital, role):
    client = hospital.signed_in(role)
    for path in ("/corrections", "/corrections/1", new(hospital, CHEST)):
        assert client.get(path, headers=seeding.HTML).status_code == 403
    assert "/corrections" not in client.get(f"/studies/{CHEST}").get_data(as_text=True)


def test_study_and_order_lead_to_their_correction(hospital, client):
    link = html.escape(new(hospital, CHEST).rstrip("&"))
    assert link in client.get(f"/studies/{CHEST}").get_data(as_text=True)
    assert link in client.get(f"/orders/{hospital.order_ids['P1001']}").get_data(as_text=True)
    page = client.get(new(hospital, CHEST)).get_data(as_text=True)
    assert all(f"kind={kind}" in html.unescape(page) for kind in ("reassign", "edit", "move", "split", "merge"))


def test_a_study_goes_to_another_order_after_its_preview(hospital, client):
    with hospital.sessions.begin() as session:
        for delivery in session.scalars(select(Delivery).where(Delivery.state == "delivered")):
            delivery.instances = [["o", f"{CHEST}.1", f"{CHEST}.1.1"]]
            receiver = delivery.destination
    page = client.get(new(hospital, CHEST, "reassign", q="guambe")).get_data(as_text=True)
    order = hospital.order_ids["P1005"]
    assert f'value="order:{order}"' in page
    assert "P1002" not in page
    fields = {"kind": "reassign", "studies": place(hospital, CHEST), "to": f"order:{order}"}
    preview = post(client, "/corrections/preview", **fields)
    words = said(preview)
    assert "P1001 P1005 2" in words
    assert "Conceição^José António Guambe^Celeste 2" in words
    assert f"{receiver} (1)" in words
    assert asked(hospital) == []
    kept = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', preview.get_data(as_text=True)))
    assert {name: kept[name] for name in fields} == fields
    assert post(client, "/corrections", **fields).status_code == 400  # no reason
    answer = post(client, "/corrections", **fields, reason="linha errada da lista")
    (made,) = asked(hospital)
    assert answer.location == f"/corrections/{made.id}"
    assert (made.kind, made.asked_by, made.reason) == ("reassign", "pacs-administrator", "linha errada da lista")
    assert (made.request["order"], made.request["set"]["00100020"]) == (order, "P1005")


def test_with_the_archive_away_the_form_stays_as_it_was_filled_in(hospital, client, archive):
    archive.is_away = True
    order = f"order:{hospital.order_ids['P1005']}"
    fields = {"kind": "reassign", "studies": place(hospital, CHEST), "to": order, "q": "guambe"}
    answer = post(client, "/corrections/preview", **fields)
    assert (answer.status_code, "O arquivo não responde" in said(answer)) == (400, True)
    assert f'value="{order}" required checked' in answer.get_data(as_text=True)


def test_only_what_was_changed_in_the_fields_is_set(hospital, client):
    form = client.get(new(hospital, KNEE, "edit")).get_data(as_text=True)
    fields = {tag: html.unescape(value) for tag, value in re.findall(r'name="(tag-\w+)" value="([^"]*)"', form)}
    assert fields["tag-00100030"] == "1991-07-03"
    fields |= {"tag-00100040": "F", "kind": "edit", "studies": place(hospital, KNEE)}
    assert "Ainda não mudou nada" in said(post(client, "/corrections/preview", **fields))
    fields |= {"tag-00100030": "1991-07-04", "tag-00100010": "Machava^Lurdes^Ana", "other": "0008103E",
               "other-value": "Joelho"}  # fmt: skip
    post(client, "/corrections", **fields, reason="erro de escrita")
    (made,) = asked(hospital)
    assert made.request["set"] == {"00100030": "19910704", "00100010": "Machava^Lurdes^Ana", "0008103E": "Joelho"}
    wrong = post(client, "/corrections/preview", **(fields | {"other": "00080060", "tag-00100030": "ontem"}))
    assert wrong.status_code == 400
    assert "PatientBirthDate" in said(wrong)


def test_series_move_to_a_new_study_that_is_named_once(hospital, client):
    with hospital.sessions.begin() as session:
        one = session.scalars(select(Series).where(Series.study_uid == CHEST).limit(1)).one()
    fields = {"kind": "move", "studies": place(hospital, CHEST), "series": f"{one.series_uid}|{one.orthanc_id}"}
    assert post(client, "/corrections/preview", **fields).status_code == 400
    fields["target"] = "new"
    preview = post(client, "/corrections/preview", **fields).get_data(as_text=True)
    fields["new-uid"] = re.search(r'name="new-uid" value="(2\.25\.\d+)"', preview).group(1)
    post(client, "/corrections", **fields, reason="dois exames num só")
    (made,) = asked(hospital)
    assert made.request["set"]["0020000D"] == fields["new-uid"]
    assert made.request["series"] == [{"series_uid": one.series_uid, "orthanc_id": one.orthanc_id}]


def test_several_studies_are_parted_from_a_patient(hospital, client):
    page = client.get(new(hospital, CHEST, "split", q="mutasa")).get_data(as_text=True)
    assert place(hospital, OLD) in page
    fields = {"kind": "split", "studies": place(hospital, OLD), "to": f"patient:{patient_key(hospital, 'P1004')}"}
    post(client, "/corrections", **fields, reason="duas pessoas com o mesmo número")
    (made,) = asked(hospital)
    assert [study["study_uid"] for study in made.request["studies"]] == [OLD]


def test_patients_are_merged_found_by_both_numbers_and_parted_again(hospital, client):
    page = client.get(new(hospital, CHEST, "merge", q="mutasa")).get_data(as_text=True)
    prior, survivor = patient_key(hospital, "P1001"), patient_key(hospital, "P1004")
    assert f'name="prior" value="{prior}" required checked' in page
    fields = {"kind": "merge", "prior": str(prior), "survivor": str(survivor), "studies": place(hospital, CHEST)}
    assert post(client, "/corrections/preview", **(fields | {"survivor": str(prior)})).status_code == 400
    assert "P1001 P1004" in said(post(client, "/corrections/preview", **fields))
    post(client, "/corrections", **fields, reason="registada duas vezes")
    (made,) = asked(hospital)
    order = hospital.order_ids["P1001"]
    assert "P1001" in said(client.get(f"/orders/{order}"))
    assert "Mutasa, Rumbidzai" in said(client.get("/?day=all&q=p1001"))
    assert "Antes conhecido por P1001" in said(client.get("/?day=all&q=p1001"))
    assert "Antes conhecido por P1001" in said(client.get("/studies?q=p1001"))
    assert "patient ID differs" not in said(client.get("/studies?lang=en"))
    assert post(client, f"/corrections/{made.id}/undo", reason="").status_code == 400
    post(client, f"/corrections/{made.id}/undo", reason="são duas pessoas")
    with hospital.sessions.begin() as session:
        assert session.get_one(Patient, prior).merged_into is None
        assert session.get_one(Order, order).patient_key == prior
        assert session.get_one(Correction, made.id).state == "cancelled"


def done(hospital: Hospital, number: int, old: bytes) -> None:
    sha256 = hold.put(hospital.environment.hold_dir, old)
    with hospital.sessions.begin() as session:
        made = session.get_one(Correction, number)
        made.state, made.done_at = "done", clock.text(hospital.clock())
        session.add(
            CorrectionItem(
                correction_id=number, old_orthanc_id="o", sop_uid="1.2.3.9",
                old_sha256=sha256, old_study_uid=CHEST, state="done",
                old_series_uid="1", new_study_uid=CHEST, new_series_uid="1", new_orthanc_id="n", new_sha256="0",
            )
        )  # fmt: skip


def test_a_correction_under_way_follows_itself_and_a_done_one_can_be_taken_back_once(hospital, client, archive):
    fields = {"kind": "reassign", "studies": place(hospital, CHEST), "to": f"order:{hospital.order_ids['P1005']}"}
    post(client, "/corrections", **fields, reason="troca")
    (made,) = asked(hospital)
    under_way = client.get(f"/corrections/{made.id}")
    assert under_way.headers["Refresh"] == "5"
    assert "/undo" not in under_way.get_data(as_text=True)
    old = next(content for path, content in archive.files.items() if f"{CHEST}.1.1".encode() in content)
    done(hospital, made.id, old)
    finished = client.get(f"/corrections/{made.id}")
    assert "(0010,0010) Conceição^José António Guambe^Celeste" in said(finished)
    assert "(0010,0030) 12/04/1958 14/02/1966" in said(finished)
    assert "Refresh" not in finished.headers
    assert "1 de 1" in said(finished)
    assert "1 de 1" in said(client.get("/corrections"))
    post(client, f"/corrections/{made.id}/undo", reason="afinal estava certo")
    undo = asked(hospital)[1]
    assert (undo.kind, undo.undo_of, undo.reason) == ("undo", made.id, "afinal estava certo")
    again = post(client, f"/corrections/{made.id}/undo", reason="outra vez")
    assert (again.status_code, len(asked(hospital))) == (409, 2)


def test_what_was_not_begun_can_be_called_off(hospital, client):
    fields = {"kind": "reassign", "studies": place(hospital, CHEST), "to": f"order:{hospital.order_ids['P1005']}"}
    post(client, "/corrections", **fields, reason="troca")
    (made,) = asked(hospital)
    post(client, f"/corrections/{made.id}/cancel")
    assert asked(hospital)[0].state == "cancelled"
    assert post(client, f"/corrections/{made.id}/cancel").status_code == 409


def test_a_refused_merge_leaves_nothing_behind(hospital, client):
    with hospital.sessions.begin() as session:
        odd = orders.register_patient(
            session, patient_id="A\\B", issuer=hospital.settings.site.issuer, family_name="Odd",
            now=hospital.clock(), writer="ris",
        )  # fmt: skip
        survivor = odd.id
    prior = patient_key(hospital, "P1001")
    answer = post(client, "/corrections", kind="merge", prior=prior, survivor=survivor, reason="x",
                  studies=place(hospital, CHEST))  # fmt: skip
    assert answer.status_code == 400
    with hospital.sessions.begin() as session:
        assert session.get_one(Patient, prior).merged_into is None
        assert session.get_one(Order, hospital.order_ids["P1001"]).patient_key == prior


def test_the_pages_are_small_enough_for_a_slow_line(hospital, client):
    keys = [patient_key(hospital, number) for number in ("P1001", "P1002")]
    with hospital.sessions.begin() as session:
        prior, survivor = (session.get_one(Patient, key) for key in keys)
        patients.merge(session, prior=prior, survivor=survivor, now=hospital.clock(), writer="ris", who="his")
    forms = [new(hospital, CHEST, "reassign", q="a"), new(hospital, CHEST, "edit")]
    for path in ("/corrections", "/corrections/1", *forms):
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert len(answer.data) < 40_000
