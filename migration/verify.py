"""The second, independent retrieve: each instance is fetched once more and compared with what is stored.

By C-GET (PS3.4 C.4.3) with pynetdicom, under an AE title of its own, in the transfer syntaxes in which the
archive holds the study, into memory and never into the archive.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as RetrieveByGet  # type: ignore[attr-defined]

from migration import transfer
from migration.copying import named
from migration.desk import Desk
from migration.source import RUNGS, Checked, Compared, Request, Study, Trouble
from zambezi import digest, digests
from zambezi.digest import Fingerprint, Unreadable
from zambezi.orthanc_client import OrthancError
from zambezi.retries import ErrorClass
from zambezi.retrieving import LARGE_PDU

log = logging.getLogger(__name__)

#: Contexts of one association (PS3.8 9.3.2.2): odd ids up to 255, one of which is the retrieve itself.
_MOST_CONTEXTS = 127
_SUCCESS, _REFUSED = 0x0000, 0xA700
_IDS_AT_ONCE = 500
#: How a file begins behind its preamble: (0002,0000), which says how long the rest of the meta header is.
_GROUP_LENGTH = b"DICM\x02\0\0\0UL\x04\0"


def compare(
    source_side: Fingerprint, stored_side: Fingerprint, stored_md5: str | None, recorded_md5: str | None
) -> Compared:  # fmt: skip
    """Compare one instance; the file must also still be what Orthanc recorded on arrival."""
    tags = digest.differences(source_side, stored_side)
    if stored_md5 != recorded_md5:
        tags = ["the file on disk is not what arrived", *tags]
    same = not tags and source_side.digest == stored_side.digest
    return Compared("equal" if same else "different", source_side.digest, stored_side.digest, stored_md5, tuple(tags))


def check(
    desk: Desk, study: Study, wanted: Collection[str], alive: Callable[[], None],
    keep: Callable[[dict[str, Compared]], None],
) -> Checked:  # fmt: skip
    """Compare the wanted instances; `keep` gets the results bit by bit, so that a crash loses few of them.

    Trouble (transient) where the source can't be reached; what it refuses to send is in `not_sent`.
    """
    checked = Checked()
    receiver = _Receiver(desk, study, set(wanted), alive, keep, checked)
    kinds = _kinds(desk, study.held, wanted)
    for rung in RUNGS:
        left = set(wanted) - set(checked.compared)
        if not left:
            break
        requests = transfer.plan(study.uid, {uid: study.expected[uid] for uid in wanted}, left, rung)
        _get(desk, requests, kinds, receiver, checked)
        receiver.flush()
        if receiver.broken:
            raise Trouble(ErrorClass.TRANSIENT, receiver.broken)
    checked.not_sent = set(wanted) - set(checked.compared)
    return checked


def _kinds(desk: Desk, held: Mapping[str, list[str]], wanted: Collection[str]) -> set[tuple[str, str]]:
    """SOP class and transfer syntax of what is stored: what the source is asked to send it as."""
    ids = [orthanc_id for sop_uid in wanted for orthanc_id in held[sop_uid]]
    kinds = set()
    for n in range(0, len(ids), _IDS_AT_ONCE):
        for found in desk.client.contents(ids[n : n + _IDS_AT_ONCE]):
            kinds.add((str(found["Metadata"]["SopClassUid"]), str(found["Metadata"]["TransferSyntax"])))
    return kinds


def _get(
    desk: Desk,
    requests: list[Request],
    kinds: set[tuple[str, str]],
    receiver: _Receiver,
    checked: Checked,
) -> None:
    entity = AE(ae_title=desk.settings.aet)
    entity.maximum_pdu_size = LARGE_PDU
    entity.acse_timeout = entity.network_timeout = 30
    entity.dimse_timeout = desk.settings.silence_seconds
    proposed = [build_context(sop_class, syntax) for sop_class, syntax in sorted(kinds)][: _MOST_CONTEXTS - 1]
    roles = [build_role(sop_class, scp_role=True) for sop_class in sorted({sop_class for sop_class, _ in kinds})]
    association = entity.associate(
        desk.peer.host, desk.peer.port, contexts=[build_context(RetrieveByGet), *proposed], ae_title=desk.peer.aet,
        ext_neg=[*roles], evt_handlers=[(evt.EVT_C_STORE, receiver.take)],
    )  # fmt: skip
    if not association.is_established:
        how = "rejected" if association.is_rejected else "not answered"
        raise Trouble(ErrorClass.TRANSIENT, f"the association for the second retrieve was {how} by the source")
    try:
        for request in requests:
            desk.check_open()
            receiver.alive()
            identifier = Dataset()
            identifier.QueryRetrieveLevel = {"Study": "STUDY", "Series": "SERIES", "Instance": "IMAGE"}[request.level]
            for keyword, value in request.query.items():
                setattr(identifier, keyword, value)
            last = 0
            for status, _ in association.send_c_get(identifier, RetrieveByGet):
                last = int(status.Status) if status and "Status" in status else -1
            if receiver.broken or not association.is_established:
                break
            if last != 0:
                checked.troubles.append(f"C-GET {request.level}: status 0x{last & 0xFFFF:04X}")
    except (ValueError, RuntimeError) as error:  # no context accepted for the retrieve itself; association lost
        raise Trouble(ErrorClass.TRANSIENT, f"the second retrieve ended early: {error}") from error
    finally:
        if association.is_established:
            association.release()


#: Of a receiver that is silent for longer some sources think that it is dead.
_LONGEST_SILENCE_S = 10.0


class _Receiver:
    """Takes what the source sends, and compares it at once with the stored file, so that memory stays flat."""

    def __init__(
        self, desk: Desk, study: Study, wanted: set[str], alive: Callable[[], None],
        keep: Callable[[dict[str, Compared]], None], checked: Checked,
    ) -> None:  # fmt: skip
        self._desk, self._study, self._wanted, self._keep, self._checked = desk, study, wanted, keep, checked
        self.alive = alive
        self.broken = ""
        self._fresh: dict[str, Compared] = {}

    def take(self, event: Any) -> int:
        """Answer one C-STORE sub-operation."""
        if self.broken:
            return _REFUSED
        sent = bytes(event.encoded_dataset())
        data_set = event.request.DataSet.getvalue()
        try:
            self._compare(sent, data_set)
        except OrthancError as error:
            self.broken = f"the archive could not be read: {error}"
            return _REFUSED
        # The source waits for our answer before it sends the next; the rest of a debt is paid between studies.
        owed = self._desk.line.used(len(sent), self._desk.cap, self._desk.now())
        self._desk.stop.wait(min(owed, _LONGEST_SILENCE_S))
        return _SUCCESS

    def flush(self) -> None:
        """Hand over what was compared since the last time."""
        if self._fresh:
            self._keep(self._fresh)
            self._fresh = {}

    def _compare(self, sent: bytes, data_set: bytes) -> None:
        try:
            source_side = digest.fingerprint(sent)
        except Unreadable as error:
            self._checked.troubles.append(f"the second retrieve brought an unreadable object: {error}")
            return
        sop_uid = source_side.sop_uid
        if sop_uid not in self._wanted:
            return
        # Where one SOP Instance UID is stored under two patients, both copies must be equal to the source's.
        results = [
            _against(self._desk, source_side, data_set, orthanc_id, self._study.arrived.get(orthanc_id, ""))
            for orthanc_id in self._study.held[sop_uid]
        ]
        worst = next((result for result in results if result.verdict != "equal"), results[0])
        self._checked.compared[sop_uid] = self._fresh[sop_uid] = worst
        if len(self._fresh) >= 50:
            self.flush()


def _against(
    desk: Desk, source_side: Fingerprint, data_set: bytes, orthanc_id: str, arrived: str
) -> Compared:  # fmt: skip
    """What was sent against what is stored; `arrived`: SHA-256 of the file on the disk, as level 2 has shown it."""
    file = desk.client.file(orthanc_id)
    # Where this is the file that level 2 has proven, Orthanc's own record of it says nothing more.
    is_proven = bool(arrived) and digests.raw(file) == arrived
    md5 = None if is_proven else digests.orthanc_md5(file)
    try:
        stored_side = _same(source_side, data_set, file) or digest.fingerprint(file)
    except Unreadable as error:
        return Compared("different", source_side.digest, None, md5, (f"the stored file is unreadable: {error}",))
    return compare(source_side, stored_side, md5, None if is_proven else desk.client.md5(orthanc_id))


def _same(source_side: Fingerprint, data_set: bytes, file: bytes) -> Fingerprint | None:
    """The stored side's fingerprint where the very bytes that were sent follow the meta header (PS3.10 7.1)."""
    if file[128:140] != _GROUP_LENGTH or named(file)[1] != source_side.transfer_syntax:
        return None
    begin = 144 + int.from_bytes(file[140:144], "little")
    return source_side if memoryview(file)[begin:] == data_set else None
