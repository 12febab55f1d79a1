"""A parser that crashes, hangs or grows costs the file it was reading, and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from ragline.errors import BackendError, ReadError
from ragline.reading.reader import FileReader
from ragline.settings import ReadingSettings
from tests.documents import paragraph, write_docx, write_epub, write_pdf
from tests.odd_pdfs import BUILT


@pytest.fixture
def page(tmp_path: Path) -> str:
    (tmp_path / "a.html").write_text("<p>Keys rotate.</p>")
    return str(tmp_path / "a.html")


@pytest_asyncio.fixture
async def reader() -> AsyncIterator[FileReader]:
    reader = FileReader(ReadingSettings(workers=1, timeout_s=60))
    yield reader
    await reader.close()


async def started(reader: FileReader, page: str) -> int:
    """The parser process of a reader with one worker, warm and stopped: what it is given next, it does not finish."""
    await reader.read(page)
    (pid,) = reader.pids
    os.kill(pid, signal.SIGSTOP)
    return pid


async def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_crash_while_parsing_costs_that_file_only(reader: FileReader, page: str, tmp_path: Path) -> None:
    slow = str(tmp_path / "slow.html")
    await asyncio.to_thread(Path(slow).write_bytes, b"<p>a" * 3_000_000)
    reading = asyncio.create_task(reader.read(slow))
    await wait_until(lambda: any(slow in str(psutil.Process(pid).open_files()) for pid in reader.pids))
    os.kill(reader.pids[0], signal.SIGKILL)
    with pytest.raises(ReadError, match=r"the parser crashed on it \(SIGKILL\)"):
        await reading
    assert (await reader.read(page)).text == "Keys rotate."


async def test_a_parser_that_dies_of_something_else_does_not_cost_the_file(reader: FileReader, page: str) -> None:
    pid = await started(reader, page)
    reading = asyncio.create_task(reader.read(page))
    await asyncio.sleep(0.2)
    os.kill(pid, signal.SIGKILL)
    assert (await reading).text == "Keys rotate."
    assert reader.pids != [pid]
    os.kill(reader.pids[0], signal.SIGKILL)
    assert (await reader.read(page)).text == "Keys rotate."


async def test_a_hang_ends_with_the_time_allowed_and_other_files_go_on(page: str) -> None:
    reader = FileReader(ReadingSettings(workers=2, timeout_s=1.5))
    try:
        stuck = await started(reader, page)
        hanging = asyncio.create_task(reader.read(page))
        await asyncio.sleep(0.1)
        others = [await reader.read(page) for _ in range(5)]
        assert [read.text for read in others] == ["Keys rotate."] * 5
        with pytest.raises(ReadError, match=r"parsing took longer than 1.5 s"):
            await hanging
        assert not psutil.pid_exists(stuck)
    finally:
        await reader.close()


async def test_a_file_that_takes_too_much_memory_is_given_up(tmp_path: Path, page: str) -> None:
    bomb = tmp_path / "bomb.html"
    bomb.write_bytes(b"<p>" + b"a" * 60_000_000)
    reader = FileReader(ReadingSettings(workers=1, max_memory_bytes=100 * 2**20))
    try:
        with pytest.raises(ReadError, match=r"parsing took more than 100 MB of memory") as caught:
            await reader.read(str(bomb))
        assert "reading.max_memory_bytes" in caught.value.hint
        assert (await reader.read(page)).text == "Keys rotate."
    finally:
        await reader.close()


@pytest.mark.parametrize("kind", ["docx", "epub"])
async def test_a_file_that_unpacks_without_end_is_given_up(tmp_path: Path, page: str, kind: str) -> None:
    bomb = tmp_path / f"bomb.{kind}"
    if kind == "docx":
        write_docx(bomb, paragraph("a" * 200) * 1_000_000)
    else:
        write_epub(bomb, ["<p>" + "a" * 300_000_000])
    assert bomb.stat().st_size < 2_000_000
    reader = FileReader(ReadingSettings(workers=1, max_memory_bytes=128 * 2**20, max_file_bytes=10 * 2**20))
    try:
        with pytest.raises(ReadError):
            await reader.read(str(bomb))
        assert (await reader.read(page)).text == "Keys rotate."
    finally:
        await reader.close()


async def test_a_reader_that_is_closed_ends_its_parsers_and_what_they_read(page: str) -> None:
    reader = FileReader(ReadingSettings(workers=1))
    pid = await started(reader, page)
    reading = asyncio.create_task(reader.read(page))
    await asyncio.sleep(0.2)
    await reader.close()
    await reader.close()
    with pytest.raises(BackendError, match="closed"):
        await reading
    assert not psutil.pid_exists(pid)


async def test_parsers_write_nothing_and_know_nothing_of_the_environment(
    reader: FileReader, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.chdir(tmp_path)
    await reader.read(page)
    await reader.read(str(write_docx(tmp_path / "a.docx", paragraph("Keys"))))
    process = psutil.Process(reader.pids[0])
    assert "SECRET_TOKEN" not in process.environ()
    assert process.cwd() == "/"
    assert sorted(os.listdir(tmp_path)) == ["a.docx", "a.html"]
    assert process.rlimit(psutil.RLIMIT_FSIZE) == (0, 0) if sys.platform == "linux" else True


HOST = """
import asyncio, sys
from ragline.reading.reader import FileReader
from ragline.settings import ReadingSettings

async def main():
    reader = FileReader(ReadingSettings(workers=1))
    await reader.read(sys.argv[1])
    print(reader.pids[0], flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a stopped process cannot see that its pipe was closed")
async def test_parsers_die_with_the_process_that_started_them_even_while_they_hang(page: str) -> None:
    host = await asyncio.create_subprocess_exec(sys.executable, "-c", HOST, page, stdout=subprocess.PIPE)
    assert host.stdout is not None
    parser = psutil.Process(int(await host.stdout.readline()))
    parser.suspend()
    host.kill()
    await host.wait()
    await wait_until(lambda: not parser.is_running() or parser.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.skipif(sys.platform != "linux", reason="open files are counted in /proc")
async def test_parsers_inherit_no_file_of_ours_and_no_lock(reader: FileReader, page: str, tmp_path: Path) -> None:
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(lock, True)  # as a careless library opens its files
    try:
        await reader.read(page)
        await reader.read(str(write_docx(tmp_path / "a.docx", paragraph("Keys"))))
        own = f"/proc/{reader.pids[0]}"
        held = [os.readlink(f"{own}/fd/{fd}") for fd in os.listdir(f"{own}/fd")]
        # Now and then it looks how much memory it has.
        assert {name for name in held if name.startswith("/") and name != f"{own}/statm"} == {"/dev/null"}
    finally:
        os.close(lock)


async def test_a_poisoned_file_costs_its_neighbours_nothing(tmp_path: Path, page: str) -> None:
    reader = FileReader(ReadingSettings(workers=2))
    poison = tmp_path / "poison.pdf"
    poison.write_bytes(BUILT["names in a circle"]())
    try:
        results = await asyncio.gather(*(reader.read(str(poison) if n % 10 == 5 else page) for n in range(40)), return_exceptions=True)
    finally:
        await reader.close()
    assert [result.text for result in results if not isinstance(result, BaseException)] == ["Keys rotate."] * 36
    failures = [result for result in results if isinstance(result, BaseException)]
    assert all(isinstance(failure, ReadError) and failure.hint for failure in failures)


async def test_nothing_is_left_in_the_folder_for_temporary_files(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    reader = FileReader(ReadingSettings(workers=1))
    try:
        # Where there is no library for PDFs yet, it is unpacked, loaded and removed before the parser may not write any more.
        assert (await reader.read(str(write_pdf(tmp_path / "a.pdf", [[(10, "Keys rotate.")]])))).text == "Keys rotate."
        assert os.listdir(temporary) == []
    finally:
        await reader.close()


NOISY = """
import os, sys
sys.path[:0] = sys.argv[2:]
from parsing import worker
take = worker._take_pipes

def take_noisily():
    pipes = take()
    os.write(1, b"native noise"), os.write(2, b"native noise")
    print("noise", flush=True)
    return pipes

worker._take_pipes = take_noisily
worker.main()
"""


async def test_what_libraries_print_does_not_come_between_the_frames(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragline.reading.processes._BOOT", NOISY)
    reader = FileReader(ReadingSettings(workers=1))
    try:
        assert (await reader.read(page)).text == "Keys rotate."
    finally:
        await reader.close()
