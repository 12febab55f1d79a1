"""Locks and workers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ragline.concurrency.locks import ProcessLock, ReadWriteLock
from ragline.concurrency.workers import Workers, drive


async def test_a_job_on_a_worker_runs_there_and_nested_runs_do_not_hop() -> None:
    workers = Workers("test", 1)

    async def nested() -> tuple[str, str]:
        inner = await workers.run(lambda: threading.current_thread().name)
        return threading.current_thread().name, inner

    try:
        outer, inner = await workers.run(drive, nested())
    finally:
        workers.close()
    assert outer == inner and outer.startswith("test")


async def test_driving_a_coroutine_that_suspends_is_refused() -> None:
    workers = Workers("test", 1)
    try:
        with pytest.raises(RuntimeError, match="not local"):
            await workers.run(drive, asyncio.sleep(0))
    finally:
        workers.close()


def test_readers_share_and_a_writer_is_alone() -> None:
    lock = ReadWriteLock()
    inside = threading.Barrier(3, timeout=5)
    state = {"writing": False, "seen": 0}

    def read() -> None:
        with lock.reading():
            inside.wait()  # all three readers are inside at once, or this times out
            state["seen"] += state["writing"]

    def write() -> None:
        with lock.writing():
            state["writing"] = True
            state["writing"] = False

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join(5)
    writers = [threading.Thread(target=write) for _ in range(3)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join(5)
    assert not any(thread.is_alive() for thread in readers + writers)
    assert state["seen"] == 0


def test_a_waiting_writer_goes_before_new_readers() -> None:
    lock = ReadWriteLock()
    order: list[str] = []
    first_reader_in = threading.Event()
    let_go = threading.Event()

    def first_reader() -> None:
        with lock.reading():
            first_reader_in.set()
            let_go.wait(5)

    def writer() -> None:
        with lock.writing():
            order.append("writer")

    def late_reader() -> None:
        with lock.reading():
            order.append("reader")

    first = threading.Thread(target=first_reader)
    first.start()
    assert first_reader_in.wait(5)
    write = threading.Thread(target=writer)
    write.start()
    while not lock._writers_waiting:
        threading.Event().wait(0.001)
    late = threading.Thread(target=late_reader)
    late.start()
    let_go.set()
    for thread in (first, write, late):
        thread.join(5)
    assert order == ["writer", "reader"]


def test_two_locks_on_one_file_exclude_each_other_in_one_process(tmp_path: Path) -> None:
    first, second = ProcessLock(tmp_path / "lock"), ProcessLock(tmp_path / "lock")
    assert first.acquire() and first.acquire()
    assert not second.acquire()
    first.release()
    first.release()
    assert second.acquire()
    second.release()


def test_a_child_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock = ProcessLock(tmp_path / "lock")
    assert lock.acquire()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        lock.release()
        other = ProcessLock(tmp_path / "lock")
        assert other.acquire()
        other.release()
    finally:
        child.kill()
        child.wait()


def test_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from ragline.concurrency.locks import ProcessLock; "
        "lock = ProcessLock(Path(sys.argv[1])); print(lock.acquire(), flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline().strip() == "True"
        lock = ProcessLock(tmp_path / "lock")
        assert not lock.acquire()
        holder.kill()
        holder.wait()
        assert lock.acquire()
        lock.release()
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()
