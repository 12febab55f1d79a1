"""Files made to hurt, and files that went wrong: text or one clear error each, and the reader goes on."""

from __future__ import annotations

import asyncio
import io
import os
import random
import zipfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from ragline.errors import ReadError
from ragline.reading.reader import FileReader
from ragline.settings import ReadingSettings
from tests.documents import paragraph, write_docx, write_epub, write_odt, write_pdf, write_xlsx, write_zip
from tests.odd_pdfs import mutated
from tests.outcomes import TEXT, is_well, outcome, outcome_of_bytes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reader() -> AsyncIterator[FileReader]:
    reader = FileReader(ReadingSettings(workers=1, timeout_s=20, max_memory_bytes=256 * 2**20, max_file_bytes=20 * 2**20))
    yield reader
    await reader.close()


pytestmark = pytest.mark.asyncio(loop_scope="module")


# -- XML and packages --------------------------------------------------------------------------------------------------

LAUGHS = "<!DOCTYPE x [" + '<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12)) + "]>"
QUADRATIC = f'<!DOCTYPE x [<!ENTITY a "{"a" * 100_000}">]>'


def outside(path: Path) -> str:
    return f'<!DOCTYPE x [<!ENTITY a SYSTEM "{path.as_uri()}"><!ENTITY % b SYSTEM "{path.as_uri()}"> %b;]>'


def rewritten(path: Path, changes: dict[str, Callable[[str], str]]) -> Path:
    """A package with some of its parts changed."""
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        parts = {info.filename: archive.read(info).decode() for info in archive.infolist()}
    for name, change in changes.items():
        parts[name] = change(parts[name])
    return write_zip(path, parts)


def office(tmp_path: Path, kind: str, declaration: str, text: str) -> Path:
    """A file of a kind whose main part has this declaration and this text."""
    path = tmp_path / f"a.{kind}"
    if kind == "docx":
        return rewritten(write_docx(path, paragraph(text)), {"word/document.xml": lambda xml: declaration + xml})
    if kind == "xlsx":
        return rewritten(write_xlsx(path, [["name", "born"], [text, 1]]), {"xl/worksheets/sheet1.xml": lambda xml: declaration + xml})
    if kind == "epub":
        return rewritten(write_epub(path, [text]), {"OPS/p.opf": lambda xml: declaration + xml.replace("Keys", text)})
    if kind == "pptx":
        return write_pptx(path, declaration, text)
    if kind == "odt":
        return rewritten(write_odt(path, f"<text:p>{text}</text:p>"), {"content.xml": lambda xml: declaration + xml})
    path.write_text(
        {"html": f"{declaration}<p>{text}</p>", "svg": f"{declaration}<svg><text>{text}</text></svg>"}.get(
            kind, f"{declaration}<x>{text}</x>"
        )
    )
    return path


def write_pptx(path: Path, declaration: str, text: str) -> Path:
    drawing = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'
    shown = 'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kind = "application/vnd.openxmlformats-officedocument.presentationml"
    slide = f"<p:cSld><p:spTree><p:sp><p:txBody><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:txBody></p:sp></p:spTree></p:cSld>"
    link = f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" Type="{relations}/%s" Target="%s"/></Relationships>'
    return write_zip(
        path,
        {
            "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
            f'<Override PartName="/ppt/presentation.xml" ContentType="{kind}.presentation.main+xml"/>'
            f'<Override PartName="/ppt/slides/slide1.xml" ContentType="{kind}.slide+xml"/></Types>',
            "_rels/.rels": link % ("officeDocument", "ppt/presentation.xml"),
            "ppt/presentation.xml": f'<p:presentation {shown} xmlns:r="{relations}"><p:sldIdLst><p:sldId id="256" r:id="r1"/></p:sldIdLst>'
            "</p:presentation>",
            "ppt/_rels/presentation.xml.rels": link % ("slide", "slides/slide1.xml"),
            "ppt/slides/slide1.xml": f"{declaration}<p:sld {drawing} {shown}>{slide}</p:sld>",
        },
    )


KINDS = ("docx", "xlsx", "pptx", "epub", "odt", "html", "svg", "xml")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_files_that_carry_the_tricks_are_read_without_them(reader: FileReader, tmp_path: Path, kind: str) -> None:
    read = await reader.read(str(office(tmp_path, kind, "", "Keys rotate")))
    assert "Keys rotate" in read.text and (kind != "epub" or read.metadata["title"] == "Keys rotate")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trick", ["laughs", "quadratic", "outside"])
async def test_xml_entities_neither_grow_nor_reach_outside(reader: FileReader, tmp_path: Path, kind: str, trick: str) -> None:
    (tmp_path / "secret").write_text("<!ENTITY c 'the-secret'> the-secret")
    declaration, text = {
        "laughs": (LAUGHS, "&a11;"),
        "quadratic": (QUADRATIC, "&a;" * 10_000),
        "outside": (outside(tmp_path / "secret"), "&a;"),
    }[trick]
    path = office(tmp_path, kind, declaration, f"Keys {text}")
    try:
        read = await reader.read(str(path))
        assert len(read.text) < 300_000 and "the-secret" not in read.text and "haha" not in read.text[len(declaration) :]
    except ReadError as failure:
        assert failure.hint and "crashed" not in failure.message and "longer" not in failure.message, failure.message
        assert "the-secret" not in failure.message
    assert await is_well(reader, tmp_path)


@pytest.mark.parametrize("kind", ["docx", "xlsx", "pptx", "odt", "epub"])
async def test_packages_that_unpack_to_gigabytes_are_refused(reader: FileReader, tmp_path: Path, kind: str) -> None:
    path = office(tmp_path, kind, "", "Keys rotate")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("media/filler.bin", bytes(90 * 2**20))
    assert "unpacks to more than" in await outcome(reader, path)


@pytest.mark.parametrize("kind", ["docx", "xlsx", "pptx", "odt", "epub"])
async def test_changed_packages_give_text_or_one_clear_error(reader: FileReader, tmp_path: Path, kind: str) -> None:
    chance, seed = random.Random(kind), office(tmp_path, kind, "", "Keys rotate").read_bytes()
    results = Counter[bool]()
    for number in range(60):
        result = await outcome_of_bytes(reader, tmp_path / f"{number}.{kind}", mutated(seed, chance, [seed]))
        assert "crashed" not in result and "longer than" not in result
        results[result == TEXT] += 1
    assert results[False] > 10


async def test_an_encrypted_office_file_is_refused_whatever_its_extension(reader: FileReader, tmp_path: Path) -> None:
    data = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + "EncryptedPackage".encode("utf-16-le") + bytes(1000)
    for name in ("a.docx", "b.xlsx", "c.pptx", "d.doc"):
        assert await outcome_of_bytes(reader, tmp_path / name, data) == "it is encrypted"


# -- odd files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["txt", "md", "csv", "html", "json", "py", "eml"])
async def test_endless_lines_are_read_or_refused_in_time(reader: FileReader, tmp_path: Path, kind: str) -> None:
    for number, line in enumerate(
        (b"a" * 4_000_000, b"# " + b" " * 2_000_000 + b"x", b"word, " * 300_000, b"[(" * 600_000, b"- " * 600_000)
    ):
        result = await outcome_of_bytes(reader, tmp_path / f"{number}.{kind}", line)
        assert "crashed" not in result and "longer than" not in result, (number, result)
    # Small enough to be decoded in the engine's own process.
    assert await outcome_of_bytes(reader, tmp_path / f"a.{kind}", b"# " + b" \t" * 400_000 + b"x\n---\nb: " + b" " * 100_000 + b"x\n---\n")


async def test_titles_without_end_and_endless_titles_weigh_no_more_than_the_text(reader: FileReader, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# a\n" * 300_000)
    assert (await reader.read(str(tmp_path / "a.md"))).layout.headings == ()
    title = "word " * 400_000
    (tmp_path / "a.html").write_text(f"<title>{title}</title><h1>{title}</h1><p>text")
    read = await reader.read(str(tmp_path / "a.html"))
    assert len(read.metadata["title"]) <= 4000 and len(read.layout.headings[0].title) <= 1000
    assert len(read.text) > 1_900_000


async def test_a_wrong_extension_is_seen_through(reader: FileReader, tmp_path: Path) -> None:
    bodies = {
        "pdf": write_pdf(tmp_path / "x.pdf", [[(10, "Keys rotate.")]]).read_bytes(),
        "docx": write_docx(tmp_path / "x.docx", paragraph("Keys rotate.")).read_bytes(),
        "zip": write_zip(tmp_path / "x.zip", {"a.txt": "Keys rotate."}).read_bytes(),
        "html": b"<!doctype html><p>Keys rotate.",
        "txt": b"Keys rotate.",
    }
    for body in bodies.values():
        for kind in ("pdf", "docx", "xls", "zip", "gz", "tar", "png", "epub", "txt", "bin"):
            path = tmp_path / f"a.{kind}"
            await asyncio.to_thread(path.write_bytes, body)
            if body is bodies["txt"] and kind in ("pdf",):
                assert "damaged" in await outcome(reader, path)
            else:
                assert "Keys rotate." in (await reader.read(str(path))).text, kind


@pytest.mark.parametrize(
    "kind", ["pdf", "docx", "xlsx", "epub", "eml", "zip", "tar", "gz", "html", "png", "doc", "msg", "rtf", "txt", "unknown"]
)
async def test_files_of_hardly_a_byte_are_read_or_refused(reader: FileReader, tmp_path: Path, kind: str) -> None:
    assert await outcome_of_bytes(reader, tmp_path / f"a.{kind}", b"") == "it is empty"
    for data in (
        b"a",
        b"\0",
        b"P",
        b"%",
        b"<",
        b"\x1f\x8b",
        b"PK\3\4",
        b"PK\5\6",
        b"\xff\xd8\xff",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"From ",
    ):
        assert "crashed" not in await outcome_of_bytes(reader, tmp_path / f"a.{kind}", data)


async def test_a_text_that_is_two_things_is_read_as_the_first(reader: FileReader, tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "x.zip", {"a.txt": "From the archive."}).read_bytes()
    portable = write_pdf(tmp_path / "x.pdf", [[(10, "From the PDF.")]]).read_bytes()
    (tmp_path / "both.zip").write_bytes(portable + archive)
    assert (await reader.read(str(tmp_path / "both.zip"))).text == "From the PDF."
    with zipfile.ZipFile(tmp_path / "stored.zip", "w") as stored:
        stored.writestr("a.pdf", portable)  # not packed: its first bytes stand within the archive's
    assert (await reader.read(str(tmp_path / "stored.zip"))).text == "a.pdf\n\nFrom the PDF."
    (tmp_path / "about.md").write_text("# On PDFs\n\nThey begin with %PDF-1.7 and more.")
    assert (await reader.read(str(tmp_path / "about.md"))).media_type == "text/markdown"


async def test_large_texts_are_decoded_outside_of_this_process_and_come_back_whole(reader: FileReader, tmp_path: Path) -> None:
    text = "Schlüssel \U0001f511 rotieren.\n" * 60_000
    (tmp_path / "a.md").write_text("# Keys\n\n" + text)
    read = await reader.read(str(tmp_path / "a.md"))
    assert read.text == "# Keys\n\n" + text and [heading.title for heading in read.layout.headings] == ["Keys"]
    assert reader.pids


async def test_a_file_that_goes_or_changes_while_it_is_read_costs_itself_only(reader: FileReader, tmp_path: Path) -> None:
    path = write_docx(tmp_path / "a.docx", paragraph("Keys rotate."))
    stop = asyncio.Event()

    def change() -> None:
        chance = random.Random(24)
        while not stop.is_set():
            with os.scandir(tmp_path) as entries:
                assert entries
            kind = chance.randrange(4)
            if kind == 0:
                path.unlink(missing_ok=True)
            elif kind == 1:
                path.write_bytes(b"")
            elif kind == 2:
                write_pdf(path, [[(10, "A PDF now.")]])
            else:
                write_docx(path, paragraph("Keys rotate."))

    changing = asyncio.create_task(asyncio.to_thread(change))
    try:
        results = {await outcome(reader, path) for _ in range(150)}
    finally:
        stop.set()
        await changing
    assert not any("crashed" in result for result in results)
    assert await is_well(reader, tmp_path)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="a system without /proc")
async def test_files_of_the_system_that_lie_about_their_size_are_refused(reader: FileReader) -> None:
    for name in ("/proc/self/mem", "/proc/kmsg", "/dev/zero", "/dev/stdin", "/proc/self/pagemap"):
        assert await outcome(reader, Path(name)) != TEXT
