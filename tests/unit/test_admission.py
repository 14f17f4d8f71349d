"""Who may send what: the status of a C-STORE by SOP class, size and identity."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zambezi import admission
from zambezi.admission import Newcomer, Terms, judge
from zambezi.config.settings import Admission, PeerAdmission

CT, US = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.6.1"
GOOD = Newcomer(CT, "1.2.3", "1.2", "1.2.1", "HCZ 18833/4", 500_000)
STRICT = Terms("refuse", "refuse")


@pytest.mark.parametrize(
    ("one", "terms", "status"),
    [
        (GOOD, STRICT, 0),
        (replace(GOOD, patient_id=""), Terms(), 0),
        (replace(GOOD, patient_id="  "), Terms(missing_identity="refuse"), 0xA900),
        (replace(GOOD, patient_id=""), Terms(missing_identity="hold"), 0xB007),
        (replace(GOOD, patient_id=""), Terms(malformed_identity="refuse"), 0),
        (replace(GOOD, patient_id="P\\1"), STRICT, 0xA900),
        (replace(GOOD, patient_id="P\x01"), STRICT, 0xA900),
        (replace(GOOD, patient_id="P" * 65), STRICT, 0xA900),
        (replace(GOOD, patient_id="João"), STRICT, 0),
        (replace(GOOD, study_uid="1.2.x"), STRICT, 0xA900),
        (replace(GOOD, study_uid="1..2"), Terms(malformed_identity="hold"), 0xB007),
        (replace(GOOD, sop_uid="1." + "2" * 63), STRICT, 0xA900),
        (replace(GOOD, sop_uid="1." + "2" * 62), STRICT, 0),
        (replace(GOOD, series_uid="1.02"), STRICT, 0),
        (GOOD, Terms(sop_classes=frozenset({US})), 0x0122),
        (GOOD, Terms(sop_classes=frozenset({US, CT})), 0),
        (GOOD, Terms(refused_sop_classes=frozenset({CT})), 0x0122),
        (replace(GOOD, sop_class=""), Terms(sop_classes=frozenset({US})), 0x0122),
        (GOOD, Terms(largest_megabytes=0.4), 0x0124),
        (GOOD, Terms(largest_megabytes=0.5), 0),
    ],
)
def test_the_answer_is_the_right_status_and_names_no_patient(one: Newcomer, terms: Terms, status: int):
    verdict = judge(one, terms)
    assert verdict.status == status
    assert (verdict.action, bool(verdict.reason)) == (
        ("accept", False) if not status else ("hold", True) if status == 0xB007 else ("refuse", True)
    )
    assert not one.patient_id.strip() or one.patient_id not in verdict.reason


def test_a_peer_s_own_terms_win_key_by_key_also_where_they_are_milder():
    settings = Admission(
        missing_identity="refuse", sop_classes=(CT,), largest_megabytes=5,
        peers={"US1": PeerAdmission(missing_identity="hold", sop_classes=())},
    )  # fmt: skip
    assert admission.terms(settings, "CT1") == Terms("refuse", "accept", frozenset({CT}), frozenset(), 5)
    assert admission.terms(settings, "US1") == Terms("hold", "accept", frozenset(), frozenset(), 5)


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        (Admission(), False),
        (Admission(peers={"US1": PeerAdmission()}), False),
        (Admission(peers={"US1": PeerAdmission(missing_identity="accept")}), False),
        (Admission(peers={"US1": PeerAdmission(missing_identity="hold")}), True),
        (Admission(refused_sop_classes=(CT,)), True),
    ],
)
def test_without_any_demand_nothing_is_looked_at(settings: Admission, asked: bool):
    assert admission.asks(settings) is asked
