"""What becomes of files of each format, through real parser processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import pytest
import pytest_asyncio

from ragline.errors import ReadError
from ragline.reading.base import ReadText
from ragline.reading.reader import FileReader
from ragline.settings import ReadingSettings
from tests.documents import paragraph, table, write_docx, write_epub, write_odt, write_pdf, write_xlsx, write_zip

ENCRYPTED = Path(__file__).parent.parent / "files" / "encrypted.pdf"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reader() -> AsyncIterator[FileReader]:
    reader = FileReader(ReadingSettings(workers=1, max_file_bytes=50 * 2**20, max_text_chars=2 * 10**6))
    yield reader
    await reader.close()


pytestmark = pytest.mark.asyncio(loop_scope="module")


def headings(read: ReadText) -> list[tuple[int, str]]:
    for heading in read.layout.headings:
        assert read.text[heading.start : heading.end] == heading.title
    return [(heading.level, heading.title) for heading in read.layout.headings]


async def test_a_pdf_gives_its_headings_and_pages(reader: FileReader, tmp_path: Path) -> None:
    body = [(10, f"Line {n} of the first page says that keys rotate every 90 days.") for n in range(4)]
    path = write_pdf(tmp_path / "a.pdf", [[(28, "Key rotation"), *body], [], [(10, "The third page is about doors.")]])
    read = await reader.read(str(path))
    assert read.media_type == "application/pdf"
    assert headings(read) == [(1, "Key rotation")]
    assert "Line 3 of the first page says that keys rotate every 90 days." in read.text
    first, second, third = read.layout.pages
    assert first == 0 and second == third
    assert read.text[third:] == "The third page is about doors."


async def test_a_word_file_gives_its_headings_and_tables(reader: FileReader, tmp_path: Path) -> None:
    body = paragraph("Keys", "Heading1") + paragraph("They rotate &amp; expire.") + paragraph("Who", "Heading2")
    path = write_docx(tmp_path / "a.docx", body + table([["name", "role"], ["Ada", "keeper"], ["Alan", "guard"]]))
    read = await reader.read(str(path))
    assert read.text == "Keys\n\nThey rotate & expire.\n\nWho\n\nname: Ada; role: keeper\nname: Alan; role: guard"
    assert headings(read) == [(1, "Keys"), (2, "Who")]


async def test_a_word_file_keeps_every_character_and_what_is_said_in_it(reader: FileReader, tmp_path: Path) -> None:
    numbered = '<w:pPr><w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr></w:pPr>'
    body = (
        paragraph("R&amp;D &lt;x&gt; caf&#233;")
        + "<w:p><w:del><w:r><w:delText>old</w:delText><w:t>old</w:t></w:r></w:del><w:ins><w:r><w:t>new</w:t></w:r></w:ins>"
        + "<w:hyperlink><w:r><w:tab/><w:t>link</w:t></w:r></w:hyperlink><w:r><w:instrText>PAGE</w:instrText></w:r></w:p>"
        + "".join(f"<w:p>{numbered}<w:r><w:t>step {name}</w:t></w:r></w:p>" for name in "ab")
        + f"<w:p><w:r><w:t>outer</w:t></w:r><w:r><w:txbxContent>{paragraph('boxed')}</w:txbxContent></w:r></w:p>"
        + f"<w:p><w:Choice><w:txbxContent>{paragraph('alone')}</w:txbxContent></w:Choice>"
        + f"<w:Fallback><w:txbxContent>{paragraph('alone')}</w:txbxContent></w:Fallback></w:p>"
        + f"<w:sdt><w:sdtContent>{paragraph('controlled')}</w:sdtContent></w:sdt><w:sectPr/>"
    )
    numbering = (
        '<w:abstractNum w:abstractNumId="7"><w:lvl w:ilvl="0"><w:numFmt w:val="decimal"/></w:lvl></w:abstractNum>'
        '<w:num w:numId="1"><w:abstractNumId w:val="7"/></w:num>'
    )
    note = f'<w:footnote w:type="separator">{paragraph("-")}</w:footnote><w:footnote>{paragraph("A note.")}</w:footnote>'
    read = await reader.read(str(write_docx(tmp_path / "a.docx", body, numbering=numbering, footnotes=note)))
    assert read.text == "R&D <x> café\n\nnew\tlink\n\n1. step a\n2. step b\n\nouter\n\nboxed\n\nalone\n\ncontrolled\n\nA note."


async def test_other_office_formats_keep_every_character_too(reader: FileReader, tmp_path: Path) -> None:
    read = await reader.read(str(write_xlsx(tmp_path / "a.xlsx", [["R&amp;D", "who"], ["&lt;x&gt; &#233;", "A&amp;B"]])))
    assert read.text == "Sheet: Staff\n\nR&D: <x> é; who: A&B"


async def test_a_spreadsheet_gives_rows_with_the_names_of_their_columns(reader: FileReader, tmp_path: Path) -> None:
    read = await reader.read(str(write_xlsx(tmp_path / "a.xlsx", [["name", "born"], ["Ada", 1815], ["Alan", 1912]])))
    assert read.text == "Sheet: Staff\n\nname: Ada; born: 1815\nname: Alan; born: 1912"


async def test_a_book_is_read_in_the_order_of_its_spine(reader: FileReader, tmp_path: Path) -> None:
    path = write_epub(tmp_path / "a.epub", ["<h1>Two</h1><p>second</p>", "<h1>One</h1><p>first</p>"])
    read = await reader.read(str(path))
    assert read.text == "One\n\nfirst\n\nTwo\n\nsecond"
    assert read.metadata == {"title": "Keys"}
    assert headings(read) == [(1, "One"), (1, "Two")]


async def test_a_web_page_gives_its_words_without_furniture(reader: FileReader, tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_text(
        """<!doctype html><html lang=en><head><title>Keys &amp; doors</title><meta name=author content=Ada><style>p {}</style></head>
        <body><header>Site name</header><nav><ul><li>Home</ul></nav><script>alert("x < y")</script>
        <main><h1>Key <em>rotation</em> <a href="#k">¶</a></h1><p>Keys rotate<br>every <b>90</b> days.<p>Always.
        <ul><li>one<li>two<ol><li>inner</ol></ul><pre>a  =  1\n  b</pre>
        <table><tr><th>name<th>role<tr><td>Ada<td>keeper</table>
        <div hidden>gone</div><div style="display: none">gone too</div></main><aside>advert</aside><footer>© us</footer></body></html>"""
    )
    read = await reader.read(str(page))
    assert read.text == (
        "Key rotation\n\nKeys rotate\nevery 90 days.\n\nAlways.\n\n- one\n- two\n  1. inner\n\na  =  1\n  b\n\nname: Ada; role: keeper"
    )
    assert headings(read) == [(1, "Key rotation")]
    assert read.metadata == {"language": "en", "title": "Keys & doors", "author": "Ada"}


async def test_a_page_laid_out_in_tables_is_read_as_paragraphs(reader: FileReader, tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_text("<table><tr><td>menu<td><table><tr><td>First paragraph.<br><br>Second.</table>Third.</table>")
    assert (await reader.read(str(page))).text == "menu\n\nFirst paragraph.\n\nSecond.\n\nThird."


async def test_a_page_says_its_encoding(reader: FileReader, tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_bytes('<html><meta charset="koi8-r"><p>ключ</p>'.encode("koi8-r"))
    assert (await reader.read(str(page))).text == "ключ"


async def test_mail_gives_its_headers_its_body_once_and_names_its_attachments(reader: FileReader, tmp_path: Path) -> None:
    message = EmailMessage()
    message["Subject"] = "Schlüssel"
    message["From"] = "Ada <ada@example.org>"
    message["To"] = "alan@example.org"
    message.set_content("They rotate.\n\nToday.")
    message.add_alternative("<p>They <b>rotate</b>.</p><p>Today.</p>", subtype="html")
    message.add_attachment(b"x", maintype="application", subtype="pdf", filename="plan ü.pdf")
    (tmp_path / "a.eml").write_bytes(message.as_bytes())
    read = await reader.read(str(tmp_path / "a.eml"))
    assert read.text == (
        "Subject: Schlüssel\nFrom: Ada <ada@example.org>\nTo: alan@example.org\n\nThey rotate.\n\nToday.\n\nAttachments: plan ü.pdf"
    )
    assert read.metadata["title"] == "Schlüssel" and read.metadata["attachments"] == ["plan ü.pdf"]


async def test_mail_that_breaks_the_rules_is_read_all_the_same(reader: FileReader, tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(
        b"Subject: =?nonsense?q?x?=\r\nFrom: <<@>\r\nContent-Type: text/html; charset=none-such\r\n\r\n<p>caf\xe9</p>"
    )
    assert "café" in (await reader.read(str(tmp_path / "a.eml"))).text


async def test_rich_text_and_restructured_text(reader: FileReader, tmp_path: Path) -> None:
    (tmp_path / "a.rtf").write_text(r"{\rtf1\ansi Keys \b rotate\b0 .\par Today.}")
    assert "Keys rotate" in (await reader.read(str(tmp_path / "a.rtf"))).text
    (tmp_path / "a.rst").write_text("Keys\n====\n\nThey rotate.\n")
    read = await reader.read(str(tmp_path / "a.rst"))
    assert read.text == "Keys\n====\n\nThey rotate.\n" and [heading.title for heading in read.layout.headings] == ["Keys"]


async def test_an_open_document_gives_its_headings_and_tables(reader: FileReader, tmp_path: Path) -> None:
    rows = (
        f"<table:table-row>{''.join(f'<table:table-cell><text:p>{cell}</text:p></table:table-cell>' for cell in row)}</table:table-row>"
        for row in (("name", "role"), ("Ada", "keeper"))
    )
    body = f"<text:h>Keys</text:h><text:p><text:span>They<text:s/>rotate</text:span>.</text:p><table:table>{''.join(rows)}</table:table>"
    read = await reader.read(str(write_odt(tmp_path / "a.odt", body)))
    assert read.text == "Keys\n\nThey rotate.\n\nname: Ada; role: keeper" and read.media_type == "application/vnd.oasis.opendocument.text"
    assert headings(read) == [(1, "Keys")]


async def test_the_content_tells_the_format_whatever_the_name(reader: FileReader, tmp_path: Path) -> None:
    write_docx(tmp_path / "a.xlsx", paragraph("A Word file."))
    write_pdf(tmp_path / "a.txt", [[(10, "A portable file.")]])
    assert (await reader.read(str(tmp_path / "a.xlsx"))).text == "A Word file."
    assert (await reader.read(str(tmp_path / "a.txt"))).media_type == "application/pdf"


async def test_a_name_that_is_not_utf8_reaches_the_parser(reader: FileReader, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.docx")
    shutil.move(write_docx(tmp_path / "a.docx", paragraph("Keys rotate.")), path)
    assert (await reader.read(path)).text == "Keys rotate."
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.epub")
    shutil.move(write_epub(tmp_path / "a.epub", ["<p>Keys</p>"]), path)
    assert (await reader.read(path)).text == "Keys"


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


async def refusal(reader: FileReader, path: Path) -> str:
    with pytest.raises(ReadError) as caught:
        await reader.read(str(path))
    assert caught.value.hint, "an error without a cure"
    return caught.value.message


async def test_files_that_give_no_text_say_why(reader: FileReader, tmp_path: Path) -> None:
    assert await refusal(reader, ENCRYPTED) == "it is encrypted"
    assert await refusal(reader, write(tmp_path / "empty.pdf", b"")) == "it is empty"
    assert "holds no text" in await refusal(reader, write_pdf(tmp_path / "blank.pdf", [[]]))
    assert "holds no text" in await refusal(reader, write(tmp_path / "blank.html", b"<html><script>x</script>"))
    assert "damaged" in await refusal(reader, write(tmp_path / "broken.pdf", b"%PDF-1.7\n garbage"))
    assert "damaged, or no Word document" in await refusal(reader, write(tmp_path / "broken.docx", b"PK\3\4garbage"))
    assert "EPUB" in await refusal(reader, write_zip(tmp_path / "broken.epub", {"mimetype": "application/epub+zip"}))
    assert "binary" in await refusal(reader, write(tmp_path / "binary.txt", bytes(range(256)) * 9))
    assert "Zstandard" in await refusal(reader, write(tmp_path / "a.zst", b"\x28\xb5\x2f\xfd" + bytes(99)))
    assert "neither text" in await refusal(reader, write(tmp_path / "a.unknown", bytes(300)))
    assert await refusal(reader, tmp_path / "none.md") == "it cannot be read: No such file or directory"
    assert await refusal(reader, tmp_path) == "it is not a regular file"


async def test_an_image_is_refused_with_the_way_to_have_it_read(reader: FileReader, tmp_path: Path) -> None:
    # One white pixel: whether or not tesseract is there, it gives no text.
    pixel = (
        "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63f80f0001010100"
        "1bb6ee560000000049454e44ae426082"
    )
    await refusal(reader, write(tmp_path / "a.png", bytes.fromhex(pixel)))


async def test_a_named_pipe_is_not_opened(reader: FileReader, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert await refusal(reader, tmp_path / "pipe.txt") == "it is not a regular file"


async def test_a_file_that_may_not_be_read_says_so(reader: FileReader, tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"text")
    path.chmod(0)
    if os.access(path, os.R_OK):  # the administrator's permissions are no obstacle
        assert (await reader.read(str(path))).text == "text"
    else:
        assert "Permission denied" in await refusal(reader, path)


async def test_a_sparse_file_of_two_gigabytes_is_refused_by_its_size(reader: FileReader, tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"text")
    os.truncate(path, 2 * 2**30)
    assert await refusal(reader, path) == "it holds 2,147,483,648 bytes, more than the 52,428,800 allowed"


async def test_more_text_than_allowed_is_refused(reader: FileReader, tmp_path: Path) -> None:
    assert "3,000,000 characters" in await refusal(reader, write(tmp_path / "a.txt", b"a" * 3_000_000))
    assert "characters of text" in await refusal(reader, write(tmp_path / "a.html", b"<p>" + b"a" * 3_000_000))
