"""What the archive really has of instances: what the index says of each, and what lies on the disk.

Orthanc keeps files that it read or wrote a moment ago in memory and answers from there, `verify-md5` too: it vouches
for a file that is gone. So the disk is read here. One call ends after a few seconds, with what it has until then.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from plugins.facts import Came
from plugins.orthanc_rest import OrthancRest, RestRefused

#: Of an instance (SOP Instance UID, Orthanc id, size): SHA-256 of the bytes that Orthanc was given to store (None
#: where nobody saw them come), and what came, where a rule coerced it.
Arrived = Callable[[str, str, int], tuple[str | None, Came | None]]

#: SOP Instance UIDs in one call, and the seconds after which no further one is looked at.
MOST = 100
ENOUGH_S = 5.0

#: By its number: for a keyword Orthanc goes through all that it knows.
_SOP_UID = "0008,0018"
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")
_MOST_COPIES = 10 * MOST
_PIECE = 1 << 20


class AskedWrongly(ValueError):
    """What was asked can't be understood; the text says why."""


class Verifier:
    """Looks into index and storage of the Orthanc that it runs in; every call has a connection of its own."""

    def __init__(
        self, storage: Path, connect: Callable[[], OrthancRest], arrived: Arrived,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._storage = storage
        self._connect = connect
        self._arrived = arrived
        self._clock = clock

    def look(self, asked: Any) -> list[dict[str, Any]]:
        """`asked`: SOP Instance UIDs; for the first of them, at least one: {"sop_uid", "copies"}.

        A copy is {"study_uid", "sop_class", "size", "md5", "file_size", "file_md5"}; of a file that is not there, or
        has another size, `file_md5` is "" (`file_size` -1 where there is none). Asked as {"arrivals": UIDs}, it has
        besides {"orthanc_id", "transfer_syntax", "file_sha256", "arrived_sha256", "came_sha256", "changed"}: what the
        file is now, what Orthanc was given to store, what came where that was coerced, and the tags in which that
        differs; None where it isn't known. Where it is known what arrived, `file_md5` is None. Whoever knows the
        copies asks for {"arrivals": {UID: Orthanc ids}}: that saves Orthanc most of the questions, and tells neither
        the study nor, where the file is what arrived, `md5`. AskedWrongly for anything but UIDs and ids.
        """
        of_arrivals = isinstance(asked, dict) and set(asked) == {"arrivals"}
        wanted = asked["arrivals"] if of_arrivals else asked
        ids = _ids(wanted) if of_arrivals and isinstance(wanted, dict) else None
        uids = _uids(wanted if ids is None else list(wanted))
        end = self._clock() + ENOUGH_S
        rest = self._connect()
        try:
            known = self._known(rest, uids) if ids is None else _by_uid(rest.contents(ids).values())
            told: list[dict[str, Any]] = []
            for uid in uids:
                if told and self._clock() >= end:
                    break
                copies = [
                    (self._as_it_came(uid, one) if ids else None) or self._copy(rest, uid, one, of_arrivals)
                    for one in known.get(uid, [])
                ]
                told.append({"sop_uid": uid, "copies": [copy for copy in copies if copy]})
            return told
        finally:
            rest.close()

    def _known(self, rest: OrthancRest, uids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """What the index has of each UID: id, class and Study Instance UID; more than one where patients differ."""
        ids = rest.post("/tools/find", {"Level": "Instance", "Query": {_SOP_UID: "\\".join(uids)}})
        instances = rest.contents(ids)
        series = rest.contents(sorted({one["ParentSeries"] for one in instances.values()}))
        studies = rest.contents(sorted({one["ParentStudy"] for one in series.values()}))
        # What is being deleted in this moment has lost a part of its family, and is no more.
        family = {one["ID"]: studies.get(series.get(one["ParentSeries"], {}).get("ParentStudy", ""))
                  for one in instances.values()}  # fmt: skip
        found = _by_uid(one for one in instances.values() if family[one["ID"]])
        for one in (copy for copies in found.values() for copy in copies):
            study = family[one["id"]] or {}
            one["study_uid"] = study["MainDicomTags"]["StudyInstanceUID"]
        return found

    def _as_it_came(self, uid: str, known: dict[str, Any]) -> dict[str, Any] | None:
        """One whose file is what arrived, by what the index has told already; None: look at it more closely."""
        arrived, came = self._arrived(uid, known["id"], known["size"])
        if not arrived:
            return None
        on_disk = _on_disk(self._file(known["name"]), known["size"], ("sha256",))
        if on_disk["file_sha256"] != arrived:
            return None
        found = {"sop_class": known["sop_class"], "size": known["size"], "md5": None}
        return found | _came(known, arrived, came) | on_disk

    def _file(self, name: str) -> Path:
        return self._storage / name[:2] / name[2:4] / name

    def _copy(self, rest: OrthancRest, uid: str, known: dict[str, Any], of_arrivals: bool) -> dict[str, Any] | None:
        try:
            info = rest.get(f"/instances/{known['id']}/attachments/dicom/info")
        except RestRefused:
            return None  # deleted in this moment
        size, file = int(info["CompressedSize"]), self._file(str(info["Uuid"]))
        found = {
            "study_uid": known.get("study_uid", ""), "sop_class": known["sop_class"], "size": size,
            "md5": info["CompressedMD5"],
        }  # fmt: skip
        if not of_arrivals:
            return found | _on_disk(file, size, ("md5",))
        arrived, came = self._arrived(uid, known["id"], size)
        # One digest is enough where the other side of it is known: MD5 costs more than the reading.
        digests = ("sha256",) if arrived else ("sha256", "md5")
        return found | _came(known, arrived, came) | _on_disk(file, size, digests)


def _by_uid(instances: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What the index says of instances, by SOP Instance UID."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in instances:
        found[one["MainDicomTags"]["SOPInstanceUID"]].append({
            "id": one["ID"], "sop_class": one["Metadata"].get("SopClassUid", ""),
            "syntax": one["Metadata"].get("TransferSyntax", ""), "name": str(one.get("FileUuid", "")),
            "size": int(one.get("FileSize", -1)),
        })  # fmt: skip
    return found


def _came(known: dict[str, Any], arrived: str | None, came: Came | None) -> dict[str, Any]:
    return {
        "orthanc_id": known["id"], "transfer_syntax": known["syntax"], "arrived_sha256": arrived,
        "came_sha256": came.sha256 if came else None,
        "changed": list(came.changed) if came and came.changed is not None else None, "file_md5": None,
    }  # fmt: skip


def _ids(asked: dict[Any, Any]) -> list[str]:
    ids = [one for copies in asked.values() for one in (copies if isinstance(copies, list) else [copies])]
    if not ids or len(ids) > _MOST_COPIES or not all(isinstance(one, str) and _ID.fullmatch(one) for one in ids):
        raise AskedWrongly(f"allowed are 1 to {_MOST_COPIES} ids of Orthanc, in a list for each SOP Instance UID")
    return ids


def _uids(asked: Any) -> list[str]:
    if not isinstance(asked, list) or not 0 < len(asked) <= MOST:
        raise AskedWrongly(f"allowed is a list of 1 to {MOST} SOP Instance UIDs")
    for one in asked:
        if not isinstance(one, str) or len(one) > 64 or not _UID.fullmatch(one):
            raise AskedWrongly(f"found {str(one)[:80]!r}, allowed are SOP Instance UIDs")
    return list(dict.fromkeys(asked))


def _on_disk(file: Path, size: int, names: Sequence[str]) -> dict[str, Any]:
    """The file's size, and these digests of what the disk gives back; all "" where that is not all of it."""
    nothing, read = {f"file_{name}": "" for name in names}, 0
    digests = [hashlib.new(name, usedforsecurity=False) for name in names]
    try:
        if file.stat().st_size != size:
            return {"file_size": file.stat().st_size, **nothing}
        with file.open("rb", buffering=0) as content:
            while piece := content.read(_PIECE):
                for digest in digests:
                    digest.update(piece)
                read += len(piece)
    except FileNotFoundError:
        return {"file_size": -1, **nothing}
    except OSError:
        return {"file_size": read, **nothing}  # the disk doesn't give it back
    return {"file_size": read, **{f"file_{digest.name}": digest.hexdigest() for digest in digests}}
