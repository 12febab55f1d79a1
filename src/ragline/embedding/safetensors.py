"""Reads weights from a safetensors file without copying more than is asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ragline.errors import CorruptionError, InputError
from ragline.types import Float32

_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


class _Entry(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @classmethod
    def read(cls, *, dtype: str, shape: list[int], data_offsets: list[int]) -> _Entry:
        start, end = data_offsets
        return cls(dtype, tuple(map(int, shape)), int(start), int(end))


class SafetensorsFile(Mapping[str, Float32]):
    """The floating-point tensors of a file by name, as float32. Each is read when it is asked for.

    Raises:
        CorruptionError: The file is cut short or its header cannot be read.
        InputError: A tensor asked for is of a type that is not a floating-point number.

    Source: the format's description, "Safetensors" (an 8-byte little-endian header length, a JSON header, the data).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._bytes = np.memmap(path, np.uint8, mode="r")
            header_bytes = int.from_bytes(self._bytes[:8].tobytes(), "little")
            if header_bytes > min(len(self._bytes) - 8, _MAX_HEADER_BYTES):
                raise ValueError("the header is longer than the file")
            header = json.loads(self._bytes[8 : 8 + header_bytes].tobytes())
            self._tensors = {name: _Entry.read(**entry) for name, entry in header.items() if name != "__metadata__"}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptionError(f"{path} is not a safetensors file: {error}", hint="fetch the model again") from error
        self._data_start = 8 + header_bytes

    def __getitem__(self, name: str) -> Float32:
        dtype, shape, start, end = self._tensors[name]
        if dtype not in _BYTES:
            raise InputError(f"the weights {name!r} in {self._path} are {dtype}", hint="use a model with F32, F16 or BF16 weights")
        data = self._bytes[self._data_start + start : self._data_start + end]
        if len(data) != math.prod(shape) * _BYTES[dtype]:
            raise CorruptionError(f"{self._path} is cut short: {name!r} is not all there", hint="fetch the model again")
        # Offsets need not be aligned, hence through bytes.
        raw = data.tobytes()
        if dtype == "BF16":  # the upper half of a float32
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, f"<f{_BYTES[dtype]}").astype(np.float32, copy=False)
        return values.reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
