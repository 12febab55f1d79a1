"""What a view is: a pure function of the store up to some LSN, held by one process.

Views are kernels: they have no colour and no locks. `follower` feeds them, and guards each scope's views
with one read-write lock: `search` runs under the shared side, `apply` and `reload` under the exclusive one.
"""

from __future__ import annotations

from typing import Protocol

from pyroaring import BitMap64

from ragline.types import Float16, Float32, Int64


class DenseView(Protocol):
    """Finds rows by vector."""

    def apply(self, removed: Int64, rows: Int64, vectors: Float16) -> None:
        """Removes rows, then adds `(n,)` rows, ascending and above all held, with `(n, dimension)` float16 unit
        vectors. Removing a row that is not held does nothing; adding one that is held replaces it.
        """
        ...

    def search(self, question: Float32, top_k: int, allowed: BitMap64 | None = None) -> tuple[Int64, Float32]:
        """The `top_k` rows of highest inner product with the `(dimension,)` unit vector: rows and scores, best
        first, ties by row ascending. With `allowed`, only of those rows, and then never fewer than
        `min(top_k, live allowed rows)`.
        """
        ...

    def scores(self, question: Float32, rows: Int64) -> Float32:
        """The exact inner products of given rows, `(n,)`; NaN for rows not held."""
        ...

    def vectors(self, rows: Int64) -> Float16:
        """The stored vectors of given rows, `(n, dimension)`; zeros for rows not held."""
        ...


class LexicalView(Protocol):
    """Finds rows by words."""

    def search(self, question: str, top_k: int, allowed: BitMap64 | None = None) -> tuple[Int64, Float32]:
        """The `top_k` rows of highest BM25 score: rows and scores, best first, ties by row ascending. With
        `allowed`, only of those rows. Rows without any of the question's words are not found.
        """
        ...
