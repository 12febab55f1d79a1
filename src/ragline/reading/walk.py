"""Which files are there? Paths, folders, patterns and `file://` URIs become the files to read."""

from __future__ import annotations

import fnmatch
import os
import re
import secrets
import stat
import time
import urllib.parse
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from ragline.reading.base import FoundFile
from ragline.reading.parsing import formats
from ragline.types import FailedSource, SkippedSource

Found: TypeAlias = FoundFile | SkippedSource | FailedSource
StrPath: TypeAlias = str | os.PathLike[str]

_RACY_NS = 2_000_000_000
_MAGIC = re.compile(r"[*?\[]")


def find_files(paths: Iterable[StrPath], *, hidden: bool = False, exclude: Collection[StrPath] = ()) -> Iterator[Found]:
    """The files under some paths, in the order of the paths, and within a folder in the order of their names.

    A path names a file, a folder (with all in it), a `file://` URI, or, where nothing has that very name, a
    pattern (`*`, `?`, `[...]` within a name, `**` for any folders). A file that is met twice is given once. What
    is met in a folder and not read is given as `SkippedSource`; what was named and cannot be read, as `FailedSource`.
    Nothing but the type and the first bytes of a file is looked at; pipes, sockets and devices are never opened.

    Args:
        paths: What to read.
        hidden: Whether to enter what begins with a dot.
        exclude: Folders that are not entered, such as the store's own. What lies in one is refused when it is named
            as well, except in one that holds another: documents may stand beside the store.
    """
    walk = _Walk(hidden=hidden, exclude={os.path.realpath(path) for path in exclude})
    for path in paths:
        yield from walk.path(path)


def display(path: str) -> str:
    r"""A file name as people are shown it: bytes that are not UTF-8 are written as `\\xNN`."""
    try:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte: no file can have this name
        return path.encode("utf-8", "backslashreplace").decode()


def is_gone(uri: str) -> bool:
    """Whether there is no file any more behind a file's URI. One that only cannot be looked at is not gone."""
    try:
        os.lstat(local_path(uri))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


class _Walk:
    """One call of `find_files`: what was met already."""

    def __init__(self, *, hidden: bool, exclude: set[str]) -> None:
        self._hidden = hidden
        self._exclude = exclude
        self._own = {folder for folder in exclude if not any(_lies_in(other, folder) for other in exclude - {folder})}
        self._seen: set[str] = set()

    def path(self, given: StrPath) -> Iterator[Found]:
        try:
            path = local_path(os.fspath(given))
        except ValueError as exc:
            yield FailedSource(str(given), str(exc), "give the path of a file or folder, or an http:// or https:// URL")
            return
        try:
            status = os.stat(path)
        except (OSError, ValueError) as exc:
            if _MAGIC.search(path):
                yield from self._pattern(path)
            else:
                yield FailedSource(display(path), _reason(exc), "check the path")
            return
        real = os.path.realpath(path)
        if any(_lies_in(real, folder) for folder in self._own):
            yield FailedSource(display(path), "it is the store's own folder, or in it", "give the folder with your documents")
        elif stat.S_ISDIR(status.st_mode):
            yield from self._folder(path, real)
        else:
            yield from self._file(path, status, named=True)

    # -- folders ------------------------------------------------------------------------------------------------------

    def _folder(self, folder: str, root: str, pattern: _Pattern | None = None) -> Iterator[Found]:
        try:
            with os.scandir(folder or ".") as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as exc:
            yield FailedSource(display(folder), _reason(exc), "check that you may read the folder")
            return
        for entry in found:
            yield from self._entry(entry, os.path.join(folder, entry.name), root, pattern)

    def _entry(self, entry: os.DirEntry[str], path: str, root: str, pattern: _Pattern | None) -> Iterator[Found]:
        if pattern is not None and not pattern.matches(path):
            if entry.is_dir(follow_symlinks=False) and pattern.may_hold(path) and self._why_skip(entry, path, root) is None:
                yield from self._folder(path, root, pattern)
            return
        reason = self._why_skip(entry, path, root)
        if reason:
            yield SkippedSource(display(path), reason)
        elif entry.is_dir(follow_symlinks=False):
            yield from self._folder(path, root)
        else:
            try:
                status = entry.stat()
            except OSError as exc:
                yield FailedSource(display(path), _reason(exc), "check that you may read it")
                return
            yield from self._file(path, status, named=False)

    def _why_skip(self, entry: os.DirEntry[str], path: str, root: str) -> str | None:
        if entry.name.startswith(".") and not self._hidden:
            return "hidden"
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and entry.name in formats.TOOL_FOLDERS:
            return "a folder of tools, not of documents"
        if is_folder and self._exclude and os.path.realpath(path) in self._exclude:
            return "the store's own folder"
        if is_folder and os.path.exists(os.path.join(path, "pyvenv.cfg")):
            return "a Python environment"
        if entry.is_symlink():
            return _why_skip_link(path, root)
        return None

    # -- files --------------------------------------------------------------------------------------------------------

    def _file(self, path: str, status: os.stat_result, *, named: bool) -> Iterator[Found]:
        refusal = None if stat.S_ISREG(status.st_mode) else "a pipe, socket or device, which is never opened"
        # An empty file is given unseen: the reader says so, and files under /proc of no size can wait for ever.
        if refusal is None and status.st_size and not _is_readable_format(path, named=named):
            kind = formats.suffix(path)
            refusal = f"of a type that ragline does not read (.{display(kind)})" if kind else "binary, and of no type that ragline reads"
        if refusal:
            yield FailedSource(display(path), f"it is {refusal}", formats.HINT) if named else SkippedSource(display(path), refusal)
            return
        uri = Path(os.path.realpath(path)).as_uri()
        if uri not in self._seen:
            self._seen.add(uri)
            yield FoundFile(path, uri, display(path), signature(status))

    # -- patterns -----------------------------------------------------------------------------------------------------

    def _pattern(self, text: str) -> Iterator[Found]:
        pattern = _Pattern(text)
        some = False
        if os.path.isdir(pattern.root or "."):
            for found in self._folder(pattern.root, os.path.realpath(pattern.root), pattern):
                some = True
                yield found
        if not some:
            yield FailedSource(display(text), "there is no such path, and nothing matches it as a pattern", "check the path")


class _Pattern:
    """A shell pattern for whole paths: the folder where it begins, and the names below it."""

    def __init__(self, text: str) -> None:
        parts = text.split("/")
        first = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
        self.root = "/".join(parts[:first]) or ("/" if text.startswith("/") else "")
        self._skip = len(os.path.join(self.root, ""))
        self._names = [None if part == "**" else re.compile(fnmatch.translate(part)) for part in parts[first:] if part]

    def matches(self, path: str) -> bool:
        """Whether this very path is meant; what is below a folder that is meant is meant as well."""
        return _match(self._names, path[self._skip :].split("/"))

    def may_hold(self, folder: str) -> bool:
        """Whether paths below this folder can be meant."""
        return None in self._names or folder[self._skip :].count("/") + 1 < len(self._names)


def _match(patterns: Sequence[re.Pattern[str] | None], names: Sequence[str]) -> bool:
    """Whether the names of a path match one by one; None (`**`) stands for any number of them."""
    reached = {0}
    for pattern in patterns:
        if pattern is None:
            reached = set(range(min(reached), len(names) + 1))
        else:
            reached = {i + 1 for i in reached if i < len(names) and pattern.match(names[i])}
        if not reached:
            return False
    return len(names) in reached


def local_path(given: str) -> str:
    """The path in the form the operating system takes.

    Raises:
        ValueError: It is empty, holds NUL, or is a URI of another kind than `file://` on this machine.
    """
    if not given:
        raise ValueError("the path is empty")
    if "\0" in given:
        raise ValueError("the path holds a NUL character")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", given)
    if scheme is None or os.path.lexists(given):
        return given
    if scheme[1].lower() != "file":
        raise ValueError(f"{scheme[1]}:// addresses are not read")
    parsed = urllib.parse.urlsplit(given)
    if parsed.netloc not in ("", "localhost"):
        raise ValueError(f"the file is on another machine ({parsed.netloc})")
    path = os.fsdecode(urllib.parse.unquote_to_bytes(parsed.path))
    if "\0" in path or not path:
        raise ValueError("the URI names no file")
    return path


def _why_skip_link(path: str, root: str) -> str | None:
    try:
        target = os.path.realpath(path, strict=True)
    except OSError:
        return "a link that leads nowhere"
    if not _lies_in(target, root):
        return "a link that leads out of the folder"
    # The folder it points to is walked by its own name; following the link could go round in circles.
    return "a link to a folder that is read by its own name" if os.path.isdir(target) else None


def _lies_in(path: str, folder: str) -> bool:
    """Whether a path is this folder or below it; both without links."""
    return path == folder or path.startswith(os.path.join(folder, ""))


def _is_readable_format(path: str, *, named: bool) -> bool:
    if formats.by_name(path) is not None:
        return True
    if formats.suffix(path) and not named:
        return False
    # A file without an extension, or one that was named: its content tells.
    try:
        with open(path, "rb") as file:
            head = file.read(formats.HEAD_BYTES)
    except OSError:
        return True  # the reader says what is wrong with it
    return not head or formats.by_content(head, path) is not None


def signature(status: os.stat_result) -> str:
    """Equal for two states of a file only if its bytes can be taken as unchanged.

    A file that changed in the last two seconds can change again within the same tick of the file system's clock;
    its signature equals no other. Source of the method: git's "racy" index entries.
    """
    parts = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    if status.st_ctime_ns > time.time_ns() - _RACY_NS:
        parts.append(secrets.randbits(64))
    return "-".join(map(str, parts))


def _reason(exc: OSError | ValueError) -> str:
    return exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
