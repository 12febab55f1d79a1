"""From what was read to a document version: its identity, and the hash that tells whether anything changed."""

from __future__ import annotations

import hashlib
import json

from ragline.errors import ReadError
from ragline.reading.base import FoundFile, ReadText
from ragline.reading.documents import read_text
from ragline.reading.web.base import Page
from ragline.storage.base import DocumentWrite, StoredDocument
from ragline.storage.encoding import check_document, metadata_to_json
from ragline.types import Chunk, Document

Outcome = DocumentWrite | StoredDocument
"""A version to write, or the stored one where nothing changed."""


def passage_hash(chunk: Chunk) -> bytes:
    """The key of a passage's vector: 16 bytes of BLAKE2b of what is embedded."""
    return hashlib.blake2b(chunk.passage.encode("utf-8"), digest_size=16).digest()


def file_document_id(uri: str) -> str:
    """The identity of a file's or page's document: a hash of its absolute URI."""
    return hashlib.blake2b(uri.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def document_id(source: FoundFile | Page | Document) -> str:
    """The identity of a source's document: the one given, else that of its URI, else the hash of its text."""
    if not isinstance(source, Document):
        return file_document_id(source.uri)
    if source.id is not None:
        return source.id
    return hashlib.blake2b(source.text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def hash_file(file: FoundFile) -> bytes:
    """The content hash of a file: of its bytes. Raises ReadError where they cannot be read."""
    try:
        with open(file.path, "rb") as content:
            return hashlib.file_digest(content, lambda: hashlib.blake2b(b"file", digest_size=16)).digest()
    except OSError as failure:
        raise ReadError(
            f"it cannot be read: {failure.strerror or failure}", hint="check that it exists and that you may read it"
        ) from failure


def text_version(document: Document, id: str, known: StoredDocument | None) -> Outcome:
    """The version of a text that was handed over."""
    metadata_to_json(id, document.metadata)  # refuses what is not JSON
    metadata = json.dumps(dict(document.metadata), sort_keys=True, ensure_ascii=False)
    content_hash = _hash(b"text", document.text, document.source or "", metadata)
    if known is not None and known.content_hash == content_hash:
        return known
    return new_version(id, read_text(document.text, document.source), content_hash, document.source, dict(document.metadata))


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
