"""The values that travel through ragline. All are frozen; none does any work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from ragline.errors import InputError

Float32: TypeAlias = NDArray[np.float32]
Float16: TypeAlias = NDArray[np.float16]
Int64: TypeAlias = NDArray[np.int64]

Metadata: TypeAlias = Mapping[str, Any]
"""JSON values by key. Strings, numbers, booleans, null and lists of these can be filtered on."""

CacheUse: TypeAlias = Literal["hit", "revalidated", "semantic", "miss", "off"]


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """Whose documents, and which of them: the unit of isolation, of the log and of every view.

    Examples:
        Scope()                      # tenant "default", collection "default"
        Scope("acme", "handbook")
    """

    tenant: str = "default"
    collection: str = "default"

    def __post_init__(self) -> None:
        for kind, name in (("tenant", self.tenant), ("collection", self.collection)):
            if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable() or name != name.strip():
                raise InputError(
                    f"{name!r} is not a usable {kind} name",
                    hint="use 1 to 200 printable characters that neither start nor end with a space",
                )


@dataclass(frozen=True, slots=True)
class Effort:
    """How much work a question may cost. What is left out, the result names in `degraded`; such results are not kept.

    Results that are known already are given whole, whatever the effort.

    Without a language model the sentences that share the question's words are quoted; where none share enough of them, the model is asked.

    Examples:
        Effort()                                    # all that the settings say
        Effort(rerank=False)                        # hits keep the order of the search: "load_no_rerank"
        Effort(rerank=False, full_depth=False)      # and each leg looks at a quarter of the candidates: "load_less_depth"
        Effort(language_model=False)                # quotations instead of a language model: "load_extractive", or
                                                    # instead of quotations chosen by meaning: "load_by_words"
    """

    rerank: bool = True
    full_depth: bool = True
    language_model: bool = True


@dataclass(frozen=True, slots=True)
class Document:
    """A text to ingest.

    Examples:
        Document(text="Keys rotate every 90 days.")                       # its id is the hash of its content
        Document(text="...", id="kb/42", source="https://kb/42", metadata={"lang": "en"})
    """

    text: str
    id: str | None = None
    source: str | None = None
    metadata: Metadata = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = {"text": str, "id": str | None, "source": str | None, "metadata": Mapping}
        _check_kinds("a document", self, kinds, hint="text, id and source are strings, metadata is a mapping")


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to ingest, with an id and metadata of its own.

    It is known by its id, or by its bytes where it has none; a path alone, by where it lies. The same again is no work.

    Attributes:
        path: The file; or else its bytes:
        content: What it holds, with a `name` whose extension tells the format where the bytes do not.
        name: What people are shown; unset takes the path's.
        source: Where it comes from; unset takes the name.

    Examples:
        Upload("reports/7.pdf", id="report-7", metadata={"year": 2025})
        Upload(content=b"# Keys...", name="keys.md")                # its id is the hash of its bytes
    """

    path: str | Path | None = None
    content: bytes | None = field(default=None, repr=False)
    name: str | None = None
    id: str | None = None
    source: str | None = None
    metadata: Metadata = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.path is None) == (self.content is None) or (self.path is None and not self.name):
            raise InputError(
                "an upload is a path, or content with a name", hint="give one of them: Upload(path) or Upload(content=, name=)"
            )
        kinds = {"path": str | Path | None, "content": bytes | None, "name": str | None, "id": str | None, "source": str | None}
        hint = "path is a string or a Path, content is bytes, name, id and source are strings, metadata is a mapping"
        _check_kinds("an upload", self, {**kinds, "metadata": Mapping}, hint=hint)

    @property
    def shown_name(self) -> str:
        """Its name, else that of its path."""
        return self.name or Path(self.path or "").name


def _check_kinds(what: str, value: object, kinds: Mapping[str, Any], *, hint: str) -> None:
    for name, kind in kinds.items():
        if not isinstance(getattr(value, name), kind):
            raise InputError(f"the {name} of {what} is a {type(getattr(value, name)).__name__}", hint=hint)


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a text: its title stands at `text[start:end]`; `level` is 1 for the outermost.

    One without a title ends what stands under the heading above it, as the end of a function does in source code.
    """

    start: int
    end: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a text has its headings and pages.

    Attributes:
        headings: In the order in which they stand.
        pages: Where page 1, 2, ... start, in code points, ascending. Empty where the text has no pages.
    """

    headings: tuple[Heading, ...] = ()
    pages: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one document version.

    Attributes:
        start, end: Code points of the document's text; `document_text[start:end] == text`.
        heading: The path of headings above it, joined by " > ", outermost first; "" for none.
        page: The page on which it starts, counted from 1; None where the document has no pages.
        token_ids: What the embedder is fed, special tokens and heading prefix included, where the
            chunker's one tokenisation can be reused (an `array`, for a tuple of ints takes nine times the memory); else
            None and the embedder tokenises `passage`.
    """

    text: str
    start: int
    end: int
    heading: str = ""
    page: int | None = None
    token_ids: Sequence[int] | None = field(default=None, compare=False, repr=False)

    @property
    def passage(self) -> str:
        """What is embedded and indexed: the heading path, a line break, the text."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """A chunk that answers a question, with why it was chosen.

    Attributes:
        chunk_id: Unique within its collection, never given again.
        score: Higher is better; compares within one result only.
        dense_score: Cosine of question and chunk, or None where that leg did not score it.
        lexical_score: BM25 of the chunk, or None where that leg did not score it.
        start, end: Where the text stands in its document, in code points.
    """

    chunk_id: int
    document_id: str
    document_version: int
    score: float
    dense_score: float | None
    lexical_score: float | None
    text: str
    source: str | None
    metadata: Metadata
    start: int
    end: int
    heading: str = ""
    page: int | None = None
    collection: str = "default"


@dataclass(frozen=True, slots=True)
class SearchResult(Sequence[ScoredChunk]):
    """The hits of one search, best first, with what they cost and how current they are.

    Attributes:
        lsn: The log position the search saw; by collection where it covered several.
        lag: How many log positions the views were behind the store; 0 is none.
        degraded: What was left out, as stable words; empty for a full answer.
        timings: `{stage}_ms` of stages that do not overlap, and `total_ms`.
        epochs: Of the views of each collection: equal LSNs and epochs, equal hits. For caches; not part of the JSON.
    """

    hits: tuple[ScoredChunk, ...]
    lsn: int | Mapping[str, int]
    lag: int = 0
    degraded: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    epochs: tuple[int, ...] = ()

    @overload
    def __getitem__(self, index: int) -> ScoredChunk: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ScoredChunk, ...]: ...
    def __getitem__(self, index: int | slice) -> ScoredChunk | tuple[ScoredChunk, ...]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[ScoredChunk]:
        return iter(self.hits)


@dataclass(frozen=True, slots=True)
class Turn:
    """Something said earlier in a conversation; `system` is what the application wishes an answer to be like.

    Examples:
        [Turn("user", "How often do keys rotate?"), Turn("assistant", "Every 90 days.")]    # before: "And who does it?"
        [Turn("system", "Answer in German, in one sentence.")]
    """

    role: Literal["user", "assistant", "system"]
    text: str

    def __post_init__(self) -> None:
        if self.role not in ("user", "assistant", "system") or not isinstance(self.text, str):
            raise InputError(
                f"a turn of {self.role!r} with a {type(self.text).__name__}",
                hint='the role is "user", "assistant" or "system", the text a string',
            )


@dataclass(frozen=True, slots=True)
class Citation:
    """A quotation that supports an answer: `document_text[start:end] == quote` in that version."""

    chunk_id: int
    document_id: str
    document_version: int
    start: int
    end: int
    quote: str
    source: str | None
    heading: str = ""
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its evidence. `found` is False, and `citations` empty, where the documents do not say.

    `[1]` in `text` is `citations[0]`.

    Attributes:
        dropped_citations: How many markers a language model made up: they named nothing that it was sent, and are not
            in `text`.
    """

    text: str
    citations: tuple[Citation, ...]
    found: bool
    hits: tuple[ScoredChunk, ...]
    lsn: int | Mapping[str, int]
    cache: CacheUse = "off"
    lag: int = 0
    degraded: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    dropped_citations: int = 0


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One step of a streamed answer.

    Kinds and their data: `hits` (SearchResult), `token` (str), `citation` (Citation), `answer` (Answer, last),
    `error` (RaglineError, last).
    """

    kind: Literal["hits", "token", "citation", "answer", "error"]
    data: Any


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Texts as vectors.

    Attributes:
        vectors: `(n, dimension)`, unit length, in the order of the texts.
        tokens: How many each text has, special ones included; an estimate where the model's tokenizer is not at hand.
    """

    model: str
    vectors: Float32
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SkippedSource:
    """A file met while walking a folder that ingest does not read."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class FailedSource:
    """A source that gave no text, why, and what to do about it."""

    source: str
    error: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What one ingest did.

    Attributes:
        added, replaced, unchanged: Documents.
        chunks: Chunks written.
        pruned: Documents deleted because their file is gone (with `prune` only).
        lag: Log positions that the local views were still behind when ingest returned; 0 is none.
        document_ids: The ids of all documents added, replaced or unchanged, in the order they were met.
    """

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    skipped: tuple[SkippedSource, ...] = ()
    failed: tuple[FailedSource, ...] = ()
    chunks: int = 0
    seconds: float = 0.0
    pruned: int = 0
    lag: int = 0
    document_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """How far an ingest has come.

    Attributes:
        sources_total: None while sources are still being looked for.
    """

    sources_done: int
    sources_total: int | None
    chunks: int
    seconds: float
    current: str = ""


@dataclass(frozen=True, slots=True)
class CollectionStatus:
    """A collection, its size, and how far its views are."""

    name: str
    documents: int
    chunks: int
    lsn: int
    view_lsn: int
    model: str
    precision: str


@dataclass(frozen=True, slots=True)
class Status:
    """What a data folder holds, and who keeps its index.

    Attributes:
        indexer: "this process", "another process" or "none".
        store_bytes, views_bytes: Sizes on disk.
    """

    data_dir: str
    incarnation: str
    collections: tuple[CollectionStatus, ...]
    indexer: str
    store_bytes: int
    views_bytes: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a health check: what was looked at, how it is, and what to do."""

    level: Literal["ok", "warning", "error"]
    what: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ReindexReport:
    """What a reindex did.

    Attributes:
        embedded: Passages embedded anew; the rest kept their vectors.
    """

    documents: int
    chunks: int
    embedded: int
    seconds: float
    model: str
    lsn: int
