"""The parser process: requests come in on standard input, texts go out on what was standard output.

The process limits itself before it opens the first file, and ends when its parent does. Frames: see `frames`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import sys
import threading
import time
from typing import Any, BinaryIO

from . import formats
from .book import read_book
from .documents import EncryptedError, configuration, read_document, tessdata
from .frames import LENGTH, OUT_OF_MEMORY
from .mail import read_mail
from .markup import read_markup
from .packages import UnreadableError
from .texts import NotTextError, decode
from .word import read_word

_PR_SET_PDEATHSIG = 1
_MAX_UNPACKED = 4
_ENCRYPTED = {"error": "it is encrypted", "hint": "save it without a password"}
_OCR_HINT = "install tesseract's language data (Debian and Ubuntu: apt install tesseract-ocr-eng; macOS: brew install tesseract)"

# kreuzberg repeats the names of its error classes before what went wrong.
_NOISE = re.compile(r"^(?:\w*Error: |Invalid PDF: )+")


def main() -> None:
    """Serves one request after another until standard input ends."""
    settings = json.loads(sys.argv[1])
    requests, responses = _take_pipes()
    _limit(settings["max_memory_bytes"], settings["parent"])
    folder = tessdata()
    if folder:
        os.environ["TESSDATA_PREFIX"] = folder
    settings["kreuzberg"] = configuration()
    _send(responses, {"ready": True})
    while (request := _receive(requests)) is not None:
        _send(responses, {**_answer(request, settings), "memory_bytes": _resident_bytes()})


def _receive(stream: BinaryIO) -> Any:
    """The next frame, or None where the other side has gone."""
    header = stream.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    return json.loads(stream.read(LENGTH.unpack(header)[0]))


def _send(stream: BinaryIO, message: dict[str, Any]) -> None:
    body = json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")
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


def _limit(max_memory_bytes: int, parent: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # whatever a parser wants to write, it cannot
    with contextlib.suppress(OSError):
        os.nice(10)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)  # it died before it could take us along
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


def _answer(request: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    media_type = request["media_type"]
    try:
        with open(request["path"], "rb") as file:
            if media_type not in (formats.HTML, formats.MAIL):
                media_type = formats.inside(file, media_type)
            if media_type == formats.ENCRYPTED:
                raise EncryptedError
            if media_type == formats.UNKNOWN_CONTAINER:
                return {"error": "it is an archive or an office file of a kind that ragline does not read", "hint": formats.HINT}
            answer = _read(request["path"], file, media_type, settings)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except EncryptedError:
        return _ENCRYPTED
    except (UnreadableError, NotTextError) as exc:
        return {"error": str(exc), "hint": "open it in its own program and save it again"}
    except Exception as exc:  # whatever a parser raises concerns this file only
        return _explain(exc, media_type)
    if len(answer["text"]) > settings["max_text_chars"]:
        return {
            "error": f"it gives {len(answer['text']):,} characters of text, more than the {settings['max_text_chars']:,} allowed",
            "hint": "raise reading.max_text_chars if the file is sound",
        }
    if not answer["text"].strip():
        return _without_text(media_type)
    return {**answer, "media_type": media_type}


def _read(path: str, file: BinaryIO, media_type: str, settings: dict[str, Any]) -> dict[str, Any]:
    if media_type == formats.HTML or media_type == formats.MAIL:
        file.seek(0)
        data = file.read()
        return read_mail(data) if media_type == formats.MAIL else read_markup(decode(data, markup=True).text)
    if not _is_unicode(path):
        path = f"/dev/fd/{file.fileno()}"  # kreuzberg takes no name that is not UTF-8
        file.seek(0)
    if media_type == formats.EPUB:
        return read_book(path, max_bytes=_MAX_UNPACKED * settings["max_file_bytes"])
    if media_type == formats.DOCX:
        return read_word(path, max_bytes=_MAX_UNPACKED * settings["max_file_bytes"])
    return read_document(path, media_type, settings["kreuzberg"])


def _is_unicode(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _explain(exc: Exception, media_type: str) -> dict[str, Any]:
    message = " ".join(str(exc).split())
    lower = message.lower()
    if "password" in lower or "encrypt" in lower or "decrypt" in lower:
        return _ENCRYPTED
    if "tesseract" in lower or "ocr" in type(exc).__name__.lower():
        return {"error": "it is an image, and there is no text recognition here", "hint": _OCR_HINT}
    reason = _NOISE.sub("", message)[:300]
    if " " not in reason:
        reason = "it is damaged, or no such file"
    return {"error": f"it cannot be parsed as {media_type}: {reason}", "hint": "open it in its own program and save it again"}


def _without_text(media_type: str) -> dict[str, Any]:
    if media_type == formats.PDF or media_type.startswith("image/"):
        if tessdata() is None:
            return {"error": "it holds no text, only images or drawings", "hint": f"if it is a scan, {_OCR_HINT}"}
        return {"error": "it holds no text, and none was recognised in its images", "hint": "a sharper scan may help"}
    return {"error": "it holds no text", "hint": "there is nothing to ingest"}
