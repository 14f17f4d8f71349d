"""An authority of a test's own, with certificates for a collector and for us, by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass(frozen=True)
class Authority:
    """`folder` has ca.crt, and NAME.crt and NAME.key (0600) of each name."""

    folder: Path

    def issue(self, name: str, usage: str) -> None:
        """A certificate for localhost with NAME as its common name; `usage` serverAuth or clientAuth."""
        made = self.folder / name
        extensions = f"subjectAltName=DNS:localhost,DNS:{name}\nextendedKeyUsage={usage}\n"
        made.with_suffix(".ext").write_text(extensions)
        _openssl("req", *_KEY, "-subj", f"/CN={name}", "-keyout", f"{made}.key", "-out", f"{made}.csr")
        _openssl(
            "x509", "-req", "-days", "2", "-in", f"{made}.csr", "-CA", str(self.folder / "ca.crt"), "-CAkey",
            str(self.folder / "ca.key"), "-CAcreateserial", "-extfile", f"{made}.ext", "-out", f"{made}.crt",
        )  # fmt: skip
        made.with_suffix(".key").chmod(0o600)


def make(folder: Path) -> Authority:
    """A new authority in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _openssl(
        "req", "-x509", *_KEY, "-days", "2", "-subj", "/CN=Test authority", "-keyout", str(folder / "ca.key"), "-out",
        str(folder / "ca.crt"),
    )  # fmt: skip
    return Authority(folder)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
