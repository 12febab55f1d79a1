"""Shorter vectors from models that were trained to put what matters most first.

Source: Kusupati et al., "Matryoshka Representation Learning", 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ragline.embedding.bert_config import read_json
from ragline.embedding.models import ModelFolder
from ragline.errors import SettingsError
from ragline.types import Float32


def choose_dimension(wanted: int, whole: int, model: ModelFolder, announce: Callable[[str], None]) -> int:
    """The length of a vector: `wanted`, or all of the model's where it is 0.

    Models seldom declare that they were trained for it, so a model that does not is used all the same, and that is announced.

    Raises:
        SettingsError: More is wanted than the model gives.
    """
    if wanted > whole:
        raise SettingsError(
            f"embedding.dimension is {wanted}, and the vectors of {model.name} have {whole} numbers",
            hint=f"set embedding.dimension to {whole} or less, or to 0 for all",
        )
    if 0 < wanted < whole and not _declares(model.path):
        announce(
            f"{model.name} does not declare that its vectors may be shortened (Matryoshka): "
            f"with {wanted} of {whole} numbers it may find much less."
        )
    return wanted or whole


def shortened(vectors: Float32, dimension: int) -> Float32:
    """The first numbers of each row, `(n, dimension)`, of unit length again; the rows themselves where that is all of them."""
    if vectors.shape[1] == dimension:
        return vectors
    kept = vectors[:, :dimension]
    # Only a vector of zeros can have no length; it stays what it is.
    lengths: Float32 = np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return kept / lengths


def _declares(folder: Path) -> bool:
    config = read_json(folder / "config.json")
    keys = ("matryoshka_dimensions", "matryoshka_dims")
    return any(key in config for key in keys) or bool(read_json(folder / "config_sentence_transformers.json").get("truncate_dim"))
