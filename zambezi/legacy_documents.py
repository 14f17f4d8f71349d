"""Reports of old systems as files: what kind each is, and its words, for pages and searches. Pure.

The file itself is kept whatever it is; its words are a reading aid beside it.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from dataclasses import dataclass

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import EncapsulatedPDFStorage

PDF, RTF, DICOM, TEXT = "application/pdf", "application/rtf", "application/dicom", "text/plain"
#: Groups of RTF that hold no words of the text: fonts, colours, styles, pictures, what a program noted for itself.
_SILENT = re.compile(r"^(?:fonttbl|colortbl|stylesheet|info|pict|object|themedata|datastore|header|footer|\*)")
_RTF = re.compile(r"\\'([0-9a-fA-F]{2})|\\u(-?\d+) ?\??|\\([a-z]+)(-?\d*) ?|\\([^a-z])|([{}])|([^\\{}\r\n]+)|[\r\n]+")
_LONGEST_UID = 64  # PS3.5 9.1
_BREAKS = {"par": "\n", "line": "\n", "tab": "\t", "cell": "\t", "row": "\n", "page": "\n", "emdash": "—",
           "endash": "–", "lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”", "bullet": "•"}  # fmt: skip


@dataclass(frozen=True)
class Document:
    """A report's file: its media type, its words as far as they can be told, the SOP Instance UID of a DICOM object."""

    media: str
    text: str = ""
    sop_uid: str = ""
    study_uid: str = ""


class NoDocument(ValueError):
    """The bytes are nothing that a report can be; the text says what was looked for."""


def read(content: bytes) -> Document:
    """What the bytes are; NoDocument where they are none of PDF, RTF, a DICOM document or text."""
    if content[128:132] == b"DICM":
        return _dicom(content)
    if b"%PDF-" in content[:1024]:
        return Document(PDF)
    if content.lstrip()[:5] == b"{\\rtf":
        return Document(RTF, rtf_text(content))
    if not content.strip():
        raise NoDocument("the document is empty")
    if b"\0" in content[:4096] and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise NoDocument("it is neither PDF nor RTF, a DICOM document or text")
    return Document(TEXT, _plain(content))


def inner_pdf(content: bytes) -> bytes | None:
    """The PDF inside of an Encapsulated PDF object (PS3.3 A.45.1); None where there is none."""
    if content[128:132] != b"DICM":
        return None
    found = dcmread(io.BytesIO(content))
    if found.get("SOPClassUID") != EncapsulatedPDFStorage:
        return None
    length = found.get("EncapsulatedDocumentLength")
    body: bytes = found.EncapsulatedDocument
    return body[:length] if length else body.rstrip(b"\0")


@dataclass(frozen=True)
class Named:
    """Whose a DICOM object says it is."""

    sop_uid: str
    study_uid: str
    patient_id: str


def names(content: bytes) -> Named:
    """The identifiers of a DICOM document that could be read before (`read`)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = dcmread(io.BytesIO(content), stop_before_pixels=True)
        return Named(*(str(found.get(n, "")).strip() for n in ("SOPInstanceUID", "StudyInstanceUID", "PatientID")))


def rtf_text(content: bytes) -> str:
    """The words of an RTF document; what it says about fonts and colours is left away."""
    source = content.decode("latin-1")
    page = re.search(r"\\ansicpg(\d+)", source)
    codec = f"cp{page.group(1)}" if page and page.group(1) in ("1250", "1252", "850", "437") else "cp1252"
    out: list[str] = []
    silent = [False]
    fresh = False
    for match in _RTF.finditer(source):
        hexed, code, word, _number, sign, brace, plain = match.groups()
        if brace == "{":
            silent.append(silent[-1])
            fresh = True
            continue
        if brace == "}":
            if len(silent) > 1:
                silent.pop()
            continue
        if fresh and ((word and _SILENT.match(word)) or sign == "*"):
            silent[-1] = True
        fresh = False
        if silent[-1]:
            continue
        if hexed:
            out.append(bytes.fromhex(hexed).decode(codec, "replace"))
        elif code:
            out.append(chr(int(code) % 65536))
        elif word:
            out.append(_BREAKS.get(word, ""))
        elif sign:
            out.append({"~": "\u00a0", "_": "-"}.get(sign, sign if sign in "\\{}" else ""))
        elif plain:
            out.append(plain.encode("latin-1").decode(codec, "replace"))
    # What lies beyond the first plane is written as two halves; a half alone is nothing.
    words = "".join(out).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return words.replace("\0", "").strip()


def _dicom(content: bytes) -> Document:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an old system's values are what they are
        try:
            found = dcmread(io.BytesIO(content))
            words = "\n".join(line for item in found.get("ContentSequence") or () for line in _said(item, 0))
            sop_class, *named = (str(found.get(n, "")) for n in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"))
        except (InvalidDicomError, OSError, ValueError, LookupError, EOFError, AttributeError, TypeError,
                NotImplementedError, RecursionError, struct.error) as error:  # fmt: skip
            raise NoDocument(f"it begins as a DICOM file but can't be read: {type(error).__name__}") from None
    if sop_class != EncapsulatedPDFStorage and not words:
        raise NoDocument("it is a DICOM object, but neither a structured report nor an encapsulated PDF")
    return Document(DICOM, words.replace("\0", ""), *(uid if len(uid) <= _LONGEST_UID else "" for uid in named))


def _said(item: Dataset, depth: int) -> list[str]:
    """A content item of an SR (PS3.3 C.17.3) and those below it, a line each."""
    name = _meaning(item, "ConceptNameCodeSequence")
    value = ""
    kind = str(item.get("ValueType", ""))
    if kind in ("TEXT", "PNAME", "DATE", "TIME", "DATETIME", "UIDREF"):
        attribute = {"TEXT": "TextValue", "PNAME": "PersonName", "UIDREF": "UID"}.get(kind, kind.capitalize())
        attribute = "DateTime" if kind == "DATETIME" else attribute
        value = str(item.get(attribute, ""))
    elif kind == "CODE":
        value = _meaning(item, "ConceptCodeSequence")
    elif kind == "NUM" and item.get("MeasuredValueSequence"):
        measured = item.MeasuredValueSequence[0]
        value = f"{measured.get('NumericValue', '')} {_meaning(measured, 'MeasurementUnitsCodeSequence')}".strip()
    told = ": ".join(part for part in (name, value) if part)
    lines = ["  " * depth + told] if told else []
    for below in item.get("ContentSequence") or ():
        lines += _said(below, depth + 1)
    return lines


def _meaning(item: Dataset, attribute: str) -> str:
    codes = item.get(attribute)
    return str(codes[0].get("CodeMeaning", "")) if codes else ""


def _plain(content: bytes) -> str:
    for codec in ("utf-16",) if content.startswith((b"\xff\xfe", b"\xfe\xff")) else ("utf-8-sig", "cp1252", "latin-1"):
        try:
            return content.decode(codec).replace("\0", "")
        except UnicodeDecodeError:
            continue
    raise NoDocument("its text can't be decoded")
