"""Figures of all processes of one server: each writes its own down once a second, and whoever is asked adds them up.

A process that dies leaves what it counted, short of its last second; counts never go back.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragline.concurrency.locks import ProcessLock
from ragline.server.figures import Figures

_log = logging.getLogger("ragline.server")

WRITE_EVERY_S = 1.0

_ENDED = "ended.json"
_LEFT_S = 3600.0
"""A server whose processes have all been gone for so long does not come back."""


def has_siblings() -> bool:
    """Whether this process is one of several that serve: uvicorn's or gunicorn's."""
    return multiprocessing.parent_process() is not None or "gunicorn.arbiter" in sys.modules


class FigureFiles:
    """The folder in which the processes of one server, which have one parent, keep their figures. Blocks: use it on a thread.

    Args:
        folder: Of all servers over one store.
    """

    def __init__(self, folder: Path) -> None:
        self._all = folder
        self._folder = folder / _name_of_parent()
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._alive = ProcessLock(self._folder / f"{self._name}.lock")

    def begin(self) -> None:
        """Makes a place for this process, and tidies up after those that have ended."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._alive.acquire():
            raise AssertionError("a name that was just made up was taken")
        for other in self._all.iterdir():
            if other != self._folder and not _in_use(other):
                _remove(other)
        with self._tidying() as mine:
            if mine:
                self._sum_up_ended()

    def write(self, figures: Figures) -> None:
        """Writes this process's figures down, whole or not at all."""
        _write(self._folder / f"{self._name}.json", figures.to_plain())

    def others(self) -> Figures:
        """Those of all other processes of this server, ended ones included."""
        for attempt in range(3):
            ended = _read_ended(self._folder)
            total = Figures()
            total.add(ended.figures, alive=False)
            for file in sorted(self._folder.glob("*.json")):
                if file.name != _ENDED and file.stem not in (self._name, *ended.of) and (figures := _read(file)) is not None:
                    total.add(figures, alive=_lives(file))
            if attempt == 2 or _read_ended(self._folder).of == ended.of:  # else one was summed up meanwhile, and may be missing
                break
        return total

    def end(self, figures: Figures) -> None:
        """Leaves this process's figures to the others."""
        self.write(figures)
        self._alive.release()

    def _sum_up_ended(self) -> None:
        ended = _read_ended(self._folder)
        gone = [file for file in self._folder.glob("*.json") if file.name != _ENDED and not _lives(file)]
        fresh = [file for file in gone if file.stem not in ended.of]
        for file in fresh:
            figures = _read(file)
            if figures is not None:
                ended.figures.add(figures, alive=False)
        if fresh:
            _write(self._folder / _ENDED, {"of": [file.stem for file in gone], **ended.figures.to_plain()})
        for file in gone:
            file.unlink(missing_ok=True)
            file.with_suffix(".lock").unlink(missing_ok=True)

    @contextlib.contextmanager
    def _tidying(self) -> Iterator[bool]:
        """Whether this process may: one at a time does."""
        lock = ProcessLock(self._folder / "tidying")
        held = lock.acquire()
        try:
            yield held
        finally:
            if held:
                lock.release()


def _name_of_parent() -> str:
    """Of the process whose children serve: its number, and when it began, for numbers are given again."""
    parent = os.getppid()
    try:
        began = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):  # not Linux
        began = ""
    return f"{parent}-{began}".rstrip("-")


def _lives(file: Path) -> bool:
    """Whether the process whose figures these are holds its lock."""
    if file.name == _ENDED:
        return False
    lock = ProcessLock(file.with_suffix(".lock"))
    if not lock.acquire():
        return True
    lock.release()
    return False


def _in_use(folder: Path) -> bool:
    newest = max((file.stat().st_mtime for file in folder.glob("*.json")), default=folder.stat().st_mtime)
    return time.time() - newest < _LEFT_S or any(_lives(file) for file in folder.glob("*.json"))


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            file.unlink(missing_ok=True)
        folder.rmdir()


def _write(file: Path, plain: Mapping[str, Any]) -> None:
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps(plain))
    temporary.replace(file)


@dataclass(frozen=True, slots=True)
class _Ended:
    """What processes that have ended counted together, and those of them whose own files may still be there."""

    figures: Figures
    of: tuple[str, ...]


def _read_ended(folder: Path) -> _Ended:
    try:
        plain = json.loads((folder / _ENDED).read_text())
        return _Ended(Figures.of_plain(plain), tuple(plain["of"]))
    except FileNotFoundError:
        return _Ended(Figures(), ())
    except (OSError, ValueError, LookupError, TypeError) as fault:
        _log.warning("the figures of processes that have ended cannot be read: %s", fault)
        return _Ended(Figures(), ())


def _read(file: Path) -> Figures | None:
    try:
        return Figures.of_plain(json.loads(file.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as fault:
        _log.warning("figures in %s cannot be read: %s", file, fault)
        return None
