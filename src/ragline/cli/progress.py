"""How far an ingest has come: one line on standard error that keeps changing, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ragline.types import IngestProgress


@contextmanager
def shown_progress() -> Iterator[Callable[[IngestProgress], None] | None]:
    """A callback that draws progress, or None where standard error is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.live import Live
    from rich.text import Text

    from ragline.cli.screen import Screen

    with Live(console=Screen(sys.stderr).console, transient=True, refresh_per_second=5) as live:
        yield lambda progress: live.update(Text(progress_line(progress), no_wrap=True, overflow="ellipsis"))


def progress_line(progress: IngestProgress) -> str:
    """Files, chunks, chunks per second, time left, and what is being read."""
    from ragline.cli.screen import clean, one_line

    total = "?" if progress.sources_total is None else f"{progress.sources_total:,}"
    parts = [f"{progress.sources_done:,}/{total} files", f"{progress.chunks:,} chunks"]
    if progress.seconds > 0:
        parts.append(f"{progress.chunks / progress.seconds:,.0f} chunks/s")
    if progress.sources_total and progress.sources_done:
        left_s = progress.seconds / progress.sources_done * (progress.sources_total - progress.sources_done)
        parts.append(f"{_duration(left_s)} left")
    return ", ".join(parts) + (f"  {one_line(clean(progress.current))}" if progress.current else "")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
