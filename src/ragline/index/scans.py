"""FAISS, and nothing else: the two ways to look at every vector of a collection, by position."""

from __future__ import annotations

import threading
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ragline.errors import CorruptionError
from ragline.types import Float16, Float32, Int64

# FAISS's type stubs leave out the arguments that its Python layer adds.
_SearchParameters: Any = faiss.SearchParameters
_SearchParametersIVF: Any = faiss.SearchParametersIVF
_IDSelectorBitmap: Any = faiss.IDSelectorBitmap

_SCRATCH_ROWS = 2048
"""So few vectors are scored in memory that the thread keeps, 1.5 MB at 384 dimensions: to allocate it takes as long as to score them."""

_local = threading.local()


def pin_openmp() -> None:
    """Keeps FAISS on the calling thread: OpenMP's number of threads is a setting of each thread of its own.

    One question is too little work to share out, and helpers that wait for it spin on the other cores.
    """
    if not getattr(_local, "pinned", False):
        faiss.omp_set_num_threads(1)
        _local.pinned = True


def exact_nearest(question: Float32, vectors: Float16, k: int) -> tuple[Float32, Int64]:
    """The scores of the nearest k of `(n, dimension)` vectors, best first, and which they are.

    Copying the vectors into a scan of their own takes a sixth of the time of `astype(float32)` alone, and gives
    bit for bit the scores that `ExactScan` gives.

    Args:
        question: `(1, dimension)`.
    """
    return _found(*_filled(vectors).search(question, k))


def sub_dimension(dimension: int) -> int | None:
    """How many dimensions share one 4-bit code; None where a dimension cannot be cut so."""
    return next((width for width in (4, 3, 2, 5) if dimension % width == 0), None)


class ExactScan:
    """Scores every vector. float16 as stored: half the bytes of float32, and the same scores."""

    def __init__(self, dimension: int) -> None:
        self._index = _float16_index(np.empty((0, dimension), np.float16))
        self._positions = np.empty(0, np.int64)

    def add(self, positions: Int64, vectors: Float16) -> None:
        """Adds vectors at positions above all held."""
        self._index.add_sa_codes(np.ascontiguousarray(vectors).view(np.uint8))
        self._positions = np.concatenate([self._positions, positions])

    def remove(self, positions: Int64) -> None:
        """Removes vectors at positions that are held."""
        dying = np.zeros(len(self._positions), np.bool_)
        dying[np.searchsorted(self._positions, positions)] = True
        self._index.remove_ids(_selector(dying))
        self._positions = self._positions[~dying]

    def renumber(self, renumbered: Int64) -> None:
        """Moves every vector to the position given for its own; their order stays."""
        self._positions = renumbered[self._positions]

    def nearest(self, question: Float32, k: int, mask: NDArray[np.bool_] | None) -> tuple[Float32, Int64]:
        """The exact scores of the nearest k positions, best first, of those in `mask` where it is given."""
        if mask is None:
            scores, entries = self._index.search(question, k)
        else:
            parameters = _SearchParameters(sel=_selector(mask[self._positions]))
            scores, entries = self._index.search(question, k, params=parameters)
        found, order = _found(scores, entries)
        return found, self._positions[order]


class QuantisedScan:
    """Scores every vector roughly, by a code of `dimension / 8` bytes.

    Attributes:
        trained_rows: How many rows the collection had when the codes were trained.
    """

    def __init__(self, index: Any, trained_rows: int) -> None:
        self._index = index
        self.trained_rows = trained_rows

    @classmethod
    def train(cls, sample: Float16, trained_rows: int) -> QuantisedScan:
        """A scan of nothing, its codes fitted to `(n, dimension)` sampled vectors; the same sample gives the same codes."""
        dimension = sample.shape[1]
        width = sub_dimension(dimension)
        assert width is not None
        index = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(dimension), dimension, 1, dimension // width, 4, faiss.METRIC_INNER_PRODUCT)
        index.pq.cp.niter = 10  # no worse than 25 at 100,000 rows, and done in 0.2 s instead of 0.4
        for clustering in (index.cp, index.pq.cp):
            clustering.min_points_per_centroid = 1  # FAISS writes a warning to standard error below this
        index.train(np.nan_to_num(sample.astype(np.float32), posinf=0, neginf=0))  # one bad vector must not stop the others
        return cls(index, trained_rows)

    @classmethod
    def from_bytes(cls, content: bytes, dimension: int, trained_rows: int) -> QuantisedScan:
        """The scan that `to_bytes` wrote. Hand it only bytes whose checksum was verified.

        Raises:
            CorruptionError: This FAISS does not understand them.
        """
        try:
            index = faiss.deserialize_index(np.frombuffer(content, np.uint8))
        except RuntimeError as error:
            raise CorruptionError(f"FAISS cannot open the codes of a snapshot: {error}") from error
        if not isinstance(index, faiss.IndexIVFPQFastScan) or index.d != dimension:
            raise CorruptionError("the codes of a snapshot are not of this index")
        return cls(index, trained_rows)

    def to_bytes(self) -> NDArray[np.uint8]:
        """The whole scan, for `from_bytes`."""
        content: NDArray[np.uint8] = faiss.serialize_index(self._index)
        return content

    def add(self, positions: Int64, vectors: Float16) -> None:
        """Adds vectors at positions that are not held."""
        self._index.add_with_ids(vectors.astype(np.float32), positions)

    def remove(self, positions: Int64) -> None:
        """Removes vectors at positions that are held."""
        self._index.remove_ids(faiss.IDSelectorBatch(positions))

    def renumber(self, renumbered: Int64) -> None:
        """Moves every vector to the position given for its own."""
        if size := self._index.invlists.list_size(0):
            ids = faiss.rev_swig_ptr(self._index.invlists.get_ids(0), size)
            ids[:] = renumbered[ids]

    def candidates(self, question: Float32, k: int, mask: NDArray[np.bool_] | None) -> Int64:
        """About the nearest k positions, of those in `mask` where it is given, in no promised order."""
        if mask is None:
            _, positions = self._index.search(question, k)
        else:
            parameters = _SearchParametersIVF(sel=_selector(mask), nprobe=1)
            _, positions = self._index.search(question, k, params=parameters)
        found: Int64 = positions[0]
        return found[found >= 0]


def _float16_index(vectors: Float16) -> Any:
    index = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    if len(vectors):
        index.add_sa_codes(vectors.view(np.uint8))
    return index


def _filled(vectors: Float16) -> Any:
    """A scan of these vectors, which may be this thread's own and hold others the next time."""
    if len(vectors) > _SCRATCH_ROWS:
        return _float16_index(vectors)
    index = getattr(_local, "scratch", None)
    if index is None or index.d != vectors.shape[1]:
        index = _local.scratch = _float16_index(vectors[:0])
    index.reset()
    index.add_sa_codes(vectors.view(np.uint8))
    return index


def _found(scores: NDArray[np.float32], entries: NDArray[np.int64]) -> tuple[Float32, Int64]:
    """The one question's results, without the places that FAISS left open: a vector of NaN is never found."""
    count = np.count_nonzero(entries[0] >= 0)
    return scores[0, :count], entries[0, :count]


def _selector(mask: NDArray[np.bool_]) -> Any:
    return _IDSelectorBitmap(np.packbits(mask, bitorder="little"))
