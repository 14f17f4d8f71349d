"""Signing keys: one follows another, the register proves it, and every change is in the audit trail."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from operations.key_commands import key as key_commands
from operations.status import look
from operations.status_commands import lines
from zambezi import audit, clock, signing
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import AuditEntry, Base, ExceptionItem
from zambezi.environment import REPOSITORY, Environment
from zambezi.signing import Register, SigningFault

PURPOSE = "certificate"
DAY = datetime(2026, 3, 1, 8, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "signing"


def later(days: int) -> datetime:
    return DAY + timedelta(days=days)


def register(folder: Path) -> Register:
    found = signing.register(folder, PURPOSE)
    assert found is not None
    return found


def test_the_first_key_is_made_when_it_is_needed_and_stays(folder: Path) -> None:
    assert signing.register(folder, PURPOSE) is None
    one = signing.current(folder, PURPOSE, "ana", DAY)
    assert signing.current(folder, PURPOSE, "eva", later(1)).key_id == one.key_id
    assert one.key_id == signing.key_id(one.public_key)
    (key,) = register(folder).keys
    assert (key.state, key.kind, key.since, key.until) == ("current", "first", clock.text(DAY), "")


def test_only_the_owner_can_look_into_folder_and_files(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    signing.current(folder, PURPOSE, "ana", DAY)
    signing.rotate(folder, PURPOSE, "ana", "every year", later(365))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == {
        "lock": 0o600, "certificate.json": 0o600, f"certificate-{register(folder).keys[-1].key_id}.pem": 0o600,
    }  # fmt: skip


MAKE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from zambezi import signing
sys.stdin.read()
print(signing.current(Path(sys.argv[1]), "certificate", "ana", datetime(2026, 3, 1, tzinfo=UTC)).key_id)
"""


def test_processes_that_make_the_first_key_at_once_have_one(folder: Path) -> None:
    made = [
        subprocess.Popen(
            [sys.executable, "-c", MAKE, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={"PYTHONPATH": str(REPOSITORY)},
        )
        for _ in range(4)
    ]  # fmt: skip
    for process in made:
        assert process.stdin
        process.stdin.close()
    found = [process.stdout.read().strip() for process in made if process.stdout]
    assert [process.wait(30) for process in made] == [0] * 4
    assert len(set(found)) == 1
    assert [key.key_id for key in register(folder).keys] == found[:1]


def test_a_key_that_follows_is_signed_by_the_one_before(folder: Path) -> None:
    old = signing.current(folder, PURPOSE, "ana", DAY)
    made = signing.rotate(folder, PURPOSE, "ana", "every year", later(365))
    new = signing.current(folder, PURPOSE, "ana", later(365))
    assert new.key_id != old.key_id
    assert [(key.state, key.since, key.until) for key in made.keys] == [
        ("retired", clock.text(DAY), clock.text(later(365))), ("current", clock.text(later(365)), ""),
    ]  # fmt: skip
    assert made.entries[-1].statement["signed_by"] == old.key_id
    signature = base64.b64decode(made.entries[-1].signature)
    assert signing.holds(old.public_key, signing.canonical(made.entries[-1].statement), signature)
    assert not signing.holds(new.public_key, signing.canonical(made.entries[-1].statement), signature)
    assert not (folder / f"certificate-{old.key_id}.pem").exists()


@pytest.mark.parametrize("step", [0, 1])
def test_a_rotation_that_is_cut_off_leaves_the_old_key_or_the_new_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    old = signing.current(folder, PURPOSE, "ana", DAY)
    steps = iter(range(3))

    def cut(file: Path) -> None:
        if next(steps) == step:
            raise OSError("the mains failed")

    replace = Path.replace
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda file, target: cut(file) or replace(file, target))
        with pytest.raises(OSError, match="mains"):
            signing.rotate(folder, PURPOSE, "ana", "every year", later(365))
    assert signing.current(folder, PURPOSE, "ana", later(365)).key_id == old.key_id
    new = signing.rotate(folder, PURPOSE, "ana", "every year", later(366)).keys[-1].key_id
    assert [file.name for file in folder.glob("certificate-*")] == [f"certificate-{new}.pem"]


def test_what_a_retired_key_signed_stays_good(folder: Path) -> None:
    old = signing.current(folder, PURPOSE, "ana", DAY)
    signature = old.sign(b"message")
    known = signing.rotate(folder, PURPOSE, "ana", "every year", later(365))
    key = known.key(old.key_id)
    assert key is not None
    assert signing.holds(key.public_key, b"message", base64.b64decode(signature))
    assert known.state(old.key_id) == "retired"


def test_a_lost_private_key_is_said_so_and_begun_anew(folder: Path) -> None:
    old = signing.current(folder, PURPOSE, "ana", DAY)
    (folder / f"certificate-{old.key_id}.pem").unlink()
    with pytest.raises(SigningFault, match="rotate --lost"):
        signing.current(folder, PURPOSE, "ana", DAY)
    with pytest.raises(SigningFault, match="rotate --lost"):
        signing.rotate(folder, PURPOSE, "ana", "every year", DAY)
    made = signing.rotate(folder, PURPOSE, "ana", "the disk died", later(1), lost=True)
    said = made.entries[-1].statement
    assert (said["kind"], said["signed_by"], said["reason"]) == ("restarted", said["key_id"], "the disk died")
    assert made.state(old.key_id) == "retired"
    assert signing.current(folder, PURPOSE, "ana", later(1)).key_id == said["key_id"]


def test_a_revoked_key_that_signed_is_followed_by_one_that_it_did_not_sign(folder: Path) -> None:
    stolen = signing.current(folder, PURPOSE, "ana", DAY)
    made = signing.revoke(folder, PURPOSE, stolen.key_id, "ana", "a laptop was stolen", later(1))
    assert [entry.kind for entry in made.entries] == ["first", "restarted", "revoked"]
    assert made.entries[-1].statement["signed_by"] == made.keys[-1].key_id
    assert (made.state(stolen.key_id), made.state(made.keys[-1].key_id)) == ("revoked", "current")
    with pytest.raises(SigningFault, match="revoked already"):
        signing.revoke(folder, PURPOSE, stolen.key_id, "ana", "again", later(1))
    with pytest.raises(SigningFault, match="zambezi key list"):
        signing.revoke(folder, PURPOSE, "0" * 32, "ana", "unknown", later(1))


def test_a_revoked_key_that_was_retired_leaves_the_others_as_they_are(folder: Path) -> None:
    old = signing.current(folder, PURPOSE, "ana", DAY)
    new = signing.rotate(folder, PURPOSE, "ana", "every year", later(365)).keys[-1]
    made = signing.revoke(folder, PURPOSE, old.key_id, "ana", "an old backup was found in the street", later(400))
    assert [(key.key_id, key.state) for key in made.keys] == [(old.key_id, "revoked"), (new.key_id, "current")]


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.sampled_from(["rotate", "lose", "revoke"]), max_size=5), data=st.data())
def test_a_register_holds_after_any_life_and_no_change_of_it_does(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("keys")
    signing.current(folder, PURPOSE, "ana", DAY)
    for number, step in enumerate(steps):
        if step == "revoke":
            state = register(folder)
            good = [key.key_id for key in state.keys if key.state != "revoked"]
            signing.revoke(folder, PURPOSE, data.draw(st.sampled_from(good)), "ana", "stolen", later(number))
        else:
            signing.rotate(folder, PURPOSE, "ana", "why", later(number), lost=step == "lose")
    known = register(folder)
    assert known.faults == []
    assert Register.from_json(known.to_json()) == known
    assert [key.state for key in known.keys].count("current") == 1
    assert signing.current(folder, PURPOSE, "ana", later(9)).key_id == known.keys[-1].key_id

    whole = json.loads(known.to_json())
    entry = data.draw(st.sampled_from(whole["entries"]))
    name = data.draw(st.sampled_from([*entry["statement"], "signature", "entry"]))
    if name == "entry":
        whole["entries"].remove(entry)
        left = [each["statement"]["key_id"] for each in whole["entries"]]
        if whole["entries"] == json.loads(known.to_json())["entries"][:-1] and left:
            return  # an older register: it held then
    elif name == "signature":
        entry["signature"] = "A" * 86 + "=="
    else:
        entry["statement"][name] += "x"
    with pytest.raises(SigningFault):
        Register.from_json(json.dumps(whole).encode())


def test_a_key_put_in_by_another_hand_is_found(folder: Path, tmp_path: Path) -> None:
    """Without the predecessor's private key nobody can let a key follow it."""
    signing.current(folder, PURPOSE, "ana", DAY)
    other = signing.current(tmp_path / "other", PURPOSE, "eva", DAY)
    known = register(folder)
    forged = {**known.entries[0].statement, "kind": "rotated", "key_id": other.key_id, "public_key": other.public_key,
              "after": known.entries[0].digest}  # fmt: skip
    entry = signing.Entry(forged, other.sign(signing.canonical(forged)))
    assert Register(PURPOSE, (*known.entries, entry)).faults == [
        "statement 2 of the register for certificate is not signed by the key that had to sign it"
    ]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setenv("ZAMBEZI_HOME", str(tmp_path))
    environment = Environment.read()
    engine = connect(environment.database_url, "test")
    Base.metadata.create_all(engine)
    engine.dispose()
    return environment


def database(home: Environment) -> Sessions:
    return sessions(connect(home.database_url, "test"), "test")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(key_commands, list(arguments))


def changes(home: Environment) -> list[tuple[str, str, str]]:
    with database(home)() as session:
        rows = session.scalars(select(AuditEntry).where(AuditEntry.event == "key-changed").order_by(AuditEntry.seq))
        assert audit.verify(session) == []
        return [(f["change"], f["fingerprint"], f["reason"]) for f in (json.loads(row.payload) for row in rows)]


def test_commands_tell_who_changed_what(home: Environment) -> None:
    assert "no key yet" in run("list").output
    assert "no key for" in run("rotate", "--reason", "every year").output
    assert "no key for" in run("show").output
    first = signing.current(home.signing_dir, PURPOSE, "ana", DAY).key_id
    assert run("rotate").exit_code == 2  # nothing without a reason
    turned = json.loads(run("rotate", "--reason", "every year", "--json").output)
    listed = json.loads(run("list", "--json").output)[PURPOSE]
    assert [(key["key_id"], key["state"]) for key in listed] == [(first, "retired"), (turned["key_id"], "current")]
    shown = json.loads(run("show", "--json").output)
    assert shown["statements"][0]["signed_by"] == first
    assert "BEGIN PUBLIC KEY" in run("show", first).output
    assert run("revoke", first, "--reason", "stolen").exit_code == 0
    assert f"{first}  revoked" in run("list").output
    assert changes(home) == [
        ("first", first, "there was no key yet"), ("rotated", turned["key_id"], "every year"),
        ("revoked", first, "stolen"),
    ]  # fmt: skip
    with database(home)() as session:
        (item,) = session.scalars(select(ExceptionItem)).all()
        assert first in item.what
        assert session.scalars(select(AuditEntry).where(AuditEntry.event == "incident")).one().who


def test_a_key_that_was_changed_without_its_audit_entry_gets_it_with_the_next_change(home: Environment) -> None:
    signing.current(home.signing_dir, PURPOSE, "ana", DAY)
    signing.rotate(home.signing_dir, PURPOSE, "ana", "died before the trail was written", later(1))
    assert run("rotate", "--lost", "--reason", "disk").exit_code == 0
    assert [change for change, _, _ in changes(home)] == ["first", "rotated", "restarted"]
    with database(home)() as session:
        assert "begin anew" in session.scalars(select(ExceptionItem)).one().what


def test_a_register_that_was_set_back_is_an_incident(home: Environment) -> None:
    """Who takes a revocation away again must not stay unseen."""
    first = signing.current(home.signing_dir, PURPOSE, "ana", DAY).key_id
    run("rotate", "--reason", "every year")
    before = (home.signing_dir / "certificate.json").read_bytes()
    run("revoke", first, "--reason", "stolen")
    (home.signing_dir / "certificate.json").write_bytes(before)
    for _ in range(2):
        run("rotate", "--reason", "and on")
    with database(home)() as session:
        said = [item.what for item in session.scalars(select(ExceptionItem).order_by(ExceptionItem.id))]
        assert len(said) == 2  # the revocation, and that it is gone
        assert f"lacks what the audit trail says of key {first}: revoked" in said[1]


def test_exported_keys_hold_nothing_secret(home: Environment, tmp_path: Path) -> None:
    signing.current(home.signing_dir, PURPOSE, "ana", DAY)
    assert run("export", "--out", str(tmp_path / "keys.json")).exit_code == 0
    text = (tmp_path / "keys.json").read_text()
    assert Register.from_json(text.encode()) == register(home.signing_dir)
    assert run("export").output == text
    assert "PRIVATE" not in text


def test_status_says_which_key_signs_and_how_old_it_is(home: Environment) -> None:
    signer = signing.current(home.signing_dir, PURPOSE, "ana", DAY)
    found = look(home, later(400))
    assert found.signing == [
        {"purpose": PURPOSE, "key_id": signer.key_id, "since": clock.text(DAY), "days": 400}
    ]  # fmt: skip
    assert f"certificates of migrations are signed with key {signer.key_id}, 400 days old" in lines(found)
    (home.signing_dir / "certificate.json").write_text("{}")
    assert any("signing keys can't be used" in sentence for sentence in look(home, DAY).trouble)
