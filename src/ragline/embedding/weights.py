"""The files that hold a model's weights: one, or several where the model is large."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ragline.embedding.bert_config import read_json
from ragline.embedding.safetensors import SafetensorsFile
from ragline.errors import CorruptionError
from ragline.types import Float32

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def weights_files(folder: Path) -> list[Path]:
    """The weights in a model's folder, in order of their names; none where there are none.

    Raises:
        CorruptionError: The list of the parts cannot be read, or names what is no file of this folder.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    named = read_json(folder / INDEX).get("weight_map") or {}
    names = sorted(set(map(str, named.values()))) if isinstance(named, dict) else []
    for name in names:
        if PurePosixPath(name).name != name or not name.endswith(".safetensors"):
            raise CorruptionError(f"{folder / INDEX} names {name!r}, which is no file of its folder", hint="fetch the model again")
    return [folder / name for name in names]


def weights_sha256(files: Sequence[Path], file_sha256: Callable[[Path], str]) -> str:
    """The SHA-256 of the weights in hexadecimal; of several files, the one of their names and hashes."""
    if len(files) == 1:
        return file_sha256(files[0])
    return hashlib.sha256(repr([(file.name, file_sha256(file)) for file in files]).encode()).hexdigest()


def open_weights(files: Sequence[Path]) -> Mapping[str, Float32]:
    """The weights by name; each is read when it is asked for.

    Raises:
        CorruptionError: A file is cut short or its header cannot be read.
    """
    parts = [SafetensorsFile(file) for file in files]
    return parts[0] if len(parts) == 1 else _Parts(parts)


class _Parts(Mapping[str, Float32]):
    """The tensors of several files, which share no name."""

    def __init__(self, parts: Sequence[SafetensorsFile]) -> None:
        self._file_of = {name: part for part in parts for name in part}

    def __getitem__(self, name: str) -> Float32:
        return self._file_of[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)
