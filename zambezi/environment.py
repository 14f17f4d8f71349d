"""Where an installation lives and on which ports it listens: everything that comes from `ZAMBEZI_*`.

Two installations on one machine differ in nothing but these variables. Standard library only: the
plugin inside Orthanc reads it, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
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
    "mpps_tls": ("ZAMBEZI_MPPS_TLS_PORT", 2763),
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
    mpps_tls: int


#: Files in ZAMBEZI_HOME that speak where a variable doesn't: they are there whoever types a command, in whatever shell.
PASSWORD_FILE = "postgresql-password"  # noqa: S105  a file's name
URL_FILE = "database-url"


@dataclass(frozen=True)
class Node:
    """One Orthanc of an installation that has several on one index and one storage (docs/decisions/0015)."""

    name: str
    host: str
    orthanc_http: int
    dicom: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.orthanc_http}"


_NODE = re.compile(
    r"(?P<name>[a-z][a-z0-9-]{0,15})=((?P<host>[A-Za-z0-9.-]+):)?(?P<http>[0-9]{1,5})/(?P<dicom>[0-9]{1,5})"
)


def _nodes(text: str) -> tuple[Node, ...]:
    """`one=8042/4242,two=8142/4252`: name, HTTP and DICOM port (and HOST: before them, where it isn't this machine)."""
    found = []
    for word in text.replace(",", " ").split():
        read = _NODE.fullmatch(word)
        if not read or not all(0 < int(read[port]) < 65536 for port in ("http", "dicom")):
            raise EnvironmentFault(
                f"ZAMBEZI_NODES: found {word!r}, allowed is NAME=HTTP_PORT/DICOM_PORT or NAME=HOST:HTTP_PORT/DICOM_PORT"
            )
        found.append(Node(read["name"], read["host"] or "127.0.0.1", int(read["http"]), int(read["dicom"])))
    if len({one.name for one in found}) < len(found):
        raise EnvironmentFault(f"ZAMBEZI_NODES: found {text!r}, allowed is each name once")
    return tuple(found)


def take_secrets(environ: MutableMapping[str, str]) -> None:
    """Read PGPASSWORD (PostgreSQL's own variable) from the file that PGPASSWORD_FILE names, or ZAMBEZI_HOME's own.

    Containers and systemd hand secrets over as files; a variable would stand in their configuration.
    """
    file = environ.get("PGPASSWORD_FILE")
    if file:
        environ["PGPASSWORD"] = _line(Path(file), "PGPASSWORD_FILE") or ""
    elif "PGPASSWORD" not in environ:
        found = _line(_home(environ) / PASSWORD_FILE)
        if found is not None:
            environ["PGPASSWORD"] = found


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("ZAMBEZI_HOME") or "data").absolute()


def _line(file: Path, variable: str = "") -> str | None:
    """What stands in a small file; None where there is none (a fault where a variable names it)."""
    try:
        return file.read_text().strip()
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not variable:
            return None
        raise EnvironmentFault(f"{variable or 'ZAMBEZI_HOME'}: {file} can't be read: {error.strerror}") from error


@dataclass(frozen=True)
class Environment:
    """One installation: its state (`home`), its JSON (`config_dir`), its database and its ports."""

    home: Path
    config_dir: Path
    database_url: str
    ports: Ports
    #: Empty where there is one Orthanc, as there is unless ZAMBEZI_NODES says otherwise.
    nodes: tuple[Node, ...] = ()
    #: Which of them this process is, or asks first.
    node: str = ""
    #: Where the gateway takes images of senders that must be treated by their AE title; None: nowhere.
    coercing_port: int | None = None
    #: Ports of further RIS processes on this machine; the front door shares pages among all.
    ris_others: tuple[int, ...] = ()

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
        try:
            nodes = _nodes(environ.get("ZAMBEZI_NODES", ""))
        except EnvironmentFault as fault:
            faults.append(str(fault))
            nodes = ()
        node = environ.get("ZAMBEZI_NODE", "").strip() or (nodes[0].name if nodes else "")
        mine = next((one for one in nodes if one.name == node), None)
        if node and nodes and mine is None:
            faults.append(f"ZAMBEZI_NODE: found {node!r}, allowed are {', '.join(one.name for one in nodes)}")
        if mine:
            ports |= {"orthanc_http": mine.orthanc_http, "dicom": mine.dicom}
        taken: dict[int, str] = {}
        for name, port in ports.items():
            variable = PORTS[name][0]
            if port in taken:
                faults.append(f"{variable}: found {port}, which {taken[port]} has already; give each its own port")
            taken.setdefault(port, variable)
        home = _home(environ)
        url = environ.get("ZAMBEZI_DATABASE_URL", "") or _line(home / URL_FILE) or ""
        if url and not url.startswith(("sqlite:///", "postgresql://", "postgres://")):
            scheme = url.partition(":")[0][:20]  # the rest may hold a password
            faults.append(
                f"ZAMBEZI_DATABASE_URL (or {URL_FILE} in ZAMBEZI_HOME): found {scheme!r}, allowed are sqlite:///FILE "
                "and postgresql://USER@HOST/NAME"
            )
        coercing = environ.get("ZAMBEZI_COERCING_PORT", "").strip()
        if coercing and not (coercing.isdigit() and 0 < int(coercing) < 65536):
            faults.append(
                f"ZAMBEZI_COERCING_PORT: found {coercing!r}, allowed is a port number from 1 to 65535 or nothing"
            )
        elif coercing and int(coercing) in taken:
            faults.append(f"ZAMBEZI_COERCING_PORT: found {coercing}, which {taken[int(coercing)]} has already")
        others = environ.get("ZAMBEZI_RIS_OTHERS", "").replace(",", " ").split()
        if not all(port.isdigit() and 0 < int(port) < 65536 for port in others):
            faults.append(f"ZAMBEZI_RIS_OTHERS: found {' '.join(others)!r}, allowed are port numbers")
        if faults:
            raise EnvironmentFault("\n".join(faults))
        config_dir = Path(environ.get("ZAMBEZI_CONFIG") or REPOSITORY / "orthanc-config").absolute()
        database_url = url or f"sqlite:///{home}/zambezi.db"
        ris_others = tuple(int(port) for port in others)
        return cls(
            home, config_dir, database_url, Ports(**ports), nodes, node if nodes else "",
            int(coercing) if coercing else None, ris_others,
        )  # fmt: skip

    def variables(self) -> dict[str, str]:
        """The same installation as `ZAMBEZI_*` variables, for the processes it starts."""
        # One configuration for all nodes, with one hash: a node's own ports stand in ZAMBEZI_NODES.
        ports = self.at(self.nodes[0]).ports if self.nodes else self.ports
        return {
            "ZAMBEZI_REPOSITORY": str(REPOSITORY),
            "ZAMBEZI_HOME": str(self.home),
            "ZAMBEZI_CONFIG": str(self.config_dir),
            "ZAMBEZI_DATABASE_URL": self.database_url,
            "ZAMBEZI_NODES": ",".join(f"{n.name}={n.host}:{n.orthanc_http}/{n.dicom}" for n in self.nodes),
            "ZAMBEZI_NODE": self.node,
            "ZAMBEZI_NODE_HOME": str(self.node_dir),
            "ZAMBEZI_COERCING_PORT": str(self.coercing_port or ""),
            "ZAMBEZI_RIS_OTHERS": ",".join(map(str, self.ris_others)),
            **{variable: str(getattr(ports, name)) for name, (variable, _) in PORTS.items()},
        }

    def at(self, node: Node) -> Environment:
        """The same installation, seen from another of its nodes."""
        ports = replace(self.ports, orthanc_http=node.orthanc_http, dicom=node.dicom)
        return replace(self, ports=ports, node=node.name)

    @property
    def node_dir(self) -> Path:
        """What belongs to one node alone lies below; of the first node, and the only one, where it always lay."""
        is_first = not self.nodes or self.node == self.nodes[0].name
        return self.home if is_first else self.home / "nodes" / self.node

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
    def index_id_file(self) -> Path:
        """The name of Orthanc's index: a random id in a file beside it (plugins.index_id)."""
        return self.index_dir / "zambezi-index-id"

    @property
    def moved_file(self) -> Path:
        """What the journal takes over when the archive has got another index (plugins.moved); made by a move."""
        return self.plugin_dir / "moved.db"

    @property
    def plugin_dir(self) -> Path:
        """The plugin's own files: its journal, what is pushed to it, and what others note for it (queries, callers)."""
        return self.node_dir / "plugin"

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
    def orthanc_urls(self) -> list[str]:
        """Every node's, the one that is asked first at the front."""
        return [one.url for one in self.nodes] or [self.orthanc_url]

    @property
    def ris_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.ris}"

    @property
    def front_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.http}"
