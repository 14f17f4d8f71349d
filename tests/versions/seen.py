"""What a version of Orthanc gives, seen on the running thing: the rows of the table in docs/conformance.md.

`python -m tests.versions.seen` prints them as JSON. Nothing here compares a version's number.
"""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from demo.neighbours import free_ports
from plugins.versions import OFFERS
from tests.integration.archive_fixture import Archive, image, until
from tests.integration.test_archive_door import ask_worklist, item

#: The heading in docs/conformance.md under which the table stands.
HEADING = "## Versions of Orthanc\n"
#: A fact is in the journal within a second or two, on a machine that is busy with other tests, too.
TOLD_WITHIN_S = 15.0
CONFORMANCE = Path(__file__).parents[2] / "docs" / "conformance.md"


def look(archive: Archive, folder: Path) -> dict[str, str]:
    """Every row with its cell, for the Orthanc that runs; `archive` is empty, `folder` for one more Orthanc."""
    status = archive.get("/zambezi/status").json()
    lacking = set(status["lacks"])
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return {
        "": status["orthanc"],
        "Debian": release["VERSION_CODENAME"],
        "Python plugin, and its Python": f"{status['python_plugin']}, {'.'.join(platform.python_version_tuple()[:2])}",
        **{offer.row: _word(offer.lacking not in lacking) for offer in OFFERS},
        **_journal_rows(archive),
        "worklist at port 4242: `conceicao*` finds Conceição": _word(_finds_without_accents(archive)),
        "several modalities with one AE title and different addresses": _word(_tells_addresses_apart(folder)),
    }


def _journal_rows(archive: Archive) -> dict[str, str]:
    """What the journal holds of whoever asks, is refused or retrieves; it is waited for as long as that may take."""
    first = image()
    archive.send(first)
    study = Dataset()
    study.QueryRetrieveLevel, study.StudyInstanceUID = "STUDY", first.StudyInstanceUID
    asker = AE(ae_title="US1")
    asker.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    mover = AE(ae_title="PACS2")
    mover.add_requested_context(StudyRootQueryRetrieveInformationModelMove)
    port = archive.environment.ports.dicom
    asking = asker.associate("127.0.0.1", port, ae_title="ZAMBEZI")
    list(asking.send_c_find(study, StudyRootQueryRetrieveInformationModelFind))
    asking.release()
    ask_worklist(archive, "US1")
    moving = mover.associate("127.0.0.1", port, ae_title="ZAMBEZI")
    list(moving.send_c_move(study, "US1", StudyRootQueryRetrieveInformationModelMove))
    moving.release()
    assert archive.send(image(), aet="STRANGER") == [None], "an AE title that nobody configured is refused"
    asked = ("find", "worklist")
    return {
        "C-FIND and worklist queries in the journal, by Lua": _word(
            all(_is_told(archive, "queried", aet="US1", kind=kind) for kind in asked)
        ),
        "C-MOVE in the journal": _word(_is_told(archive, "retrieve-asked", aet="PACS2", kind="Move")),
        "refused associations at port 4242 in the journal": _word(_is_told(archive, "refused", aet="STRANGER")),
    }


def _is_told(archive: Archive, event: str, **facts: str) -> bool:
    """Whether the journal has such an entry, soon."""
    deadline = time.monotonic() + TOLD_WITHIN_S
    while not archive.events(event, **facts):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _finds_without_accents(archive: Archive) -> bool:
    entries = [{"aets": ["CT1"], "study_uid": "1.2", "dicom": item("CT1", "Conceição^João", "Z1")}]
    assert archive.put("/zambezi/worklist", {"generation": 1, "entries": entries}).status_code == 200
    assert "Z1" in ask_worklist(archive, "CT1", name="Concei*"), "the item is on the list"
    return "Z1" in ask_worklist(archive, "CT1", name="conceicao*")


def _tells_addresses_apart(folder: Path) -> bool:
    """A bare Orthanc: our configuration refuses two peers of one AE title, since not every version can have them."""
    (port,) = free_ports(1)
    file = folder / "bare.json"
    file.write_text(
        json.dumps(
            {
                "DicomAet": "BARE", "DicomPort": port, "HttpServerEnabled": False, "DicomCheckModalityHost": True,
                "DicomAlwaysAllowEcho": False, "DicomAlwaysAllowStore": False,
                "StorageDirectory": str(folder / "bare"), "Plugins": [],
                "DicomModalities": {"A": ["CT9", "127.0.0.1", 104], "B": ["CT9", "127.0.0.2", 104]},
            }
        )
    )  # fmt: skip
    bare = subprocess.Popen(["/usr/sbin/Orthanc", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _echoes(port, "127.0.0.1") or _echoes(port, "127.0.0.2"), 30)
        return _echoes(port, "127.0.0.1") and _echoes(port, "127.0.0.2")
    finally:
        bare.send_signal(signal.SIGTERM)
        bare.wait(30)


def _echoes(port: int, address: str) -> bool:
    caller = AE(ae_title="CT9")
    caller.add_requested_context(Verification)
    association = caller.associate("127.0.0.1", port, ae_title="BARE", bind_address=(address, 0))
    if not association.is_established:
        return False
    try:
        return bool(association.send_c_echo().get("Status", 1) == 0)
    finally:
        association.release()


def _word(is_so: bool) -> str:
    return "yes" if is_so else "no"


def table(columns: list[dict[str, str]]) -> str:
    """The columns side by side, as Markdown."""
    rows = [[row, *(column[row] for column in columns)] for row in columns[0]]
    rows.insert(1, ["---"] * (len(columns) + 1))
    return "".join(f"| {' | '.join(cells)} |\n".replace("| ---", "|---").replace("--- |", "---|") for cells in rows)


def documented() -> str:
    """The table in docs/conformance.md."""
    _, _, behind = CONFORMANCE.read_text(encoding="utf-8").partition(HEADING)
    return "".join(f"{line}\n" for line in behind.partition("\n## ")[0].splitlines() if line.startswith("|"))


def documented_column(version: str) -> dict[str, str]:
    """What docs/conformance.md says of this version; empty where it says nothing."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in documented().splitlines()]
    at = rows[0].index(version) if version in rows[0] else 0
    return {cells[0]: cells[at] for n, cells in enumerate(rows) if n != 1} if at else {}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = Archive(Path(folder) / "archive").start()
        try:
            sys.stdout.write(json.dumps(look(archive, Path(folder))) + "\n")
        finally:
            archive.stop()


if __name__ == "__main__":
    main()
