"""The answer cache: each of its three steps, and what keeps each from serving."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ragline.answers.cache import ALIKE_AT_MOST, AnswerCache, Asked, Position
from ragline.caching.memory import MemoryCache
from ragline.types import Answer, Citation, Float32, Scope, ScoredChunk

AT = Position((7,), (1,))
LATER = Position((8,), (1,))
HIT = ScoredChunk(5, "keys", 2, 1.0, None, None, "Keys rotate every 90 days.", None, {}, 0, 26)
OTHER = replace(HIT, chunk_id=6, document_id="boats")
CITED = Citation(5, "keys", 2, 0, 26, HIT.text, None)
ANSWER = Answer(text="Keys rotate every 90 days. [1]", citations=(CITED,), found=True, hits=(HIT, OTHER), lsn=7, cache="miss")
ASKED = Asked(Scope("acme", "handbook"), "settings", "how often do keys rotate?")
REWORDED = replace(ASKED, question="How often do the keys rotate?")
VECTOR: Float32 = np.array([1, 0], np.float32)
NEAR: Float32 = np.array([0.96, 0.28], np.float32)
FAR: Float32 = np.array([0.6, 0.8], np.float32)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def new_cache(*, max_age_s: float | None = None, clock: Clock | None = None) -> AnswerCache:
    ticking = clock or Clock()
    return AnswerCache(MemoryCache(1000, clock=ticking), MemoryCache(1000, clock=ticking), max_age_s=max_age_s, clock=ticking)


async def test_the_same_question_at_the_same_position_is_served() -> None:
    cache = new_cache()
    assert await cache.current(ASKED, AT) is None
    await cache.keep(ASKED, ANSWER, AT, "evidence")
    assert await cache.current(ASKED, AT) == replace(ANSWER, cache="hit")
    assert cache.counters == {"hit": 1}


async def test_another_position_is_not_the_same_be_it_by_lsn_or_by_epoch() -> None:
    cache = new_cache()
    await cache.keep(ASKED, ANSWER, AT, "evidence")
    for position in (LATER, Position((7,), (2,)), Position((7, 7), (1, 1))):
        assert await cache.current(ASKED, position) is None
    assert "hit" not in cache.counters


async def test_nothing_crosses_a_tenant_a_collection_or_a_partition() -> None:
    cache = new_cache()
    await cache.keep(ASKED, ANSWER, AT, "evidence", VECTOR)
    for other in (
        replace(ASKED, scope=Scope("other", "handbook")),
        replace(ASKED, scope=Scope("acme", "other")),
        replace(ASKED, partition="other settings"),
    ):
        assert await cache.current(other, AT) is None
        assert await cache.revalidated(other, AT, "evidence") is None
        assert await cache.alike(replace(other, question=REWORDED.question), AT, ANSWER.hits, VECTOR) is None


async def test_the_same_evidence_later_is_served_and_then_holds_at_the_new_position() -> None:
    cache = new_cache()
    await cache.keep(ASKED, ANSWER, AT, "evidence")
    assert await cache.revalidated(ASKED, LATER, "evidence") == replace(ANSWER, cache="revalidated")
    assert await cache.current(ASKED, LATER) == replace(ANSWER, cache="hit")
    assert await cache.current(ASKED, AT) is None
    assert cache.counters == {"hit": 1, "revalidated": 1}


async def test_an_answer_from_views_that_lagged_holds_nowhere_until_its_evidence_is_found_at_the_head() -> None:
    cache = new_cache()
    await cache.keep(ASKED, replace(ANSWER, lag=1), None, "evidence")
    assert await cache.current(ASKED, AT) is None
    assert await cache.alike(REWORDED, AT, ANSWER.hits, VECTOR) is None
    assert await cache.revalidated(ASKED, LATER, "evidence") == replace(ANSWER, cache="revalidated")
    assert await cache.current(ASKED, LATER) == replace(ANSWER, cache="hit")


async def test_evidence_found_by_views_that_lag_bears_the_answer_but_tells_of_no_position() -> None:
    cache = new_cache()
    await cache.keep(ASKED, ANSWER, AT, "evidence")
    assert await cache.revalidated(ASKED, None, "evidence") == replace(ANSWER, cache="revalidated")
    assert await cache.current(ASKED, AT) == replace(ANSWER, cache="hit")
    assert await cache.current(ASKED, LATER) is None
    assert await cache.revalidated(ASKED, None, "other evidence") is None


async def test_other_evidence_keeps_the_answer_back_and_is_counted() -> None:
    cache = new_cache()
    await cache.keep(ASKED, ANSWER, AT, "evidence")
    assert await cache.revalidated(ASKED, LATER, "other evidence") is None
    assert cache.counters == {"stale_prevented": 1}


async def test_another_wording_with_the_cited_passages_among_its_hits_shares_the_answer() -> None:
    cache = new_cache()
    await cache.keep(ASKED, ANSWER, AT, "evidence", VECTOR)
    for hits in ((HIT, OTHER), (HIT,), (HIT, replace(OTHER, chunk_id=9))):
        assert await cache.alike(REWORDED, AT, hits, NEAR) == replace(ANSWER, cache="semantic")
    assert await cache.current(REWORDED, AT) is None, "it is looked for each time"


async def test_no_answer_is_shared_with_other_hits_a_far_vector_or_a_telling_word() -> None:
    cache = new_cache()
    await cache.keep(ASKED, ANSWER, AT, "evidence", VECTOR)
    for hits in ((), (OTHER, HIT), (OTHER,), (replace(HIT, document_version=3),), (replace(HIT, collection="second"),)):
        assert await cache.alike(REWORDED, AT, hits, NEAR) is None, hits
    assert await cache.alike(REWORDED, AT, ANSWER.hits, FAR) is None
    for question in ("how often do keys not rotate?", "how often do locks rotate?", "why do keys rotate?", "how often do 2 keys rotate?"):
        assert await cache.alike(replace(ASKED, question=question), AT, ANSWER.hits, NEAR) is None, question
    assert "semantic" not in cache.counters


async def test_all_that_an_answer_cites_must_be_found() -> None:
    cache = new_cache()
    both = replace(ANSWER, citations=(CITED, replace(CITED, chunk_id=6, document_id="boats")))
    await cache.keep(ASKED, both, AT, "evidence", VECTOR)
    assert await cache.alike(REWORDED, AT, (HIT,), NEAR) is None
    assert await cache.alike(REWORDED, AT, (HIT, OTHER), NEAR) is not None


async def test_an_answer_that_cites_nothing_or_was_made_without_a_vector_is_not_shared() -> None:
    for answer, vector in ((ANSWER, None), (replace(ANSWER, citations=()), VECTOR)):
        cache = new_cache()
        await cache.keep(ASKED, answer, AT, "evidence", vector)
        assert await cache.alike(REWORDED, AT, ANSWER.hits, VECTOR) is None


async def test_an_answer_is_shared_only_where_it_holds_for_its_own_question_now() -> None:
    cache = new_cache()
    await cache.keep(ASKED, ANSWER, AT, "evidence", VECTOR)
    assert await cache.alike(REWORDED, LATER, ANSWER.hits, NEAR) is None
    await cache.revalidated(ASKED, LATER, "evidence")
    assert await cache.alike(REWORDED, LATER, ANSWER.hits, NEAR) is not None
    await cache.keep(ASKED, replace(ANSWER, text="Every 30 days. [1]"), LATER, "new evidence", VECTOR)
    shared = await cache.alike(REWORDED, LATER, ANSWER.hits, NEAR)
    assert shared is not None and shared.text == "Every 30 days. [1]"


async def test_answers_have_a_greatest_age_that_revalidation_does_not_prolong() -> None:
    clock = Clock()
    cache = new_cache(max_age_s=10, clock=clock)
    await cache.keep(ASKED, ANSWER, AT, "evidence", VECTOR)
    clock.now += 6
    assert await cache.revalidated(ASKED, LATER, "evidence") is not None
    clock.now += 6
    assert await cache.current(ASKED, LATER) is None
    assert await cache.revalidated(ASKED, LATER, "evidence") is None
    assert await cache.alike(REWORDED, LATER, ANSWER.hits, NEAR) is None


async def test_only_the_newest_questions_with_one_best_hit_are_remembered() -> None:
    cache = new_cache()
    for number in range(ALIKE_AT_MOST + 1):
        question = ASKED.question if number == 0 else f"where is depot {number}?"
        await cache.keep(replace(ASKED, question=question), ANSWER, AT, "evidence", VECTOR)
    assert await cache.alike(REWORDED, AT, ANSWER.hits, NEAR) is None
    assert await cache.current(ASKED, AT) is not None


async def test_clearing_forgets_one_scope_or_all() -> None:
    cache = new_cache()
    elsewhere = replace(ASKED, scope=Scope("other"))
    for asked in (ASKED, elsewhere):
        await cache.keep(asked, ANSWER, AT, "evidence", VECTOR)
    await cache.clear(ASKED.scope)
    assert await cache.current(ASKED, AT) is None
    assert await cache.alike(REWORDED, AT, ANSWER.hits, NEAR) is None
    assert await cache.current(elsewhere, AT) is not None
    await cache.clear()
    assert await cache.current(elsewhere, AT) is None
