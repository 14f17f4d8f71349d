"""`audit verify`: whatever is done to the trail shows, and where; on both engines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from operations.auditing import verify
from operations.trail import keeping
from zambezi import audit, chain, checkpoints, clock, signing
from zambezi.checkpoints import CheckpointFault
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import AuditEntry, ChainHead

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


class Trail:
    """Six entries of the RIS and one of operations, all known to a signed checkpoint; two entries later on."""

    def __init__(self, session: Session, home: Path) -> None:
        self.session, self.home = session, home
        for number in range(6):
            audit.append(session, "ris", "viewed", NOW, who="ana", study_uid=f"1.2.{number}", patient_id="P1")
        self.sign()
        for _ in range(2):
            audit.append(session, "ris", "signed-out", NOW, who="ana")
        session.flush()

    def sign(self, later: int = 0) -> checkpoints.Checkpoint:
        signer = signing.current(self.home / "signing", checkpoints.PURPOSE, "test", NOW)
        return checkpoints.make(self.session, signer, NOW + timedelta(hours=later))

    def do(self, statement: str, **values: object) -> None:
        result = self.session.execute(text(statement), values)
        assert getattr(result, "rowcount", 0) >= 1, "the tampering itself must have hit"

    def entry(self, seq: int) -> AuditEntry:
        return self.session.get_one(AuditEntry, ("ris", seq))

    def reseal(self, first: int, last: int, **changed: str) -> None:
        """What somebody with the code does: new entries, sealed as they should be, from `first` to the end."""
        prev = self.entry(first - 1).hash if first > 1 else ""
        for seq in range(first, last + 1):
            row = self.entry(seq)
            facts = {**json.loads(row.payload), **changed}
            beside = {k: v for k, v in facts.items() if k not in ("journal", "seq", "prev", "event", "at")}
            made = chain.seal("ris", seq, prev, facts["event"], clock.parse(facts["at"]), beside)
            row.payload, row.hash, prev = made.payload, made.hash, made.hash
            row.who = beside["who"]
        head = self.session.get_one(ChainHead, "ris")
        head.seq, head.hash = last, prev
        self.session.flush()

    def cut(self, last: int) -> None:
        """Take the end off, and let the head say so, too."""
        self.do("DELETE FROM audit_entry WHERE journal = 'ris' AND seq > :last", last=last)
        self.do("UPDATE chain_head SET seq = :s, hash = :h WHERE journal = 'ris'", s=last, h=self.entry(last).hash)

    def places(self, *against: Path) -> list[str]:
        self.session.expire_all()
        found = verify(self.session, self.home / "none.db", self.home, against)
        return [str(place) for place in found.broken]


@pytest.fixture
def trail(tables_url: str, tmp_path: Path) -> Iterator[Trail]:
    engine = connect(tables_url, "test")
    with sessions(engine, "test")() as session:
        yield Trail(session, tmp_path)
        session.rollback()
    engine.dispose()


def swap(trail: Trail) -> None:
    trail.do("UPDATE audit_entry SET seq = 99 WHERE journal = 'ris' AND seq = 3")
    trail.do("UPDATE audit_entry SET seq = 3 WHERE journal = 'ris' AND seq = 4")
    trail.do("UPDATE audit_entry SET seq = 4 WHERE journal = 'ris' AND seq = 99")


def insert(trail: Trail) -> None:
    """An entry of somebody's own between the third and the fourth; what is behind it moves on."""
    for seq in range(8, 3, -1):
        trail.do("UPDATE audit_entry SET seq = :n WHERE journal = 'ris' AND seq = :o", n=seq + 1, o=seq)
    made = chain.seal("ris", 4, trail.entry(3).hash, "viewed", NOW, {"who": "rui"})
    audit_columns = {"journal": "ris", "seq": 4, "hash": made.hash, "payload": made.payload}
    trail.session.add(AuditEntry(**audit_columns, event="viewed", at=made.facts["at"], who="rui"))
    trail.do("UPDATE chain_head SET seq = 9 WHERE journal = 'ris'")
    trail.session.flush()


def edit(trail: Trail) -> None:
    changed = trail.entry(3).payload.replace(b'"ana"', b'"rui"')
    trail.do("UPDATE audit_entry SET payload = :p WHERE journal = 'ris' AND seq = 3", p=changed)


CENTRAL = "central table, chain ris, entry"
CHECKPOINT = "checkpoint 1 of 2026-03-01 08:30"
TAMPERING: dict[str, tuple[Callable[[Trail], None], list[str]]] = {
    "nothing": (lambda trail: None, []),
    "edited": (edit, [f"{CENTRAL} 3: the sealed payload is not what was hashed"]),
    "edited, and sealed anew alone": (
        lambda trail: (trail.reseal(3, 3, who="rui"), trail.do("UPDATE chain_head SET seq = 8, hash = :h"
                       " WHERE journal = 'ris'", h=trail.entry(8).hash))[0],
        [f"{CENTRAL} 4: its predecessor is not the entry before it"],
    ),
    "edited, and all behind it sealed anew": (
        lambda trail: trail.reseal(3, 8, who="rui"),
        [f"{CENTRAL} 6: {CHECKPOINT} knows it with another hash: it was sealed anew, or restored"],
    ),
    "removed": (
        lambda trail: trail.do("DELETE FROM audit_entry WHERE journal = 'ris' AND seq = 3"),
        [f"{CENTRAL} 3: entry 3 is missing: the next one found is 4"],
    ),
    "swapped": (swap, [f"{CENTRAL} 3: its predecessor is not the entry before it"]),
    "inserted": (insert, [f"{CENTRAL} 5: its predecessor is not the entry before it"]),
    "its end cut off": (
        lambda trail: trail.do("DELETE FROM audit_entry WHERE journal = 'ris' AND seq > 6"),
        [f"{CENTRAL} 7: the chain ends here, but its head says 8 entries"],
    ),
    "its end cut off, and its head changed": (
        lambda trail: trail.cut(4),
        [f"{CENTRAL} 5: the chain ends here, but {CHECKPOINT} knows entry 6: its end was cut off, or restored"],
    ),
    "taken away whole": (
        lambda trail: (trail.do("DELETE FROM audit_entry WHERE journal = 'ris'"),
                       trail.do("DELETE FROM chain_head WHERE journal = 'ris'"))[0],
        [f"{CENTRAL} 1: the whole chain is gone; {CHECKPOINT} knows it"],
    ),
    "its head taken away": (
        lambda trail: trail.do("DELETE FROM chain_head WHERE journal = 'ris'"),
        [f"{CENTRAL} 1: entries of a chain that has no head"],
    ),
    "what it is searched by changed": (
        lambda trail: trail.do("UPDATE audit_entry SET patient_id = 'P2' WHERE seq = 2 AND journal = 'ris'"),
        [f"{CENTRAL} 2: column patient_id is not what the sealed payload says"],
    ),
    "a failure hidden": (
        lambda trail: trail.do("UPDATE audit_entry SET outcome = 4 WHERE seq = 2 AND journal = 'ris'"),
        [f"{CENTRAL} 2: column outcome is not what the sealed payload says"],
    ),
    "the checkpoint edited": (
        lambda trail: trail.do("UPDATE audit_checkpoint SET document = :d", d=b'{"at":"","before":"","chains":{},'
                               b'"format":"zambezi audit checkpoint 1","key_id":"' + _key(trail) + b'","number":1}'),
        ["checkpoints, chain audit, entry 1: its signature doesn't hold"],
    ),
}  # fmt: skip


def _key(trail: Trail) -> bytes:
    known = signing.register(trail.home / "signing", checkpoints.PURPOSE)
    assert known is not None
    return known.keys[-1].key_id.encode()


@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_is_named_where_it_is(trail: Trail, what: str):
    tamper, expected = TAMPERING[what]
    tamper(trail)
    assert trail.places() == expected


def test_a_checkpoint_taken_out_of_the_row_of_them_is_missed(trail: Trail):
    for later in (1, 2):
        audit.append(trail.session, "ris", "signed-in", NOW, who="ana")
        trail.sign(later)
    assert trail.places() == []
    trail.do("DELETE FROM audit_checkpoint WHERE number = 2")
    assert trail.places() == ["checkpoints, chain audit, entry 3: checkpoint 2 is missing: the next one found is 3"]


def test_a_checkpoint_by_a_key_of_somebodys_own_is_not_believed(trail: Trail, tmp_path: Path):
    forger = signing.current(tmp_path / "elsewhere", checkpoints.PURPOSE, "test", NOW)
    trail.do("DELETE FROM audit_checkpoint")
    trail.cut(4)
    checkpoints.make(trail.session, forger, NOW)
    (found,) = trail.places()
    assert found.endswith(f"its key {forger.key_id} is not in the register of signing keys")


def test_what_lies_elsewhere_shows_what_the_machine_itself_no_longer_knows(trail: Trail, tmp_path: Path):
    """Somebody with every right on the machine cuts the end off and takes the checkpoints away."""
    outside = tmp_path / "stick.json"
    outside.write_bytes(trail.sign(1).to_json() + b"\n")
    log = tmp_path / "collector.log"
    log.write_text("".join(
        f"<85>1 - x urn:zambezi:audit:ris:{seq}:{trail.entry(seq).hash}</x>\n" for seq in range(1, 9)
    ))  # fmt: skip
    assert trail.places(outside, log) == []
    trail.do("DELETE FROM audit_checkpoint")
    trail.cut(4)
    assert trail.places() == []
    assert trail.places(outside) == [
        f"{CENTRAL} 5: the chain ends here, but checkpoint 2 of 2026-03-01 09:30 in stick.json knows entry 8: "
        "its end was cut off, or restored"
    ]
    assert trail.places(log) == [
        f"{CENTRAL} 5: the chain ends here, but collector.log, entry 8, knows entry 8: its end was cut off, or restored"
    ]
    forged = json.loads(outside.read_text())
    forged["checkpoint"]["chains"]["ris"][0] = 4
    outside.write_text(json.dumps(forged))
    with pytest.raises(CheckpointFault, match=r"stick.json: checkpoint 2: its signature doesn't hold"):
        trail.places(outside)


def test_a_checkpoint_is_due_when_something_was_recorded_and_the_last_is_old(trail: Trail):
    assert not checkpoints.due(trail.session, 60, NOW + timedelta(minutes=59))
    assert checkpoints.due(trail.session, 60, NOW + timedelta(minutes=60))
    trail.sign(1)
    assert not checkpoints.due(trail.session, 60, NOW + timedelta(hours=9)), "nothing was recorded since"
    audit.append(trail.session, "ris", "signed-in", NOW, who="ana")
    assert checkpoints.due(trail.session, 60, NOW - timedelta(days=1)), "a clock that was put back stops nothing"


def test_months_are_whole():
    assert keeping.cut(365, datetime(2026, 3, 31, tzinfo=UTC)) == datetime(2025, 3, 1, tzinfo=UTC)
