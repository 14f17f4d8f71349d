"""A signed report as PDF: letterhead, patient and exam, the text, who signed, and the digest of what it says.

Pure: the same report gives the same bytes. The typeface (Bitstream Vera, which ReportLab brings along) is embedded,
so that accents are right on every machine.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import reportlab
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Frame, HRFlowable, PageTemplate, Paragraph, Spacer, Table

FONTS = Path(reportlab.__file__).parent / "fonts"
for _name, _file in (("Vera", "Vera.ttf"), ("Vera-Bold", "VeraBd.ttf")):
    pdfmetrics.registerFont(TTFont(_name, FONTS / _file))
pdfmetrics.registerFontFamily("Vera", normal="Vera", bold="Vera-Bold", italic="Vera", boldItalic="Vera-Bold")

_INK = colors.HexColor("#16212a")
_SOFT = colors.HexColor("#566470")
_ACCENT = colors.HexColor("#0b5a75")
_BODY = ParagraphStyle("body", fontName="Vera", fontSize=9.5, leading=14, textColor=_INK)
_SMALL = ParagraphStyle("small", parent=_BODY, fontSize=7.5, leading=10, textColor=_SOFT)
_LABEL = ParagraphStyle("label", parent=_SMALL, fontSize=8)
_HEADING = ParagraphStyle("heading", parent=_BODY, fontName="Vera-Bold", spaceBefore=9, spaceAfter=2, textColor=_ACCENT)
_TITLE = ParagraphStyle("title", parent=_BODY, fontName="Vera-Bold", fontSize=13, leading=17)


@dataclass(frozen=True)
class Words:
    """The fixed words of the page, in one language."""

    title: str
    addendum: str
    patient: str
    patient_id: str
    born: str
    sex: str
    exam: str
    exam_date: str
    accession: str
    referrer: str
    technique: str
    findings: str
    impression: str
    signed: str
    digest: str
    page: str


WORDS = {
    "pt": Words(
        "Relatório de imagiologia", "Versão {version}. Substitui a versão {before}.", "Paciente", "N.º do paciente",
        "Nascimento", "Sexo", "Exame", "Data do exame", "N.º de acesso", "Requisitante", "Técnica", "Achados",
        "Conclusão", "Assinado electronicamente por {name}, {at}", "Resumo do texto (SHA-256)", "Página {n}",
    ),
    "en": Words(
        "Imaging report", "Version {version}. It replaces version {before}.", "Patient", "Patient ID", "Born", "Sex",
        "Exam", "Date of exam", "Accession number", "Ordered by", "Technique", "Findings", "Impression",
        "Signed electronically by {name}, {at}", "Digest of the text (SHA-256)", "Page {n}",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Sheet:
    """All that stands on a report, ready to print (dates and sex in the report's language)."""

    language: str
    site: str
    version: int
    patient_name: str
    patient_id: str
    born: str
    sex: str
    exam: str
    exam_date: str
    accession_number: str
    referrer: str
    technique: str
    findings: str
    impression: str
    signed_by: str
    signed_at: str
    digest: str


def build(sheet: Sheet) -> bytes:
    """The PDF."""
    words = WORDS[sheet.language]
    out = io.BytesIO()

    def furnish(canvas: Canvas, document: BaseDocTemplate) -> None:
        canvas.saveState()
        canvas.setFont("Vera", 7)
        canvas.setFillColor(_SOFT)
        about = f"{sheet.patient_name} · {sheet.patient_id} · {sheet.accession_number}"
        canvas.drawString(22 * mm, 12 * mm, about[:110])
        canvas.drawRightString(A4[0] - 22 * mm, 12 * mm, words.page.format(n=document.page))
        canvas.restoreState()

    document = BaseDocTemplate(
        out, pagesize=A4, leftMargin=22 * mm, rightMargin=22 * mm, topMargin=18 * mm, bottomMargin=20 * mm,
        title=words.title, author=sheet.signed_by, subject=sheet.accession_number, creator="Zambezi", invariant=1,
        lang={"pt": "pt-PT", "en": "en-GB"}[sheet.language],
    )  # fmt: skip
    frame = Frame(document.leftMargin, document.bottomMargin, document.width, document.height, 0, 0, 0, 0)
    document.addPageTemplates([PageTemplate(frames=[frame], onPage=furnish)])
    document.build(_story(sheet, words))
    return out.getvalue()


def _story(sheet: Sheet, words: Words) -> list[object]:
    story: list[object] = [
        Paragraph(escape(sheet.site), _TITLE),
        HRFlowable(width="100%", color=_ACCENT, thickness=1.2, spaceBefore=3, spaceAfter=8),
        Paragraph(words.title, ParagraphStyle("kind", parent=_TITLE, fontSize=11, textColor=_ACCENT)),
    ]
    if sheet.version > 1:
        story.append(Paragraph(words.addendum.format(version=sheet.version, before=sheet.version - 1), _SMALL))
    story += [Spacer(1, 6), _facts(sheet, words), Spacer(1, 4)]
    for heading, text in (
        (words.technique, sheet.technique),
        (words.findings, sheet.findings),
        (words.impression, sheet.impression),
    ):
        if text.strip():
            story.append(Paragraph(heading, _HEADING))
            story += [Paragraph(_line(line), _BODY) for line in text.strip().splitlines()]
    story += [
        HRFlowable(width="100%", color=_SOFT, thickness=0.4, spaceBefore=14, spaceAfter=5),
        Paragraph(escape(words.signed.format(name=sheet.signed_by, at=sheet.signed_at)), _BODY),
        Paragraph(f"{words.digest}: {sheet.digest}", _SMALL),
    ]
    return story


def _facts(sheet: Sheet, words: Words) -> Table:
    pairs = [
        (words.patient, sheet.patient_name), (words.exam, sheet.exam),
        (words.patient_id, sheet.patient_id), (words.exam_date, sheet.exam_date),
        (words.born, sheet.born), (words.accession, sheet.accession_number),
        (words.sex, sheet.sex), (words.referrer, sheet.referrer),
    ]  # fmt: skip
    cells = [[Paragraph(label, _LABEL), Paragraph(escape(value) or "–", _BODY)] for label, value in pairs]
    rows = [cells[n] + cells[n + 1] for n in range(0, len(cells), 2)]
    table = Table(rows, colWidths=[29 * mm, 54 * mm, 29 * mm, 54 * mm])
    table.setStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (-1, -1), 0),
                    ("TOPPADDING", (0, 0), (-1, -1), 1), ("BOTTOMPADDING", (0, 0), (-1, -1), 1)])  # fmt: skip
    return table


def _line(line: str) -> str:
    """A line of text as ReportLab's markup: nothing of it is markup, an empty one keeps its height."""
    return escape(line).replace("  ", "&nbsp; ") or "&nbsp;"
