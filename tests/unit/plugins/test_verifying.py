"""What index and disk have of instances, with a small Orthanc in memory and real files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from plugins.facts import Came
from plugins.orthanc_rest import RestRefused
from plugins.verifying import ENOUGH_S, AskedWrongly, Verifier

CONTENT = b"pixels"
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


def nobody_saw(*_: Any) -> tuple[None, None]:
    return None, None


class Rest:
    """Knows instances 1.1 to 1.4 of one study; `gone` are deleted between two questions."""

    gone: tuple[str, ...] = ()

    def post(self, _path: str, body: dict[str, Any]) -> list[str]:
        return [uid for uid in body["Query"]["0008,0018"].split("\\") if uid in ("1.1", "1.2", "1.3", "1.4")]

    def contents(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        every: dict[str, dict[str, Any]] = {
            "series": {"ID": "series", "ParentStudy": "study"},
            "study": {"ID": "study", "MainDicomTags": {"StudyInstanceUID": "1.9"}},
        }
        instances: dict[str, dict[str, Any]] = {
            one: {"ID": one, "ParentSeries": "series", "MainDicomTags": {"SOPInstanceUID": one},
                  "Metadata": {"SopClassUid": "CT"}} for one in ids
        }  # fmt: skip
        return {one: every.get(one) or instances[one] for one in ids}

    def get(self, path: str) -> dict[str, Any]:
        name = path.split("/")[2]
        if name in self.gone:
            raise RestRefused("404")
        return {"Uuid": f"aabb-{name}", "CompressedSize": str(len(CONTENT)), "CompressedMD5": MD5}

    def close(self) -> None:
        pass


class ById(Rest):
    """The same, asked by Orthanc ids that begin with the last number; counts what is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def contents(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        self.asked.append("contents")
        return {
            one: {"ID": one, "ParentSeries": "series", "MainDicomTags": {"SOPInstanceUID": f"1.{int(one[:8])}"},
                  "Metadata": {"SopClassUid": "CT"}, "FileUuid": f"aabb-1.{int(one[:8])}", "FileSize": len(CONTENT)}
            for one in ids
        }  # fmt: skip

    def get(self, path: str) -> dict[str, Any]:
        self.asked.append(path)
        number = int(path.split("/")[2][:8])
        return {"Uuid": f"aabb-1.{number}", "CompressedSize": str(len(CONTENT)), "CompressedMD5": MD5}


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "aa" / "bb"
    folder.mkdir(parents=True)
    for name, content in (("1.1", CONTENT), ("1.2", CONTENT[:-1]), ("1.3", CONTENT[:-1] + b"X")):
        (folder / f"aabb-{name}").write_bytes(content)
    return tmp_path


def test_each_file_is_read_from_the_disk(storage: Path) -> None:
    told = Verifier(storage, Rest, nobody_saw).look(["1.1", "1.2", "1.3", "1.4", "1.5"])  # type: ignore[arg-type]  # a stand-in
    found = {one["sop_uid"]: [(c["file_size"], c["file_md5"] == c["md5"]) for c in one["copies"]] for one in told}
    assert found == {
        "1.1": [(6, True)], "1.2": [(5, False)], "1.3": [(6, False)], "1.4": [(-1, False)], "1.5": [],
    }  # fmt: skip
    assert told[0]["copies"][0]["study_uid"] == "1.9"


def test_what_is_deleted_in_this_moment_is_not_there(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rest, "gone", ("1.1",))
    assert Verifier(storage, Rest, nobody_saw).look(["1.1"]) == [{"sop_uid": "1.1", "copies": []}]  # type: ignore[arg-type]  # same


def test_a_call_ends_with_what_it_has_when_its_time_is_up(storage: Path) -> None:
    moments = iter([0.0, ENOUGH_S - 1, ENOUGH_S + 1])
    told = Verifier(storage, Rest, nobody_saw, lambda: next(moments)).look(["1.1", "1.2", "1.3"])  # type: ignore[arg-type]  # same
    assert [one["sop_uid"] for one in told] == ["1.1", "1.2"]


@pytest.mark.parametrize("asked", [[], "1.1", ["1.*"], ["1.1\\1.2"], [1], ["1"] * 101, {"a": 1}, ["1" * 65]])
def test_anything_but_uids_is_refused(storage: Path, asked: Any) -> None:
    with pytest.raises(AskedWrongly):
        Verifier(storage, Rest, nobody_saw).look(asked)  # type: ignore[arg-type]  # a stand-in


def test_a_migration_is_told_what_came_besides(storage: Path) -> None:
    seen = {"1.1": (hashlib.sha256(CONTENT).hexdigest(), None), "1.3": ("a" * 64, Came("b" * 64, (), ("(0010,0020)",)))}
    verifier = Verifier(storage, Rest, lambda uid, _, size: seen.get(uid, (None, None)) if size == 6 else ("", None))  # type: ignore[arg-type]  # same
    copies = {one["sop_uid"]: one["copies"][0] for one in verifier.look({"arrivals": ["1.1", "1.2", "1.3"]})}
    assert copies["1.1"]["file_sha256"] == copies["1.1"]["arrived_sha256"] == seen["1.1"][0]
    assert (copies["1.2"]["file_sha256"], copies["1.2"]["arrived_sha256"]) == ("", None)
    assert copies["1.3"]["file_sha256"] != copies["1.3"]["arrived_sha256"]
    assert (copies["1.3"]["came_sha256"], copies["1.3"]["changed"]) == ("b" * 64, ["(0010,0020)"])
    assert [copies[uid]["file_md5"] for uid in ("1.1", "1.2", "1.3")] == [None, "", None]  # read where it is needed
    assert "file_sha256" not in verifier.look(["1.1"])[0]["copies"][0]


def test_who_knows_the_copies_costs_the_index_one_question_and_is_told_the_same_of_what_is_wrong(storage: Path) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    rest, ids = ById(), {f"1.{n}": f"{n:08d}-" + "-".join(["0" * 8] * 4) for n in (1, 2, 3)}
    verifier = Verifier(storage, lambda: rest, lambda *_: (sha256, None))  # type: ignore[arg-type,return-value]  # same
    copies = {one["sop_uid"]: one["copies"][0] for one in verifier.look({"arrivals": {k: [v] for k, v in ids.items()}})}
    whole = copies["1.1"]
    assert (whole["file_sha256"], whole["orthanc_id"], whole["size"], whole["md5"]) == (sha256, ids["1.1"], 6, None)
    assert (copies["1.2"]["file_sha256"], copies["1.2"]["file_size"], copies["1.2"]["md5"]) == ("", 5, MD5)
    assert copies["1.3"]["file_sha256"] not in ("", sha256)
    assert rest.asked == ["contents", f"/instances/{ids['1.2']}/attachments/dicom/info",
                          f"/instances/{ids['1.3']}/attachments/dicom/info"]  # fmt: skip


@pytest.mark.parametrize("ids", [[], ["../1"], "1" * 44, [1], [f"{n:08d}-{n:08d}" for n in range(2)]])
def test_copies_are_named_by_ids_of_orthanc_alone(storage: Path, ids: Any) -> None:
    with pytest.raises(AskedWrongly):
        Verifier(storage, Rest, nobody_saw).look({"arrivals": {"1.1": ids}})  # type: ignore[arg-type]  # a stand-in
