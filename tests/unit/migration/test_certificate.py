import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration import certificate
from zambezi.database.tables import Certificate


def instance(number: int, verdict: str = "equal") -> dict[str, object]:
    digest = f"{number:064x}"
    level = 3 if verdict == "equal" else 1
    return {"series_uid": "1.4", "sop_uid": f"1.3.{number}", "verdict": verdict, "level": level,
            "source_digest": digest, "stored_digest": digest, "stored_md5": "0" * 32}  # fmt: skip


def a_certificate(tmp_path, *instances) -> bytes:
    studies = [{"study_uid": "1.2", "date": "20200101", "modalities": "CT", "state": "verified", "reason": "",
                "verified_at": None, "instances": list(instances)}]  # fmt: skip
    content = {"format": certificate.FORMAT, "project": "p", "studies": studies, **certificate.summary(studies)}
    key = certificate.signing_key(tmp_path / "keys" / "certificate.pem")
    return sealed(content, key)


def sealed(content, key) -> bytes:
    import base64

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    body = certificate.canonical(content)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    signature = base64.b64encode(key.sign(body)).decode()
    row = Certificate(project_id=1, issued_at=str(datetime.now(UTC)), document=body, signature=signature,
                      public_key=public)  # fmt: skip
    return certificate.to_file(row)


def test_a_certificate_as_it_was_issued_holds(tmp_path):
    assert certificate.faults(a_certificate(tmp_path, instance(1), instance(2))) == []


def test_the_key_is_readable_by_its_owner_only_and_made_once(tmp_path):
    file = tmp_path / "keys" / "certificate.pem"
    one, other = certificate.signing_key(file), certificate.signing_key(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert one.private_bytes_raw() == other.private_bytes_raw()


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
    key = certificate.signing_key(tmp_path / "keys" / "certificate.pem")
    assert certificate.faults(sealed(whole["certificate"], key)) == ["counts is not what the list of instances gives"]


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
