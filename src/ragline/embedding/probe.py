"""Is it still the same model? A server may serve another one under the name of the one before."""

from __future__ import annotations

import base64

import numpy as np

from ragline.types import Float32

PROBE = "A probe: which model is this?"
"""Never changed, or stored probes would mean nothing."""

_NUMBERS = 64
_LEAST_COSINE = 0.95


def probe_of(vector: Float32) -> str:
    """The first numbers of the vector of `PROBE`, coarsely, as text to be stored."""
    part = vector[:_NUMBERS].astype(np.float64)
    largest = float(np.abs(part).max()) or 1.0
    return base64.b64encode(np.rint(part / largest * 127).astype(np.int8).tobytes()).decode("ascii")


def recognises(probe: str, vector: Float32) -> bool:
    """Whether a vector of `PROBE` is of the model that a stored probe is of. What cannot be read passes.

    One model's vectors differ a little by precision, hardware and neighbours in a batch, hence a cosine instead of
    equality; those of unrelated models are as good as perpendicular.
    """
    try:
        stored = np.frombuffer(base64.b64decode(probe, validate=True), np.int8).astype(np.float64)
    except ValueError:
        return True
    part = vector[: len(stored)].astype(np.float64)
    lengths = float(np.linalg.norm(stored) * np.linalg.norm(part))
    return len(part) != len(stored) or lengths == 0 or float(stored @ part) / lengths >= _LEAST_COSINE
