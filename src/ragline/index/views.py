"""The views of one scope in this process: what searches see, and the jobs that change it.

Nothing here has a colour: `follower` decides when a job runs, one at a time, on the one thread that changes views.
What takes long (training, loading, applying to views that nobody searches yet) is done before searches are kept out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pyroaring import BitMap64

from ragline.concurrency.locks import ReadWriteLock
from ragline.index.attributes import AttributeIndex
from ragline.index.lexical import LexicalIndex
from ragline.index.snapshot import load_snapshot, save_snapshot
from ragline.index.vectors import VectorIndex
from ragline.settings import IndexSettings
from ragline.storage.base import Changes, Head
from ragline.types import Float16, Int64, Scope

SNAPSHOT_ROWS = 10_000
"""Changed rows after which a snapshot is worth its writing; a tenth of the collection where that is more."""

CHECKED_ROWS = 1000
"""Of more rows than this that have died meanwhile, some are taken to be missing without a look."""

_epochs = itertools.count(1)
"""Of the whole process, so that views let go and loaded again never come back to an epoch they had."""


class ScopeViews:
    """The views of one scope. Search under `reading()`; only the follower changes them.

    Attributes:
        lsn: The log position all views stand at; -1 until they are loaded.
        epoch: Rises when results may change without a new LSN (retraining, a new lexical generation).
        model: Fingerprint of the vectors' model; "" while there is none.
        dense: None while there is no vector.
        lexical: None while no indexer has written one.
        torn: Whether a document may be missing that was replaced while its old version was on its way here: its
            row was gone from the store, and the new one is beyond `lsn`.
        changed_rows: Rows that came or went since the snapshot on disk.
        snapshot_lsn: Where the snapshot on disk stands; 0 where none is of use.
        retired: Let go; whoever still holds these views may finish a search and needs others then.
    """

    def __init__(self, scope: Scope, folder: Path, settings: IndexSettings, incarnation: str) -> None:
        self.scope = scope
        self.folder = folder
        self.lsn = -1
        self.epoch = 0
        self.model = ""
        self.dense: VectorIndex | None = None
        self.attributes = AttributeIndex()
        self.lexical: LexicalIndex | None = None
        self.torn = False
        self.changed_rows = 0
        self.snapshot_lsn = 0
        self.retired = False
        self._settings = settings
        self._incarnation = incarnation
        self._newest: LexicalIndex | None = None
        self._writable = False
        self._lock = ReadWriteLock()

    def at(self, head: Head) -> bool:
        """Whether all views stand at this head or beyond."""
        return self.lsn >= head.lsn and self.lexical is not None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keeps the views as they are while a search runs; from a worker thread."""
        with self._lock.reading():
            yield

    # The lexical index. Searches stay with the one they have until `publish`.

    @property
    def newest(self) -> LexicalIndex:
        """The lexical index that is written or followed."""
        assert self._newest is not None, "no lexical index was opened"
        return self._newest

    def open_writer(self) -> LexicalIndex:
        """The lexical index for the indexer to write; opened, and so checked, where it is not."""
        if not self._writable:
            self._newest = self._open_lexical(writable=True)
            self._writable = True
        return self.newest

    def begin_generation(self) -> LexicalIndex:
        """A lexical index to be filled and given to `adopt_generation`, beside the one that is searched."""
        return self.newest.begin_generation()

    def adopt_generation(self, generation: LexicalIndex) -> None:
        """Puts a filled generation in the place of the last one on disk."""
        self.newest.publish_generation(generation)
        self._newest = generation

    def look_at_lexical(self) -> int:
        """For a process that is not the indexer: reads what the indexer has committed; its LSN, -1 where there is nothing."""
        if self._newest is None:
            self._newest = self._open_lexical(writable=False)
        else:
            self._newest.prepare()
        return self._newest.lsn if self._newest is not None else -1

    def close_writer(self) -> None:
        """Lets the writer's threads and memory go until it is needed again."""
        if self._newest is not None and self._writable:
            self._newest.close_writer()

    def close_lexical(self) -> None:
        """Ends writing; what searches hold goes on answering. The next `open_writer` checks every file."""
        if self._newest is not None:
            self._newest.close()
        self._writable = False

    def _open_lexical(self, *, writable: bool) -> LexicalIndex | None:
        return LexicalIndex.open(
            self.folder / "lexical", incarnation=self._incarnation, language=self._settings.language, writable=writable
        )

    # Vectors and attributes

    def blank(self, model: str, lsn: int = 0) -> ScopeViews:
        """Views of the same scope that nobody searches, to be filled and given to `publish`."""
        blank = ScopeViews(self.scope, self.folder, self._settings, self._incarnation)
        blank.model, blank.lsn = model, lsn
        return blank

    def load(self, head: Head) -> ScopeViews:
        """The vectors and attributes of the snapshot on disk, not yet published; at LSN 0 where none is of use."""
        staged = self.blank(head.model)
        loaded = load_snapshot(
            self.folder / "memory",
            incarnation=self._incarnation,
            model=head.model,
            exact_below=self._settings.exact_below,
            rerank=self._settings.rerank,
        )
        if loaded is not None and head.oldest_lsn <= loaded[0] <= head.lsn:
            staged.lsn, staged.dense, staged.attributes = loaded
            staged.snapshot_lsn = staged.lsn
        return staged

    def save(self) -> None:
        """Writes vectors and attributes to disk. Searches may go on, changes may not."""
        save_snapshot(
            self.folder / "memory",
            lsn=self.lsn,
            incarnation=self._incarnation,
            model=self.model,
            vectors=self.dense,
            attributes=self.attributes,
        )
        self.snapshot_lsn = self.lsn
        self.changed_rows = 0

    def disown_snapshot(self) -> None:
        """Says that the snapshot on disk is of no use to these views, so that one is due."""
        self.snapshot_lsn, self.changed_rows = 0, self.changed_rows + SNAPSHOT_ROWS

    @property
    def snapshot_due(self) -> bool:
        """Whether so many rows have changed that writing them costs less than replaying them."""
        return self.changed_rows >= max(SNAPSHOT_ROWS, len(self.attributes) // 10)

    def apply(self, page: Changes) -> None:
        """Applies a page to views that nobody searches."""
        self._apply_vectors(page)
        self._apply_attributes(page)

    def publish(self, staged: ScopeViews, pages: Sequence[Changes], upto: int, gone: Int64 | None) -> None:
        """Lets searches see all views at `upto`: `staged` (these views themselves, where they only go on) with `pages`.

        Args:
            gone: Rows that died after `upto` by the time the pages were read: what does not hold all of them is torn.
                None where that is not known.
        """
        successor = self._successor(pages)
        needed = BitMap64(gone.tolist()) if gone is not None and len(gone) <= CHECKED_ROWS else None
        torn = needed is None or (self._newest is not None and not self._newest.holds(needed))
        moves = self._newest is not None and self._newest.lsn >= upto and (self.lexical is not self._newest or self._newest.is_ahead)
        if staged is self and not pages and not moves and upto == self.lsn:
            return
        with self._lock.writing():
            if staged is not self:
                self._take(staged)
            for page in pages:
                if successor is None:
                    self._apply_vectors(page)
                self._apply_attributes(page)
            if successor is not None:
                self.dense = successor
                self.epoch = next(_epochs)
            if moves:
                self._move_lexical(upto)
            if upto != self.lsn or staged is not self or moves:
                self.torn = torn or needed is None or not needed.issubset(self.attributes.live)
            self.lsn = upto

    def _take(self, staged: ScopeViews) -> None:
        self.dense, self.attributes, self.model = staged.dense, staged.attributes, staged.model
        self.changed_rows, self.snapshot_lsn = staged.changed_rows, staged.snapshot_lsn
        self.epoch = next(_epochs)

    def _move_lexical(self, upto: int) -> None:
        assert self._newest is not None
        if self._newest.is_ahead:
            self._newest.reload()
        if self.lexical is not self._newest or upto == self.lsn:
            self.epoch = next(_epochs)  # the same content in other segments: ties and scores may differ
        self.lexical = self._newest

    def _successor(self, pages: Sequence[Changes]) -> VectorIndex | None:
        """The vectors with these pages, where applying them to those that are searched would take long."""
        removed, added = sum(len(page.removed) for page in pages), sum(len(page.rows) for page in pages)
        if self.dense is None or not added + removed or not self.dense.is_outgrown_by(removed, added):
            return None
        successor = self.dense.successor()
        for page in pages:
            successor.apply(page.removed, page.rows, self._vectors_of(page))
        return successor

    def _apply_vectors(self, page: Changes) -> None:
        if self.dense is None and page.vectors.size:
            self.dense = VectorIndex(page.vectors.shape[1], exact_below=self._settings.exact_below, rerank=self._settings.rerank)
        if self.dense is not None:
            trained = self.dense.trainings
            self.dense.apply(page.removed, page.rows, self._vectors_of(page))
            if self.dense.trainings != trained:
                self.epoch = next(_epochs)

    def _vectors_of(self, page: Changes) -> Float16:
        assert self.dense is not None
        return page.vectors if page.vectors.size else np.empty((0, self.dense.dimension), np.float16)

    def _apply_attributes(self, page: Changes) -> None:
        self.attributes.apply(page.removed, page.rows, page.metadata)
        self.changed_rows += len(page.removed) + len(page.rows)
