"""A writer killed with -9 at random points: every acknowledged document is there once, none is half visible."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ragline.engine import Engine
from tests.crash.engine_writer import text_of
from tests.engines import engine, rows_of_views

ROOT = Path(__file__).parents[2]


def run_and_kill(folder: Path, seed: int, changes: int, delay_s: float) -> list[tuple[str, dict[str, int | None]]]:
    """Starts a writer, kills it `delay_s` after it has made some changes, returns what it said."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.engine_writer", str(folder), str(seed)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    try:
        said = [writer.stdout.readline()]
        while sum(line.startswith('["done"') for line in said) < changes:
            said.append(writer.stdout.readline())
            assert said[-1], "the writer died by itself"
        time.sleep(delay_s)
    finally:
        writer.kill()
        rest, _ = writer.communicate()
    lines = [*said, *rest.splitlines()]
    # The last line may be torn: what it would have said was not said.
    whole = lines if rest.endswith("\n") or not rest else lines[:-1]
    return [(kind, change) for kind, change in map(json.loads, whole)]


async def verify(opened: Engine, possible: dict[str, set[int | None]]) -> dict[str, int | None]:
    """Checks that each document is in one of its possible states, whole, in store and views; returns the states."""
    state: dict[str, int | None] = {}
    stored = {document.id: document for document in await opened.documents()}
    for id, tags in possible.items():
        if id not in stored:
            assert None in tags, f"{id} is lost; it was acknowledged as one of {tags}"
            state[id] = None
            continue
        tag = stored[id].metadata["tag"]
        assert tag in tags, f"{id} is {tag}, not one of {tags}"
        assert await opened.text(id) == text_of(id, tag)
        state[id] = tag
    assert set(stored) <= set(possible), "a document that nobody wrote"
    held = await rows_of_views(opened)
    assert held["dense"] == held["store"], "vectors differ from the store"
    assert held["lexical"] == held["store"], "words differ from the store"
    return state


async def prove(folder: Path, kills: int, first_seed: int) -> None:
    chance = random.Random(first_seed)
    state: dict[str, int | None] = {}
    acknowledged = 0
    for seed in range(first_seed, first_seed + kills):
        said = await asyncio.to_thread(run_and_kill, folder, seed, chance.randint(0, 8), chance.uniform(0, 0.1))
        possible = {id: {tag} for id, tag in state.items()}
        for kind, change in said:
            for id, tag in change.items():
                if kind == "begin":
                    possible[id] = possible.get(id, {None}) | {tag}
                else:
                    possible[id] = {tag}
            acknowledged += kind == "done"
        async with engine(folder, chunking={"max_tokens": 48}) as opened:
            state = await verify(opened, possible)
            if seed % 5 == 0:
                before = await rows_of_views(opened)
                await opened.reindex()
                assert await rows_of_views(opened) == before, "views differ from a rebuild"
    assert acknowledged > kills, "the writers hardly wrote: the kills prove nothing"


async def test_forty_kills_lose_double_and_halve_nothing(tmp_path: Path) -> None:
    await prove(tmp_path, kills=40, first_seed=1)


@pytest.mark.soak
async def test_five_hundred_kills_lose_double_and_halve_nothing(tmp_path: Path) -> None:
    await prove(tmp_path, kills=500, first_seed=1000)
