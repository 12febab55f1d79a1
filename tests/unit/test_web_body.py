"""A body is unpacked, counted and hashed as it comes."""

from __future__ import annotations

import gzip
import os
import random
import resource
from pathlib import Path

import pytest

from ragline.reading.web.base import PageError
from ragline.reading.web.body import Body


def received(
    tmp_path: Path, data: bytes, *, step: int = 1000, encoding: str | None = None, gzipped: bool = False, **limits: object
) -> Body:
    body = Body(str(tmp_path / "page.html"), gzipped=gzipped, **{"max_bytes": 1_000_000, **limits})  # type: ignore[arg-type]
    try:
        for start in range(0, len(data), step):
            body.feed(data[start : start + step])
        body.finish(encoding)
    finally:
        body.close()
    return body


def test_bytes_are_kept_as_they_came(tmp_path: Path) -> None:
    body = received(tmp_path, b"<p>one</p>" * 500)
    assert Path(body.path).read_bytes() == b"<p>one</p>" * 500 and body.size == 5000


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_gzip_is_unpacked_however_it_is_cut(tmp_path: Path, step: int) -> None:
    content = random.Random(7).randbytes(3000) + b"x" * 400_000
    packed = gzip.compress(content[:100_000]) + gzip.compress(content[100_000:]) + b"\0" * 10
    body = received(tmp_path, packed, step=step, gzipped=True)
    assert Path(body.path).read_bytes() == content


def test_a_gzip_bomb_ends_while_it_unpacks(tmp_path: Path) -> None:
    bomb = gzip.compress(b"\0" * 80_000_000, 9)
    assert len(bomb) < 1_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PageError, match="larger than 1,000,000 bytes"):
        received(tmp_path, bomb, step=len(bomb), gzipped=True)
    assert os.path.getsize(tmp_path / "page.html") <= 1_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "it was unpacked in memory"


def test_what_is_sent_is_counted_also_where_it_unpacks_to_nothing(tmp_path: Path) -> None:
    empty = gzip.compress(b"") * 100_000
    with pytest.raises(PageError, match="larger than"):
        received(tmp_path, empty, gzipped=True)


@pytest.mark.parametrize(
    "packed", [b"no gzip at all", gzip.compress(b"x" * 1000, mtime=0)[:-10], gzip.compress(b"x", mtime=0)[:5], b"\x1f\x8b"]
)
def test_damaged_gzip_is_an_error(tmp_path: Path, packed: bytes) -> None:
    with pytest.raises(PageError, match="gzip"):
        received(tmp_path, packed, gzipped=True)


def test_nothing_is_an_error_unless_it_may_be(tmp_path: Path) -> None:
    with pytest.raises(PageError, match="empty"):
        received(tmp_path, b"")
    with pytest.raises(PageError, match="empty"):
        received(tmp_path, gzip.compress(b""), gzipped=True)


def test_the_rest_is_left_out_where_that_is_wanted(tmp_path: Path) -> None:
    assert received(tmp_path, b"x" * 5000, max_bytes=1500, truncate=True).size == 1500
    assert received(tmp_path, gzip.compress(b"x" * 5_000_000), max_bytes=1500, truncate=True, gzipped=True).size == 1500


def test_the_servers_charset_is_kept_as_unicode(tmp_path: Path) -> None:
    body = received(tmp_path, "<meta charset=utf-8>żółć".encode("iso-8859-2"), encoding="iso-8859-2")
    assert Path(body.path).read_bytes().decode("utf-8-sig") == "<meta charset=utf-8>żółć"


def test_a_charset_that_the_bytes_deny_is_not_believed(tmp_path: Path) -> None:
    data = "zażółć".encode("iso-8859-2")
    assert Path(received(tmp_path, data, encoding="utf-8").path).read_bytes() == data
    marked = b"\xef\xbb\xbf" + "zażółć".encode()
    assert Path(received(tmp_path, marked, encoding="iso-8859-2").path).read_bytes() == marked


def test_the_digest_tells_bytes_and_encoding_apart(tmp_path: Path) -> None:
    digests = {received(tmp_path, data, encoding=encoding).digest for data in (b"a", b"b") for encoding in (None, "utf-8", "windows-1252")}
    assert len(digests) == 6
    assert received(tmp_path, b"ab" * 900, step=7).digest == received(tmp_path, b"ab" * 900, step=100).digest


def test_what_cannot_be_stored_is_an_error_of_the_page(tmp_path: Path) -> None:
    with pytest.raises(PageError, match="cannot be stored") as caught:
        Body(str(tmp_path / "gone" / "page.html"), gzipped=False, max_bytes=10)
    assert "TMPDIR" in caught.value.hint
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for encoding in (None, "windows-1252"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (5, before[1]))
        try:
            with pytest.raises(PageError, match="cannot be stored"):
                received(tmp_path, b"more than five bytes", encoding=encoding)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("encoding", ["shift_jis", "gb18030", "iso-2022-jp", "utf-16"])
def test_characters_that_lie_across_pieces_are_kept(tmp_path: Path, encoding: str) -> None:
    text = "a" + "\u3042\u6f22" * 200_000
    body = received(tmp_path, text.encode(encoding), encoding=encoding, step=100_000, max_bytes=5_000_000)
    content = Path(body.path).read_bytes().decode("utf-16" if encoding == "utf-16" else "utf-8-sig")
    assert content == text and sorted(os.listdir(tmp_path)) == ["page.html"]
    damaged = text.encode(encoding)[:-1] + b"\xff"
    assert Path(received(tmp_path, damaged, encoding="shift_jis", max_bytes=5_000_000).path).read_bytes() == damaged
    assert sorted(os.listdir(tmp_path)) == ["page.html"]
