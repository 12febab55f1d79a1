"""Which files a model's folder must hold, and which of those on the hub are worth fetching."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ragline.embedding.weights import INDEX, WEIGHTS

_PART = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
# Never code and never pickles: `.py`, `.bin`, `.pt`, `.h5` and the like stay where they are.
_SUFFIXES = {".json", ".txt", ".model", ".jinja"}
_FOREIGN_FOLDERS = {"onnx", "openvino", "runs", "eval", "logs"}


@dataclass(frozen=True, slots=True)
class Layout:
    """What a kind of model must have in its folder.

    Attributes:
        files: Needed in the folder itself, next to the weights.
        nested: Whether the weights may lie in a folder of one of its modules instead.
        modules: Whether modules.json says what follows the encoder, so that a copy without it may lack a part.
    """

    files: tuple[str, ...]
    nested: bool = False
    modules: bool = True

    def lacks(self, files: Set[str]) -> list[str]:
        """What is missing among these files, which are named as in the folder, with "/"."""
        missing = [file for file in self.files if file not in files]
        if WEIGHTS in files or INDEX in files or (self.nested and any(PurePosixPath(file).name == WEIGHTS for file in files)):
            return missing
        return [*missing, WEIGHTS]

    def is_whole(self, files: Set[str], read: Callable[[str], str]) -> bool:
        """Whether a copy that others made has all it needs; transformers leaves out what follows the encoder.

        Args:
            read: Gives the text of one of the files.
        """
        if self.lacks(files) or (WEIGHTS not in files and INDEX in files and not _parts(read(INDEX)) <= files):
            return False
        if not self.modules:
            return True
        if "modules.json" not in files:
            return False
        modules = json.loads(read("modules.json"))
        named = (module["path"] for module in modules if module["path"] and not module["type"].endswith(".Normalize"))
        return all(f"{path}/config.json" in files or f"{path}/{WEIGHTS}" in files for path in named)


ENCODER = Layout(("config.json", "tokenizer.json"))
CROSS_ENCODER = Layout(("config.json", "tokenizer.json"), modules=False)
ANY_EMBEDDER = Layout((), nested=True)
ANY_CROSS_ENCODER = Layout(("config.json",), modules=False)


def files_of(folder: Path) -> set[str]:
    """The files in a model's folder and in the folders of its modules, named from the folder on, with "/"."""
    found = (file for pattern in ("*", "*/*") for file in folder.glob(pattern))
    return {file.relative_to(folder).as_posix() for file in found if file.is_file()}


def worth_fetching(file: str) -> bool:
    """Whether a file of a model on the hub is needed to run it with torch or onnxruntime."""
    path = PurePosixPath(file)
    # A name with ".." would leave the folder.
    odd = any(part.startswith((".", "/")) for part in path.parts) or "\\" in file or ":" in file
    if odd or not 1 <= len(path.parts) <= 2 or path.parts[0] in _FOREIGN_FOLDERS:
        return False
    return path.suffix in _SUFFIXES or path.name == WEIGHTS or _PART.fullmatch(path.name) is not None


def _parts(index: str) -> set[str]:
    return set(map(str, json.loads(index)["weight_map"].values()))
