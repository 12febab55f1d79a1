"""A name in the settings becomes a reranker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from ragline.concurrency.workers import Workers
from ragline.retrieval.reranking.base import Reranker
from ragline.settings import PoolSettings, RerankSettings

Announce: TypeAlias = Callable[[str], None]


def open_reranker(
    settings: RerankSettings, pool: PoolSettings, cache_dir: Path, announce: Announce, *, workers: Workers
) -> Reranker | None:
    """The reranker that the settings name; None for "none". Reads files and imports: call it on a worker thread.

    Args:
        pool: Limits of connections to a server.
        cache_dir: Where models are kept.
        announce: Called with a sentence before something slow and rare, such as fetching a model.
        workers: Where local rerankers compute. Stay the caller's to close.

    Raises:
        SettingsError: A setting that it needs is missing or cannot be used.
        MissingExtraError: Its extra is not installed.
        RaglineError: Its model cannot be had.
    """
    opener = _OPENERS[settings.reranker]
    return opener(settings, pool, cache_dir, announce, workers) if opener is not None else None


def _onnx(settings: RerankSettings, pool: PoolSettings, cache_dir: Path, announce: Announce, workers: Workers) -> Reranker:
    from ragline.retrieval.reranking.bert import OnnxReranker

    return OnnxReranker.open(settings, cache_dir, announce, workers=workers)


def _sentence_transformers(settings: RerankSettings, pool: PoolSettings, cache_dir: Path, announce: Announce, workers: Workers) -> Reranker:
    from ragline.retrieval.reranking.sentence_transformers import CrossEncoderReranker

    return CrossEncoderReranker.open(settings, cache_dir, announce, workers=workers)


def _endpoint(settings: RerankSettings, pool: PoolSettings, cache_dir: Path, announce: Announce, workers: Workers) -> Reranker:
    from ragline.retrieval.reranking.endpoint import EndpointReranker

    return EndpointReranker(settings, pool)


_OPENERS: Mapping[str, Callable[[RerankSettings, PoolSettings, Path, Announce, Workers], Reranker] | None] = {
    "none": None,
    "onnx": _onnx,
    "sentence-transformers": _sentence_transformers,
    "endpoint": _endpoint,
}
