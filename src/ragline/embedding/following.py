"""Settings that leave the model open take that of the collection."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ragline.errors import ModelMismatchError, SettingsError
from ragline.settings import EmbeddingSettings

OPENAI_URL = "https://api.openai.com/v1"


class FollowedSettings(EmbeddingSettings):
    """Settings for a collection that exists, with what is known of its model without asking a server.

    Attributes:
        vector_length: The length of the stored vectors; 0 where it was not noted.
        probe: What tells whether a server still serves the same model (`embedding/probe.py`); "" where it was not noted.
    """

    vector_length: int = 0
    probe: str = ""


def followed(settings: EmbeddingSettings, description: Mapping[str, str]) -> EmbeddingSettings:
    """These settings, with what they leave open taken from the embedder of a collection.

    A setting that was given wins, though it may lead to other vectors than the collection's: its fingerprint shows that.
    Where another model or runtime is named, nothing more is taken. Nor is ever the address of a server: a folder of
    data does not decide where texts and keys are sent.

    Args:
        description: `Embedder.description` as it was stored; empty for a collection without one.

    Raises:
        SettingsError: The collection's model is at a server whose address the settings do not say.
        ModelMismatchError: The collection was embedded in a way that this ragline does not know.
    """
    given = settings.model_fields_set
    runtime = description.get("runtime", "onnx")
    if "model" not in description or ("runtime" in given and settings.runtime != runtime):
        return settings
    if "model" in given and not _is_same(settings.model, description["model"]):
        return settings
    if runtime == "openai" and settings.base_url is None and description.get("base_url", OPENAI_URL) != OPENAI_URL:
        back = f"ragline reindex --model {EmbeddingSettings.model_fields['model'].default}"
        back += " --set embedding.runtime=onnx" if "runtime" in given else ""
        raise SettingsError(
            f"the collection was embedded by the server at {description['base_url']}, and embedding.base_url is not set",
            hint=f"set embedding.base_url to where that model is served now; or embed it anew on this machine with `{back}`",
        )
    try:
        return FollowedSettings(**{name: getattr(settings, name) for name in given} | _taken(settings, description))
    except ValidationError as error:
        stored = ", ".join(f"{key} {value!r}" for key, value in description.items() if key in ("model", "runtime", "precision"))
        raise ModelMismatchError(
            f"the collection was embedded in a way that this ragline does not know ({stored})",
            hint="use the ragline that made it, or a newer one",
        ) from error


def _taken(settings: EmbeddingSettings, description: Mapping[str, str]) -> dict[str, Any]:
    """What the settings leave open, as the description says it."""
    given = settings.model_fields_set
    taken: dict[str, Any] = {"runtime": description.get("runtime", "onnx")}
    if "model" not in given:
        taken["model"] = description["model"]
    if settings.precision == "auto" and "precision" in description:
        taken["precision"] = description["precision"]
    if "dimension" not in given:
        taken["dimension"] = _number(description, "dimension")
    for prefix in ("question_prefix", "passage_prefix"):
        if getattr(settings, prefix) is None and prefix in description:
            taken[prefix] = description[prefix]
    if taken.get("dimension", settings.dimension) == _number(description, "dimension"):
        taken |= {"vector_length": _number(description, "vector_length"), "probe": description.get("probe", "")}
    return taken


def _is_same(name: str, stored: str) -> bool:
    """Whether a name, as users spell it, is that of the stored model: without its owner, or as a relative folder."""
    return stored in (name, f"sentence-transformers/{name}", os.path.realpath(os.path.expanduser(name)))


def _number(description: Mapping[str, str], name: str) -> int:
    text = description.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else 0
