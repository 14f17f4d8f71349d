"""docs/: the steps that verify a certificate without our software are run as they stand there, in both manuals."""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest

from migration import verifier
from zambezi import signing
from zambezi.environment import REPOSITORY

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
GOOD = "Signature Verified Successfully"


def steps(manual: str) -> list[str]:
    """The two blocks of commands: for a certificate, and for the register."""
    text = (REPOSITORY / "docs" / manual).read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, flags=re.MULTILINE)
    return [textwrap.dedent(block).strip() for block in blocks if "openssl" in block]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-ec", command], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A certificate by a key that was followed twice since, and the register."""
    keys = tmp_path / "signing"
    signer = signing.current(keys, "certificate", "João", NOW)
    head = {"format": verifier.FORMAT, "project": "Conceição", "reason": 'é "dito" à mão \\ \u007f',
            "key_id": signer.key_id, "public_key": signer.public_key}  # fmt: skip
    said = verifier.canonical(head)
    lines = (said, b'{"study":"1.2"}', verifier.canonical({"signature": signer.sign(said)}), b"")
    (tmp_path / "certificate.jsonl").write_bytes(b"\n".join(lines))
    signing.rotate(keys, "certificate", "João", "todos os anos", NOW)
    known = signing.rotate(keys, "certificate", "João", "perdida", NOW, lost=True)
    known = signing.revoke(keys, "certificate", known.keys[1].key_id, "João", "roubada", NOW)
    (tmp_path / "public-keys.json").write_bytes(known.to_json())
    return tmp_path


@pytest.mark.parametrize("manual", ["administrator.md", "administrator.pt.md"])
def test_the_steps_verify_what_is_good_and_nothing_else(folder: Path, manual: str) -> None:
    of_certificate, of_register = steps(manual)
    certificate = (folder / "certificate.jsonl").read_text(encoding="utf-8")
    good = run(of_certificate, folder)
    assert good.returncode == 0, good.stderr
    assert GOOD in good.stdout
    assert good.stdout.splitlines()[-1] == json.loads(certificate.splitlines()[0])["key_id"]
    register = run(of_register, folder)
    assert register.returncode == 0, register.stderr
    assert register.stdout.count(GOOD) == 4

    (folder / "certificate.jsonl").write_text(certificate.replace("Conceição", "Conceicao"), encoding="utf-8")
    assert GOOD not in run(of_certificate, folder).stdout
    keys = json.loads((folder / "public-keys.json").read_text(encoding="utf-8"))
    keys["entries"][1]["statement"]["reason"] = "every day"
    (folder / "public-keys.json").write_text(json.dumps(keys), encoding="utf-8")
    broken = run(of_register, folder)
    assert broken.returncode != 0
    assert broken.stdout.count(GOOD) == 1
