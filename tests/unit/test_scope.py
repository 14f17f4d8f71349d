"""Which part of a site a person sees: pure, with the reason."""

from __future__ import annotations

import pytest

from zambezi.access.scope import Part, Scope, part_of

SITES = {"Beira": (("CT1", "US2"), ("HIS_BEIRA",)), "Tete": (("CR9",), ())}


@pytest.mark.parametrize(
    ("scope", "part", "yes"),
    [
        (Scope(), Part(), True),
        (Scope(sites=frozenset({"Beira"})), Part(frozenset({"Beira"})), True),
        (Scope(sites=frozenset({"Beira"})), Part(frozenset({"Tete"})), False),
        (Scope(sites=frozenset({"Beira"})), Part(), False),
        (Scope(modalities=frozenset({"CT"})), Part(modalities=frozenset({"CT", "SR"})), True),
        (Scope(modalities=frozenset({"CT"})), Part(modalities=frozenset({"MR"})), False),
        (Scope(modalities=frozenset({"CT"})), Part(), False),
        (Scope(frozenset({"Beira"}), frozenset({"CT"})), Part(frozenset({"Beira"}), frozenset({"MR"})), False),
        (Scope(referrer="Sitoe^Ivone"), Part(referrer="Dr.ª Ivone Sitoe"), True),
        (Scope(referrer="Ivone Sitoe"), Part(referrer="SITOE^IVONE"), True),
        (Scope(referrer="José Conceição"), Part(referrer="CONCEICAO^JOSE"), True),
        (Scope(referrer="Ivone Sitoe"), Part(referrer="Ivone Sitoe Dube"), False),
        (Scope(referrer="Ivone Sitoe"), Part(), False),
        (Scope(referrer="Dr."), Part(referrer="Dr."), False),
        (Scope(own_only=True), Part(referrer="Ivone Sitoe"), False),
        (Scope(own_only=True), Part(), False),
    ],
)
def test_what_lies_in_a_part(scope: Scope, part: Part, yes: bool):
    seen = scope.holds(part)
    assert seen.yes is yes
    assert seen.because


def test_a_study_is_of_the_site_that_sent_it_or_whose_station_or_peer_ordered_it():
    def sites(*aets: str | None, source: str | None = None) -> frozenset[str]:
        return part_of(SITES, aets=aets, source=source, modalities="CT\\SR", referrer=None).sites

    assert sites("CT1", None) == {"Beira"}
    assert sites(None, "CR9") == {"Tete"}
    assert sites(None, None, source="HIS_BEIRA") == {"Beira"}
    assert sites("CT1", "CR9") == {"Beira", "Tete"}
    assert sites("", None, source="ris") == frozenset()
    assert part_of(SITES, aets=(), source=None, modalities="CT\\SR", referrer=None).modalities == {"CT", "SR"}
