"""Native libraries, made ready before the process may no longer write."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile

import kreuzberg

_BLANK_PDF = b"""%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj
trailer<</Root 1 0 R>>
%%EOF
"""


def load_libraries(temporary: str) -> None:
    """Has kreuzberg load its PDF library, which it unpacks to a file first.

    It would look for that file in a place where anybody on this machine could have put another. Here it is written
    to a folder of our own, which is gone once the library is loaded.

    Args:
        temporary: The folder for temporary files.
    """
    folder = tempfile.mkdtemp(prefix="ragline-", dir=_executable(temporary))
    os.environ["TMPDIR"] = folder
    try:
        # Where it cannot be loaded, each PDF says so.
        with contextlib.suppress(Exception):
            kreuzberg.extract_bytes_sync(_BLANK_PDF, "application/pdf", config=kreuzberg.ExtractionConfig(use_cache=False))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _executable(temporary: str) -> str:
    """A folder for temporary files from which a library may be loaded: `/tmp` is often mounted so that none may."""
    for folder in (temporary, "/var/tmp", "/dev/shm"):
        with contextlib.suppress(OSError):
            if os.access(folder, os.W_OK) and not os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0):
                return folder
    return temporary
