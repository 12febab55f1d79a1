"""How to open the same embedder again."""

from __future__ import annotations

from ragline.settings import EmbeddingSettings


def describe(settings: EmbeddingSettings, *, model: str, precision: str) -> dict[str, str]:
    """The settings that open this embedder again, by their names in the section `embedding`, as strings.

    `model` and `precision` always; `runtime`, `dimension` and the prefixes only where they are not the defaults.
    """
    told = {"model": model, "precision": precision}
    if settings.runtime != "onnx":
        told["runtime"] = settings.runtime
    if settings.dimension:
        told["dimension"] = str(settings.dimension)
    prefixes = {"question_prefix": settings.question_prefix, "passage_prefix": settings.passage_prefix}
    return told | {name: prefix for name, prefix in prefixes.items() if prefix is not None}
