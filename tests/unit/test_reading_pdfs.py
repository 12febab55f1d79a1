"""PDFs that nobody should have made, and pictures of text."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ragline.errors import ReadError
from ragline.reading.reader import FileReader
from ragline.settings import ReadingSettings, load_settings
from tests.odd_pdfs import BUILT, many_pages, mutated, pdf, stream
from tests.outcomes import TEXT, is_well, outcome_of_bytes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reader() -> AsyncIterator[FileReader]:
    reader = FileReader(ReadingSettings(workers=1, timeout_s=20, max_memory_bytes=256 * 2**20, max_file_bytes=20 * 2**20))
    yield reader
    await reader.close()


pytestmark = pytest.mark.asyncio(loop_scope="module")


# -- PDFs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT)
async def test_no_built_pdf_hurts_the_reader(reader: FileReader, tmp_path: Path, name: str) -> None:
    await outcome_of_bytes(reader, tmp_path / "a.pdf", BUILT[name]())
    assert await is_well(reader, tmp_path)


async def test_a_pdf_of_ten_thousand_pages_is_read_whole(reader: FileReader, tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    await asyncio.to_thread(path.write_bytes, many_pages(10_000))
    read = await reader.read(str(path))
    assert read.text.count("Keys rotate.") == len(read.layout.pages) == 10_000


def seeds() -> list[bytes]:
    """Sound PDFs, and odd ones that are quickly read."""
    names = (
        "one page",
        "page tree in a circle",
        "annotations in a circle",
        "form fields in a circle",
        "object stream in itself",
        "structure in a circle",
    )
    return [many_pages(5), *(BUILT[name]() for name in names), scan("TITLE")]


async def read_mutations(reader: FileReader, tmp_path: Path, *, seed: int, count: int) -> Counter[str]:
    """What became of so many changed PDFs: text, error, or the loss of a parser process."""
    chance, originals, results = random.Random(seed), seeds(), Counter[str]()

    async def one(number: int, data: bytes) -> None:
        path = tmp_path / f"{number % 16}.{number}.pdf"
        result = await outcome_of_bytes(reader, path, data)
        lost = any(words in result for words in ("crashed", "longer than", "of memory"))
        results["text" if result == TEXT else "lost" if lost else "error"] += 1
        await asyncio.to_thread(path.unlink)

    for start in range(0, count, 16):
        batch = [(n, mutated(chance.choice(originals), chance, originals)) for n in range(start, min(start + 16, count))]
        await asyncio.gather(*(one(number, data) for number, data in batch))
    return results


async def test_changed_pdfs_give_text_or_one_clear_error(reader: FileReader, tmp_path: Path) -> None:
    results = await read_mutations(reader, tmp_path, seed=22, count=160)
    assert results.total() == 160 and results["text"] > 20 and results["error"] > 20
    assert await is_well(reader, tmp_path)


@pytest.mark.soak
async def test_ten_thousand_changed_pdfs_give_text_or_one_clear_error(tmp_path: Path) -> None:
    reader = FileReader(ReadingSettings(workers=0))
    try:
        results = await read_mutations(reader, tmp_path, seed=23, count=10_000)
        assert results.total() == 10_000 and results["text"] > 1000
        assert await is_well(reader, tmp_path)
    finally:
        await reader.close()


# -- text recognition --------------------------------------------------------------------------------------------------

GLYPHS = {
    "T": "11111 00100 00100 00100 00100 00100 00100", "I": "01110 00100 00100 00100 00100 00100 01110",
    "L": "10000 10000 10000 10000 10000 10000 11111", "E": "11111 10000 10000 11110 10000 10000 11111",
}  # fmt: skip


def drawn(word: str, scale: int = 6) -> tuple[int, int, bytes]:
    """A word in black on white: width, height, and rows of 8-bit grey."""
    rows = ["0" * 6 * len(word)] * 3
    rows += ["0".join(GLYPHS[letter].split()[row] for letter in word) + "0" for row in range(7)] + rows
    rows = ["000" + row + "000" for row in rows]
    lines = [b"".join(bytes([255 - 255 * int(point)]) * scale for point in row) for row in rows]
    return len(lines[0]), len(lines) * scale, b"".join(line * scale for line in lines)


def picture(word: str) -> bytes:
    width, height, grey = drawn(word)

    def part(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    lines = b"".join(b"\0" + grey[row * width : (row + 1) * width] for row in range(height))
    header = width.to_bytes(4) + height.to_bytes(4) + b"\x08\0\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(lines)) + part(b"IEND", b"")


def scan(word: str) -> bytes:
    width, height, grey = drawn(word)
    image = b"/Type /XObject /Subtype /Image /Width %d /Height %d /BitsPerComponent 8 /ColorSpace /DeviceGray /Filter /FlateDecode"
    return pdf(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R >>",
            2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /XObject << /I 5 0 R >> >> >>",
            4: stream(b"q 150 0 0 %d 72 500 cm /I Do Q" % (150 * height // width)),
            5: stream(zlib.compress(grey), image % (width, height)),
        }
    )


@pytest.mark.parametrize("kind", ["png", "pdf"])
async def test_the_text_in_a_picture_is_read_where_tesseract_has_data_and_else_the_way_to_it_is_shown(tmp_path: Path, kind: str) -> None:
    # TESSDATA_PREFIX of the person who runs this counts, as it does for ragline.
    settings = load_settings().settings.reading
    reader = FileReader(settings.model_copy(update={"workers": 1}))
    path = tmp_path / f"a.{kind}"
    await asyncio.to_thread(path.write_bytes, (picture if kind == "png" else scan)("TITLE"))
    try:
        assert "TITLE" in (await reader.read(str(path))).text
    except ReadError as failure:
        missing = {"png": "it is an image, and there is no text recognition here", "pdf": "it holds no text, only images or drawings"}
        assert failure.message == missing[kind] and "tesseract-ocr-eng" in failure.hint and "reading.ocr_data_dir" in failure.hint
    finally:
        await reader.close()


async def test_a_language_without_data_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "eng.traineddata").write_bytes(b"")
    reader = FileReader(ReadingSettings(workers=1, ocr_data_dir=tmp_path, ocr_language="eng+tlh"))
    try:
        assert "no text recognition" in await outcome_of_bytes(reader, tmp_path / "a.png", picture("TITLE"))
    finally:
        await reader.close()
