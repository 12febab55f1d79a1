"""The figures of this process and of those that serve beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ragline.engine import Engine
from ragline.errors import RaglineError
from ragline.server.figure_files import WRITE_EVERY_S, FigureFiles, has_siblings
from ragline.server.figures import Figures
from ragline.server.metrics import RequestCounts, figures_of

_log = logging.getLogger("ragline.server")


class SharedFigures:
    """Whichever process of a server is asked, it answers for all of them.

    Args:
        folder: Where the processes leave their figures for each other; not made where there is but one.
    """

    def __init__(self, folder: Path) -> None:
        self._files = FigureFiles(folder) if has_siblings() else None

    async def whole(self, engine: Engine, requests: RequestCounts) -> Figures:
        """The figures of all processes: this one's of now, the others' of a second ago at most."""
        figures = await figures_of(engine, requests)
        if self._files is not None:
            figures.add(await asyncio.to_thread(self._files.others))
        return figures

    @asynccontextmanager
    async def shared(self, engine: Engine, requests: RequestCounts) -> AsyncIterator[None]:
        """Tells the others of this process while it lasts, and leaves them what it counted."""
        if self._files is None:
            yield
            return
        await asyncio.to_thread(self._files.begin)
        writing = asyncio.create_task(self._write(self._files, engine, requests))
        try:
            yield
        finally:
            writing.cancel()
            await asyncio.wait((writing,))
            await asyncio.to_thread(self._files.end, await figures_of(engine, requests))

    async def _write(self, files: FigureFiles, engine: Engine, requests: RequestCounts) -> None:
        while True:
            try:
                await asyncio.to_thread(files.write, await figures_of(engine, requests))
            except (OSError, RaglineError) as fault:
                _log.warning("the figures of this process could not be written down: %s", fault)
            await asyncio.sleep(WRITE_EVERY_S)
