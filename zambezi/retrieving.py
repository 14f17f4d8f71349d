"""C-GET (PS3.4 C.4.3): objects come over the very association on which they are asked for.

Each transfer syntax is offered in a presentation context of its own, so that a source can send what it holds as it
holds it. A source that fails all the same, since it sends on whichever context it took first, is offered one syntax
after the other. And the fewest questions that name what is lacking of a study, for C-MOVE and C-GET alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

#: Study Root Query/Retrieve Information Model - GET (PS3.4 C.6.2).
GET = "1.2.840.10008.5.1.4.1.2.2.3"
#: In which an object may lie at a source (PS3.5 10): what is most often met, each asked for in a context of its own.
SYNTAXES: tuple[str, ...] = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.102",
)  # fmt: skip
#: What is offered where a source doesn't say of what class its objects are.
USUAL = (
    "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.88.59",
)  # fmt: skip
#: The longest PDU that we take (PS3.8 D.1), as long as DCMTK ever sends one: of small ones an image has hundreds, each
#: of which costs as much as a large one.
LARGE_PDU = 131_072
#: Statuses of a C-STORE sub-operation (PS3.4 table B.2-1).
SUCCESS, CANNOT = 0x0000, 0xC000
#: PS3.8 9.3.2.2: an association has 128 contexts, one of which is the retrieve itself.
_CLASSES_AT_ONCE = 127 // len(SYNTAXES)
#: JPEG lossless, JPEG-LS lossless, JPEG 2000 lossless, RLE: tried before others, to which a source might convert.
_LOSSLESS = (
    "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.5",
)  # fmt: skip

Rung = Literal["Study", "Series", "Instance"]
#: One question: at which level, and the unique keys of what is wanted.
Retrieve = tuple[Rung, dict[str, str]]
_LEVELS = {"Study": "STUDY", "Series": "SERIES", "Instance": "IMAGE"}


@dataclass(frozen=True)
class Ended:
    """The last answer to a C-GET: its status and how many sub-operations it says have failed.

    The status is -1 where none came, and FF00 (pending) where the line was lost in the middle.
    """

    status: int = -1
    failed: int = 0
    #: The transfer syntaxes that were taken, where there are several, those of which nothing is lost first.
    syntaxes: tuple[str, ...] = ()


def groups(classes: Sequence[str]) -> Iterator[Sequence[str]]:
    """SOP classes, as many at once as one association has room for."""
    for first in range(0, len(classes), _CLASSES_AT_ONCE):
        yield classes[first : first + _CLASSES_AT_ONCE]


def ask(association: Any, rung: Rung, keys: Mapping[str, str], between: Callable[[], None] = lambda: None) -> Ended:
    """One C-GET on an association with pynetdicom, until its last answer; `between` is called at each answer.

    ValueError where the peer takes no context for it, RuntimeError where the association is gone.
    """
    identifier = Dataset()
    identifier.QueryRetrieveLevel = _LEVELS[rung]
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    taken = {str(one.transfer_syntax[0]) for one in association.accepted_contexts if one.as_scp}
    several = dict.fromkeys(one for one in (*_LOSSLESS, *SYNTAXES) if one in taken) if len(taken) > 1 else ()
    ended = Ended()
    for status, _ in association.send_c_get(identifier, GET):
        if status and "Status" in status:
            failed = int(status.get("NumberOfFailedSuboperations") or 0)
            ended = Ended(int(status.Status), failed, tuple(several))
        between()
    return ended


def by_syntax(get: Callable[[Sequence[str]], Ended], is_enough: Callable[[], bool]) -> Ended:
    """How it ended: `get` with all transfer syntaxes, then, where objects failed, with one after the other.

    Some send on the first context that they have taken for a class, whatever they hold, and fail with it.
    """
    ended = get(SYNTAXES)
    for syntax in ended.syntaxes if ended.failed else ():
        if is_enough():
            break
        ended = get([syntax])
    return ended


def fewest(study_uid: str, named: Mapping[str, str], wanted: Collection[str]) -> list[Retrieve]:
    """The fewest retrieves that bring these and no others: the study, else whole series, else single images.

    `named`: the series of each SOP Instance UID that the source names for the study.
    """
    if set(wanted) >= named.keys():
        return [("Study", {"StudyInstanceUID": study_uid})] if named else []
    there = {series: {uid for uid, its in named.items() if its == series} for series in set(named.values())}
    whole = sorted(series for series, uids in there.items() if uids <= set(wanted))
    asked: list[Retrieve] = [
        ("Series", {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series}) for series in whole
    ]
    asked += [
        ("Instance", {"StudyInstanceUID": study_uid, "SeriesInstanceUID": named[uid], "SOPInstanceUID": uid})
        for uid in sorted(wanted)
        if named[uid] not in whole
    ]
    return asked
