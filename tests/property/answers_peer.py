"""Another process that writes to the store of `test_answers_never_stale`: a line a change, `done` after each."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from ragline.engine import Engine
from ragline.settings import Settings
from ragline.types import Document
from tests.embedders import HashEmbedder


async def main(folder: Path) -> None:
    lines: asyncio.StreamReader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with Engine.open(folder, settings=Settings(), embedder=HashEmbedder()) as engine:
        print("done", flush=True)
        while line := (await lines.readline()).decode().rstrip("\n"):
            what, tenant, id, *rest = line.split("\t")
            if what == "put":
                await engine.tenant(tenant).ingest(Document(rest[0], id=id, metadata={"year": int(rest[1])}))
            else:
                await engine.tenant(tenant).delete(id)
            print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
