"""How many connections the services outside need, from what was measured."""

from __future__ import annotations

from ragline.engine.pool_advice import ENOUGH, pool_advice
from ragline.observe.series import OperationStats
from ragline.settings import Settings

LLM = Settings(generation={"generator": "openai", "model": "m"}, pool={"max_size": 10, "min_size": 1})


def measured(stage: str, *, rate_per_s: float, seconds_each: float, count: int = 100) -> dict[str, OperationStats]:
    series = OperationStats(count=count, total_s=count * seconds_each, throughput_per_s=rate_per_s)
    return {"ask": OperationStats(count=count, stages={stage: series}), "delete": OperationStats(count=3)}


def test_a_pool_that_is_too_small_for_what_was_measured_is_a_warning_with_the_size_it_should_have() -> None:
    (finding,) = pool_advice(LLM, measured("generate", rate_per_s=5, seconds_each=3))
    assert finding.level == "warning" and "5 times a second for 3 s" in finding.what
    assert finding.hint == "set pool.max_size to 23"  # 15 at once in the mean, and twice its root


def test_a_pool_that_is_large_enough_is_well() -> None:
    (finding,) = pool_advice(LLM, measured("generate", rate_per_s=5, seconds_each=0.2))
    assert finding.level == "ok" and "3 of its 10 connections" in finding.what


def test_before_enough_was_measured_the_size_is_explained() -> None:
    for operations in ({}, measured("generate", rate_per_s=500, seconds_each=3, count=ENOUGH - 1)):
        (finding,) = pool_advice(LLM, operations)
        assert finding.level == "ok" and "10 requests at once" in finding.what


def test_each_service_outside_is_looked_at_and_without_any_there_is_nothing_to_say() -> None:
    everything = Settings(
        generation={"generator": "ollama", "model": "m"},
        embedding={"runtime": "openai", "model": "m"},
        rerank={"reranker": "endpoint", "base_url": "http://localhost:1"},
    )
    assert [finding.what.partition(" (")[0].partition("to ")[2] for finding in pool_advice(everything, {})] == [
        "the language model",
        "the embedding server",
        "the rerank server",
    ]
    assert list(pool_advice(Settings(), measured("generate", rate_per_s=500, seconds_each=3))) == []
