"""Which file is it? What tells a file from another one in its place, a copy or a backup."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_AT_FDCWD = -100
_STATX_BTIME = 0x800
_STATX_BYTES = 256
_BTIME_OFFSET = 80


def file_identity(file: Path) -> str:
    """Device, inode, and when the file was made, where the system tells: a file made after another was deleted often gets its inode.

    Raises:
        OSError: There is no such file.
    """
    status = os.stat(file)
    born = getattr(status, "st_birthtime", None) or _born(file)
    return f"{status.st_dev}:{status.st_ino}:{born}"


def _born(file: Path) -> str:
    """Seconds and nanoseconds by Linux's statx (statx(2)), which `os.stat` does not ask; "" where neither it nor the file system tells."""
    try:
        statx = ctypes.CDLL(None).statx
    except (AttributeError, OSError, TypeError):  # the last one on Windows
        return ""
    told = ctypes.create_string_buffer(_STATX_BYTES)
    if statx(_AT_FDCWD, os.fsencode(file), 0, _STATX_BTIME, told) != 0:
        return ""
    (mask,) = struct.unpack_from("I", told)
    seconds, nanoseconds = struct.unpack_from("qI", told, _BTIME_OFFSET)
    return f"{seconds}.{nanoseconds:09}" if mask & _STATX_BTIME else ""
