"""The benchmark of streamed answers measures what it says."""

from __future__ import annotations

import pytest

from ragline.bench import first_token


def test_every_token_of_every_answer_is_timed_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_token, "ANSWERS", 3)
    monkeypatch.setattr(first_token, "WARM_UP", 1)
    measured = first_token.measure_first_token(["Keys rotate every ninety days."] * 100)
    for way in ("ragline", "client_alone", "served_events", "served_openai"):
        assert {kind: figures["calls"] for kind, figures in measured[way].items()} == {
            "before_request": 3,
            "first_token": 3,
            "every_token": 3 * first_token.TOKENS,
        }
        assert 0 < measured[way]["first_token"]["p50_ms"] < 1000
