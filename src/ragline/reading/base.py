"""Where does the text come from? Values that reading hands on."""

from __future__ import annotations

from dataclasses import dataclass, field

from ragline.types import Layout, Metadata


@dataclass(frozen=True, slots=True)
class ReadText:
    """The text of one source.

    Attributes:
        text: Without NUL and lone surrogates, every line break a line feed; never blank.
        layout: Its headings and pages.
        metadata: What the file says of itself (title, author, created, ...); JSON values.
        media_type: For example "text/markdown", "application/pdf".
    """

    text: str
    layout: Layout = Layout()
    metadata: Metadata = field(default_factory=dict)
    media_type: str = "text/plain"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to read.

    Attributes:
        path: As the operating system needs it.
        uri: Its absolute `file://` URI, symbolic links resolved: the document's identity.
        source: What people are shown: the path as they gave it, or relative to the working folder.
        signature: Size, times and inode; equal again, the bytes are taken as unchanged.
    """

    path: str
    uri: str
    source: str
    signature: str
