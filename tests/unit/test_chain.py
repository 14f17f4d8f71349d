import dataclasses

import pytest

from zambezi import chain, clock


def a_chain(length: int) -> list[chain.Sealed]:
    entries: list[chain.Sealed] = []
    prev = ""
    for seq in range(1, length + 1):
        entries.append(chain.seal("j", seq, prev, "stored", clock.now(), {"sop_uid": f"1.2.{seq}"}))
        prev = entries[-1].hash
    return entries


def test_a_whole_chain_holds():
    assert chain.first_broken(a_chain(5)) is None


@pytest.mark.parametrize("where", [0, 2, 4])
def test_a_changed_byte_in_the_payload_names_its_entry(where):
    entries = a_chain(5)
    entries[where] = dataclasses.replace(entries[where], payload=entries[where].payload.replace(b"1.2.", b"1.3."))
    assert chain.first_broken(entries) == chain.Broken("j", where + 1, "the sealed payload is not what was hashed")


def test_an_entry_resealed_after_a_change_breaks_its_successor():
    entries = a_chain(3)
    entries[1] = chain.seal("j", 2, entries[0].hash, "stored", clock.now(), {"sop_uid": "9.9"})
    broken = chain.first_broken(entries)
    assert broken is not None
    assert broken.seq == 3


def test_a_removed_entry_is_missed():
    entries = a_chain(4)
    del entries[1]
    broken = chain.first_broken(entries)
    assert broken is not None
    assert (broken.seq, "missing" in broken.why) == (2, True)
