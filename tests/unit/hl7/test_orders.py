from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from tests.unit.hl7.messages import ADT, BAHMNI_CANCEL, ORM, TWO_ORDERS
from zambezi.config.settings import Hl7Fields
from zambezi.hl7 import orders
from zambezi.hl7.read import read

ZONE = ZoneInfo("Africa/Maputo")


def the_order(text, **fields):
    (found,) = orders.orders(read(text.encode()), Hl7Fields(**fields), ZONE)
    return found


def test_a_patient_is_read_with_accents():
    found = orders.patient(read(ADT.encode()), "HOSPITAL")
    assert found == orders.PatientFacts("4711", "HIS", "Conceição", "João Múcio", "19800229", "M")


def test_a_patient_id_without_issuer_belongs_to_the_site():
    assert orders.patient(read(ADT.replace("4711^^^HIS^MR", "4711").encode()), "HOSPITAL").issuer in ("BI", "HOSPITAL")
    assert orders.patient(read(BAHMNI_CANCEL.encode()), "HOSPITAL").issuer == "HOSPITAL"


def test_the_medical_record_number_is_preferred_to_other_identifiers():
    raw = ADT.replace("4711^^^HIS^MR~110100123456A^^^BI^NI", "110100123456A^^^BI^NI~4711^^^HIS^MR")
    assert orders.patient(read(raw.encode()), "H").patient_id == "4711"


@pytest.mark.parametrize(
    ("take_out", "place"), [("4711^^^HIS^MR~110100123456A^^^BI^NI", "PID-3"), ("Conceição^João^Múcio", "PID-5")]
)
def test_a_patient_without_id_or_name_is_not_applied(take_out, place):
    with pytest.raises(orders.CannotApply, match=place):
        orders.patient(read(ADT.replace(take_out, "").encode()), "H")


@pytest.mark.parametrize(
    ("written", "meant"), [('""', ""), ("", None), ("1980", None), ("19801399", None), ("19800229120000", "19800229")]
)
def test_a_birth_date_is_kept_taken_away_or_left_alone(written, meant):
    assert orders.patient(read(ADT.replace("|19800229|", f"|{written}|").encode()), "H").birth_date == meant


def test_an_order_is_read_by_the_usual_map():
    found = the_order(ORM)
    assert (found.action, found.placer_number, found.accession_number) == ("place", "PL1", "ACC1")
    assert (found.study_uid, found.modality, found.priority) == ("1.2.840.1.7", "CT", "STAT")
    assert (found.procedure_code, found.procedure_text) == ("TC1", "TC do crânio & órbitas")
    assert found.scheduled_at == datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
    assert found.clinical_information == "Cefaleia\nGrávida? Não"
    assert found.referring_physician == "Macuácua^Inês"


def test_a_senders_own_places_are_configuration():
    raw = ORM.replace("||||||CT\r", "|" * 28 + "2020118074^^ACCESSION_NUMBER\r")
    assert the_order(raw, accession_number="OBR-46.1").accession_number == "2020118074"


def test_two_orders_in_one_message_are_two():
    first, second = orders.orders(read(TWO_ORDERS.encode()), Hl7Fields(), ZONE)
    assert (first.accession_number, second.accession_number, second.modality) == ("ACC1", "ACC2", "US")


def test_bahmnis_cancel_carries_the_old_number_in_orc_2():
    found = the_order(BAHMNI_CANCEL)
    assert (found.action, found.placer_number, found.study_uid) == ("cancel", "ORD-305", "1.2.826.0.1.305")
    assert found.scheduled_at is None


@pytest.mark.parametrize(
    ("control", "action", "status"),
    [("NW", "place", ""), ("XO", "change", ""), ("CA", "cancel", ""), ("DC", "cancel", ""), ("", "place", "")],
)
def test_control_codes_say_what_to_do(control, action, status):
    found = the_order(ORM.replace("ORC|NW|", f"ORC|{control}|"))
    assert (found.action, found.status) == (action, status)


@pytest.mark.parametrize(
    ("code", "status"), [("IP", "in-progress"), ("CM", "completed"), ("SC", ""), ("CA", "cancelled")]
)
def test_a_status_change_names_the_new_state(code, status):
    found = the_order(ORM.replace("ORC|NW|PL1|||", f"ORC|SC|PL1|||{code}"))
    assert (found.action, found.status) == ("status", status)


@pytest.mark.parametrize("change", [("ORC|NW|", "ORC|HD|"), ("ORC|NW|PL1|||", "ORC|SC|PL1|||QQ")])
def test_a_code_we_do_not_carry_out_is_said(change):
    with pytest.raises(orders.CannotApply, match="none that we"):
        the_order(ORM.replace(*change))


def test_an_order_message_without_an_order_is_said():
    with pytest.raises(orders.CannotApply, match="neither ORC nor OBR"):
        orders.orders(read(ADT.encode()), Hl7Fields(), ZONE)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("20260301083000", datetime(2026, 3, 1, 6, 30, tzinfo=UTC)),
        ("202603010830", datetime(2026, 3, 1, 6, 30, tzinfo=UTC)),
        ("20260301", datetime(2026, 2, 28, 22, 0, tzinfo=UTC)),
        ("20260301083000.1234-0130", datetime(2026, 3, 1, 10, 0, tzinfo=UTC)),
        ("20260231", None),
        ("tomorrow", None),
        ("20260301083000+9999", None),
        ("", None),
    ],
)
def test_time_stamps_are_utc_by_their_offset_or_the_sites_zone(text, meant):
    assert orders.moment(text, ZONE) == meant
