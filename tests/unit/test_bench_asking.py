"""The benchmarks of known answers and of load measure what they say."""

from __future__ import annotations

import asyncio

import pytest

from ragline.bench import asking, load
from ragline.bench.texts import Workload
from ragline.settings import Settings
from tests.embedders import HashEmbedder

WORKLOAD = Workload(
    tuple(f"When the vault of harbour {number} will open is not known." for number in range(60)),
    tuple(f"Which harbour has {number} lamps?" for number in range(20)),
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (asking, "QUESTIONS", 3),
        (asking, "AGAIN", 2),
        (asking, "SETTLED", 5),
        (asking, "MEASURED", 100),
        (load, "QUESTIONS", 8),
        (load, "LLM_QUESTIONS", 4),
        (load, "CALLERS", 4),
        (load, "BESIDE", 20),
        (load, "IDLE", 3),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr("ragline.engine.resources.open_embedder", lambda *_, **__: HashEmbedder())


def test_every_step_of_the_answer_cache_is_timed() -> None:
    measured = asyncio.run(asking._measure(WORKLOAD.documents, Settings()))
    calls = {step: figures["calls"] for step, figures in measured["ask_ms"].items()}
    assert calls["hit"] == 6 and {"miss", "semantic"} <= set(calls) and sum(calls.values()) == 15 + 5 and calls["settled"] == 5
    assert 0 < measured["handover_share"] < 1 and 0 < measured["monitor_us"]["cached"] < measured["monitor_us"]["uncached"]


@pytest.mark.parametrize("what", ["callers", "language_model", "beside_ingest"])
def test_load_is_measured_in_each_way(what: str) -> None:
    measured = load._run(what, WORKLOAD, Settings(cache={"enabled": False}))
    assert all(value > 0 for value in measured.values() if isinstance(value, float))
