"""The folder in which the bytes of uploads wait."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ragline.concurrency.workers import Workers
from ragline.errors import BackendError
from ragline.storage.jobs import Jobs

KEPT_IN_ROW_BYTES = 32 * 1024
"""Bodies up to this size are kept in the store itself: a file would cost two more waits for the disk."""

ORPHAN_S = 3600.0
"""Age from which a file that no job names is nobody's: whoever wrote it would have finished by then."""

_UNFINISHED = ".part"


class Uploads:
    """Keeps bodies until their job is done with them. Names in it are random: nothing that a client says becomes a path.

    Args:
        safe_suffixes: The part of a client's file name by which its format is known, and nothing else of it.
        workers: Threads that wait for the disk.
        longest_s: How long an upload may take. Its files are nobody's only after twice that: those that came first wait for the last.
    """

    def __init__(self, folder: Path, safe_suffixes: Callable[[str], str], workers: Workers, *, longest_s: float = 0.0) -> None:
        self._folder = folder
        self._safe_suffixes = safe_suffixes
        self.workers = workers
        self._orphan_s = max(ORPHAN_S, 2 * longest_s)

    def path(self, name: str) -> Path:
        """Where a file of this folder lies."""
        return self._folder / name

    def receive(self, name: str) -> Body:
        """A body that comes in pieces, of a file called `name` by its client."""
        return Body(self, self._safe_suffixes(name))

    async def remove(self, names: Sequence[str]) -> None:
        """Deletes files; those that are gone are no error."""
        await self.workers.run(self._remove, names)

    async def sweep(self, jobs: Jobs, *, older_than_s: float | None = None) -> int:
        """Deletes files that no job knows and that were not written to for so long, by default for as long as none takes. How many."""
        old = await self.workers.run(self._older, time.time() - (self._orphan_s if older_than_s is None else older_than_s))
        known = await jobs.known_paths(old) if old else frozenset()
        orphans = [name for name in old if name not in known]
        await self.remove(orphans)
        return len(orphans)

    def _older(self, than: float) -> list[str]:
        if not self._folder.is_dir():
            return []
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime <= than:
                        found.append(entry.name)
        return found

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError), _told(self._folder):
                os.unlink(self._folder / name)

    # For bodies, on a worker thread

    def open_new(self, suffix: str) -> tuple[str, BinaryIO]:
        """A new file, and the name that it will have."""
        name = secrets.token_hex(16) + suffix
        with _told(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            return name, open(self._folder / (name + _UNFINISHED), "xb", buffering=0)

    def finish(self, name: str, file: BinaryIO) -> None:
        """Makes a file durable under its name."""
        with _told(self._folder):
            os.fsync(file.fileno())
            file.close()
            os.rename(self._folder / (name + _UNFINISHED), self._folder / name)
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def abandon(self, name: str, file: BinaryIO) -> None:
        """Deletes a file that was not finished, or was."""
        file.close()
        self._remove([name + _UNFINISHED, name])

    def write(self, file: BinaryIO, content: bytes) -> None:
        """Appends all of it."""
        with _told(self._folder):
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]


class Body:
    """The bytes of an upload as they come: few stay in memory, more go to a file.

    Use it from one task. `keep` or `discard` it in the end.
    """

    def __init__(self, uploads: Uploads, suffix: str) -> None:
        self._uploads = uploads
        self._suffix = suffix
        self._held = bytearray()
        self._file: BinaryIO | None = None
        self._name = ""
        self._hash = hashlib.blake2b(digest_size=16)
        self.size_bytes = 0

    @property
    def content_id(self) -> str:
        """The hash of the bytes so far: the id of a document that has no other."""
        return self._hash.hexdigest()

    async def write(self, piece: bytes) -> None:
        """Takes the next bytes.

        Raises:
            BackendError: The folder cannot be written.
        """
        self._hash.update(piece)
        self.size_bytes += len(piece)
        self._held += piece
        if len(self._held) > (KEPT_IN_ROW_BYTES if self._file is None else _HELD_BYTES):
            await self._on_thread(self._flush)

    async def keep(self) -> tuple[bytes | None, str]:
        """The body itself where it is small, else the name of the file that holds it by now, durably."""
        if self._file is None:
            return bytes(self._held), ""
        await self._on_thread(self._finish)
        return None, self._name

    async def discard(self) -> None:
        """Lets go of it, also after `keep`."""
        self._held.clear()
        if self._file is not None:
            file, self._file = self._file, None
            await self._on_thread(self._uploads.abandon, self._name, file)

    async def _on_thread(self, job: Callable[..., None], *args: object) -> None:
        # A cancelled caller must not touch what a thread still works on.
        working = asyncio.ensure_future(self._uploads.workers.run(job, *args))
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait({working})
            raise

    def _flush(self) -> None:
        if self._file is None:
            self._name, self._file = self._uploads.open_new(self._suffix)
        self._uploads.write(self._file, bytes(self._held))
        self._held.clear()

    def _finish(self) -> None:
        self._flush()
        assert self._file is not None
        self._uploads.finish(self._name, self._file)


_HELD_BYTES = 256 * 1024
"""Written in pieces of this size: each costs a hop to a thread."""


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Within it, errors of the disk leave as errors of ragline."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as failure:
        raise BackendError(
            f"the folder of uploads {folder} cannot be written: {failure.strerror or failure}",
            hint="free some space, and make the data folder writable",
        ) from failure
