"""OpenDocument texts: every word of them, in order, and nothing that is not theirs."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ragline.reading.parsing import formats
from ragline.reading.parsing.contents import Contents
from ragline.reading.parsing.nested import Budget
from ragline.reading.parsing.opendocument import read_open_document
from ragline.reading.parsing.packages import EncryptedError, UnreadableError
from tests.documents import OPEN_DOCUMENT, write_odt

MEGABYTES = 50 * 2**20


def read(path: Path, body: str, **parts: str) -> dict[str, Any]:
    return read_open_document(str(write_odt(path / "a.odt", body, **parts)), max_bytes=MEGABYTES)


def p(text: str, style: str = "") -> str:
    return f'<text:p text:style-name="{style}">{text}</text:p>' if style else f"<text:p>{text}</text:p>"


def items(*texts: str) -> str:
    return "".join(f"<text:list-item>{text}</text:list-item>" for text in texts)


def row(*cells: str, attributes: str = "") -> str:
    return f"<table:table-row {attributes}>{''.join(cells)}</table:table-row>"


def cell(text: str = "", attributes: str = "") -> str:
    return f"<table:table-cell {attributes}>{p(text) if text else ''}</table:table-cell>"


def table(*rows: str) -> str:
    return f"<table:table>{''.join(rows)}</table:table>"


NUMBERED = (
    '<text:list-style style:name="L1"><text:list-level-style-number text:level="1" style:num-format="1"/>'
    '<text:list-level-style-bullet text:level="2"/><text:list-level-style-number text:level="3" style:num-format="a" text:start-value="3"/>'
    "</text:list-style>"
)

# -- paragraphs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        ("<text:span>Name:<text:tab/>Ada</text:span> end", "Name:\tAda end"),
        ("<text:span>one<text:line-break/>two</text:span>", "one\ntwo"),
        ("<text:span>in <text:span>the <text:span>inner</text:span> of</text:span> it</text:span>", "in the inner of it"),
        ("<text:span>one<text:soft-page-break/>two</text:span> three", "onetwo three"),
        ("Visit <text:a><text:span>our site</text:span></text:a> now", "Visit our site now"),
        ("one<text:s/>two<text:s text:c='3'/>three", "one two   three"),
        ("R&amp;D &lt;x&gt; caf&#233; sch\u00adön", "R&D <x> café schön"),
        ("\n   one\n  two <text:span> three</text:span>\n", "one two three"),
        ("<text:bookmark-start/>one<text:bookmark-end/> <text:page-number>7</text:page-number>", "one 7"),
        ("<text:ruby><text:ruby-base>key</text:ruby-base><text:ruby-text>kee</text:ruby-text></text:ruby>s", "keys"),
    ],
)
def test_a_paragraph_keeps_every_word(tmp_path: Path, inside: str, text: str) -> None:
    assert read(tmp_path, p(inside))["text"] == text


def test_headings_have_their_levels(tmp_path: Path) -> None:
    styles = (
        '<style:style style:name="P1" style:family="paragraph" style:parent-style-name="Title"/>'
        '<style:style style:name="P2" style:family="paragraph" style:parent-style-name="Part"/>'
        '<style:style style:name="P3" style:family="paragraph" style:parent-style-name="Part" style:default-outline-level=""/>'
        '<style:style style:name="P4" style:family="paragraph" style:parent-style-name="P4"/>'
    )
    common = '<office:styles><style:style style:name="Part" style:family="paragraph" style:default-outline-level="2"/></office:styles>'
    body = (
        p("The register", "P1")
        + p("Part one", "P2")
        + '<text:h text:outline-level="3">Keys<text:line-break/>and <text:span>doors</text:span></text:h>'
        + p("no part", "P3")
        + p("its own parent", "P4")
        + "<text:h>Plain</text:h>"
    )
    content = write_odt(tmp_path / "a.odt", body, styles=styles)
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr("styles.xml", f"<office:document-styles {OPEN_DOCUMENT}>{common}</office:document-styles>")
    found = read_open_document(str(content), max_bytes=MEGABYTES)
    assert [(level, title) for _, _, level, title in found["headings"]] == [
        (1, "The register"),
        (2, "Part one"),
        (3, "Keys and doors"),
        (1, "Plain"),
    ]
    assert all(found["text"][start:end] == title for start, end, _, title in found["headings"])
    assert found["text"] == "The register\n\nPart one\n\nKeys and doors\n\nno part\n\nits own parent\n\nPlain"


def test_what_is_not_the_documents_own_text_is_left_out(tmp_path: Path) -> None:
    body = (
        f"<text:tracked-changes><text:changed-region><text:deletion>{p('deleted')}</text:deletion></text:changed-region></text:tracked-changes>"
        f"<text:table-of-content><text:index-body>{p('Keys 7')}</text:index-body></text:table-of-content>"
        + p(f"One<office:annotation><dc:creator>Ada</dc:creator>{p('a comment')}</office:annotation> two<text:change/>.")
    )
    assert read(tmp_path, body)["text"] == "One two."


def test_sections_and_bibliographies_are_read(tmp_path: Path) -> None:
    body = (
        f"<text:section><text:h>Keys</text:h><text:section>{p('inner')}</text:section></text:section>{p('between')}<text:bibliography>"
        f"<text:bibliography-source><text:index-title-template>Sources</text:index-title-template></text:bibliography-source>"
        f"<text:index-body>{p('Ada, 1843')}</text:index-body></text:bibliography>"
    )
    assert read(tmp_path, body)["text"] == "Keys\n\ninner\n\nbetween\n\nAda, 1843"


def test_footnotes_and_then_endnotes_stand_at_the_end(tmp_path: Path) -> None:
    def note(kind: str, text: str) -> str:
        return (
            f'<text:note text:note-class="{kind}"><text:note-citation>1</text:note-citation><text:note-body>{p(text)}</text:note-body>'
            "</text:note>"
        )

    body = p(f"One{note('endnote', 'At the end.')}, two{note('footnote', 'Below.')}.") + table(
        row(cell("name"), cell("role")), row(cell(f"Ada{note('footnote', 'In a cell.')}"), cell("keeper"))
    )
    assert read(tmp_path, body)["text"] == "One, two.\n\nname: Ada; role: keeper\n\nBelow.\n\nIn a cell.\n\nAt the end."


def test_boxes_stand_below_the_paragraph_that_they_hang_on(tmp_path: Path) -> None:
    box = (
        f"<draw:frame><draw:text-box>{p('boxed')}<text:list>{items(p('listed'))}</text:list></draw:text-box><svg:title>a name</svg:title>"
        "</draw:frame>"
    )
    body = p(f"Before {box}after.") + f"<draw:g><draw:custom-shape>{p('drawn')}</draw:custom-shape></draw:g>"
    assert read(tmp_path, body)["text"] == "Before after.\n\nboxed\n\n- listed\n\ndrawn"


def test_a_formula_is_read_as_it_was_typed(tmp_path: Path) -> None:
    path = write_odt(tmp_path / "a.odt", p('Where <draw:frame><draw:object xlink:href="./Object 1"/></draw:frame> holds.'))
    formula = "<math><semantics><mrow><mi>E</mi></mrow><annotation>E = m c^2</annotation></semantics></math>"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("Object 1/content.xml", formula)
    assert read_open_document(str(path), max_bytes=MEGABYTES)["text"] == "Where E = m c^2 holds."


# -- lists -------------------------------------------------------------------------------------------------------------


def test_lists_have_bullets_or_numbers_as_their_style_says(tmp_path: Path) -> None:
    innermost = f"<text:list>{items(p('deep'), p('deeper'))}</text:list>"
    inner = f"<text:list>{items(p('inner') + innermost)}</text:list>"
    body = f'<text:list text:style-name="L1">{items(p("one") + inner, p("two") + p("more of it"), p("three"))}</text:list>{p("after")}'
    assert read(tmp_path, body, styles=NUMBERED)["text"] == (
        "1. one\n  - inner\n    3. deep\n    4. deeper\n2. two\n  more of it\n3. three\n\nafter"
    )
    assert read(tmp_path, f"<text:list>{items(p('one'), p('two'))}</text:list>")["text"] == "- one\n- two"


def test_numbers_go_on_where_a_list_says_so(tmp_path: Path) -> None:
    def numbered(attributes: str, *texts: str) -> str:
        return f'<text:list text:style-name="L1" {attributes}>{items(*texts)}</text:list>'

    body = numbered("", p("one")) + p("between") + numbered('text:continue-numbering="true"', p("two")) + p("and") + numbered("", p("anew"))
    assert read(tmp_path, body, styles=NUMBERED)["text"] == "1. one\n\nbetween\n\n2. two\n\nand\n\n1. anew"
    deep = (f"<text:list>{items(f'<text:list>{items(p(name))}</text:list>')}</text:list>" for name in ("c", "d"))
    body = numbered("", next(deep)) + p("between") + numbered('text:continue-list="x"', next(deep))
    assert read(tmp_path, body, styles=NUMBERED)["text"] == "    3. c\n\nbetween\n\n    4. d"
    start = f'<text:list text:style-name="L1"><text:list-item text:start-value="7">{p("seven")}</text:list-item></text:list>'
    assert read(tmp_path, start, styles=NUMBERED)["text"] == "7. seven"


def test_a_heading_in_a_list_is_a_heading(tmp_path: Path) -> None:
    body = f'<text:list text:style-name="L1">{items("<text:h>Keys</text:h>")}</text:list>' + p("They rotate.")
    found = read(tmp_path, body, styles=NUMBERED)
    assert found["text"] == "Keys\n\nThey rotate." and [title for *_, title in found["headings"]] == ["Keys"]


# -- tables ------------------------------------------------------------------------------------------------------------


def test_rows_have_the_names_of_their_columns(tmp_path: Path) -> None:
    names = f"<table:table-header-rows>{row(cell('name'), cell('role'))}</table:table-header-rows>"
    body = table(names, row(f"<table:table-cell>{p('Ada')}{p('Lovelace')}</table:table-cell>", cell("keeper")), "<text:soft-page-break/>")
    assert read(tmp_path, body)["text"] == "name: Ada Lovelace; role: keeper"


def test_merged_cells_keep_the_columns_apart_and_are_repeated_below(tmp_path: Path) -> None:
    covered = f"<table:covered-table-cell>{p('hidden')}</table:covered-table-cell>"
    body = table(
        row(cell("name"), cell("role"), cell("since")),
        row(cell("Ada", 'table:number-rows-spanned="2"'), cell("keeper"), cell("1833")),
        row(covered, cell("guard"), cell("1842")),
        row(cell("Alan", 'table:number-columns-spanned="2"'), covered, cell("1936")),
        row(cell("", 'table:number-columns-repeated="2"'), cell("1951")),
    )
    assert read(tmp_path, body)["text"] == (
        "name: Ada; role: keeper; since: 1833\nname: Ada; role: guard; since: 1842\nname: Alan; since: 1936\nsince: 1951"
    )


def test_a_table_of_one_column_is_a_frame_around_text(tmp_path: Path) -> None:
    body = table(row(f"<table:table-cell><text:h>Keys</text:h>{p('They rotate.')}</table:table-cell>"))
    found = read(tmp_path, body)
    assert found["text"] == "Keys\n\nThey rotate." and len(found["headings"]) == 1


# -- what it says of itself --------------------------------------------------------------------------------------------


def test_what_a_document_says_of_itself_is_named_as_in_word(tmp_path: Path) -> None:
    meta = (
        "<office:meta><dc:title>Keys</dc:title><meta:initial-creator>Ada</meta:initial-creator><dc:creator>Alan</dc:creator>"
        "<dc:subject>Doors</dc:subject><meta:keyword>key</meta:keyword><meta:keyword>door</meta:keyword><dc:language>en</dc:language>"
        "<meta:creation-date>2024-01-01</meta:creation-date><dc:date>2024-02-02</dc:date><meta:generator>x</meta:generator></office:meta>"
    )
    assert read(tmp_path, p("text"), meta=meta)["metadata"] == {
        "title": "Keys",
        "author": "Ada",
        "subject": "Doors",
        "keywords": "key, door",
        "language": "en",
        "created": "2024-01-01",
        "modified": "2024-02-02",
    }


# -- hostile files -----------------------------------------------------------------------------------------------------


def answer(path: Path) -> dict[str, Any]:
    contents = Contents(max_package_bytes=MEGABYTES, ocr_language=None)
    budget = Budget(max_member_bytes=MEGABYTES, bytes_left=MEGABYTES, chars_left=MEGABYTES, hidden=False, at=lambda member: None)
    return contents.extract(io.BytesIO(path.read_bytes()), path.name, formats.ODT, budget)


@pytest.mark.parametrize("name", ["content.xml", "encrypted-package"])
def test_an_encrypted_document_says_so(tmp_path: Path, name: str) -> None:
    path = write_odt(tmp_path / "a.odt", "")
    entry = f'<m:file-entry m:full-path="{name}"><m:encryption-data/></m:file-entry>'
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("META-INF/manifest.xml", f'<m:manifest xmlns:m="x">{entry}</m:manifest>')
    with pytest.raises(EncryptedError):
        read_open_document(str(path), max_bytes=MEGABYTES)
    assert answer(path)["error"] == "it is encrypted"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<text:span>", "</text:span>"),
        ("<text:list><text:list-item>", "</text:list-item></text:list>"),
        ("<table:table><table:table-row><table:table-cell>", "</table:table-cell></table:table-row></table:table>"),
        ("<draw:g>", "</draw:g>"),
    ],
    ids=["spans", "lists", "tables", "shapes"],
)
def test_what_is_nested_without_end_is_refused(tmp_path: Path, before: str, after: str) -> None:
    inside = before * 100_000 + p("text") + after * 100_000
    assert answer(write_odt(tmp_path / "a.odt", p(inside) if "span" in before else inside))["error"] == "it is nested too deep"


def test_sections_may_be_nested_as_deep_as_one_likes(tmp_path: Path) -> None:
    body = "<text:section>" * 100_000 + p("text") + "</text:section>" * 100_000
    assert read(tmp_path, body)["text"] == "text"


def test_cells_repeated_a_million_times_make_no_long_text(tmp_path: Path) -> None:
    many = 'table:number-columns-repeated="1000000"'
    wide = row(cell("a" * 1000, many), cell("b"), attributes='table:number-rows-repeated="1000000"')
    long = row(cell("c", 'table:number-rows-spanned="1000000"'), cell("d" * 1000, many))
    assert len(read(tmp_path, table(*[wide] * 100, *[long] * 100))["text"]) < 5_000_000
    body = table(row(cell("name"), cell("role"), cell("", many)), row(cell("Ada"), cell("keeper"), cell("", many)))
    assert read(tmp_path, body)["text"] == "name: Ada; role: keeper"


def test_a_million_spaces_are_a_few(tmp_path: Path) -> None:
    found = read(tmp_path, p("one<text:s text:c='1000000'/>two<text:s text:c='-1'/>three<text:s text:c='x'/>four"))["text"]
    assert len(found) < 200 and found.split() == ["one", "two", "three", "four"]


def test_entities_do_not_grow(tmp_path: Path) -> None:
    path = write_odt(tmp_path / "a.odt", p("&a9;"))
    entities = '<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, f"<!DOCTYPE x [{entities}]>{content}" if name == "content.xml" else content)
    with pytest.raises(UnreadableError, match="no OpenDocument text"):
        read_open_document(str(path), max_bytes=MEGABYTES)


def test_a_formula_that_a_thousand_frames_show_is_read_once(tmp_path: Path) -> None:
    path = write_odt(tmp_path / "a.odt", p('<draw:frame><draw:object xlink:href="./o"/></draw:frame>') * 1000)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("o/content.xml", f"<math>{'a' * 100_000}</math>")
    assert len(read_open_document(str(path), max_bytes=MEGABYTES)["text"]) == 100_000


def test_what_unpacks_to_too_much_or_is_damaged_says_so(tmp_path: Path) -> None:
    path = write_odt(tmp_path / "a.odt", p("text" * 1000))
    with pytest.raises(UnreadableError, match="OpenDocument text unpacks to more than 1,000 bytes"):
        read_open_document(str(path), max_bytes=1000)
    with pytest.raises(UnreadableError, match="no OpenDocument text"):
        read_open_document(str(write_odt(tmp_path / "a.odt", "<text:p>")), max_bytes=MEGABYTES)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", formats.ODT)
    with pytest.raises(UnreadableError, match=r"content\.xml"):
        read_open_document(str(path), max_bytes=MEGABYTES)


@pytest.mark.parametrize("around", ["{}", "<text:section>{}</text:section>"], ids=["body", "section"])
def test_memory_does_not_grow_with_the_marks_around_the_text(tmp_path: Path, around: str) -> None:
    path = write_odt(tmp_path / "a.odt", around.format(p("<text:span/>" * 100) * 500))
    tracemalloc.start()
    try:
        read_open_document(str(path), max_bytes=MEGABYTES)
        assert tracemalloc.get_traced_memory()[1] < 1_500_000
    finally:
        tracemalloc.stop()
