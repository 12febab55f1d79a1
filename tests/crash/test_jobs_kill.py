"""A server's work killed with -9 at random points: every accepted upload is done exactly once, and in order."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ragline.engine import Engine
from ragline.storage.jobs import Job
from tests.crash.jobs_writer import DELETED, KEPT, SETTINGS, text_of
from tests.engines import engine

ROOT = Path(__file__).parents[2]


def run_and_kill(folder: Path, seed: int, submissions: int, delay_s: float, prefix: str = "") -> list[list[Any]]:
    """Starts a writer, kills it `delay_s` after it has submitted some uploads, returns what it said."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.jobs_writer", str(folder), str(seed), prefix], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    try:
        said = [writer.stdout.readline()]
        while sum(line.startswith('["done"') for line in said) < submissions:
            said.append(writer.stdout.readline())
            assert said[-1], "the writer died by itself"
        time.sleep(delay_s)
    finally:
        writer.kill()
        rest, _ = writer.communicate()
    lines = "".join([*said, rest]).split("\n")[:-1]  # the last line may be torn: what it would have said was not said
    return [json.loads(line) for line in lines]


@dataclass
class Account:
    """What was acknowledged, over all lives of the process.

    Attributes:
        accepted: The document of each job, by the job's id.
        last: The tags that each document may have in the end; more than one where the process died before it could say.
    """

    accepted: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    last: dict[tuple[str, str], set[int | None]] = field(default_factory=dict)

    def take(self, said: list[list[Any]]) -> None:
        begun: dict[tuple[str, str], int | None] = {}
        for kind, *rest in said:
            if kind == "begin":
                begun = {(collection, id): tag for collection, id, tag in rest[0]}
            elif kind == "done":
                for job, (collection, id, tag) in rest[0].items():
                    self.last[collection, id] = {tag}
                    if tag is not None:
                        self.accepted[job] = (collection, id, tag)
                begun = {}
        for key, tag in begun.items():  # it may have been accepted, or not
            self.last[key] = self.last.get(key, {None}) | {tag}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits for what is done in the background, two minutes at most."""
    for _ in range(6000):
        if await condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come about")


async def all_ended(opened: Engine) -> bool:
    counted = await opened.store.jobs.counts()
    return not counted.queued and not counted.running


async def nothing_discarded(opened: Engine) -> bool:
    return not await opened.store.jobs.discarded()


async def jobs_of(opened: Engine) -> dict[str, Job]:
    """Every job with its files, once all have ended."""
    opened.jobs.start()
    await until(lambda: all_ended(opened))
    found: dict[str, Job] = {}
    after = ""
    while page := await opened.jobs.list(after=after, limit=1000):
        after = page[-1].id
        for job in page:
            found[job.id] = await opened.jobs.get(job.id)
    return found


async def verify(opened: Engine, account: Account, folder: Path) -> int:
    """Checks everything; returns how many files a death left in the folder before their job was accepted."""
    jobs = await jobs_of(opened)
    assert set(account.accepted) <= set(jobs), "an accepted upload is lost"
    done: dict[tuple[str, str], int] = {}
    for job in jobs.values():
        (file,) = job.files
        if job.collection == KEPT:
            assert (job.state, file.error) == ("succeeded", ""), (job.state, file)
        else:
            assert job.state in ("succeeded", "cancelled"), (job.state, file)
        if file.outcome in ("added", "replaced"):
            done[job.collection, file.document_id] = done.get((job.collection, file.document_id), 0) + 1
    for collection in (KEPT, DELETED):
        stored = {document.id: document for document in await opened.documents(collection=collection)}
        for (of, id), tags in account.last.items():
            if of != collection:
                continue
            tag = stored[id].metadata["tag"] if id in stored else None
            assert tag in tags, f"{id} of {collection} is {tag}, not one of {tags}: order was not kept"
            if tag is not None:
                assert await opened.text(id, collection=collection) == text_of(id, tag)
            if collection == KEPT and tag is not None:
                assert stored[id].version == done[KEPT, id], "an upload was done twice, or not at all"
    orphans = await opened._resources.uploads.sweep(opened.store.jobs, older_than_s=-1)
    await until(lambda: nothing_discarded(opened))
    assert [name for _, _, names in os.walk(folder / "uploads") for name in names] == []
    return orphans


async def prove(folder: Path, kills: int, first_seed: int) -> dict[str, int]:
    chance = random.Random(first_seed)
    account = Account()
    interrupted = 0
    for seed in range(first_seed, first_seed + kills):
        said = await asyncio.to_thread(run_and_kill, folder, seed, chance.choice((0, 0, 1, 2, 5, 9)), chance.uniform(0, 0.2))
        account.take(said)
    async with engine(folder, **SETTINGS) as opened:  # type: ignore[arg-type]
        orphans = await verify(opened, account, folder)
        attempts = [job.attempts for job in (await jobs_of(opened)).values()]
        interrupted = sum(each > 1 for each in attempts)
    assert len(account.accepted) > kills, "hardly anything was accepted: the kills prove nothing"
    return {"kills": kills, "accepted": len(account.accepted), "jobs": len(attempts), "begun_again": interrupted, "orphans": orphans}


async def test_ten_kills_lose_double_and_mix_up_no_upload(tmp_path: Path) -> None:
    figures = await prove(tmp_path, kills=10, first_seed=1)
    assert figures["begun_again"] > 0, "no kill hit a job: the kills prove nothing"


async def test_of_processes_on_one_store_another_works_on_when_the_one_that_works_is_killed(tmp_path: Path) -> None:
    account = Account()

    async def lives(prefix: str, seeds: range) -> None:
        for seed in seeds:
            account.take(await asyncio.to_thread(run_and_kill, tmp_path, seed, 6, 0.05, prefix))

    await asyncio.gather(lives("a-", range(1, 3)), lives("b-", range(11, 12)))
    async with engine(tmp_path, **SETTINGS) as opened:  # type: ignore[arg-type]
        await verify(opened, account, tmp_path)
    assert len(account.accepted) > 20


@pytest.mark.soak
async def test_three_hundred_kills_lose_double_and_mix_up_no_upload(tmp_path: Path) -> None:
    figures = await prove(tmp_path, kills=300, first_seed=1000)
    print(figures)
    assert figures["begun_again"] > 100
