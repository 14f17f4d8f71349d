"""Where an installation lives and on which ports it listens: everything that comes from `ZAMBEZI_*`.

Two installations on one machine differ in nothing but these variables. Standard library only: the
plugin inside Orthanc reads it, too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

PORTS: dict[str, tuple[str, int]] = {
    "http": ("ZAMBEZI_HTTP_PORT", 8080),
    "dicom": ("ZAMBEZI_DICOM_PORT", 4242),
    "orthanc_http": ("ZAMBEZI_ORTHANC_HTTP_PORT", 8042),
    "ris": ("ZAMBEZI_RIS_PORT", 8000),
    "mllp": ("ZAMBEZI_MLLP_PORT", 2575),
    "mpps": ("ZAMBEZI_MPPS_PORT", 4243),
    "https": ("ZAMBEZI_HTTPS_PORT", 8443),
    "dicom_tls": ("ZAMBEZI_DICOM_TLS_PORT", 2762),
}


class EnvironmentFault(ValueError):
    """A `ZAMBEZI_*` variable can't be used; the text names it, what was found and what is allowed."""


@dataclass(frozen=True)
class Ports:
    """TCP ports of one installation; what each is for stands in docs/architecture.md."""

    http: int
    dicom: int
    orthanc_http: int
    ris: int
    mllp: int
    mpps: int
    https: int
    dicom_tls: int


def take_secrets(environ: MutableMapping[str, str]) -> None:
    """Read PGPASSWORD (PostgreSQL's own variable) from the file that PGPASSWORD_FILE names, where that is set.

    Containers and systemd hand secrets over as files; a variable would stand in their configuration.
    """
    file = environ.get("PGPASSWORD_FILE")
    if not file:
        return
    try:
        environ["PGPASSWORD"] = Path(file).read_text().strip()
    except OSError as error:
        raise EnvironmentFault(f"PGPASSWORD_FILE: {file} can't be read: {error.strerror}") from error


@dataclass(frozen=True)
class Environment:
    """One installation: its state (`home`), its JSON (`config_dir`), its database and its ports."""

    home: Path
    config_dir: Path
    database_url: str
    ports: Ports

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Environment:
        """Read `ZAMBEZI_*`; raises EnvironmentFault with every variable that is wrong."""
        faults: list[str] = []
        ports: dict[str, int] = {}
        for name, (variable, default) in PORTS.items():
            text = environ.get(variable, "").strip() or str(default)
            if text.isdigit() and 0 < int(text) < 65536:
                ports[name] = int(text)
            else:
                faults.append(f"{variable}: found {text!r}, allowed is a port number from 1 to 65535")
        taken: dict[int, str] = {}
        for name, port in ports.items():
            variable = PORTS[name][0]
            if port in taken:
                faults.append(f"{variable}: found {port}, which {taken[port]} has already; give each its own port")
            taken.setdefault(port, variable)
        url = environ.get("ZAMBEZI_DATABASE_URL", "")
        if url and not url.startswith(("sqlite:///", "postgresql://", "postgres://")):
            scheme = url.partition(":")[0][:20]  # the rest may hold a password
            faults.append(
                f"ZAMBEZI_DATABASE_URL: found {scheme!r}, allowed are sqlite:///FILE and postgresql://USER:PASSWORD@HOST/NAME"
            )
        if faults:
            raise EnvironmentFault("\n".join(faults))
        home = Path(environ.get("ZAMBEZI_HOME") or "data").absolute()
        config_dir = Path(environ.get("ZAMBEZI_CONFIG") or REPOSITORY / "orthanc-config").absolute()
        database_url = url or f"sqlite:///{home}/zambezi.db"
        return cls(home, config_dir, database_url, Ports(**ports))

    def variables(self) -> dict[str, str]:
        """The same installation as `ZAMBEZI_*` variables, for the processes it starts."""
        return {
            "ZAMBEZI_REPOSITORY": str(REPOSITORY),
            "ZAMBEZI_HOME": str(self.home),
            "ZAMBEZI_CONFIG": str(self.config_dir),
            "ZAMBEZI_DATABASE_URL": self.database_url,
            **{variable: str(getattr(self.ports, name)) for name, (variable, _) in PORTS.items()},
        }

    @property
    def keys_file(self) -> Path:
        return self.home / "keys.json"

    @property
    def orthanc_dir(self) -> Path:
        """Orthanc's own folder: index/, storage/, config/ (the checked snapshot it is started with)."""
        return self.home / "orthanc"

    @property
    def orthanc_config_dir(self) -> Path:
        return self.orthanc_dir / "config"

    @property
    def storage_dir(self) -> Path:
        return self.orthanc_dir / "storage"

    @property
    def index_dir(self) -> Path:
        return self.orthanc_dir / "index"

    @property
    def plugin_dir(self) -> Path:
        """The plugin's own files: journal.db, worklist.json, announced.json, revocations.json, queries.log."""
        return self.home / "plugin"

    @property
    def journal_file(self) -> Path:
        return self.plugin_dir / "journal.db"

    @property
    def hold_dir(self) -> Path:
        """Part 10 files that wait for a person, named by SHA-256 (DESIGN rule 4)."""
        return self.home / "hold"

    @property
    def signing_dir(self) -> Path:
        """The keys that sign what leaves the house, and the register of their public halves (zambezi.signing)."""
        return self.home / "signing"

    @property
    def backup_dir(self) -> Path:
        """The backup's password, its locks, what the last one came to; and what is being copied (operations.backup)."""
        return self.home / "backup"

    @property
    def logs_dir(self) -> Path:
        return self.home / "logs"

    @property
    def run_dir(self) -> Path:
        """Sockets, process ids and generated nginx and supervisord configuration."""
        return self.home / "run"

    @property
    def orthanc_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.orthanc_http}"

    @property
    def ris_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.ris}"

    @property
    def front_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.http}"
