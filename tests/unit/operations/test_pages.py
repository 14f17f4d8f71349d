"""The health page: what waits and whether persons are reached, in both languages."""

from __future__ import annotations

import gzip
import html
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from operations import condition_file, encryption
from operations.conditions import Condition, Going
from ris_service.app import create_app
from tests.unit.ris_service.seeding import OURS, seeded
from tests.unit.ris_service.test_pages import speak
from zambezi import clock, disk, exceptions
from zambezi.database.tables import AlertChannel
from zambezi.disk import GIGABYTE, Volume


@pytest.mark.parametrize(
    ("language", "words"),
    [
        (
            "pt",
            (
                "Imagens em conflito",
                "a mais antiga: 3 dias",
                "por correio electrónico",
                "falha",
                "Discos",
                "GB livres",
                "recusam-se imagens",
                "imagens, índice",
                "Um equipamento está calado",
                "US1 nada enviou",
                "Cifra em repouso",
                "não cifrado",
                "os alertas por mail falham desde",
                "não responde: GET /zambezi/status: nenhum dos 2 nós responde",
                "não faz o seu trabalho (não dá sinal de vida)",
            ),
        ),
        (
            "en",
            (
                "Conflicting images",
                "the oldest: 3 days",
                "by e-mail",
                "fails",
                "Disks",
                "GB free",
                "images are refused",
                "images, index",
                "A modality is silent",
                "US1 sent nothing",
                "Encryption at rest",
                "not encrypted",
                "alerts by mail fail since",
                "does not answer: GET /zambezi/status: none of 2 nodes answers",
                "does not do its work (silent)",
            ),
        ),
    ],
)
def test_the_health_page_counts_what_waits_and_says_which_channel_fails(
    tmp_path: Path, language: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    full = Volume(("images", "index"), 100 * GIGABYTE, 3 * GIGABYTE // 2)
    monkeypatch.setattr(disk, "measure", lambda _: [full])
    monkeypatch.setattr(encryption, "look", lambda _: [encryption.Found("data", "/srv/z", "plain", "sda1")])
    made = seeded(tmp_path / "home")
    with made.sessions.begin() as session:
        for days in (1, 3):
            at = made.clock() - timedelta(days=days)
            exceptions.wait(session, "hold", str(days), what="", suggestion="", now=at, kind="conflict")
        at = clock.text(made.clock())
        session.add(AlertChannel(name="mail", digest_day="", failures=1, error="it is away", error_since=at))
        session.add(AlertChannel(name="webhook", digest_day="", failures=0, error="", sent_at=at))
    silent = Condition("modality", "US1", "modality-silent", {"source": "US1", "last": "2026-03-01 08:30"})
    away = Condition("archive", "orthanc", "archive-away", {"reason": "GET /zambezi/status: none of 2 nodes answers"})
    dead = Condition("process", "gateway", "process-dead", {"source": "gateway", "state": "silent"})
    since = clock.text(made.clock() - timedelta(hours=1))
    going = {one.key: Going(one, since) for one in (silent, away, dead)}
    condition_file.save(condition_file.path(made.environment), condition_file.Memory(going))
    app = create_app(
        made.environment, made.settings, made.sessions, made.keys, made.clock, (*OURS, "operations.pages:pages")
    )
    speak(made, "administrator", language)
    answer = replace(made, app=app).signed_in("administrator").get("/health")
    page = html.unescape(answer.text)
    assert [word for word in words if word not in page] == []
    assert "it is away" in page
    assert "/exceptions?room=hold&kind=conflict" in page
    assert page.count("<svg role=") == 1, "a bar for each volume"
    assert len(gzip.compress(answer.data)) < 20_000
