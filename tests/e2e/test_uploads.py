"""Files with an id and metadata of their own, given to the library."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ragline.engine import Engine
from ragline.errors import InputError
from ragline.types import Document, Upload
from tests.engines import engine


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Engine]:
    async with engine(tmp_path / "data", reading={"workers": 1}) as opened:
        yield opened


async def test_an_upload_is_known_by_its_id_and_replaced_whole(opened: Engine, tmp_path: Path) -> None:
    (tmp_path / "keys.md").write_text("# Keys\n\nThey rotate every 90 days.")
    upload = Upload(tmp_path / "keys.md", id="kb/1", metadata={"lang": "en"})
    assert (await opened.ingest(upload)).added == 1
    stored = await opened.document("kb/1")
    assert (stored.source, stored.media_type, dict(stored.metadata)) == ("keys.md", "text/markdown", {"lang": "en"})
    assert (await opened.ingest(upload)).unchanged == 1
    for changed in (
        Upload(tmp_path / "keys.md", id="kb/1", metadata={"lang": "de"}),
        Upload(tmp_path / "keys.md", id="kb/1", metadata={"lang": "de"}, source="https://kb/1"),
        Upload(content=b"# Keys\n\nNever.", name="keys.md", id="kb/1", metadata={"lang": "de"}, source="https://kb/1"),
    ):
        assert (await opened.ingest(changed)).replaced == 1
        assert (await opened.ingest(changed)).unchanged == 1
    assert (await opened.document("kb/1")).version == 4
    assert [hit.heading for hit in await opened.search("never")] == ["Keys"]


async def test_an_upload_without_an_id_is_known_by_its_bytes(opened: Engine, tmp_path: Path) -> None:
    body = b"Keys rotate every 90 days."
    (tmp_path / "a.txt").write_bytes(body)
    report = await opened.ingest([Upload(tmp_path / "a.txt"), Upload(content=body, name="a.txt")])
    expected = hashlib.blake2b(body, digest_size=16).hexdigest()
    assert report.document_ids == (expected,) and (report.added, report.unchanged) == (1, 1)
    assert Document(text=body.decode()).id is None
    assert (await opened.ingest(Upload(content=body, name="b.txt"))).replaced == 1, "it says that it comes from elsewhere"


async def test_the_format_of_an_upload_comes_from_its_name_and_content(opened: Engine, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.txt", "first member")
        archive.writestr("b.html", "<p>second member</p>")
        archive.writestr("c.pdf", "torn")
    report = await opened.ingest(
        [
            Upload(content=(tmp_path / "two.zip").read_bytes(), name="two.zip", id="zip"),
            Upload(content=b"<html><body><h1>Title</h1><p>Text</p></body></html>", name="page.html", id="html"),
            Upload(content=b"a,b\n1,2\n", name="table.csv", id="csv"),
            Upload(content=b"%PDF-1.7 torn", name="torn.pdf"),
            Upload(content=b"def f():\n    return 1\n", name="code.py", id="code"),
        ]
    )
    assert report.added == 4 and [failure.source for failure in report.failed] == ["torn.pdf"]
    assert "second member" in await opened.text("zip")
    assert [skipped.source for skipped in report.skipped] == ["two.zip"] and "c.pdf" in report.skipped[0].reason
    assert (await opened.document("html")).media_type == "text/html"


async def test_a_bad_upload_fails_alone_and_says_why(opened: Engine, tmp_path: Path) -> None:
    report = await opened.ingest(
        [
            Upload(tmp_path / "missing.txt"),
            Upload(tmp_path / "missing.txt", id="b"),
            Upload(tmp_path, id="folder"),
            Upload("/dev/zero"),
            Upload(content=b"", name="empty.txt"),
            Upload(content=b"\0\1\2\3" * 100, name="what.bin"),
            Upload(content=b"text", name="a.txt", metadata={"x": float("inf")}),
            Upload(content=b"text", name="a.txt", id="bad\0id"),
            Upload(content=b"good", name="good.txt"),
        ]
    )
    assert report.added == 1 and len(report.failed) == 8
    assert all(failure.error and failure.hint for failure in report.failed)
    assert [failure.source for failure in report.failed].count("missing.txt") == 2


@pytest.mark.parametrize(
    "given",
    [{}, {"path": "a", "content": b"a"}, {"content": b"a"}, {"path": 7}, {"content": "text", "name": "a"}, {"path": "a", "metadata": []}],
    ids=repr,
)
def test_an_upload_that_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError) as refused:
        Upload(**given)
    assert refused.value.hint


async def test_an_upload_larger_than_allowed_is_reported_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_bytes(b"x" * 2000)
    async with engine(tmp_path / "data", reading={"max_file_bytes": 1000}) as opened:
        report = await opened.ingest([Upload(tmp_path / "big.txt"), Upload(content=b"x" * 2000, name="big.txt")])
    assert [("more than the 1,000 allowed" in failure.error) for failure in report.failed] == [True, True]
