"""What is true of the SQLite store alone: its file, its errors, its commits."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from ragline.errors import BackendError, CorruptionError, RaglineError
from ragline.storage.sqlite import SqliteStore, job_rows, key_rows
from ragline.storage.sqlite.connections import translate
from ragline.storage.sqlite.file_identity import file_identity
from ragline.storage.sqlite.store import FILE_NAME
from ragline.types import Heading, Layout
from tests.store_documents import EMBEDDER, SCOPE, delete, document, put

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "data")
    yield opened
    await opened.close()


async def filled(folder: Path, count: int = 200) -> str:
    """A closed store with documents in it; its incarnation."""
    opened = await SqliteStore.open(folder)
    await put(opened, SCOPE, *(document(f"{number}", f"text {number} " * 50) for number in range(count)))
    await opened.close()
    return opened.incarnation


def contents(folder: Path) -> bytes:
    """The bytes of all files in a folder."""
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def test_what_is_asked_every_second_takes_no_longer_the_more_was_done(store: SqliteStore) -> None:
    def plans(connection: apsw.Connection) -> str:
        asked: list[tuple[str, apsw.Bindings]] = []

        def note(_: apsw.Cursor, sql: str, bindings: apsw.Bindings | None) -> bool:
            asked.append((sql, bindings or ()))
            return True

        connection.exec_trace = note
        try:
            job_rows.counts(connection, 0.0)
            key_rows._acts_since(connection, "cache.clear", 0)
        finally:
            connection.exec_trace = None
        return str([connection.execute(f"EXPLAIN QUERY PLAN {sql}", bindings).fetchall() for sql, bindings in asked])

    plan = await store.read(plans)
    assert all(index in plan for index in ("jobs_open", "jobs_failed", "audit_by_act (act=? AND id>?)")), plan


# Group commit


async def test_in_a_turn_of_the_loop_the_file_is_asked_once(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    watch, ask = store._watch, store._watch._version

    def counted() -> int:
        asked.append(1)
        return ask()

    monkeypatch.setattr(watch, "_version", counted)
    await asyncio.sleep(0)  # nothing is known of this turn
    first = [(await store.head(SCOPE)).lsn for _ in range(20)]  # none of which suspends
    assert first == [0] * 20 and len(asked) == 1
    await asyncio.sleep(0)
    assert (await store.head(SCOPE)).lsn == 0 and len(asked) == 2
    assert await asyncio.to_thread(store.version) == store.version(), "another thread asks for itself"


async def test_what_was_committed_is_seen_by_whoever_comes_after_it(tmp_path: Path) -> None:
    """However often others ask meanwhile, in this process and on another connection."""
    store, other = await SqliteStore.open(tmp_path), await SqliteStore.open(tmp_path)
    over = asyncio.Event()

    async def ask_on(which: SqliteStore) -> None:
        while not over.is_set():
            await which.head(SCOPE)
            await asyncio.sleep(0)

    askers = [asyncio.create_task(ask_on(which)) for which in (store, other)]
    try:
        for number in range(100):
            writer, reader = (store, other) if number % 2 else (other, store)
            await put(writer, SCOPE, document(f"{number}", f"text {number}"))
            assert (await reader.head(SCOPE)).lsn == (await writer.head(SCOPE)).lsn == number + 1
    finally:
        over.set()
        await asyncio.gather(*askers)
        await store.close()
        await other.close()


async def test_transactions_that_wait_together_share_a_commit(store: SqliteStore) -> None:
    commits = 0

    def count() -> bool:
        nonlocal commits
        commits += 1
        return False

    store._writer.connection.set_commit_hook(count)
    await asyncio.gather(*(put(store, SCOPE, document(f"{number}", "text")) for number in range(200)))
    store._writer.connection.set_commit_hook(None)
    assert (await store.head(SCOPE)).lsn == 200
    assert 200 // 64 <= commits <= 10


async def test_a_commit_that_fails_fails_every_transaction_of_its_group_and_no_other(store: SqliteStore) -> None:
    async def write(number: int) -> None:
        await put(store, SCOPE, document(f"{number}", "text"))

    store._writer.connection.set_commit_hook(lambda: True)
    results = await asyncio.gather(*(write(number) for number in range(20)), return_exceptions=True)
    store._writer.connection.set_commit_hook(None)
    assert all(isinstance(result, BackendError) for result in results)
    assert len({id(result) for result in results}) == 20
    assert await store.documents(SCOPE) == []
    await write(21)
    assert (await store.head(SCOPE)).lsn == 1


async def test_a_full_disk_fails_the_transaction_that_fills_it_and_loses_no_other(store: SqliteStore) -> None:
    await put(store, SCOPE, document("before", "text"))
    connection = store._writer.connection
    limit = connection.execute("PRAGMA page_count").get + 40
    connection.execute(f"PRAGMA max_page_count = {limit}")
    small = [put(store, SCOPE, document(f"{number}", "text")) for number in range(5)]
    large = put(store, SCOPE, *(document(f"large {number}", os.urandom(500).hex()) for number in range(2000)))
    results = await asyncio.gather(*small, large, return_exceptions=True)
    assert isinstance(results[-1], BackendError)
    assert "full" in results[-1].message and results[-1].hint
    acknowledged = {f"{number}" for number, result in enumerate(results[:-1]) if not isinstance(result, BaseException)}
    assert {stored.id for stored in await store.documents(SCOPE)} == {"before"} | acknowledged

    connection.execute("PRAGMA max_page_count = 1073741823")
    await put(store, SCOPE, document("after", "text"))
    assert await store.check() == []


async def test_a_transaction_with_a_failed_statement_cannot_be_kept_and_takes_no_other_along(store: SqliteStore) -> None:
    store._writer.connection.execute(
        "CREATE TEMP TRIGGER fail BEFORE INSERT ON main.texts WHEN new.layout LIKE '%fail%' BEGIN SELECT raise(ABORT, 'failed'); END"
    )
    failing = document("bad", layout=Layout(headings=(Heading(0, 0, 1, "fail"),)))

    async def swallow_the_error() -> None:
        async with store.transaction() as transaction:
            await transaction.put(SCOPE, [document("also bad")], model="m1", embedder=EMBEDDER)
            for written in (failing, document("refused after a failure")):
                with pytest.raises(BackendError):
                    await transaction.put(SCOPE, [written], model="m1", embedder=EMBEDDER)

    results = await asyncio.gather(
        put(store, SCOPE, document("1")), swallow_the_error(), put(store, SCOPE, document("2")), return_exceptions=True
    )
    assert results[0] == results[2] == ["added"]
    assert isinstance(results[1], BackendError) and "rolled back" in results[1].message
    assert [stored.id for stored in await store.documents(SCOPE)] == ["1", "2"]


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from ragline.errors import BackendError
from ragline.storage.sqlite import SqliteStore
from tests.store_documents import SCOPE, document, put

async def main(folder):
    store = await SqliteStore.open(folder)
    await put(store, SCOPE, document("before", "text"))
    size = (folder / "store.sqlite3-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, resource.RLIM_INFINITY))
    work = [put(store, SCOPE, document(f"{number}", f"text {number} " * 200)) for number in range(30)]
    results = await asyncio.gather(*work, return_exceptions=True)
    assert any(isinstance(result, BackendError) for result in results), results
    assert all(result is None or isinstance(result, (list, BackendError)) for result in results), results
    kept = {f"{number}" for number, result in enumerate(results) if isinstance(result, list)} | {"before"}
    assert {stored.id for stored in await store.documents(SCOPE)} == kept
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await put(store, SCOPE, document("after", "text"))
    assert await store.check() == []
    await store.close()

asyncio.run(main(Path(sys.argv[1])))
"""


def start_python(source: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_python(source: str, *arguments: object) -> None:
    """Runs a program that asserts; its output is the failure's message."""
    child = start_python(source, *arguments)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_writes_that_the_system_refuses_fail_clearly_and_the_store_goes_on_when_there_is_room(tmp_path: Path) -> None:
    run_python(LIMITED, tmp_path)


async def test_a_store_locked_for_too_long_says_so_to_everyone_who_waits(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path, busy_timeout_s=0.05)
    blocker = apsw.Connection(str(tmp_path / FILE_NAME))
    blocker.execute("BEGIN IMMEDIATE")
    statements: list[str] = []
    store._writer.connection.exec_trace = lambda cursor, sql, bindings: bool(statements.append(sql) or True)  # type: ignore[func-returns-value]
    results = await asyncio.gather(*(put(store, SCOPE, document(f"{number}")) for number in range(3)), return_exceptions=True)
    store._writer.connection.exec_trace = None
    assert statements == ["BEGIN IMMEDIATE"]  # all were answered when the first one's patience ended
    assert all(isinstance(result, BackendError) and "busy_timeout_s" in result.hint for result in results)
    assert (await store.head(SCOPE)).lsn == 0
    blocker.execute("COMMIT")
    blocker.close()
    assert await put(store, SCOPE, document("a")) == ["added"]
    await store.close()


def test_an_event_loop_that_ends_within_a_transaction_rolls_it_back(tmp_path: Path) -> None:
    async def leave_in_the_middle() -> tuple[SqliteStore, asyncio.Task[None]]:
        store = await SqliteStore.open(tmp_path)
        begun = asyncio.Event()

        async def write() -> None:
            async with store.transaction() as transaction:
                await transaction.put(SCOPE, [document("never committed")], model="m1", embedder=EMBEDDER)
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(write())
        await begun.wait()
        return store, task

    async def go_on(store: SqliteStore) -> list[str]:
        await put(store, SCOPE, document("a"))
        stored = await store.documents(SCOPE)
        await store.close()
        return [found.id for found in stored]

    store, task = asyncio.run(leave_in_the_middle())
    assert task.cancelled()
    assert asyncio.run(go_on(store)) == ["a"]


# The file


async def test_deleted_text_is_gone_from_the_file(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    secret = "the password is xyzzy-plugh"
    await put(store, SCOPE, document("other", "harmless"), *(document(f"{number}", f"{number} {secret}") for number in range(300)))
    await put(store, SCOPE, *(document(f"{number}", "replaced") for number in range(150)))
    await delete(store, SCOPE, *(f"{number}" for number in range(150, 300)))
    await store.prune(SCOPE, (await store.head(SCOPE)).lsn)
    assert secret.encode() not in contents(tmp_path)
    await store.close()
    assert secret.encode() not in contents(tmp_path)


async def test_a_copied_or_restored_store_gets_a_new_incarnation_once(tmp_path: Path) -> None:
    incarnation = await filled(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    copied = await SqliteStore.open(tmp_path / "copy")
    assert copied.incarnation != incarnation
    assert len(await copied.documents(SCOPE)) == 200
    await copied.close()
    again = await SqliteStore.open(tmp_path / "copy")
    assert again.incarnation == copied.incarnation
    await again.close()

    (tmp_path / "data").rename(tmp_path / "moved")
    moved = await SqliteStore.open(tmp_path / "moved")
    assert moved.incarnation == incarnation
    await moved.close()


OPENING = """
import asyncio, sys
from pathlib import Path
from ragline.storage.sqlite import SqliteStore
from tests.store_documents import SCOPE, document, put

async def main(folder, name):
    store = await SqliteStore.open(folder)
    await put(store, SCOPE, document(name, "text"))
    await store.close()
    print(store.incarnation)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


async def test_processes_that_open_a_new_store_at_once_make_one_store(tmp_path: Path) -> None:
    children = [start_python(OPENING, tmp_path / "data", number) for number in range(6)]
    outputs = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0] * 6, outputs
    assert len({out for out, _ in outputs}) == 1
    store = await SqliteStore.open(tmp_path / "data")
    assert [stored.id for stored in await store.documents(SCOPE)] == [f"{number}" for number in range(6)]
    await store.close()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write")
async def test_a_folder_that_cannot_be_made_is_a_clear_error() -> None:
    with pytest.raises(BackendError, match="cannot be made") as raised:
        await SqliteStore.open(Path("/proc/ragline"))
    assert "writable" in raised.value.hint


READ_ONLY = """
import asyncio, os, sys, tempfile
from pathlib import Path
from ragline.errors import BackendError
from ragline.storage.sqlite import SqliteStore

async def main(folder, filled):
    if filled:
        await (await SqliteStore.open(folder)).close()
        (folder / "store.sqlite3").chmod(0o444)
    folder.chmod(0o555)
    if os.geteuid() == 0:  # the superuser may write anywhere
        os.setegid(65534), os.seteuid(65534)
    try:
        await SqliteStore.open(folder)
    except BackendError as error:
        assert str(folder) in error.message and "writable" in error.hint, error
    else:
        raise AssertionError("a read-only folder was opened")
    finally:
        if os.getuid() == 0:
            os.seteuid(0), os.setegid(0)

with tempfile.TemporaryDirectory() as parent:
    Path(parent).chmod(0o755)
    folder = Path(parent) / "data"
    folder.mkdir()
    try:
        asyncio.run(main(folder, sys.argv[1] == "filled"))
    finally:
        folder.chmod(0o755)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs permissions of POSIX")
@pytest.mark.parametrize("state", ["empty", "filled"])
def test_a_read_only_folder_is_a_clear_error(state: str) -> None:
    run_python(READ_ONLY, state)


async def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(b"This is not a database. " * 1000)
    with pytest.raises(CorruptionError, match="not a SQLite database"):
        await SqliteStore.open(tmp_path)
    assert file.read_bytes() == b"This is not a database. " * 1000

    file.unlink()
    foreign = apsw.Connection(str(file))
    foreign.execute("CREATE TABLE theirs (x)")
    foreign.close()
    with pytest.raises(CorruptionError, match="not a ragline store"):
        await SqliteStore.open(tmp_path)


@pytest.mark.parametrize("damage", ["flipped", "zeroed", "truncated"])
async def test_damage_is_found_and_told(tmp_path: Path, damage: str) -> None:
    await filled(tmp_path, 2000)
    file = tmp_path / FILE_NAME
    content = bytearray(file.read_bytes())
    half = len(content) // 2 // 8192 * 8192
    if damage == "flipped":
        for at in range(half, half + 8192, 7):
            content[at] ^= 0xFF
    elif damage == "zeroed":
        content[half : half + 8192] = bytes(8192)
    else:
        del content[half:]
    file.write_bytes(content)
    try:
        store = await SqliteStore.open(tmp_path)
    except CorruptionError:
        return
    faults = await store.check()
    assert faults and "damaged" in faults[0]
    await store.close()


async def test_a_store_whose_tables_disagree_is_found_out(tmp_path: Path) -> None:
    await filled(tmp_path, 3)
    connection = apsw.Connection(str(tmp_path / FILE_NAME))
    connection.execute("DELETE FROM chunks WHERE id IN (SELECT id FROM chunks LIMIT 1); DELETE FROM texts; DELETE FROM vectors")
    connection.close()
    store = await SqliteStore.open(tmp_path)
    faults = await store.check()
    assert [fault.split(": ")[1] for fault in faults] == [
        "1 documents do not have all of their chunks",
        "-1 chunks belong to no document",
        "2 chunks have no vector",
        "3 documents have no text",
    ]
    await store.close()


# Errors


def _all_errors(kind: type[apsw.Error]) -> list[type[apsw.Error]]:
    return [kind, *(error for child in kind.__subclasses__() for error in _all_errors(child))]


@pytest.mark.parametrize("kind", _all_errors(apsw.Error), ids=lambda kind: kind.__name__)
def test_every_error_of_sqlite_becomes_one_of_ours_with_a_cure(kind: type[apsw.Error]) -> None:
    error = translate(kind("what SQLite says"), Path("folder") / FILE_NAME)
    assert isinstance(error, (BackendError, CorruptionError))
    assert str(Path("folder") / FILE_NAME) in error.message and "what SQLite says" in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("kind", "ours", "says"),
    [
        (apsw.FullError, BackendError, "disk is full"),
        (apsw.ReadOnlyError, BackendError, "read-only"),
        (apsw.BusyError, BackendError, "another process"),
        (apsw.CorruptError, CorruptionError, "damaged"),
        (apsw.NotADBError, CorruptionError, "not a SQLite database"),
        (apsw.IOError, BackendError, "reading or writing"),
    ],
)
def test_an_error_says_whose_fault_it_is(kind: Callable[[str], apsw.Error], ours: type[RaglineError], says: str) -> None:
    error = translate(kind("x"), Path(FILE_NAME))
    assert type(error) is ours and says in error.message


def test_a_file_made_in_the_place_of_a_deleted_one_is_another(tmp_path: Path) -> None:
    file = tmp_path / "store"
    identities = set()
    for _ in range(20):
        file.touch()
        assert file_identity(file) == file_identity(file)
        identities.add(file_identity(file))
        file.write_bytes(b"changed")
        assert file_identity(file) in identities
        file.unlink()
        time.sleep(0.01)  # file systems tell the time in steps
    assert len(identities) == 20 or {identity.rpartition(":")[2] for identity in identities} == {""}, "where no time is told, inodes return"
