from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragline.retrieval.fusion import Fused, Leg, convex, reciprocal_rank
from ragline.types import Float32, Int64

EMPTY: Leg = (np.empty(0, np.int64), np.empty(0, np.float32))


def leg(**scores: float) -> Leg:
    """`leg(r3=0.9, r1=0.5)`: row 3 scored 0.9, row 1 scored 0.5."""
    return np.array([int(name[1:]) for name in scores], np.int64), np.array(list(scores.values()), np.float32)


def score_of(fused: Fused, row: int) -> float:
    return float(fused.scores[fused.rows == row][0])


def test_convex_puts_first_what_both_legs_find_over_what_one_leg_ranks_first() -> None:
    fused = convex(leg(r1=0.8, r2=0.79, r9=0.1), leg(r3=10.0, r2=9.9), dense_weight=0.5)
    assert fused.rows.tolist()[0] == 2
    assert score_of(fused, 2) == pytest.approx(0.5 * (0.69 / 0.7) + 0.5 * 0.99, abs=1e-6)


def test_convex_scores_the_best_of_both_legs_with_one() -> None:
    fused = convex(leg(r1=0.8, r2=0.2), leg(r1=7.0, r3=1.0), dense_weight=0.3)
    assert fused.rows.tolist()[0] == 1
    assert fused.scores[0] == pytest.approx(1.0)


def test_convex_measures_bm25_from_zero_and_not_from_the_worst_row_found() -> None:
    fused = convex(EMPTY, leg(r1=10.0, r2=9.0), dense_weight=0.5)
    assert fused.scores.tolist() == pytest.approx([0.5, 0.45])


def test_convex_uses_exact_cosines_of_rows_that_only_the_words_found() -> None:
    asked: list[Int64] = []

    def score_dense(rows: Int64) -> Float32:
        asked.append(rows)
        return np.array([0.1, 0.3], np.float32)  # the unrelated level becomes mean(0.2, 0.1, 0.3) = 0.2

    fused = convex(leg(r5=0.7, r6=0.2), leg(r8=4.0, r7=2.0), dense_weight=0.5, score_dense=score_dense)
    assert [rows.tolist() for rows in asked] == [[7, 8]]
    assert score_of(fused, 5) == pytest.approx(0.5)
    assert score_of(fused, 8) == pytest.approx(0.5 * (0.1 / 0.5) + 0.5)
    assert score_of(fused, 7) == pytest.approx(0.25)  # below the level counts as on it
    assert fused.dense[fused.rows == 7][0] == pytest.approx(0.1)


def test_convex_asks_for_no_cosines_when_the_dense_leg_found_every_row() -> None:
    def never(rows: Int64) -> Float32:
        raise AssertionError("asked for known cosines")

    fused = convex(leg(r1=0.9, r2=0.1), leg(r2=3.0), dense_weight=0.5, score_dense=never)
    assert fused.rows.tolist() == [1, 2]


def test_convex_takes_a_row_without_a_cosine_as_unrelated() -> None:
    fused = convex(leg(r1=0.9, r2=0.5), leg(r3=3.0), dense_weight=0.5, score_dense=lambda rows: np.full(rows.size, np.nan, np.float32))
    assert score_of(fused, 3) == pytest.approx(0.5)
    assert np.isnan(fused.dense[fused.rows == 3][0])


def test_convex_keeps_the_order_of_the_only_leg() -> None:
    assert convex(leg(r4=0.9, r1=0.8, r2=0.1), EMPTY, dense_weight=0.5).rows.tolist() == [4, 1, 2]
    assert convex(EMPTY, leg(r4=9.0, r1=8.0, r2=1.0), dense_weight=0.5).rows.tolist() == [4, 1, 2]


@pytest.mark.parametrize("fuse", [lambda d, w: convex(d, w, dense_weight=0.5), reciprocal_rank])
def test_fusing_nothing_gives_nothing(fuse: object) -> None:
    fused = fuse(EMPTY, EMPTY)  # type: ignore[operator]
    assert (fused.rows.size, fused.scores.size, fused.dense.size, fused.lexical.size) == (0, 0, 0, 0)
    assert fused.rows.dtype == np.int64


@pytest.mark.parametrize("cosine", [0.5, 0.0, -0.5])
def test_convex_counts_equal_scores_as_best_and_orders_them_by_row(cosine: float) -> None:
    fused = convex(leg(r3=cosine, r1=cosine, r2=cosine), leg(r2=1.0, r3=1.0), dense_weight=0.5)
    assert fused.rows.tolist() == [2, 3, 1]
    assert fused.scores.tolist() == [1.0, 1.0, 0.5]


def test_convex_still_ranks_when_all_cosines_are_negative() -> None:
    assert convex(leg(r1=-0.1, r2=-0.2, r3=-0.3), EMPTY, dense_weight=0.5).rows.tolist() == [1, 2, 3]


def test_convex_with_all_weight_on_one_leg_follows_that_leg() -> None:
    dense, lexical = leg(r1=0.9, r2=0.5, r3=0.1), leg(r3=9.0, r2=5.0)
    assert convex(dense, lexical, dense_weight=1.0).rows.tolist() == [1, 2, 3]
    assert convex(dense, lexical, dense_weight=0.0).rows.tolist() == [3, 2, 1]


def test_reciprocal_rank_sums_reciprocals_of_ranks_counted_from_one() -> None:
    fused = reciprocal_rank(leg(r1=0.9, r2=0.8), leg(r2=5.0, r3=1.0), k=60)
    assert fused.rows.tolist() == [2, 1, 3]
    assert fused.scores.tolist() == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62])
    assert np.isnan(fused.dense[2]) and np.isnan(fused.lexical[1])


def test_reciprocal_rank_breaks_ties_by_row() -> None:
    assert reciprocal_rank(leg(r9=0.9, r4=0.8), leg(r4=5.0, r9=1.0)).rows.tolist() == [4, 9]


@st.composite
def legs(draw: st.DrawFn, worst: float, best: float) -> Leg:
    rows = draw(st.lists(st.integers(0, 30), unique=True, max_size=20))
    scores = sorted(draw(st.lists(st.floats(worst, best, width=32), min_size=len(rows), max_size=len(rows))), reverse=True)
    return np.array(rows, np.int64), np.array(scores, np.float32)


@given(legs(-1.0, 1.0), legs(0.0009765625, 60.0), st.floats(0, 1), st.booleans())
def test_convex_gives_every_row_once_in_order_with_scores_from_zero_to_one(dense: Leg, lexical: Leg, weight: float, exact: bool) -> None:
    fused = convex(dense, lexical, dense_weight=weight, score_dense=(lambda rows: np.cos(rows).astype(np.float32)) if exact else None)
    assert sorted(fused.rows.tolist()) == sorted({*dense[0].tolist(), *lexical[0].tolist()})
    assert list(zip(-fused.scores, fused.rows, strict=True)) == sorted(zip(-fused.scores, fused.rows, strict=True))
    assert fused.scores.size == 0 or (fused.scores.min() >= 0 and fused.scores.max() <= 1)
