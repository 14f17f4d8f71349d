"""What a certificate says, on paper: for the director of a hospital, in Portuguese or English.

Made from the certificate's own lines, and signed by nobody: the file is. The typeface (Bitstream Vera, which ReportLab
brings along) is embedded, so that accents are right on every machine.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape
from zoneinfo import ZoneInfo

import reportlab
from pydicom.datadict import keyword_for_tag
from pydicom.uid import UID
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Frame, HRFlowable, PageTemplate, Paragraph, Spacer, Table

from migration import certificate
from migration.certificate_words import WORDS, Words
from zambezi import clock, phrases
from zambezi.database.engine import Sessions

#: So many studies that are not verified stand on paper; the file names all.
LISTED = 200

_FONTS = Path(reportlab.__file__).parent / "fonts"
for _name, _file in (("Vera", "Vera.ttf"), ("Vera-Bold", "VeraBd.ttf")):
    pdfmetrics.registerFont(TTFont(_name, _FONTS / _file))
pdfmetrics.registerFontFamily("Vera", normal="Vera", bold="Vera-Bold", italic="Vera", boldItalic="Vera-Bold")

_INK, _SOFT = colors.HexColor("#16212a"), colors.HexColor("#566470")
_ACCENT, _LINE = colors.HexColor("#0b5a75"), colors.HexColor("#c9d2d8")
_GOOD, _WARN = colors.HexColor("#1a7f37"), colors.HexColor("#8a5a00")
_BODY = ParagraphStyle("body", fontName="Vera", fontSize=9, leading=13, textColor=_INK)
_SMALL = ParagraphStyle("small", parent=_BODY, fontSize=7.5, leading=10, textColor=_SOFT)
_CELL = ParagraphStyle("cell", parent=_BODY, fontSize=8, leading=10.5)
_RIGHT = ParagraphStyle("right", parent=_CELL, alignment=2)
_HEADING = ParagraphStyle("heading", parent=_BODY, fontName="Vera-Bold", spaceBefore=10, spaceAfter=4,
                          textColor=_ACCENT)  # fmt: skip
_TITLE = ParagraphStyle("title", parent=_BODY, fontName="Vera-Bold", fontSize=14, leading=18)


def of(sessions: Sessions, certificate_id: int, language: str, site: str, zone: ZoneInfo) -> bytes:
    """The PDF of a signed certificate; `language` is pt or en, times are in the site's zone."""
    lines = _split(certificate.lines(sessions, certificate_id))
    signed = next(lines)
    left: list[dict[str, Any]] = []
    others = 0
    for line in lines:
        if line.startswith(b'{"batch":'):  # a study's line: sorted keys
            study = json.loads(line)
            if study["state"] != "verified":
                others += 1
                left += [study] if len(left) < LISTED else []
    return build(signed, left, others, WORDS[language], site, zone)


def _split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield from piece.splitlines()


def build(signed: bytes, left: list[dict[str, Any]], others: int, words: Words, site: str, zone: ZoneInfo) -> bytes:
    """The PDF of a certificate whose first line is `signed`; `left`: the first of the studies not verified."""
    head, out = json.loads(signed), io.BytesIO()

    def furnish(canvas: Canvas, document: BaseDocTemplate) -> None:
        canvas.saveState()
        canvas.setFont("Vera", 7)
        canvas.setFillColor(_SOFT)
        canvas.drawString(22 * mm, 12 * mm, f"{head['project']} · {head['key_id']} · {head['merkle_root'][:16]}")
        canvas.drawRightString(A4[0] - 22 * mm, 12 * mm, words.page.format(n=document.page))
        canvas.restoreState()

    document = BaseDocTemplate(
        out, pagesize=A4, leftMargin=22 * mm, rightMargin=22 * mm, topMargin=18 * mm, bottomMargin=20 * mm,
        title=words.title, subject=head["project"], creator="Zambezi", invariant=1, lang=words.language,
    )  # fmt: skip
    frame = Frame(document.leftMargin, document.bottomMargin, document.width, document.height, 0, 0, 0, 0)
    document.addPageTemplates([PageTemplate(frames=[frame], onPage=furnish)])
    made = _Story(head, words, zone)
    document.build([
        *made.opening(site, others), *made.levels(), *made.brought(), *made.changed(), *made.exceptions(left, others),
        *made.verifying(hashlib.sha256(signed).hexdigest()),
    ])  # fmt: skip
    return out.getvalue()


class _Story:
    """The parts of the document, in their order."""

    def __init__(self, head: Mapping[str, Any], words: Words, zone: ZoneInfo) -> None:
        self._head, self._words, self._zone = head, words, zone
        self._counts: Mapping[str, Any] = head["counts"]

    def opening(self, site: str, others: int) -> list[object]:
        head, words, counts = self._head, self._words, self._counts
        verdict = ParagraphStyle("verdict", parent=_BODY, fontName="Vera-Bold", fontSize=11, leading=15,
                                 textColor=_WARN if others else _GOOD, spaceBefore=6, spaceAfter=6)  # fmt: skip
        text = words.incomplete if others else words.complete
        about = words.about.format(
            project=head["project"], source=head["source"], at=self._moment(head["issued_at"]), who=head["issued_by"]
        )
        verified = counts["studies_by_state"].get("verified", 0)
        facts = [
            (words.studies, self._number(counts["studies"])),
            (words.instances, self._number(counts["instances"])),
            (words.size, f"{self._number(counts['bytes'])} ({self._decimal(counts['bytes'] / 1e9)} GB)"),
            (words.inventoried, self._moment(head["inventoried_at"])),
            (words.period, f"{self._moment(counts['first_verified_at'])} – {self._moment(counts['last_verified_at'])}"),
        ]
        said = text.format(studies=self._number(counts["studies"]), verified=self._number(verified),
                           others=self._number(others))  # fmt: skip
        return [
            Paragraph(escape(site), _TITLE),
            HRFlowable(width="100%", color=_ACCENT, thickness=1.2, spaceBefore=3, spaceAfter=8),
            Paragraph(words.title, ParagraphStyle("kind", parent=_TITLE, fontSize=12, textColor=_ACCENT)),
            Paragraph(escape(about), _BODY), Paragraph(said, verdict),
            _table([[Paragraph(label, _CELL), Paragraph(value, _CELL)] for label, value in facts], (45, 121),
                   has_head=False),
        ]  # fmt: skip

    def levels(self) -> list[object]:
        words, counts, sample = self._words, self._counts, self._head["sample"]
        rows = [[*(Paragraph(f"<b>{one}</b>", _CELL) for one in (words.level, words.meaning)),
                 *(Paragraph(f"<b>{one}</b>", _RIGHT)
                   for one in (words.instances, words.share, words.size))]]  # fmt: skip
        for level in (3, 2, 1, 0):
            found = counts["instances_by_level"].get(str(level), 0)
            share = self._percent(found / counts["instances"]) if counts["instances"] else "–"
            cells = [self._number(found), share, self._number(counts["bytes_by_level"].get(str(level), 0))]
            rows.append([Paragraph(str(level), _CELL), Paragraph(words.level_names[level], _CELL),
                         *(Paragraph(cell, _RIGHT) for cell in cells)])  # fmt: skip
        if sample:
            said = words.sampled.format(**{**sample, "bound": self._percent(sample["bound"])})
        else:
            said = words.unsampled if self._head["level"] == "source" else words.arrival_only
        return [
            Paragraph(words.levels, _HEADING), _table(rows, (14, 78, 24, 20, 30)), Spacer(1, 4),
            Paragraph(words.only_source, _BODY), Paragraph(said, _BODY),
        ]  # fmt: skip

    def brought(self) -> list[object]:
        words, counts = self._words, self._counts
        named = {"undated": words.undated, "unknown": words.unknown}

        def rows(name: str, heading: str) -> list[list[object]]:
            found = [[Paragraph(f"<b>{heading}</b>", _CELL), Paragraph(f"<b>{words.studies}</b>", _RIGHT)]]
            return found + [
                [Paragraph(escape(named.get(key, key)), _CELL), Paragraph(self._number(count), _RIGHT)]
                for key, count in counts[name].items()
            ]

        years, kinds = rows("studies_by_year", words.year), rows("studies_by_modality", words.modality)
        side = [_table(years, (40, 30)), _table(kinds, (50, 30))]
        if len(years) < 40 and len(kinds) < 40:  # side by side, as long as they fit on a page
            side = [_table([side], (83, 83), lines=False, has_head=False)]
        told = (f"{UID(uid).name} ({self._number(n)})" for uid, n in counts["transfer_syntaxes"].items())
        syntaxes = ", ".join(told) or "–"
        return [
            Paragraph(words.what, _HEADING),
            *side,
            Spacer(1, 4),
            Paragraph(f"{words.syntaxes}: {escape(syntaxes)}", _SMALL),
        ]

    def changed(self) -> list[object]:
        words, coerced = self._words, self._counts["coerced"]
        if not coerced:
            return [Spacer(1, 4), Paragraph(words.unchanged, _BODY), *self._extras()]
        rows = [[Paragraph(f"<b>{words.tag}</b>", _CELL), Paragraph(f"<b>{words.instances}</b>", _RIGHT)]]
        for tag, count in coerced.items():
            keyword = keyword_for_tag(int(tag[1:5] + tag[6:10], 16))
            rows.append([Paragraph(f"{tag} {keyword}", _CELL), Paragraph(self._number(count), _RIGHT)])
        return [Paragraph(words.changed, _HEADING), _table(rows, (76, 30)), *self._extras()]

    def _extras(self) -> list[object]:
        words, found = self._words, self._counts.get("extras", {})
        told = []
        for key, count in found.items():
            kind, _, state = key.partition(" ")
            told.append(f"{words.extra[kind]}: {self._number(count)} ({words.extra[state]})")
        return [Paragraph(f"{words.extras}: {escape('; '.join(told))}.", _BODY)] if told else []

    def exceptions(self, left: list[dict[str, Any]], others: int) -> list[object]:
        words = self._words
        if not others:
            return [Paragraph(words.exceptions, _HEADING), Paragraph(words.none, _BODY)]
        rows = [[Paragraph(f"<b>{one}</b>", _CELL) for one in (words.study, words.state, words.reason)]]
        for study in left:
            told = [escape(phrases.told(study["reason"], words.language[:2]))]
            for one in study.get("decisions", ()):
                if "by" in one:
                    said = words.decided.format(
                        by=one["by"],
                        at=self._moment(one["at"]),
                        decision=phrases.told(one["decision"], words.language[:2]),
                    )
                    told.append(escape(said))
            state = words.states.get(study["state"], study["state"])
            rows.append([Paragraph(study["study"], _SMALL), Paragraph(state, _CELL),
                         Paragraph("<br/>".join(filter(None, told)) or "–", _CELL)])  # fmt: skip
        more = [Paragraph(words.more.format(count=others - len(left)), _BODY)] if others > len(left) else []
        return [Paragraph(words.exceptions, _HEADING), _table(rows, (58, 24, 84)), *more]

    def verifying(self, digest: str) -> list[object]:
        head, words = self._head, self._words
        trail = f"{head['audit']['journal']} {head['audit']['seq']}: {head['audit']['hash']}"
        programs = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
        facts = [(words.key, head["key_id"]), (words.root, head["merkle_root"]), (words.head, digest),
                 (words.trail, trail), (words.programs, programs)]  # fmt: skip
        return [
            Paragraph(words.verify, _HEADING), Paragraph(words.verify_text.format(key=head["key_id"]), _BODY),
            Spacer(1, 4),
            _table([[Paragraph(label, _CELL), Paragraph(escape(value), _SMALL)] for label, value in facts], (50, 116),
                   has_head=False),
            Spacer(1, 26), HRFlowable(width="100%", color=_SOFT, thickness=0.4), Paragraph(words.signatures, _SMALL),
        ]  # fmt: skip

    def _moment(self, text: str) -> str:
        return f"{clock.parse(text).astimezone(self._zone):%Y-%m-%d %H:%M}" if text else "–"

    def _number(self, value: int) -> str:
        return f"{value:,}".replace(",", "\u00a0")

    def _decimal(self, value: float) -> str:
        return f"{value:.2f}".replace(".", "," if self._words.language.startswith("pt") else ".")

    def _percent(self, share: float) -> str:
        return f"{self._decimal(100 * share)} %"


def _table(rows: list[list[Any]], widths: tuple[int, ...], lines: bool = True, has_head: bool = True) -> Table:
    table = Table(rows, colWidths=[one * mm for one in widths], hAlign="LEFT", repeatRows=1 if has_head else 0)
    style = [("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (-1, -1), 0),
             ("TOPPADDING", (0, 0), (-1, -1), 2), ("BOTTOMPADDING", (0, 0), (-1, -1), 2)]  # fmt: skip
    if lines:
        style.append(("LINEBELOW", (0, 0), (-1, -1), 0.3, _LINE))  # type: ignore[arg-type]  # ReportLab's own mixture
    table.setStyle(style)
    return table
