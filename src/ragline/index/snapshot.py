"""Vectors and attributes on disk at one LSN, so that a process need not replay the whole log when it starts.

    MANIFEST              what belongs together, with lengths and checksums; replaced last, in one step
    vectors-<n>.f16       the vectors by position, float16; appended to by later snapshots, which cover more of it
    rows-<n>.bin          the row of each position, which are alive, and a checksum for each block of vectors
    codes-<n>.faiss       the codes that rows are found by, where the collection is large enough
    attributes-<n>.bin    the attribute index

A number is never used twice in a folder, so no file changes under a reader but by growing behind what it reads.
Whatever is wrong with a snapshot, the views are made from the store: a snapshot saves time, it keeps nothing.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ragline.errors import CorruptionError
from ragline.index.attributes import AttributeIndex
from ragline.index.files import (
    FileCheck,
    check_file,
    read_file,
    read_manifest,
    sync_folder,
    write_all,
    write_file,
    write_manifest,
    writing_errors,
)
from ragline.index.scans import QuantisedScan
from ragline.index.stored_vectors import MappedVectors, StoredVectors, extend_checksums
from ragline.index.vectors import VectorIndex
from ragline.types import Float16, Int64

log = logging.getLogger("ragline.index")

FORMAT = 1
"""Snapshots of another format are not read. Raise it with every change of what the files hold."""

MANIFEST = "MANIFEST"

_NUMBERED = re.compile(r"(?:vectors|rows|codes|attributes)-(\d+)\.")
_ATTEMPTS = 5
_PIECE_ROWS = 16_384

T = TypeVar("T")


def save_snapshot(folder: Path, *, lsn: int, incarnation: str, model: str, vectors: VectorIndex | None, attributes: AttributeIndex) -> None:
    """Replaces the snapshot in a folder. Interrupted anywhere, it leaves the old one or the new one.

    One process at a time may save to a folder; others may read it meanwhile. Searches of these views may go on,
    `apply` must not. Afterwards the vectors are read from the file, and their memory is free.

    Raises:
        BackendError: It cannot be written (full disk, read-only folder); the old snapshot stands.
        CorruptionError: Vectors that must be copied lie in a damaged block of the old snapshot.
    """
    with writing_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(match[1]) for name in os.listdir(folder) if (match := _NUMBERED.match(name))), default=0)
    try:
        _save(folder, number, {"format": FORMAT, "lsn": lsn, "incarnation": incarnation, "model": model}, vectors, attributes)
    finally:  # failed, a full disk gets the room back; done, the old snapshot goes
        with suppress(CorruptionError, OSError):
            _remove_unnamed(folder)


def load_snapshot(
    folder: Path, *, incarnation: str, model: str, exact_below: int = 10_000, rerank: int = 160
) -> tuple[int, VectorIndex | None, AttributeIndex] | None:
    """The LSN of the snapshot in a folder, and its views as they stood at it (no vectors: none had come yet).

    None where there is none, or one of another incarnation, model or format, or a damaged one: the views are then
    to be made from the store. Damage is logged. Blocks of vectors are verified when they are first touched, and
    raise CorruptionError then; all else is verified here.
    """

    def load(fields: dict[str, Any]) -> tuple[int, VectorIndex | None, AttributeIndex] | None:
        if fields["format"] != FORMAT or fields["incarnation"] != incarnation or fields["model"] != model:
            return None
        vectors = _load_vectors(folder, fields["vectors"], exact_below, rerank) if fields["vectors"] else None
        return fields["lsn"], vectors, AttributeIndex.from_bytes(_read(folder, fields["attributes"]))

    try:
        return _with_manifest(folder, load)
    except (CorruptionError, OSError) as error:
        log.warning("the snapshot in %s is not used, and its views are made from the store: %s", folder, error)
        return None


def verify_snapshot(folder: Path) -> list[str]:
    """Reads all of the snapshot in a folder; one sentence for each fault, none where it is sound or not there."""
    try:
        return _with_manifest(folder, lambda fields: _faults(folder, fields)) or []
    except (CorruptionError, OSError) as error:
        return [error.message if isinstance(error, CorruptionError) else f"{folder} cannot be read: {error}"]


def _with_manifest(folder: Path, read: Callable[[dict[str, Any]], T]) -> T | None:
    """What `read` makes of the manifest; again with the next one, where files went because it came."""
    for attempt in range(_ATTEMPTS):
        fields = read_manifest(folder / MANIFEST)
        if fields is None:
            return None
        try:
            return read(fields)
        except FileNotFoundError as error:
            if attempt == _ATTEMPTS - 1 or fields == read_manifest(folder / MANIFEST):
                raise CorruptionError(f"{error.filename} is missing") from error
    return None


def _save(folder: Path, number: int, fields: dict[str, Any], vectors: VectorIndex | None, attributes: AttributeIndex) -> None:
    fields["attributes"] = _write(folder / f"attributes-{number}.bin", attributes.to_bytes())
    fields["vectors"] = None
    if vectors is None or not vectors.stored.count:
        sync_folder(folder)
        write_manifest(folder / MANIFEST, fields)
        return
    mapped = _save_vectors(folder, number, vectors.stored)
    table = b"".join((vectors.rows.tobytes(), np.packbits(vectors.alive).tobytes(), mapped.checksums.tobytes()))
    fields["vectors"] = {
        "file": mapped.path.name,
        "dimension": vectors.dimension,
        "count": mapped.count,
        "rows": _write(folder / f"rows-{number}.bin", table),
        "codes": None,
    }
    if vectors.codes is not None:
        fields["vectors"]["codes"] = _write(folder / f"codes-{number}.faiss", vectors.codes.to_bytes())
        fields["vectors"]["trained_rows"] = vectors.codes.trained_rows
    sync_folder(folder)
    write_manifest(folder / MANIFEST, fields)
    vectors.rebase(StoredVectors(vectors.dimension, mapped))


def _save_vectors(folder: Path, number: int, stored: StoredVectors) -> MappedVectors:
    """Makes a file hold all vectors: the one they were read from, where the snapshot is still made of just that."""
    old = stored.mapped
    if old is None or not _is_current(folder, old):
        path, flags, start = folder / f"vectors-{number}.f16", os.O_CREAT | os.O_EXCL, 0
        checksums, verified = np.empty(0, np.uint32), np.empty(0, np.bool_)
    else:
        path, flags, start, checksums, verified = old.path, 0, old.count, old.checksums, old.verified
    pieces = (stored.take(np.arange(at, min(at + _PIECE_ROWS, stored.count))) for at in range(start, stored.count, _PIECE_ROWS))
    with writing_errors(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o644)
        try:
            written = _written(descriptor, 2 * stored.dimension * start, pieces)
            checksums = extend_checksums(checksums, start, written, stored.dimension)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        verified = np.concatenate([verified, np.ones(len(checksums) - len(verified), np.bool_)])
        return MappedVectors(path, stored.dimension, stored.count, checksums, verified)


def _written(descriptor: int, offset: int, pieces: Iterable[Float16]) -> Iterator[Float16]:
    for piece in pieces:
        write_all(descriptor, piece, offset)
        offset += piece.nbytes
        yield piece


def _is_current(folder: Path, mapped: MappedVectors) -> bool:
    """Whether the manifest covers what is mapped and no more, so that what is appended overwrites nothing.

    Another indexer may have written since: its vectors stand at other positions.
    """
    try:
        fields = read_manifest(folder / MANIFEST)
    except (CorruptionError, OSError):
        return False
    if fields is None or fields["format"] != FORMAT or not fields["vectors"]:
        return False
    return fields["vectors"]["count"] == mapped.count and mapped.is_file(folder / fields["vectors"]["file"])


def _load_vectors(folder: Path, fields: dict[str, Any], exact_below: int, rerank: int) -> VectorIndex:
    count, dimension = fields["count"], fields["dimension"]
    rows, alive, checksums = _unpack_table(_read(folder, fields["rows"]), count)
    mapped = MappedVectors(folder / fields["file"], dimension, count, checksums)
    codes = None
    if fields["codes"]:
        codes = QuantisedScan.from_bytes(_read(folder, fields["codes"]), dimension, fields["trained_rows"])
    return VectorIndex.restore(StoredVectors(dimension, mapped), rows, alive, codes, exact_below=exact_below, rerank=rerank)


def _unpack_table(table: bytes, count: int) -> tuple[Int64, NDArray[np.bool_], NDArray[np.uint32]]:
    rows = np.frombuffer(table, np.int64, count)
    packed = np.frombuffer(table, np.uint8, (count + 7) // 8, rows.nbytes)
    checksums = np.frombuffer(table[rows.nbytes + packed.nbytes :], np.uint32)
    return rows, np.unpackbits(packed, count=count).astype(np.bool_), checksums


def _faults(folder: Path, fields: dict[str, Any]) -> list[str]:
    if fields["format"] != FORMAT:
        return []
    found = [fault for file in _checked_files(fields) if (fault := _file_fault(folder, file))]
    vectors = fields["vectors"]
    if vectors and not found:
        _, _, checksums = _unpack_table(_read(folder, vectors["rows"]), vectors["count"])
        found += MappedVectors(folder / vectors["file"], vectors["dimension"], vectors["count"], checksums).faults()
    return found


def _file_fault(folder: Path, file: dict[str, Any]) -> str | None:
    found = check_file(folder / file["name"])
    if found.size != file["size"]:
        return f"{file['name']} is {found.size} bytes long instead of {file['size']}"
    return None if found.crc32 == file["crc32"] else f"{file['name']} does not match its checksum"


def _write(path: Path, content: bytes | NDArray[np.uint8]) -> dict[str, Any]:
    check = write_file(path, content)
    return {"name": path.name, "size": check.size, "crc32": check.crc32}


def _read(folder: Path, file: dict[str, Any]) -> bytes:
    return read_file(folder / file["name"], FileCheck(file["size"], file["crc32"]))


def _checked_files(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """The files that a manifest gives one checksum each."""
    vectors = fields["vectors"] or {}
    return [file for file in (fields["attributes"], vectors.get("rows"), vectors.get("codes")) if file]


def _remove_unnamed(folder: Path) -> None:
    """Removes the files of this module that the manifest does not name."""
    fields = read_manifest(folder / MANIFEST)
    named: set[str] = set()
    if fields is not None:
        if fields["format"] != FORMAT:  # what it names is not known
            return
        named = {file["name"] for file in _checked_files(fields)} | {(fields["vectors"] or {}).get("file", "")}
    for name in os.listdir(folder):
        if name not in named and (_NUMBERED.match(name) or name == f"{MANIFEST}.tmp"):
            (folder / name).unlink(missing_ok=True)
