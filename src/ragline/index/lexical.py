"""Finds rows by words: BM25 over passages, kept by tantivy in files of its own.

Scores are tantivy's BM25: k1 1.2, b 0.75 on padded lengths (see `lexical_analysis.PADDING_TERMS`) of which one byte is
kept. Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009); tantivy, https://github.com/quickwit-oss/tantivy.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tantivy
from pyroaring import BitMap64
from tantivy import Occur, Query, Searcher
from tantivy.tantivy import __version__ as tantivy_version

from ragline.errors import BackendError, CorruptionError
from ragline.index import lexical_files as files
from ragline.index.lexical_analysis import PADDING_TERM, normalised, padded, text_analyzer
from ragline.index.lexical_files import Commit
from ragline.types import Float32, Int64

FORMAT = 2
"""Rises when passages are analysed or stored in another way; an index of another format is rebuilt."""

MAX_TERMS = 64
"""A question with more distinct terms is searched by its rarest."""

MAX_ROW_TERMS = 10_000
"""More allowed rows than this are never searched for one by one: each takes a kilobyte while it is."""

_TIED = 12
"""So many more than wanted are asked for at first, to see a tie across the last place whole: with one more, three searches in ten were
made twice.
"""

_WRITER_HEAP_BYTES = 50_000_000
_ROW, _PASSAGE, _ANALYZER = "row", "passage", "ragline"
_SCHEMA = (
    tantivy.SchemaBuilder()
    .add_integer_field(_ROW, indexed=True, fast=True)
    .add_text_field(_PASSAGE, tokenizer_name=_ANALYZER, index_option="freq")  # no positions: there are no phrases to search
    .build()
)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A commit as it can be searched. Holds its files open, so that it outlives their deletion."""

    searcher: Searcher
    lsn: int
    deleted_fraction: float


class LexicalIndex:
    """The lexical view of one scope.

    Searches see one commit, and another only after `reload`. They may run in any thread, beside each other and
    beside everything else; all other methods are for one thread at a time. One process at a time may have it open
    for writing (the indexer); tantivy holds a file lock of its own on top, which dies with its process.

    What is damaged, or was made for another store, language, format or version of tantivy, is never opened.
    """

    def __init__(self, folder: Path, *, incarnation: str, language: str, writable: bool) -> None:
        self._folder = folder
        self._analyzer = text_analyzer(language)
        self._identity: dict[str, Any] = {"format": FORMAT, "incarnation": incarnation, "language": language, "tantivy": tantivy_version}
        self._writable = writable
        self._path = folder
        self._index: tantivy.Index | None = None
        self._verified: dict[str, str] = {}
        self._seen: files.Look = ()
        self._commit = Commit(0, 0, 0)
        self._meta = b""
        self._newest: _Snapshot
        self._served: _Snapshot
        self._writer: tantivy.IndexWriter | None = None
        self._publish_on_commit = False
        self._changed = False
        self._highest_row = -1
        self._added = BitMap64()
        self._dropped = BitMap64()

    @classmethod
    def open(cls, folder: Path, *, incarnation: str, language: str, writable: bool) -> LexicalIndex | None:
        """The index in a folder, searching its last commit.

        A writer starts afresh, at LSN 0, where there is none that can be used; other processes see that one from
        its first commit. A reader gets None there.

        Args:
            folder: Holds one scope's generations; made by a writer.
            incarnation: The store's; an index of another is not used.
            language: See `lexical_analysis.text_analyzer`.
            writable: For the indexer only.

        Raises:
            SettingsError: Unknown language.
            BackendError: The folder cannot be read or written.
        """
        index = cls(folder, incarnation=incarnation, language=language, writable=writable)
        with _backend_errors(folder):
            if writable:
                folder.mkdir(parents=True, exist_ok=True)
            try:
                usable = index._read_newest()
            except CorruptionError:
                usable = False
            if not usable and not writable:
                return None
            if usable and writable:
                index._remove_other_generations()
            elif not usable:
                index._create(publish_on_commit=True)
        index._served = index._newest
        return index

    @staticmethod
    def verify(folder: Path) -> list[str]:
        """What is wrong with the index in a folder, after reading all of it; empty where nothing is."""
        with _backend_errors(folder):
            return files.verify(folder)

    @property
    def lsn(self) -> int:
        """The log position of the newest commit that this object has made or met. Searches reach it at `reload`."""
        return self._newest.lsn

    @property
    def count(self) -> int:
        """How many rows searches see."""
        return self._served.searcher.num_docs

    @property
    def deleted_fraction(self) -> float:
        """The share of deleted documents in the newest commit: BM25's statistics still count them."""
        return self._newest.deleted_fraction

    @property
    def is_ahead(self) -> bool:
        """Whether `reload` would move searches, to a commit that was made or read already."""
        return self._newest is not self._served

    def holds(self, rows: BitMap64) -> bool:
        """Whether the newest commit has all of these rows."""
        return self._held(rows) == len(rows)

    @staticmethod
    def committed_lsn(folder: Path, *, incarnation: str, language: str) -> int:
        """The log position of the last commit in a folder, from its small files only; -1 where no index there can be used."""
        identity = {"format": FORMAT, "incarnation": incarnation, "language": language, "tantivy": tantivy_version}
        with suppress(CorruptionError, OSError):
            path = files.current_generation(folder)
            found = files.read_generation(path, identity, None) if path is not None else None
            return found.commit.lsn if found is not None else -1
        return -1

    # Searching

    def search(self, question: str, top_k: int, allowed: BitMap64 | None = None) -> tuple[Int64, Float32]:
        """The `top_k` rows of highest BM25 score that hold any of the question's words.

        Every character of the question is data; there is no query syntax. A word counts as often as it is asked
        (nDCG@10 0.597 against 0.588, the mean of six labelled sets). A question of stop words only finds nothing:
        the dense leg answers it.

        Args:
            allowed: Only these rows; then never fewer than `min(top_k, matching allowed rows)` are found, with
                the same scores as without.

        Returns:
            Rows and scores, best first, ties by row ascending.
        """
        searcher = self._served.searcher
        limit = min(top_k, searcher.num_docs if allowed is None else min(searcher.num_docs, len(allowed)))
        terms = self._terms(question, searcher) if limit > 0 else []
        if not terms:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        query = Query.boolean_query([(Occur.Should, _term_query(term, times)) for term, times in terms])
        if allowed is None:
            return _best(searcher, query, limit, limit + _TIED)
        # Measured at 5,000 to 500,000 rows: a term for each allowed row costs about 2 µs, a hit that is thrown
        # away 0.4 µs, and about limit * rows / allowed hits have to be fetched.
        if len(allowed) <= MAX_ROW_TERMS and len(allowed) ** 2 <= limit * searcher.num_docs // 4:
            chosen = [(Occur.Should, Query.term_query(_SCHEMA, _ROW, row, "basic")) for row in allowed]
            rows = Query.const_score_query(Query.boolean_query(chosen), 0.0)
            return _best(searcher, Query.boolean_query([(Occur.Must, rows), (Occur.Must, query)]), limit, limit + _TIED)
        return _best(searcher, query, limit, limit * searcher.num_docs // len(allowed) * 5 // 4 + 1, allowed)

    def _terms(self, question: str, searcher: Searcher) -> list[tuple[str, int]]:
        """The question's distinct terms and how often it has each; of too many, the rarest."""
        terms = Counter(self._analyzer.analyze(normalised(question)))
        terms.pop(PADDING_TERM, None)
        if len(terms) <= MAX_TERMS:
            return list(terms.items())
        found = [(documents, term) for term in terms if (documents := searcher.doc_freq(_PASSAGE, term))]
        return [(term, terms[term]) for _, term in sorted(found)[:MAX_TERMS]]

    # Following

    def prepare(self) -> bool:
        """Reads the newest commit of the indexer beside the one searched; whether `reload` would move searches.

        This is the part of `reload` that takes time, for callers who reload while they keep searches out.

        Raises:
            CorruptionError: What the indexer has committed is damaged. Searches stay where they are.
        """
        if not self._writable and files.look(self._folder) != self._seen:
            with _backend_errors(self._folder):
                self._read_newest()
        return self._newest is not self._served

    def reload(self) -> bool:
        """Moves searches to the newest commit; whether they moved. Raises as `prepare` does."""
        if self._newest is self._served:
            self.prepare()
        moved = self._newest is not self._served
        self._served = self._newest
        return moved

    # Writing

    def apply(self, removed: Int64, rows: Int64, passages: Sequence[str]) -> None:
        """Removes rows, then adds `(n,)` rows, ascending, with their passages. On disk with `commit`.

        Removing a row that is not held does nothing; adding one that is held replaces it.

        Raises:
            BackendError: The disk does not take it. All changes since the last commit are forgotten; they are
                to be applied again from `lsn`.
        """
        if not (removed.size or rows.size):
            return
        with self._writing() as writer:
            gone = BitMap64(removed[removed <= self._highest_row].tolist())
            gone.update(rows[rows <= self._highest_row].tolist())
            if gone:
                writer.delete_documents_by_query(Query.term_set_query(_SCHEMA, _ROW, list(gone)))
                self._added -= gone
                self._dropped |= gone
                self._changed = True
            for row, passage in zip(rows.tolist(), passages, strict=True):
                writer.add_document(tantivy.Document(row=row, passage=padded(passage)))
            if rows.size:
                self._added.update(rows.tolist())
                self._highest_row = max(self._highest_row, int(rows[-1]))
                self._changed = True

    def commit(self, lsn: int) -> None:
        """Makes all that was applied durable as the state at `lsn`. Searches of this object move at `reload`.

        Raises:
            BackendError: As `apply` does.
            CorruptionError: The index does not hold what was applied to it.
        """
        if self._changed:
            self._commit_changes(lsn)
        elif lsn != self._commit.lsn or self._publish_on_commit:
            self._commit = Commit(self._commit.opstamp, lsn, self._commit.live)
            files.write_commits(self._path, self._identity, self._commit)
            self._newest = _Snapshot(self._newest.searcher, lsn, self._newest.deleted_fraction)
        if self._publish_on_commit:
            files.publish(self._path)
            self._publish_on_commit = False
            self._remove_other_generations()

    def close_writer(self) -> None:
        """Lets the writer's threads and memory go, after merges under way; the next `apply` opens it again.

        What was applied and not committed is forgotten.
        """
        # Waiting matters: a merge that ends after the writer is gone could replace the next writer's meta.json.
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(ValueError, OSError):
                writer.wait_merging_threads()
        self._added, self._dropped, self._changed = BitMap64(), BitMap64(), False

    def close(self) -> None:
        """Ends writing. Searches that still hold this object are answered as before. Twice is harmless."""
        self.close_writer()
        self._writable = False

    def begin_generation(self) -> LexicalIndex:
        """A fresh index beside this one, at LSN 0, to be filled, committed and given to `publish_generation`."""
        incarnation, language = self._identity["incarnation"], self._identity["language"]
        fresh = LexicalIndex(self._folder, incarnation=incarnation, language=language, writable=True)
        with _backend_errors(self._folder):
            fresh._create(publish_on_commit=False)
        fresh._served = fresh._newest
        return fresh

    def publish_generation(self, new: LexicalIndex) -> None:
        """Puts a generation begun here in this one's place, and deletes this one's files.

        Use `new` from now on, after `new.reload()`. This object only finishes searches. Readers in other
        processes go on with the old files until they reload.
        """
        with _backend_errors(self._folder):
            files.publish(new._path)
            self._writer = None  # ends merges under way: nobody needs them
            self.close()
            new._remove_other_generations()

    # Below the surface

    def _create(self, *, publish_on_commit: bool) -> None:
        self._path = files.next_generation(self._folder)
        self._path.mkdir()
        self._index = self._configured(tantivy.Index(_SCHEMA, path=str(self._path)))
        self._identity = {**self._identity, "schema": files.schema_checksum(self._path)}
        self._commit = Commit(0, 0, 0)
        files.write_commits(self._path, self._identity, self._commit)
        self._newest = _Snapshot(self._index.searcher(), 0, 0.0)
        self._publish_on_commit = publish_on_commit

    def _configured(self, index: tantivy.Index) -> tantivy.Index:
        index.register_tokenizer(_ANALYZER, self._analyzer)
        index.config_reader("manual")
        return index

    def _read_newest(self) -> bool:
        """Makes the newest commit on disk `_newest`; False where there is no index of this identity."""
        seen = files.look(self._folder)
        found = files.consistently(self._folder, self._load_current)
        self._seen = seen
        return found

    def _load_current(self) -> bool:
        path = files.current_generation(self._folder)
        if path is None:
            return False
        generation = files.read_generation(path, self._identity, self._verified)
        if generation is None:
            return False
        if path == self._path and self._index is not None:
            if (generation.meta, generation.commit) == (self._meta, self._commit):
                return True  # the indexer has stated a commit and not made it yet
            index = self._index
            index.reload()
        else:
            index = self._configured(tantivy.Index.open(str(path)))
        if (path / files.META).read_bytes() != generation.meta:  # tantivy may have read either
            raise CorruptionError(f"{path / files.META} changed while it was read")
        self._path, self._index, self._identity = path, index, dict(generation.identity)
        self._stand_at(generation)
        return True

    def _stand_at(self, generation: files.Generation) -> None:
        assert self._index is not None
        self._commit, self._meta = generation.commit, generation.meta
        self._newest = _Snapshot(self._index.searcher(), generation.commit.lsn, generation.deleted_fraction)

    def _stand_at_last_commit(self) -> None:
        """For the writer, which need not check its own segment files. A merge may end at any moment and replace them."""
        assert self._index is not None
        self._index.reload()
        generation = files.settled(self._path, lambda: files.read_generation(self._path, self._identity, None))
        assert generation is not None
        self._stand_at(generation)

    @contextmanager
    def _writing(self) -> Iterator[tantivy.IndexWriter]:
        """The writer, opened where it is not. Where the work with it fails, all falls back to the last commit."""
        assert self._index is not None and self._writable, "opened for reading, or closed"
        try:
            with _backend_errors(self._path):
                if self._writer is None:
                    files.remove_orphans(self._path)
                    self._writer = self._index.writer(_WRITER_HEAP_BYTES, 1)
                    hits = self._newest.searcher.search(Query.all_query(), 1, False, order_by_field=_ROW).hits
                    self._highest_row = hits[0][0] if hits else -1
                yield self._writer
        except BaseException:
            self.close_writer()
            with suppress(CorruptionError, OSError, ValueError):  # a commit that failed late may stand
                self._stand_at_last_commit()
            raise

    def _commit_changes(self, lsn: int) -> None:
        with self._writing() as writer:
            expected = self._commit.live + len(self._added) - self._held(self._dropped)
            files.write_commits(self._path, self._identity, self._commit, Commit(None, lsn, expected))
            writer.commit()
            self._stand_at_last_commit()
        self._added, self._dropped, self._changed = BitMap64(), BitMap64(), False

    def _held(self, rows: BitMap64) -> int:
        """How many of the rows the newest commit holds."""
        if not rows:
            return 0
        query = Query.term_set_query(_SCHEMA, _ROW, list(rows))
        return len(self._newest.searcher.search(query, len(rows), count=False).hits)

    def _remove_other_generations(self) -> None:
        for path in files.generations(self._folder):
            if path != self._path:
                shutil.rmtree(path, ignore_errors=True)


def _term_query(term: str, times: int) -> Query:
    query = Query.term_query(_SCHEMA, _PASSAGE, term, "freq")
    return query if times == 1 else Query.boost_query(query, times)


def _best(searcher: Searcher, query: Query, limit: int, fetch: int, allowed: BitMap64 | None = None) -> tuple[Int64, Float32]:
    """The `limit` best hits, ties by row: asks for `fetch`, and for more until enough are allowed and no tie is cut.

    tantivy breaks ties by where a document happens to be stored, so a tie across the last place must be seen whole.
    """
    while True:
        fetch = min(fetch, searcher.num_docs + 1)
        hits = searcher.search(query, fetch, count=False).hits
        given, addresses = zip(*hits, strict=True) if hits else ((), ())
        found = np.array(searcher.fast_field_values(_ROW, list(addresses)), dtype=np.int64)
        scores = np.array(given, dtype=np.float32)
        lowest, complete = scores[-1:], len(hits) < fetch
        if allowed is not None:
            kept = np.fromiter(map(allowed.__contains__, found.tolist()), dtype=bool, count=len(found))
            found, scores = found[kept], scores[kept]
        if complete or (len(found) >= limit and lowest[0] < scores[limit - 1]):
            order = np.lexsort((found, -scores))[:limit]
            return found[order], scores[order]
        fetch *= 4


@contextmanager
def _backend_errors(path: Path) -> Iterator[None]:
    """Translates what tantivy and the system say when files cannot be read or written."""
    try:
        yield
    except (OSError, ValueError, SystemError) as error:
        raise BackendError(
            f"the lexical index in {path} failed: {error}", hint="make room on the disk, and see that the folder may be read and written"
        ) from error
