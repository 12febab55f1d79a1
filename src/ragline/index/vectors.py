"""Finds rows by vector: exactly while they are few, then through compressed codes and an exact rescoring.

The codes are 4-bit product quantisation, scanned with SIMD table look-ups: Jégou, Douze and Schmid, "Product
quantization for nearest neighbor search" (2011); André, Kermarrec and Le Scouarnec, "Cache locality is not enough:
high-performance nearest neighbor search with product quantization fast scan" (2015). With one list every code is
looked at, so nothing depends on how the data clusters, and codes can be removed and filtered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap64

from ragline.errors import InputError
from ragline.index.scans import ExactScan, QuantisedScan, exact_nearest, pin_openmp, sub_dimension
from ragline.index.stored_vectors import StoredVectors
from ragline.types import Float16, Float32, Int64

Nearest: TypeAlias = Callable[[int], tuple[Float32, Int64]]

_LEAST_TRAINING_ROWS = 64
"""Fewer vectors than this (four for each of the 16 centroids) teach a quantiser nothing, whatever `exact_below` says."""

_RETRAINING_GROWTH = 4
"""A collection that has grown by this factor since its codes were trained may look quite different by now."""

_SAMPLE_ROWS = 4096
"""As many as FAISS takes for 16 centroids (256 each); more were not better at 100,000 rows."""

_GATHER_ROWS = 4096
"""So few allowed rows, or a sixty-fourth of all, are scored one by one: exact, and no slower than through the codes."""

_BATCH_ROWS = 16_384

_COMPACTION_ROWS = 4096
"""Dead vectors stay where they are until they are more than this, and half of the live ones."""


class VectorIndex:
    """A `DenseView`: the rows of highest inner product, with exact scores.

    Every score is the inner product of the float32 question and the stored float16 vector, whichever way the row
    was found, and the same bits for the same vector. With codes, a row may be missed (recall@10 about 0.999 at 160
    rescored); no score is ever approximate.

    Searches may run side by side, but not beside `apply`. Training, when the codes are first made and each time the
    collection has grown fourfold, happens within `apply`: 0.2 s, and 4 s for each million rows to encode.

    Args:
        dimension: The length of a vector.
        exact_below: With fewer live rows than this, every search is exact.
        rerank: How many rows found by code are rescored, twice as many under a filter; or four times `top_k` where
            that is more.

    Attributes:
        trainings: Rises when codes were trained: results may differ with no change of content.
    """

    def __init__(self, dimension: int, *, exact_below: int = 10_000, rerank: int = 160) -> None:
        self.dimension = dimension
        self.trainings = 0
        self._exact_below = max(exact_below, _LEAST_TRAINING_ROWS)
        self._rerank = rerank
        self._hold(StoredVectors(dimension), np.empty(0, np.int64), np.empty(0, np.bool_))
        self._scan: ExactScan | QuantisedScan = ExactScan(dimension)

    @classmethod
    def restore(
        cls,
        stored: StoredVectors,
        rows: Int64,
        alive: NDArray[np.bool_],
        codes: QuantisedScan | None,
        *,
        exact_below: int = 10_000,
        rerank: int = 160,
    ) -> VectorIndex:
        """The index of a snapshot: `stored` by position, the ascending `rows` of the positions, and which are alive."""
        index = cls(stored.dimension, exact_below=exact_below, rerank=rerank)
        index._hold(stored, rows, alive.copy())
        if codes is not None:
            index._scan = codes
            index._adapt()
        else:
            index._rescan()
        return index

    @property
    def count(self) -> int:
        """How many rows are held and not removed."""
        return self._live

    @property
    def stored(self) -> StoredVectors:
        """The vectors by position, for the snapshot."""
        return self._stored

    @property
    def rows(self) -> Int64:
        """The row of each position, ascending, dead ones too; not a copy."""
        return self._rows[: self._stored.count]

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which positions are not removed; not a copy."""
        return self._alive[: self._stored.count]

    @property
    def codes(self) -> QuantisedScan | None:
        """The codes that rows are found by; None while searches are exact."""
        return self._scan if isinstance(self._scan, QuantisedScan) else None

    def rebase(self, stored: StoredVectors) -> None:
        """Reads the same vectors from another place from now on. Searches may go on meanwhile."""
        self._stored = stored

    def apply(self, removed: Int64, rows: Int64, vectors: Float16) -> None:
        """Removes rows, then adds `(n,)` ascending rows with `(n, dimension)` float16 unit vectors.

        Removing a row that is not held does nothing; adding one that is held replaces it. Rows above all held, as
        the log gives them, are appended; others cost a rebuild.

        Raises:
            InputError: The vectors' shape does not fit.
        """
        if vectors.shape != (len(rows), self.dimension):
            raise InputError(f"vectors of shape {vectors.shape} do not fit {len(rows)} rows of dimension {self.dimension}")
        pin_openmp()
        vectors = np.ascontiguousarray(vectors, np.float16)
        self._remove(removed)
        held = self.rows
        if len(rows) and len(held) and rows[0] <= held[-1]:
            self._remove(rows)
            self._merge(rows, vectors)
        elif len(rows):
            start = self._stored.count
            self._append(rows, vectors)
            self._scan.add(np.arange(start, start + len(rows)), vectors)
        self._adapt()

    def is_outgrown_by(self, removed: int, added: int) -> bool:
        """Whether applying about so many rows would train codes or compact vectors, and so take long."""
        live, most = self._live - removed, self._live + added
        if self._stored.count - live > max(_COMPACTION_ROWS, live // 2):
            return True
        if isinstance(self._scan, QuantisedScan):
            return live < self._exact_below // 2 or most >= _RETRAINING_GROWTH * self._scan.trained_rows
        return most >= self._exact_below and sub_dimension(self.dimension) is not None

    def successor(self) -> VectorIndex:
        """The same rows with codes trained anew: to be changed while this index, which stays as it is, is searched.

        Raises:
            CorruptionError: A vector lies in a damaged block of the snapshot.
        """
        return VectorIndex.restore(self._stored.copy(), self.rows, self.alive, None, exact_below=self._exact_below, rerank=self._rerank)

    def search(self, question: Float32, top_k: int, allowed: BitMap64 | None = None) -> tuple[Int64, Float32]:
        """The `top_k` rows of highest inner product: rows and scores, best first, ties by row ascending.

        With `allowed`, only of those rows; never fewer than `min(top_k, live allowed rows)`.

        Args:
            question: `(dimension,)` float32, unit length.

        Raises:
            CorruptionError: A vector that is needed lies in a damaged block of the snapshot.
        """
        asked = self._question(question)
        if top_k <= 0 or not self._live:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        pin_openmp()
        if allowed is None:
            return self._best(self._scanner(asked, top_k, None), self._first_ask(top_k, self._rerank), top_k, self._live)
        few = max(_GATHER_ROWS, self._stored.count // 64)
        numbers = np.frombuffer(allowed.to_array(), np.int64) if allowed else np.empty(0, np.int64)
        if len(numbers) <= few:
            positions, found = self._positions(numbers)
            return self._best_of(asked, positions[found], top_k)
        mask = self._mask(numbers)
        eligible = int(np.count_nonzero(mask))
        if eligible <= few:
            return self._best_of(asked, np.flatnonzero(mask), top_k)
        # Filtered, the nearest are further away and nearer to each other: codes tell them apart less well.
        return self._best(self._scanner(asked, top_k, mask), self._first_ask(top_k, 2 * self._rerank), top_k, eligible)

    def scores(self, question: Float32, rows: Int64) -> Float32:
        """The inner products of given rows, `(n,)`; NaN for rows not held.

        Raises:
            CorruptionError: A vector that is needed lies in a damaged block of the snapshot.
        """
        asked = self._question(question)
        pin_openmp()
        scores = np.full(len(rows), np.nan, np.float32)
        positions, found = self._positions(rows)
        positions = positions[found]
        if len(positions):
            exact, order = exact_nearest(asked, self._stored.take(positions), len(positions))
            unsorted = np.empty(len(positions), np.float32)
            unsorted[order] = exact
            scores[found] = unsorted
        return scores

    def vectors(self, rows: Int64) -> Float16:
        """The stored vectors of given rows, `(n, dimension)`; zeros, which are like nothing, for rows not held.

        Raises:
            CorruptionError: A vector that is needed lies in a damaged block of the snapshot.
        """
        vectors = np.zeros((len(rows), self.dimension), np.float16)
        positions, found = self._positions(rows)
        vectors[found] = self._stored.take(positions[found])
        return vectors

    def _question(self, question: Float32) -> Float32:
        if question.shape != (self.dimension,):
            raise InputError(f"a question of shape {question.shape} was put to vectors of dimension {self.dimension}")
        if not np.isfinite(question).all():
            raise InputError("a question's vector is not made of finite numbers", hint="see what the embedding model made of it")
        return np.ascontiguousarray(question, np.float32).reshape(1, -1)

    def _first_ask(self, top_k: int, rerank: int) -> int:
        # Where scans are exact, one more than wanted shows whether the last place is shared.
        return top_k + 1 if isinstance(self._scan, ExactScan) else max(rerank, 4 * top_k)

    def _scanner(self, question: Float32, top_k: int, mask: NDArray[np.bool_] | None) -> Nearest:
        """What finds the nearest k of all live positions, or of those in `mask`, with exact scores."""
        scan, stored = self._scan, self._stored
        if isinstance(scan, ExactScan):
            return lambda k: scan.nearest(question, k, mask)
        alive = self.alive if mask is None else mask
        eligible = self._live if mask is None else int(np.count_nonzero(mask))

        def nearest(k: int) -> tuple[Float32, Int64]:
            if 2 * k < eligible:
                positions = scan.candidates(question, k, mask)
                if len(positions) >= top_k:
                    scores, order = exact_nearest(question, stored.take(positions), len(positions))
                    return scores, positions[order]
            return self._nearest_of(question, np.flatnonzero(alive), k)

        return nearest

    def _nearest_of(self, question: Float32, positions: Int64, k: int) -> tuple[Float32, Int64]:
        """The nearest k of given positions, scored one by one, in batches that bound the memory it takes."""
        found: list[tuple[Float32, Int64]] = []
        for start in range(0, len(positions), _BATCH_ROWS):
            batch = positions[start : start + _BATCH_ROWS]
            scores, order = exact_nearest(question, self._stored.take(batch), min(k, len(batch)))
            found.append((scores, batch[order]))
        if len(found) == 1:
            return found[0]
        scores, nearest = np.concatenate([part[0] for part in found]), np.concatenate([part[1] for part in found])
        order = np.lexsort((nearest, -scores))[:k]
        return scores[order], nearest[order]

    def _best_of(self, question: Float32, positions: Int64, top_k: int) -> tuple[Int64, Float32]:
        return self._best(lambda k: self._nearest_of(question, positions, k), top_k + 1, top_k, len(positions))

    def _best(self, nearest: Nearest, ask: int, top_k: int, eligible: int) -> tuple[Int64, Float32]:
        """Asks for more until no row that was left out can tie with the last one that is given."""
        wanted = min(top_k, eligible)
        if not wanted:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        ask = min(ask, eligible)
        scores, positions = nearest(ask)
        while ask < eligible and len(scores) >= wanted and scores[wanted - 1] == scores[-1]:
            ask = min(2 * ask, eligible)
            scores, positions = nearest(ask)
        if len(scores) > wanted:  # best first, so that only those which tie with the last one can still matter
            tied = np.searchsorted(-scores, -scores[wanted - 1], "right")
            scores, positions = scores[:tied], positions[:tied]
        order = np.lexsort((positions, -scores))[:wanted]
        return self._rows[positions[order]], scores[order]

    def _positions(self, rows: Int64) -> tuple[Int64, NDArray[np.bool_]]:
        """The position of each row, and whether it is held."""
        held = self.rows
        if not len(held):
            return np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_)
        positions = np.minimum(np.searchsorted(held, rows), len(held) - 1)
        return positions, (held[positions] == rows) & self._alive[positions]

    def _mask(self, allowed: Int64) -> NDArray[np.bool_]:
        """Which positions hold a live row of these ascending ones; through a table where rows are dense enough."""
        held = self.rows
        first, span = held[0], int(held[-1] - held[0]) + 1
        inside = allowed[slice(*np.searchsorted(allowed, (first, held[-1] + 1)))]
        if span <= 16 * len(held):
            table = np.zeros(span, np.bool_)
            table[inside - first] = True
            mask = table if span == len(held) else table[held - first]
        else:
            positions, found = self._positions(inside)
            mask = np.zeros(len(held), np.bool_)
            mask[positions[found]] = True
        return mask & self.alive

    def _hold(self, stored: StoredVectors, rows: Int64, alive: NDArray[np.bool_]) -> None:
        self._stored, self._rows, self._alive = stored, rows, alive
        self._live = int(np.count_nonzero(alive))

    def _append(self, rows: Int64, vectors: Float16) -> None:
        start = self._stored.count
        stop = start + len(rows)
        if stop > len(self._rows):
            capacity = max(stop, 1024, len(self._rows) * 3 // 2)
            self._rows = _grown(self._rows, start, capacity)
            self._alive = _grown(self._alive, start, capacity)
        self._rows[start:stop] = rows
        self._alive[start:stop] = True
        self._stored.append(vectors)
        self._live += len(rows)

    def _remove(self, rows: Int64) -> None:
        positions, found = self._positions(rows)
        dying = np.unique(positions[found])
        if len(dying):
            self._alive[dying] = False
            self._live -= len(dying)
            self._scan.remove(dying)

    def _merge(self, rows: Int64, vectors: Float16) -> None:
        """Puts rows between those held: everything moves to new positions."""
        positions = np.flatnonzero(self.alive)
        all_rows = np.concatenate([self._rows[positions], rows])
        order = np.argsort(all_rows, kind="stable")
        all_vectors = np.concatenate([self._stored.take(positions), vectors])[order]
        self._hold(StoredVectors(self.dimension), np.empty(0, np.int64), np.empty(0, np.bool_))
        self._append(all_rows[order], all_vectors)
        self._rescan()

    def _adapt(self) -> None:
        """Compacts, trains, or goes back to exact scans, where the collection's size calls for it."""
        if self._stored.count - self._live > max(_COMPACTION_ROWS, self._live // 2):
            self._compact()
        scan = self._scan
        if isinstance(scan, QuantisedScan):
            # Half, so that a collection about the threshold does not train again with every change.
            if self._live < self._exact_below // 2 or self._live >= _RETRAINING_GROWTH * scan.trained_rows:
                self._rescan()
        elif self._quantised():
            self._rescan()

    def _quantised(self) -> bool:
        return self._live >= self._exact_below and sub_dimension(self.dimension) is not None

    def _rescan(self) -> None:
        """Makes what is scanned anew from the stored vectors."""
        positions = np.flatnonzero(self.alive)
        if self._quantised():
            sample = positions[np.linspace(0, len(positions) - 1, min(len(positions), _SAMPLE_ROWS)).astype(np.int64)]
            self._scan = QuantisedScan.train(self._stored.take(sample), len(positions))
            self.trainings += 1
        else:
            self._scan = ExactScan(self.dimension)
        for start in range(0, len(positions), _BATCH_ROWS):
            batch = positions[start : start + _BATCH_ROWS]
            self._scan.add(batch, self._stored.take(batch))

    def _compact(self) -> None:
        """Lets dead vectors go: live ones move together, in their order."""
        positions = np.flatnonzero(self.alive)
        renumbered = np.full(self._stored.count, -1, np.int64)
        renumbered[positions] = np.arange(len(positions))
        stored = StoredVectors(self.dimension)
        for start in range(0, len(positions), _BATCH_ROWS):
            stored.append(self._stored.take(positions[start : start + _BATCH_ROWS]))
        self._hold(stored, self._rows[positions], np.ones(len(positions), np.bool_))
        self._scan.renumber(renumbered)


def _grown(values: NDArray[Any], used: int, capacity: int) -> NDArray[Any]:
    grown = np.empty(capacity, values.dtype)
    grown[:used] = values[:used]
    return grown
