"""Every file of the views damaged in every way: found, made again from the store, right answers."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ragline.errors import CorruptionError
from ragline.types import Document
from tests.engines import engine, rows_of_views

DOCUMENTS = [Document(text=f"common word{n} " + "more of it " * 8, id=f"{n:04}", metadata={"n": n % 7}) for n in range(700)]


def _flip(path: Path, position: float) -> None:
    content = bytearray(path.read_bytes())
    content[min(int(len(content) * position), len(content) - 1)] ^= 0x10
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one byte short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a bit of its head flipped": lambda path: _flip(path, 0),
    "a bit of its middle flipped": lambda path: _flip(path, 0.5),
    "a bit of its end flipped": lambda path: _flip(path, 1),
    "filled with noise": lambda path: path.write_bytes(bytes(i * 37 % 251 for i in range(path.stat().st_size))),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("damage") / "data"


async def _answers(folder: Path, **settings: Any) -> tuple[object, ...]:
    async with engine(folder, **settings) as opened:
        held = await rows_of_views(opened)
        assert held["dense"] == held["lexical"] == held["store"] and len(held["store"]) == len(DOCUMENTS)
        filtered = await opened.search("word3 common", filter={"n": 3}, top_k=200)
        assert {hit.document_id for hit in filtered} == {document.id for document in DOCUMENTS if document.metadata["n"] == 3}
        best = [(await opened.search(f"word{n}", top_k=1))[0].document_id for n in (0, 350, 699)]
        assert best == ["0000", "0350", "0699"]
        return tuple((hit.document_id, round(hit.score, 5)) for hit in await opened.search("word5 more", top_k=20))


EACH = 3
"""Kinds of damage done to each file in the short form, other ones to the next file; the soak does all to all."""


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "quantised"])
@pytest.mark.parametrize("each", [EACH, pytest.param(len(DAMAGES), marks=pytest.mark.soak)], ids=["some", "all"])
async def test_no_damage_of_an_index_file_reaches_an_answer(folder: Path, exact: bool, each: int) -> None:
    settings: dict[str, Any] = {"index": {"exact_below": 10_000 if exact else 100}}
    folder = folder.with_name(f"data-{exact}-{each}")
    async with engine(folder, **settings) as opened:
        await opened.ingest(DOCUMENTS)
    expected = await _answers(folder, **settings)
    views = folder / "views"
    backup = folder.with_name(f"backup-{exact}-{each}")
    shutil.copytree(views, backup)
    files = sorted(path.relative_to(backup) for path in backup.rglob("*") if path.is_file() and path.stat().st_size)
    names = {path.name.split("-")[0].split(".")[0] for path in files}
    kinds = {"MANIFEST", "attributes", "vectors", "rows", "meta", "CURRENT"}
    assert kinds | (set() if exact else {"codes"}) <= names, f"the views' files have other names now: {sorted(names)}"
    if not exact:  # the others are the same files as in an exact index
        files, each = [path for path in files if path.name.startswith("codes")], len(DAMAGES)
    kinds_of_damage = itertools.cycle(DAMAGES.items())
    for file in files:
        for name, damage in itertools.islice(kinds_of_damage, each):
            damage(views / file)
            try:
                assert await _answers(folder, **settings) == expected, (file, name)
            except Exception as failure:
                failure.add_note(f"{file} {name}")
                raise
            shutil.rmtree(views)
            shutil.copytree(backup, views)


async def test_without_its_views_a_store_answers_as_before(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        await opened.ingest(DOCUMENTS)
    expected = await _answers(tmp_path)
    shutil.rmtree(tmp_path / "views")
    assert await _answers(tmp_path) == expected


async def test_a_copied_store_does_not_trust_the_views_it_came_with(tmp_path: Path) -> None:
    async with engine(tmp_path / "a") as opened:
        await opened.ingest(DOCUMENTS)
        incarnation = (await opened.status()).incarnation
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    async with engine(tmp_path / "b") as opened:
        assert (await opened.status()).incarnation != incarnation
    assert await _answers(tmp_path / "b") == await _answers(tmp_path / "a")


@pytest.mark.parametrize("in_place", [False, True], ids=["in a new file", "over the old file"])
async def test_a_store_restored_from_a_backup_does_not_trust_the_views_of_what_came_after(tmp_path: Path, in_place: bool) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    async with engine(data) as opened:
        await opened.ingest(Document(text="the common fox", id="fox"))
    shutil.copy(data / "store.sqlite3", backup)
    async with engine(data) as opened:
        for number in range(4):
            await opened.ingest(Document(text=f"common number{number}", id=f"later{number}"))
        incarnation = (await opened.status()).incarnation
    for left in data.glob("store.sqlite3-*"):
        left.unlink()
    if not in_place:
        (data / "store.sqlite3").unlink()
    shutil.copyfile(backup, data / "store.sqlite3")
    async with engine(data) as opened:
        assert ((await opened.status()).incarnation == incarnation) is in_place
        if in_place:
            await opened.search("common")  # where the file is the same, what is ahead is noticed only as long as it is
        await opened.ingest(Document(text="the common owl", id="owl"))
        held = await rows_of_views(opened)
        assert held["dense"] == held["lexical"] == held["store"] and {id for id, *_ in held["store"]} == {"fox", "owl"}
        assert [hit.document_id for hit in await opened.search("owl", mode="lexical")] == ["owl"]


async def test_a_damaged_store_is_named_and_not_guessed_at(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        await opened.ingest(DOCUMENTS)
    store = tmp_path / "store.sqlite3"
    store.write_bytes(b"this is no database" * 100)
    with pytest.raises(CorruptionError) as caught:
        async with engine(tmp_path):
            pass
    assert store.name in caught.value.message and caught.value.hint
