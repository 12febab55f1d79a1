"""Mail as a source: messages, what is attached to them, and mailboxes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import pytest
import pytest_asyncio

from ragline.errors import ReadError
from ragline.reading.base import ReadText
from ragline.reading.reader import FileReader
from ragline.settings import ReadingSettings
from tests.documents import paragraph, write_docx, write_pdf, write_zip

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63f80f00010101001bb6ee560000000049454e44ae426082"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reader() -> AsyncIterator[FileReader]:
    reader = FileReader(ReadingSettings(workers=1, max_file_bytes=5 * 2**20))
    yield reader
    await reader.close()


pytestmark = pytest.mark.asyncio(loop_scope="module")


def mail(subject: str, body: str = "They rotate.") -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = "Ada <ada@example.org>"
    message.set_content(body)
    return message


def headings(read: ReadText) -> list[tuple[int, str]]:
    for heading in read.layout.headings:
        assert read.text[heading.start : heading.end] == heading.title
    return [(heading.level, heading.title) for heading in read.layout.headings]


async def read_bytes(reader: FileReader, path: Path, data: bytes) -> ReadText:
    await asyncio.to_thread(path.write_bytes, data)
    return await reader.read(str(path))


async def test_attachments_are_sections_under_their_file_names(reader: FileReader, tmp_path: Path) -> None:
    message = mail("Keys")
    docx = write_docx(tmp_path / "a.docx", paragraph("Plan", "Heading1") + paragraph("Rotate all."))
    pdf = write_pdf(tmp_path / "a.pdf", [[(10, "A portable file.")]])
    archive = write_zip(tmp_path / "a.zip", {"in.txt": "Inside."})
    for path, name in ((docx, "Plän.docx"), (pdf, "a.pdf"), (archive, "all.zip")):
        message.add_attachment(path.read_bytes(), maintype="application", subtype="octet-stream", filename=name)
    message.add_attachment("name,born\nAda,1815\nAlan,1912\n", subtype="csv", filename="people.csv")
    read = await read_bytes(reader, tmp_path / "a.eml", message.as_bytes())
    assert read.text == (
        "Subject: Keys\nFrom: Ada <ada@example.org>\n\nThey rotate.\n\nAttachments: Plän.docx, a.pdf, all.zip, people.csv"
        "\n\nPlän.docx\n\nPlan\n\nRotate all.\n\na.pdf\n\nA portable file.\n\nall.zip\n\nin.txt\n\nInside."
        "\n\npeople.csv\n\nname: Ada; born: 1815\nname: Alan; born: 1912"
    )
    assert headings(read) == [(1, "Plän.docx"), (2, "Plan"), (1, "a.pdf"), (1, "all.zip"), (2, "in.txt"), (1, "people.csv")]
    assert read.metadata["attachments"] == ["Plän.docx", "a.pdf", "all.zip", "people.csv"]
    assert "unread" not in read.metadata


async def test_an_attachment_that_cannot_be_read_is_named_and_the_mail_is_read(reader: FileReader, tmp_path: Path) -> None:
    message = mail("Keys")
    message.add_attachment(b"PK\3\4garbage", maintype="application", subtype="zip", filename="broken.zip")
    message.add_attachment(b"MZ" + bytes(10), maintype="application", subtype="octet-stream", filename="run.exe")
    read = await read_bytes(reader, tmp_path / "a.eml", message.as_bytes())
    assert read.text.endswith("They rotate.\n\nAttachments: broken.zip, run.exe")
    (unread,) = read.metadata["unread"]
    assert unread.startswith("broken.zip: it is damaged")


async def test_a_forwarded_message_is_read_with_what_is_attached_to_it(reader: FileReader, tmp_path: Path) -> None:
    inner = mail("Inner", "The inner text.")
    inner.add_attachment("Deep.", filename="deep.txt")
    outer = mail("Outer")
    outer.add_attachment(inner)
    read = await read_bytes(reader, tmp_path / "a.eml", outer.as_bytes())
    assert headings(read) == [(1, "Inner"), (2, "deep.txt")]
    assert "The inner text." in read.text and read.text.endswith("deep.txt\n\nDeep.")


async def test_pictures_shown_in_the_body_are_left_out(reader: FileReader, tmp_path: Path) -> None:
    message = mail("Keys", "Plain.")
    message.add_alternative("<p>Rich <img src='cid:x'></p>", subtype="html")
    page = list(message.iter_parts())[1]
    assert isinstance(page, EmailMessage)
    page.add_related(PIXEL, "image", "png", cid="<x>", filename="logo.png", disposition="inline")
    read = await read_bytes(reader, tmp_path / "a.eml", message.as_bytes())
    assert read.text == "Subject: Keys\nFrom: Ada <ada@example.org>\n\nPlain."
    assert "attachments" not in read.metadata


async def test_a_body_in_several_parts_is_read_whole(reader: FileReader, tmp_path: Path) -> None:
    message = mail("Keys", "First part.")
    message.make_mixed()
    footer = EmailMessage()
    footer.set_content("The footer of a list.")
    message.attach(footer)
    read = await read_bytes(reader, tmp_path / "a.eml", message.as_bytes())
    assert read.text.endswith("First part.\n\nThe footer of a list.")


async def test_a_mailbox_has_a_section_for_each_message(reader: FileReader, tmp_path: Path) -> None:
    with_file = mail("Two", "See below.\n\nFrom here on it is easy.")
    with_file.add_attachment("Attached.", filename="note.txt")
    messages = [mail("One", "First."), with_file, EmailMessage()]
    messages[2].set_content("Without a subject.")
    data = b""
    for message in messages:
        lines = message.as_bytes().replace(b"\nFrom ", b"\n>From ")
        data += b"From ada@example.org Thu Jan  1 10:00:00 2026\n" + lines + b"\n"
    for path in (tmp_path / "a.mbox", tmp_path / "inbox"):
        read = await read_bytes(reader, path, data)
        assert headings(read) == [(1, "One"), (1, "Two"), (2, "note.txt"), (1, "Message 3")]
        assert "First." in read.text and "\n\nFrom here on it is easy." in read.text and "Without a subject." in read.text
        assert read.metadata == {"messages": 3} and read.media_type == "application/mbox"


async def test_a_mailbox_that_is_none_says_so(reader: FileReader, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="it is no mailbox"):
        await read_bytes(reader, tmp_path / "a.mbox", b"Just text.")


async def test_mail_nested_without_end_is_read_as_deep_as_allowed(reader: FileReader, tmp_path: Path) -> None:
    message = mail("Innermost", "The innermost text.")
    for depth in range(6):
        outer = mail(f"Level {depth}")
        outer.add_attachment(message)
        message = outer
    read = await read_bytes(reader, tmp_path / "a.eml", message.as_bytes())
    assert headings(read) == [(1, "Level 4"), (2, "Level 3"), (3, "Level 2")]
    assert "The innermost text." not in read.text


@pytest.mark.parametrize("case", ["multiparts", "header", "parts", "parameters", "boundary"])
async def test_hostile_mail_gives_what_it_has_or_one_clear_error(reader: FileReader, tmp_path: Path, case: str) -> None:
    parts = b"".join(b"--b\r\nContent-Type: text/plain; name=%d.txt\r\n\r\nx\r\n" % n for n in range(1500))
    data = {
        "multiparts": b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(3000)) + b"\r\ntext",
        "header": b"Subject: " + b"=?utf-8?q?x?= " * 100_000 + b"\r\nTo: " + b"a@b.c, " * 100_000 + b"\r\n\r\nbody",
        "parts": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + parts,
        "parameters": b"Content-Type: text/plain; " + b"".join(b"a*%d=x; " % n for n in range(700)) + b"\r\n\r\nbody",
        "boundary": b"Content-Type: multipart/mixed; boundary=" + b"b" * 500_000 + b"\r\n\r\n--b\r\n\r\nbody",
    }[case]
    try:
        read = await read_bytes(reader, tmp_path / "a.eml", data)
        assert read.text.strip() and len(read.text) < 100_000
    except ReadError as failure:
        assert failure.hint and "crashed" not in failure.message and "longer" not in failure.message, failure.message


async def test_mail_with_any_bytes_changed_gives_text_or_one_clear_error(reader: FileReader, tmp_path: Path) -> None:
    chance = random.Random(21)
    inner = mail("Inner", "The inner text.")
    message = mail("Schlüssel", "Plain.")
    message.add_alternative("<h1>Rich</h1>", subtype="html")
    message.add_attachment(inner)
    message.add_attachment(write_zip(tmp_path / "a.zip", {"a.md": "# A"}).read_bytes(), maintype="a", subtype="zip", filename="ä.zip")
    seed = message.as_bytes()
    texts = 0
    for number in range(300):
        data = bytearray(seed)
        for _ in range(chance.choice((1, 3, 30, 100))):
            data[chance.randrange(len(data))] = chance.choice((chance.randrange(256), 10, 34, 59, 61))
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        try:
            read = await read_bytes(reader, tmp_path / f"{number}.eml", bytes(data))
            headings(read)
            texts += 1
        except ReadError as failure:
            assert failure.hint and "crashed" not in failure.message and "longer" not in failure.message, failure.message
    assert texts > 200


async def test_a_body_of_any_kind_of_text_is_read(reader: FileReader, tmp_path: Path) -> None:
    markdown = b"Subject: Keys\r\nMIME-Version: 1.0\r\nContent-Type: text/markdown; charset=utf-8\r\n\r\nThey rotate."
    assert "They rotate." in (await read_bytes(reader, tmp_path / "a.eml", markdown)).text
    parts = (b"text/plain\r\n\r\nFirst.", b"text/csv\r\nContent-Disposition: inline\r\n\r\nname,born", b"text/css\r\n\r\np {}")
    mixed = b"Subject: Keys\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=B\r\n"
    mixed += b"".join(b"\r\n--B\r\nContent-Type: " + part for part in parts) + b"\r\n--B--\r\n"
    text = (await read_bytes(reader, tmp_path / "a.eml", mixed)).text
    assert "First." in text and "name,born" in text and "p {}" not in text


async def test_an_attached_text_is_in_the_encoding_that_its_part_declares(reader: FileReader, tmp_path: Path) -> None:
    message = mail("Keys")

    def attach(data: bytes, name: str, charset: str) -> None:
        message.add_attachment(data, maintype="text", subtype="plain", filename=name, params={"charset": charset})

    japanese = "\u30ad\u30fc\u306f\u6bce\u6708\u4ea4\u63db\u3055\u308c\u307e\u3059"
    for charset, text in (("shift_jis", japanese), ("iso-2022-jp", japanese), ("koi8-r", "\u041a\u043b\u044e\u0447\u0438")):
        attach(text.encode(charset), f"{charset}.txt", charset)
    attach("T\u00fcr".encode(), "wrong.txt", "iso-8859-1")
    pdf = write_pdf(tmp_path / "a.pdf", [[(10, "A portable file.")]])
    attach(pdf.read_bytes(), "a.pdf", "iso-8859-1")
    read = await read_bytes(reader, tmp_path / "a.eml", message.as_bytes())
    assert read.text.count(japanese) == 2
    assert all(words in read.text for words in ("\u041a\u043b\u044e\u0447\u0438", "T\u00fcr", "A portable file."))
    assert "unread" not in read.metadata


async def test_a_charset_that_python_alone_knows_is_none(reader: FileReader, tmp_path: Path) -> None:
    """Programs write "undefined" where they forgot a value; it is the name of a codec that refuses everything."""
    for charset in ("undefined", "idna", "no-such-thing"):
        data = f'Subject: Keys\r\nContent-Type: text/plain; charset="{charset}"\r\n\r\nThey rotate.'.encode()
        assert "They rotate." in (await read_bytes(reader, tmp_path / "a.eml", data)).text
        page = f'<meta charset="{charset}"><p>They rotate daily.</p>'.encode()
        assert "rotate daily" in (await read_bytes(reader, tmp_path / "a.html", page)).text


RUSSIAN, CHINESE = "Ключи меняются каждые девяносто дней", "钥匙每九十日轮换一次"


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("text/plain; charset=iso-8859-1", "25 € – “in all”".encode("cp1252"), "25 € – “in all”"),
        ("text/plain; charset=gb2312", f"{CHINESE}鍵".encode("gbk"), f"{CHINESE}鍵"),
        ("text/plain; charset=gb2312", CHINESE.encode("gbk") + b"\xff\n" + CHINESE.encode("gbk"), f"{CHINESE}\ufffd\n{CHINESE}"),
        ("text/html", f"<meta charset=koi8-r><p>{RUSSIAN}".encode("koi8-r"), RUSSIAN),
        ("text/html; charset=us-ascii", f"<meta charset=koi8-r><p>{RUSSIAN}".encode("koi8-r"), RUSSIAN),
        ("text/html; charset=koi8-r", f"<meta charset=latin1><p>{RUSSIAN}".encode("koi8-r"), RUSSIAN),
        ("text/plain; charset=us-ascii", "Schlüssel".encode(), "Schlüssel"),
        ("text/plain; charset=utf-8", RUSSIAN.encode() + b"\xff", RUSSIAN),
        ("text/plain; charset=iso-2022-jp", "鍵は九十日".encode("iso-2022-jp"), "鍵は九十日"),
    ],
)
async def test_a_body_is_in_the_encoding_that_its_part_or_its_page_declares(
    reader: FileReader, tmp_path: Path, kind: str, body: bytes, words: str
) -> None:
    read = await read_bytes(reader, tmp_path / "a.eml", f"Subject: Keys\r\nContent-Type: {kind}\r\n\r\n".encode() + body)
    assert words in read.text


def alternative(plain: bytes, markup: bytes) -> bytes:
    parts = b"".join(b"\r\n--B\r\n" + part for part in (plain, markup))
    return b"Subject: Keys\r\nMIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=B\r\n" + parts + b"\r\n--B--\r\n"


@pytest.mark.parametrize(
    "plain",
    [
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\nDQo=",
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=20\r\n=C2=A0",
        b"Content-Type: text/plain; charset=utf-16\r\nContent-Transfer-Encoding: base64\r\n\r\n//4gAA==",
        b"Content-Type: text/plain\r\n\r\nYour program does not show HTML.",
    ],
)
@pytest.mark.parametrize("related", [False, True])
async def test_the_page_is_read_where_the_plain_text_says_nothing(reader: FileReader, tmp_path: Path, plain: bytes, related: bool) -> None:
    page = b"Content-Type: text/html\r\n\r\n<p>" + b"The keys rotate every ninety days. " * 8
    if related:
        page = b"Content-Type: multipart/related; boundary=C\r\n\r\n--C\r\n" + page + b"\r\n--C--\r\n"
    text = (await read_bytes(reader, tmp_path / "a.eml", alternative(plain, page))).text
    assert text.count("rotate") == 8 and "program" not in text


@pytest.mark.parametrize(("words", "rich_words"), [(10, 30), (30, 400), (10, 0)])
async def test_a_plain_text_is_read_that_is_long_or_nearly_as_long(reader: FileReader, tmp_path: Path, words: int, rich_words: int) -> None:
    page = b"Content-Type: text/html\r\n\r\n<p>" + b"Rich. " * rich_words
    text = (await read_bytes(reader, tmp_path / "a.eml", alternative(b"\r\n" + b"Plain. " * words, page))).text
    assert text.count("Plain.") == words and "Rich." not in text
