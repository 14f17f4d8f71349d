import base64
from datetime import timedelta
from io import BytesIO
from zoneinfo import ZoneInfo

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from gateway import modality_worklist
from zambezi import orders, worklist
from zambezi.config.settings import Site, Worklist

ZONE = ZoneInfo("Africa/Maputo")
SETTINGS = Worklist.model_validate(
    {"Stations": {"CT1": {"Modality": ["CT"]}, "CT2": {"Modality": ["CT"]}, "US1": {"Modality": ["US"]}}}
)


def an_order(session, now, name="Conceição", **facts):
    patient = orders.register_patient(
        session, patient_id=name, issuer="HIS", family_name=name, given_name="João", now=now, writer="ris"
    )
    wanted = orders.NewOrder(**{"scheduled_at": now, "modality": "CT", **facts})
    return orders.place_order(session, patient, wanted, now=now, site=Site(), writer="ris")


def entries(session, now):
    return worklist.entries(session, SETTINGS, ZONE, now)


@pytest.mark.parametrize(
    ("facts", "stations"),
    [
        ({"modality": "CT"}, ("CT1", "CT2")),
        ({"modality": "CT", "station_aet": "CT2"}, ("CT2",)),
        ({"modality": "MR"}, ()),
        ({"modality": ""}, ("CT1", "CT2", "US1")),
    ],
)
def test_an_order_goes_to_its_station_or_to_all_of_its_modality(made, now, facts, stations):
    with made.begin() as session:
        assert worklist.stations_for(an_order(session, now, **facts), SETTINGS) == stations


def test_an_order_without_a_modality_is_told_to_each_station_as_its_own(made, now):
    with made.begin() as session:
        an_order(session, now, modality="")
        told = {e.aets: e.item.ScheduledProcedureStepSequence[0].Modality for e in entries(session, now)}
        assert told == {("CT1",): "CT", ("CT2",): "CT", ("US1",): "US"}


@pytest.mark.parametrize(("hours", "there"), [(-73, 0), (-71, 1), (71, 1), (73, 0)])
def test_only_orders_of_these_days_are_on_the_worklist(made, now, hours, there):
    with made.begin() as session:
        an_order(session, now, scheduled_at=now + timedelta(hours=hours))
        assert len(entries(session, now)) == there


@pytest.mark.parametrize(("status", "there"), [("arrived", 1), ("in-progress", 1), ("completed", 0), ("cancelled", 0)])
def test_what_is_over_is_off_the_worklist(made, now, status, there):
    with made.begin() as session:
        orders.set_status(session, an_order(session, now), status, now=now, writer="ris")
        assert len(entries(session, now)) == there


@pytest.mark.parametrize(("name", "charset"), [("Conceição", "ISO_IR 100"), ("Ŝona", "ISO_IR 192")])
def test_an_item_is_written_in_the_oldest_character_set_that_holds_it(made, now, name, charset):
    with made.begin() as session:
        an_order(session, now, name)
        (entry,) = entries(session, now)
        read = dcmread(BytesIO(base64.b64decode(base64.b64encode(worklist.as_file(entry.item)))))
        assert (read.SpecificCharacterSet, str(read.PatientName)) == (charset, f"{name}^João")
        assert read.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartTime == "103000"


def test_delimiters_of_dicom_in_a_name_are_spaces():
    assert worklist.person_name("Silva\\Costa", "Ana^Rita=x") == "Silva Costa^Ana Rita x"


def test_a_station_is_told_its_own_name_and_what_it_asked_for(made, now):
    with made.begin() as session:
        an_order(session, now)
        query, step = Dataset(), Dataset()
        step.ScheduledStationAETitle = "CT2"
        query.ScheduledProcedureStepSequence, query.PatientName, query.StudyDate = [step], "conc*", ""
        (answer,) = modality_worklist.answers(entries(session, now), query, "CT2")
        assert answer.ScheduledProcedureStepSequence[0].ScheduledStationAETitle == "CT2"
        assert "PatientID" not in answer
        assert not answer.StudyDate
        assert modality_worklist.answers(entries(session, now), query, "US1") == []
