"""What a hostile or an unlucky caller does to the library: everything is refused by name, and nothing else suffers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
from collections.abc import Callable, Coroutine
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest

from ragline.engine import Engine
from ragline.errors import BackendError, InputError, NotFoundError, RaglineError, SettingsError
from ragline.settings import load_settings
from ragline.storage.sqlite.store import FILE_NAME
from ragline.types import Document, Upload
from tests.engines import engine, rows_of_views


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


async def test_one_bad_document_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    bad = {
        "no text": Document(" \n", source="no text"),
        "id with half a surrogate": Document("x", id="a\ud800", source="id with half a surrogate"),
        "id with NUL": Document("x", id="a\0b", source="id with NUL"),
        "empty id": Document("x", id="", source="empty id"),
        "metadata with half a surrogate": Document("x1", source="metadata with half a surrogate", metadata={"a": ["\ud800"]}),
        "metadata that is no number": Document("x2", source="metadata that is no number", metadata={"a": float("nan")}),
        "metadata that is no JSON": Document("x3", source="metadata that is no JSON", metadata={"a": {1, 2}}),
        "a key that is no string": Document("x4", source="a key that is no string", metadata={5: 1, "a": 2}),  # type: ignore[dict-item]
        "a number beyond all bounds": Document("x5", source="a number beyond all bounds", metadata={"a": 10**400}),
        "nested without end": Document("x6", source="nested without end", metadata=nested(100_000)),
    }
    good = [Document("common one", metadata=nested(50)), Document("common \0 two\ud800"), Document("common three", id="i" * 100_000)]
    async with engine(tmp_path / "data") as opened:
        report = await opened.ingest([good[0], *bad.values(), *good[1:]])
        assert report.added == 3
        assert [failed.source for failed in report.failed] == list(bad)
        assert all(failed.error and failed.hint for failed in report.failed)
        assert len(await opened.search("common")) == 3
        again = await opened.ingest([good[0], *bad.values(), *good[1:]])
        assert (again.added, again.replaced, again.unchanged, len(again.failed)) == (0, 0, 3, len(bad))


@pytest.mark.parametrize("fields", [{"text": None}, {"text": b"x"}, {"text": "x", "id": 5}, {"text": "x", "source": Path("x")}])
def test_a_document_of_wrong_types_is_refused_where_it_is_made(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="of a document is a") as raised:
        Document(**fields)
    assert raised.value.hint == "text, id and source are strings, metadata is a mapping"


@pytest.mark.parametrize("fields", [{"path": 5}, {"content": "x", "name": "a.md"}, {"path": "a.md", "metadata": [1]}])
def test_an_upload_of_wrong_types_is_told_its_own_fields(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="of an upload is a") as raised:
        Upload(**fields)
    assert "content is bytes" in raised.value.hint and "text" not in raised.value.hint


NO_SOURCES = [
    *(
        None,
        5,
        b"docs",
        b"",
        bytearray(b"docs"),
        memoryview(b"docs"),
        {"text": "hello", "id": "x"},
        {},
        StringIO("docs\n"),
        BytesIO(b"docs"),
    ),
    *([None], [Document("x"), 5], [{"text": "hello"}], [b"docs"]),
]


@pytest.mark.parametrize("sources", NO_SOURCES, ids=lambda source: type(source).__name__)
async def test_what_is_no_source_is_refused(tmp_path: Path, sources: Any) -> None:
    async with engine(tmp_path / "data") as opened:
        with pytest.raises(InputError, match="cannot be ingested") as raised:
            await opened.ingest(sources)
        assert "ragline.Document(text=...)" in raised.value.hint and "ragline.Upload(content=..." in raised.value.hint
        with pytest.raises(InputError, match="cannot be submitted"):
            await opened.jobs.submit(sources)
        assert await opened.documents() == []


async def test_paths_that_cannot_be_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("The common good.")
    paths: list[str | Path] = ["", "a\0b", "x" * 5000, "/a" * 3000, f"{tmp_path}/{'*' * 300}.pdf", "missing", tmp_path / "good.txt"]
    async with engine(tmp_path / "data") as opened:
        report = await opened.ingest(paths)
        assert report.added == 1
        assert len(report.failed) == 6
        assert report.failed[-1].source == "missing"
        assert all(failed.error and failed.hint for failed in report.failed)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts what was read as Linux does")
async def test_a_file_beyond_the_limit_is_not_read_through(tmp_path: Path) -> None:
    def read_so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    (tmp_path / "good.txt").write_text("The common good.")
    names = ("sparse.txt", "sparse.pdf", "sparse.docx", "good.txt")
    for name in names[:3]:
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 2 * 1024**3)
    async with engine(tmp_path / "data") as opened:
        before = read_so_far()
        report = await opened.ingest([tmp_path / name for name in names])
        assert read_so_far() - before < 100 * 1024**2
        assert report.added == 1
        assert len(report.failed) == 3
        assert all("more than the 268,435,456 allowed" in failed.error for failed in report.failed)


async def test_the_store_is_no_document(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("A common note.")
    async with engine(tmp_path) as opened:  # the documents' own folder
        assert (await opened.ingest(tmp_path)).added == 1
        again = await opened.ingest(tmp_path)
        assert (again.added, again.unchanged) == (0, 1)
    async with engine(tmp_path / "data") as opened:
        await opened.ingest(Document("common"))
        assert (await opened.ingest(tmp_path / "data")).added == 0


async def test_one_id_is_one_document(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        await opened.ingest([Document("common one", id="d1"), Document("common two", id="d2"), Document("common one", id="d")])
        assert [hit.document_id for hit in await opened.search("common", documents="d1")] == ["d1"]
        for limit in (-1, 10**30):
            with pytest.raises(InputError, match="limit"):
                await opened.documents(limit=limit)
        assert await opened.documents(limit=0) == []


async def test_ids_that_are_no_strings_are_refused(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        await opened.ingest(Document("common one", id="5"))
        wrong: Any = 5
        for call in (opened.text, opened.document, opened.chunks, opened.delete, lambda id: opened.search("common", documents=[id])):
            with pytest.raises(InputError, match="is a string, not int"):
                await call(wrong)
        with pytest.raises(InputError, match="names no collection"):
            await opened.search("common", collections=wrong)
        with pytest.raises(InputError, match="are a list"):
            await opened.search_many(wrong)
        assert len(await opened.search_many(question for question in ("common", "one"))) == 2  # type: ignore[arg-type]


async def test_a_store_deleted_while_open_acknowledges_nothing(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        await opened.ingest(Document("common one"))
        shutil.move(tmp_path / "data", tmp_path / "moved")
        with pytest.raises(BackendError, match="is gone: it was moved or deleted"):
            await opened.ingest(Document("common two"))
        findings = await opened.doctor()
        assert any(finding.level == "error" and "cannot be read" in finding.what for finding in findings)
    async with engine(tmp_path / "moved") as opened:
        assert [hit.text for hit in await opened.search("common")] == ["common one"]


async def test_a_changed_working_folder_does_not_lose_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    async with engine(Path("data")) as opened:
        monkeypatch.chdir(tmp_path / "elsewhere")
        await opened.ingest(Document("common"))
        await asyncio.gather(*(opened.search("common") for _ in range(20)))  # more readers than were open before
        assert len(await opened.search("common")) == 1
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("blocked", ["views", "views/indexer.lock", FILE_NAME])
async def test_a_data_folder_that_cannot_be_used_says_why(tmp_path: Path, blocked: str) -> None:
    if blocked == "views":
        (tmp_path / "views").write_text("a file")
    else:
        (tmp_path / blocked).mkdir(parents=True)
    with pytest.raises(BackendError) as refused:
        async with engine(tmp_path):
            pass
    assert str(tmp_path) in refused.value.message
    assert "writ" in refused.value.hint


@pytest.mark.parametrize(
    "given",
    [lambda: {"top_k": 3}, dict, lambda: "server", lambda: load_settings(environ={})],
    ids=["a dict", "an empty dict", "a name", "loaded"],
)
def test_settings_that_are_none_are_refused_with_what_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Callable[[], Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="settings= takes") as raised:
        Engine.open(tmp_path / "data", settings=given())
    assert "ragline.load_settings(overrides=" in raised.value.hint and "ragline.Settings(" in raised.value.hint
    assert not (tmp_path / "data").exists()


async def test_a_data_folder_whose_name_cannot_be_is_refused(tmp_path: Path) -> None:
    for name in ("x" * 300, "a\0b", "a\ud800b"):
        with pytest.raises(BackendError, match="cannot be made"):
            async with engine(tmp_path / name):
                pass


async def test_a_stream_that_outlives_its_engine_ends_in_an_error(tmp_path: Path) -> None:
    # Without caches, an answer is made only as it is read.
    async with engine(tmp_path / "data", cache={"enabled": False}) as opened:
        await opened.ingest(Document("common words"))
        events = opened.stream("common")
        assert (await anext(events)).kind == "hits"
    last = [event async for event in events][-1]
    assert last.kind == "error"
    assert isinstance(last.data, BackendError)
    assert "open" in last.data.hint


@pytest.mark.parametrize(
    "values",
    [
        {"storage.busy_timeout_s": 1e308},
        {"storage.busy_timeout_s": 1e10},
        {"reading.timeout_s": 1e308},
        {"reading.workers": 10**9},
        {"embedding.threads": 10**9},
    ],
    ids=str,
)
def test_settings_that_no_machine_can_keep_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=next(iter(values))):
        load_settings(overrides=values)


def test_an_engine_belongs_to_the_event_loop_that_opened_it(tmp_path: Path) -> None:
    opened = engine(tmp_path / "data")

    async def in_another_loop() -> None:
        for refused in (opened.search("common"), opened.ingest(Document("x")), opened.close()):
            with pytest.raises(BackendError, match="another event loop"):
                await refused

    async def story() -> None:
        async with opened:
            await opened.ingest(Document("common"))
            await asyncio.to_thread(asyncio.run, in_another_loop())
            assert len(await opened.search("common")) == 1

    asyncio.run(story())


async def test_engines_of_one_process_share_a_folder(tmp_path: Path) -> None:
    engines = [engine(tmp_path / "data") for _ in range(6)]
    await asyncio.gather(*(each.__aenter__() for each in engines))
    try:
        for start, each in enumerate(engines):
            await each.ingest([Document(f"common {number}", id=f"d{number}") for number in range(start * 5, start * 5 + 10)])
        for each in engines:
            result = await each.search("common", top_k=100)
            assert (len(result), result.lag) == (35, 0)
    finally:
        await asyncio.gather(*(each.close() for each in engines))


async def test_cancelling_anything_at_any_time_harms_nothing(tmp_path: Path) -> None:
    chance = random.Random(11)

    def some(count: int) -> list[Document]:
        start = chance.randrange(0, 200)
        return [Document(f"common words {number} {chance.random()}", id=f"d{number}") for number in range(start, start + count)]

    async with engine(tmp_path / "data") as opened:
        await opened.ingest(some(100))

        async def stream() -> None:
            async for _ in opened.stream("common words"):
                await asyncio.sleep(0)

        async def open_another() -> None:
            async with engine(tmp_path / "data") as other:
                await other.search("common")

        async def come_and_go() -> None:
            await opened.ingest(some(3), collection="passing")
            await opened.delete_collection("passing")

        works: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: opened.ingest(some(60)),
            lambda: opened.search("common words", top_k=50),
            lambda: opened.ask("common words?"),
            lambda: opened.delete([f"d{chance.randrange(200)}" for _ in range(10)]),
            lambda: opened.reindex(),
            lambda: opened.status(),
            lambda: opened.doctor(verify=True),
            stream,
            open_another,
            come_and_go,
        ]
        for _ in range(12):
            for work in works:
                task = asyncio.create_task(work())
                await asyncio.sleep(chance.choice([0, 0, 0.0005, 0.002, 0.005, 0.02]) * chance.random())
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, NotFoundError):  # a collection that is come and gone
                    await asyncio.wait_for(task, 60)
        assert not [finding for finding in await opened.doctor(verify=True) if finding.level == "error"]
        rows = await rows_of_views(opened)
        assert rows["dense"] == rows["lexical"] == rows["store"]
        last = Document("common and last", id="last")
        assert (await opened.ingest(last)).lag == 0
        assert "last" in {hit.document_id for hit in await opened.search("common last")}


async def test_names_of_collections_are_names_not_paths(tmp_path: Path) -> None:
    outside = sorted(os.listdir(tmp_path))
    names = ["a/b", "../../etc", ".", "..", "名前", "🔑", "a:b", "-x", "'; DROP TABLE documents; --", "ü" * 200]
    async with engine(tmp_path / "data") as opened:
        for name in names:
            await opened.ingest(Document(f"common of {name}"), collection=name)
            await opened.tenant(name).ingest(Document(f"common, tenant {name}"))
        for name in names:
            assert [hit.text for hit in await opened.search("common", collections=name)] == [f"common of {name}"]
            assert [hit.text for hit in await opened.tenant(name).search("common")] == [f"common, tenant {name}"]
        for name in ("", " a", "a\n", "a\0b", "\ud800", "x" * 300, "a\u202eb"):
            with pytest.raises(InputError, match="is not a usable collection name"):
                await opened.ingest(Document("x"), collection=name)
            with pytest.raises(InputError, match="is not a usable tenant name"):
                opened.tenant(name)
    assert sorted(os.listdir(tmp_path)) == [*outside, "data"]


async def test_what_cannot_be_searched_for_is_refused_by_name(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        await opened.ingest(Document("common words"))
        refused: list[dict[str, Any]] = [
            *({"question": question} for question in (None, 5, "", " \n", "\ud800", "\0", "x" * 1_000_000)),
            *({"top_k": top_k} for top_k in (0, -1, 10**6, "5", 5.0, True)),
            {"filter": 5},
            {"filter": "x"},
            {"filter": []},
            {"filter": {1: 2}},
            {"filter": {"a": {"like": 1}}},
            {"filter": {"a": float("nan")}},
            {"filter": {"a": object()}},
            {"filter": {"a": {"in": list(range(20_000))}}},
            {"mode": "psychic"},
            {"collections": ["default", "nope"]},
        ]
        for arguments in refused:
            with pytest.raises(RaglineError) as error:
                await opened.search(**{"question": "common", **arguments})
            assert error.value.hint
        # What looks like a query language is words, and what is odd is no error.
        for question in ("AND OR NOT (", '"unclosed', "title:foo^2", "[x TO y]", "*", "\\", "🔑" * 1000, "\u0301" * 1000, "a\0b"):
            await opened.search(question)
            await opened.ask(question)
