"""Run as a second process on a store: writes its own documents and searches all the while.

Usage: python -m tests.crash.engine_peer FOLDER NAME DOCUMENTS
Says "ready" and whether it is the indexer, then after each document its number, then "done" and what it can see at the end.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from ragline.types import Document
from tests.engines import engine


async def write(folder: Path, name: str, documents: int) -> None:
    async with engine(folder) as opened:
        print("ready", (await opened.status()).indexer, flush=True)
        for number in range(documents):
            report = await opened.ingest(Document(text=f"common {name} number{number}", id=f"{name}-{number:04}"))
            result = await opened.search(f"{name} number{number}", top_k=3)
            seen = f"{name}-{number:04}" in {hit.document_id for hit in result}
            print("wrote", number, report.lag, seen, flush=True)
        await asyncio.to_thread(sys.stdin.readline)  # the parent says when all have written; the indexer must go on
        lexical = await opened.search("common", top_k=1000, mode="lexical")
        dense = await opened.search("common", top_k=1000, mode="dense")
        print("done", len({hit.document_id for hit in lexical}), len({hit.document_id for hit in dense}), lexical.lag, flush=True)


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
