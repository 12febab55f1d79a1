"""Texts that need no parser: encodings, headings, tables."""

from __future__ import annotations

import time

import pytest

from ragline.errors import ReadError
from ragline.reading.documents import read_plain, read_text
from ragline.reading.parsing import formats, plain
from ragline.reading.parsing.texts import NotTextError, decode

GERMAN = "Schlüssel über Flüsse: größer als 90 € je Tür, naïve Cafés."


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_usual_encodings_are_read(encoding: str) -> None:
    assert read_plain(GERMAN.encode(encoding), formats.PLAIN).text == GERMAN


def test_a_guessed_encoding_is_noted() -> None:
    assert read_plain(GERMAN.encode("cp1252"), formats.PLAIN).metadata == {"encoding": "windows-1252 (guessed)"}
    assert read_plain(GERMAN.encode(), formats.PLAIN).metadata == {}


def test_utf8_with_a_damaged_place_stays_utf8() -> None:
    data = (GERMAN * 20).encode()
    read = read_plain(data[:100] + b"\xff" + data[100:], formats.PLAIN)
    assert read.text.count("Schlüssel") >= 19 and "\ufffd" in read.text
    assert read.metadata == {"encoding": "utf-8 (guessed)"}


@pytest.mark.parametrize("encoding", ["shift_jis", "cp1251", "gb18030", "iso8859_7"])
def test_an_encoding_that_cannot_be_told_is_refused_and_not_read_as_salad(encoding: str) -> None:
    text = {"cp1251": "Ключи меняются каждые девяносто дней", "iso8859_7": "κλειδιά κάθε ενενήντα ημέρες"}.get(
        encoding, "鍵は九十日ごとに回転する"
    )
    with pytest.raises(ReadError, match="neither Unicode nor Western European") as caught:
        read_plain(text.encode(encoding), formats.PLAIN)
    assert "UTF-8" in caught.value.hint


POLISH = "Klucze wymieniamy co dziewięćdziesiąt dni, żółć i jaźń."


@pytest.mark.parametrize(
    ("label", "codec", "text"),
    [
        ("iso-8859-1", "cp1252", "25 € – “in all” cafés"),
        ("Latin1", "cp1252", "25 €"),
        ("us-ascii", "cp1252", "It’s 25 €"),
        ("iso-8859-2", "iso8859_2", POLISH),
        ("iso-8859-9", "cp1254", "Anahtarlar “doğru”"),
        ("tis-620", "cp874", "กุญแจ…"),
        ("gb2312", "gbk", "鍵每九十日轮换"),
        ("x-sjis", "cp932", "①鍵は九十日"),
        ("ks_c_5601-1987", "cp949", "열쇠는 똠방"),
        ("koi8-r", "koi8_r", "Ключи меняются"),
    ],
)
def test_an_encoding_that_html_declares_is_read_as_browsers_read_it(label: str, codec: str, text: str) -> None:
    data = f'<meta charset="{label}"><p>'.encode() + text.encode(codec)
    assert decode(data, markup=True).text.endswith(text)


@pytest.mark.parametrize("label", ["iso-8859-1", "us-ascii", "gb2312", "shift_jis", "utf-16", "no-such-thing"])
def test_unicode_stays_unicode_whatever_a_page_declares(label: str) -> None:
    text = f'<meta charset="{label}"><p>Schlüssel, 鍵每九十日轮换一次，钥匙, Ключи”.'
    assert decode(text.encode(), markup=True).text == text


def test_a_short_chinese_word_that_could_be_unicode_is_what_it_is_declared_to_be() -> None:
    assert decode(b"<meta charset=gb2312><p>" + "谢谢".encode("gbk"), markup=True).text.endswith("谢谢")


@pytest.mark.parametrize(("label", "text"), [("gb2312", "钥匙每九十日轮换一次"), ("shift_jis", "鍵は九十日に回転する"), ("euc-kr", "열쇠")])
def test_a_broken_character_is_lost_alone_and_many_are_another_encoding(label: str, text: str) -> None:
    begin, broken, rest = f"<meta charset={label}>".encode(), b"\x81<p>", (text * 30).encode(label)
    assert decode(begin + rest + broken + rest, markup=True).text.count(text) == 60
    with pytest.raises(NotTextError):
        decode(begin + broken * 9 + rest, markup=True)


def test_bytes_that_western_european_does_not_have_are_left_out() -> None:
    assert decode(b"<meta charset=latin1>\x81k\x8dey\x9d \x80", markup=True).text == "<meta charset=latin1>key €"


@pytest.mark.parametrize(("label", "text"), [("iso-8859-2", POLISH), ("windows-1251", "Ключи меняются каждые девяносто дней")])
def test_xml_is_in_the_encoding_that_it_declares(label: str, text: str) -> None:
    data = f"<?xml version='1.0' encoding='{label}'?><keys>{text}</keys>".encode(label)
    read = read_plain(data, "application/xml", "xml")
    assert text in read.text and read.metadata == {"encoding": label}


def test_xml_that_can_be_read_is_not_in_the_utf16_that_it_declares() -> None:
    data = f'<?xml version="1.0" encoding="UTF-16"?><keys>{POLISH}</keys>'.encode()
    assert POLISH in read_plain(data, "application/xml", "xml").text


def test_a_text_of_dos_ends_before_its_mark() -> None:
    assert read_plain(b"Keys rotate.\r\n\x1a", formats.PLAIN).text == "Keys rotate.\n"
    assert read_plain("Schl\u00fcssel".encode("cp1252") + b"\x1a" * 20, formats.PLAIN).text == "Schl\u00fcssel"
    assert formats.by_content(b"Keys rotate.\r\n\x1a", "README") == formats.PLAIN


def test_what_is_struck_twice_is_read_once() -> None:
    printed = "N\bNA\bAM\bME\bE\n     k\bke\bey\bys\bs_\b_a\ba - rotates _\bk_\be_\by_\bs, ü\bü_\bö, _\bx\bx y\b_\n"
    assert read_plain(printed.encode(), formats.PLAIN).text == "NAME\n     keys_a - rotates keys, üö, x y\n"
    assert formats.by_content(printed.encode(), "keys.1") == formats.PLAIN


@pytest.mark.parametrize("data", [bytes(range(256)) * 10, b"\x7fELF\2\1\1\0" + bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(range(200))])
def test_binary_content_is_refused(data: bytes) -> None:
    with pytest.raises(ReadError, match="not text but binary"):
        read_plain(data, formats.PLAIN)


def test_a_stray_nul_is_dropped_and_line_breaks_are_one() -> None:
    text = "one\r\ntwo\rthree\0four" + " five" * 100
    assert read_plain(text.encode(), formats.PLAIN).text.startswith("one\ntwo\nthreefour")


def test_blank_files_hold_no_text() -> None:
    for data in (b" \n\t ", b"\xef\xbb\xbf", b"a,b\n"[:0]):
        with pytest.raises(ReadError, match="holds no text"):
            read_plain(data, formats.PLAIN)


def test_lone_surrogates_and_nul_in_handed_texts_are_replaced() -> None:
    assert read_text("a\ud800b\0c").text == "a\ufffdbc"


def test_a_handed_text_without_words_is_refused_by_its_name() -> None:
    with pytest.raises(ReadError, match="kb/42 has no text"):
        read_text(" \0 ", "kb/42")


def headings(text: str) -> list[tuple[int, str, str]]:
    layout = read_text(text).layout
    return [(heading.level, heading.title, text[heading.start : heading.end]) for heading in layout.headings]


def test_markdown_headings_of_both_kinds() -> None:
    text = "# Keys ##\n\ntext\n\nDoors\n=====\n\n  ### The `code` of *it*\nText\n---\n\n#hashtag\n\n- item\n---\n"
    assert headings(text) == [
        (1, "Keys", "Keys"),
        (1, "Doors", "Doors"),
        (3, "The code of it", "The `code` of *it*"),
        (2, "Text", "Text"),
    ]


def test_headings_inside_fences_and_front_matter_are_none() -> None:
    text = "---\ntitle: Keys\nlang: en\n---\n# One\n```sh\n# comment\n~~~\n```\n~~~~\n# comment\n~~~\n# comment\n~~~~\n# Two\n"
    assert [title for _, title, _ in headings(text)] == ["One", "Two"]
    assert read_plain(text.encode(), formats.MARKDOWN).metadata == {"title": "Keys", "lang": "en"}


def test_code_between_backticks_on_one_line_opens_no_fence() -> None:
    text = "```pip install x```\n# Keys\n~~~ a`b\n# x\n~~~\n````sh\n# x\n````\n# Locks"
    assert [title for _, title, _ in headings(text)] == ["Keys", "Locks"]


def test_an_unclosed_fence_ends_with_the_text() -> None:
    assert headings("# One\n```\n# comment") == [(1, "One", "One")]


def test_source_code_has_no_headings() -> None:
    assert read_plain(b"# a comment\nx = 1\n", formats.SOURCE_CODE).layout.headings == ()


def test_rows_can_be_understood_alone() -> None:
    data = b'name;born;note\nAda;1815;"first; of all"\nAlan;1912;\n\n'
    assert read_plain(data, formats.CSV).text == "name: Ada; born: 1815; note: first; of all\nname: Alan; born: 1912"
    assert read_plain(b"a\tb\n1\t2\n", formats.TSV).text == "a: 1; b: 2"


def test_rows_without_a_header_stand_between_bars() -> None:
    assert read_plain(b"1,2\n3,4\n", formats.CSV).text == "| 1 | 2 |\n| 3 | 4 |"


def test_the_separator_that_excel_names_is_obeyed_and_no_row() -> None:
    assert read_plain(b"sep=;\nname;born\nAda, Countess;1815\n", formats.CSV).text == "name: Ada, Countess; born: 1815"
    assert read_plain(b"sep=\tname;born\nAda;1815\n", formats.CSV).text == "sep= name: Ada; born: 1815", "a column of that name"


def test_a_quotation_mark_that_nothing_closes_swallows_no_rows() -> None:
    rows = 'id\ttitle\n1\tAlien\n2\t"Weird: The Al\n3\tThe "Burbs"\n'
    assert read_plain(rows.encode(), formats.TSV).text.split("\n") == [
        "id: 1; title: Alien", 'id: 2; title: "Weird: The Al', 'id: 3; title: The "Burbs"'
    ]  # fmt: skip
    assert read_plain(b'id\ttitle\n1\t"of two\nlines"\n', formats.TSV).text == "id: 1; title: of two lines"


@pytest.mark.parametrize("text", ["just prose, in a file", "one\ntwo\nthree", "name,born"])
def test_what_is_no_table_is_kept_as_it_is(text: str) -> None:
    read = read_plain(text.encode(), formats.CSV).text
    assert set(read.replace("|", " ").replace(",", " ").split()) == set(text.replace(",", " ").split())


@pytest.mark.parametrize(
    ("head", "name", "expected"),
    [
        (b"%PDF-1.7", "a.txt", formats.PDF),
        (b"junk\n%PDF-1.7", "a.pdf", formats.PDF),
        (b"<!DOCTYPE html><html>", "report.xls", formats.HTML),
        (b"<!doctype html>", "page", formats.HTML),
        (b"name,born\n", "report.xls", formats.PLAIN),
        (b"{\\rtf1", "a.doc", "application/rtf"),
        (b"# Keys", "a.md", formats.MARKDOWN),
        (b"Keys", "README", formats.PLAIN),
        (b"\0\1\2\3", "README", None),
        (b"\xff\xd8\xff\xe0", "a.png", "image/jpeg"),
    ],
)
def test_the_content_tells_the_type_before_the_name_does(head: bytes, name: str, expected: str | None) -> None:
    assert formats.by_content(head, name) == expected


def test_json_records_are_paragraphs_that_can_be_understood_alone() -> None:
    lines = b'{"name": "Ada", "born": 1815, "tags": ["a", "b"], "at": {"city": "Rom\\u00e9"}, "x": null}\nno json\n[1, 2]\n'
    assert read_plain(lines, formats.JSON, "jsonl").text == "name: Ada; born: 1815; tags: a, b; at.city: Romé\n\nno json\n\n[1, 2]"
    records = b'[{"a": "first\\nsecond", "b": 2}, {"keys": [{"n": 1}, {"n": 2}]}]'
    assert read_plain(records, formats.JSON, "json").text == "a: first\nsecond\nb: 2\n\nkeys.n: 1; keys.n: 2"


def test_other_json_stays_as_it_is_but_for_its_escapes() -> None:
    data = rb'{"a": "Schl\u00fcssel \ud83d\ude00 \u0022 \\u00fc \ud83d \u000a"}'
    assert read_plain(data, formats.JSON, "json").text == r'{"a": "Schlüssel 😀 \u0022 \\u00fc \ud83d \u000a"}'
    assert read_plain(b"[" * 100_000, formats.JSON, "json").text == "[" * 100_000


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_json_of_any_depth_is_read(suffix: str) -> None:
    for depth in (*range(500, 1050), 100_000):
        text = '[{"a": ' + "[" * depth + "1" + "]" * depth + "}]"
        assert "1" in read_plain(text.encode(), formats.JSON, suffix).text


def test_whatever_a_text_does_to_its_reader_is_its_own_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(plain, "decode", fails)
    with pytest.raises(ReadError, match="nested too deep"):
        read_plain(b"# Keys", formats.MARKDOWN, "md")


def test_comments_in_settings_files_are_no_headings() -> None:
    read = read_plain(b"# a comment\n[tool]\nx = 1\n", formats.PLAIN, "ini")
    assert [heading.title for heading in read.layout.headings] == ["[tool]"]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Keys", "Keys"),
        ("# Keys ##", "Keys"),
        ("# Keys \t # \t", "Keys"),
        ("# Keys#", "Keys#"),
        ("# C #", "C"),
        ("# C# #", "C#"),
        ("#\tKeys", "Keys"),
        ("# ## x", "## x"),
    ],
)
def test_closing_marks_are_no_part_of_a_heading(text: str, title: str) -> None:
    read = read_plain(text.encode(), formats.MARKDOWN)
    assert [(heading.title, read.text[heading.start : heading.end]) for heading in read.layout.headings] == [(title, title)]


@pytest.mark.parametrize("text", ["#Keys", "#", "# ##", "####### Keys", "    # Keys"])
def test_what_only_begins_as_a_heading_is_none(text: str) -> None:
    assert read_plain(text.encode(), formats.MARKDOWN).layout.headings == ()


MEGABYTE = 10**6


@pytest.mark.parametrize(
    "text",
    [
        "# x" + " " * MEGABYTE + "x",
        "# " + " #" * (MEGABYTE // 2) + "x",
        "# " + "[" * MEGABYTE,
        "# " + "[a](" * (MEGABYTE // 4),
        "# " + "_a" * (MEGABYTE // 2),
        "---\na: b" + " " * MEGABYTE + "x\n---\n",
    ],
    ids=["blanks", "marks", "brackets", "links", "emphasis", "front matter"],
)
def test_the_time_to_read_hostile_markdown_is_linear(text: str) -> None:
    """Texts of this size are read in the engine's own process, where a regular expression holds up everything."""
    began = time.process_time()
    read_plain(text.encode(), formats.MARKDOWN)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("head", [b"<!---->" * 1000 + b"<x", b"<!-- -->\n" * 800, b"From a " + b"12:34" * 1600 + b"\n\n"])
def test_the_time_to_tell_a_hostile_files_type_is_short(head: bytes) -> None:
    began = time.process_time()
    formats.by_content(head[: formats.HEAD_BYTES], "page")
    assert time.process_time() - began < 1
    assert formats.by_content(b"<!-- one --> <!-- two -->\n<html>", "page") == formats.HTML
    assert formats.by_content(b"From ada@b.c Sat Nov 21 11:54:30 2026\r\nSubject: Keys\r\n", "box") == formats.MAILBOX


def test_the_time_to_read_a_hostile_table_is_linear() -> None:
    began = time.process_time()
    read_plain(b"1" * 120_000 + b"x;born\nAda;1815\n", formats.CSV)
    assert time.process_time() - began < 5
