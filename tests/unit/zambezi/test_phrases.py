"""Reasons in Portuguese: by sentences with facts, one in another, several behind one another."""

from __future__ import annotations

import time

import pytest

from zambezi.phrases import Phrases

SAID = {
    "the archive: {0}": "o arquivo: {0}",
    "{0} instances did not arrive": "{0} instâncias não chegaram",
    "{0} could not be fetched again": "{0} não se conseguiram recolher de novo",
    "{0} of {1} instances don't go to {2}": "em {2} não entram {0} de {1} instâncias",
    "no connection with {0}: {1}": "sem ligação com {0}: {1}",
    "the window has closed": "o horário fechou",
    "{0} GB of {1} GB are free": "estão livres {0} GB de {1} GB",
    "{0}: try again{1}": "{0}: tentar de novo{1}",
}


@pytest.mark.parametrize(
    ("english", "portuguese"),
    [
        ("the window has closed", "o horário fechou"),
        ("12 instances did not arrive", "12 instâncias não chegaram"),
        ("3 of 40 instances don't go to PACS", "em PACS não entram 3 de 40 instâncias"),
        ("the archive: the window has closed", "o arquivo: o horário fechou"),
        ("1 instances did not arrive (the archive: disk full; the window has closed)",
         "1 instâncias não chegaram (o arquivo: disk full; o horário fechou)"),
        ("no connection with PACS at 10.0.0.1:104: the window has closed",
         "sem ligação com PACS at 10.0.0.1:104: o horário fechou"),
        ("the archive: images: 1 GB of 9 GB are free", "o arquivo: images: estão livres 1 GB de 9 GB"),
        ("the window has closed\nx: 3 instances did not arrive", "o horário fechou\nx: 3 instâncias não chegaram"),
        ("ana: try again", "ana: tentar de novo"),
        ("ana: try again: estava desligado", "ana: tentar de novo: estava desligado"),
        ("2.25.7: 2 could not be fetched again, the window has closed",
         "2.25.7: 2 não se conseguiram recolher de novo, o horário fechou"),
    ],
)  # fmt: skip
def test_a_reason_is_said_in_portuguese_with_its_facts(english: str, portuguese: str) -> None:
    assert Phrases(SAID).said(english) == portuguese


@pytest.mark.parametrize("unknown", ["", "Peer aborted (or never connected)", "o horário fechou", "12", "("])
def test_what_no_sentence_fits_is_left_to_be_marked_as_it_is(unknown: str) -> None:
    assert Phrases(SAID).said(unknown) is None


def test_a_fact_that_looks_like_a_field_stays_a_fact() -> None:
    assert Phrases(SAID).said("no connection with {1}: {0}") == "sem ligação com {1}: {0}"


def test_a_hostile_reason_costs_no_time() -> None:
    phrases, began = Phrases(SAID), time.process_time()
    for joint in (": ", "; ", ", ", " (", " of ", "no connection with : "):
        phrases.said(joint * 1300)
    assert time.process_time() - began < 2
