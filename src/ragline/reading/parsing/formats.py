"""What is in a file? By its content first, by its name second."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from typing import BinaryIO

PLAIN = "text/plain"
MARKDOWN = "text/markdown"
RST = "text/x-rst"
ORG = "text/x-org"
CSV = "text/csv"
TSV = "text/tab-separated-values"
HTML = "text/html"
MAIL = "message/rfc822"
EPUB = "application/epub+zip"
PDF = "application/pdf"
SOURCE_CODE = "text/x-source"
ENCRYPTED = "application/x-encrypted-office"
UNKNOWN_CONTAINER = "application/octet-stream"
MAILBOX = "application/mbox"
ZIP = "application/zip"
TAR = "application/x-tar"
GZIP = "application/gzip"
BZIP2 = "application/x-bzip2"
XZ = "application/x-xz"
SEVEN_ZIP = "application/x-7z-compressed"
RAR = "application/vnd.rar"
ZSTD = "application/zstd"

ARCHIVES = frozenset({ZIP, TAR, GZIP, BZIP2, XZ})
CONTAINERS = ARCHIVES | {MAIL, MAILBOX}
UNREAD = {
    UNKNOWN_CONTAINER: "an office file or archive of a kind that",
    SEVEN_ZIP: "a 7z archive, which",
    RAR: "a RAR archive, which",
    ZSTD: "a Zstandard file, which",
}
"""Types that are known and not read, and what to call them before "ragline does not read"."""

_OFFICE = "application/vnd.openxmlformats-officedocument."
DOCX = _OFFICE + "wordprocessingml.document"
_OPEN_DOCUMENT = "application/vnd.oasis.opendocument."
JSON = "application/json"
ODT = _OPEN_DOCUMENT + "text"
NOTEBOOK = "application/x-ipynb+json"
SLIDES = frozenset({_OFFICE + "presentationml.presentation", _OFFICE + "presentationml.slideshow"})

_BY_SUFFIX = {
    "txt": PLAIN, "text": PLAIN, "log": PLAIN, "md": MARKDOWN, "markdown": MARKDOWN, "mdx": MARKDOWN, "qmd": MARKDOWN,
    "csv": CSV, "tsv": TSV, "tab": TSV, "html": HTML, "htm": HTML, "xhtml": HTML, "eml": MAIL, "mht": MAIL,
    "mhtml": MAIL, "mbox": MAILBOX, "mbx": MAILBOX, "epub": EPUB, "pdf": PDF, "docx": DOCX,
    "zip": ZIP, "tar": TAR, "gz": GZIP, "tgz": GZIP, "bz2": BZIP2, "tbz": BZIP2, "tbz2": BZIP2, "xz": XZ, "txz": XZ,
    "pptx": _OFFICE + "presentationml.presentation",
    "ppsx": _OFFICE + "presentationml.slideshow",
    "xlsx": _OFFICE + "spreadsheetml.sheet",
    "xlsm": "application/vnd.ms-excel.sheet.macroEnabled.12", "xlsb": "application/vnd.ms-excel.sheet.binary.macroEnabled.12",
    "ipynb": NOTEBOOK,
    "doc": "application/msword", "ppt": "application/vnd.ms-powerpoint", "xls": "application/vnd.ms-excel",
    "msg": "application/vnd.ms-outlook",
    "odt": ODT, "ods": _OPEN_DOCUMENT + "spreadsheet",
    "rtf": "application/rtf", "rst": RST, "org": ORG,
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "tif": "image/tiff", "tiff": "image/tiff",
    "bmp": "image/bmp", "gif": "image/gif", "webp": "image/webp",
}  # fmt: skip

_TEXT_SUFFIXES = {
    JSON: "json jsonl ndjson geojson",
    "application/yaml": "yaml yml",
    "application/toml": "toml",
    "application/xml": "xml xsd xsl rss atom",
    "application/x-tex": "tex bib",
    PLAIN: "adoc asciidoc cfg conf ini properties srt vtt textile wiki mediawiki",
    SOURCE_CODE: (
        "py pyi js mjs cjs jsx ts tsx c h cc cpp cxx hh hpp cs java kt kts scala go rs rb php pl pm swift m mm lua r jl hs ml mli clj"
        " ex exs erl dart f90 f95 for pas vb sql sh bash zsh fish ps1 bat css scss sass less vue svelte proto graphql tf gradle cmake"
    ),
}
for _media_type, _suffixes in _TEXT_SUFFIXES.items():
    _BY_SUFFIX.update(dict.fromkeys(_suffixes.split(), _media_type))

_EXTENSIONS: dict[str, str] = {}
for _suffix, _media_type in _BY_SUFFIX.items():
    if _media_type not in (PLAIN, SOURCE_CODE):
        _EXTENSIONS.setdefault(_media_type, _suffix)

ZIPPED = frozenset(_BY_SUFFIX[kind] for kind in ("docx", "pptx", "ppsx", "xlsx", "xlsm", "xlsb", "epub", "odt", "ods"))
_IN_OLE = frozenset(_BY_SUFFIX[kind] for kind in ("doc", "ppt", "xls", "msg"))
SHEETS = frozenset(_BY_SUFFIX[kind] for kind in ("xlsx", "xlsm", "xlsb", "xls", "ods"))
_PARSED_TEXTS = frozenset({HTML, MAIL, MAILBOX, NOTEBOOK})
_BINARY_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF87a", "image/gif"), (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"), (b"MM\0*", "image/tiff"), (b"{\\rtf", "application/rtf"),
    (b"\x1f\x8b", GZIP), (b"BZh", BZIP2), (b"\xfd7zXZ\0", XZ), (b"7z\xbc\xaf\x27\x1c", SEVEN_ZIP), (b"Rar!\x1a\x07", RAR),
    (b"\x28\xb5\x2f\xfd", ZSTD),
)  # fmt: skip
_ZIP, _EMPTY_ZIP, _OLE = b"PK\x03\x04", b"PK\x05\x06", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")  # the first block, or the end where there is none
# Possessive, as these run in the engine's process: comments can be told apart in 2^n ways, which a hostile file has tried out.
_MAILBOX_START = re.compile(rb"From \S++ (?=[^\n]*\d\d:\d\d)[^\n]*+\n[A-Za-z-]+:")
_HTML_START = re.compile(
    rb"\s*+(?:<\?xml[^>]*+>\s*+)?+(?:<!--.*?-->\s*+)*+<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_OLE_STREAMS = (
    ("WordDocument", "application/msword"), ("PowerPoint Document", "application/vnd.ms-powerpoint"),
    ("Workbook", "application/vnd.ms-excel"),
    ("__properties_version1.0", "application/vnd.ms-outlook"), ("EncryptedPackage", ENCRYPTED),
)  # fmt: skip
_SAFE_SUFFIXES = re.compile(r"(?:\.[A-Za-z0-9]{1,12}){1,2}\Z")
HEAD_BYTES = 8192


def suffix(name: str) -> str:
    """The extension of a file name in lower case, without its dot; "" for none."""
    return os.path.splitext(name)[1][1:].lower()


def safe_suffixes(name: str) -> str:
    """The last two extensions of a file name, such as ".tar.gz", if nothing but letters and digits is in them; else the last, or ""."""
    found = _SAFE_SUFFIXES.search(name)
    return found[0].lower() if found else ""


def by_name(name: str) -> str | None:
    """The media type that a file's name promises, or None for a name that ragline does not know."""
    return _BY_SUFFIX.get(suffix(name))


def extension_of(media_type: str) -> str:
    """An extension of files of this media type, without its dot; "" for a type that ragline does not know, or that says little."""
    return _EXTENSIONS.get(media_type, "")


def is_plain(media_type: str) -> bool:
    """Whether a file of this type is read as the text that it is, without a parser."""
    known_text = media_type.startswith("text/") or media_type in _TEXT_SUFFIXES
    return known_text and media_type not in _PARSED_TEXTS


def by_content(head: bytes, name: str) -> str | None:
    """The media type of a file from its first bytes, then from its name; None where neither tells.

    A ZIP or OLE file is told further by `inside`.
    """
    promised = by_name(name)
    media_type = _by_magic(head, promised)
    if media_type is not None:
        return media_type
    if promised is None and _MAILBOX_START.match(head):
        return MAILBOX
    if (promised is None or promised == PLAIN or not promised.startswith("text/")) and _HTML_START.match(head):
        return HTML
    if promised is not None:
        # A .doc or .xls without the magic of its kind is a text that some program gave that name.
        return PLAIN if promised != PDF and is_binary(promised) and looks_like_text(head) else promised
    return PLAIN if looks_like_text(head) else None


def _is_pdf(head: bytes, promised: str | None) -> bool:
    """Whether it begins as a PDF does; junk before is allowed (ISO 32000, annex H), a text that speaks of PDFs is none."""
    return head.startswith(b"%PDF-") or (b"%PDF-" in head[:1024] and (promised == PDF or not looks_like_text(head)))


def is_tar(head: bytes) -> bool:
    """Whether these are the first bytes of a tar archive (POSIX and GNU; older ones cannot be told)."""
    return head[257:262] == b"ustar"


def may_read(name: str) -> bool:
    """Whether a file of this name can be of a type that is read: a known extension, or none, when its content tells."""
    return by_name(name) is not None or not suffix(name)


def _by_magic(head: bytes, promised: str | None) -> str | None:
    if head.startswith((_ZIP, _EMPTY_ZIP)):
        return promised if promised in ZIPPED else ZIP
    if head.startswith(_OLE):
        return promised if promised in _IN_OLE or promised in ZIPPED else UNKNOWN_CONTAINER
    if is_tar(head):
        return TAR
    if _is_pdf(head, promised):
        return PDF
    for magic, media_type in _BINARY_MAGIC:
        if head.startswith(magic) and (media_type != BZIP2 or head[4:10] in _BZIP2_BLOCKS):
            return media_type
    if head[:2] == b"BM" and promised == "image/bmp":
        return promised
    return "image/webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def is_binary(media_type: str) -> bool:
    """Whether a file of this type can never be a plain text."""
    return not is_plain(media_type) and media_type not in _PARSED_TEXTS


def inside(file: BinaryIO, media_type: str) -> str:
    """The media type of a ZIP or OLE file from what it holds; `media_type` where that does not tell.

    Runs in the parser process: the directory of an archive can be hostile as well.
    """
    file.seek(0)
    head = file.read(len(_OLE))
    if head.startswith((_ZIP, _EMPTY_ZIP)):
        return _inside_zip(file, media_type)
    if head == _OLE:
        file.seek(0)
        directory = file.read(4 * 1024**2)
        for stream, kind in _OLE_STREAMS:
            if stream.encode("utf-16-le") in directory:
                return kind
    return media_type


def _inside_zip(file: BinaryIO, media_type: str) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 200:
                declared = archive.read("mimetype").decode("ascii", "replace").strip()
                return declared if declared in ZIPPED else UNKNOWN_CONTAINER
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError, zlib.error):
        return media_type
    if "[Content_Types].xml" not in names:
        return ZIP
    for folder, kind in (("word/", "docx"), ("ppt/", "pptx"), ("xl/", "xlsx")):
        if any(name.startswith(folder) for name in names):
            return _BY_SUFFIX[kind]
    return media_type if media_type in ZIPPED else UNKNOWN_CONTAINER


def looks_like_text(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a text: hardly a control character among them."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    head = head.rstrip(b"\x1a")  # with which texts end under DOS
    return bool(head) and (sum(map(head.count, _CONTROLS)) - len(_OVERSTRUCK.findall(head))) * 100 <= len(head)


_OVERSTRUCK = re.compile(rb"[^\x00-\x1f\x7f]\x08(?=[^\x00-\x1f\x7f])")
_CONTROLS = [bytes([code]) for code in (*range(9), *range(14, 27), *range(28, 32), 127)]
HINT = "ragline reads text, Markdown, source code, CSV, HTML, PDF, office files, e-mail, EPUB, images, and ZIP and tar archives of these"
TOOL_FOLDERS = frozenset(
    {".git", ".hg", ".svn", "__pycache__", "node_modules", ".venv", ".tox", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
)
"""Names of folders whose files are made by tools and are not documents."""
