"""Text as it may stand in a field of HL7 v2. Standard library only."""

from __future__ import annotations

_ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}
#: A control character would end the segment or, as MLLP's own, the whole frame.
_ESCAPES |= {chr(n): f"\\X{n:02X}\\" for n in (*range(32), 127)}


def escape(text: str, line_end: str = " ") -> str:
    """Text as it may stand in a component (HL7 v2.5.1, 2.7): delimiters and control characters escaped.

    `line_end` is what a line end becomes: a blank, or `\\.br\\` where the field is formatted text (2.7.6).
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return line_end.join("".join(_ESCAPES.get(character, character) for character in line) for line in lines)
