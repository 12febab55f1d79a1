"""Build the PDF and DOCX files of the example corpus from the Markdown in ``sources/``.

Needs ``reportlab`` and ``python-docx``, which ragline itself does not. Running it twice gives the same bytes::

    python examples/make_examples.py
"""

import datetime as dt
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from docx import Document
from docx.shared import Pt
from reportlab import rl_config
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.platypus import ListFlowable, PageBreak, Paragraph, SimpleDocTemplate, Table, TableStyle

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "sources"
CORPUS = HERE / "corpus"

PDFS = {
    "tw-40-data-sheet.md": ("instruments/tw-40-data-sheet.pdf", "Norrsund Instruments AB"),
    "datum-survey-2023.md": ("reports/datum-survey-2023.pdf", "Grange Survey Partners"),
}
DOCXS = {
    "grant-report-2024.md": ("reports/grant-report-2024.docx", "Beatrix Vane", dt.datetime(2024, 5, 31, 9, 0)),
    "trustee-minutes-2024-09-26.md": ("reports/trustee-minutes-2024-09-26.docx", "Maren Oakes", dt.datetime(2024, 9, 30, 9, 0)),
}

# The earliest time a zip entry can carry; any fixed one would do.
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


class Block(NamedTuple):
    """One block of a source: ``kind`` is heading, paragraph, bullets, numbers, table or page."""

    kind: str
    level: int
    rows: list[Any]


def read_blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of the small Markdown subset that the sources use."""
    for chunk in re.split(r"\n\s*\n", text.strip()):
        lines = chunk.splitlines()
        first = lines[0]
        if first == "<!-- page -->":
            yield Block("page", 0, [])
        elif match := re.match(r"(#+) (.*)", first):
            yield Block("heading", len(match[1]), [match[2]])
        elif first.startswith("|"):
            rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
            yield Block("table", 0, [rows[0], *rows[2:]])
        elif first.startswith("- "):
            yield Block("bullets", 0, [line[2:] for line in lines])
        elif re.match(r"\d+\. ", first):
            yield Block("numbers", 0, [re.sub(r"^\d+\. ", "", line) for line in lines])
        else:
            yield Block("paragraph", 0, [" ".join(lines)])


def inline_runs(text: str) -> Iterator[tuple[str, bool]]:
    """Yield (text, italic) pieces, reading ``*so*`` as italic."""
    for index, piece in enumerate(text.split("*")):
        if piece:
            yield piece, index % 2 == 1


def markup(text: str) -> str:
    """Return the text in reportlab's inline markup."""
    return "".join(f"<i>{escape(piece)}</i>" if italic else escape(piece) for piece, italic in inline_runs(text))


BODY = ParagraphStyle("body", fontName="Times-Roman", fontSize=10.5, leading=14, spaceAfter=6)
CELL = ParagraphStyle("cell", parent=BODY, fontName="Helvetica", fontSize=8.5, leading=11, spaceAfter=0)
# reportlab pads a cell by six points on either side; one more absorbs rounding.
CELL_PADDING = 13
HEADINGS = {
    1: ParagraphStyle("h1", fontName="Helvetica-Bold", fontSize=20, leading=25, spaceAfter=12),
    2: ParagraphStyle("h2", fontName="Helvetica-Bold", fontSize=14, leading=18, spaceBefore=8, spaceAfter=6, keepWithNext=1),
    3: ParagraphStyle("h3", fontName="Helvetica-Bold", fontSize=11.5, leading=15, spaceBefore=6, spaceAfter=3, keepWithNext=1),
}


def column_widths(rows: list[list[str]], width: float) -> list[float]:
    """Share ``width`` points among the columns: each fits its longest word, and long texts get what is left."""

    def measure(text: str) -> float:
        return stringWidth(text, CELL.fontName, CELL.fontSize) + CELL_PADDING

    columns = list(zip(*rows, strict=True))
    words = [max(measure(word) for cell in column for word in cell.split()) for column in columns]
    wanted = [max(measure(cell) for cell in column) - least for column, least in zip(columns, words, strict=True)]
    spare = max(width - sum(words), 0.0) / max(sum(wanted), 1.0)
    return [least + spare * want for least, want in zip(words, wanted, strict=True)]


def pdf_flowable(block: Block, width: float) -> Any:
    """Return the reportlab flowable of one block, laid out for a text column of ``width`` points."""
    if block.kind == "page":
        return PageBreak()
    if block.kind == "heading":
        return Paragraph(markup(block.rows[0]), HEADINGS[block.level])
    if block.kind == "paragraph":
        return Paragraph(markup(block.rows[0]), BODY)
    if block.kind == "table":
        cells = [[Paragraph(markup(cell), CELL) for cell in row] for row in block.rows]
        table = Table(cells, colWidths=column_widths(block.rows, width), repeatRows=1, spaceAfter=8)
        shaded = ("BACKGROUND", (0, 0), (-1, 0), colors.whitesmoke)
        table.setStyle(TableStyle([("GRID", (0, 0), (-1, -1), 0.4, colors.grey), ("VALIGN", (0, 0), (-1, -1), "TOP"), shaded]))
        return table
    kind = {"bulletType": "bullet"} if block.kind == "bullets" else {"bulletType": "1", "bulletFormat": "%s."}
    return ListFlowable([Paragraph(markup(row), BODY) for row in block.rows], leftIndent=16, **kind)


class OutlinedTemplate(SimpleDocTemplate):
    """A template that puts headings into the PDF outline, where readers look for them, and numbers the pages."""

    def afterPage(self) -> None:
        # Drawn last, so that the footer follows the page's text in the content stream as it does on paper.
        self.canv.setFont("Helvetica", 8)
        self.canv.drawString(25 * mm, 12 * mm, self.title)
        self.canv.drawRightString(A4[0] - 25 * mm, 12 * mm, f"Page {self.page}")

    def afterFlowable(self, flowable: Any) -> None:
        level = {"h1": 0, "h2": 1, "h3": 2}.get(getattr(getattr(flowable, "style", None), "name", ""))
        if level is not None:
            key = f"heading-{self.page}-{self.frame._y:.1f}"
            self.canv.bookmarkPage(key)
            self.canv.addOutlineEntry(flowable.getPlainText(), key, level)


def write_pdf(text: str, path: Path, author: str) -> None:
    blocks = list(read_blocks(text))
    title = blocks[0].rows[0]

    template = OutlinedTemplate(
        str(path),
        pagesize=A4,
        leftMargin=25 * mm,
        rightMargin=25 * mm,
        topMargin=22 * mm,
        bottomMargin=22 * mm,
        title=title,
        subject="Example document of the ragline project",
        author=author,
        creator="make_examples.py",
    )
    # SimpleDocTemplate's frame keeps six points of padding on either side.
    story = [pdf_flowable(block, template.width - 12) for block in blocks]
    template.build(story)


def write_docx(text: str, path: Path, author: str, when: dt.datetime) -> None:
    document = Document()
    document.styles["Normal"].font.size = Pt(11)
    properties = document.core_properties
    properties.author = properties.last_modified_by = author
    properties.created = properties.modified = when
    properties.comments = ""
    for block in read_blocks(text):
        if block.kind == "heading":
            properties.title = properties.title or block.rows[0]
            document.add_heading(block.rows[0].replace("*", ""), level=block.level)
        elif block.kind == "table":
            table = document.add_table(rows=0, cols=len(block.rows[0]), style="Table Grid")
            for row in block.rows:
                for cell, value in zip(table.add_row().cells, row, strict=True):
                    cell.text = value
        else:
            style = {"bullets": "List Bullet", "numbers": "List Number"}.get(block.kind, "Normal")
            for row in block.rows:
                paragraph = document.add_paragraph(style=style)
                if style != "Normal":
                    number_directly(paragraph)
                for piece, italic in inline_runs(row):
                    paragraph.add_run(piece).italic = italic
    buffer = io.BytesIO()
    document.save(buffer)
    repack(buffer, path)


def number_directly(paragraph: Any) -> None:
    """Put the list's number id on the paragraph too, as Word does: some readers do not look for it in the style."""
    number_id = paragraph.style.element.pPr.numPr.numId.val
    number = paragraph._p.get_or_add_pPr().get_or_add_numPr()
    number.get_or_add_ilvl().val = 0
    number.get_or_add_numId().val = number_id


def repack(source: io.BytesIO, path: Path) -> None:
    """Write the zip again with fixed entry times: python-docx stamps the present one."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            entry = zipfile.ZipInfo(name, ZIP_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(entry, old.read(name))


def main() -> None:
    # invariant: a fixed date and id instead of the present time and a random one.
    rl_config.invariant = 1
    for source, (target, author) in PDFS.items():
        path = CORPUS / target
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pdf((SOURCES / source).read_text(encoding="utf-8"), path, author)
    for source, (target, author, when) in DOCXS.items():
        path = CORPUS / target
        path.parent.mkdir(parents=True, exist_ok=True)
        write_docx((SOURCES / source).read_text(encoding="utf-8"), path, author, when)


if __name__ == "__main__":
    main()
