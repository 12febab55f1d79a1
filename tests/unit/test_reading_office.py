"""Sheets, slides, books and PDF pages as texts that can be understood piece by piece."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from ragline.reading.parsing.blocks import header_of
from ragline.reading.parsing.book import read_book
from ragline.reading.parsing.documents import configuration, read_document
from ragline.reading.parsing.packages import UnreadableError
from ragline.reading.parsing.running import repeated_edges
from ragline.reading.parsing.sheets import read_sheets, sheet_lines
from ragline.reading.parsing.slides import read_slides
from ragline.reading.parsing.word import read_word
from tests.documents import paragraph, write_docx, write_epub, write_pdf, write_xlsx, write_zip

_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_RELATIONS = 'xmlns="http://schemas.openxmlformats.org/package/2006/relationships"'
_SLIDE = (
    'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main" xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'
)
MEGABYTES = 50 * 2**20


def lines(rows: list[list[str]]) -> list[str]:
    return [("\n" if begins else "") + line for line, begins in sheet_lines(iter(rows))]


# -- sheets ------------------------------------------------------------------------------------------------------------


def test_rows_have_the_names_of_their_columns_and_blank_rows_part_tables() -> None:
    rows = [["", ""], ["name", "born"], ["Ada", "1815"], ["", ""], ["Alan", "1912"], ["", ""], ["city", "keys"], ["Oslo", "4"]]
    assert lines(rows) == ["\nname: Ada; born: 1815", "\nname: Alan; born: 1912", "\ncity: Oslo; keys: 4"]


def test_a_title_above_a_table_stands_alone() -> None:
    rows = [["Keys of 2024", ""], ["city", "keys"], ["Oslo", "4"]]
    assert lines(rows) == ["\nKeys of 2024", "\ncity: Oslo; keys: 4"]


def test_a_sheet_of_one_column_is_a_list() -> None:
    assert lines([["Keys"], ["Oslo"], ["Rome"]]) == ["\nKeys", "Oslo", "Rome"]


def test_rows_without_names_stand_between_bars_without_their_empty_cells() -> None:
    assert lines([["1", "", "2"], ["3", "", "4"]]) == ["\n| 1 | 2 |", "| 3 | 4 |"]


@pytest.mark.parametrize(
    ("row", "is_header"),
    [
        (["Region", "2019", "2020", "2021"], True),
        (["", "2019", "2020", "2021"], True),
        (["Ada", "1990", "2015"], False),
        (["12", "2019", "2020", "2021"], False),
        (["Region", "2019", "2019"], False),
    ],
)
def test_years_in_a_row_head_columns(row: list[str], is_header: bool) -> None:
    assert (header_of(row) is not None) == is_header


CELLS = """<row r="1"><c r="A1" t="inlineStr"><is><t>city</t></is></c><c r="B1" t="inlineStr"><is><t>day</t></is></c>
<c r="C1" t="inlineStr"><is><t>at</t></is></c><c r="D1" t="inlineStr"><is><t>sum</t></is></c></row>
<row r="2"><c r="A2" t="inlineStr"><is><t>Oslo</t></is></c><c r="B2" s="1"><v>45292</v></c><c r="C2" s="2"><v>45292.75</v></c>
<c r="D2"><v>1234567.8900000001</v></c></row>
<row r="3"><c r="B3" s="1"><v>45293</v></c><c r="D3"><f>D2*2</f><v>7</v></c></row>"""
STYLES = (
    '<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><fonts count="1"><font/></fonts><fills count="1"><fill/>'
    '</fills><borders count="1"><border/></borders><cellStyleXfs count="1"><xf/></cellStyleXfs><cellXfs count="3"><xf numFmtId="0"/>'
    '<xf numFmtId="14" applyNumberFormat="1"/><xf numFmtId="22" applyNumberFormat="1"/></cellXfs></styleSheet>'
)


def write_sheet(path: Path, cells: str, after: str = "") -> Path:
    """A spreadsheet from the inside of its `<sheetData>`, with styles 1 (date) and 2 (date and time)."""
    write_xlsx(path, [["x"]])
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    styles = f'<Override PartName="/xl/styles.xml" ContentType="{kind}.styles+xml"/></Types>'
    parts["[Content_Types].xml"] = parts["[Content_Types].xml"].replace("</Types>", styles)
    relation = f'<Relationship Id="r9" Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>'
    parts["xl/_rels/workbook.xml.rels"] = parts["xl/_rels/workbook.xml.rels"].replace("</Relationships>", relation)
    sheet = parts["xl/worksheets/sheet1.xml"]
    parts["xl/worksheets/sheet1.xml"] = f"{sheet[: sheet.index('<sheetData>')]}<sheetData>{cells}</sheetData>{after}</worksheet>"
    return write_zip(path, {**parts, "xl/styles.xml": STYLES})


def test_dates_numbers_and_merged_cells_read_as_people_see_them(tmp_path: Path) -> None:
    path = write_sheet(tmp_path / "a.xlsx", CELLS, '<mergeCells count="1"><mergeCell ref="A2:A3"/></mergeCells>')
    with path.open("rb") as file:
        read = read_sheets(file, max_bytes=MEGABYTES)
    assert read["text"] == (
        "Sheet: Staff\n\ncity: Oslo; day: 2024-01-01; at: 2024-01-01 18:00; sum: 1234567.89\ncity: Oslo; day: 2024-01-02; sum: 7"
    )
    assert read["headings"] == [(0, 12, 1, "Sheet: Staff")]


def test_a_cell_far_out_is_refused_before_it_takes_all_memory(tmp_path: Path) -> None:
    path = write_sheet(tmp_path / "a.xlsx", CELLS + '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>')
    with path.open("rb") as file, pytest.raises(UnreadableError, match=r"row 1,048,576 and column 16,384.*save it as CSV"):
        read_sheets(file, max_bytes=MEGABYTES)


def test_what_is_no_spreadsheet_says_so() -> None:
    with pytest.raises(UnreadableError, match="no spreadsheet"):
        read_sheets(io.BytesIO(b"PK\3\4garbage"), max_bytes=MEGABYTES)


# -- slides ------------------------------------------------------------------------------------------------------------


def test_cells_of_a_word_table_stand_in_their_columns(tmp_path: Path) -> None:
    def cell(text: str, *properties: str) -> str:
        return f"<w:tc><w:tcPr>{''.join(properties)}</w:tcPr>{paragraph(text)}</w:tc>"

    def control(inner: str) -> str:
        return f"<w:sdt><w:sdtPr/><w:sdtContent>{inner}</w:sdtContent></w:sdt>"

    span, top, below = '<w:gridSpan w:val="2"/>', '<w:vMerge w:val="restart"/>', "<w:vMerge/>"
    rows = [
        cell("Region") + cell("Sales", span) + cell("Manager"),
        cell("North", top) + cell("10") + cell("12") + control(cell("Ada")),
        cell("", below) + cell("none", span) + cell("Alan"),
        '<w:trPr><w:gridBefore w:val="3"/></w:trPr>' + cell("Grace"),
        "<w:trPr><w:del/></w:trPr>" + cell("gone"),
        cell("a", '<w:gridSpan w:val="99999999"/>'),
    ]
    body = "".join(f"<w:tr>{row}</w:tr>" for row in rows[:2]) + control("".join(f"<w:tr>{row}</w:tr>" for row in rows[2:]))
    with write_docx(tmp_path / "a.docx", f"<w:tbl>{body}</w:tbl>").open("rb") as file:
        lines = read_word(file, max_bytes=MEGABYTES)["text"].split("\n")
    assert lines == [
        "Region: North; Sales: 10; 12; Manager: Ada", "Region: North; Sales: none; Manager: Alan", "Manager: Grace", "Region: a",
    ]  # fmt: skip


def shape(paragraphs: list[str], kind: str = "", levels: tuple[int, ...] = ()) -> str:
    mark = f'<p:ph type="{kind}"/>' if kind else ""
    depths = [*levels, *([0] * len(paragraphs))]
    body = "".join(
        f'<a:p><a:pPr lvl="{depth}"/><a:r><a:t>{text}</a:t></a:r></a:p>' for text, depth in zip(paragraphs, depths, strict=False)
    )
    return f"<p:sp><p:nvSpPr><p:cNvPr/><p:nvPr>{mark}</p:nvPr></p:nvSpPr><p:txBody>{body}</p:txBody></p:sp>"


def write_pptx(path: Path, slides: list[tuple[str, str]]) -> Path:
    """A presentation from the shapes and the notes of its slides; they are shown in reverse order of their files."""
    numbers = range(1, len(slides) + 1)
    parts = {
        "[Content_Types].xml": "<Types/>",
        "_rels/.rels": f'<Relationships {_RELATIONS}><Relationship Id="r1" Type="{_OFFICE}/officeDocument" Target="ppt/presentation.xml"/>'
        "</Relationships>",
        "ppt/presentation.xml": f'<p:presentation {_SLIDE} xmlns:r="{_OFFICE}"><p:sldIdLst>'
        + "".join(f'<p:sldId id="{256 + n}" r:id="r{n}"/>' for n in numbers)
        + "</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": f"<Relationships {_RELATIONS}>"
        + "".join(f'<Relationship Id="r{n}" Type="{_OFFICE}/slide" Target="slides/s{100 - n}.xml"/>' for n in numbers)
        + "</Relationships>",
    }
    for number, (shapes, notes) in enumerate(slides, 1):
        name = f"s{100 - number}.xml"
        parts[f"ppt/slides/{name}"] = f"<p:sld {_SLIDE}><p:cSld><p:spTree>{shapes}</p:spTree></p:cSld></p:sld>"
        if notes:
            parts[f"ppt/slides/_rels/{name}.rels"] = (
                f'<Relationships {_RELATIONS}><Relationship Id="n" Type="{_OFFICE}/notesSlide" Target="../notes/{name}"/></Relationships>'
            )
            parts[f"ppt/notes/{name}"] = f"<p:notes {_SLIDE}>{shape(['7'], 'sldNum')}{shape([notes], 'body')}</p:notes>"
    return write_zip(path, parts)


TABLE = (
    "<p:graphicFrame><a:tbl><a:tr><a:tc><a:p><a:r><a:t>name</a:t></a:r></a:p></a:tc><a:tc><a:p><a:r><a:t>role</a:t></a:r></a:p></a:tc>"
    "</a:tr><a:tr><a:tc><a:p><a:r><a:t>Ada</a:t></a:r></a:p></a:tc><a:tc><a:p><a:r><a:t>keeper</a:t></a:r></a:p></a:tc></a:tr></a:tbl>"
    "</p:graphicFrame>"
)
PICTURE = '<p:pic><p:nvPicPr><p:cNvPr descr="A door that stands open"/></p:nvPicPr></p:pic>'


def test_slides_have_their_number_title_lists_tables_pictures_and_notes(tmp_path: Path) -> None:
    first = shape(["Keys &amp; doors"], "ctrTitle") + shape(["They rotate."]) + shape(["3 May"], "dt")
    second = shape(["One", "Inner", "Two"], "body", (0, 1)) + f"<p:grpSp>{TABLE}</p:grpSp>" + PICTURE
    read = read_slides(str(write_pptx(tmp_path / "a.pptx", [(first, "Say hello."), (second, "")])), max_bytes=MEGABYTES)
    text = read["text"]
    assert text == (
        "Slide 1: Keys & doors\n\nThey rotate.\n\nNotes: Say hello.\n\n"
        "Slide 2\n\n- One\n  - Inner\n- Two\n\nname: Ada; role: keeper\n\n[image: A door that stands open]"
    )
    assert [text[start:end] for start, end, _, _ in read["headings"]] == ["Slide 1: Keys & doors", "Slide 2"]
    assert read["pages"] == [0, text.index("Slide 2")]


def test_what_is_no_presentation_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="no presentation"):
        read_slides(str(write_zip(tmp_path / "a.pptx", {"_rels/.rels": f"<Relationships {_RELATIONS}/>"})), max_bytes=MEGABYTES)


# -- books -------------------------------------------------------------------------------------------------------------


def test_chapters_without_headings_have_the_titles_of_the_table_of_contents(tmp_path: Path) -> None:
    path = write_epub(tmp_path / "a.epub", ["<p>SECOND</p><p>two</p>", "<p>one</p>", "<h2>Own</h2><p>zero</p>"])
    contents = (
        '<html xmlns="http://www.w3.org/1999/xhtml"><nav><ol><li><a href="c%202.xhtml">Zeroth</a></li><li><a href="c%201.xhtml#a">First</a>'
        '<ol><li><a href="c%200.xhtml">Second</a></li></ol></li></ol></nav></html>'
    )
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    item = '<manifest><item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
    parts["OPS/p.opf"] = parts["OPS/p.opf"].replace("<manifest>", item)
    read = read_book(str(write_zip(path, {**parts, "OPS/nav.xhtml": contents})), max_bytes=MEGABYTES)
    assert read["text"] == "Own\n\nzero\n\nFirst\n\none\n\nSECOND\n\ntwo"
    assert [(level, title) for _, _, level, title in read["headings"]] == [(2, "Own"), (1, "First"), (2, "SECOND")]


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1", "koi8-r"])
def test_chapters_are_in_the_encoding_that_they_declare(tmp_path: Path, encoding: str) -> None:
    text = {"koi8-r": "Ключи меняются"}.get(encoding, "Schlüssel über Flüsse")
    path = write_epub(tmp_path / "a.epub", ["<p>SECOND</p>", "<p>first</p>"])
    with zipfile.ZipFile(path) as archive:
        parts: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    parts["OPS/c 0.xhtml"] = f'<?xml version="1.0" encoding="{encoding}"?><html><body><p>{text}</p></body></html>'.encode(encoding)
    assert read_book(str(write_zip(path, parts)), max_bytes=MEGABYTES)["text"] == f"first\n\n{text}"


def test_a_damaged_chapter_costs_no_book(tmp_path: Path) -> None:
    path = write_epub(tmp_path / "a.epub", ["\0\1\2" * 1000, "<p>first</p>"])
    assert read_book(str(path), max_bytes=MEGABYTES)["text"] == "first"


# -- pages -------------------------------------------------------------------------------------------------------------


WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


def page_texts() -> list[str]:
    return [
        f"The Register of Keys, 2024\nSum: {number * number * 7}\nOn page {word} the keepers say {word}.\nAnd more on {word}."
        f"\nPage {number} of 8"
        for number, word in enumerate(WORDS, 1)
    ]


def test_running_heads_and_page_numbers_are_told_from_text() -> None:
    texts = page_texts()
    edges = repeated_edges(texts)
    assert [edges.without(text) for text in texts] == [
        f"Sum: {number * number * 7}\nOn page {word} the keepers say {word}.\nAnd more on {word}." for number, word in enumerate(WORDS, 1)
    ]


def test_short_documents_and_pages_of_one_line_lose_nothing() -> None:
    texts = page_texts()[:3]
    assert [repeated_edges(texts).without(text) for text in texts] == texts
    assert repeated_edges(["Same line"] * 9).without("Same line") == "Same line"


def test_a_pdf_loses_its_running_heads_and_keeps_its_pages(tmp_path: Path) -> None:
    def page(number: int) -> list[tuple[int, str]]:
        words = WORDS[number - 1]
        body = [
            (11, f"On page {words} the keepers say that {words} keys were found behind {words} doors, line {words}{i}.") for i in "abcde"
        ]
        return [(9, "Register of Keys 2024"), *body, (9, str(number))]

    path = write_pdf(tmp_path / "a.pdf", [page(number) for number in range(1, 7)])
    read = read_document(str(path), "application/pdf", configuration(None))
    text, starts = read["text"], read["pages"]
    assert "Register of Keys" not in text and "line fivee" in text
    assert len(starts) == 6 and [text[start:].startswith("On page") for start in starts] == [True] * 6
    assert not any(line.strip().isdigit() for line in text.split("\n"))
