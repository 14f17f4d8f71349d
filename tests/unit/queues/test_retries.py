from __future__ import annotations

import errno
import ssl
from datetime import timedelta
from statistics import mean

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from zambezi.retries import (
    ErrorClass,
    Policy,
    decide,
    of_ack,
    of_database,
    of_dimse,
    of_http,
    of_orthanc,
    of_os,
)

TRANSIENT, OBJECT, CONFIGURATION, CONFLICT, DISK = ErrorClass

policies = st.builds(
    Policy,
    first=st.floats(0, 86400).map(lambda s: timedelta(seconds=s)),
    multiplier=st.floats(1, 10),
    cap=st.floats(0.1, 86400).map(lambda s: timedelta(seconds=s)),
    attempts=st.integers(1, 1000),
    object_attempts=st.integers(1, 20),
    jitter=st.floats(0, 1),
)
draws = st.floats(0, 1, exclude_max=True)
A_MICROSECOND = timedelta(microseconds=1)


@given(policies, st.integers(0, 100_000), draws)
def test_a_wait_is_never_negative_nor_longer_than_the_cap(policy, attempts, draw):
    assert timedelta() <= policy.wait(attempts, draw) <= max(policy.cap, policy.first) + A_MICROSECOND


@given(policies, st.integers(1, 200), draws)
def test_for_the_same_chance_waits_never_shrink(policy, attempts, draw):
    assert policy.wait(attempts + 1, draw) >= policy.wait(attempts, draw)


@given(policies, st.integers(1, 20))
def test_chance_takes_off_as_much_as_the_jitter_says(policy, attempts):
    longest = policy.wait(attempts, 0.0)
    shortest = policy.wait(attempts, 0.999_999_999)
    assert abs(shortest - longest * (1 - policy.jitter)) <= max(longest * 1e-6, 2 * A_MICROSECOND)
    even = mean(policy.wait(attempts, n / 100 + 0.005).total_seconds() for n in range(100))
    assert even == pytest.approx(longest.total_seconds() * (1 - policy.jitter / 2), rel=1e-3, abs=1e-5)


def test_waits_double_to_the_cap():
    policy = Policy(timedelta(seconds=10), multiplier=2, cap=timedelta(seconds=25), jitter=0)
    assert [policy.wait(n, 0.7).total_seconds() for n in (1, 2, 3, 90)] == [10, 20, 25, 25]


POLICY = Policy(timedelta(seconds=10), attempts=50, object_attempts=3)


@pytest.mark.parametrize(
    ("kind", "attempts", "state", "counts", "pauses"),
    [
        (TRANSIENT, 1, "retrying", True, ""),
        (TRANSIENT, 49, "retrying", True, ""),
        (TRANSIENT, 50, "parked", True, ""),
        (OBJECT, 2, "retrying", True, ""),
        (OBJECT, 3, "parked", True, ""),
        (CONFIGURATION, 1, "parked", True, "neighbour"),
        (CONFLICT, 1, "parked", True, ""),
        (DISK, 1, "retrying", False, "queue"),
        (DISK, 5000, "retrying", False, "queue"),
    ],
)
def test_what_each_class_does_to_a_queue(kind, attempts, state, counts, pauses):
    found = decide(kind, attempts, POLICY, 0.5)
    assert (found.state, found.counts, found.pauses) == (state, counts, pauses)
    assert (found.wait > timedelta()) is (state == "retrying")


def test_while_a_person_is_asked_about_a_configuration_nothing_more_is_parked_for_it():
    found = decide(CONFIGURATION, 1, POLICY, 0.5, is_probe=True)
    assert (found.state, found.counts, found.pauses) == ("retrying", False, "neighbour")


@pytest.mark.parametrize(
    ("service", "status", "kind"),
    [
        ("store", 0x0000, None),
        ("store", 0xB000, None),  # PS3.4 B.2.3: coercion of data elements, and stored
        ("store", 0xB006, None),
        ("store", 0xB007, None),
        ("store", 0xA700, TRANSIENT),
        ("store", 0xA7FF, TRANSIENT),
        ("store", 0xA900, OBJECT),
        ("store", 0xA9FF, OBJECT),
        ("store", 0xC000, OBJECT),
        ("store", 0xCFFF, OBJECT),
        ("store", 0x0110, OBJECT),
        ("store", 0x0111, CONFLICT),
        ("store", 0x0122, OBJECT),  # it doesn't take this SOP class, others it may
        ("store", 0x0124, CONFIGURATION),
        ("store", 0x0213, TRANSIENT),
        ("query", 0x0000, None),
        ("query", 0xFF00, None),
        ("query", 0xFF01, None),
        ("query", 0xA700, TRANSIENT),
        ("query", 0xA701, TRANSIENT),
        ("query", 0xA702, OBJECT),
        ("query", 0xA801, CONFIGURATION),
        ("query", 0xA900, CONFIGURATION),
        ("query", 0xB000, OBJECT),
        ("query", 0xC001, OBJECT),
        ("query", 0xFE00, TRANSIENT),
        ("query", 0x0122, CONFIGURATION),
        ("query", 0x9999, OBJECT),
    ],
)
def test_dimse_statuses(service, status, kind):
    assert of_dimse(service, status) is kind


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, None), (302, None), (400, OBJECT), (401, CONFIGURATION), (403, CONFIGURATION), (404, OBJECT),
        (409, CONFLICT), (413, OBJECT), (418, OBJECT), (429, TRANSIENT), (500, TRANSIENT), (503, TRANSIENT),
        (504, TRANSIENT), (507, DISK), (599, TRANSIENT),
    ],
)  # fmt: skip
def test_http_statuses(status, kind):
    assert of_http(status) is kind


@pytest.mark.parametrize(
    ("details", "service", "code", "kind"),
    [
        ('C-MOVE SCU to AET "L" has failed with DIMSE status 0xA801', "query", None, CONFIGURATION),
        ('C-STORE SCU to AET "L" has failed with DIMSE status 0xA700', "store", 9, TRANSIENT),
        ('C-STORE SCU to AET "L" has failed with DIMSE status 0xC000', "store", 9, OBJECT),
        ('DicomAssociation - connecting to AET "L": Failed to establish association (0006:0317 Peer aborted '
         "Association (or never connected))", "store", 9, TRANSIENT),
        ("TCP Initialization Error: Connection refused", "store", None, TRANSIENT),
        ("Association Rejected: Result: Rejected Permanent\nReason: Called AE Title Not Recognized", "store", None,
         CONFIGURATION),
        ("Unable to negotiate a presentation context for SOP Class UID 1.2.3", "store", 9, OBJECT),
        ("No modality with symbolic name: nobody", "query", None, CONFIGURATION),
        ('{"OrthancError": "Unknown resource", "OrthancStatus": 17}', "query", None, CONFIGURATION),
        ('{"OrthancError": "Unknown resource", "OrthancStatus": 17}', "store", None, OBJECT),
        ('{"OrthancError": "The file storage is full", "OrthancStatus": 19}', "query", None, DISK),
        ("Cannot write to file", "store", 14, DISK),
        ("POST /modalities/L/query: HTTP 503: ", "query", None, TRANSIENT),
        ("POST /modalities/L/store: HTTP 500: Internal error", "store", None, TRANSIENT),
        ("POST /modalities/L/store: HTTP 401: ", "store", None, CONFIGURATION),
        ("POST /instances: HTTP 507: ", "store", None, DISK),
        ("", "query", None, OBJECT),
    ],
)  # fmt: skip
def test_what_orthanc_says(details, service, code, kind):
    assert of_orthanc(details, service, code) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DISK),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), DISK),
        (OSError(errno.EIO, "Input/output error"), DISK),
        (PermissionError(errno.EACCES, "Permission denied"), CONFIGURATION),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), TRANSIENT),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), TRANSIENT),
        (requests.ConnectionError("no route"), TRANSIENT),
        (requests.ReadTimeout("slow"), TRANSIENT),
        (requests.exceptions.SSLError("certificate"), CONFIGURATION),
        (requests.exceptions.InvalidURL("x"), CONFIGURATION),
        (ssl.SSLCertVerificationError("self-signed"), CONFIGURATION),
    ],
)
def test_errors_of_the_machine_and_of_the_way(error, kind):
    assert of_os(error) is kind


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("(sqlite3.OperationalError) database or disk is full", DISK),
        ("(sqlite3.OperationalError) database is locked", TRANSIENT),
        ('could not extend file "base/1/2": No space left on device', DISK),
        ("connection refused", TRANSIENT),
    ],
)
def test_errors_of_the_database(words, kind):
    assert of_database(words) is kind


@pytest.mark.parametrize(
    ("code", "error", "kind"),
    [
        ("AA", "", None),
        ("CA", "", None),
        ("AE", "", OBJECT),
        ("AR", "200", OBJECT),
        ("AR", "202", CONFIGURATION),
        ("AR", "203", CONFIGURATION),
        ("AE", "205", CONFLICT),
        ("AE", "206", TRANSIENT),
        ("AR", "207", TRANSIENT),
        ("CE", "", OBJECT),
        ("", "", TRANSIENT),
    ],
)
def test_acknowledgements(code, error, kind):
    assert of_ack(code, error) is kind
