import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from migration import certificate
from migration.commands import migrate
from zambezi import clock, signing
from zambezi.database.tables import Certificate

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)


def instance(number: int, verdict: str = "equal") -> dict[str, object]:
    digest = f"{number:064x}"
    level = 3 if verdict == "equal" else 1
    return {"series_uid": "1.4", "sop_uid": f"1.3.{number}", "verdict": verdict, "level": level,
            "source_digest": digest, "stored_digest": digest, "stored_md5": "0" * 32}  # fmt: skip


def a_certificate(tmp_path, *instances) -> bytes:
    studies = [{"study_uid": "1.2", "date": "20200101", "modalities": "CT", "state": "verified", "reason": "",
                "verified_at": None, "instances": list(instances)}]  # fmt: skip
    signer = signing.current(tmp_path / "signing", "certificate", "ana", NOW)
    content = {"format": certificate.FORMAT, "project": "p", "studies": studies, "key_id": signer.key_id,
               **certificate.summary(studies)}  # fmt: skip
    return sealed(content, signer)


def sealed(content, signer) -> bytes:
    body = signing.canonical(content)
    row = Certificate(project_id=1, issued_at=clock.text(NOW), document=body, signature=signer.sign(body),
                      public_key=signer.public_key)  # fmt: skip
    return certificate.to_file(row)


def test_a_certificate_as_it_was_issued_holds(tmp_path):
    assert certificate.faults(a_certificate(tmp_path, instance(1), instance(2))) == []


@pytest.mark.parametrize("changed", ["project", "verdict", "sop_uid", "stored_digest"])
def test_any_change_is_found(tmp_path, changed):
    whole = json.loads(a_certificate(tmp_path, instance(1), instance(2)))
    if changed == "project":
        whole["certificate"]["project"] = "q"
    else:
        whole["certificate"]["studies"][0]["instances"][1][changed] = "different"
    assert any("signature" in fault for fault in certificate.faults(json.dumps(whole).encode()))


def test_a_signed_lie_about_the_sums_is_found(tmp_path):
    whole = json.loads(a_certificate(tmp_path, instance(1, "missing")))
    whole["certificate"]["counts"]["instances_by_verdict"] = {"equal": 1}
    signer = signing.current(tmp_path / "signing", "certificate", "ana", NOW)
    assert certificate.faults(sealed(whole["certificate"], signer)) == [
        "counts is not what the list of instances gives"
    ]


def test_an_instance_called_equal_needs_two_equal_digests(tmp_path):
    lie = instance(1) | {"source_digest": "f" * 64}
    assert "instance 1.3.1 is called equal, but its digests differ" in certificate.faults(a_certificate(tmp_path, lie))


@pytest.mark.parametrize("junk", [b"", b"{}", b"[]", b'{"certificate": {}, "signature": "", "public_key": "x"}'])
def test_what_is_no_certificate_is_said_to_be_none(junk):
    assert "not a certificate" in certificate.faults(junk)[0]


@given(st.lists(st.text(max_size=8), max_size=40), st.data())
def test_the_root_changes_with_any_leaf(leaves, data):
    root = certificate.merkle_root(leaves)
    assert root == certificate.merkle_root(leaves)
    assert root != certificate.merkle_root([*leaves, "one more"])
    if leaves:
        n = data.draw(st.integers(0, len(leaves) - 1))
        assert root != certificate.merkle_root([*leaves[:n], leaves[n] + "x", *leaves[n + 1 :]])


def test_a_certificate_that_shows_another_key_than_it_names_is_refused(tmp_path):
    whole = json.loads(a_certificate(tmp_path, instance(1)))
    other = signing.current(tmp_path / "other", "certificate", "eva", NOW)
    forged = {**whole, "public_key": other.public_key, "signature": other.sign(signing.canonical(whole["certificate"]))}
    assert certificate.faults(json.dumps(forged).encode()) == ["the key that it shows is not the key that it names"]


def test_a_retired_key_is_accepted_and_an_unknown_or_revoked_one_is_not(tmp_path):
    folder = tmp_path / "signing"
    file = a_certificate(tmp_path, instance(1))
    first = signing.current(folder, "certificate", "ana", NOW).key_id
    known = signing.rotate(folder, "certificate", "ana", "every year", NOW)
    assert known.state(first) == "retired"
    assert certificate.faults(file, known) == []
    signing.current(tmp_path / "other", "certificate", "eva", NOW)
    (fault,) = certificate.faults(file, signing.register(tmp_path / "other", "certificate"))
    assert "not one of the installation's" in fault
    (fault,) = certificate.faults(file, signing.revoke(folder, "certificate", first, "ana", "stolen", NOW))
    assert "was revoked" in fault


def run(*arguments: str) -> Result:
    return CliRunner().invoke(migrate, ["verify-certificate", *arguments])


def test_the_command_wants_to_know_whose_key_it_is(tmp_path, monkeypatch):
    file, keys = tmp_path / "certificate.json", tmp_path / "keys.json"
    file.write_bytes(a_certificate(tmp_path, instance(1)))
    folder = tmp_path / "signing"
    known = signing.register(folder, "certificate")
    assert known is not None
    keys.write_bytes(known.to_json())
    key_id = known.keys[0].key_id

    monkeypatch.setenv("ZAMBEZI_HOME", str(tmp_path))
    assert run(str(file)).exit_code == 0
    monkeypatch.setenv("ZAMBEZI_HOME", str(tmp_path / "elsewhere"))
    nobodys = run(str(file))
    assert nobodys.exit_code == 1
    assert f"signed with key {key_id}, and nothing here says whose key that is" in nobodys.output
    assert run(str(file), "--key-id", key_id).exit_code == 0
    assert run(str(file), "--key-id", key_id[::-1]).exit_code == 1
    assert run(str(file), "--keys", str(keys)).exit_code == 0
    signing.rotate(folder, "certificate", "ana", "every year", NOW)
    keys.write_bytes(signing.revoke(folder, "certificate", key_id, "ana", "stolen", NOW).to_json())
    assert "was revoked" in run(str(file), "--keys", str(keys)).output
    keys.write_text("{}")
    refused = run(str(file), "--keys", str(keys))
    assert refused.exit_code == 1
    assert "not a register of signing keys" in refused.output
