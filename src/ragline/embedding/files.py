"""Files of the cache folder: written whole or not at all, by several processes at once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_STALE_S = 24 * 3600


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name, synced, and renames it: a reader sees all of it or what was there before.

    Raises:
        OSError: The folder cannot be written, or the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `mkstemp`, whose files only their owner may read: a cache folder may be shared.
    temporary = path.with_name(f".new-{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def new_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder within `parent`, gone at the end. Those that killed processes left a day ago go as well."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(".new-*"):
        with contextlib.suppress(OSError):
            if left.stat().st_mtime < time.time() - _STALE_S:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    with tempfile.TemporaryDirectory(dir=parent, prefix=".new-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def put_folder(made: Path, target: Path) -> None:
    """Renames the folder `made` to `target`, in place of what stands there. Of two that do so at once, one wins.

    Raises:
        OSError: The folder cannot be written.
    """
    for file in made.rglob("*"):
        if file.is_file():
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
    # A folder with content cannot be renamed onto, so the old one goes to where the temporary folder is deleted.
    with contextlib.suppress(FileNotFoundError):
        os.rename(target, made.with_name("replaced"))
    try:
        os.rename(made, target)
    except OSError:
        if not target.is_dir():
            raise


def file_sha256(path: Path, cache_dir: Path) -> str:
    """The SHA-256 of a file in hexadecimal, remembered in the cache folder for as long as size, time and inode stay.

    Hashing a model of a few hundred megabytes at every start would take longer than loading it.
    """
    status = path.stat()
    identity = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ino}"
    note = cache_dir / "hashes" / hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
    with contextlib.suppress(OSError, ValueError):
        known = note.read_text(encoding="ascii")
        if len(known) == 64:
            return known
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # a cache folder that cannot be written costs time, nothing else
        write_whole(note, digest.encode("ascii"))
    return digest
