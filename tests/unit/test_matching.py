"""Whether two records are of one person, for names as they are written on this river."""

from __future__ import annotations

import pytest

from zambezi import matching
from zambezi.matching import Person

ANA = Person("77", "HCM", "SILVA^MARIA JOAO", "19700512", "F")


@pytest.mark.parametrize(
    ("one", "other", "least"),
    [
        ("Silva^Maria João da", "SILVA^MARIA JOAO", 0.99),
        ("Makuakua^Ana", "Macuácua^Ana", 0.9),
        ("NYANTUMBO^JOAO", "Nhantumbo^João", 0.9),
        ("Cossa^José^Luís^Dr", "José Luis Kossa", 0.9),
        ("Gomez^Luiz", "Gomes^Luis", 0.9),
        ("Chissano^Alberto", "Xissano^Albreto", 0.85),
        ("Silva^Maria", "Silva^Maria^Joaquina", 0.75),  # a middle name is left out
    ],
)
def test_one_name_spelt_in_several_ways_is_one_name(one, other, least):
    assert matching.name_likeness(one, other) >= least
    assert matching.name_likeness(other, one) == matching.name_likeness(one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("Silva^Maria", "Tembo^Maria"), ("Maria", "Silva^Maria^Ana"), ("", ""), ("Machel^S", "Moyo^T")]
)
def test_a_first_name_in_common_says_little(one, other):
    assert matching.name_likeness(one, other) <= 0.5


def test_all_that_agrees_is_a_match_and_says_why():
    found = matching.likeness(Person("77", "HCM", "Silva^Maria João", "19700512", "F"), ANA)
    assert found.score == 1.0
    assert [reason.code for reason in found.reasons] == ["same-id-issuer", "same-name", "same-birth", "same-sex"]


@pytest.mark.parametrize(
    ("other", "most"),
    [
        (Person("77", "", "Tembo^Rui", "19700512", "M"), 0.3),  # a number that was handed out twice
        (Person("77", "", "RN Silva^Maria Joao", "20260101", "F"), 0.4),  # a newborn under the mother's name
        (Person("12", "", "Silva^Maria Joao", "19810930", "F"), 0.4),  # a namesake
        (Person("12", "", "Silva^Maria Joao", "", "F"), 0.5),
    ],
)
def test_what_contradicts_counts_against_it(other, most):
    assert matching.likeness(other, ANA).score < most + 0.001


def test_a_birth_date_with_day_and_month_swapped_counts_and_a_guessed_one_counts_little():
    def weight(one, other):
        found = matching.likeness(Person(birth_date=one), Person(birth_date=other)).reasons
        return found[0].code, found[0].weight

    assert weight("19700512", "19701205") == ("swapped-birth", matching.SWAPPED_BIRTH)
    assert weight("19700101", "19710101") == ("guessed-birth", matching.GUESSED_BIRTH)
    assert weight("19700101", "19700101")[1] < matching.SAME_BIRTH
    assert weight("19700512", "19700513")[1] < matching.SWAPPED_BIRTH


def test_a_former_identifier_is_known():
    merged = Person("77", "HCM", "Silva^Maria", "19700512", "F", former_ids=("OLD-5",))
    assert "former-id" in [r.code for r in matching.likeness(Person("OLD-5", "", "Silva^Maria"), merged).reasons]
