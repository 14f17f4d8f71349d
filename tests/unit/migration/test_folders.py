"""The index of a folder: what lies there is found, told apart and decided about, whatever happens meanwhile."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from sqlalchemy import select

from migration.folders import archives, dicomdir, looking, places
from migration.folders.files import Files
from migration.folders.index import Index
from migration.folders.judging import Copy, Judge, choose
from zambezi import clock, hold
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import ExceptionItem, FolderFile, FolderWalk, Held


def sample(name: str) -> bytes:
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    return Path(found).read_bytes()


CT = sample("CT_small.dcm")


def ct(**changes: str) -> bytes:
    """CT_small with elements changed, as a file."""
    dataset = pydicom.dcmread(io.BytesIO(CT))
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def packed(members: dict[str, bytes]) -> bytes:
    """A ZIP archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


class Room:
    """A folder `files` and its index."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.files, self.hold = folder, folder / "files", folder / "hold"
        self.files.mkdir(exist_ok=True)
        self.sessions = sessions(connect(url, "folders"), "folders")

    def put(self, name: str, content: bytes) -> Path:
        file = self.files / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def walk(self) -> Index:
        index = Index(self.sessions, "DISCS", self.files, clock.now)
        number = index.walk()
        Judge(self.sessions, "DISCS", self.hold, Files(self.files).read, clock.now).judge(number)
        index.finish()
        return index

    def rows(self) -> dict[str, FolderFile]:
        with self.sessions() as session:
            return {row.place: row for row in session.scalars(select(FolderFile))}

    def fates(self) -> dict[str, tuple[str, str]]:
        return {place: (row.kind, row.verdict) for place, row in self.rows().items()}


@pytest.fixture
def room(tmp_path: Path, empty_tables: Path) -> Room:
    shutil.copy(empty_tables, tmp_path / "z.db")
    return Room(tmp_path, f"sqlite:///{tmp_path}/z.db")


def test_the_tables_serve_on_both_engines(tmp_path: Path, tables_url: str) -> None:
    room = Room(tmp_path, tables_url)
    room.put("1/IM1", CT)
    room.put("2/IM1", CT)
    room.put("3/IM1", ct(PatientName="Other\0"))
    room.put("DICOMDIR", sample("DICOMDIR"))
    room.put("a.zip", packed({"IM2": ct(SOPInstanceUID="1.2.3")}))
    room.walk()
    (room.files / "2" / "IM1").unlink()
    room.walk()
    fates = room.fates()
    assert Counter(kind for kind, _ in fates.values())["absent"] == 31
    assert fates.items() >= {
        "1/IM1": ("dicom", "migrate"), "2/IM1": ("dicom", "gone"), "3/IM1": ("dicom", "conflict"),
        "a.zip|IM2": ("dicom", "migrate"),
    }.items()  # fmt: skip


def test_every_kind_of_file_is_told_apart_and_none_is_left_out(room: Room) -> None:
    room.put("whole.dcm", CT)
    room.put("no-preamble", ct(SOPInstanceUID="1.2.1")[132:])
    room.put("no-meta", sample("ExplVR_LitEndNoMeta.dcm"))
    room.put("cut-off.dcm", ct(SOPInstanceUID="1.2.2")[:20000])
    room.put("no-study", sample("UN_sequence.dcm"))
    room.put("long-uid", ct(SOPInstanceUID="1." + "2" * 70))
    room.put("deflated", sample("image_dfl.dcm"))
    room.put("empty.dcm", b"")
    room.put("text.dcm", b"not DICOM at all" * 100)
    room.put("packed.tar.gz", sample("zipMR.gz"))
    (room.files / b"caf\xe9.dcm".decode("utf-8", "surrogateescape")).write_bytes(ct(SOPInstanceUID="1.2.3"))
    (room.files / "new\nline|bar\\x41.dcm").write_bytes(ct(SOPInstanceUID="1.2.4"))
    (room.files / "loop").symlink_to(room.files)
    (room.files / "away.dcm").symlink_to("/etc/passwd")
    os.mkfifo(room.files / "pipe")
    index = room.walk()
    rows = room.rows()
    assert {place: (row.kind, row.verdict) for place, row in rows.items()} == {
        "whole.dcm": ("dicom", "migrate"), "no-preamble": ("dicom", "migrate"), "no-meta": ("dicom", "migrate"),
        "cut-off.dcm": ("dicom", "migrate"), "no-study": ("no-identity", "held"), "long-uid": ("no-identity", "held"),
        "deflated": ("dicom", "migrate"), "empty.dcm": ("other", "listed"), "text.dcm": ("other", "listed"),
        "packed.tar.gz": ("packed", "listed"), r"caf\xe9.dcm": ("dicom", "migrate"),
        r"new\x0aline\x7cbar\x5cx41.dcm": ("dicom", "migrate"), "loop": ("link", "listed"),
        "away.dcm": ("link", "listed"), "pipe": ("special", "listed"),
    }  # fmt: skip
    assert index.progress.files == len(rows)
    assert rows["cut-off.dcm"].reason == "(7fe0,0010) is cut off: 13784 of 32768 bytes are there"
    assert rows["long-uid"].reason == "its SOPInstanceUID is longer than 64 characters (PS3.5 9.1)"
    files = Files(room.files)
    assert files.read(rows[r"caf\xe9.dcm"])[128:132] == b"DICM"
    assert files.read(rows[r"new\x0aline\x7cbar\x5cx41.dcm"])[128:132] == b"DICM"


def test_what_is_held_is_there_whole_and_no_word_of_it_holds_a_path(room: Room) -> None:
    room.put("SILVA^MARIA/no-study", sample("UN_sequence.dcm"))
    room.put("SILVA^MARIA/1", CT)
    room.put("SILVA^MARIA/2", ct(PatientComments="x"))
    room.walk()
    room.walk()
    with room.sessions() as session:
        held = session.scalars(select(Held)).all()
        said = [
            *(str(vars(item)) for item in session.scalars(select(ExceptionItem))),
            *(str(vars(one)) for one in held),
        ]
    assert sorted(one.why for one in held) == ["conflict", "no-identity"]
    assert [one.times for one in held] == [1, 1], "a second walk puts nothing there again"
    whys = {one.why: hold.get(room.hold, one.sha256) for one in held}
    assert whys == {"no-identity": sample("UN_sequence.dcm"), "conflict": ct(PatientComments="x")}
    assert not [words for words in said if "SILVA" in words]


def test_a_file_that_may_not_be_read_is_named_and_read_once_it_may_be(empty_tables: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as outside:
        folder = Path(outside)
        shutil.copy(empty_tables, folder / "z.db")
        room = Room(folder, f"sqlite:///{folder}/z.db")
        room.put("sub/IM2", ct(SOPInstanceUID="1.2.9"))
        file = room.put("IM1", CT)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 65534, 65534)
        file.chmod(0)
        (room.files / "sub").chmod(0)
        me = os.geteuid()
        os.seteuid(65534 if me == 0 else me)
        try:
            room.walk()
            assert room.fates() == {"IM1": ("unread", "listed"), "sub/": ("unread", "listed")}
            assert room.rows()["IM1"].reason == "it can't be read: Permission denied"
            file.chmod(0o600)
            (room.files / "sub").chmod(0o700)
            room.walk()
        finally:
            os.seteuid(me)
        fates = room.fates()
        assert fates["IM1"] == fates["sub/IM2"] == ("dicom", "migrate")
        assert fates["sub/"][1] == "gone"


def test_a_file_that_changes_while_it_is_read_is_read_again_by_the_next_walk(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = room.put("IM1", CT)
    look = looking.look

    def meanwhile(begin: bytes, is_whole: bool) -> looking.Look:
        with file.open("ab") as more:
            more.write(b"\0\0")
        return look(begin, is_whole)

    monkeypatch.setattr(looking, "look", meanwhile)
    room.walk()
    assert room.fates() == {"IM1": ("changing", "listed")}
    monkeypatch.undo()
    room.walk()
    assert room.fates() == {"IM1": ("dicom", "migrate")}
    row = room.rows()["IM1"]
    file.write_bytes(CT[:-2] + b"xx")
    with pytest.raises(Exception, match="has changed since the inventory"):
        Files(room.files).read(row)


def test_of_several_files_with_one_uid_one_is_brought_and_stays_the_one(room: Room) -> None:
    room.put("b/1", CT)
    room.put("c/same-bytes", CT)
    room.put("d/other-content", ct(PatientComments="x"))
    room.put("e/cut-off", CT[:20000])
    room.put("f/other-study", ct(StudyInstanceUID="1.2.77"))
    room.walk()
    first = room.fates()
    assert first == {
        "b/1": ("dicom", "migrate"), "c/same-bytes": ("dicom", "copy"), "d/other-content": ("dicom", "conflict"),
        "e/cut-off": ("dicom", "conflict"), "f/other-study": ("dicom", "migrate"),
    }  # fmt: skip
    room.put("a/comes-before", CT)
    room.walk()
    assert room.fates() == {**first, "a/comes-before": ("dicom", "copy")}
    (room.files / "b" / "1").unlink()
    room.walk()
    assert room.fates() == {**first, "a/comes-before": ("dicom", "migrate"), "b/1": ("dicom", "gone")}


@pytest.mark.parametrize(
    ("copies", "chosen"),
    [
        ([Copy(1, "a", "", place="a"), Copy(2, "b", "", place="b", was_chosen=True)], 2),
        ([Copy(1, "a", "", place="a"), Copy(2, "b", "", place="b", is_named=True)], 2),
        ([Copy(1, "a", "", place="a", is_whole=False), Copy(2, "b", "", place="b")], 2),
        ([Copy(1, "a", "", place="b"), Copy(2, "b", "", place="a")], 2),
    ],
)
def test_which_copy_is_brought(copies: list[Copy], chosen: int) -> None:
    assert choose(copies).id == chosen


def test_a_dicomdir_is_compared_with_what_lies_beside_it(room: Room) -> None:
    medium = Path(str(get_testdata_file("DICOMDIR", download=False))).parent
    for name in ("cd1", "CD2/inner"):
        shutil.copytree(medium / "77654033", room.files / name / "77654033")
        shutil.copytree(medium / "98892003", room.files / name / "98892003")
        shutil.copytree(medium / "98892001", room.files / name / "98892001")
        room.put(f"{name}/DICOMDIR", (medium / "DICOMDIR").read_bytes())
    shutil.move(room.files / "CD2/inner/77654033", room.files / "CD2/inner/77654033.lower")
    (room.files / "cd1/98892003/MR1/4919").unlink()
    room.put("cd1/EXTRA", CT)
    room.put("beside", ct(SOPInstanceUID="1.2.5"))
    room.walk()
    rows = room.rows()
    assert rows["cd1/98892003/MR1/4919"].kind == "absent"
    assert {row.place for row in rows.values() if row.kind == "absent" and row.place.startswith("CD2")} == {
        place.replace("cd1", "CD2/inner") for place in rows if place.startswith("cd1/77654033/")
    }
    assert (rows["cd1/EXTRA"].named, rows["beside"].named, rows["cd1/98892003/MR1/5641"].named) == (False, None, True)
    assert rows["cd1/EXTRA"].verdict == "migrate"
    shutil.copy(medium / "98892003/MR1/4919", room.files / "cd1/98892003/MR1/4919")
    room.walk()
    assert room.rows()["cd1/98892003/MR1/4919"].kind == "dicom"


def test_names_on_media_differ_in_case_version_and_dot() -> None:
    assert dicomdir.plain("IMAGES/IM0001") == dicomdir.plain("images/im0001.;1")
    assert dicomdir.plain("A/B") != dicomdir.plain("A/C")


def test_zip_archives_are_looked_into_once_deep(room: Room) -> None:
    inner = packed({"IM2": ct(SOPInstanceUID="1.2.2"), "too.zip": packed({"IM3": ct(SOPInstanceUID="1.2.3")})})
    room.put("export.zip", packed({"IM1": CT, "readme.txt": b"x", "inner.zip": inner}))
    room.put("letter.docx", packed({"[Content_Types].xml": b"<x/>", "word": b"y"}))
    room.put("broken.zip", packed({"IM1": CT})[:-40])
    room.walk()
    assert room.fates() == {
        "export.zip": ("archive", "listed"), "export.zip|IM1": ("dicom", "migrate"),
        "export.zip|readme.txt": ("other", "listed"), "export.zip|inner.zip": ("archive", "listed"),
        "export.zip|inner.zip|IM2": ("dicom", "migrate"), "export.zip|inner.zip|too.zip": ("packed", "listed"),
        "letter.docx": ("other", "listed"), "broken.zip": ("unread", "listed"),
    }  # fmt: skip
    rows, files = room.rows(), Files(room.files)
    assert files.read(rows["export.zip|IM1"]) == CT
    assert files.read(rows["export.zip|inner.zip|IM2"]) == ct(SOPInstanceUID="1.2.2")
    assert files.read(rows["export.zip|IM1"]) == CT
    assert room.walk().progress.read == 1, "the broken one alone is tried again"


def test_an_archive_that_is_written_anew_has_its_new_members_alone(room: Room) -> None:
    file = room.put("a.zip", packed({"old": CT, "both": ct(SOPInstanceUID="1.2.2")}))
    room.walk()
    file.write_bytes(packed({"new": ct(SOPInstanceUID="1.2.3"), "both": ct(SOPInstanceUID="1.2.2")}))
    room.walk()
    now = {"a.zip": "listed", "a.zip|both": "migrate", "a.zip|new": "migrate", "a.zip|old": "gone"}
    assert {place: verdict for place, (_, verdict) in room.fates().items()} == now
    away = file.rename(room.folder / "away")
    room.walk()
    assert {verdict for _, verdict in room.fates().values()} == {"gone"}
    away.rename(file)
    assert room.walk().progress.files == 3
    assert {place: verdict for place, (_, verdict) in room.fates().items()} == now


def test_a_bomb_does_no_harm(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LARGEST_MEMBER", 1 << 20)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2 << 20))
        archive.writestr("IM1", CT)
        archive.writestr("IM1", ct(SOPInstanceUID="1.2.2"))
    room.put("large-member.zip", out.getvalue())
    lying = bytearray(out.getvalue())
    for at in [n for n in range(len(lying)) if lying[n : n + 4] == b"PK\x01\x02"]:
        lying[at + 24 : at + 28] = (0xFFFFFFF0).to_bytes(4, "little")  # uncompressed size, as it claims
    room.put("claims-too-much.zip", bytes(lying))
    monkeypatch.setattr(archives, "LARGEST_DIRECTORY", 500)
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for n in range(20):
            archive.writestr(f"{n}", b"")
    room.put("many.zip", many.getvalue())
    room.walk()
    rows = room.rows()
    assert "2097152 bytes, 1048576 are read" in rows["large-member.zip|zeros"].reason
    assert rows["large-member.zip|IM1"].verdict == rows[r"large-member.zip|IM1\x002"].verdict == "migrate"
    assert Files(room.files).read(rows[r"large-member.zip|IM1\x002"]) == ct(SOPInstanceUID="1.2.2")
    assert "a bomb" in rows["claims-too-much.zip"].reason
    assert "unpack it beside" in rows["many.zip"].reason


class Died(BaseException):
    """Where a process would have ended (zambezi/crash.py)."""


def test_a_walk_that_dies_at_any_commit_goes_on_where_it_was(
    room: Room, empty_tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(4):
        room.put(f"{n // 2}/{n}", ct(SOPInstanceUID=f"1.2.{n}"))
    room.put("again", ct(SOPInstanceUID="1.2.0"))
    room.put("other", ct(SOPInstanceUID="1.2.1", PatientComments="x"))
    room.put("none", sample("UN_sequence.dcm"))
    room.put("z.zip", packed({str(n): ct(SOPInstanceUID=f"1.2.{n}") for n in range(20, 23)}))
    monkeypatch.setattr("migration.folders.index.BATCH", 4)
    monkeypatch.setattr("migration.folders.judging._PIECE", 2)
    left = 0

    def point(process: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Died

    monkeypatch.setattr("zambezi.crash.point", point)
    for dies_at in range(1, 100, 2):  # before each commit; after one the database is as before the next
        shutil.copy(empty_tables, room.folder / f"{dies_at}.db")
        room, left = Room(room.folder, f"sqlite:///{room.folder}/{dies_at}.db"), dies_at
        try:
            room.walk()
        except Died:
            room.walk()
        else:
            break
        with room.sessions() as session:
            walk = session.get_one(FolderWalk, "DISCS")
            assert (walk.number <= 2, walk.finished_at is not None) == (True, True)
            assert sorted(held.times for held in session.scalars(select(Held))) == [1, 1]
        assert Counter(verdict for _, verdict in room.fates().values()) == {
            "migrate": 7, "copy": 1, "conflict": 1, "held": 1, "listed": 1,
        }  # fmt: skip
    assert dies_at > 20, "so many commit events has a walk"
    left = 0
    assert room.walk().progress.read == 0, "the last one came to its end"


def test_thousands_of_other_files_cost_seconds(room: Room) -> None:
    for n in range(20):
        (room.files / str(n)).mkdir()
        for m in range(100):
            (room.files / str(n) / f"{m}.txt").write_bytes(b"nothing of interest")
    room.put("19/IM1", CT)
    began = time.process_time()
    assert room.walk().progress.files == 2001
    assert time.process_time() - began < 3
    assert Counter(room.fates().values()) == {("other", "listed"): 2000, ("dicom", "migrate"): 1}


@pytest.mark.parametrize("name", ["plain", "a|b", "back\\slash", "new\nline", "\udce9", "ção", "\u00a0"])
def test_places_are_text_and_come_back(name: str) -> None:
    text = places.written((name, name))
    assert text.isprintable()
    assert places.read(text) == (name, name)
