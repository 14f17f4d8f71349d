"""The front door's certificates: what the authority vouches for, what it can't, and what is said of their ends."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from operations import certificate_keeping, certificates, front_door, source_certificates
from operations.certificate_keeping import Keeper
from operations.certificates import CertificateFault, Pair
from operations.service import Caretaker
from tests.schema import upgraded
from zambezi import clock
from zambezi.config import Configuration
from zambezi.config.settings import Disk, Migration, MigrationSource, Zambezi
from zambezi.database.engine import sessions
from zambezi.database.tables import AuditEntry
from zambezi.disk import Gauge
from zambezi.environment import Environment

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority() -> Pair:
    return certificates.make_authority("Hospital Central da Beira", NOW, ["hcb.gov.mz"], ["196.28.4.0/24"])


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path)})
    engine = upgraded(environment.database_url, "operations")
    return Keeper(environment, sessions(engine, "operations"))


def verified(authority: Pair, shown: bytes, folder: Path, *asked: str) -> str:
    """What OpenSSL says of a server's certificate, trusting nobody but the authority."""
    (folder / "ca.crt").write_bytes(authority.certificate)
    (folder / "server.crt").write_bytes(shown)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-attime", str(int(NOW.timestamp()))]
    command += ["-CAfile", str(folder / "ca.crt"), *asked, str(folder / "server.crt")]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_openssl_believes_what_the_authority_vouches_for(authority: Pair, tmp_path: Path):
    made = certificates.issue(authority, ["pacs.lan", "PACS.hcb.gov.mz.", "10.1.0.5", "196.28.4.9", "fd00::5"], NOW)
    for name in ("pacs.lan", "pacs.hcb.gov.mz", "localhost"):
        assert verified(authority, made.certificate, tmp_path, "-verify_hostname", name) == ""
    for address in ("10.1.0.5", "196.28.4.9", "fd00::5"):
        assert verified(authority, made.certificate, tmp_path, "-verify_ip", address) == ""
    assert "hostname mismatch" in verified(authority, made.certificate, tmp_path, "-verify_hostname", "ris.lan")
    other = certificates.make_authority("Outra", NOW)
    assert "verification failed" in verified(other, made.certificate, tmp_path)


def test_a_stolen_authority_can_vouch_for_no_site_of_the_world(
    authority: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(CertificateFault) as refused:
        certificates.issue(authority, ["bank.example", "8.8.8.8", "nothcb.gov.mz", "pacs lan"], NOW)
    said = str(refused.value).splitlines()
    assert len(said) == 4
    assert "--domain bank.example" in said[0]
    assert "--network 8.8.8.8/32" in said[1]
    # A thief doesn't ask us; the computers that believe the authority refuse it.
    monkeypatch.setattr(certificates, "_refusal", lambda *_: "")
    forged = certificates.issue(authority, ["bank.example"], NOW)
    assert "permitted subtree violation" in verified(authority, forged.certificate, tmp_path)


def test_a_certificate_outlives_neither_what_browsers_take_nor_its_authority(authority: Pair):
    made = certificates.load(certificates.issue(authority, ["pacs.lan"], NOW).certificate)
    assert made.not_valid_after_utc - made.not_valid_before_utc <= timedelta(days=398)
    near_the_end = NOW + timedelta(days=3640)
    late = certificates.load(certificates.issue(authority, ["pacs.lan"], near_the_end).certificate)
    assert late.not_valid_after_utc == certificates.load(authority.certificate).not_valid_after_utc
    with pytest.raises(CertificateFault, match="make a new authority"):
        certificates.issue(authority, ["pacs.lan"], NOW + timedelta(days=3660))


def test_an_end_is_told_of_a_month_before(authority: Pair, tmp_path: Path):
    file = tmp_path / "front.crt"
    file.write_bytes(certificates.issue(authority, ["pacs.lan"], NOW).certificate)
    known = certificates.held(file, "the front door's certificate")
    assert known[0].names == ("pacs.lan", "localhost", "127.0.0.1")
    assert certificates.expiring(known, NOW + timedelta(days=397 - 30)) == []
    soon = certificates.expiring(known, NOW + timedelta(days=397 - 10))
    assert [(one.days, "ends on 2027-04-02, in 10 days" in one.sentence) for one in soon] == [(10, True)]
    over = certificates.expiring(known, NOW + timedelta(days=398))
    assert "ended on 2027-04-02" in over[0].sentence


def test_the_front_door_gets_its_certificate_and_the_trail_its_entries(keeper: Keeper):
    made = keeper.make_authority("HCB", [], [], False, "console:ana", NOW)
    keeper.issue(["pacs.lan"], "console:ana", NOW)
    folder = keeper.environment.home / "certificates"
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in folder.iterdir()} == dict.fromkeys(
        ("authority.crt", "authority.key", "front.crt", "front.key"), "0o600"
    )
    shown = front_door.certificate(keeper.environment, {})
    assert shown is not None
    assert certificates.pair_faults(shown.chain, shown.key, NOW) == []
    assert [one.what for one in certificate_keeping.known(keeper.environment, {})] == [
        certificate_keeping.FRONT, certificate_keeping.AUTHORITY,
    ]  # fmt: skip
    with keeper.sessions() as session:
        entries = session.scalars(
            select(AuditEntry).where(AuditEntry.event == "certificate-changed").order_by(AuditEntry.seq)
        ).all()
        told = [entry.payload for entry in entries]
    assert len(told) == 2
    assert b'"console:ana"' in told[1]
    with pytest.raises(CertificateFault, match="--again"):
        keeper.make_authority("HCB", [], [], False, "console:ana", NOW)
    assert certificate_keeping.authority_file(keeper.environment).read_bytes() == made.certificate


def test_it_is_renewed_in_time_with_its_names_and_key(keeper: Keeper):
    keeper.make_authority("HCB", [], [], False, "console:ana", NOW)
    keeper.issue(["pacs.lan", "10.1.0.5"], "console:ana", NOW)
    folder = keeper.environment.home / "certificates"
    key, before = (folder / "front.key").read_bytes(), certificates.load((folder / "front.crt").read_bytes())
    assert keeper.renew_if_due({}, NOW + timedelta(days=360)) is None
    late = NOW + timedelta(days=370)
    assert keeper.renew_if_due({}, late) is not None
    after = certificates.load((folder / "front.crt").read_bytes())
    assert after.not_valid_after_utc == late + timedelta(days=397)
    assert certificates.names(after) == certificates.names(before)
    assert (folder / "front.key").read_bytes() == key
    assert certificates.pair_faults(folder / "front.crt", folder / "front.key", late) == []
    assert keeper.renew_if_due({}, late) is None
    assert keeper.renew_if_due({}, NOW + timedelta(days=100)) is not None, "the clock was ahead, and was put right"


def test_the_caretaker_renews_it(keeper: Keeper):
    long_ago = clock.now() - timedelta(days=380)
    keeper.make_authority("HCB", [], [], False, "console:ana", long_ago)
    keeper.issue(["pacs.lan"], "console:ana", long_ago)
    gauge = Gauge(Disk(), list)
    Caretaker(
        keeper.environment, keeper.sessions, keeper.sessions, "", ZoneInfo("Africa/Maputo"), gauge
    ).renew_certificate()
    front = certificate_keeping.known(keeper.environment, {})[0]
    assert front.days_left(clock.now()) > 390


def test_what_is_not_from_our_authority_is_left_alone(keeper: Keeper, authority: Pair):
    folder = keeper.environment.home / "certificates"
    bought = certificates.issue(authority, ["pacs.lan"], NOW)
    folder.mkdir()
    (folder / "front.crt").write_bytes(bought.certificate)
    (folder / "front.key").write_bytes(bought.key)
    keeper.make_authority("HCB", [], [], False, "console:ana", NOW)
    late = NOW + timedelta(days=390)
    assert keeper.renew_if_due({}, late) is None
    for change in (lambda: keeper.issue(["pacs.lan"], "console:ana", late), lambda: keeper.renew("console:ana", late)):
        with pytest.raises(CertificateFault, match="from another authority"):
            change()
    assert (folder / "front.crt").read_bytes() == bought.certificate


def test_a_key_that_belongs_to_another_certificate_is_said_before_anything_starts(authority: Pair, tmp_path: Path):
    one, other = (certificates.issue(authority, ["pacs.lan"], NOW) for _ in range(2))
    chain, key = tmp_path / "front.crt", tmp_path / "front.key"
    chain.write_bytes(one.certificate)
    key.write_bytes(other.key)
    assert "is not the key of" in certificates.pair_faults(chain, key, NOW)[0]
    key.write_bytes(one.key)
    assert certificates.pair_faults(chain, key, NOW) == []
    assert "look at this machine's clock" in certificates.pair_faults(chain, key, NOW - timedelta(days=30))[0]
    key.write_text("no key")
    assert "PEM is allowed" in certificates.pair_faults(chain, key, NOW)[0]


def test_config_check_says_which_certificate_of_a_legacy_archive_is_no_use(authority: Pair, tmp_path: Path):
    shown = certificates.issue(authority, ["pacs.lan"], NOW)
    for name, content in (("ca", authority.certificate), ("us", shown.certificate), ("key", shown.key), ("no", b"-")):
        (tmp_path / name).write_bytes(content)

    def configuration(authorities: str = "ca", **own: str) -> Configuration:
        entry = {"Url": "https://old.lan/", **{key: str(tmp_path / file) for key, file in own.items()}}
        orthanc = {"HttpsCACertificates": str(tmp_path / authorities), "OrthancPeers": {"old": entry}}
        source = MigrationSource(kind="orthanc", peer="old")
        return Configuration(orthanc, Zambezi(migration=Migration(sources={"OLD": source})), "")

    def faults(authorities: str = "ca", now: datetime = NOW, **own: str) -> list[str]:
        return source_certificates.faults(configuration(authorities, **own), now)

    ours = {"CertificateFile": "us", "CertificateKeyFile": "key"}
    assert faults() == faults(**ours) == []
    about = "Migration.Sources.OLD: "
    assert faults("none") == [f"{about}HttpsCACertificates: not there: {tmp_path}/none"]
    assert faults("no") == [f"{about}HttpsCACertificates: {tmp_path}/no can't be used; allowed is PEM, a key with a "
                            "password only if CertificateKeyPassword gives it"]  # fmt: skip
    assert faults(CertificateFile="us", CertificateKeyFile="gone")[0].endswith(
        f"CertificateFile: not there: {tmp_path}/gone"
    )
    assert "can't be used" in faults(CertificateFile="us", CertificateKeyFile="no")[0]
    (shown_there,) = source_certificates.known(configuration(**ours))
    (soon,) = certificates.expiring([shown_there], NOW + timedelta(days=certificates.SERVER_DAYS - 9))
    assert soon.sentence.startswith("the certificate that the legacy archive OLD is shown ends on 2027-04-02, in 9")
    later = NOW + timedelta(days=certificates.SERVER_DAYS + 2)
    (ended,) = faults(now=later, **ours)
    assert ended.startswith(f"{about}CertificateFile: {tmp_path}/us ended on 2027-04-02; put one there that is good")
