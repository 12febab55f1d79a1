"""The vectors themselves, as they were embedded: a mapped file, and behind it what came since, in memory."""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragline.errors import CorruptionError
from ragline.types import Float16, Int64

BLOCK_BYTES = 1 << 20
"""About as much is covered by one checksum: read and verified in less than a millisecond when first touched."""

_LEAST_TAIL = 1024


def rows_per_block(dimension: int) -> int:
    """How many vectors share a checksum; a vector never lies in two blocks."""
    return max(1, BLOCK_BYTES // (2 * dimension))


def extend_checksums(checksums: NDArray[np.uint32], count: int, pieces: Iterable[Float16], dimension: int) -> NDArray[np.uint32]:
    """The CRC-32 of each block of `count` vectors that have `checksums`, and of more, in pieces of any length."""
    per_block = rows_per_block(dimension)
    extended: list[int] = checksums.tolist()
    for piece in pieces:
        at = 0
        while at < len(piece):
            if count % per_block == 0:
                extended.append(0)
            part = piece[at : at + per_block - count % per_block]
            extended[-1] = zlib.crc32(part.data.cast("B"), extended[-1])
            count, at = count + len(part), at + len(part)
    return np.array(extended, np.uint32)


class MappedVectors:
    """The first `count` vectors of a file, mapped read-only; each block is verified when it is first touched.

    Others may append to the file: what lies behind is not looked at. Safe to read from many threads.

    Args:
        checksums: One CRC-32 for each block.
        verified: Blocks that need no verification, because their bytes were just written from memory or verified before.

    Raises:
        CorruptionError: The file is shorter than that.
        OSError: It cannot be opened.
    """

    def __init__(
        self, path: Path, dimension: int, count: int, checksums: NDArray[np.uint32], verified: NDArray[np.bool_] | None = None
    ) -> None:
        self.path = path
        self.count = count
        self.checksums = checksums
        self.verified = np.zeros(len(checksums), np.bool_) if verified is None else verified
        self._per_block = rows_per_block(dimension)
        size = 2 * dimension * count
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size < size:
                raise CorruptionError(f"{path.name} is {status.st_size} bytes long; at least {size} should be there")
            mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        self._status = status
        self._vectors = np.frombuffer(mapped, np.float16).reshape(count, dimension)

    def is_file(self, path: Path) -> bool:
        """Whether the file at `path` is the one that is mapped, not another that came to stand there."""
        try:
            return os.path.samestat(self._status, path.stat())
        except FileNotFoundError:
            return False

    def take(self, positions: Int64) -> Float16:
        """A copy of the vectors at these positions.

        Raises:
            CorruptionError: One of them lies in a damaged block.
        """
        blocks = positions // self._per_block
        if not (sound := self.verified[blocks]).all():
            for block in np.unique(blocks[~sound]).tolist():
                self._verify(block)
        return self._vectors[positions]

    def faults(self) -> list[str]:
        """Verifies every block, touched before or not; one sentence for each that is damaged."""
        found = []
        for block in range(len(self.checksums)):
            try:
                self._verify(block)
            except CorruptionError as fault:
                found.append(fault.message)
        return found

    def _verify(self, block: int) -> None:
        content = self._vectors[block * self._per_block : (block + 1) * self._per_block]
        if zlib.crc32(content.data.cast("B")) != self.checksums[block]:
            raise CorruptionError(
                f"block {block} of {self.path.name} does not match its checksum", hint="the view is rebuilt from the store"
            )
        self.verified[block] = True


class StoredVectors:
    """`(count, dimension)` float16 by position. Positions are given in order and never move.

    Safe to read from many threads, but not beside `append`.
    """

    def __init__(self, dimension: int, mapped: MappedVectors | None = None) -> None:
        self.dimension = dimension
        self.mapped = mapped
        self.mapped_count = mapped.count if mapped is not None else 0
        self._tail = np.empty((0, dimension), np.float16)
        self._tail_count = 0

    @property
    def count(self) -> int:
        """How many vectors there are."""
        return self.mapped_count + self._tail_count

    @property
    def tail(self) -> Float16:
        """The vectors behind the mapped ones, `(count - mapped_count, dimension)`; not a copy."""
        return self._tail[: self._tail_count]

    def copy(self) -> StoredVectors:
        """The same vectors, to be appended to apart; what is mapped is shared."""
        copy = StoredVectors(self.dimension, self.mapped)
        copy._tail, copy._tail_count = self.tail.copy(), self._tail_count
        return copy

    def append(self, vectors: Float16) -> None:
        """Adds `(n, dimension)` vectors at the next positions."""
        needed = self._tail_count + len(vectors)
        if needed > len(self._tail):
            grown = np.empty((max(needed, _LEAST_TAIL, len(self._tail) * 3 // 2), self.dimension), np.float16)
            grown[: self._tail_count] = self.tail
            self._tail = grown
        self._tail[self._tail_count : needed] = vectors
        self._tail_count = needed

    def take(self, positions: Int64) -> Float16:
        """A copy of the vectors at these positions, `(n, dimension)`.

        Raises:
            CorruptionError: One of them lies in a damaged block of the file.
        """
        if self.mapped is None:
            return self._tail[positions]
        early = positions < self.mapped_count
        if early.all():
            return self.mapped.take(positions)
        taken = np.empty((len(positions), self.dimension), np.float16)
        taken[early] = self.mapped.take(positions[early])
        taken[~early] = self._tail[positions[~early] - self.mapped_count]
        return taken
