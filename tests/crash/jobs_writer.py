"""Run as a process that is killed: submits uploads without end while it works on them, saying on stdout what was accepted.

Usage: python -m tests.crash.jobs_writer FOLDER SEED [PREFIX]: ids begin with PREFIX, so that several may write at once.
Lines: ["ready"]; ["begin", [[id, tag], ...]] before a submission, ["done", {job: [id, tag], ...}] after it; tag None is a deletion.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

from ragline.engine import Engine
from ragline.types import Document, Upload
from tests.engines import engine

KEPT, DELETED = "kept", "deleted"
"""Collections: in the first, documents are uploaded only, so that their versions count what was done."""

IDS = [f"doc-{number:02}" for number in range(30)]
SETTINGS = {"chunking": {"max_tokens": 48}, "jobs": {"max_attempts": 1000}}


def text_of(id: str, tag: int) -> str:
    """A text of its own for each upload; one in four is too long for the store's own row."""
    filler = " far" * 15_000 if tag % 4 == 0 else ""
    return f"common {id} tag{tag}.{filler}"


def source_of(id: str, tag: int) -> Document | Upload:
    if tag % 2:
        return Document(text_of(id, tag), id=id, metadata={"tag": tag})
    return Upload(content=text_of(id, tag).encode(), name=f"{id}.txt", id=id, metadata={"tag": tag})


def say(*line: object) -> None:
    print(json.dumps(line), flush=True)


async def submit(opened: Engine, collection: str, id: str, tag: int) -> tuple[str, list[object]]:
    job = await opened.jobs.submit(source_of(id, tag), collection=collection)
    return job.id, [collection, id, tag]


async def write(folder: Path, seed: int, prefix: str = "") -> None:
    chance = random.Random(seed)
    async with engine(folder, **SETTINGS) as opened:  # type: ignore[arg-type]
        opened.jobs.start()
        say("ready")
        tag = seed * 1_000_000
        while True:
            if chance.random() < 0.15:
                id = prefix + chance.choice(IDS)
                say("begin", [[DELETED, id, None]])
                await opened.delete(id, collection=DELETED)
                say("done", {f"delete {tag}": [DELETED, id, None]})
                continue
            wanted = []
            for id in chance.sample(IDS, chance.randint(1, 8)):
                tag += 1
                wanted.append((chance.choice((KEPT, KEPT, DELETED)), prefix + id, tag))
            say("begin", wanted)
            say("done", dict(await asyncio.gather(*(submit(opened, *each) for each in wanted))))
            await asyncio.sleep(chance.random() * 0.05)


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
