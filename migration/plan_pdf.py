"""The plan document as PDF (A4), in Portuguese or English.

Pure: the same facts give the same bytes. The typeface (Bitstream Vera, which ReportLab brings along) is embedded, so
that accents are right on every machine.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape
from zoneinfo import ZoneInfo

import reportlab
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Flowable, Frame, HRFlowable, PageTemplate, Paragraph, Spacer
from reportlab.platypus import Table as Drawn

from migration import plan_text
from migration.plan_document import PlanDocument
from migration.plan_text import Language, Table

_FONTS = Path(reportlab.__file__).parent / "fonts"
for _name, _file in (("Vera", "Vera.ttf"), ("Vera-Bold", "VeraBd.ttf")):
    pdfmetrics.registerFont(TTFont(_name, _FONTS / _file))

_INK, _SOFT, _ACCENT, _LINE = (colors.HexColor(c) for c in ("#16212a", "#566470", "#0b5a75", "#d5dce1"))
_BODY = ParagraphStyle("body", fontName="Vera", fontSize=9, leading=13, textColor=_INK, spaceAfter=4)
_CELL = ParagraphStyle("cell", parent=_BODY, fontSize=8, leading=11, spaceAfter=0, splitLongWords=True)
_HEAD = ParagraphStyle("head", parent=_CELL, fontName="Vera-Bold", textColor=_SOFT)
_TITLE = ParagraphStyle("title", parent=_BODY, fontName="Vera-Bold", fontSize=16, leading=21, textColor=_INK)
_PART = ParagraphStyle(
    "part",
    parent=_BODY,
    fontName="Vera-Bold",
    fontSize=11,
    leading=15,
    spaceBefore=10,
    textColor=_ACCENT,
    keepWithNext=1,
)
#: Widths of columns by how many there are, in parts of the whole.
_WIDTHS: dict[int, Sequence[float]] = {2: (0.32, 0.68), 3: (0.2, 0.45, 0.35), 4: (0.2, 0.26, 0.36, 0.18)}


def build(document: PlanDocument, language: Language, zone: ZoneInfo) -> bytes:
    """The PDF."""
    text = plan_text.write(document, language, zone)
    out = io.BytesIO()

    def furnish(canvas: Canvas, made: BaseDocTemplate) -> None:
        canvas.saveState()
        canvas.setFont("Vera", 7)
        canvas.setFillColor(_SOFT)
        canvas.drawString(20 * mm, 12 * mm, f"{document.site} · {text.title} · {document.sha256[:16]}"[:120])
        canvas.drawRightString(A4[0] - 20 * mm, 12 * mm, text.page.format(n=made.page))
        canvas.restoreState()

    made = BaseDocTemplate(
        out, pagesize=A4, leftMargin=20 * mm, rightMargin=20 * mm, topMargin=18 * mm, bottomMargin=20 * mm,
        title=text.title, author=document.site, creator="Zambezi", invariant=1,
        lang={"pt": "pt-PT", "en": "en-GB"}[language],
    )  # fmt: skip
    frame = Frame(made.leftMargin, made.bottomMargin, made.width, made.height, 0, 0, 0, 0)
    made.addPageTemplates([PageTemplate(frames=[frame], onPage=furnish)])
    story: list[Flowable] = [
        Paragraph(escape(text.title), _TITLE),
        HRFlowable(width="100%", color=_ACCENT, thickness=1.2, spaceBefore=3, spaceAfter=6),
        _drawn(text.cover, made.width),
    ]
    for part in text.parts:
        story.append(Paragraph(escape(part.title), _PART))
        story += [Paragraph(escape(words), _BODY) for words in part.paragraphs]
        for table in part.tables:
            story += [_drawn(table, made.width), Spacer(1, 5)]
    made.build(story)
    return out.getvalue()


def _drawn(table: Table, width: float) -> Drawn:
    cells = [
        [_cell(text, is_head=row == 0 if table.has_head else column == 0) for column, text in enumerate(texts)]
        for row, texts in enumerate(table.rows)
    ]
    widths = [part * width for part in _WIDTHS[len(table.rows[0])]]
    made = Drawn(cells, colWidths=widths, repeatRows=int(table.has_head))
    made.setStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (-1, -1), 2),
                   ("TOPPADDING", (0, 0), (-1, -1), 2), ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
                   ("LINEBELOW", (0, 0), (-1, -1), 0.4, _LINE)])  # fmt: skip
    made.hAlign = "LEFT"
    return made


def _cell(text: str, is_head: bool) -> Paragraph:
    return Paragraph(escape(text).replace("\n", "<br/>&nbsp;") or "&nbsp;", _HEAD if is_head else _CELL)
