"""Ingest with a hundred rules each of routing and coercion, four senders, against Orthanc with viewers' plugins.

None of the routing rules sends what is stored here away: what is measured is deciding, not delivering, and decided is
as soon as a study is quiet for a second. Once no image meets a rule of coercion, once one sender in four does.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from operations import supervision
from tests.bench import instances
from tests.bench.ingest import ROUNDS, SIZES, Archive, Bare, measure, rested, settled
from tests.running import a_hospital
from zambezi.environment import Environment

RULES, SENDERS = 100, 4
#: Who stores this meets one of the rules of coercion.
_COERCED = {"InstitutionName": "Clinic 42 of the north"}


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name, a_hospital(quiet_seconds=1, before=_write_rules) as hospital:
        installed = Bare(Path(name) / "installed", hospital, nodelay=True, viewers=True)
        alike = Bare(Path(name) / "alike", hospital, nodelay=True, viewers=True, our_allocator=True)
        pids = tuple(one.pid for one in supervision.processes(hospital.environment) or [])
        ours = Archive((hospital.environment.ports.dicom,), pids)
        others = {
            "with the viewers' plugins": Archive((installed.dicom_port,), (installed.pid,)),
            "and our allocator": Archive((alike.dicom_port,), (alike.pid,)),
        }

        def settle() -> None:
            settled(hospital)
            rested((*pids, installed.pid, alike.pid))

        try:
            for edge in SIZES:
                plain, coerced = instances.template(edge), instances.template(edge, **_COERCED)
                for what, made in (("none met", [plain]), ("one sender in four coerced", [coerced, *3 * [plain]])):
                    print(f"ingest, {RULES} rules each of routing and coercion, {what}, {ROUNDS} interleaved rounds")
                    measure(edge, SENDERS, ours, others, settle, made=made)
            coerced_studies = hospital.orthanc().find("Study", {"PatientID": "CN-BENCH"})
            if len(coerced_studies) < len(SIZES) * ROUNDS:
                raise RuntimeError(f"{len(coerced_studies)} studies were coerced: this measured something else")
        finally:
            for one in (installed, alike):
                one.stop()


def _write_rules(environment: Environment) -> None:
    file = environment.config_dir / "30-zambezi.json"
    text = file.read_text()
    routing = "".join(json.dumps(_routing(n)) + ", " for n in range(RULES))
    coercions = json.dumps([_coercion(n) for n in range(RULES)])
    # the demo's own rule would send everything to two receivers
    for old, new in (('"Modality": ["CT"] },\n        "Causes"', '"Modality": ["NM"] },\n        "Causes"'),
                     ('"Routing": [', f'"Coercions": {coercions}, "Routing": [{routing}')):  # fmt: skip
        if old not in text:
            raise RuntimeError(f"{file.name} has no {old} any more: say here how its rule is to be changed")
        text = text.replace(old, new)
    file.write_text(text)


def _routing(n: int) -> dict[str, Any]:
    when = {
        "Modality": ["CT", "MR"], "StudyDescription": {"Pattern": f"*REGION {n}*"},
        "Not": {"SeriesDescription": "LOCALIZER"}, "Any": [{"PatientSex": "M"}, {"Priority": ["STAT", "HIGH"]}],
    }  # fmt: skip
    return {"Name": f"route-{n}", "When": when, "SendTo": ["SECOND"]}


def _coercion(n: int) -> dict[str, Any]:
    return {
        "Name": f"clinic-{n}", "When": {"InstitutionName": {"Pattern": f"Clinic {n} *"}, "Modality": ["CT", "CR"]},
        "Fill": {"IssuerOfPatientID": "CN"}, "Prefix": {"PatientID": "CN-", "AccessionNumber": "CN"},
    }  # fmt: skip
