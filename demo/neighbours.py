"""The demo hospital's neighbours: two other archives, a legacy PACS and a HIS that listens.

The archives are dcmtk's dcmqrscp and storescp; the HIS is python-hl7's MLLP server (demo/his.py). They
run under a supervisord of their own, so that they stay when the play is over.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zambezi.environment import REPOSITORY, Environment


@dataclass(frozen=True)
class Neighbours:
    """Where each neighbour listens (127.0.0.1) and keeps its files (below `folder`)."""

    folder: Path
    his_port: int
    second_port: int
    backup_port: int
    legacy_port: int

    @classmethod
    def read(cls, environment: Environment, environ: Mapping[str, str]) -> Neighbours:
        def port(name: str, default: int) -> int:
            return int(environ.get(f"DEMO_{name}_PORT") or default)

        return cls(environment.home / "neighbours", port("HIS", 2576), port("SECOND", 4301), port("BACKUP", 4302),
                   port("LEGACY", 4303))  # fmt: skip

    def variables(self) -> dict[str, str]:
        """The ports as demo/config/ names them."""
        return {
            "DEMO_HIS_PORT": str(self.his_port),
            "DEMO_SECOND_PORT": str(self.second_port),
            "DEMO_BACKUP_PORT": str(self.backup_port),
            "DEMO_LEGACY_PORT": str(self.legacy_port),
        }

    @property
    def his_inbox(self) -> Path:
        return self.folder / "his"

    @property
    def backup_files(self) -> Path:
        return self.folder / "backup"

    @property
    def _supervisord(self) -> list[str]:
        return [str(Path(sys.executable).parent / "supervisorctl"), "-c", str(self.folder / "supervisord.conf")]

    def start(self, dicom_port: int) -> None:
        """Start what does not run yet, and wait until all listen; RuntimeError names the one that doesn't."""
        for name in ("his", "second", "backup", "legacy"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._write_dcmqrscp("second", "SECOND", self.second_port, dicom_port)
        self._write_dcmqrscp("legacy", "LEGACY", self.legacy_port, dicom_port)
        if not self._runs():
            self._write_supervisord()
            subprocess.run([self._supervisord[0].replace("supervisorctl", "supervisord"), *self._supervisord[1:]],
                           check=True, cwd=self.folder)  # fmt: skip
        for name, port in self._listening().items():
            _wait_for_port(name, port, self.folder / f"{name}.log")

    def stop(self) -> None:
        """Stop them all."""
        if self._runs():
            subprocess.run([*self._supervisord, "shutdown"], check=True, stdout=subprocess.DEVNULL)
            for _ in range(200):
                if not (self.folder / "supervisord.sock").exists():
                    return
                time.sleep(0.05)

    def control(self, word: str, name: str) -> None:
        """`stop` or `start` one neighbour."""
        subprocess.run([*self._supervisord, word, name], check=True, stdout=subprocess.DEVNULL)
        if word == "start":
            _wait_for_port(name, self._listening()[name], self.folder / f"{name}.log")

    def _listening(self) -> dict[str, int]:
        return {"his": self.his_port, "second": self.second_port, "backup": self.backup_port,
                "legacy": self.legacy_port}  # fmt: skip

    def _runs(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.folder / "supervisord.sock")) == 0

    def _write_dcmqrscp(self, name: str, aet: str, port: int, dicom_port: int) -> None:
        (self.folder / f"{name}.cfg").write_text(
            f"NetworkTCPPort = {port}\nMaxPDUSize = 65536\nMaxAssociations = 16\n"
            f"HostTable BEGIN\nzambezi = (ZAMBEZI, 127.0.0.1, {dicom_port})\nHostTable END\n"
            "VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\n{aet} {self.folder / name} RW (500, 1024mb) ANY\nAETable END\n"
        )

    def _write_supervisord(self) -> None:
        profiles = REPOSITORY / "demo" / "legacy-profiles.cfg"
        programs = {
            "his": f"{sys.executable} -m demo.his {self.his_port} {self.his_inbox}",
            "second": f"{_program('dcmqrscp')} -c {self.folder}/second.cfg",
            "legacy": f"{_program('dcmqrscp')} -c {self.folder}/legacy.cfg -xf {profiles} Receive Send",
            "backup": f"{_program('storescp')} --fork -aet BACKUP -od {self.backup_files} {self.backup_port}",
        }
        text = (
            f"[supervisord]\npidfile={self.folder}/supervisord.pid\nlogfile={self.folder}/supervisord.log\n"
            f"[unix_http_server]\nfile={self.folder}/supervisord.sock\nchmod=0700\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[supervisorctl]\nserverurl=unix://{self.folder}/supervisord.sock\n"
        )
        for name, command in programs.items():
            text += (
                f"[program:{name}]\ncommand={command}\ndirectory={REPOSITORY}\nautorestart=true\nredirect_stderr=true\n"
                f"stdout_logfile={self.folder}/{name}.log\nenvironment=TCP_NODELAY=1\n"
                "killasgroup=true\nstopasgroup=true\n"
            )
        (self.folder / "supervisord.conf").write_text(text)


_named: set[int] = set()
#: Below those that Linux gives to outgoing connections: one of these could take a port before it is used.
PORTS = range(15_000, 32_000)


def free_port() -> int:
    """One of PORTS that nothing listens on just now, and that this process hasn't named before."""
    while True:
        port = random.choice(PORTS)  # noqa: S311  no secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _named:
            _named.add(port)
            return port


def free_ports(count: int) -> list[int]:
    """So many of them."""
    return [free_port() for _ in range(count)]


def _program(name: str) -> str:
    # Debian's first: pynetdicom puts programs of the same names into an activated virtual environment
    found = shutil.which(name, path="/usr/bin:/usr/sbin:" + os.environ.get("PATH", ""))
    if not found:
        raise RuntimeError(f"{name} is not installed; `make install` as root installs Debian's dcmtk")
    return found


def _wait_for_port(name: str, port: int, log: Path) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    tail = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []
    raise RuntimeError(f"neighbour {name} does not listen on port {port}: {' / '.join(tail) or 'no word in its log'}")
