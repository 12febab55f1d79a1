"""The engine as its users call it: real store, real views, real files; a hashed embedder."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from ragline.engine import Engine
from ragline.errors import BackendError, FilterError, InputError, ModelMismatchError, NotFoundError, SettingsError
from ragline.settings import Settings
from ragline.types import Answer, Document, Float32, SearchResult
from tests.embedders import HashEmbedder
from tests.engines import engine, rows_of_views

HANDBOOK = """# Handbook

## Keys

Signing keys are rotated often: every ninety days. The duty officer files the rotation log.

## Leave

Everyone has twenty-eight days of leave.
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "handbook.md").write_text(HANDBOOK)
    (folder / "boats.txt").write_text("The patrol boat Kittiwake is serviced in March. It seats nine.")
    (folder / "sensors.csv").write_text("serial,place\nBX-1042,north pier\nBX-2077,east mole\n")
    return folder


async def test_a_folder_becomes_a_cited_answer(folder: Path, tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        report = await opened.ingest(folder)
        assert (report.added, report.failed, report.lag) == (3, (), 0)
        answer = await opened.ask("How often are signing keys rotated?")
        assert answer.found and "ninety days" in answer.text and "[1]" in answer.text
        citation = answer.citations[0]
        text = await opened.text(citation.document_id)
        assert text[citation.start : citation.end] == citation.quote
        assert citation.source is not None and citation.source.endswith("handbook.md")
        assert citation.heading.startswith("Handbook")
        assert answer.timings["total_ms"] >= sum(took for stage, took in answer.timings.items() if stage != "total_ms") * 0.99


async def test_the_same_bytes_again_are_no_work(folder: Path, tmp_path: Path) -> None:
    embedder = HashEmbedder()
    async with engine(tmp_path / "data", embedder=embedder) as opened:
        first = await opened.ingest(folder)
        lsn = (await opened.search("boat")).lsn
        embedded = embedder.embedded
        again = await opened.ingest(folder)
        assert (again.added, again.replaced, again.unchanged) == (0, 0, 3)
        assert embedder.embedded == embedded
        assert (await opened.search("boat")).lsn == lsn
        assert sorted(again.document_ids) == sorted(first.document_ids)


async def test_only_changed_chunks_are_embedded_again(tmp_path: Path) -> None:
    embedder = HashEmbedder()
    paragraphs = [f"Paragraph {n} tells of the number {n} and of nothing else at all. " * 12 for n in range(8)]
    file = tmp_path / "long.txt"
    async with engine(tmp_path / "data", embedder=embedder, chunking={"max_tokens": 200}) as opened:
        file.write_text("\n\n".join(paragraphs))
        report = await opened.ingest(file)
        assert report.chunks >= 6
        before = embedder.embedded
        paragraphs[5] = paragraphs[5].replace("nothing", "something")
        file.write_text("\n\n".join(paragraphs))
        assert (await opened.ingest(file)).replaced == 1
        assert 1 <= embedder.embedded - before <= 2


async def test_a_replaced_document_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        await opened.ingest(Document(text="common walrus", id="a"))
        await opened.ingest(Document(text="common gannet", id="a"))
        assert (await opened.document("a")).version > 1
        for mode in ("dense", "lexical", "hybrid"):
            hits = await opened.search("walrus common", mode=mode)
            assert [hit.text for hit in hits] == ["common gannet"]


async def test_a_deleted_document_is_in_no_leg(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        await opened.ingest([Document(text="common walrus", id="a"), Document(text="common gannet", id="b")])
        assert await opened.delete(["a", "nothing"]) == ["a"]
        held = await rows_of_views(opened)
        assert {row[0] for rows in held.values() for row in rows} == {"b"}
        with pytest.raises(NotFoundError, match="'a'"):
            await opened.document("a")


async def test_a_deleted_file_document_is_read_again(folder: Path, tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        report = await opened.ingest(folder / "boats.txt")
        await opened.delete(report.document_ids)
        assert (await opened.ingest(folder / "boats.txt")).added == 1


async def test_metadata_filters_hold_on_every_leg(tmp_path: Path) -> None:
    documents = [
        Document(
            text=f"common report number {n}",
            id=str(n),
            metadata={"year": 2000 + n, "lang": "en" if n % 2 else "de", "tags": ["t", f"t{n}"]},
        )
        for n in range(20)
    ]
    async with engine(tmp_path / "data") as opened:
        await opened.ingest(documents)
        expected = {
            '{"lang": "en"}': {str(n) for n in range(1, 20, 2)},
            "range": {"5", "6", "7"},
            "and": {"5", "7"},
            "tag": {"3"},
            "not": {str(n) for n in range(20)} - {"3"},
            "none": set(),
        }
        filters = {
            '{"lang": "en"}': {"lang": "en"},
            "range": {"year": {"gte": 2005, "lt": 2008}},
            "and": {"year": {"gte": 2005, "lt": 2008}, "lang": "en"},
            "tag": {"tags": "t3"},
            "not": {"not": {"tags": "t3"}},
            "none": {"nowhere": 1},
        }
        for mode in ("dense", "lexical", "hybrid"):
            for name, filter in filters.items():
                result = await opened.search("common report", top_k=50, filter=filter, mode=mode)  # type: ignore[arg-type]
                assert {hit.document_id for hit in result} == expected[name], (mode, name)


async def test_bad_arguments_are_refused_with_a_cure(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        await opened.ingest(Document(text="common", id="a"))
        for top_k in (0, -1, 1_000_000, True, 2.5):
            with pytest.raises(InputError, match="top_k") as caught:
                await opened.search("common", top_k=top_k)  # type: ignore[arg-type]
            assert "1 to 1000" in caught.value.hint
        with pytest.raises(FilterError, match="almost"):
            await opened.search("common", filter={"a": {"almost": 1}})
        with pytest.raises(InputError, match="mode"):
            await opened.search("common", mode="psychic")  # type: ignore[arg-type]
        with pytest.raises(NotFoundError, match="nowhere"):
            await opened.search("common", collections="nowhere")
        with pytest.raises(InputError, match="empty"):
            await opened.ask("  ")


async def test_an_empty_store_answers_honestly(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        assert len(await opened.search("anything")) == 0
        answer = await opened.ask("anything at all?")
        assert not answer.found and answer.citations == () and answer.text


async def test_tenants_see_nothing_of_each_other(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        acme, umbrella = opened.tenant("acme"), opened.tenant("umbrella")
        await acme.ingest(Document(text="common secret of acme", id="x"))
        await umbrella.ingest(Document(text="common secret of umbrella", id="x"))
        assert [hit.text for hit in await acme.search("secret")] == ["common secret of acme"]
        assert [hit.text for hit in await umbrella.search("secret")] == ["common secret of umbrella"]
        assert len(await opened.search("secret")) == 0
        assert await opened.collections() == []
        await acme.delete("x")
        assert len(await umbrella.search("secret")) == 1


async def test_several_collections_are_searched_as_one(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        await opened.ingest(Document(text="common walrus on ice", id="a"), collection="north")
        await opened.ingest([Document(text="common penguin on ice", id="b"), Document(text="desert", id="c")], collection="south")
        for mode in ("dense", "lexical", "hybrid"):
            result = await opened.search("common penguin on ice", collections=["north", "south"], top_k=2, mode=mode)
            found = [(hit.collection, hit.document_id) for hit in result]
            # BM25 scores of two collections do not compare: the lexical leg alone takes each one's best in turn.
            assert found == [("south", "b"), ("north", "a")] if mode != "lexical" else set(found) == {("south", "b"), ("north", "a")}
            assert isinstance(result.lsn, dict) and set(result.lsn) == {"north", "south"}
        hybrid = await opened.search("penguin ice", collections=["north", "south"])
        assert hybrid[0].lexical_score is not None and hybrid[0].dense_score is not None


async def test_a_collection_can_be_deleted_and_made_again(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        await opened.ingest(Document(text="common walrus", id="a"), collection="zoo")
        assert await opened.delete_collection("zoo")
        assert not await opened.delete_collection("zoo")
        await opened.ingest(Document(text="common gannet", id="b"), collection="zoo")
        assert [hit.text for hit in await opened.search("common", collections="zoo")] == ["common gannet"]


async def test_search_can_be_kept_to_some_documents(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        await opened.ingest([Document(text=f"common word {n}", id=str(n)) for n in range(10)])
        result = await opened.search("common word", documents=["3", "4", "gone"])
        assert {hit.document_id for hit in result} == {"3", "4"}
        assert len(await opened.search("common word", documents=[])) == 0


async def test_bad_sources_are_reported_and_the_others_go_on(folder: Path, tmp_path: Path) -> None:
    (folder / "empty.txt").write_bytes(b"")
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 40)
    (folder / "latin.txt").write_bytes("Grüße aus dem Hafen".encode("latin-1"))
    async with engine(tmp_path / "data") as opened:
        report = await opened.ingest([folder, tmp_path / "missing.md", Document(text=" \n", id="blank")])
        failed = {Path(failure.source).name for failure in report.failed}
        assert failed == {"empty.txt", "binary.txt", "missing.md", "blank"}
        assert all(failure.error and failure.hint for failure in report.failed)
        assert report.added == 4
        assert "Grüße" in (await opened.search("Hafen Grüße"))[0].text


async def test_prune_deletes_documents_whose_file_is_gone(folder: Path, tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        await opened.ingest([folder, Document(text="not from a file", id="kept")])
        (folder / "boats.txt").unlink()
        assert (await opened.ingest(folder)).pruned == 0
        assert len(await opened.documents()) == 4
        assert (await opened.ingest(folder, prune=True)).pruned == 1
        assert len(await opened.documents()) == 3


async def test_prune_takes_what_is_gone_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    named, broken = folder / "notes.xyz", folder / "broken.txt"
    named.write_text("A named file of no known extension.")
    broken.write_text("A text that will be replaced by something else.")
    async with engine(tmp_path / "data") as opened:
        before = (await opened.ingest([folder, named])).document_ids
        assert (await opened.ingest(folder, prune=True)).pruned == 0, "it was not met, but it is there"
        broken.write_bytes(bytes(range(256)) * 40)
        assert len((await opened.ingest(folder)).failed) == 1
        broken.unlink()
        assert (await opened.ingest(folder, prune=True)).pruned == 1, "a file that gave an error last is gone as well"
        named.unlink()
        assert (await opened.ingest(folder.as_uri(), prune=True)).pruned == 1, "a folder given as a URI"
        assert len(await opened.documents()) == len(before) - 2


async def test_ids_follow_the_contract(folder: Path, tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        first = await opened.ingest(folder / "boats.txt")
        (folder / "boats.txt").write_text("Another text altogether.")
        second = await opened.ingest(folder / "boats.txt")
        assert second.replaced == 1 and first.document_ids == second.document_ids
        same = await opened.ingest([Document(text="one text"), Document(text="one text")])
        assert (same.added, same.unchanged) == (1, 1) and len(same.document_ids) == 1


@pytest.mark.parametrize("between", [0, 64], ids=["side by side", "in other batches"])
async def test_of_several_versions_of_a_document_the_last_one_is_kept(tmp_path: Path, between: int) -> None:
    async with engine(tmp_path / "data") as opened:
        await opened.ingest(Document(text="red", id="a"))
        others = [Document(text=f"other {number}") for number in range(between)]
        report = await opened.ingest([Document(text="green", id="a"), *others, Document(text="red", id="a")])
        assert (await opened.text("a"), report.replaced, report.unchanged) == ("red", 2, 0)


async def test_what_is_under_way_when_it_is_closed_is_finished(folder: Path, tmp_path: Path) -> None:
    opened = await engine(tmp_path / "data").__aenter__()
    await opened.ingest(folder)
    embedder = opened._resources.own_embedder
    assert isinstance(embedder, HashEmbedder)
    asked, go_on, embed = threading.Event(), threading.Event(), embedder.embed_questions

    async def held_up(questions: Sequence[str]) -> Float32:
        asked.set()
        go_on.wait(30)  # on a worker thread
        return await embed(questions)

    embedder.embed_questions = held_up  # type: ignore[method-assign]
    answers = asyncio.create_task(opened.ask_many(["How often are signing keys rotated?", "How many days of leave has everyone?"]))
    assert await asyncio.to_thread(asked.wait, 30)
    closing, again = asyncio.create_task(opened.close()), asyncio.create_task(opened.close())
    await asyncio.sleep(0)
    with pytest.raises(BackendError):
        await opened.search("boat")
    go_on.set()
    assert [type(answer) for answer in await answers] == [Answer, Answer]
    await again
    assert closing.done(), "whoever closes it waits until it is closed"
    await closing
    with pytest.raises(BackendError):
        await opened.search("boat")


async def test_which_documents_are_searched_may_be_told_once(folder: Path, tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        ids = (await opened.ingest(folder)).document_ids
        once = await opened.search("keys", documents=(id for id in ids))  # type: ignore[arg-type]
        assert len(once) == len(await opened.search("keys", documents=list(ids))) == 3


async def test_a_model_that_the_engines_own_embedder_is_not_cannot_be_switched_to(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        await opened.ingest(Document(text="keys", id="a"))
        with pytest.raises(InputError, match="embeds with hash"):
            await opened.reindex(model="another-model")
        assert (await opened.search("keys"))[0].document_id == "a"


async def test_another_model_is_refused_until_a_reindex(tmp_path: Path) -> None:
    async with engine(tmp_path / "data", embedder=HashEmbedder(64)) as opened:
        await opened.ingest([Document(text=f"common word {n}", id=str(n)) for n in range(30)])
    other = HashEmbedder(32, name="other-model")
    async with engine(tmp_path / "data", embedder=other) as opened:
        with pytest.raises(ModelMismatchError, match="with hash, dimension 64, not with other-model, dimension 32") as caught:
            await opened.search("common")
        assert "`engine.reindex()`" in caught.value.hint
        with pytest.raises(ModelMismatchError):
            await opened.ingest(Document(text="x"))
        report = await opened.reindex(model="other-model")
        assert (report.documents, report.embedded) == (30, 30)
        held = await rows_of_views(opened)
        assert held["store"] == held["dense"] == held["lexical"] and len(held["store"]) == 30
        assert (await opened.reindex()).embedded == 0


async def test_a_stream_gives_hits_then_text_and_citations_then_the_answer(folder: Path, tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        await opened.ingest(folder)
        events = [event async for event in opened.stream("How often are signing keys rotated?")]
        kinds = [event.kind for event in events]
        assert kinds[0] == "hits" and isinstance(events[0].data, SearchResult)
        assert kinds[-1] == "answer" and isinstance(events[-1].data, Answer)
        assert "token" in kinds and "citation" in kinds
        assert "".join(event.data for event in events if event.kind == "token").strip() == events[-1].data.text.strip()
        assert tuple(event.data for event in events if event.kind == "citation") == events[-1].data.citations
        failed = [event async for event in opened.stream("")]
        assert [event.kind for event in failed] == ["error"]


async def test_a_store_opened_again_has_everything(folder: Path, tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        await opened.ingest(folder)
        before = [(hit.chunk_id, hit.score) for hit in await opened.search("signing keys")]
    async with engine(tmp_path / "data") as opened:
        assert [(hit.chunk_id, hit.score) for hit in await opened.search("signing keys")] == before


async def test_a_cancelled_ingest_leaves_whole_documents_and_a_working_engine(tmp_path: Path) -> None:
    documents = [Document(text=f"common document {n} " + "and more words " * 50, id=f"{n:04}") for n in range(2000)]
    async with engine(tmp_path / "data") as opened:
        seen = asyncio.Event()
        task = asyncio.create_task(opened.ingest(documents, progress=lambda progress: seen.set() if progress.sources_done >= 200 else None))
        await seen.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        kept = await opened.documents()
        assert 0 < len(kept) < 2000
        await opened.ingest(documents[:300])
        held = {hit.document_id for hit in await opened.search("common document", top_k=1000)}
        assert {document.id for document in documents[:300]} <= {document.id for document in await opened.documents()}
        assert held


async def test_readers_never_see_half_of_a_replacement_nor_a_deleted_text(tmp_path: Path) -> None:
    """Each version of a document has two chunks that carry its number; a search must see both of one version."""

    def version(number: int) -> Document:
        halves = [f"# Part {part}\n\ncommon version{number} " + "filling " * 30 for part in "ab"]
        return Document(text="\n\n".join(halves), id="doc")

    async with engine(tmp_path / "data", chunking={"max_tokens": 60}) as opened:
        await opened.ingest([version(0), Document(text="common ghost", id="ghost")])
        acknowledged = 0
        ghost_deleted = False
        done = False

        async def write() -> None:
            nonlocal acknowledged, done, ghost_deleted
            for number in range(1, 40):
                await opened.ingest(version(number))
                acknowledged = number
                if number == 20:
                    await opened.delete("ghost")
                    ghost_deleted = True
            done = True

        async def read(mode: str) -> int:
            searches = 0
            while not done:
                floor, ghost_gone = acknowledged, ghost_deleted
                result = await opened.search("common", top_k=10, mode=mode)  # type: ignore[arg-type]
                assert not (ghost_gone and any(hit.document_id == "ghost" for hit in result))
                if result.lag:  # commits overtook it three times over: it says so
                    continue
                parts = [hit for hit in result if hit.document_id == "doc"]
                versions = {hit.text.split("version")[1].split()[0] for hit in parts}
                assert len(parts) == 2 and len(versions) == 1, (mode, parts)
                assert int(versions.pop()) >= floor
                searches += 1
            return searches

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            readers = [tasks.create_task(read(mode)) for mode in ("dense", "lexical", "hybrid")]
        assert all(reader.result() > 5 for reader in readers)


async def test_settings_are_those_given(tmp_path: Path) -> None:
    async with engine(tmp_path / "data", retrieval={"top_k": 2}) as opened:
        await opened.ingest([Document(text=f"common {n}", id=str(n)) for n in range(5)])
        assert opened.settings.retrieval.top_k == 2 and isinstance(opened.settings, Settings)
        assert len(await opened.search("common")) == 2


async def test_settings_that_are_not_given_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ragline.toml").write_text("[retrieval]\ntop_k = 3\n[chunking]\nmax_tokens = 99\n")
    monkeypatch.setenv("RAGLINE_RETRIEVAL__TOP_K", "4")
    opened = Engine.open("data", embedder=HashEmbedder())
    assert (opened.settings.retrieval.top_k, opened.settings.chunking.max_tokens) == (4, 99)
    assert opened.settings.data_dir == Path("data")
    monkeypatch.setenv("RAGLINE_TOPK", "4")
    with pytest.raises(SettingsError, match="RAGLINE_TOPK"):
        Engine.open("data")
