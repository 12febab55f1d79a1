"""The lexical index under kill -9, damage, a full disk, and readers in other processes.

Run as a program, this file is the process that is killed: it writes commit after commit, each a pure function of its
log position, and says so on standard output.
"""

from __future__ import annotations

import random
import resource
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ragline.errors import BackendError, CorruptionError
from ragline.index.lexical import LexicalIndex

ROWS_A_COMMIT = 5
GENERATION_EVERY = 17
NOTHING = np.empty(0, np.int64)


def opened(folder: Path, *, writable: bool) -> LexicalIndex | None:
    return LexicalIndex.open(folder, incarnation="store-1", language="english", writable=writable)


def writer_of(folder: Path) -> LexicalIndex:
    index = opened(folder, writable=True)
    assert index is not None
    return index


def rows_at(lsn: int) -> list[int]:
    """The rows that live at a log position: five come with each, and one of those of three positions ago goes."""
    return [row for row in range(lsn * ROWS_A_COMMIT) if not (row % ROWS_A_COMMIT == 2 and row // ROWS_A_COMMIT + 3 <= lsn - 1)]


def passage(row: int) -> str:
    return f"everywhere word{row % 7} only{row}"


def apply(index: LexicalIndex, lsn: int) -> None:
    """The changes that lead from `lsn - 1` to `lsn`."""
    added = np.arange((lsn - 1) * ROWS_A_COMMIT, lsn * ROWS_A_COMMIT)
    removed = np.array([(lsn - 4) * ROWS_A_COMMIT + 2] if lsn >= 4 else [], np.int64)
    index.apply(removed, added, [passage(row) for row in added.tolist()])


def assert_stands_at(index: LexicalIndex, lsn: int) -> None:
    assert index.lsn == lsn
    rows, _ = index.search("everywhere", 10**6)
    assert sorted(rows.tolist()) == rows_at(lsn)


def write_forever(folder: Path) -> None:
    index = writer_of(folder)
    for lsn in range(index.lsn + 1, 10**6):
        if lsn % GENERATION_EVERY == 0:
            fresh = index.begin_generation()
            rows = rows_at(lsn - 1)
            fresh.apply(NOTHING, np.array(rows), [passage(row) for row in rows])
            fresh.commit(lsn - 1)
            index.publish_generation(fresh)
            fresh.reload()
            index = fresh
        apply(index, lsn)
        index.commit(lsn)
        print(lsn, flush=True)


def read_on_demand(folder: Path) -> None:
    """Answers each line on standard input with the log position and rows it sees; `reload` reloads first."""
    index = opened(folder, writable=False)
    assert index is not None
    for line in sys.stdin:
        if line.strip() == "reload":
            index.reload()
        rows, _ = index.search("everywhere", 10**6)
        print(index.lsn, *sorted(rows.tolist()), flush=True)


@contextmanager
def other_process(task: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, __file__, task, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def killed_writer(folder: Path, commits: int, delay_s: float) -> int:
    """The last log position that a writer reported before it was killed, some time after that many commits."""
    with other_process("write", folder) as process:
        assert process.stdout is not None
        reported = [int(process.stdout.readline()) for _ in range(commits)]
        time.sleep(delay_s)
        process.kill()
        reported += [int(line) for line in process.stdout.read().splitlines()]
    return reported[-1]


def test_a_killed_writer_leaves_exactly_one_of_its_commits_and_nothing_is_rebuilt(tmp_path: Path) -> None:
    draw = random.Random(20260101)
    for _ in range(10):
        acknowledged = killed_writer(tmp_path, commits=draw.randint(1, 12), delay_s=draw.random() * 0.05)
        assert LexicalIndex.verify(tmp_path) == []
        reader = opened(tmp_path, writable=False)
        assert reader is not None
        assert acknowledged <= reader.lsn <= acknowledged + 1
        assert_stands_at(reader, reader.lsn)
        index = writer_of(tmp_path)  # the killed process's locks are gone with it
        assert index.lsn == reader.lsn
        for lsn in range(max(1, index.lsn - 1), index.lsn + 2):  # replays two commits, then makes one
            apply(index, lsn)
        index.commit(index.lsn + 1)
        index.reload()
        assert_stands_at(index, reader.lsn + 1)
        index.close()


def test_a_reader_in_another_process_stays_where_it_is_until_it_reloads(tmp_path: Path) -> None:
    index = writer_of(tmp_path)
    apply(index, 1)
    index.commit(1)

    with other_process("read", tmp_path) as process:

        def asked(line: str) -> list[int]:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
            assert select.select([process.stdout], [], [], 60)[0]
            return [int(number) for number in process.stdout.readline().split()]

        assert asked("search") == [1, *rows_at(1)]
        for lsn in range(2, 40):  # enough for tantivy to merge away the files that the reader holds
            apply(index, lsn)
            index.commit(lsn)
        assert asked("search") == [1, *rows_at(1)]
        assert asked("reload") == [39, *rows_at(39)]
        fresh = index.begin_generation()
        rows = rows_at(39)
        fresh.apply(NOTHING, np.array(rows), [passage(row) for row in rows])
        apply(fresh, 40)
        fresh.commit(40)
        assert asked("reload") == [39, *rows_at(39)]
        index.publish_generation(fresh)
        assert asked("search") == [39, *rows_at(39)]
        assert asked("reload") == [40, *rows_at(40)]


def test_readers_open_and_reload_while_the_writer_commits_merges_and_changes_generations(tmp_path: Path) -> None:
    first = killed_writer(tmp_path, commits=1, delay_s=0)
    with other_process("write", tmp_path) as process:
        reader = opened(tmp_path, writable=False)
        assert reader is not None
        seen = reader.lsn
        assert process.stdout is not None
        while seen < first + 3 * GENERATION_EVERY:
            fresh = opened(tmp_path, writable=False)
            assert fresh is not None, "a sound index was taken for a damaged one"
            assert_stands_at(fresh, fresh.lsn)
            if reader.reload():
                assert reader.lsn >= seen
                assert_stands_at(reader, reader.lsn)
                seen = reader.lsn
            assert process.poll() is None


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of two segments, one with deletes."""
    folder = tmp_path_factory.mktemp("sound")
    index = writer_of(folder)
    for lsn in range(1, 4):
        apply(index, lsn)
    index.commit(3)
    apply(index, 4)
    index.commit(4)
    index.close()
    return folder


def index_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def assert_never_served(folder: Path, what: str) -> None:
    assert opened(folder, writable=False) is None, f"{what} was opened"
    assert LexicalIndex.verify(folder) != [] or what == "CURRENT missing", f"{what} was not reported"


def assert_unharmed_or_never_served(folder: Path, what: str) -> None:
    reader = opened(folder, writable=False)
    if reader is not None:
        assert LexicalIndex.verify(folder) == [], what
        assert reader.lsn == 4 and sorted(reader.search("everywhere", 10**6)[0].tolist()) == rows_at(4), what
        assert reader.deleted_fraction == 1 / 20, what


def test_every_file_cut_short_or_missing_is_found_before_it_is_opened(sound: Path) -> None:
    reader = opened(sound, writable=False)
    assert reader is not None
    assert_stands_at(reader, 4)
    assert {path.suffix for path in index_files(sound)} >= {".idx", ".term", ".fast", ".fieldnorm", ".store", ".pos", ".del", ".json"}
    for path in index_files(sound):
        content = path.read_bytes()
        for length in {0, 1, len(content) // 2, len(content) - 2}:
            path.write_bytes(content[:length])
            assert_never_served(sound, f"{path.name} cut to {length}")
        path.unlink()
        assert_never_served(sound, f"{path.name} missing")
        path.write_bytes(content)
    assert LexicalIndex.verify(sound) == [] and opened(sound, writable=False) is not None


def test_every_flipped_bit_is_found_or_does_no_harm(sound: Path) -> None:
    draw = random.Random(7)
    for path in index_files(sound):
        content = path.read_bytes()
        harmless_possible = path.name in {"meta.json", ".managed.json"}  # white space, names of files long gone
        places = (
            range(len(content)) if harmless_possible else {*draw.sample(range(len(content)), 20), *range(len(content) - 40, len(content))}
        )
        for place in places:
            damaged = bytearray(content)
            damaged[place] ^= 1 << draw.randrange(8)
            path.write_bytes(damaged)
            check = assert_unharmed_or_never_served if harmless_possible else assert_never_served
            check(sound, f"{path.name} with byte {place} flipped")
        path.write_bytes(content)
    assert LexicalIndex.verify(sound) == [] and opened(sound, writable=False) is not None


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST", "meta.json", ".managed.json", "*.idx", "*.del"])
def test_a_writer_begins_afresh_where_a_file_is_damaged(tmp_path: Path, name: str) -> None:
    index = writer_of(tmp_path)
    for lsn in range(1, 6):
        apply(index, lsn)
        index.commit(lsn)
    index.close()
    path = next(tmp_path.rglob(name))
    path.write_bytes(path.read_bytes()[:-9])
    index = writer_of(tmp_path)
    assert_stands_at(index, 0)
    for lsn in range(1, 7):
        apply(index, lsn)
    index.commit(6)
    index.reload()
    assert_stands_at(index, 6)
    assert len(list(tmp_path.glob("g*"))) == 1 and LexicalIndex.verify(tmp_path) == []


def test_damage_met_while_reloading_leaves_searches_where_they_are(tmp_path: Path) -> None:
    index = writer_of(tmp_path)
    apply(index, 1)
    index.commit(1)
    reader = opened(tmp_path, writable=False)
    assert reader is not None
    apply(index, 2)
    index.commit(2)
    index.close()
    for path in tmp_path.rglob("*.fast"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptionError):
        reader.reload()
    assert_stands_at(reader, 1)


def test_a_full_disk_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    index = writer_of(tmp_path)
    apply(index, 1)
    index.commit(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))  # no file may grow beyond this
    try:
        with pytest.raises(BackendError) as refused:
            index.apply(NOTHING, np.arange(5, 500), [" ".join(f"w{row}x{n}" for n in range(50)) for row in range(5, 500)])
            index.commit(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "disk" in refused.value.hint
    index.reload()
    assert_stands_at(index, 1)
    apply(index, 2)
    index.commit(2)
    index.reload()
    assert_stands_at(index, 2)
    index.close()
    assert LexicalIndex.verify(tmp_path) == []


if __name__ == "__main__":
    {"write": write_forever, "read": read_on_demand}[sys.argv[1]](Path(sys.argv[2]))
