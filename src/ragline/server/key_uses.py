"""When keys were last used: noted in passing, written down now and then, so that no request waits for it."""

from __future__ import annotations

import asyncio
import logging
import time

from ragline.errors import RaglineError
from ragline.storage.keys import Keys, StoredKey

WRITTEN_EVERY_S = 60.0

_log = logging.getLogger("ragline.server")


class KeyUses:
    """The uses of keys since they were last written down."""

    def __init__(self) -> None:
        self._used: dict[str, float] = {}

    def note(self, key: StoredKey) -> None:
        """A key was used just now."""
        self._used[key.id] = time.time()

    async def keep_written(self, keys: Keys) -> None:
        """Writes the uses into the store once a minute, for ever, and once more when it is cancelled."""
        try:
            while True:
                await asyncio.sleep(WRITTEN_EVERY_S)
                await self.write(keys)
        finally:
            await self.write(keys)

    async def write(self, keys: Keys) -> None:
        """Writes them down now. A store that cannot be written costs the note, nothing else."""
        used, self._used = self._used, {}
        try:
            if used:
                await keys.used(used)
        except RaglineError as failure:
            _log.warning("the last use of keys cannot be noted: %s", failure.message)
