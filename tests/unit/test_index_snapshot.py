"""Snapshots: what is saved is what is loaded, damage is found, and no interruption leaves half of one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragline.errors import BackendError, CorruptionError
from ragline.filters import parse_filter
from ragline.index import snapshot
from ragline.index.attributes import AttributeIndex
from ragline.index.files import read_manifest
from ragline.index.snapshot import load_snapshot, save_snapshot, verify_snapshot
from ragline.index.vectors import VectorIndex
from ragline.types import Int64

DIMENSION = 384
NONE = np.empty(0, np.int64)
QUESTION = np.random.default_rng(0).standard_normal(DIMENSION).astype(np.float32)
VECTORS = np.random.default_rng(1).standard_normal((8000, DIMENSION), np.float32).astype(np.float16)  # by row


class Views:
    """Both views of a scope, fed together."""

    def __init__(self, *, exact_below: int = 10_000) -> None:
        self.vectors = VectorIndex(DIMENSION, exact_below=exact_below)
        self.attributes = AttributeIndex()

    def apply(self, rows: range, removed: Int64 = NONE) -> Views:
        self.vectors.apply(removed, np.array(rows), VECTORS[rows.start : rows.stop])
        self.attributes.apply(removed, np.array(rows), [{"n": row} for row in rows])
        return self

    def save(self, folder: Path, lsn: int, *, incarnation: str = "store-1") -> None:
        save_snapshot(folder, lsn=lsn, incarnation=incarnation, model="mini", vectors=self.vectors, attributes=self.attributes)


def load(folder: Path, *, exact_below: int = 10_000) -> tuple[int, VectorIndex | None, AttributeIndex] | None:
    return load_snapshot(folder, incarnation="store-1", model="mini", exact_below=exact_below)


def results(vectors: VectorIndex | None) -> list[tuple[int, float]]:
    """Every row with its score: touches every block."""
    assert vectors is not None
    rows, scores = vectors.search(QUESTION, 10_000)
    return list(zip(rows.tolist(), scores.tolist(), strict=True))


def flip(path: Path, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 16]))


@pytest.mark.parametrize("exact_below", [500, 10_000])
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, exact_below: int) -> None:
    views = Views(exact_below=exact_below).apply(range(2000)).apply(range(2000, 2010), np.arange(0, 300, 3))
    before = results(views.vectors)
    views.save(tmp_path / "deep" / "memory", 7)
    assert results(views.vectors) == before
    loaded = load(tmp_path / "deep" / "memory", exact_below=exact_below)
    assert loaded is not None
    lsn, vectors, attributes = loaded
    assert lsn == 7
    assert results(vectors) == before
    assert vectors is not None
    assert (vectors.codes is None) == (exact_below == 10_000)
    assert vectors.search(QUESTION, 10)[0].tolist() == views.vectors.search(QUESTION, 10)[0].tolist()
    assert attributes.live == views.attributes.live
    assert list(attributes.rows(parse_filter({"n": {"lt": 5}}))) == [1, 2, 4]
    assert verify_snapshot(tmp_path / "deep" / "memory") == []


def test_a_scope_without_vectors_is_saved_too(tmp_path: Path) -> None:
    for vectors in (None, VectorIndex(DIMENSION)):
        save_snapshot(tmp_path, lsn=1, incarnation="store-1", model="mini", vectors=vectors, attributes=AttributeIndex())
        loaded = load(tmp_path)
        assert loaded is not None
        assert (loaded[0], loaded[1], len(loaded[2])) == (1, None, 0)
        assert verify_snapshot(tmp_path) == []


def test_what_is_loaded_goes_on_as_what_was_saved(tmp_path: Path) -> None:
    views = Views(exact_below=500).apply(range(600))
    views.save(tmp_path, 1)
    loaded = load(tmp_path, exact_below=500)
    assert loaded is not None
    again = Views(exact_below=500)
    _, again.vectors, again.attributes = loaded  # type: ignore[assignment]
    removed = np.array([1, 2, 599])
    for each in (views, again):
        each.apply(range(700, 900), removed)
    assert results(again.vectors) == results(views.vectors)
    again.save(tmp_path, 2)
    loaded = load(tmp_path, exact_below=500)
    assert loaded is not None
    assert results(loaded[1]) == results(views.vectors)


def test_another_incarnation_model_or_format_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Views().apply(range(10)).save(tmp_path, 1)
    assert load_snapshot(tmp_path, incarnation="store-2", model="mini") is None
    assert load_snapshot(tmp_path, incarnation="store-1", model="other") is None
    assert load_snapshot(tmp_path / "nowhere", incarnation="store-1", model="mini") is None
    assert verify_snapshot(tmp_path / "nowhere") == []
    monkeypatch.setattr(snapshot, "FORMAT", 2)
    assert load(tmp_path) is None


def test_later_snapshots_append_to_the_same_file_and_leave_no_others(tmp_path: Path) -> None:
    views = Views(exact_below=500).apply(range(3000))
    views.save(tmp_path, 1)
    early = load(tmp_path, exact_below=500)
    assert early is not None
    expected = results(views.vectors)
    file = next(tmp_path.glob("vectors-*"))
    start = file.read_bytes()
    for lsn in range(2, 5):
        views.apply(range(lsn * 1000 + 1000, lsn * 1000 + 1700), np.array([lsn]))
        views.save(tmp_path, lsn)
        assert views.vectors.stored.tail.size == 0  # the memory is free
    assert file.read_bytes()[: len(start)] == start
    assert file.stat().st_size == 2 * DIMENSION * 5100
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == ["MANIFEST", "attributes", "codes", "rows", "vectors"]
    assert results(early[1]) == expected  # whose other files are gone
    late = load(tmp_path, exact_below=500)
    assert late is not None
    assert results(late[1]) == results(views.vectors)
    assert verify_snapshot(tmp_path) == []


def test_dead_vectors_are_left_behind_in_a_new_file(tmp_path: Path) -> None:
    views = Views(exact_below=500).apply(range(7000))
    views.save(tmp_path, 1)
    reader = load(tmp_path, exact_below=500)
    assert reader is not None
    expected = results(views.vectors)
    views.apply(range(7000, 7100), np.arange(6000))
    views.save(tmp_path, 2)
    (file,) = tmp_path.glob("vectors-*")
    assert file.stat().st_size == 2 * DIMENSION * 1100
    loaded = load(tmp_path, exact_below=500)
    assert loaded is not None
    assert results(loaded[1]) == results(views.vectors)
    assert results(reader[1]) == expected


def test_an_indexer_with_another_past_overwrites_nothing_that_is_read(tmp_path: Path) -> None:
    first = Views(exact_below=500).apply(range(1000))
    first.save(tmp_path, 1)
    loaded = load(tmp_path, exact_below=500)
    assert loaded is not None
    second = Views(exact_below=500)
    _, second.vectors, second.attributes = loaded  # type: ignore[assignment]
    first.apply(range(1000, 1100))
    first.save(tmp_path, 2)
    reader = load(tmp_path, exact_below=500)
    second.apply(range(1050, 1200))  # it took over, and learnt of other rows
    second.save(tmp_path, 3)
    assert reader is not None
    assert results(reader[1]) == results(first.vectors)
    latest = load(tmp_path, exact_below=500)
    assert latest is not None
    assert results(latest[1]) == results(second.vectors)


def test_a_folder_made_anew_under_an_indexer_is_not_appended_to(tmp_path: Path) -> None:
    first = Views().apply(range(100))
    first.save(tmp_path, 1)
    for path in list(tmp_path.iterdir()):
        path.unlink()
    Views().apply(range(500, 600)).save(tmp_path, 1)  # the same name, the same count, other vectors
    first.apply(range(100, 110))
    first.save(tmp_path, 2)
    loaded = load(tmp_path)
    assert loaded is not None
    assert results(loaded[1]) == results(first.vectors)


DAMAGE: list[tuple[str, Callable[[Path], Any]]] = [
    ("truncated to half", lambda path: os.truncate(path, path.stat().st_size // 2)),
    ("truncated by a byte", lambda path: os.truncate(path, path.stat().st_size - 1)),
    ("emptied", lambda path: os.truncate(path, 0)),
    ("removed", lambda path: path.unlink()),
    *(
        (f"flipped at {share}", lambda path, share=share: flip(path, int(share * (path.stat().st_size - 1))))
        for share in (0, 0.3, 0.5, 0.9, 1)
    ),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    Views(exact_below=500).apply(range(4000)).save(folder, 1)  # three blocks of vectors
    return folder


@pytest.mark.parametrize("name", ["MANIFEST", "attributes", "rows", "codes", "vectors"])
@pytest.mark.parametrize(("how", "damage"), DAMAGE, ids=[how for how, _ in DAMAGE])
def test_damage_is_found_and_never_served(sound: Path, tmp_path: Path, name: str, how: str, damage: Callable[[Path], Any]) -> None:
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.glob(f"{name}*")
    damage(path)
    loaded = load(tmp_path, exact_below=500)
    if name == "vectors" and how.startswith("flipped"):
        assert loaded is not None
        with pytest.raises(CorruptionError, match="vectors-1"):
            results(loaded[1])
    else:
        assert loaded is None
    if (name, how) != ("MANIFEST", "removed"):  # then there is none, and nothing to complain of
        faults = verify_snapshot(tmp_path)
        assert len(faults) == 1
        assert path.name in faults[0]
    Views(exact_below=50).apply(range(100)).save(tmp_path, 2)
    assert verify_snapshot(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 5


def test_an_exact_index_is_read_whole_when_it_is_loaded(tmp_path: Path) -> None:
    Views().apply(range(4000)).save(tmp_path, 1)
    flip(next(tmp_path.glob("vectors-*")), 2_000_000)
    assert load(tmp_path) is None


class Killed(BaseException):
    """Stands for the end of the process: nothing that writes works after it."""


class Interrupted:
    """Counts calls that change the disk; from the n-th on, none does. The n-th write is done by half."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException) -> None:
        self.calls = 0
        self.at = at
        self.error = error
        for name in ("open", "pwrite", "fsync", "replace", "unlink"):
            monkeypatch.setattr(os, name, self._counting(name, getattr(os, name)))

    def _counting(self, name: str, original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls < self.at or (isinstance(self.error, OSError) and name == "unlink"):
                return original(*args, **kwargs)
            if self.calls == self.at and name == "pwrite":
                original(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:])
            raise self.error

        return call


@pytest.mark.parametrize("error", [Killed(), OSError(errno.ENOSPC, "No space left on device")], ids=["killed", "disk full"])
@pytest.mark.parametrize("anew", [False, True], ids=["appending", "in a new file"])
def test_interrupted_anywhere_it_leaves_the_old_snapshot_or_the_new(tmp_path: Path, error: BaseException, anew: bool) -> None:
    old_views = Views(exact_below=500).apply(range(600))
    old = results(old_views.vectors)
    change = (range(600, 700), np.arange(50))
    new = results(Views(exact_below=500).apply(range(600)).apply(*change).vectors)
    outcomes = []
    for at in range(1, 60):
        folder = tmp_path / str(at)
        views = Views(exact_below=500).apply(range(600))
        views.save(folder, 1)
        if anew:
            views = Views(exact_below=500).apply(range(600))
        views.apply(*change)
        with pytest.MonkeyPatch.context() as patch:
            interrupted = Interrupted(patch, at, error)
            try:
                views.save(folder, 2)
            except (Killed, BackendError) as failure:
                assert isinstance(failure, Killed) == isinstance(error, Killed)
        loaded = load(folder, exact_below=500)
        assert loaded is not None
        assert results(loaded[1]) == (old if loaded[0] == 1 else new)
        assert verify_snapshot(folder) == []
        outcomes.append(loaded[0])
        views.apply(range(800, 810)).save(folder, 3)  # as if nothing had been
        loaded = load(folder, exact_below=500)
        assert loaded is not None
        assert loaded[0] == 3
        assert results(loaded[1]) == results(views.vectors)
        assert len(list(folder.iterdir())) == 5
        if interrupted.calls < at:
            break
    assert outcomes == sorted(outcomes)
    assert outcomes.count(1) >= 10
    assert outcomes[-1] == 2


def test_a_reader_that_has_just_read_the_old_manifest_takes_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views = Views().apply(range(100))
    views.save(tmp_path, 1)
    overtaken: list[Any] = []

    def read_and_be_overtaken(path: Path) -> Any:
        fields = read_manifest(path)
        if not overtaken:
            overtaken.append(fields)
            monkeypatch.setattr(snapshot, "read_manifest", read_manifest)
            Views().apply(range(200)).save(tmp_path, 2)
        return fields

    monkeypatch.setattr(snapshot, "read_manifest", read_and_be_overtaken)
    loaded = load(tmp_path)
    assert overtaken[0]["lsn"] == 1
    assert loaded is not None
    assert loaded[0] == 2
    assert len(results(loaded[1])) == 200


def test_a_folder_that_cannot_be_written_is_an_error_with_its_cure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match="cannot write") as refused:
        Views().apply(range(10)).save(tmp_path / "file" / "memory", 1)
    assert "disk" in refused.value.hint
