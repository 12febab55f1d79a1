"""`ragline serve` as a process of its own, to be measured from outside."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ragline.errors import BackendError

_LISTENING = re.compile(r"listening on (http://\S+)")


@contextmanager
def served(data_dir: Path, settings: Sequence[str] = ()) -> Iterator[str]:
    """Runs the server over a data folder while it lasts; gives its URL.

    Args:
        settings: As after `--set`.

    Raises:
        BackendError: It ended before it listened.
    """
    command = [sys.executable, "-m", "ragline", "serve", "--data-dir", str(data_dir), "--port", "0"]
    command += [part for setting in settings for part in ("--set", setting)]
    log = data_dir / "serve.log"
    with log.open("w") as written:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=written, stderr=subprocess.STDOUT)
    try:
        yield _url(process, log)
    finally:
        process.terminate()
        process.wait()


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    while True:
        ended = process.poll() is not None
        if found := _LISTENING.search(log.read_text(encoding="utf-8")):
            return found[1]
        if ended:
            raise BackendError(f"`ragline serve` ended with {process.returncode}: {log.read_text(encoding='utf-8')[-500:]}")
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
