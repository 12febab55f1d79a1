"""From what was read to a document version: its identity, and the hash that tells whether anything changed."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from ragline.errors import ReadError
from ragline.reading.base import FoundFile, ReadText
from ragline.reading.documents import read_text
from ragline.reading.web.base import Page
from ragline.storage.base import DocumentWrite, StoredDocument
from ragline.storage.encoding import check_document, metadata_to_json
from ragline.types import Chunk, Document, Upload

Outcome = DocumentWrite | StoredDocument
"""A version to write, or the stored one where nothing changed."""


def passage_hash(chunk: Chunk) -> bytes:
    """The key of a passage's vector: 16 bytes of BLAKE2b of what is embedded."""
    return hashlib.blake2b(chunk.passage.encode("utf-8"), digest_size=16).digest()


def file_document_id(uri: str) -> str:
    """The identity of a file's or page's document: a hash of its absolute URI."""
    return hashlib.blake2b(uri.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def document_id(source: FoundFile | Page | Document | Upload) -> str:
    """The identity of a source's document: the one given, else that of its URI, else the hash of its text or bytes.

    Reads the file of an upload that has no id. Raises ReadError where that cannot be read.
    """
    if isinstance(source, FoundFile | Page):
        return file_document_id(source.uri)
    if source.id is not None:
        return source.id
    if isinstance(source, Upload):
        return hash_upload(source)
    return content_id(source.text.encode("utf-8", "surrogatepass"))


def content_id(content: bytes) -> str:
    """The identity of a document that has no other: the hash of its bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def hash_upload(upload: Upload) -> str:
    """The hash of an upload's bytes. Raises ReadError where they cannot be read."""
    if upload.content is not None:
        return content_id(upload.content)
    with _opened(str(upload.path)) as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def hash_file(file: FoundFile) -> bytes:
    """The content hash of a file: of its bytes. Raises ReadError where they cannot be read."""
    with _opened(file.path) as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(b"file", digest_size=16)).digest()


@contextmanager
def _opened(path: str) -> Iterator[BufferedReader]:
    """A regular file for reading: one that is none could give bytes for ever."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ReadError("it is not a regular file", hint="give a file")
        with open(path, "rb") as content:
            yield content
    except (OSError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) and failure.strerror else failure
        raise ReadError(f"it cannot be read: {reason}", hint="check that it exists and that you may read it") from failure


def text_version(document: Document, id: str, known: StoredDocument | None) -> Outcome:
    """The version of a text that was handed over."""
    metadata_to_json(id, document.metadata)  # refuses what is not JSON
    metadata = json.dumps(dict(document.metadata), sort_keys=True, ensure_ascii=False)
    content_hash = _hash(b"text", document.text, document.source or "", metadata)
    if known is not None and known.content_hash == content_hash:
        return known
    return new_version(id, read_text(document.text, document.source), content_hash, document.source, dict(document.metadata))


def upload_hash(upload: Upload, id: str) -> bytes:
    """The content hash of an upload: of its bytes, source and metadata. Raises InputError where the metadata is not JSON."""
    metadata_to_json(id, upload.metadata)
    metadata = json.dumps(dict(upload.metadata), sort_keys=True, ensure_ascii=False)
    return _hash(b"upload", hash_upload(upload), upload.source or upload.shown_name, Path(upload.shown_name).suffix, metadata)


def page_version(page: Page, id: str, known: StoredDocument | None, read: ReadText) -> Outcome:
    """The version of a page: hashed by what was read from it, for the markup of many pages changes with every request."""
    metadata: dict[str, object] = {} if page.state.url == page.uri else {"url": page.state.url}
    whole = json.dumps({**read.metadata, **metadata}, sort_keys=True, ensure_ascii=False, default=str)
    content_hash = _hash(b"page", read.text, repr(read.layout), whole, read.media_type)
    if known is not None and known.content_hash == content_hash:
        return known
    return new_version(id, read, content_hash, page.source, metadata)


def new_version(id: str, read: ReadText, content_hash: bytes, source: str | None, metadata: dict[str, object]) -> DocumentWrite:
    """The document to write; what the store would refuse is refused here, where it does not take others with it."""
    write = DocumentWrite(id, read.text, content_hash, source, {**read.metadata, **metadata}, read.layout, read.media_type)
    check_document(write)
    metadata_to_json(id, write.metadata)
    return write


def _hash(kind: bytes, *parts: str) -> bytes:
    digest = hashlib.blake2b(kind, digest_size=16)
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.digest()
