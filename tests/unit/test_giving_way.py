"""Passages wait for questions, though not for ever."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ragline.embedding import onnx_runtime
from ragline.embedding.onnx_runtime import OnnxEmbedder


@pytest.mark.parametrize(("asked", "slept"), [([0], 0), ([1], 0), ([2, 3, 1], 2), ([2] * 1000, 25)])
def test_a_passage_waits_while_there_are_several_questions(monkeypatch: pytest.MonkeyPatch, asked: list[int], slept: int) -> None:
    class Questions:
        @property
        def under_way(self) -> int:
            return asked.pop(0)

    clock = SimpleNamespace(now=0.0, sleeps=0)

    def sleep(seconds: float) -> None:
        clock.now += seconds
        clock.sleeps += 1

    monkeypatch.setattr(onnx_runtime, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    embedder: Any = SimpleNamespace(_question_workers=Questions(), _bulk_workers=object())
    OnnxEmbedder._give_way(cast("OnnxEmbedder", embedder))
    assert abs(clock.sleeps - slept) <= 1 and (slept or not clock.sleeps)


def test_with_threads_of_one_kind_nobody_waits_for_itself() -> None:
    workers = SimpleNamespace(under_way=2)
    OnnxEmbedder._give_way(cast("OnnxEmbedder", SimpleNamespace(_question_workers=workers, _bulk_workers=workers)))
