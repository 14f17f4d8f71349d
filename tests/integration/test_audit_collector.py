"""The audit trail in a real collector, rsyslog over mutual TLS: caught up after it was away, and held against us."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from demo.neighbours import free_port
from operations.auditing import verify
from operations.trail.collector import Collector, CollectorFailed
from operations.trail.shipping import Shipper
from tests import audit_schema, authority, invariants
from tests.schema import upgraded
from tests.unit.operations.receivers import Heard, smtp_receiver
from zambezi import audit, checkpoints, clock, keys, signing
from zambezi.audit_message import Source
from zambezi.config.settings import AlertMail, AuditCollector
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import Base
from zambezi.environment import REPOSITORY, Environment

RSYSLOG = shutil.which("rsyslogd", path="/usr/sbin:/sbin:/usr/bin")
CONFIGURATION = """
global(workDirectory="{folder}" maxMessageSize="64k" defaultNetstreamDriver="gtls"
       defaultNetstreamDriverCAFile="{tls}/ca.crt" defaultNetstreamDriverCertFile="{tls}/collector.crt"
       defaultNetstreamDriverKeyFile="{tls}/collector.key")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/name"
       permittedPeer=["zambezi"])
template(name="whole" type="string" string="%rawmsg%\\n")
input(type="imtcp" address="127.0.0.1" port="{port}")
action(type="omfile" file="{folder}/collected.log" template="whole")
"""


def certificates(folder: Path) -> Path:
    made = authority.make(folder)
    made.issue("collector", "serverAuth")
    for name in ("zambezi", "stranger"):
        made.issue(name, "clientAuth")
    return folder


class Rsyslog:
    def __init__(self, folder: Path, tls: Path) -> None:
        assert RSYSLOG, "tools/install --tests brings rsyslog and rsyslog-gnutls"
        self.folder, self.tls, self.port = folder, tls, free_port()
        # A copy: where an AppArmor profile holds the program at its own place, it may read nothing of a test's.
        self.program = Path(shutil.copy(RSYSLOG, folder / "rsyslogd"))
        self.log = folder / "collected.log"
        self.configuration = folder / "rsyslog.conf"
        self.configuration.write_text(CONFIGURATION.format(folder=folder, tls=tls, port=self.port))

    def wanted(self, name: str = "zambezi") -> AuditCollector:
        """Who it is, as our configuration says it."""
        return AuditCollector(
            host="127.0.0.1", server_name="collector", port=self.port, ca_file=str(self.tls / "ca.crt"),
            certificate_file=str(self.tls / f"{name}.crt"), key_file=str(self.tls / f"{name}.key"),
        )  # fmt: skip

    @contextmanager
    def running(self) -> Iterator[None]:
        process = subprocess.Popen(
            [str(self.program), "-n", "-f", str(self.configuration), "-i", str(self.folder / "pid")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)

    def entries(self) -> list[int]:
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        return [int(seq) for seq in re.findall(r"urn:zambezi:audit:ris:(\d+):", text)]


def test_rsyslog_gets_all_of_it_catches_up_and_shows_what_was_cut_off_here(tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    rsyslog = Rsyslog(tmp_path, certificates(tmp_path / "tls"))
    wanted = rsyslog.wanted()
    engine = connect(f"sqlite:///{home}/z.db", "test")
    Base.metadata.create_all(engine)
    opened = sessions(engine, "test")
    ahead = timedelta()
    shipper = Shipper(
        opened, opened, Collector(wanted, home), Source("Hospital Central", "pacs"), lambda: clock.now() + ahead
    )  # fmt: skip

    def record(number: int) -> None:
        with opened.begin() as session:
            for _ in range(number):
                audit.append(session, "ris", "viewed", clock.now(), who="ana", study_uid="1.2.3", reason="é")
            checkpoints.make(session, signing.current(home / "signing", "audit", "test", clock.now()), clock.now())

    record(300)
    assert shipper.round() == 0, "nobody listens yet"
    with rsyslog.running():
        invariants.eventually("rsyslog", lambda: _refusal(wanted, home), 20)
        ahead = timedelta(minutes=10)
        assert shipper.round() == 301
        with pytest.raises(CollectorFailed):
            Collector(rsyslog.wanted("stranger"), home).send([b"<85>1 - - - - - - urn:zambezi:audit:ris:666:"])
        invariants.eventually("all of it", lambda: "" if len(rsyslog.entries()) == 300 else "not yet", 20)
    record(700)
    assert shipper.round() == 0, "it is away"
    with rsyslog.running():
        invariants.eventually("rsyslog", lambda: _refusal(wanted, home), 20)
        ahead = timedelta(minutes=20)
        begun = time.monotonic()
        assert shipper.round() == 701
        assert time.monotonic() - begun < 20
        invariants.eventually("all of it", lambda: "" if len(rsyslog.entries()) == 1000 else "not yet", 20)
    assert rsyslog.entries() == list(range(1, 1001)), "each, in order, and nothing of the stranger's"
    first = rsyslog.log.read_text(encoding="utf-8").splitlines()[0]
    header, _, body = first.partition("\ufeff")
    assert re.fullmatch(r"<85>1 \S+Z pacs zambezi ris DICOM\+RFC3881 - ", header)
    assert audit_schema.faults(body.encode()) == []

    def places() -> list[str]:
        with opened() as session:
            return [str(one) for one in verify(session, home / "none", home, [rsyslog.log]).broken]

    assert places() == []
    with opened.begin() as session:
        connection = session.connection()
        connection.exec_driver_sql("DELETE FROM audit_checkpoint")
        connection.exec_driver_sql("DELETE FROM audit_entry WHERE seq > 500")
        connection.exec_driver_sql(
            "UPDATE chain_head SET seq = 500, hash = (SELECT hash FROM audit_entry WHERE seq = 500)"
        )
    (place,) = places()
    assert "entry 501: the chain ends here, but" in place and "collected.log" in place
    engine.dispose()


def mail_by(heard: Heard) -> AlertMail:
    return AlertMail(
        host="localhost", port=heard.port, security="none", from_="zambezi@hcm.example", to=("ti@hcm.example",)
    )


def _refusal(wanted: AuditCollector, home: Path) -> str:
    try:
        Collector(wanted, home).send([])
    except CollectorFailed as failed:
        return str(failed)
    return ""


@contextmanager
def operations_process(
    home: Path, folder: Path, wanted: AuditCollector, mail: AlertMail
) -> Iterator[Callable[[], None]]:
    """The real process, configured for the collector and a mail server; gives what kills and starts it again."""
    configured = folder / "config"
    shutil.copytree(REPOSITORY / "orthanc-config", configured, ignore=shutil.ignore_patterns("schema", "*.md"))
    file = configured / "30-zambezi.json"
    trail = {"Collector": wanted.model_dump(by_alias=True), "CheckpointMailTo": ["notario@outside.example"]}
    said = json.dumps({"Audit": trail, "Alerts": {"Mail": mail.model_dump(by_alias=True)}})[1:-1]
    file.write_text(file.read_text().replace('"Zambezi": {', f'"Zambezi": {{ {said},', 1))
    environment = Environment.read({"ZAMBEZI_HOME": str(home), "ZAMBEZI_CONFIG": str(configured)})
    keys.load_or_create(environment.keys_file)
    running: list[subprocess.Popen[bytes]] = []

    def begin() -> None:
        variables = {**os.environ, **environment.variables(), "PYTHONPATH": str(REPOSITORY)}
        running.append(
            subprocess.Popen([sys.executable, "-P", "-m", "zambezi.starting", "operations.service"], env=variables)
        )

    def again() -> None:
        running[-1].kill()
        running[-1].wait(10)
        begin()

    begin()
    try:
        yield again
    finally:
        running[-1].kill()
        running[-1].wait(10)


def test_the_process_itself_ships_and_loses_nothing_when_it_is_killed(tmp_path: Path):
    tls = certificates(tmp_path / "tls")
    home = tmp_path / "home"
    home.mkdir()
    rsyslog = Rsyslog(tmp_path, tls)
    engine = upgraded(f"sqlite:///{home}/zambezi.db")
    opened = sessions(engine, "test")

    def record(number: int) -> None:
        with opened.begin() as session:
            for _ in range(number):
                audit.append(session, "ris", "viewed", clock.now(), who="ana", study_uid="1.2.3")

    record(5000)
    with (
        smtp_receiver(Heard()) as heard,
        rsyslog.running(),
        operations_process(home, tmp_path, rsyslog.wanted(), mail_by(heard)) as again,
    ):
        invariants.eventually("the first of it", lambda: "" if rsyslog.entries() else "nothing came", 60)
        again()
        record(100)
        missing = lambda: set(range(1, 5101)) - set(rsyslog.entries())  # noqa: E731
        invariants.eventually("all of it", lambda: f"{len(missing())} are missing" if missing() else "", 60)
        invariants.eventually(
            "a signed checkpoint", lambda: "" if "ZAMBEZI+CHECKPOINT" in rsyslog.log.read_text() else "none yet", 30
        )
        mailed = lambda: [raw for _, to, raw in heard.mails if "notario@" in to[0] and b"checkpoint-" in raw]  # noqa: E731
        invariants.eventually("a checkpoint by mail", lambda: "" if mailed() else "none yet", 90)
    with opened() as session:
        assert verify(session, home / "none", home, [rsyslog.log]).broken == []
    engine.dispose()
