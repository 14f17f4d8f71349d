"""What a DICOM source is asked when a study is counted, and what is made of answers that change."""

from __future__ import annotations

from typing import Any

from migration.dicom_source import DicomSource
from migration.source import Named
from zambezi.config.safety import Modality
from zambezi.config.settings import MigrationSource

CT, JPEG = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.4.70"


class Rest:
    """The seam to Orthanc's REST: a source with one series, whose images at each count are these."""

    def __init__(self, *counts: str) -> None:
        self.counts = list(counts)
        self.asked: list[dict[str, str]] = []

    def query(self, _modality: str, level: str, query: dict[str, str]) -> list[dict[str, str]]:
        if level != "Instance":
            return [{"SeriesInstanceUID": "1.2", "Modality": "CT", "PatientID": "P"}]
        self.asked.append(query)
        known = {"SOPClassUID": CT, "AvailableTransferSyntaxUID": JPEG}
        said = {name: value for name, value in known.items() if name in query}
        return [{"SOPInstanceUID": f"1.{uid}", **said} for uid in self.counts.pop(0)]


def counted(rest: Any, times: int = 2) -> Any:
    return DicomSource(rest, Modality("OLD", "OLD", "127.0.0.1", 1), MigrationSource(peer="OLD")).count("1", times)


def test_of_two_counts_one_asks_for_what_some_archives_open_every_file_for():
    rest = Rest("12", "12")
    found = counted(rest)
    assert found.agreed
    assert found.instances == {uid: Named("1.2", CT, JPEG) for uid in ("1.1", "1.2")}
    assert ["SOPClassUID" in query for query in rest.asked] == [True, False]


def test_the_count_after_the_move_asks_for_names_alone():
    rest = Rest("12")
    assert counted(rest, 1).instances == {uid: Named("1.2") for uid in ("1.1", "1.2")}
    assert set(rest.asked[0]) == {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"}


def test_what_changes_between_two_counts_is_counted_until_two_agree_and_nothing_is_unknown():
    rest = Rest("1", "12", "12")
    found = counted(rest)
    assert (found.agreed, found.instances) == (True, {uid: Named("1.2", CT, JPEG) for uid in ("1.1", "1.2")})
    rest = Rest("1", "12", "123", "1234")
    found = counted(rest)
    assert (found.agreed, len(found.instances), rest.counts) == (False, 4, [])
