"""How values become what a database can keep, and what is refused before it gets there.

Every adapter checks with these, so that a value is good or bad on all of them alike.
"""

from __future__ import annotations

import codecs
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ragline.errors import CorruptionError, InputError
from ragline.storage.base import DocumentWrite
from ragline.types import Float16, Heading, Layout, Metadata

# The lowest level packs English prose to 45 % at 100 MB/s; the default saves another 7 % and takes three times as long.
_COMPRESSION_LEVEL = 1

_WINDOW_BYTES = 1 << 20

_MAX_NESTING = 100  # of lists and mappings in metadata; Python's JSON gives up somewhere below 1000, wherever the stack stands


def text_fault(text: str) -> str:
    """What keeps `text` from being stored ("a NUL character", "half a surrogate pair"), or ""."""
    if "\0" in text:
        return "a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "half a surrogate pair (a character that no encoding can write)"
    return ""


def check_text(text: str, what: str) -> None:
    """Refuses a text that cannot be stored.

    Raises:
        InputError: The message names `what`.
    """
    if fault := text_fault(text):
        raise InputError(f"{what} contains {fault}", hint="remove that character, or decode the bytes with the right encoding")


def check_document(document: DocumentWrite) -> None:
    """Refuses a document version that cannot be stored whole.

    Raises:
        InputError: The message names the document and what is wrong with it.
    """
    if not document.id:
        raise InputError("a document has an empty id", hint="give it an id, or None to have one made")
    check_text(document.id, f"the document id {document.id!r}")
    check_text(document.source or "", f"the source {document.source!r} of document {document.id!r}")
    check_text(document.media_type, f"the media type of document {document.id!r}")
    check_text(document.text, f"the text of document {document.id!r}")
    for heading in document.layout.headings:
        check_text(heading.title, f"a heading of document {document.id!r}")
    check_chunks(document)


def check_chunks(document: DocumentWrite) -> None:
    """Refuses chunks that cannot be stored, or that lack a passage hash.

    Raises:
        InputError: The message names the document and the chunk.
    """
    if len(document.chunks) != len(document.passage_hashes):
        raise InputError(
            f"document {document.id!r} has {len(document.chunks)} chunks but {len(document.passage_hashes)} passage hashes",
            hint="give one hash for each chunk",
        )
    for ordinal, chunk in enumerate(document.chunks):
        check_text(chunk.text, f"chunk {ordinal} of document {document.id!r}")
        check_text(chunk.heading, f"the heading of chunk {ordinal} of document {document.id!r}")


def check_spans(document: DocumentWrite) -> None:
    """Refuses chunks that are not what stands at their span of the document's text.

    Raises:
        InputError: The message names the document and the chunk.
    """
    for ordinal, chunk in enumerate(document.chunks):
        if not 0 <= chunk.start <= chunk.end or document.text[chunk.start : chunk.end] != chunk.text:
            raise InputError(
                f"chunk {ordinal} of document {document.id!r} is not what stands at {chunk.start}:{chunk.end} of its text",
                hint="spans count code points of the stored text",
            )


def metadata_to_json(document_id: str, metadata: Metadata) -> str:
    """The metadata as JSON text, keys in their order.

    Raises:
        InputError: A value is not JSON (NaN and infinity are not); the message names its key.
    """
    for key, value in metadata.items():
        fault = _json_fault(key) or _json_fault(value) if isinstance(key, str) else "its name is not a string"
        if fault:
            raise InputError(
                f"metadata {key!r} of document {document_id!r} cannot be stored: {fault}",
                hint="use strings, finite numbers, booleans, None, and lists or mappings of these",
            )
    return json.dumps(metadata if isinstance(metadata, dict) else dict(metadata), ensure_ascii=False, separators=(",", ":"))


def _json_fault(value: Any, depth: int = 0) -> str:
    """Why `value` is not JSON, or ""."""
    if depth > _MAX_NESTING:
        return f"it is nested more than {_MAX_NESTING} levels deep"
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, str):
        return (fault := text_fault(value)) and f"it contains {fault}"
    if isinstance(value, int):
        return "" if value.bit_length() <= 1024 else "the number is too large"
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{value} is not a JSON number"
    if isinstance(value, (list, tuple)):
        return next(filter(None, (_json_fault(each, depth + 1) for each in value)), "")
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            return "a key in it is not a string"
        return next(filter(None, (_json_fault(each, depth + 1) for each in (*value.keys(), *value.values()))), "")
    return f"{type(value).__name__} is not a JSON type"


def layout_to_json(layout: Layout) -> str:
    """The layout as compact JSON text."""
    headings = [[heading.start, heading.end, heading.level, heading.title] for heading in layout.headings]
    return json.dumps([headings, layout.pages], ensure_ascii=False, separators=(",", ":"))


def layout_from_json(text: str) -> Layout:
    """What `layout_to_json` wrote."""
    headings, pages = json.loads(text)
    return Layout(headings=tuple(Heading(*heading) for heading in headings), pages=tuple(pages))


def compress(text: str) -> bytes:
    """The text as compressed UTF-8."""
    return zlib.compress(text.encode(), _COMPRESSION_LEVEL)


def decompress(document_id: str, blob: bytes) -> str:
    """What `compress` wrote.

    Raises:
        CorruptionError: The blob is damaged; the message names the document.
    """
    try:
        return zlib.decompress(blob).decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise _damaged(document_id) from error


def decompress_slices(document_id: str, blob: bytes, spans: Sequence[tuple[int, int]]) -> list[str]:
    """What stands at each `(start, end)` of the text that `compress` wrote. Never holds more of the text than a window.

    Raises:
        CorruptionError: The blob is damaged before the end of the last span; the message names the document.
    """
    found: list[list[str]] = [[] for _ in spans]
    furthest = max((end for _, end in spans), default=0)
    inflate, decode = zlib.decompressobj(), codecs.getincrementaldecoder("utf-8")()
    position = 0
    try:
        while position < furthest and not inflate.eof:
            piece = decode.decode(inflate.decompress(blob, _WINDOW_BYTES))
            if not piece and not inflate.unconsumed_tail:
                break
            blob = inflate.unconsumed_tail
            for (start, end), parts in zip(spans, found, strict=True):
                parts.append(piece[max(0, start - position) : max(0, end - position)])
            position += len(piece)
    except (zlib.error, UnicodeDecodeError) as error:
        raise _damaged(document_id) from error
    if position < furthest and not inflate.eof:
        raise _damaged(document_id)
    return ["".join(parts) for parts in found]


def _damaged(document_id: str) -> CorruptionError:
    return CorruptionError(
        f"the stored text of document {document_id!r} is damaged", hint="ingest the document again, or restore the store from a backup"
    )


def embedder_to_json(embedder: Mapping[str, str]) -> str:
    """How to open the embedder again, as JSON text."""
    return json.dumps(dict(embedder), ensure_ascii=False, separators=(",", ":"))


def vector_blobs(hashes: Sequence[bytes], vectors: Float16) -> list[tuple[bytes, bytes]]:
    """Each hash with the bytes of its vector, little-endian.

    Raises:
        InputError: Not `(n, dimension)` float16 with one hash each, or a value is not finite.
    """
    if vectors.ndim != 2 or vectors.dtype != np.float16 or len(vectors) != len(hashes):
        raise InputError(
            f"expected ({len(hashes)}, dimension) float16 vectors, got {vectors.shape} {vectors.dtype}",
            hint="give one vector for each hash",
        )
    if not np.isfinite(vectors).all():
        raise InputError("a vector holds NaN or infinity", hint="check the embedding model: a text gave numbers that float16 cannot hold")
    little_endian = np.ascontiguousarray(vectors, dtype="<f2")
    return [(key, vector.tobytes()) for key, vector in zip(hashes, little_endian, strict=True)]


def storable(texts: Iterable[str]) -> tuple[str, ...]:
    """Those of `texts` that could be in a store at all, each once, in order."""
    return tuple(text for text in dict.fromkeys(texts) if not text_fault(text))
