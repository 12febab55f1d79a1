"""Run as one of several processes on a store: writes, replaces, deletes and searches its own documents until it is killed.

Usage: python -m tests.crash.follower_peer FOLDER NAME SEED
Says on stdout, one JSON list a line: ["ready", whether it is the indexer], ["indexer"] once it has become that, ["begin", changes]
and ["done", changes] around each change, and ["seen", ids] of its own documents after a search without lag.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any, get_args

from ragline.index import follower, vectors, views
from ragline.retrieval.hybrid import Mode
from ragline.types import Document
from tests.engines import engine

# A disk may stall for longer than a write waits by default: here that is no failure.
SETTINGS: Any = {"chunking": {"max_tokens": 48}, "index": {"exact_below": 100}, "storage": {"busy_timeout_s": 120}}
DOCUMENTS = 12


def text_of(id: str, tag: str) -> str:
    """A text of one to three chunks, each with the word "common" and the tag."""
    parts = 1 + int(id.rpartition("-")[2]) % 3
    return "\n\n".join(f"# part {part}\n\ncommon {id} tag{tag} " + "filler " * 24 for part in range(parts))


def often() -> None:
    """Snapshots, pruning, training and compaction come after few rows, so that kills meet them."""
    views.SNAPSHOT_ROWS = 60
    follower.CLOSING_SNAPSHOT_ROWS = 20
    vectors._COMPACTION_ROWS = 40


def say(*what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def live(folder: Path, name: str, seed: int) -> None:
    chance = random.Random(seed)
    change = 0
    async with engine(folder, **SETTINGS) as opened:
        indexes = (await opened.status()).indexer == "this process"
        say("ready", indexes)
        while True:
            if not indexes and (await opened.status()).indexer == "this process":
                indexes = True
                say("indexer")
            change += 1
            ids = chance.sample([f"{name}-{number}" for number in range(DOCUMENTS)], chance.randint(1, 4))
            tag = None if chance.random() < 0.2 else f"{seed}x{change}"
            say("begin", dict.fromkeys(ids, tag))
            if tag is None:
                await opened.delete(ids)
            else:
                await opened.ingest([Document(text=text_of(id, tag), id=id, metadata={"tag": tag}) for id in ids])
            say("done", dict.fromkeys(ids, tag))
            found = await opened.search("common", top_k=1000, mode=chance.choice(get_args(Mode)))
            if found.lag == 0:
                say("seen", sorted({hit.document_id for hit in found if hit.document_id.startswith(f"{name}-")}))


if __name__ == "__main__":
    often()
    asyncio.run(live(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
