import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from migration import certificate, certificate_pdf, cutover, verifier
from migration.commands import migrate
from zambezi import audit, clock, signing
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import (
    AuditEntry,
    Base,
    Certificate,
    ExceptionItem,
    MigrationExtra,
    MigrationInstance,
    MigrationProject,
    MigrationSample,
    MigrationStudy,
)

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
AT = clock.text(NOW)


def instance(number: int, **more) -> MigrationInstance:
    digest = f"{number:064x}"
    said = {"verdict": "equal", "level": 3, "arrived_sha256": "e" * 64, "stored_md5": "0" * 32, "source_digest": digest,
            "stored_digest": digest, "size": 1000 + number, "stored_syntax": "1.2.840.10008.1.2.1"}  # fmt: skip
    return MigrationInstance(sop_uid=f"1.3.{number}", series_uid="1.4", **{**said, **more})


def study(uid: str, *rows: MigrationInstance, **more) -> tuple[MigrationStudy, tuple[MigrationInstance, ...]]:
    said = {"study_date": "20200101", "modalities": "CT", "state": "verified", "verified_at": AT, "next_at": AT}
    level = min((row.level for row in rows), default=0)
    return MigrationStudy(study_uid=uid, level=level, **{**said, **more}), rows


def issued(
    folder: Path,
    *studies,
    sample: MigrationSample | None = None,
    name: str = "p",
    extras: Sequence[MigrationExtra] = (),
) -> bytes:
    """The certificate's file, from a ledger with these studies."""
    engine = connect(f"sqlite:///{folder}/ledger.db", "test")
    Base.metadata.create_all(engine)
    opened = sessions(engine, "test")
    project_id = write(opened, *studies, sample=sample, name=name, extras=extras)
    signer = signing.current(folder / "signing", "certificate", "ana", NOW)
    number = certificate.issue(opened, project_id, signer, {}, "ana", NOW)
    return b"".join(certificate.lines(opened, number))


def write(
    opened: Sessions,
    *studies,
    sample: MigrationSample | None = None,
    name: str = "p",
    extras: Sequence[MigrationExtra] = (),
) -> int:
    """The ledger of a finished migration with these studies; the project's id."""
    with opened.begin() as session:
        project = MigrationProject(name=name, source="OLD", state="finished", created_at=AT, updated_at=AT, plan={})
        session.add(project)
        session.flush()
        for one, rows in studies:
            one.project_id = project.id
            session.add(one)
            session.flush()
            for row in rows:
                row.study_id = one.id
            session.add_all(rows)
        for extra in extras:
            extra.study_id = studies[0][0].id
        session.add_all(extras)
        if sample:
            sample.project_id = project.id
            session.add(sample)
        session.add(ExceptionItem(room="migration", reference="1.2.9", what="", since=AT, decided_at=AT,
                                  decided_by="rui", decision="it is not ours"))  # fmt: skip
        return project.id


def examined(file: bytes) -> verifier.Examined:
    return verifier.examine(io.BytesIO(file))


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("good")
    return issued(folder, study("1.2.1", instance(1), instance(2)), study("1.2.2", instance(3)))


def resealed(file: bytes, folder: Path, change) -> bytes:
    """The certificate, changed and signed anew by somebody else who has a key."""
    first, *lines, _ = file.splitlines()
    signer = signing.current(folder / "thief", "certificate", "eva", NOW)
    head = json.loads(first) | {"key_id": signer.key_id, "public_key": signer.public_key}
    lines = change(head, [json.loads(line) for line in lines])
    body = verifier.canonical(head)
    return b"\n".join(
        [body, *map(verifier.canonical, lines), verifier.canonical({"signature": signer.sign(body)}), b""]
    )


def test_a_certificate_as_it_was_issued_holds_and_counts(tmp_path):
    left = study("1.2.9", instance(4, verdict="missing", level=0, arrived_sha256=None, stored_digest=None, size=None),
                 state="waived", reason="it is not there", study_date="", verified_at=None)  # fmt: skip
    found = examined(issued(tmp_path, study("1.2.1", instance(1), instance(2, level=2, verdict="stored")), left))
    assert found.faults == []
    counts = found.head["counts"]
    assert counts["instances_by_level"] == {"0": 1, "2": 1, "3": 1}
    assert counts["bytes_by_level"] == {"0": 0, "2": 1002, "3": 1001}
    assert counts["studies_by_state"] == {"verified": 1, "waived": 1}
    assert counts["studies_by_year"] == {"2020": 1, "undated": 1}
    assert counts["transfer_syntaxes"] == {"1.2.840.10008.1.2.1": 3}


def test_who_decided_what_stands_there(tmp_path):
    file = issued(tmp_path, study("1.2.9", state="waived", verified_at=None))
    (said,) = (json.loads(line) for line in file.splitlines() if b'"study":"1.2.9"' in line)
    (decided,) = said["decisions"]
    assert (decided["by"], decided["decision"]) == ("rui", "it is not ours")


def test_what_lay_beside_the_images_stands_on_their_lines_and_is_counted(tmp_path):
    named = {"state": "carried", "sha256": "a" * 64, "size": 6, "reason": ""}
    beside = [
        MigrationExtra(level="study", uid="1.2.1", kind="metadata", name="1025", **named),
        MigrationExtra(level="instance", uid="1.3.1", kind="attachment", name="1030", **named),
        MigrationExtra(level="patient", uid="", kind="label", name="vip", state="left", reason="no labels", size=0),
    ]
    file = issued(tmp_path, study("1.2.1", instance(1)), extras=beside)
    found = examined(file)
    assert found.faults == []
    assert found.head["counts"]["extras"] == {"attachment carried": 1, "label left": 1, "metadata carried": 1}
    of_study, of_instance = (json.loads(line).get("extras") for line in file.splitlines()[1:3])
    assert of_instance == [{"kind": "attachment", "name": "1030", "state": "carried", "size": 6, "sha256": "a" * 64}]
    assert [(one["level"], one.get("of"), one["name"], one["state"]) for one in of_study] == [
        ("patient", None, "vip", "left"), ("study", "1.2.1", "1025", "carried"),
    ]  # fmt: skip
    for said in (b"label left", b'"state":"left"', b'"name":"1030"'):
        assert examined(file.replace(said, said.swapcase())).faults, said
    for language in ("en", "pt"):
        pdf = certificate_pdf.of(sessions(connect(f"sqlite:///{tmp_path}/ledger.db", "test"), "test"), 1, language, "H",
                                 ZoneInfo("Africa/Maputo"))  # fmt: skip
        assert pdf.startswith(b"%PDF-")


@given(st.data())
def test_any_changed_byte_is_found(good, data):
    at = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != good[at]))
    assert examined(good[:at] + bytes([other]) + good[at + 1 :]).faults


def test_the_changed_line_is_named(good):
    lines = good.splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"verdict":"equal"', b'"verdict":"stored"')
    faults = examined(b"".join(lines)).faults
    assert "line 3, instance 1.3.1: it was changed" in faults
    assert "line 2, study 1.2.1: its instances are not those that were certified" in faults
    assert not any("1.2.2" in fault for fault in faults)


@pytest.mark.parametrize(("taken", "named"), [(1, "line 1"), (2, "line 2, study 1.2.1: 1 instances too few"),
                                              (4, "line 2, study 1.2.1: 1 instances too many")])  # fmt: skip
def test_lines_that_were_taken_out_are_missed(good, taken, named):
    lines = good.splitlines(keepends=True)
    del lines[taken]
    assert any(
        fault.startswith(named) or "not what the lines give" in fault for fault in examined(b"".join(lines)).faults
    )
    assert examined(good[:-3]).faults  # cut off


def test_a_signed_lie_is_found_in_what_it_says(good, tmp_path):
    def lie(head, lines):
        head["counts"]["instances_by_verdict"] = {"equal": 4}
        return lines

    assert examined(resealed(good, tmp_path, lambda _, lines: lines)).faults == []
    assert examined(resealed(good, tmp_path, lie)).faults == ["counts is not what the lines give"]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (instance(1, source_digest="f" * 64), "called equal to the source"),
        (
            instance(1, level=2, verdict="stored", arrived_sha256=None, stored_digest=None),
            "without a digest of what arrived",
        ),
        (instance(1, coerced="(0010,0020)"), "nothing was declared"),
    ],
)
def test_an_instance_is_proven_no_further_than_its_digests_say(tmp_path, row, fault):
    faults = examined(issued(tmp_path, study("1.2.1", row))).faults
    assert len(faults) == 1
    assert fault in faults[0]


def test_the_same_bytes_on_both_sides_are_proof_enough(tmp_path):
    nothing = {"arrived_sha256": None, "stored_digest": None, "source_digest": None}
    same, other = instance(1, source_md5="0" * 32, **nothing), instance(2, source_md5="1" * 32, **nothing)
    assert examined(issued(tmp_path, study("1.2.1", same))).faults == []
    (tmp_path / "other").mkdir()
    assert len(examined(issued(tmp_path / "other", study("1.2.1", other))).faults) == 1


def test_the_sample_can_be_drawn_again_from_the_certificate(tmp_path):
    uids = [f"1.2.{n}" for n in range(30)]
    drawn = sorted(uids, key=lambda uid: verifier.rank("s", uid))[:10]
    sample = MigrationSample(asked=10, seed="s", threshold=verifier.rank("s", drawn[-1]), population=30, drawn_at=AT,
                             drawn_by="ana")  # fmt: skip
    rows = [study(uid, instance(n, level=3 if uid in drawn else 2)) for n, uid in enumerate(uids)]
    file = issued(tmp_path, *rows, sample=sample)
    found = examined(file)
    assert found.faults == []
    assert (
        found.head["sample"] | {"drawn": 10, "compared": 10, "differing": 0, "bound": 0.258866} == found.head["sample"]
    )

    def other_seed(head, lines):
        head["sample"]["seed"] = "t"
        return lines

    assert "the draw of the sample says otherwise" in "".join(examined(resealed(file, tmp_path, other_seed)).faults)


@pytest.mark.parametrize(
    ("differing", "compared", "expected"),
    # 0: 1 - 0.05 ** (1 / n), near 3 / n (rule of three); others from tables of Clopper and Pearson.
    [(0, 500, 0.005974), (0, 3000, 0.000998), (1, 500, 0.009452), (5, 500, 0.020911), (0, 0, 1.0), (3, 3, 1.0)],
)
def test_the_bound_is_that_of_clopper_and_pearson(differing, compared, expected):
    assert verifier.bound(differing, compared) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    "junk", [b"", b"{}\n", b"[]\n", b'{"format":"x"}\n', b'{"format": "zambezi', b"\xff\n", b"1\n"]
)
def test_what_is_no_certificate_is_said_to_be_none(junk):
    assert "not a certificate" in examined(junk).faults[0]


@given(st.lists(st.binary(max_size=8), max_size=40), st.data())
def test_the_root_is_that_of_the_rfc_and_changes_with_any_leaf(leaves, data):
    def root(of):
        merkle = verifier.Merkle()
        for leaf in of:
            merkle.add(leaf)
        return merkle.root

    def split(of):
        """RFC 6962, 2.1."""
        if len(of) == 1:
            return hashlib.sha256(b"\0" + of[0]).digest()
        half = 1 << (len(of) - 1).bit_length() - 1
        return hashlib.sha256(b"\1" + split(of[:half]) + split(of[half:])).digest()

    assert root(leaves) == (split(leaves) if leaves else hashlib.sha256(b"").digest()).hex()
    if leaves:
        n = data.draw(st.integers(0, len(leaves) - 1))
        assert root(leaves) != root([*leaves[:n], leaves[n] + b"x", *leaves[n + 1 :]])


def test_a_certificate_is_issued_for_a_finished_migration_alone(tmp_path):
    with pytest.raises(certificate.NotFinished, match="1 studies of p are still under way"):
        issued(tmp_path, study("1.2.1", instance(1), state="moving"))


@pytest.fixture
def opened(tables_url: str, monkeypatch) -> Iterator[Sessions]:
    """Of the process migration; each study's lines are a part, which is committed by itself."""
    monkeypatch.setattr(certificate, "_PART", 1)
    engine = connect(tables_url, "migration")
    yield sessions(engine, "migration")
    engine.dispose()


def whole(opened: Sessions, made: Certificate) -> list[str]:
    """The faults of a certificate in the database."""
    return examined(b"".join(certificate.lines(opened, made.id))).faults


@pytest.mark.parametrize("tables_url", ["sqlite"], indirect=True)
def test_a_death_at_any_commit_of_its_issue_leaves_none_that_is_shown_or_holds(opened, tables_url, tmp_path):
    project_id = write(opened, *(study(f"1.2.{n}", instance(n)) for n in range(2)))
    signer, crash = signing.current(tmp_path, "certificate", "ana", NOW), tmp_path / "migration"

    def dies_at(n: int) -> bool:
        crash.write_text(str(n))
        child = os.fork()
        if not child:
            os.environ["ZAMBEZI_CRASH_DIR"] = str(tmp_path)
            certificate.issue(sessions(connect(tables_url, "migration"), "migration"), project_id, signer, {}, "ana",
                              NOW + timedelta(seconds=n))  # fmt: skip
            os._exit(0)
        crash.unlink(missing_ok=(status := os.waitpid(child, 0)[1]) != 0)
        return os.waitstatus_to_exitcode(status) == 137

    left: list[tuple[bool, str, int]] = []
    while dies_at(len(left) + 1):
        with opened.begin() as session:
            shown, rows = certificate.latest(session, project_id), session.query(Certificate).all()
            state = session.get_one(MigrationProject, project_id).state
            told = session.query(AuditEntry).filter_by(event="migration-certified").count()
            assert cutover.facts(session, session.get_one(MigrationProject, project_id), NOW).is_certificate_last == (
                shown is not None
            )
        left.append((shown is not None, state, told))
        assert all(bool(whole(opened, made)) == (made.signature == "") for made in rows), "half of one holds"
    # Before and after each commit: the row, two parts, the head. Only the last makes it a certificate.
    assert left == [(False, "finished", 0)] * 7 + [(True, "certified", 1)]
    number = certificate.issue(opened, project_id, signer, {}, "ana", NOW + timedelta(days=2))
    with opened.begin() as session:
        last = certificate.latest(session, project_id)
        assert (last.id, [one.signature == "" for one in session.query(Certificate)]) == (number, [False] * 3)
        assert audit.verify(session) == []
    assert whole(opened, last) == []
    # And where the clock was put back since.
    later = certificate.issue(opened, project_id, signer, {}, "ana", NOW - timedelta(hours=5))
    with opened.begin() as session:
        assert certificate.latest(session, project_id).id == later
        assert cutover.facts(session, session.get_one(MigrationProject, project_id), NOW).is_certificate_last
        session.query(MigrationStudy).first().state = "waived"
        assert not cutover.facts(session, session.get_one(MigrationProject, project_id), NOW).is_certificate_last


def test_one_that_was_taken_for_dead_after_a_jump_of_the_clock_is_not_signed(opened, tmp_path, monkeypatch):
    project_id = write(opened, *(study(f"1.2.{n}", instance(n)) for n in range(3)))
    signer, really, others = signing.current(tmp_path, "certificate", "ana", NOW), certificate._studies, []

    def meanwhile(*which):
        first, *rest = really(*which)
        yield first
        if not others:
            monkeypatch.setattr(certificate, "_studies", really)
            others.append(certificate.issue(opened, project_id, signer, {}, "rui", NOW + timedelta(days=3)))
        yield from rest

    monkeypatch.setattr(certificate, "_studies", meanwhile)
    with pytest.raises(certificate.NotFinished, match="cleared it away"):
        certificate.issue(opened, project_id, signer, {}, "ana", NOW)
    with opened.begin() as session:
        (made,) = session.query(Certificate).all()
    assert [made.id] == others
    assert whole(opened, made) == []


def run(*arguments: str) -> Result:
    return CliRunner().invoke(migrate, ["verify-certificate", *arguments])


def test_the_command_wants_to_know_whose_key_it_is(tmp_path, monkeypatch):
    file, keys = tmp_path / "certificate.jsonl", tmp_path / "keys.json"
    file.write_bytes(issued(tmp_path, study("1.2.1", instance(1))))
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
    told = json.loads(run(str(file), "--keys", str(keys), "--json").output)
    assert (told["holds"], told["head"]["project"]) == (True, "p")
    signing.rotate(folder, "certificate", "ana", "every year", NOW)
    keys.write_bytes((signing.register(folder, "certificate") or known).to_json())
    assert "followed by another since" in run(str(file), "--keys", str(keys)).output
    keys.write_bytes(signing.revoke(folder, "certificate", key_id, "ana", "stolen", NOW).to_json())
    assert "was revoked" in run(str(file), "--keys", str(keys)).output
    signing.current(tmp_path / "other", "certificate", "eva", NOW)
    keys.write_bytes((signing.register(tmp_path / "other", "certificate") or known).to_json())
    assert "not one of the installation's" in run(str(file), "--keys", str(keys)).output
    keys.write_text("{}")
    refused = run(str(file), "--keys", str(keys))
    assert refused.exit_code == 1
    assert "not a register of signing keys" in refused.output
