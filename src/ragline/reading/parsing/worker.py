"""The parser process: requests come in on standard input, texts go out on what was standard output.

The process limits itself before it opens the first file, and ends when its parent does. Frames: see `frames`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, BinaryIO

from .frames import LENGTH, OUT_OF_MEMORY

if TYPE_CHECKING:
    from .contents import Contents

_PR_SET_PDEATHSIG = 1
_MAX_UNPACKED = 4
_MEMBER_SHARE = 8


def main() -> None:
    """Serves one request after another until standard input ends."""
    settings = json.loads(sys.argv[1])
    requests, responses = _take_pipes()
    _die_with(settings["parent"])
    # Imported when standard output is out of reach: what native libraries print would get between the frames.
    from .contents import Contents
    from .documents import tessdata
    from .libraries import load_libraries

    load_libraries(settings["temporary"])
    _limit(settings["max_memory_bytes"])
    folder = tessdata(settings["ocr_language"], settings["ocr_data_dir"])
    if folder is not None:
        os.environ["TESSDATA_PREFIX"] = folder
    contents = Contents(
        max_package_bytes=_MAX_UNPACKED * settings["max_file_bytes"], ocr_language=settings["ocr_language"] if folder else None
    )
    _send(responses, {"ready": True})
    while (request := _receive(requests)) is not None:
        answer = _answer(request, contents, settings, responses)
        text = answer.pop("text", "")
        _send(responses, {**answer, "memory_bytes": _resident_bytes()}, text)


def _receive(stream: BinaryIO) -> Any:
    """The next frame, or None where the other side has gone."""
    header = stream.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    return json.loads(stream.read(LENGTH.unpack(header)[0]))


def _send(stream: BinaryIO, message: dict[str, Any], text: str = "") -> None:
    for body in (json.dumps(message).encode(), text.encode("utf-8", "replace")):
        stream.write(LENGTH.pack(len(body)) + body)
    stream.flush()


# -- limits ------------------------------------------------------------------------------------------------------------


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Moves the pipes away from the standard streams: native libraries print there."""
    requests, responses = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    return requests, responses


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)  # it died before it could take us along


def _limit(max_memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # whatever a parser wants to write, it cannot
    with contextlib.suppress(OSError):
        os.nice(10)
    if sys.platform == "linux":
        # Counts private writable memory, so it is close to what is used; RLIMIT_AS would count mapped libraries and
        # reserved arenas (480 MB for a one-page PDF). A little above the limit of `_watch`, which can say why.
        allowed = max_memory_bytes + 64 * 1024**2
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    threading.Thread(target=_watch, args=(max_memory_bytes,), daemon=True).start()


def _watch(max_memory_bytes: int) -> None:
    while _resident_bytes() <= max_memory_bytes:
        time.sleep(0.01)
    os._exit(OUT_OF_MEMORY)


def _resident_bytes() -> int:
    if sys.platform == "linux":
        # Not ru_maxrss: on Linux it starts with the peak of the process that started this one.
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# -- reading -----------------------------------------------------------------------------------------------------------


def _answer(request: dict[str, Any], contents: Contents, settings: dict[str, Any], responses: BinaryIO) -> dict[str, Any]:
    from .failures import explain
    from .nested import Budget, LimitError
    from .outlines import OUTLINES, read_outline

    path, media_type = request["path"], request["media_type"]
    budget = Budget(
        max_member_bytes=settings["max_memory_bytes"] // _MEMBER_SHARE,
        bytes_left=_MAX_UNPACKED * settings["max_file_bytes"],
        chars_left=settings["max_text_chars"],
        hidden=settings["hidden"],
        at=lambda member: _send(responses, {"at": member}),
    )
    try:
        with open(path, "rb") as file:
            if media_type in OUTLINES:
                return read_outline(file.read(), media_type)
            # kreuzberg takes no name that is not UTF-8.
            named = path if _is_unicode(path) else f"/dev/fd/{file.fileno()}"
            answer = contents.extract(file, os.path.basename(path), media_type, budget, path=named)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except LimitError as exc:
        return explain(exc, media_type)
    except OSError as exc:
        return {"error": f"it cannot be read: {exc.strerror}", "hint": "check that it exists and that you may read it"}
    if len(answer.get("text", "")) > settings["max_text_chars"]:
        return {
            "error": f"it gives {len(answer['text']):,} characters of text, more than the {settings['max_text_chars']:,} allowed",
            "hint": "raise reading.max_text_chars if the file is sound",
        }
    return answer


def _is_unicode(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
