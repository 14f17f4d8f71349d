"""Which rules an image meets; what may be written, and what is said of what may not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from plugins import header
from tests.unit.coercion.images import rules
from tests.unit.zambezi.test_rewriting import made
from zambezi.coercion.rules import Image
from zambezi.config.settings import Zambezi

DO = {"Set": {"StationName": "X"}}


def mismatch(content: bytes, when: dict[str, Any], calling_aet: str = "", announced: bool = False) -> str:
    made_of = rules({"When": when, **DO})
    return made_of.all[0].mismatch(Image(header.read(content, made_of.tags).also, calling_aet, announced))


@pytest.mark.parametrize(
    ("when", "meets"),
    [
        ({}, True),
        ({"PatientName": "Conceição^Ana"}, True),
        ({"PatientName": ["X", "Conceição^Ana"], "AccessionNumber": "A1"}, True),
        ({"PatientName": "Conceição^Ana", "AccessionNumber": "A2"}, False),
        ({"StudyDescription": {"Pattern": "*tc*"}}, True),
        ({"StudyDescription": {"Pattern": ["MR*", "T?"]}}, True),
        ({"StudyDescription": {"Pattern": "T"}}, False),
        ({"ImageType": "DERIVED"}, True),
        ({"StationName": {"Present": False}}, True),
        ({"StationName": {"Present": True}}, False),
        ({"InstitutionName": {"Pattern": "*"}}, False),
        ({"(0009,1001)": {"Present": True}}, True),
        ({"CallingAet": ["CT2", "CT3"]}, True),
        ({"CallingAet": {"Pattern": "MR*"}}, False),
        ({"Announced": {"Present": True}}, True),
        ({"Announced": {"Present": False}}, False),
        ({"PerformedProcedureStepID": "P5"}, True),  # beyond the group in which reading a header ends otherwise
    ],
)
def test_an_image_meets_all_conditions_or_not(when: dict[str, Any], meets: bool):
    content = made(PatientName="Conceição^Ana", ImageType=["DERIVED", "PRIMARY"], PerformedProcedureStepID="P5")
    assert bool(mismatch(content, when, "CT2", announced=True)) is not meets


def test_a_sender_that_is_not_known_meets_no_condition_on_it():
    assert "not known" in mismatch(made(), {"CallingAet": "CT2"})


@pytest.mark.parametrize(
    ("rule", "path", "says"),
    [
        ({"When": {"StationNam": "X"}, **DO}, "When.StationNam", 'did you mean "StationName"'),
        ({"When": {"Announced": "X"}, **DO}, "When.Announced", '"Present"'),
        ({"When": {"PixelData": {"Present": True}}, **DO}, "When.PixelData", "groups 0008 to 7FDF"),
        ({"Set": {"SOPInstanceUID": "1.2"}}, "Set", "known by"),
        ({"Set": {"StudyInstanceUID": "1.2"}}, "Set", "known by"),
        ({"Set": {"Rows": "5"}}, "Set", "nothing of the pixels"),
        ({"Set": {"PhotometricInterpretation": "X"}}, "Set", "nothing of the pixels"),
        ({"Set": {"SpecificCharacterSet": "ISO_IR 100"}}, "Set", "CharacterSet"),
        ({"Set": {"PatientBirthDate": "20001340"}}, "Set.PatientBirthDate", "YYYYMMDD"),
        ({"Map": {"PatientSex": {"1": "MALE"}}}, "Map.PatientSex", "M, F, O"),
        ({"Prefix": {"PatientID": ""}}, "Prefix.PatientID", "empty"),
        ({"Remove": ["PatientID"]}, "Remove", "needed"),
        ({"Remove": ["BitsStored"]}, "Remove", "needed"),
        ({"Copy": {"StationName": "PixelSpacng"}}, "Copy", 'did you mean "PixelSpacing"'),
        ({"FromWorklist": {"Take": ["Modality"]}}, "FromWorklist", ""),
        ({}, "Name", "does nothing"),
    ],
)
def test_what_can_not_be_carried_out_is_refused_by_name(rule: dict[str, Any], path: str, says: str):
    with pytest.raises(ValidationError) as refused:
        Zambezi.model_validate({"Coercions": [{"Name": "r", **rule}]})
    assert path in str(refused.value)
    assert says in str(refused.value)


def test_a_name_belongs_to_one_rule():
    with pytest.raises(ValidationError, match="each rule needs its own"):
        Zambezi.model_validate({"Coercions": [{"Name": "r", **DO}, {"Name": "r", **DO}]})
