"""What a viewer asks for, through the access filter and without it: frames of CT slices by DICOMweb, as OHIF does.

Both Orthancs have the same settings and the viewers' plugins; both are asked themselves, without the front door. Ours
asks its filter for each request, which reads the signed token, the table of paths and the revocations.
"""

from __future__ import annotations

import base64
import http.client
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import requests

from tests.bench import ingest, instances
from tests.bench.ingest import Bare
from tests.running import a_hospital
from zambezi import clock, keys
from zambezi.access import tokens

#: Edge of a slice in pixels -> so many of them are fetched in a round.
SLICES = {512: 600, 128: 2000}
CONNECTIONS = 6
ROUNDS = 5
STORED = 40


def paths(port: int, account: tuple[str, str], edge: int) -> list[str]:
    """The frames of the slices of this size that the archive holds."""
    url = f"http://127.0.0.1:{port}"
    found = []
    for one in requests.get(f"{url}/instances", auth=account, timeout=60).json():
        tags = requests.get(f"{url}/instances/{one}/simplified-tags", auth=account, timeout=60).json()
        if int(tags["Rows"]) == edge:
            study, series, sop = tags["StudyInstanceUID"], tags["SeriesInstanceUID"], tags["SOPInstanceUID"]
            found.append(f"/dicom-web/studies/{study}/series/{series}/instances/{sop}/frames/1")
    return found


def basic(account: tuple[str, str]) -> str:
    """The header of HTTP's own authentication."""
    return "Basic " + base64.b64encode(":".join(account).encode()).decode()


def rate(port: int, headers: Mapping[str, str], wanted: list[str], count: int) -> float:
    """Frames a second over a browser's six connections."""
    faults: list[int] = []

    def fetch(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for n in range(number, count, CONNECTIONS):
            connection.request("GET", wanted[n % len(wanted)], headers=dict(headers))
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                faults.append(answer.status)
        connection.close()

    threads = [threading.Thread(target=fetch, args=(number,)) for number in range(CONNECTIONS)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise RuntimeError(f"{len(faults)} of {count} frames were refused, the first with {faults[0]}")
    return count / (time.perf_counter() - begun)


def main() -> None:
    """Print the ratio for each size, round by round."""
    with tempfile.TemporaryDirectory() as name, a_hospital(quiet_seconds=ingest.NEVER) as hospital:
        bare = Bare(Path(name) / "bare", hospital, nodelay=True, viewers=True)
        try:
            kept = keys.load(hospital.environment.keys_file)
            now_s = int(clock.now().timestamp())
            token = tokens.sign(tokens.begin("bench", "session", "radiologist", now_s, 3600), kept.session_key)
            ours, other = hospital.environment.ports.orthanc_http, bare.http_port
            asks = {
                ours: {"Authorization": basic(kept.basic("front")), "Cookie": f"{tokens.COOKIE}={token}"},
                other: {"Authorization": basic(("bench", "bench"))},
            }
            accounts = {ours: kept.basic("operations"), other: ("bench", "bench")}
            print(f"viewing, {ROUNDS} interleaved rounds each, {CONNECTIONS} connections")
            for edge, count in SLICES.items():
                for door in (hospital.environment.ports.dicom, bare.dicom_port):
                    ingest.rate((door,), [instances.template(edge)], STORED, 1)
                wanted = {port: paths(port, accounts[port], edge) for port in asks}
                ratios, rates = [], []
                for number in range(ROUNDS + 1):
                    order = (ours, other) if number % 2 else (other, ours)
                    found = {port: rate(port, asks[port], wanted[port], count) for port in order}
                    if number:  # the first round only warms up
                        ratios.append(found[ours] / found[other])
                        rates.append(found[ours])
                print(
                    f"{ingest.SIZES[edge][0]:>7}: {statistics.median(rates):6.0f} frames/s through the filter, "
                    f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                    flush=True,
                )
        finally:
            bare.stop()
