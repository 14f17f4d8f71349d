from __future__ import annotations

from gateway import conformance
from zambezi import config
from zambezi.environment import REPOSITORY, Environment


def test_the_conformance_tables_are_those_of_the_shipped_configuration():
    shipped = config.load(REPOSITORY / "orthanc-config", {})
    written = (REPOSITORY / "docs" / "conformance" / "dicom.md").read_text(encoding="utf-8")
    said = "write what `zambezi conformance` prints to docs/conformance/dicom.md"
    assert written == conformance.document(shipped, Environment.read({}).ports), said


def test_peers_and_their_rights_stand_in_the_tables():
    shipped = config.load(REPOSITORY / "orthanc-config", {})
    peers = {
        "CT1": {"AET": "CT1", "Host": "10.1.0.21", "Port": 104, "AllowFind": False, "AllowMove": False},
        "PACS": ["PACS", "10.1.0.9", 11112],
    }
    changed = config.Configuration({**shipped.orthanc, "DicomModalities": peers}, shipped.zambezi, shipped.hash)
    told = conformance.document(changed, Environment.read({}).ports)
    assert "| CT1 | CT1 | 10.1.0.21:104 | Echo, Store, FindWorklist, Get, StorageCommitment |" in told
    assert "| PACS | PACS | 10.1.0.9:11112 | all |" in told
