"""What the archive itself sees sets off triggers in the transaction that records it: once, over any restart."""

from __future__ import annotations

from pathlib import Path

from tests.unit.plugins.test_follower import Bench

PEERS = {"HIS": {"Application": "HIS", "Host": "127.0.0.1"}}


def test_received_completed_and_updated_are_told_once_each(tmp_path: Path) -> None:
    rules = [
        {"Name": on, "On": on, "SendTo": "HIS", "Message": "ORM^O01", "When": {"Modality": ["CT"]}}
        for on in ("study-received", "study-completed", "study-updated")
    ]
    rules[1] |= {"LateImages": False}
    bench = Bench(tmp_path, {"Hl7": {"Peers": PEERS, "Triggers": rules}})
    bench.orthanc.store("i1")
    bench.orthanc.store("i2", "S2", "US")
    bench.follow()
    bench.restart()
    bench.follow(31)
    bench.orthanc.store("i3")
    bench.follow(1)
    bench.restart()
    bench.follow(31)
    told = bench.told("hl7-triggered")
    assert [(one["rule"], one["study_uid"]) for one in told] == [
        ("study-received", "3.1"), ("study-completed", "3.1"), ("study-updated", "3.1"),
    ]  # fmt: skip
    assert [(one["peer"], one["message"], one["configuration"]) for one in told] == [("HIS", "ORM^O01", "c0ffee")] * 3
