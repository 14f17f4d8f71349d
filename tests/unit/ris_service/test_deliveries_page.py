"""The deliveries page: what is paused, why, and the button that goes on at once."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from gateway import commands
from operations import status
from operations.status_commands import lines
from tests.unit.ris_service.seeding import CHEST, HTML, Hospital, csrf, seeded
from zambezi import breakers, clock, outbox
from zambezi.config.settings import Zambezi
from zambezi.database.tables import AuditEntry, Breaker, CommitmentAsked, Delivery, Order, Pseudonym
from zambezi.retries import ErrorClass, Policy

RULE = breakers.Rule(1, Policy(timedelta(minutes=5), jitter=0))


@pytest.fixture
def paused(hospital: Hospital) -> Hospital:
    with hospital.sessions.begin() as session:
        now = hospital.clock()
        entry = breakers.enter(session, ["dicom:HARARE"], now=now, lasting=timedelta(minutes=1))
        assert entry is not None
        breakers.strike(
            session, entry, "dicom:HARARE", ErrorClass.TRANSIENT, "connection refused", RULE, now=now, draw=0,
            writer="gateway",
        )  # fmt: skip
    return hospital


def state(hospital: Hospital) -> str:
    with hospital.sessions.begin() as session:
        return session.get_one(Breaker, "dicom:HARARE").state


def test_the_page_says_who_is_paused_until_when_and_why(paused: Hospital):
    page = paused.signed_in("administrator").get("/deliveries", headers=HTML).text
    assert "HARARE está em pausa até" in page
    assert "ligação recusada" in page


def test_a_delivery_that_waits_for_its_destinations_hours_says_from_when_on(tmp_path: Path):
    settings = Zambezi.model_validate(
        {
            "Destinations": {"MAPUTO": {"Windows": [{"Days": [], "Holidays": "open all day"}]}},
            "Site": {"Holidays": ["12-25"]},
        }
    )
    page = seeded(tmp_path / "home", settings).signed_in("administrator").get("/deliveries", headers=HTML).text
    assert "fora do horário, até 25/12/" in page


def test_a_fetch_says_what_comes_from_where_and_what_became_of_each_study(hospital: Hospital):
    told = "OLDPACS has 1 earlier studies that are wanted; 1.2.3 came with 3 images"
    with hospital.sessions.begin() as session:
        now = hospital.clock()
        outbox.add(
            session, id="f" * 32, kind="fetch", rule="priors", destination="OLDPACS", because="it must", now=now,
            writer="gateway", study_uid=CHEST, body=b"{}",
        )  # fmt: skip
        row = session.get_one(Delivery, "f" * 32)
        row.acknowledged = ["1.2.3"]
    page = hospital.signed_in("administrator").get("/deliveries", headers=HTML).text
    assert "estudos anteriores, de OLDPACS" in page
    assert "1 de 0 confirmadas" not in page
    with hospital.sessions.begin() as session:
        row = session.get_one(Delivery, "f" * 32)
        row.state, row.proof, row.outcome = "delivered", "found", told
    page = hospital.signed_in("administrator").get("/deliveries?state=delivered", headers=HTML).text
    assert "OLDPACS tem 1 estudos anteriores que interessam; 1.2.3 veio com 3 imagens" in page
    links = page.count(f"/studies/{CHEST}")
    with hospital.sessions.begin() as session:  # fetched because an exam is ordered: there is no study yet
        order = session.scalars(select(Order.id)).first()
        session.get_one(Delivery, "f" * 32).order_id = order
    page = hospital.signed_in("administrator").get("/deliveries?state=delivered", headers=HTML).text
    assert f'href="/orders/{order}"' in page and page.count(f"/studies/{CHEST}") == links - 1
    assert "estudos anteriores, de OLDPACS" in hospital.signed_in("radiologist").get(f"/studies/{CHEST}").text


def test_a_delivery_says_how_far_it_has_come(hospital: Hospital):
    with hospital.sessions.begin() as session:
        now = hospital.clock()
        for id, proof in (("half", ""), ("sent", "asked")):
            outbox.add(
                session, id=id, kind="dicom", rule="r", destination="MAPUTO", because="it must", now=now, writer="test",
                study_uid="1.2.3", instances=[[f"{id}{n}", "1.2", f"1.2.{n}"] for n in range(4)],
            )  # fmt: skip
            row = session.get_one(Delivery, id)
            row.acknowledged, row.priority = ["1.2.0", "1.2.1", "1.2.2"], 5
            if proof:
                row.next_at = clock.text(now + timedelta(hours=1))
                session.add(
                    CommitmentAsked(
                        transaction_uid="2.25.1", delivery_id=id, aet="M", asked_at=clock.text(now), until=row.next_at
                    )
                )
    page = hospital.signed_in("administrator").get("/deliveries", headers=HTML).text
    assert "3 de 4 confirmadas até agora" in page
    assert "tudo foi enviado; espera-se o compromisso do destino, até" in page
    assert page.count("passa à frente") == 2
    with hospital.sessions.begin() as session:
        row = session.get_one(Delivery, "half")
        row.state, row.proof = "delivered", "acknowledged"
    delivered = hospital.signed_in("administrator").get("/deliveries?state=delivered", headers=HTML).text
    assert "só a sua palavra" in delivered


def test_a_person_who_may_goes_on_at_once_and_that_is_audited(paused: Hospital):
    client = paused.signed_in("administrator")
    page = client.get("/deliveries", headers=HTML).text
    answer = client.post("/deliveries/resume/dicom:HARARE", data={"csrf_token": csrf(page)})
    assert answer.status_code == 303
    assert state(paused) == "closed"
    with paused.sessions.begin() as session:
        said = session.scalars(
            select(AuditEntry).where(AuditEntry.event == "neighbour-changed").order_by(AuditEntry.seq)
        ).all()
    assert said[-1].who == "administrator"
    page = client.get(answer.location, headers=HTML).text
    assert "em pausa" not in page
    again = client.post("/deliveries/resume/dicom:HARARE", data={"csrf_token": csrf(page)})
    assert again.status_code == 409


def test_a_person_who_may_only_read_has_no_button_and_is_refused(paused: Hospital):
    client = paused.signed_in("radiologist")
    page = client.get("/", headers=HTML).text
    assert client.post("/deliveries/resume/dicom:HARARE", data={"csrf_token": csrf(page)}).status_code == 403
    assert state(paused) == "open"


def test_at_the_console_the_list_says_it_and_resume_ends_it(paused: Hospital, monkeypatch: pytest.MonkeyPatch):
    for name, value in paused.environment.variables().items():
        monkeypatch.setenv(name, value)
    listed = CliRunner().invoke(commands.route, ["list"])
    assert "! dicom:HARARE is paused until " in listed.output
    assert "because connection refused" in listed.output
    resumed = CliRunner().invoke(commands.route, ["resume", "HARARE"])
    assert (resumed.exit_code, resumed.output) == (0, "dicom:HARARE is asked again; 0 parked deliveries are due\n")
    assert state(paused) == "closed"
    assert CliRunner().invoke(commands.route, ["resume", "HARARE"]).exit_code == 1


def test_at_the_console_a_pseudonym_says_whom_it_stands_for_and_the_question_is_audited(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
):
    for name, value in hospital.environment.variables().items():
        monkeypatch.setenv(name, value)
    with hospital.sessions.begin() as session:
        at = clock.text(hospital.clock())
        session.add(Pseudonym(destination="UEM", pseudonym="ZABC", kind="patient", original="NID-1", made_at=at))
    told = CliRunner().invoke(commands.route, ["whose", "ZABC"])
    assert told.output == f"UEM: patient NID-1, first sent {at[:19]}Z\n"
    assert CliRunner().invoke(commands.route, ["whose", "Z"]).exit_code == 1
    with hospital.sessions.begin() as session:
        said = session.scalars(
            select(AuditEntry).where(AuditEntry.event == "pseudonym-read").order_by(AuditEntry.seq)
        ).all()
    assert [json.loads(entry.payload)["found"] for entry in said] == [1, 0]


def test_status_says_it_too_and_counts_what_dead_workers_left(paused: Hospital):
    found = status.look(paused.environment, paused.clock())
    assert len(found.paused) == 1
    assert "dicom:HARARE is paused" in "\n".join(lines(found))
    assert found.queues["deliveries abandoned by their workers"] == 0
