"""Built graphs, kept in the cache folder: `graphs/<what it was built from>-<SHA-256 of the file>.onnx`."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

from ragline.embedding.bert_config import BertConfig
from ragline.embedding.files import write_whole
from ragline.embedding.models import ModelFolder
from ragline.embedding.precision import Precision, WeightBits, int8_instructions, int8_weight_bits
from ragline.embedding.weights import open_weights, weights_sha256
from ragline.errors import CorruptionError

_GRAPH_VERSION = 1  # raised with every change of what bert.py builds, so that older files are not loaded


def load_graph(
    model: ModelFolder, config: BertConfig, precision: Precision, *, cache_dir: Path, announce: Callable[[str], None]
) -> Path | bytes:
    """The ONNX graph of a model: the file in the cache folder, whose name tells its own hash, built where it is not there.

    A damaged file is thrown away and built anew. Where the cache folder cannot be written, that is announced, and the
    graph itself is given, built anew at every start.

    Raises:
        InputError: The weights are not those of such a model.
        CorruptionError: A file of the weights is damaged.
    """
    weight_bits = int8_weight_bits(int8_instructions())
    numbers = "int7" if precision == "int8" and weight_bits == 7 else precision
    parts = (model.weights_sha256, _GRAPH_VERSION, numbers, *config.of_graph)
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
    folder = cache_dir / "graphs"
    for path in sorted(folder.glob(f"{key}-*.onnx")):
        with contextlib.suppress(OSError):
            if path.stem == f"{key}-{_sha256(path)}":
                return path
            announce(f"{path} is damaged; building it anew.")
            path.unlink()
    announce(f"Preparing {model.name} for this machine ({precision}), once.")
    graph = _build(model, config, precision, weight_bits)
    path = folder / f"{key}-{hashlib.sha256(graph).hexdigest()}.onnx"
    try:
        write_whole(path, graph)
    except OSError as error:
        announce(f"{folder} cannot be written ({error.strerror}): the model will be prepared again at the next start.")
        return graph
    return path


def _build(model: ModelFolder, config: BertConfig, precision: Precision, weight_bits: WeightBits) -> bytes:
    # Imported here: `onnx` takes longer to import than a built graph to load.
    from ragline.embedding.bert import build_graph

    if weights_sha256(model.weights, _sha256) != model.weights_sha256:
        names = ", ".join(str(file) for file in model.weights)
        raise CorruptionError(f"{names} changed without a trace of it: the SHA-256 is another", hint="fetch the model again")
    return build_graph(config, open_weights(model.weights), precision, weight_bits=weight_bits)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
