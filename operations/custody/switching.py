"""The second phase of a correction: the archive goes from the old to the new, and only forward.

What has been done is what the archive holds: whoever begins here again, after whatever death, looks and goes on.
"""

from __future__ import annotations

from operations.custody.correction_work import UNREADABLE, NotYet, Work
from operations.custody.following import wait_until_followed
from operations.custody.worker import WRITER
from zambezi import corrections, crash, hold, holding, leases
from zambezi.database.tables import CorrectionItem
from zambezi.orthanc_client import OrthancRefused

FOLLOWED_S = 15.0


def switch(work: Work) -> bool:
    """Bring every instance from old to new, whatever was done before; whether there was still something to do."""
    with work.desk.sessions.begin() as session:
        items = corrections.items_of(session, work.row.id)
    changed = 0
    for one in items:
        changed += _exchange(work, one) if one.old_orthanc_id == one.new_orthanc_id else _transfer(work, one)
    return changed > 0


def _exchange(work: Work, item: CorrectionItem) -> bool:
    """The instance keeps its identity: the old one goes, the new one comes."""
    there = work.look(item.old_orthanc_id)
    if there == item.new_sha256:
        return _done(work, item, False)
    if there is not None:
        _remove(work, item, item.old_orthanc_id, there, item.old_sha256)
    work.mark(item, "removed")
    _store(work, item)
    return _done(work, item, True)


def _transfer(work: Work, item: CorrectionItem) -> bool:
    """The instance gets another identity: the new one comes, then the old one goes."""
    new_id = item.new_orthanc_id or ""
    there, old = work.look(new_id), work.look(item.old_orthanc_id)
    if (there, old) == (item.new_sha256, None):
        return _done(work, item, False)
    if there != item.new_sha256:
        if there is not None:
            _remove(work, item, new_id, there, None)
        _store(work, item)
    work.mark(item, "stored")
    if old is not None:
        _remove(work, item, item.old_orthanc_id, old, item.old_sha256)
    return _done(work, item, True)


def _done(work: Work, item: CorrectionItem, is_change: bool) -> bool:
    if is_change or item.state != "done":
        work.mark(item, "done")
    return is_change


def _store(work: Work, item: CorrectionItem) -> None:
    content = hold.get(work.desk.environment.hold_dir, item.new_sha256 or "")
    work.keeper.check()
    crash.point(WRITER)
    answer = work.desk.orthanc.store(content)
    crash.point(WRITER)
    if answer["ID"] != item.new_orthanc_id or work.look(answer["ID"]) != item.new_sha256:
        raise NotYet(f"the archive does not give back instance {item.new_orthanc_id} as it was stored")


def _remove(work: Work, item: CorrectionItem, orthanc_id: str, there: str, expected: str | None) -> None:
    """Delete what the archive holds there; bytes that nobody has kept yet go to the hold first, for a person."""
    if there == UNREADABLE:
        hold.get(work.desk.environment.hold_dir, item.old_sha256 or "")  # a row whose file is gone: nothing to keep
    elif there != expected:
        _keep_stranger(work, item, orthanc_id)
    else:
        hold.get(work.desk.environment.hold_dir, there)  # whole, and there: NotHeld says if not
    work.keeper.check()
    crash.point(WRITER)
    _delete(work, orthanc_id)
    crash.point(WRITER)


def _delete(work: Work, orthanc_id: str) -> None:
    try:
        work.desk.orthanc.request("DELETE", f"/instances/{orthanc_id}")
    except OrthancRefused as refused:
        if refused.status != 404:
            raise


def _keep_stranger(work: Work, item: CorrectionItem, orthanc_id: str) -> None:
    """Somebody stored other content there since the list was made: it is a conflict, and waits for a person."""
    if not wait_until_followed(work.desk.orthanc, FOLLOWED_S):
        raise NotYet("the archive's journal has not taken in the last changes yet")
    content = work.desk.orthanc.file(orthanc_id)
    sha256 = hold.put(work.desk.environment.hold_dir, content)
    with work.desk.sessions.begin() as session:
        leases.write(session, work.lease, {"updated_at": work.at})
        holding.hold(
            session, sha256=sha256, size=len(content), why="conflict", reference=work.reference,
            reason=f"it came while {work.reference} was changing this instance", sop_uid=item.sop_uid,
            study_uid=item.new_study_uid, series_uid=item.new_series_uid, orthanc_id=orthanc_id,
            other_sha256=item.new_sha256, now=work.desk.now(), writer=WRITER,
        )  # fmt: skip
