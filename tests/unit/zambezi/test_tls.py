"""Whose certificate counts, and that every Python says the same of it."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from zambezi.tls import trusting


def authority(folder: Path) -> Path:
    """Certificate and key of one that vouches for itself, as vendors make them: without key usage or identifiers."""
    folder.mkdir(exist_ok=True)
    now, name = datetime.now(UTC), "modality"
    key = ec.generate_private_key(ec.SECP256R1())
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder().subject_name(called).issuer_name(called).public_key(key.public_key())
        .serial_number(7).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = folder / f"{name}.pem"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(made.public_bytes(Encoding.PEM) + pem)
    return file


def shake(client: ssl.SSLContext, server_file: Path) -> None:
    """A handshake in memory; raises what the client says of the server."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(server_file)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname="modality")
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (ours, theirs):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


def test_an_authority_without_what_rfc_5280_wants_counts_and_another_does_not(tmp_path: Path):
    known, other = authority(tmp_path), authority(tmp_path / "other")
    shake(trusting(known), known)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(trusting(other), known)
    with pytest.raises(OSError):
        trusting(tmp_path / "none.pem")
    assert trusting(known).minimum_version is ssl.TLSVersion.TLSv1_2
