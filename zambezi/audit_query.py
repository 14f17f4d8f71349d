"""What a peer asked, as PS3.15 A.5.3.10 wants it in an audit message: the identifier's data set, encoded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian

#: PS3.4 C.6 and K.6. Orthanc tells the level of a query and not its information model: it answers the same in both.
_STUDY_ROOT_FIND, _WORKLIST = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.31"


def sop_class(facts: Mapping[str, Any]) -> str:
    """The SOP Class UID under which a query came."""
    return _WORKLIST if facts.get("kind") == "worklist" else _STUDY_ROOT_FIND


def encoded_query(query: Any) -> tuple[bytes, str]:
    """The bytes of a recorded query (tags "gggg,eeee" with their values) and their transfer syntax, or media type.

    As JSON where a peer asked for something that can't be encoded; no bytes where what was asked isn't known.
    """
    if not isinstance(query, Mapping) or not query:
        return b"", str(ImplicitVRLittleEndian)
    try:
        out = DicomBytesIO()
        out.is_little_endian, out.is_implicit_VR = True, True
        made = _dataset(query)
        made.SpecificCharacterSet = "ISO_IR 192"
        write_dataset(out, made)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, NotImplementedError):
        return json.dumps(query, ensure_ascii=False).encode(), "application/json"
    return out.getvalue(), str(ImplicitVRLittleEndian)


def _dataset(query: Mapping[str, Any]) -> Dataset:
    made = Dataset()
    for name, value in query.items():
        tag = Tag(*(int(part, 16) for part in name.split(",")))
        vr = dictionary_VR(tag)
        if vr == "SQ":
            items = value if isinstance(value, list) else []
            made.add_new(tag, vr, Sequence([_dataset(item) for item in items]))
        else:
            made.add_new(tag, vr, value)
    return made
