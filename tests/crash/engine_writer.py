"""Run as a process that is killed: writes documents without end, saying on stdout what it is about to do and what is done.

Usage: python -m tests.crash.engine_writer FOLDER SEED
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

from ragline.types import Document
from tests.engines import engine

IDS = [f"doc-{number:02}" for number in range(40)]


def text_of(id: str, tag: int) -> str:
    """A text of one to four chunks of 48 tokens, each with the word "common" and the tag."""
    parts = 1 + (tag + int(id[-2:])) % 4
    return "\n\n".join(f"# {id} part {part}\n\ncommon {id} tag{tag} " + f"filler{tag % 7} " * 24 for part in range(parts))


def say(kind: str, change: dict[str, int | None]) -> None:
    sys.stdout.write(json.dumps([kind, change]) + "\n")
    sys.stdout.flush()


async def write(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with engine(folder, chunking={"max_tokens": 48}, index={"exact_below": 10_000}) as opened:
        say("ready", {})
        while True:
            tag = chance.randrange(1_000_000)
            if chance.random() < 0.25:
                ids = chance.sample(IDS, chance.randint(1, 5))
                say("begin", dict.fromkeys(ids))
                await opened.delete(ids)
                say("done", dict.fromkeys(ids))
            else:
                ids = chance.sample(IDS, chance.randint(1, 12))
                say("begin", dict.fromkeys(ids, tag))
                await opened.ingest([Document(text=text_of(id, tag), id=id, metadata={"tag": tag}) for id in ids])
                say("done", dict.fromkeys(ids, tag))


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2])))
