"""An Orthanc in memory, as far as following looks at it; it can lose the tail of its index."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from plugins.facts import Sender


@dataclass
class FakeOrthanc:
    """`rows` are (seq, kind, id, date); `held` maps instances to (study, series, modality)."""

    rows: list[tuple[int, str, str, str]] = field(default_factory=list)
    held: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    last: int = 0
    minute: int = 0
    asked_contents: int = 0
    same_sop: bool = False  # every instance has the same SOP Instance UID
    headers: dict[str, dict[str, str]] = field(default_factory=dict)  # by instance: what reading it tells
    names: dict[str, str] = field(default_factory=dict)  # by study: its patient's name
    issuers: dict[str, str] = field(default_factory=dict)  # by instance: of its Patient ID
    read: list[str] = field(default_factory=list)  # which instances were read

    def store(self, orthanc_id: str, study: str = "S1", modality: str = "CT") -> None:
        self.held[orthanc_id] = (study, f"{study}-{modality}", modality)
        self.last += 1
        self.rows.append((self.last, "NewInstance", orthanc_id, f"20260301T08{self.minute:02d}00"))

    def delete(self, orthanc_id: str) -> None:
        del self.held[orthanc_id]
        self.rows = [row for row in self.rows if row[2] != orthanc_id]

    def lose_behind(self, seq: int) -> list[str]:
        """A power cut: rows behind `seq`, and numbers with them, never were; which instances that took."""
        lost = [row[2] for row in self.rows if row[0] > seq]
        self.rows = [row for row in self.rows if row[0] <= seq]
        self.last = seq
        self.minute += 1
        for one in lost:
            self.held.pop(one, None)
        return lost

    def changes(self, since: int, limit: int) -> dict[str, Any]:
        behind = [row for row in self.rows if row[0] > since]
        piece = [
            {"Seq": seq, "ChangeType": kind, "ID": orthanc_id, "Date": date}
            for seq, kind, orthanc_id, date in behind[:limit]
        ]
        return {"Changes": piece, "Done": len(behind) <= limit, "Last": piece[-1]["Seq"] if piece else since}

    def contents(self, orthanc_ids: list[str]) -> dict[str, dict[str, Any]]:
        self.asked_contents += len(orthanc_ids)
        found: dict[str, dict[str, Any]] = {}
        for one in orthanc_ids:
            if one in self.held:
                found[one] = {
                    "ID": one, "ParentSeries": self.held[one][1],
                    "MainDicomTags": {"SOPInstanceUID": "1.1" if self.same_sop else f"1.{one[1:]}"},
                    "Metadata": {"RemoteAET": "CT1", "ReceptionDate": "20260301T083000"}, "FileSize": 10,
                }  # fmt: skip
            for study, series, modality in self.held.values():
                if one == series:
                    found[one] = {
                        "ID": one, "ParentStudy": study,
                        "MainDicomTags": {"SeriesInstanceUID": f"2.{study[1:]}", "Modality": modality},
                    }  # fmt: skip
                if one == study:
                    found[one] = {
                        "ID": one, "MainDicomTags": {"StudyInstanceUID": f"3.{study[1:]}"},
                        "PatientMainDicomTags": {"PatientID": "P1", "PatientName": self.names.get(study, "")},
                    }  # fmt: skip
        return found

    def instance_ids(self, since: int, limit: int) -> list[str]:
        return sorted(self.held)[since : since + limit]

    def instance_count(self) -> int:
        return len(self.held)

    def issuer(self, orthanc_id: str) -> str:
        return self.issuers.get(orthanc_id, "")

    def sender(self, orthanc_id: str) -> Sender | None:
        return Sender("CT9", "192.0.2.9", "ZAMBEZI") if orthanc_id in self.held else None

    def sha256(self, orthanc_id: str) -> str | None:
        return f"read {orthanc_id}" if orthanc_id in self.held else None

    def tags(self, orthanc_id: str) -> dict[str, Any]:
        self.read.append(orthanc_id)
        return self.headers.get(orthanc_id, {})

    def studies_of(self, patient_id: str) -> list[str]:
        of = {one for one, tags in self.headers.items() if tags.get("0010,0020") == patient_id}
        return sorted({self.held[one][0] for one in of & self.held.keys()})
