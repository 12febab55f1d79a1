"""How to open the same embedder again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from ragline.embedding.base import Embedder
from ragline.errors import ModelMismatchError
from ragline.settings import EmbeddingSettings
from ragline.types import Scope

_SHOWN = ("runtime", "precision", "dimension")
_COMPARED = ("model", *_SHOWN, "question_prefix", "passage_prefix")
"""The settings that decide what the vectors are."""


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


def in_words(description: Mapping[str, str]) -> str:
    """A description for people: the model, and what was told of how it is run."""
    return ", ".join(
        [description.get("model", "another model"), *(f"{name} {description[name]}" for name in _SHOWN if name in description)]
    )


def mismatch(scope: Scope, stored: Mapping[str, str], embedder: Embedder, settings: EmbeddingSettings) -> ModelMismatchError:
    """Says which settings lead to other vectors than a collection's, and what to leave unset or to run.

    Args:
        stored: `Embedder.description` of the collection's embedder.
        embedder: What the settings have led to, with the collection's description for what they leave open.
    """
    wanted = embedder.description
    given = [name for name in _COMPARED if name in settings.model_fields_set and getattr(settings, name) not in ("auto", None)]
    other = [name for name in given if stored.get(name) != wanted.get(name)]
    switch = _switch(scope, embedder.name, settings, other)
    if not other:
        return ModelMismatchError(
            f"the collection {scope.collection!r} was embedded with another version of {in_words(stored)} than the one that is here now",
            hint=f"bring the model's files back as they were, or embed the collection anew with `{switch}`",
        )
    told = "; ".join(f"embedding.{name} {_value(stored, name)}, not {_value(wanted, name)}" for name in other)
    return ModelMismatchError(
        f"the collection {scope.collection!r} was embedded with {told}",
        hint=f"leave {' and '.join(f'embedding.{name}' for name in other)} unset to go on with it, or switch with `{switch}`",
    )


def _value(description: Mapping[str, str], name: str) -> str:
    return shlex.quote(description[name]) if name in description else "onnx" if name == "runtime" else "the model's own"


def _switch(scope: Scope, model: str, settings: EmbeddingSettings, other: list[str]) -> str:
    """The command that makes a collection what the settings say, wherever they were given."""
    parts = ["ragline", "reindex"]
    if other == ["precision"] and settings.precision in ("int8", "fp32"):
        parts += ["--precision", settings.precision]
    else:
        parts += ["--model", model]
        for name in other:
            parts += ["--set", f"embedding.{name}={getattr(settings, name)}"] if name != "model" else []
    usual = Scope()
    parts += ["--collection", scope.collection] if scope.collection != usual.collection else []
    parts += ["--tenant", scope.tenant] if scope.tenant != usual.tenant else []
    return shlex.join(parts)
