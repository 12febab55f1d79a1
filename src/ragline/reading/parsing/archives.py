"""An archive becomes one text: each file in it that gives text is a section. Nothing is ever written to disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import posixpath
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any, BinaryIO, Self, TypeAlias, cast

from . import formats
from .blocks import Blocks
from .failures import ENCRYPTED
from .nested import MAX_DEPTH, Budget, Extract, Sections
from .packages import EncryptedError, UnreadableError, reason

Member: TypeAlias = tuple[str, Callable[[], bytes]]
"""A name as the archive has it, and how to unpack it: before the next one is asked for."""

_DAMAGES = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    OSError,
    lzma.LZMAError,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
_PIECE = 2**20
_TAR_SUFFIXES = frozenset({"tar", "tgz", "tbz", "tbz2", "txz"})
_UTF8_NAME = 0x800
_ENCRYPTED = 0x1
_NAMES = {
    formats.ZIP: "ZIP archive", formats.TAR: "tar archive", formats.GZIP: "gzip file", formats.BZIP2: "bzip2 file", formats.XZ: "xz file",
}  # fmt: skip


def read_archive(file: BinaryIO, name: str, media_type: str, budget: Budget, extract: Extract) -> dict[str, Any]:
    """The text of an archive; of a single compressed file, what it holds, as if it were not compressed.

    Members come in the order of their names. Links and devices in it are no files, and are not followed. Members
    that should give text and do not are named in the metadata `unread`. `error` and `hint` where none gives text.

    Raises:
        LimitError: It holds or unpacks to more than is allowed.
        UnreadableError: It is damaged, or lies too deep.
    """
    if len(budget.inside) >= MAX_DEPTH:
        raise UnreadableError(f"archives are unpacked to a depth of {MAX_DEPTH}, and this lies deeper")
    file.seek(0)
    try:
        if media_type == formats.ZIP:
            return _sections(_zip_members(file, budget), budget, extract)
        if media_type == formats.TAR:
            return _sections(_tar_members(file, budget), budget, extract)
        return _read_compressed(file, name, media_type, budget, extract)
    except _DAMAGES as exc:
        raise UnreadableError(f"it is damaged, or no {_NAMES[media_type]}: {reason(exc)}") from exc


def _sections(members: Iterator[Member], budget: Budget, extract: Extract) -> dict[str, Any]:
    sections = Sections(budget, ordered=True)
    for name, read in members:
        sections.add(name, partial(_extract_member, read=read, budget=budget, extract=extract))
    blocks = Blocks()
    if not sections.write(blocks):
        return sections.why_empty()
    return {**blocks.result(), "metadata": sections.unread()}


def _extract_member(name: str, *, read: Callable[[], bytes], budget: Budget, extract: Extract) -> dict[str, Any]:
    if not formats.may_read(name):
        return {"error": "of a type that ragline does not read", "unsupported": True}
    try:
        data = read()
    except EncryptedError:
        return ENCRYPTED
    except UnreadableError as exc:
        return {"error": str(exc)}
    except _DAMAGES as exc:
        return {"error": f"it cannot be unpacked: {reason(exc)}"}
    return extract(data, name, budget)


# -- ZIP ---------------------------------------------------------------------------------------------------------------


def _zip_members(file: BinaryIO, budget: Budget) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            # Without a mode (made on Windows) it is a file.
            mode = info.external_attr >> 16
            if info.is_dir() or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
                continue
            yield _zip_name(info), partial(_read_zipped, archive, info, budget)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name; one that is not marked as UTF-8 but is (many programs) is taken as such, not as code page 437."""
    if info.flag_bits & _UTF8_NAME:
        return info.filename
    try:
        return info.orig_filename.split("\0", 1)[0].encode("cp437").decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return info.filename


def _read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> bytes:
    if info.flag_bits & _ENCRYPTED:
        raise EncryptedError("it is encrypted")
    _check_size(info.file_size, budget)
    with archive.open(info) as member:
        return _read_all(member, budget)


# -- tar ---------------------------------------------------------------------------------------------------------------


class _Header(tarfile.TarInfo):
    """A header; of a damaged one the standard library says nothing, but takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            header = super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as exc:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(exc)) from exc
        if header.size < 0:
            raise tarfile.ReadError("negative size")
        return header


def _tar_members(stream: IO[bytes], budget: Budget) -> Iterator[Member]:
    """Read in one pass: going back in a compressed archive would unpack it anew each time."""
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header, errors="backslashreplace") as archive:
        for info in archive:
            archive.members = []  # type: ignore[attr-defined]  # it would remember every header
            if info.isfile():
                yield info.name, partial(_read_tarred, archive, info, budget)
            else:
                budget.member()


def _read_tarred(archive: tarfile.TarFile, info: tarfile.TarInfo, budget: Budget) -> bytes:
    _check_size(info.size, budget)
    member = archive.extractfile(info)
    if member is None:
        raise UnreadableError("it is no file")
    return _read_all(member, budget)


# -- gzip, bzip2, xz ---------------------------------------------------------------------------------------------------


def _read_compressed(file: BinaryIO, name: str, media_type: str, budget: Budget, extract: Extract) -> dict[str, Any]:
    unpacked = _Counted(_open_compressed(file, media_type), budget)
    inner = posixpath.splitext(posixpath.basename(name))[0]
    if formats.is_tar(unpacked.peek()) or formats.suffix(name) in _TAR_SUFFIXES or formats.suffix(inner) == "tar":
        return _sections(_tar_members(cast("IO[bytes]", unpacked), budget), budget, extract)
    with budget.within(inner):
        answer = extract(_read_all(unpacked, budget, counted=True), inner, budget)
    if answer.get("unsupported"):
        return {"error": "what is compressed in it is neither text nor of a format that ragline reads", "hint": formats.HINT}
    return answer


def _open_compressed(file: BinaryIO, media_type: str) -> IO[bytes]:
    if media_type == formats.GZIP:
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    return bz2.BZ2File(file) if media_type == formats.BZIP2 else lzma.LZMAFile(file)


class _Counted(io.RawIOBase):
    """An unpacking stream that counts what it gives, and lets its first bytes be seen before."""

    def __init__(self, stream: IO[bytes], budget: Budget) -> None:
        self._stream = stream
        self._budget = budget
        self._head = b""

    def readable(self) -> bool:
        return True

    def peek(self) -> bytes:
        self._head = self._stream.read(formats.HEAD_BYTES)
        self._budget.unpacked(len(self._head))
        return self._head

    def read(self, size: int = -1) -> bytes:
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        piece = self._stream.read(size)
        self._budget.unpacked(len(piece))
        return piece


# -- bounds ------------------------------------------------------------------------------------------------------------


def _check_size(size: int, budget: Budget) -> None:
    if size > budget.max_member_bytes:
        raise UnreadableError(f"it holds {size:,} bytes, more than the {budget.max_member_bytes:,} allowed in an archive")


def _read_all(stream: IO[bytes] | _Counted, budget: Budget, *, counted: bool = False) -> bytes:
    """All that a stream gives, piece by piece: what a header says of its size is not believed."""
    pieces, size = [], 0
    while piece := stream.read(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if not counted:
            budget.unpacked(len(piece))
        _check_size(size, budget)
    return b"".join(pieces)
