"""What is it that a server sends? Content types become the file extensions that the file reader knows."""

from __future__ import annotations

import posixpath
import re
import urllib.parse

from ragline.reading.parsing import formats
from ragline.reading.parsing.encodings import codec_of
from ragline.reading.web.base import PageError
from ragline.reading.web.urls import Url

_BY_TYPE = {
    "text/html": "html", "application/xhtml+xml": "html", "application/vnd.wap.xhtml+xml": "html",
    "text/markdown": "md", "text/x-markdown": "md", "text/csv": "csv", "application/csv": "csv",
    "text/tab-separated-values": "tsv", "application/json": "json", "application/x-ndjson": "jsonl", "application/jsonl": "jsonl",
    "application/xml": "xml", "text/xml": "xml", "application/yaml": "yaml", "application/x-yaml": "yaml", "application/toml": "toml",
    "application/pdf": "pdf", "application/x-pdf": "pdf", "application/rtf": "rtf", "text/rtf": "rtf", "application/epub+zip": "epub",
    "application/javascript": "js", "application/x-javascript": "js", "application/x-tex": "tex", "application/x-sh": "sh",
    "application/sql": "sql", "message/rfc822": "eml", "image/jpg": "jpg",
}  # fmt: skip
_OFFICE = ("docx", "pptx", "ppsx", "xlsx", "xlsm", "doc", "ppt", "xls", "msg", "odt", "ods", "png", "jpg", "tif", "bmp", "gif", "webp")
_BY_TYPE |= {media_type: suffix for suffix in _OFFICE if (media_type := formats.by_name(f"x.{suffix}"))}

TEXT_SUFFIXES = frozenset({".html", ".md", ".txt", ".csv", ".tsv", ".xml", ".rst", ".org"})
"""Of texts whose encoding the server's word decides; others say themselves what they are, or are Unicode."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")

_UNTOLD = {
    "",
    "application/octet-stream",
    "binary/octet-stream",
    "application/x-download",
    "application/force-download",
    "application/download",
}
_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([A-Za-z0-9_:.+-]{1,40})""", re.IGNORECASE)
_FILE_NAME = re.compile(r"""filename\*?\s*=\s*(?:[\w-]*'[\w-]*')?"?([^";]+)""", re.IGNORECASE)
_WITHOUT_TEXT = {
    "pictures": "png jpg jpeg jpe gif webp avif svg ico bmp tif tiff psd heic",
    "sound and film": "mp3 m4a ogg oga opus wav flac aac mid midi mp4 m4v webm mov avi mkv mpg mpeg wmv flv swf",
    "archives and programs": "zip gz tgz bz2 tbz xz txz zst 7z rar tar jar war whl deb rpm dmg pkg msi exe dll so bin iso img apk ipa wasm",
    "parts of pages": "css js mjs map woff woff2 ttf otf eot",
    "signatures": "torrent sig asc sha256 md5",
}
_NO_PAGES = frozenset(" ".join(_WITHOUT_TEXT.values()).split())


def content_type(header: str) -> str:
    """The media type of a Content-Type header, in lower case; "" for none."""
    return header.partition(";")[0].strip().lower()


def charset(header: str) -> str | None:
    """The codec for the charset of a Content-Type header; None for none, and for one that the web does not have."""
    found = _CHARSET.search(header)
    return codec_of(found[1]) if found else None


def suffix_for(header: str, disposition: str, url: Url) -> str:
    """The extension under which the file reader reads what a server sends: ".html"; "" where only the bytes can tell.

    Raises:
        PageError: It is of a type that ragline does not read.
    """
    kind, named = content_type(header), _named_suffix(disposition, url)
    if kind in _UNTOLD:
        return f".{named}" if named else ""
    if kind == "text/plain" or (kind.startswith("text/") and kind not in _BY_TYPE):
        promised = formats.by_name(f"x.{named}")
        return f".{named}" if promised and not formats.is_binary(promised) else ".txt"
    suffix = _BY_TYPE.get(kind)
    if suffix is None and kind.endswith("+json"):
        suffix = "json"
    if suffix is None and kind.endswith("+xml") and not kind.startswith("image/"):
        suffix = "xml"
    if suffix is None and kind.startswith("application/") and named:
        suffix = named  # application/zip, application/x-zip-compressed, ...: the name tells more
    if suffix is None or formats.by_name(f"x.{suffix}") is None:
        raise PageError(f"it is {kind[:80]}, which ragline does not read", hint=formats.HINT, absent=True)
    return f".{suffix}"


def leads_to_no_page(url: Url) -> bool:
    """Whether a link's name says that no text is behind it: pictures, sound, archives, styles, scripts."""
    return formats.suffix(url.path) in _NO_PAGES


def _named_suffix(disposition: str, url: Url) -> str:
    """The extension of the name that the server or the URL gives it, if it is one that ragline reads; else ""."""
    offered = _FILE_NAME.search(disposition)
    for name in (offered[1] if offered else "", url.path):
        suffix = formats.suffix(posixpath.basename(urllib.parse.unquote(name.strip())))
        if re.fullmatch(r"[a-z0-9]{1,12}", suffix) and formats.by_name(f"x.{suffix}") is not None:
            return suffix
    return ""
