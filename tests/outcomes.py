"""What becomes of a file that is given to a reader: text, or one clear error."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ragline.errors import ReadError
from ragline.reading.reader import FileReader
from tests.documents import paragraph, write_docx

TEXT = "text"


async def outcome(reader: FileReader, path: Path) -> str:
    """`TEXT`, or the message of the one error that is allowed."""
    try:
        read = await reader.read(str(path))
    except ReadError as failure:
        assert failure.hint, "an error without a cure"
        assert failure.message and "\n" not in failure.message and len(failure.message) < 800
        return failure.message
    assert read.text.strip()
    assert all(0 <= heading.start < heading.end <= len(read.text) for heading in read.layout.headings)
    assert all(0 <= page <= len(read.text) for page in read.layout.pages)
    return TEXT


async def outcome_of_bytes(reader: FileReader, path: Path, data: bytes) -> str:
    await asyncio.to_thread(path.write_bytes, data)
    return await outcome(reader, path)


async def is_well(reader: FileReader, tmp_path: Path) -> bool:
    return (await outcome(reader, write_docx(tmp_path / "well.docx", paragraph("Keys rotate.")))) == TEXT
