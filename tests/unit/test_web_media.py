"""Content types become the extensions that the file reader knows."""

from __future__ import annotations

import pytest

from ragline.reading.web.base import PageError
from ragline.reading.web.media import charset, leads_to_no_page, suffix_for
from ragline.reading.web.urls import parse_url


@pytest.mark.parametrize(
    ("header", "path", "suffix"),
    [
        ("text/html; charset=utf-8", "/a.php", ".html"),
        ("Application/XHTML+XML", "/", ".html"),
        ("text/plain", "/README.md", ".md"),
        ("text/plain", "/readme", ".txt"),
        ("text/plain", "/x.pdf", ".txt"),
        ("text/x-python", "/x.py", ".py"),
        ("text/x-unheard-of", "/x", ".txt"),
        ("text/markdown", "/x", ".md"),
        ("application/json", "/api", ".json"),
        ("application/problem+json", "/api", ".json"),
        ("application/atom+xml", "/feed", ".xml"),
        ("application/pdf", "/download?id=1", ".pdf"),
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "/x", ".docx"),
        ("application/octet-stream", "/report.docx", ".docx"),
        ("application/octet-stream", "/download", ""),
        ("", "/page.html", ".html"),
        ("", "/page", ""),
        ("image/png", "/x", ".png"),
    ],
)
def test_types_have_extensions(header: str, path: str, suffix: str) -> None:
    assert suffix_for(header, "", parse_url("http://example.com" + path)) == suffix


@pytest.mark.parametrize("header", ["video/mp4", "audio/mpeg", "font/woff2", "image/svg+xml", "application/x-shockwave-flash", "nonsense"])
def test_types_that_are_not_read_are_refused_with_what_is(header: str) -> None:
    with pytest.raises(PageError) as caught:
        suffix_for(header, "", parse_url("http://example.com/x"))
    assert header in caught.value.message and "PDF" in caught.value.hint and caught.value.absent


def test_the_name_a_server_offers_tells_the_type() -> None:
    url = parse_url("http://example.com/download")
    assert suffix_for("application/octet-stream", 'attachment; filename="The report.DOCX"', url) == ".docx"
    assert suffix_for("application/octet-stream", "attachment; filename*=UTF-8''r%C3%A9sum%C3%A9.pdf", url) == ".pdf"
    assert suffix_for("application/octet-stream", 'attachment; filename="../../etc/passwd"', url) == ""
    assert suffix_for("application/octet-stream", 'attachment; filename="x.pdf/../../y"', url) == ""


@pytest.mark.parametrize(
    ("header", "codec"),
    [
        ("text/html; charset=UTF-8", "utf-8"),
        ('text/html;charset="iso-8859-1"', "windows-1252"),
        ("text/html; charset=latin1; x=y", "windows-1252"),
        ("text/html; charset=Shift_JIS", "cp932"),
        ("text/html; charset=iso-8859-2", "iso-8859-2"),
        ("text/html; charset=koi8-r", "koi8-r"),
        ("text/html; charset=gb2312", "gb18030"),
        ("text/html; charset=windows-874", "cp874"),
        ("text/html", None),
        ("text/html; charset=", None),
        ("text/html; charset=idna", None),
        ("text/html; charset=unicode_escape", None),
        ("text/html; charset=utf-7", None),
        ("text/html; charset=zlib", None),
    ],
)
def test_only_charsets_of_the_web_are_obeyed(header: str, codec: str | None) -> None:
    found = charset(header)
    assert found == codec
    if found is not None:
        assert b"a".decode(found) == "a"


def test_links_to_pictures_and_archives_are_known_by_their_name() -> None:
    for name in ("/x.png", "/x.JPG", "/a/x.mp4", "/x.zip", "/x.tar.gz", "/x.woff2", "/x.css", "/x.js", "/x.svg?v=1"):
        assert leads_to_no_page(parse_url("http://example.com" + name)), name
    for name in ("/", "/x", "/x.html", "/x.php?a=b.png", "/v2.0", "/x.pdf", "/x.docx", "/x.md", "/x.txt", "/x.csv"):
        assert not leads_to_no_page(parse_url("http://example.com" + name)), name
