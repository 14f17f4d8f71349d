"""Devices: what is known of each, who is a stranger, and the page in both languages."""

from __future__ import annotations

import gzip
import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operations import modality_desk
from operations.echoing import Echo
from operations.modalities import Overview, Refusal, overview
from operations.modality_desk import Desk, NoSuchPeer
from ris_service.app import create_app
from tests.unit.ris_service.seeding import OURS, Hospital, seeded
from tests.unit.ris_service.test_pages import speak
from zambezi.config import safety
from zambezi.orthanc_client import OrthancUnreachable

PEERS: dict[str, Any] = {
    "CT1": {"AET": "CT1", "Host": "10.1.0.21", "Port": 104, "AllowMove": False, "AllowGet": False, "AllowFind": False},
    "US1": ["US", "10.1.0.22", 104],
}


def row(aet: str, ip: str, sign: str, minute: int, **more: Any) -> dict[str, Any]:
    at = f"2026-03-01T08:{minute:02d}:00.000000Z"
    return {"aet": aet, "ip": ip, "sign": sign, "at": at, "called_aet": "", "reason": "", "count": 1, **more}


ROWS = [
    row("CT1", "10.1.0.21", "echo", 1), row("CT1", "10.1.0.21", "echo", 5), row("CT1", "10.1.0.21", "image", 3),
    row("CT1", "", "refused", 4, reason="it has no Patient ID"),
    row("CT1", "10.1.0.99", "refused", 7, reason="the AE title belongs to another address", count=3),
    row("CT1", "10.1.0.99", "refused", 6, reason="the AE title is unknown", count=2),
    row("NEW <b>1", "10.1.0.40", "refused", 9, reason="the AE title is unknown", called_aet="ZAMBEZI", count=12),
    row("US", "10.1.0.22", "refused", 2, reason="C-MOVE is not allowed for it"),
]  # fmt: skip


def found() -> Overview:
    return overview(safety.modalities({"DicomModalities": PEERS}), PEERS, ROWS, ["the database could not be asked"])


def test_signs_belong_to_the_address_and_the_latest_counts():
    ct, us = found().known
    assert ct.signs == {"echo": "2026-03-01T08:05:00.000000Z", "image": "2026-03-01T08:03:00.000000Z"}
    assert ct.last == ct.signs["echo"] and us.last == ""
    assert ct.allowed == ("echo", "store", "worklist") and len(us.allowed) == 6
    assert ct.refusal and ct.refusal.reason == "it has no Patient ID"
    assert us.refusal and us.refusal.reason == "C-MOVE is not allowed for it"


def test_strangers_are_those_in_no_list_the_latest_first_whichever_door_they_knocked_at():
    new, moved = found().strangers
    assert (new.name, new.called_aet, new.count) == ("NEW-b-1", "ZAMBEZI", 12)
    assert moved == Refusal(
        "CT1", "10.1.0.99", "", "the AE title belongs to another address", "2026-03-01T08:07:00.000000Z", 5
    )
    assert len(overview({}, {}, [row(f"S{n}", "10.9.9.9", "refused", 1) for n in range(99)]).strangers) == 50


@pytest.fixture
def hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    """A seeded hospital with the page of devices, over a desk that knows PEERS and ROWS."""

    def echo(_desk: Desk, name: str) -> Echo:
        if name == "AWAY":
            raise OrthancUnreachable("nobody answers")
        if name not in PEERS:
            raise NoSuchPeer(name)
        return Echo(name == "CT1", "" if name == "CT1" else "connection refused by US")

    monkeypatch.setattr(Desk, "look", lambda _: found())
    monkeypatch.setattr(Desk, "echo", echo)
    made = seeded(tmp_path / "home")
    pages = (*OURS, "operations.modality_pages:pages")
    return replace(made, app=create_app(made.environment, made.settings, made.sessions, made.keys, made.clock, pages))


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("pt", ("Equipamentos", "Último eco dele", "o AE title é desconhecido", "Acrescentar este", "enviar imagens")),
        ("en", ("Devices", "Its last echo", "the AE title is unknown", "Add this one", "send images")),
    ],
)
def test_the_page_shows_devices_and_strangers_in_both_languages(
    hospital: Hospital, language: str, words: tuple[str, ...]
):
    speak(hospital, "administrator", language)
    answer = hospital.signed_in("administrator").get("/modalities")
    text = html.unescape(answer.text)
    assert [word for word in words if word not in text] == []
    assert "the database could not be asked" in text
    assert "NEW &lt;b&gt;1" in answer.text, "what a stranger calls itself is text"
    assert len(gzip.compress(answer.data)) < 20_000


def test_an_echo_is_shown_as_it_was_answered_and_asked_by_those_alone_who_may(hospital: Hospital):
    speak(hospital, "administrator", "en")
    person = hospital.signed_in("administrator")
    form = {"csrf_token": re.search(r'name="csrf-token" content="([^"]+)"', person.get("/modalities").text)[1]}  # type: ignore[index]  # it is there
    assert "CT1 answers our echo." in person.post("/modalities/CT1/echo", data=form).text
    assert "connection refused by US" in person.post("/modalities/US1/echo", data=form).text
    assert person.post("/modalities/AWAY/echo", data=form).status_code == 502
    assert person.post("/modalities/NOBODY/echo", data=form).status_code == 404
    assert person.post("/modalities/..%2f..%2ftools/echo", data=form).status_code == 404
    radiographer = hospital.signed_in("radiographer")
    page = radiographer.get("/modalities")
    assert page.status_code == 200 and "Add this one" not in page.text and "Acrescentar este" not in page.text
    token = {"csrf_token": re.search(r'name="csrf-token" content="([^"]+)"', page.text)[1]}  # type: ignore[index]  # it is there
    assert radiographer.post("/modalities/CT1/echo", data=token).status_code == 403
    assert radiographer.get("/modalities/new").status_code == 403
    assert hospital.signed_in("reception").get("/modalities").status_code == 403


def test_add_this_one_says_what_to_write_and_the_command_whatever_the_stranger_calls_itself(hospital: Hospital):
    speak(hospital, "administrator", "en")
    person = hospital.signed_in("administrator")
    asked = {"name": "NEW1", "aet": "NEW 'x' $(id)", "host": "10.1.0.40", "port": "104", "allow": ["store"]}
    text = html.unescape(person.get("/modalities/new", query_string=asked).text)
    assert """zambezi modalities add NEW1 'NEW '"'"'x'"'"' $(id)' 10.1.0.40 104 --allow store""" in text
    shown = re.search(r"<pre><code>(.*?)</code></pre>", text, re.DOTALL)
    assert shown and json.loads("{" + shown[1] + "}")["NEW1"] == {
        "AET": "NEW 'x' $(id)", "Host": "10.1.0.40", "Port": 104, "AllowEcho": False, "AllowStore": True,
        "AllowFindWorklist": False, "AllowFind": False, "AllowMove": False, "AllowGet": False,
    }  # fmt: skip
    moved = person.get("/modalities/new", query_string={"name": "CT1", "aet": "CT1", "host": "10.1.0.99", "port": "0"})
    text = html.unescape(moved.text)
    assert "belongs to CT1 at 10.1.0.21" in text and "is there already" in text and "The port:" in text
    assert "<pre>" not in text


def test_the_desk_says_what_it_could_not_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = seeded(tmp_path / "home")

    def away(*_: Any, **__: Any) -> Any:
        raise OrthancUnreachable("GET /zambezi/callers: nobody listens")

    monkeypatch.setattr(modality_desk.OrthancClient, "get", away)
    answer = Desk(made.environment, made.keys, made.sessions).look()
    assert any("nobody listens" in one for one in answer.trouble)
