"""What the lexical view keeps on disk, and how damage in it is found before tantivy opens it.

    CURRENT                    which generation is served; a manifest, replaced whole
    g000001/                   one tantivy index
        MANIFEST               whose index this is, and the commits it may stand at (below)
        meta.json, ...         tantivy's own; segment files never change once written

tantivy merges segments in threads of its own and then replaces `meta.json` and files between commits, so no list of
files made by us can be current. Instead:

- every segment file carries the CRC-32 of its content in tantivy's footer, and is read whole against it;
- `MANIFEST` is written *before* each commit and states the commit that stands and the one about to be made: LSN and
  number of live documents, which merging does not change. `meta.json` must agree with one of the two. So there is
  no moment, whenever a process is killed, at which a whole index looks damaged or its LSN is in doubt.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from ragline.errors import CorruptionError
from ragline.index.files import read_manifest, write_manifest

T = TypeVar("T")
Look: TypeAlias = tuple[tuple[int, int, int] | None, ...]

META = "meta.json"
MANIFEST = "MANIFEST"
CURRENT = "CURRENT"
_MANAGED = ".managed.json"

_READ_ATTEMPTS = 50
_SEGMENT_SUFFIXES = (".fast", ".fieldnorm", ".idx", ".pos", ".store", ".term")
_FOOTER_MAGIC = 1337
_FOOTER_TAIL_BYTES = 8  # two little-endian 32-bit numbers: the length of the footer's JSON, and the magic number
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit of a generation.

    Attributes:
        opstamp: tantivy's number of it; None in a manifest for the one about to be made.
        lsn: The log position it stands at.
        live: Its documents that are not deleted.
    """

    opstamp: int | None
    lsn: int
    live: int


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation as it stands on disk, checked.

    Attributes:
        identity: Whose index it is and how it was made.
        meta: The `meta.json` that was checked.
        deleted_fraction: The share of its documents that are deleted and not merged away yet.
    """

    identity: Mapping[str, Any]
    commit: Commit
    meta: bytes
    deleted_fraction: float


def current_generation(folder: Path) -> Path | None:
    """The folder of the generation that is served; None where there is none.

    Raises:
        CorruptionError: `CURRENT` is damaged.
        OSError: It cannot be read.
    """
    fields = read_manifest(folder / CURRENT)
    return None if fields is None else folder / fields["generation"]


def publish(generation: Path) -> None:
    """Makes a generation the one that is served."""
    write_manifest(generation.parent / CURRENT, {"generation": generation.name})


def next_generation(folder: Path) -> Path:
    """The folder for a new generation: above all that are there."""
    return folder / f"g{max((int(path.name[1:]) for path in generations(folder)), default=0) + 1:06d}"


def generations(folder: Path) -> list[Path]:
    """The folders of all generations, served or not."""
    return sorted(path for path in folder.glob("g*") if path.name[1:].isdigit())


def write_commits(generation: Path, identity: Mapping[str, Any], *commits: Commit) -> None:
    """States the commits that a generation may be found at: the one that stands, then the one about to be made."""
    write_manifest(generation / MANIFEST, {"identity": dict(identity), "commits": [asdict(commit) for commit in commits]})


def read_generation(path: Path, identity: Mapping[str, Any], verified: dict[str, str] | None) -> Generation | None:
    """Checks a generation; None where it is not of this identity.

    Args:
        path: The generation's folder.
        identity: What its own must contain.
        verified: Segment files found sound before, with the version of tantivy that each claims; all others are
            read whole. Kept up to date. None trusts segment files: their writer asks.

    Raises:
        CorruptionError: It is not what was committed. Where a writer is at work, this may also be because files
            changed while they were read: see `consistently`.
        OSError: A file is missing or cannot be read.
    """
    meta = (path / META).read_bytes()
    manifest = read_manifest(path / MANIFEST)
    if manifest is None:
        raise CorruptionError(f"{path / MANIFEST} is missing")
    if not identity.items() <= manifest["identity"].items():
        return None
    opstamp, names, live, deleted, schema = _read_meta(path / META, meta)
    if schema != manifest["identity"]["schema"]:
        raise CorruptionError(f"{path / META} names other fields than this index has")
    commit = _find_commit(path, [Commit(**fields) for fields in manifest["commits"]], opstamp, live)
    _check_managed(path / _MANAGED, names)
    if verified is not None:
        _check_segments(path, names, verified)
    return Generation(manifest["identity"], commit, meta, deleted / (live + deleted) if deleted else 0.0)


def look(folder: Path) -> Look:
    """What differs after every commit, merge and change of generation; costs three looks at the folder."""
    with suppress(CorruptionError, OSError):
        path = current_generation(folder)
        if path is not None:
            return _stamp(folder / CURRENT), _stamp(path / MANIFEST), _stamp(path / META)
    return (_stamp(folder / CURRENT),)


def consistently(folder: Path, read: Callable[[], T]) -> T:
    """Reads while the indexer may be writing: what fails is damaged only if nothing changed meanwhile.

    Raises:
        CorruptionError: It is damaged.
        OSError: It cannot be read.
    """
    return _until_settled(lambda: look(folder), read)


def settled(path: Path, read: Callable[[], T]) -> T:
    """As `consistently`, for one generation, served or not, while its own writer merges."""
    return _until_settled(lambda: tuple(_stamp(path / name) for name in (MANIFEST, META, _MANAGED)), read)


def _until_settled(glance: Callable[[], Look], read: Callable[[], T]) -> T:
    for attempt in range(_READ_ATTEMPTS):
        before = glance()
        try:
            return read()
        except (CorruptionError, FileNotFoundError, ValueError) as failure:  # ValueError: tantivy refuses it
            if attempt == _READ_ATTEMPTS - 1 or glance() == before:
                raise failure if isinstance(failure, CorruptionError) else CorruptionError(str(failure)) from failure
        time.sleep(0.001)
    raise AssertionError("the last attempt returns or raises")


def verify(folder: Path) -> list[str]:
    """What is wrong with the lexical index in a folder, after reading all of it; empty where nothing is.

    Raises:
        OSError: It cannot be read.
    """

    def read() -> None:
        path = current_generation(folder)
        if path is not None:
            read_generation(path, {}, {})

    try:
        consistently(folder, read)
    except CorruptionError as error:
        return [error.message]
    return []


def remove_orphans(path: Path) -> None:
    """Deletes segment files of a generation that its `meta.json` does not use; before a writer opens it.

    A killed writer leaves them. tantivy's next writer counts on from the same opstamp and would meet its own file
    names taken.

    Raises:
        CorruptionError: `meta.json` is damaged.
        OSError: A file cannot be deleted.
    """
    names = set(_read_meta(path / META, (path / META).read_bytes())[1])
    for file in path.iterdir():
        if file.suffix in (".del", *_SEGMENT_SUFFIXES) and file.name not in names:
            file.unlink(missing_ok=True)


def schema_checksum(path: Path) -> int:
    """A checksum of the fields and settings that tantivy has noted for a new index."""
    return _read_meta(path / META, (path / META).read_bytes())[-1]


def _read_meta(path: Path, content: bytes) -> tuple[int, list[str], int, int, int]:
    """Opstamp, segment files, live and deleted documents, checksum of the schema, from a `meta.json`."""
    try:
        meta = json.loads(content)
        live = deleted = 0
        names = []
        for segment in meta["segments"]:
            name, documents, deletes = segment["segment_id"].replace("-", ""), segment["max_doc"], segment["deletes"]
            names += [name + suffix for suffix in _SEGMENT_SUFFIXES]
            gone = 0
            if deletes is not None:
                gone = deletes["num_deleted_docs"]
                names.append(f"{name}.{deletes['opstamp']}.del")
            live, deleted = live + documents - gone, deleted + gone
        schema = json.dumps([meta["schema"], meta["index_settings"]], sort_keys=True)
        return int(meta["opstamp"]), names, live, deleted, zlib.crc32(schema.encode())
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise CorruptionError(f"{path} is not what tantivy wrote") from error


def _find_commit(path: Path, commits: list[Commit], opstamp: int, live: int) -> Commit:
    standing = commits[0]
    assert standing.opstamp is not None
    found = standing if opstamp == standing.opstamp else commits[-1]
    if opstamp < standing.opstamp or found.opstamp not in (None, opstamp) or found.live != live:
        raise CorruptionError(f"{path} is not at a commit that its manifest states")
    return Commit(opstamp, found.lsn, live)


def _check_managed(path: Path, names: list[str]) -> None:
    """What this file names and no segment uses, tantivy deletes: a wrong name there would be a file lost."""
    try:
        managed = json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptionError(f"{path} is not what tantivy wrote") from error
    if not isinstance(managed, list) or not {META, *names} <= set(map(str, managed)):
        raise CorruptionError(f"{path} does not name all files of the index")


def _check_segments(path: Path, names: list[str], verified: dict[str, str]) -> None:
    for name in names:
        if name not in verified:
            verified[name] = _check_segment_file(path / name)
    for name in verified.keys() - names:
        del verified[name]
    if len(set(verified.values())) > 1:  # an index is rebuilt when tantivy's version changes: all its files are of one
        raise CorruptionError(f"files in {path} claim to be of different versions")


def _check_segment_file(path: Path) -> str:
    """The version of tantivy that a file claims, after reading it whole against the checksum in its footer."""
    with open(path, "rb", buffering=0) as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1024))
        tail = file.read()
        length, magic = int.from_bytes(tail[-8:-4], "little"), int.from_bytes(tail[-4:], "little")
        try:
            footer = json.loads(tail[-_FOOTER_TAIL_BYTES - length : -_FOOTER_TAIL_BYTES])
            version, expected = str(footer["version"]), footer["crc"]
        except (ValueError, TypeError, LookupError) as error:
            raise CorruptionError(f"{path} is cut short or damaged at its end") from error
        file.seek(0)
        crc32, left = 0, size - _FOOTER_TAIL_BYTES - length
        while left > 0 and (block := file.read(min(left, _READ_BYTES))):
            crc32, left = zlib.crc32(block, crc32), left - len(block)
    if magic != _FOOTER_MAGIC or crc32 != expected:
        raise CorruptionError(f"{path} does not match its checksum")
    return version


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
