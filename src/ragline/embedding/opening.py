"""Which embedder do the settings name?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from ragline.concurrency.workers import Workers
from ragline.embedding.base import Embedder
from ragline.embedding.following import FollowedSettings, followed
from ragline.errors import SettingsError
from ragline.settings import EmbeddingSettings, PoolSettings

__all__ = ["FollowedSettings", "followed", "open_embedder"]

Announce: TypeAlias = Callable[[str], None]
_Open: TypeAlias = Callable[[EmbeddingSettings, Path, Announce, PoolSettings, Workers, Workers], Embedder]


def open_embedder(
    settings: EmbeddingSettings,
    cache_dir: Path,
    announce: Announce,
    *,
    pool: PoolSettings,
    question_workers: Workers,
    bulk_workers: Workers,
) -> Embedder:
    """The embedder that the settings name. Blocks, for long where a model is fetched: call it on a worker thread.

    For a collection that holds vectors, hand in `followed(settings, description)`.

    Args:
        announce: Told in one sentence of anything that takes long or is set aside.
        pool: Connections to a server.
        question_workers, bulk_workers: For questions and for passages; they stay the caller's to close.

    Raises:
        SettingsError: Settings that do not go together.
        MissingExtraError: The runtime's extra is not installed.
        RaglineError: What opening the runtime raises.
    """
    _check_together(settings)
    return _RUNTIMES[settings.runtime](settings, cache_dir, announce, pool, question_workers, bulk_workers)


def _onnx(
    settings: EmbeddingSettings, cache_dir: Path, announce: Announce, pool: PoolSettings, question_workers: Workers, bulk_workers: Workers
) -> Embedder:
    from ragline.embedding.onnx_runtime import OnnxEmbedder

    return OnnxEmbedder.open(settings, cache_dir, announce, question_workers=question_workers, bulk_workers=bulk_workers)


def _sentence_transformers(
    settings: EmbeddingSettings, cache_dir: Path, announce: Announce, pool: PoolSettings, question_workers: Workers, bulk_workers: Workers
) -> Embedder:
    from ragline.embedding.sentence_transformers import SentenceTransformersEmbedder

    return SentenceTransformersEmbedder.open(settings, cache_dir, announce, question_workers=question_workers, bulk_workers=bulk_workers)


def _openai(
    settings: EmbeddingSettings, cache_dir: Path, announce: Announce, pool: PoolSettings, question_workers: Workers, bulk_workers: Workers
) -> Embedder:
    from ragline.embedding.openai import OpenAIEmbedder

    return OpenAIEmbedder.open(settings, cache_dir, announce, pool=pool, question_workers=question_workers, bulk_workers=bulk_workers)


_RUNTIMES: Mapping[str, _Open] = {"onnx": _onnx, "sentence-transformers": _sentence_transformers, "openai": _openai}


def _check_together(settings: EmbeddingSettings) -> None:
    """Refuses what one runtime would have to ignore."""
    given = settings.model_fields_set
    if settings.runtime == "openai":
        if settings.model == EmbeddingSettings.model_fields["model"].default and "model" not in given:
            raise SettingsError(
                "embedding.runtime is openai, and embedding.model does not say which of the server's models",
                hint="set embedding.model, such as text-embedding-3-small",
            )
        for name in ("precision", "device"):
            if getattr(settings, name) != "auto":
                raise SettingsError(
                    f"embedding.{name} is {getattr(settings, name)}, and with embedding.runtime openai the server decides that",
                    hint=f"leave embedding.{name} unset, or choose another runtime",
                )
        return
    if settings.base_url is not None or settings.tokenizer is not None:
        name = "base_url" if settings.base_url is not None else "tokenizer"
        raise SettingsError(
            f"embedding.{name} is set, and embedding.runtime {settings.runtime} asks no server",
            hint=f"set embedding.runtime to openai for a server with /v1/embeddings, or leave embedding.{name} unset",
        )
    if settings.runtime == "onnx" and settings.precision == "fp16":
        raise SettingsError(
            "embedding.precision fp16 is for graphics cards, and embedding.runtime onnx computes on the processor",
            hint="leave embedding.precision unset, or set embedding.runtime to sentence-transformers",
        )
    if settings.runtime == "sentence-transformers" and settings.precision == "int8":
        raise SettingsError(
            "embedding.precision int8 is only for embedding.runtime onnx",
            hint="leave embedding.precision unset, or set embedding.runtime to onnx",
        )
    if settings.runtime == "onnx" and settings.device not in ("auto", "cpu"):
        raise SettingsError(
            f"embedding.device is {settings.device}, and embedding.runtime onnx computes on the processor",
            hint="leave embedding.device unset, or set embedding.runtime to sentence-transformers",
        )
