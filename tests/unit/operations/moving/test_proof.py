"""The proof of a move: it holds as it was made, and nothing in it can be changed unseen."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from operations.moving import proof
from operations.moving.ledger import Ledger
from operations.moving.source import Other, Row
from zambezi import clock, signing
from zambezi.signing import Register


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Register]:
    ledger = Ledger(tmp_path / "ledger.db")
    rows = [Row(f"id{n}", f"1.{n}", f"uuid{n}", 1, 10 + n, f"md5-{n}") for n in range(3)]
    ledger.list_anew(rows, [Other("instances", "id0", "metadata", 3, "CT1")])
    ledger.set_found([("proven", "", r.sop_uid, r.size, r.md5, r.orthanc_id) for r in rows])
    folder = tmp_path / "proof"
    lists = proof.write_lists(ledger, folder)
    ledger.close()
    signer = signing.current(tmp_path / "signing", proof.PURPOSE, "test", clock.now())
    proof.write(folder, {"instances": 3, "bytes": 33, "lists": lists}, signer)
    known = signing.register(tmp_path / "signing", proof.PURPOSE)
    assert known
    return folder, known


def test_a_proof_holds_as_it_was_made(made: tuple[Path, Register]):
    folder, known = made
    assert proof.faults(folder, known) == []
    assert gzip.decompress((folder / proof.BEFORE).read_bytes()) == gzip.decompress((folder / proof.AFTER).read_bytes())
    assert b"CT1" in gzip.decompress((folder / proof.OTHERS).read_bytes())


def test_a_changed_list_is_found(made: tuple[Path, Register]):
    folder, known = made
    content = gzip.decompress((folder / proof.AFTER).read_bytes())
    (folder / proof.AFTER).write_bytes(gzip.compress(content.replace(b"md5-1", b"md5-9")))
    assert proof.faults(folder, known) == ["instances-after.tsv.gz is not the list that was signed"]


def test_a_list_that_was_cut_off_is_found(made: tuple[Path, Register]):
    folder, known = made
    (folder / proof.BEFORE).write_bytes((folder / proof.BEFORE).read_bytes()[:-9])
    assert proof.faults(folder, known) == ["instances-before.tsv.gz is not the list that was signed"]


def test_a_changed_page_and_a_strangers_key_are_found(made: tuple[Path, Register], tmp_path: Path):
    folder, known = made
    whole = json.loads((folder / "proof.json").read_bytes())
    whole["proof"]["instances"] = 2
    (folder / "proof.json").write_text(json.dumps(whole))
    assert "the signature does not fit: the proof was changed after it was signed" in proof.faults(folder, known)
    strangers = signing.current(tmp_path / "strangers", proof.PURPOSE, "x", clock.now())
    proof.write(folder, {"instances": 3, "lists": whole["proof"]["lists"]}, strangers)
    assert "is unknown to this installation" in proof.faults(folder, known)[0]


def test_what_is_no_proof_is_said_to_be_none(tmp_path: Path):
    assert "not the folder of a proof" in proof.faults(tmp_path, None)[0]
