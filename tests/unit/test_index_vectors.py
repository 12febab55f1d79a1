"""Finding rows by vector: numpy in float32 is the oracle."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest
from pyroaring import BitMap64

from ragline.errors import CorruptionError, InputError
from ragline.index.scans import exact_nearest
from ragline.index.stored_vectors import MappedVectors, extend_checksums, rows_per_block
from ragline.index.vectors import VectorIndex
from ragline.types import Float16, Float32, Int64

NONE = np.empty(0, np.int64)


def clustered(count: int, dimension: int, *, seed: int, clusters: int = 300) -> Float32:
    """Points around common centres: the same seed of centres for data and questions."""
    centres = np.random.default_rng(1).standard_normal((clusters, dimension))
    random = np.random.default_rng(seed)
    points = centres[random.integers(0, clusters, count)] + 0.7 * random.standard_normal((count, dimension))
    unit: Float32 = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return unit


def index_of(vectors: Float16, *, rows: Int64 | None = None, exact_below: int = 10_000, rerank: int = 160) -> VectorIndex:
    index = VectorIndex(vectors.shape[1], exact_below=exact_below, rerank=rerank)
    rows = np.arange(len(vectors)) if rows is None else rows
    for start in range(0, len(rows), 2048):
        index.apply(NONE, rows[start : start + 2048], vectors[start : start + 2048])
    return index


def nearest(vectors: Float16, question: Float32, top_k: int, rows: Int64) -> Int64:
    """The rows of the best `top_k` among `rows` (here also positions), by brute force."""
    scores = vectors[rows].astype(np.float32) @ question
    return rows[np.lexsort((rows, -scores))[:top_k]]


@pytest.fixture(scope="module")
def large() -> tuple[VectorIndex, Float16]:
    vectors = clustered(30_000, 96, seed=2).astype(np.float16)
    return index_of(vectors), vectors


@pytest.mark.parametrize("dimension", [3, 32, 97, 100, 384, 768])
@pytest.mark.parametrize("exact_below", [100, 10_000])
def test_search_gives_what_numpy_gives(dimension: int, exact_below: int) -> None:
    vectors = clustered(400, dimension, seed=3, clusters=20).astype(np.float16)
    index = index_of(vectors, exact_below=exact_below, rerank=180)
    assert (index.codes is not None) == (exact_below == 100 and dimension != 97)  # a prime cannot be cut
    for question in clustered(5, dimension, seed=4, clusters=20):
        rows, scores = index.search(question, 7)
        assert rows.dtype == np.int64
        assert scores.dtype == np.float32
        assert len(set(rows.tolist()) & set(nearest(vectors, question, 7, np.arange(400)).tolist())) >= 6 + (index.codes is None)
        np.testing.assert_allclose(scores, vectors[rows].astype(np.float32) @ question, atol=1e-6)
        assert np.all(scores[:-1] >= scores[1:])


def test_codes_find_the_nearest_of_many(large: tuple[VectorIndex, Float16]) -> None:
    index, vectors = large
    assert index.codes is not None
    questions = clustered(100, 96, seed=5)
    hits = sum(
        len(set(index.search(question, 10)[0].tolist()) & set(nearest(vectors, question, 10, np.arange(30_000)).tolist()))
        for question in questions
    )
    assert hits >= 0.99 * 1000


@pytest.mark.parametrize("share", [0.001, 0.1, 0.3, 0.9])
def test_codes_find_the_nearest_of_those_allowed(large: tuple[VectorIndex, Float16], share: float) -> None:
    index, vectors = large
    allowed = np.flatnonzero(np.random.default_rng(6).random(30_000) < share)
    bitmap = BitMap64(allowed.tolist())
    hits = 0
    for question in clustered(50, 96, seed=5):
        rows, _ = index.search(question, 10, bitmap)
        assert len(rows) == 10
        assert set(rows.tolist()) <= set(allowed.tolist())
        hits += len(set(rows.tolist()) & set(nearest(vectors, question, 10, allowed).tolist()))
    assert hits >= (500 if share < 0.13 else 0.98 * 500)


@pytest.mark.parametrize("top_k", [1, 100, 1000, 20_000, 29_999, 30_000, 1_000_000])
def test_as_many_rows_come_as_there_are(large: tuple[VectorIndex, Float16], top_k: int) -> None:
    index, _ = large
    question = clustered(1, 96, seed=7)[0]
    rows, _ = index.search(question, top_k)
    assert len(set(rows.tolist())) == min(top_k, 30_000)
    some = BitMap64(range(0, 40_000, 3))
    rows, _ = index.search(question, top_k, some)
    assert len(set(rows.tolist())) == min(top_k, 10_000)


def test_scores_are_the_same_bits_however_a_row_is_found(large: tuple[VectorIndex, Float16]) -> None:
    quantised, vectors = large
    exact = index_of(vectors[:5000])
    for question in clustered(5, 96, seed=8):
        for index in (quantised, exact):
            rows, scores = index.search(question, 50)
            assert index.scores(question, rows).tobytes() == scores.tobytes()
            filtered_rows, filtered = index.search(question, 50, BitMap64(rows.tolist()))
            assert (filtered_rows.tolist(), filtered.tobytes()) == (rows.tolist(), scores.tobytes())


def test_vectors_of_rows_are_those_stored_and_zeros_for_rows_not_held() -> None:
    vectors = clustered(50, 16, seed=9).astype(np.float16)
    index = index_of(vectors, rows=np.arange(100, 150))
    index.apply(np.array([120]), NONE, vectors[:0])
    found = index.vectors(np.array([149, 120, 100, 7, 149]))
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.stack([vectors[49], 0 * vectors[0], vectors[0], 0 * vectors[0], vectors[49]]))
    assert index.vectors(NONE).shape == (0, 16)
    assert VectorIndex(16).vectors(np.array([1])).shape == (1, 16)


def test_scores_of_rows_not_held_are_nan() -> None:
    vectors = clustered(10, 32, seed=9).astype(np.float16)
    index = index_of(vectors, rows=np.arange(10) * 5)
    index.apply(np.array([10]), NONE, np.empty((0, 32), np.float16))
    question = clustered(1, 32, seed=10)[0]
    scores = index.scores(question, np.array([45, 3, 10, 0, 999, 0]))
    expected = vectors[[9, 0, 0]].astype(np.float32) @ question
    assert np.isnan(scores[[1, 2, 4]]).all()
    np.testing.assert_allclose(scores[[0, 3, 5]], expected, atol=1e-6)
    assert index.scores(question, NONE).shape == (0,)
    assert np.isnan(VectorIndex(32).scores(question, np.array([1]))).all()


@pytest.mark.parametrize("exact_below", [100, 10_000])
@pytest.mark.parametrize("allowed", [None, 3, 1])
def test_ties_go_to_the_lower_row_even_at_the_last_place(exact_below: int, allowed: int | None) -> None:
    vectors = np.repeat(clustered(4, 32, seed=11), 3000, axis=0).astype(np.float16)  # each text stands in 3000 documents
    rows = np.arange(len(vectors)) * 2 + 5
    index = index_of(vectors[::-1], rows=rows, exact_below=exact_below)
    question = clustered(1, 32, seed=12)[0]
    order = np.lexsort((rows, -(vectors[::-1].astype(np.float32) @ question).round(5)))
    bitmap = None
    if allowed is not None:
        bitmap = BitMap64(rows[::allowed].tolist())
        order = order[np.isin(rows[order], rows[::allowed])]
    for top_k in (1, 10, 999, 4000):
        assert index.search(question, top_k, bitmap)[0].tolist() == rows[order[:top_k]].tolist()


@pytest.mark.parametrize("exact_below", [100, 10_000])
def test_removed_rows_are_not_found_and_others_are(exact_below: int) -> None:
    vectors = clustered(9500, 32, seed=13, clusters=40).astype(np.float16)
    index = index_of(vectors, exact_below=exact_below, rerank=1600)
    gone = np.random.default_rng(14).permutation(9500)[:3100]
    index.apply(np.concatenate([gone, gone[:5], [99_999]]), NONE, np.empty((0, 32), np.float16))
    assert index.count == 6400
    left = np.setdiff1d(np.arange(9500), gone)
    everything = BitMap64(range(9500))
    for question in clustered(5, 32, seed=15, clusters=40):
        for bitmap, of in ((None, left), (everything, left), (BitMap64(gone.tolist() + left[:20].tolist()), left[:20])):
            rows, _ = index.search(question, 5, bitmap)
            assert rows.tolist() == nearest(vectors, question, 5, of).tolist()
        for top_k in (5000, 9000):
            assert set(index.search(question, top_k, everything)[0].tolist()) <= set(left.tolist())


def test_dead_vectors_are_let_go() -> None:
    vectors = clustered(2000, 32, seed=16).astype(np.float16)
    for exact_below in (100, 10_000):
        index = VectorIndex(32, exact_below=exact_below, rerank=1000)
        for round in range(12):
            rows = np.arange(round * 2000, round * 2000 + 2000)
            index.apply(rows - 2000 if round else NONE, rows, vectors)
        assert index.count == 2000
        assert index.stored.count <= 8000
        question = clustered(1, 32, seed=17)[0]
        assert index.search(question, 5)[0].tolist() == (nearest(vectors, question, 5, np.arange(2000)) + 22_000).tolist()


def test_codes_come_with_size_are_trained_again_with_growth_and_go_with_shrinking() -> None:
    vectors = clustered(4100, 32, seed=18).astype(np.float16)
    index = VectorIndex(32, exact_below=1000)
    seen = []
    for start in range(0, 4100, 100):
        index.apply(NONE, np.arange(start, start + 100), vectors[start : start + 100])
        seen.append((index.codes is not None, index.trainings))
    assert seen[8:10] == [(False, 0), (True, 1)]
    assert seen[38:40] == [(True, 1), (True, 2)]
    index.apply(np.arange(3500), NONE, np.empty((0, 32), np.float16))
    assert index.codes is not None  # not yet half
    index.apply(np.arange(3601), NONE, np.empty((0, 32), np.float16))
    assert index.codes is None
    question = clustered(1, 32, seed=19)[0]
    assert index.search(question, 3)[0].tolist() == nearest(vectors, question, 3, np.arange(3601, 4100)).tolist()


def test_a_successor_is_changed_while_its_index_stays_as_it_is() -> None:
    vectors, questions = clustered(900, 32, seed=21).astype(np.float16), clustered(5, 32, seed=22)
    index = index_of(vectors[:300], exact_below=400)

    def found() -> list[list[int]]:
        return [index.search(question, 10)[0].tolist() for question in questions]

    before = found()
    assert not index.is_outgrown_by(removed=0, added=50) and index.is_outgrown_by(removed=0, added=600)
    successor = index.successor()
    successor.apply(np.arange(0, 100), np.arange(300, 900), vectors[300:])
    assert (index.codes, index.count) == (None, 300) and found() == before
    assert successor.codes is not None and successor.count == 800
    for question in questions:
        rows, _ = successor.search(question, 10)
        assert len(set(rows.tolist()) & set(nearest(vectors, question, 10, np.arange(100, 900)).tolist())) >= 9


@pytest.mark.parametrize("exact_below", [100, 10_000])
def test_a_row_added_again_has_its_new_vector(exact_below: int) -> None:
    vectors = clustered(500, 32, seed=20).astype(np.float16)
    index = index_of(vectors, exact_below=exact_below)
    index.apply(NONE, np.array([3, 250, 600]), vectors[[10, 11, 12]])
    assert index.count == 501
    question = vectors[10].astype(np.float32)
    assert index.search(question, 2)[0].tolist() == [3, 10]
    assert index.search(vectors[3].astype(np.float32), 1)[0].tolist() != [3]


def test_rows_far_apart_are_filtered_alike() -> None:
    vectors = clustered(9000, 32, seed=21).astype(np.float16)
    rows = np.sort(np.random.default_rng(22).choice(2**40, 9000, replace=False))
    index = index_of(vectors, rows=rows)
    allowed = rows[::7][:-1].tolist() + rows[1::7].tolist() + rows[::2].tolist() + [2**41, 1]
    question = clustered(1, 32, seed=23)[0]
    inside = np.flatnonzero(np.isin(rows, allowed))
    assert len(inside) > 4096  # neither of the two ways to pick them out one by one
    found, _ = index.search(question, 20, BitMap64(allowed))
    assert found.tolist() == rows[nearest(vectors, question, 20, inside)].tolist()


def test_an_empty_index_finds_nothing() -> None:
    index = VectorIndex(32)
    question = clustered(1, 32, seed=24)[0]
    for bitmap in (None, BitMap64([1]), BitMap64(range(10_000))):
        rows, scores = index.search(question, 10, bitmap)
        assert (rows.shape, scores.shape) == ((0,), (0,))
    index.apply(np.array([1]), NONE, np.empty((0, 32), np.float16))
    index.apply(NONE, np.array([1]), question[None].astype(np.float16))
    assert index.search(question, 0)[0].shape == (0,)
    assert index.search(question, 10, BitMap64())[0].shape == (0,)
    index.apply(np.array([1]), NONE, np.empty((0, 32), np.float16))
    assert index.search(question, 10)[0].shape == (0,)


def test_a_vector_of_nan_is_never_found_and_hides_no_other() -> None:
    vectors = clustered(200, 32, seed=25).astype(np.float16)
    vectors[7] = np.nan
    for exact_below in (100, 10_000):
        index = index_of(vectors, exact_below=exact_below)
        rows, scores = index.search(clustered(1, 32, seed=26)[0], 200)
        assert sorted(rows.tolist()) == [row for row in range(200) if row != 7]
        assert np.isfinite(scores).all()


def test_shapes_that_do_not_fit_are_refused() -> None:
    index = VectorIndex(32)
    with pytest.raises(InputError, match="dimension 32"):
        index.apply(NONE, np.array([1]), np.zeros((1, 16), np.float16))
    with pytest.raises(InputError, match="dimension 32"):
        index.search(np.zeros(16, np.float32), 1)
    with pytest.raises(InputError, match="finite"):
        index.search(np.full(32, np.nan, np.float32), 1)


def test_searches_side_by_side_give_what_one_alone_gives(large: tuple[VectorIndex, Float16]) -> None:
    index, _ = large
    questions = clustered(40, 96, seed=27)
    bitmap = BitMap64(range(0, 30_000, 2))
    alone = [(index.search(question, 20)[0].tolist(), index.search(question, 20, bitmap)[0].tolist()) for question in questions]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            together = pool.map(
                lambda question: (index.search(question, 20)[0].tolist(), index.search(question, 20, bitmap)[0].tolist()), questions
            )
            assert list(together) == alone


def test_faiss_keeps_to_the_thread_that_searches(large: tuple[VectorIndex, Float16]) -> None:
    index, _ = large
    question = clustered(1, 96, seed=28)[0]

    def threads_after_search() -> int:
        faiss.omp_set_num_threads(2)  # what a new thread begins with on two cores
        index.search(question, 1)
        return int(faiss.omp_get_max_threads())

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(threads_after_search).result() == 1


def test_a_damaged_block_is_found_when_it_is_touched_and_not_before(tmp_path: Path) -> None:
    dimension = 384
    per_block = rows_per_block(dimension)
    vectors = np.random.default_rng(29).standard_normal((2 * per_block + 10, dimension)).astype(np.float16)
    path = tmp_path / "vectors"
    path.write_bytes(vectors.tobytes())
    checksums = extend_checksums(np.empty(0, np.uint32), 0, [vectors], dimension)
    assert len(checksums) == 3
    with open(path, "r+b") as file:
        file.seek(2 * dimension * per_block + 1000)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 4]))
    mapped = MappedVectors(path, dimension, len(vectors), checksums)
    np.testing.assert_array_equal(mapped.take(np.array([0, per_block - 1, 2 * per_block])), vectors[[0, per_block - 1, 2 * per_block]])
    for position in (per_block, 2 * per_block - 1):
        with pytest.raises(CorruptionError, match="block 1"):
            mapped.take(np.array([0, position]))
    assert len(mapped.faults()) == 1


def test_checksums_do_not_depend_on_the_pieces_they_are_made_from() -> None:
    vectors = np.random.default_rng(30).standard_normal((9000, 384)).astype(np.float16)
    whole = extend_checksums(np.empty(0, np.uint32), 0, [vectors], 384)
    part = extend_checksums(np.empty(0, np.uint32), 0, [vectors[:100], vectors[100:5000]], 384)
    extended = extend_checksums(part, 5000, [vectors[5000:5001], vectors[5001:]], 384)
    assert extended.tolist() == whole.tolist()


@pytest.mark.parametrize("count", [1, 7, 3000])
def test_vectors_scored_in_memory_that_is_kept_are_those_that_were_given(count: int) -> None:
    for dimension in (8, 16, 8):  # in turn, as where two models are searched from one thread
        vectors = clustered(count, dimension, seed=count).astype(np.float16)
        for question in clustered(3, dimension, seed=5):
            scores, order = exact_nearest(question[None], vectors, min(5, count))
            expected = vectors.astype(np.float32) @ question
            assert np.allclose(scores, np.sort(expected)[::-1][: min(5, count)], atol=1e-5)
            assert np.allclose(expected[order], scores, atol=1e-5)
