"""Old entries leave the table for sealed files: nothing is lost by it, and tampering shows as before."""

from __future__ import annotations

import base64
import gzip
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from operations.auditing import verify
from operations.trail import keeping
from operations.trail.keeping import folder
from zambezi import audit, chain, segments, signing
from zambezi.chain import Sealed
from zambezi.config.settings import Audit, AuditCollector
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import AuditEntry, AuditSegment, AuditShipment
from zambezi.environment import Environment

OLD = datetime(2024, 1, 15, tzinfo=UTC)
NOW = datetime(2026, 3, 10, 3, 30, tzinfo=UTC)
YEAR = Audit(keep_days=365)


class House:
    """A RIS chain of ten entries from January to October 2024 and two of today; a journal of the archive, six old."""

    def __init__(self, url: str, home: Path) -> None:
        self.environment = Environment.read({"ZAMBEZI_HOME": str(home), "ZAMBEZI_DATABASE_URL": url})
        self.engine = connect(url, "test")
        self.sessions: Sessions = sessions(self.engine, "test")
        with self.sessions.begin() as session:
            for month in range(10):
                audit.append(session, "ris", "viewed", OLD + timedelta(days=30 * month), who="ana", study_uid="1.2")
            for _ in range(2):
                audit.append(session, "ris", "viewed", NOW, who="ana", study_uid="1.2")
            audit.take_over(session, journal())

    def retain(self, settings: Audit = YEAR) -> list[str]:
        return keeping.retain(self.sessions, self.environment, settings, NOW)

    def places(self, *against: Path) -> list[str]:
        with self.sessions() as session:
            found = verify(session, self.environment.journal_file, self.environment.home, against)
        return [str(place) for place in found.broken]

    def rows(self, journal: str) -> list[int]:
        with self.sessions() as session:
            query = select(AuditEntry.seq).where(AuditEntry.journal == journal).order_by(AuditEntry.seq)
            return list(session.scalars(query))

    def do(self, statement: str) -> None:
        with self.sessions.begin() as session:
            assert session.execute(text(statement)).rowcount  # type: ignore[attr-defined]  # of a CursorResult


def journal() -> list[Sealed]:
    made: list[Sealed] = []
    for seq in range(1, 7):
        prev = made[-1].hash if made else ""
        facts = {"study_uid": "1.2", "orthanc_id": f"id-{seq}"}
        made.append(chain.seal("orthanc-1", seq, prev, "stored", OLD, facts))
    return made


@pytest.fixture
def house(tables_url: str, tmp_path: Path) -> Iterator[House]:
    made = House(tables_url, tmp_path / "home")
    yield made
    made.engine.dispose()


def test_what_is_old_goes_into_signed_files_and_the_trail_holds_across_the_gap(house: House):
    assert house.retain() == []
    assert house.rows("ris") == [11, 12], "today's stay"
    assert house.rows("orthanc-1") == [6], "the end of a chain stays, however old"
    assert house.places() == []
    with house.sessions() as session:
        assert audit.pruned(session, "ris")[0] == 10
        states = [json.loads(one)["state"] for one in session.scalars(
            select(AuditEntry.payload).where(AuditEntry.event == "audit-segment").order_by(AuditEntry.seq)
        )]  # fmt: skip
    assert states == ["sealed", "sealed", "pruned", "pruned"]
    assert house.retain() == [] and house.rows("ris") == [11, 12], "the second night has nothing to do"
    with house.sessions.begin() as session:
        audit.append(session, "ris", "viewed", NOW, who="ana")
        audit.take_over(session, [chain.seal("orthanc-1", 7, journal()[-1].hash, "stored", NOW, {"orthanc_id": "7"})])
    assert house.places() == [], "the chains go on"


def test_a_segment_is_read_without_our_software(house: House):
    house.retain()
    (file,) = folder(house.environment).glob("ris-*.gz")
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    assert [json.loads(line[65:])["seq"] for line in lines] == list(range(1, 11))
    assert all(Sealed("ris", 1, line[:64], line[65:].encode()) for line in lines)
    statement = json.loads((file.parent / f"{file.name}.json").read_text())
    known = signing.register(house.environment.signing_dir, "audit")
    assert known is not None
    signed = signing.canonical(statement["segment"])
    assert signing.holds(known.keys[-1].public_key, signed, base64.b64decode(statement["signature"]))


def test_tampering_shows_in_the_file_in_its_row_and_beside_it(house: House):
    house.retain()
    (file,) = folder(house.environment).glob("ris-*.gz")
    whole = file.read_bytes()
    file.write_bytes(gzip.compress(gzip.decompress(whole).replace(b"ana", b"rui", 1), mtime=0))
    assert house.places() == [f"segment {file.name}, chain ris, entry 1: its file is not the one that was signed"]
    file.unlink()
    assert "its file can't be read" in house.places()[0]
    file.write_bytes(whole)
    house.do("UPDATE audit_segment SET last = 9 WHERE journal = 'ris'")
    assert house.places()[0].endswith("its row is not what was signed")
    house.do("UPDATE audit_segment SET last = 10 WHERE journal = 'ris'")
    house.do("DELETE FROM audit_entry WHERE journal = 'ris' AND seq = 11")
    assert house.places() == ["central table, chain ris, entry 11: entry 11 is missing: the next one found is 12"]


def test_a_row_that_says_pruned_without_a_file_hides_no_deletion(house: House):
    """Somebody deletes old entries and writes a segment's row, as if it had been the retention."""
    house.retain()
    house.do("DELETE FROM audit_entry WHERE journal = 'ris' AND seq = 11")
    house.do(
        "INSERT INTO audit_segment SELECT journal, 11, 11, hash, file, document, signature, key_id, sealed_at,"
        " pruned_at"
        " FROM audit_segment WHERE journal = 'ris'"
    )
    assert any("its row is not what was signed" in place for place in house.places())


def test_the_archives_own_journal_is_held_against_the_segment(house: House):
    file = house.environment.journal_file
    file.parent.mkdir(parents=True)
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE meta (key TEXT, value TEXT)")
        database.execute("INSERT INTO meta VALUES ('journal', 'orthanc-1')")
        columns = "seq INTEGER, hash TEXT, payload BLOB, event TEXT, study_uid TEXT, orthanc_id TEXT"
        database.execute(f"CREATE TABLE entries ({columns})")
        for one in journal():
            row = (one.seq, one.hash, one.payload, "stored", "1.2", f"id-{one.seq}")
            database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)
    database.close()
    house.retain()
    assert house.places() == []
    forged, prev = [], ""
    for seq in range(1, 7):
        forged.append(
            chain.seal("orthanc-1", seq, prev, "stored", OLD, {"study_uid": "6.6", "orthanc_id": f"id-{seq}"})
        )
        prev = forged[-1].hash
    with sqlite3.connect(file) as database:
        for one in forged:
            database.execute(
                "UPDATE entries SET hash = ?, payload = ?, study_uid = '6.6' WHERE seq = ?",
                (one.hash, one.payload, one.seq),
            )
    database.close()
    assert house.places() == [
        "journal file, chain orthanc-1, entry 5: the sealed segment that ends with it has another one"
    ]


def test_what_lies_elsewhere_is_held_against_what_is_sealed(house: House, tmp_path: Path):
    """Somebody who has the signing key writes the old entries anew, segment and all; an old stick still knows them."""
    with house.sessions() as session:
        digest = session.get_one(AuditEntry, ("ris", 5)).hash
    stick = tmp_path / "old.log"
    house.retain()
    stick.write_text(f"urn:zambezi:audit:ris:5:{digest}\n")
    assert house.places(stick) == []
    stick.write_text(f"urn:zambezi:audit:ris:5:{'0' * 64}\n")
    (place,) = house.places(stick)
    assert place.endswith("chain ris, entry 5: old.log, entry 5, knows it with another hash")


def test_a_broken_chain_is_not_sealed(house: House):
    house.do("UPDATE audit_entry SET payload = payload || ' ' WHERE journal = 'ris' AND seq = 4")
    with pytest.raises(segments.SegmentFault, match="chain ris, entry 4: the sealed payload is not what was hashed"):
        house.retain()
    assert len(house.rows("ris")) == 12


def test_nothing_is_pruned_before_the_collector_has_it(house: House):
    settings = Audit(keep_days=365, collector=AuditCollector(host="log.lan"))
    stays = house.retain(settings)
    assert len(stays) == 2 and all("log.lan:6514 hasn't got these entries yet" in one for one in stays)
    assert len(house.rows("ris")) == 12
    with house.sessions.begin() as session:
        session.add(AuditShipment(collector="log.lan:6514", journal="ris", seq=12))
    assert [one.split(":")[0][:7] for one in house.retain(settings)] == ["orthanc"]
    assert house.rows("ris") == [11, 12]


def test_nothing_is_pruned_whose_file_or_key_does_not_hold(house: House):
    before = keeping.cut(365, NOW)
    made = list(keeping.seal(house.sessions, house.environment, before, "test", NOW))
    whole = made[0].read_bytes()
    made[0].write_bytes(gzip.compress(gzip.decompress(whole), compresslevel=1, mtime=0))

    def why() -> dict[str, str]:
        found = keeping.prune(house.sessions, house.environment, YEAR, before, "test", NOW)
        return {file: reason for file, _, reason in found}

    said = why()
    assert "its file is not the one that was signed; its entries stay" in said[made[0].name]
    assert said[made[1].name] == "", "the other chain's goes"
    made[0].write_bytes(whole)
    known = signing.register(house.environment.signing_dir, "audit")
    assert known is not None
    signing.revoke(house.environment.signing_dir, "audit", known.keys[-1].key_id, "test", "stolen", NOW)
    assert "is revoked" in why()[made[0].name]
    assert made[0].name.startswith("orthanc-1") and house.rows("orthanc-1") == list(range(1, 7))


def test_of_several_nodes_journals_nothing_is_pruned(house: House):
    several = Environment.read(
        {"ZAMBEZI_HOME": str(house.environment.home), "ZAMBEZI_NODES": "one=8042/4242,two=8142/4252"}
    )
    stays = keeping.retain(house.sessions, several, YEAR, NOW)
    assert ["other nodes" in one for one in stays] == [True]
    assert house.rows("orthanc-1") == list(range(1, 7))


def test_a_crash_between_file_and_row_leaves_nothing_in_the_way(house: House, monkeypatch: pytest.MonkeyPatch):
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(segments, "_read_back", dies)
        with pytest.raises(KeyboardInterrupt):
            house.retain()
    assert list(folder(house.environment).glob("*.gz")), "a file, and no row"
    assert house.retain() == []
    assert house.rows("ris") == [11, 12] and house.places() == []


def test_what_the_keys_register_needs_stays_in_the_table(house: House):
    with house.sessions.begin() as session:
        audit.append(session, "migration", "viewed", OLD, who="ana")
        signing.current(house.environment.signing_dir, "proof", "test", OLD)
        known = signing.register(house.environment.signing_dir, "proof")
        assert known is not None
        signing.record(session, known, "migration")
        for _ in range(2):
            audit.append(session, "migration", "viewed", OLD, who="ana")
    house.retain()
    assert house.rows("migration") == [2, 4]
    with house.sessions.begin() as session:
        signing.record(session, known, "migration")
        told = select(func.count()).select_from(AuditEntry).where(
            AuditEntry.event == "key-changed", AuditEntry.journal == "migration"
        )  # fmt: skip
        assert session.scalars(told).one() == 1, "it is not told a second time"
    assert house.places() == []
    house.do("UPDATE audit_entry SET payload = payload || ' ' WHERE journal = 'migration' AND seq = 2")
    assert house.places()[0].endswith("entry 2, which stayed in the table, is not what was sealed")


def test_the_rows_of_segments_are_few(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(segments, "MOST", 4)
    house.retain()
    with house.sessions() as session:
        rows = session.scalars(select(AuditSegment).where(AuditSegment.journal == "ris").order_by(AuditSegment.first))
        assert [(row.first, row.last) for row in rows] == [(1, 4), (5, 8), (9, 10)]
    assert house.rows("ris") == [11, 12] and house.places() == []
