"""Comparing what came from a source with what the archive holds: MD5s first, canonical digests where they differ."""

from __future__ import annotations

import json
from typing import Any

from migration.source import Compared, Trouble
from migration.wire import Answer, NoAnswer, Wire
from zambezi import digest, digests
from zambezi.digest import Fingerprint, Unreadable
from zambezi.retries import ErrorClass

#: Among what differs: the source's own record of its file.
NOT_AS_RECORDED = "what the source sent is not what it recorded of its file"


def against(wire: Wire, content: bytes, source_md5: str, orthanc_id: str) -> Compared:
    """What was fetched against what the archive holds under this id.

    What the source recorded and what the archive recorded on arrival are equal where nothing went wrong; so bytes
    are hashed only where the source recorded nothing or the two differ, and read back only where they differ.
    """
    stored_md5 = stored_md5_of(wire, orthanc_id)
    md5 = source_md5 if stored_md5 == source_md5 else digests.orthanc_md5(content)
    if stored_md5 == md5:
        same = Compared("equal", None, None, stored_md5, source_md5=md5)
        return _spoilt(same, source_md5) if source_md5 and source_md5 != md5 else same
    answer = ask(wire, "GET", f"/instances/{orthanc_id}/file")
    if answer.status != 200:
        words = f"the archive: GET /instances/{orthanc_id}/file: HTTP {answer.status}"
        raise Trouble(ErrorClass.TRANSIENT, words, is_ours=True)
    found = compare(content, md5, answer.body, stored_md5)
    return _spoilt(found, source_md5) if source_md5 and source_md5 != md5 else found


def compare(content: bytes, md5: str, stored: bytes, stored_md5: str) -> Compared:
    """The source's bytes and the stored ones, by their canonical digests. Pure."""
    sides = [_fingerprint(content), _fingerprint(stored)]
    words = [
        f"{whose} can't be taken apart: {side}"
        for whose, side in zip(("the source's object", "the stored object"), sides, strict=True)
        if isinstance(side, str)
    ]
    source_side, stored_side = (None if isinstance(side, str) else side for side in sides)
    if source_side and stored_side:
        words = digest.differences(source_side, stored_side)
    is_same = bool(source_side and stored_side and source_side.digest == stored_side.digest)
    return Compared(
        "equal" if is_same else "different", source_side.digest if source_side else None,
        stored_side.digest if stored_side else None, stored_md5, tuple(words), md5,
    )  # fmt: skip


def _fingerprint(content: bytes) -> Fingerprint | str:
    try:
        return digest.fingerprint(content)
    except Unreadable as error:
        return str(error)


def _spoilt(compared: Compared, source_md5: str) -> Compared:
    """What came from the source is not what the source once received: a person must know, whatever is stored."""
    return Compared(
        "different", compared.source_digest, compared.stored_digest, compared.stored_md5,
        (NOT_AS_RECORDED, *compared.differs_in), source_md5,
    )  # fmt: skip


def stored_md5_of(wire: Wire, orthanc_id: str) -> str:
    """What the archive recorded when it received the instance (lower-case hex)."""
    answer = ask(wire, "GET", f"/instances/{orthanc_id}/attachments/dicom/md5")
    if answer.status != 200:
        words = f"the archive holds no MD5 of {orthanc_id}: HTTP {answer.status}"
        raise Trouble(ErrorClass.TRANSIENT, words, is_ours=True)
    return answer.text.strip()


def ask(wire: Wire, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
    """What the archive answers; Trouble (transient, ours) where it does not."""
    try:
        return wire.ask(method, path, body, headers)
    except NoAnswer as error:
        raise Trouble(ErrorClass.TRANSIENT, f"the archive: {error}", is_ours=True) from error


def content_of(answer: Answer) -> dict[str, Any]:
    """The JSON object in an answer; {} where there is none."""
    try:
        said = json.loads(answer.body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
