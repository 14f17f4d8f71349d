"""docs/conformance/dicom.md against what the running servers negotiate, context by context."""

from __future__ import annotations

import re
from itertools import islice, product

from pydicom._uid_dict import UID_dictionary
from pynetdicom import AE, build_context

from demo.hospital import Hospital
from zambezi.environment import REPOSITORY

IMPLICIT, JPEG_2000 = "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.90"
CT, PRIVATE = "1.2.840.10008.5.1.4.1.1.2", "1.2.826.0.1.3680043.9.9999.1"
CLASSES = {uid for uid, told in UID_dictionary.items() if told[1] in ("SOP Class", "Meta SOP Class")}
SYNTAXES = {uid for uid, told in UID_dictionary.items() if told[1] == "Transfer Syntax"}


def tables(port: str) -> list[set[str]]:
    """The UIDs of each table under the heading of a port, in order."""
    text = (REPOSITORY / "docs" / "conformance" / "dicom.md").read_text(encoding="utf-8")
    (section,) = [part for part in text.split("\n## ") if part.startswith(f"Port {port}")]
    parts = re.split(r"^[|-]+$", section, flags=re.MULTILINE)[1:]
    found = [set(re.findall(r"^\| .* \| ([0-9.]+) \|", part, re.MULTILINE)) for part in parts]
    assert all(found)
    return found


def accepted(port: int, pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of (SOP class, transfer syntax) that CT1 gets at a port."""
    got: set[tuple[str, str]] = set()
    left = iter(sorted(pairs))
    while asked := list(islice(left, 127)):
        ae = AE("CT1")
        # An association without any is refused as a whole: Verification is always among them.
        contexts = [build_context(*one) for one in asked] + [build_context("1.2.840.10008.1.1", IMPLICIT)]
        made = ae.associate("127.0.0.1", port, contexts, ae_title="ZAMBEZI")
        assert made.is_established
        got |= {(str(cx.abstract_syntax), str(cx.transfer_syntax[0])) for cx in made.accepted_contexts}
        made.release()
    return got & pairs


def test_the_gateway_negotiates_what_is_written_and_nothing_else(hospital: Hospital):
    services, plain = tables("4243")
    pairs = set(product(CLASSES | {PRIVATE}, SYNTAXES & (plain | {JPEG_2000, "1.2.840.10008.1.2.1.99"})))
    assert accepted(hospital.environment.ports.mpps, pairs) == set(product(services, plain))
