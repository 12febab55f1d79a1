"""What the adapters of sentence-transformers share: device, precision, and models that are loaded without running their code."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ragline.concurrency.workers import Workers
from ragline.embedding.bert_config import read_json
from ragline.embedding.layouts import files_of
from ragline.errors import BackendError, CorruptionError, InputError, MissingExtraError, SettingsError

Device: TypeAlias = Literal["cuda", "mps", "cpu"]
TorchPrecision: TypeAlias = Literal["fp32", "fp16"]

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_loading = threading.Lock()  # what is switched off while a model loads belongs to the whole process


def import_torch() -> Any:
    """The module `torch`, once sentence-transformers is known to be there.

    Raises:
        MissingExtraError: The extra is not installed, or not whole.
    """
    try:
        import sentence_transformers  # noqa: F401
        import torch
    except ImportError as error:
        raise MissingExtraError(
            f"sentence-transformers cannot be imported ({error})", hint="pip install 'ragline[sentence-transformers]'"
        ) from error
    return torch


def choose_device(wanted: Literal["auto", "cpu", "cuda", "mps"], setting: str) -> Device:
    """Where torch computes: for "auto" CUDA, else MPS (Apple's graphics), else the processor.

    Args:
        setting: The setting's name, for errors.

    Raises:
        BackendError: torch has no such device on this machine.
    """
    torch = import_torch()
    there: dict[Device, bool] = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(device for device, is_there in there.items() if is_there)
    if not there[wanted]:
        raise BackendError(
            f"{setting} is {wanted}, and torch {torch.__version__} finds no such device on this machine",
            hint=f'set {setting} to "auto" or "cpu", or install the driver and a torch built for it (pytorch.org says which)',
        )
    return wanted


def choose_torch_precision(wanted: Literal["auto", "int8", "fp32", "fp16"], device: Device, setting: str) -> TorchPrecision:
    """What the setting `precision` means on this device: for "auto" fp16 on CUDA, else fp32.

    Raises:
        SettingsError: int8, which is onnxruntime's; or fp16 on a processor, where it is slow.
    """
    if wanted == "int8":
        raise SettingsError("sentence-transformers has no int8", hint=f'set {setting} to "auto", or the runtime to "onnx"')
    if wanted == "fp16" and device == "cpu":
        raise SettingsError(
            f"{setting} is fp16, which needs a graphics card, and torch computes on the processor here",
            hint=f'set {setting} to "fp32"; a collection embedded in fp16 goes on where there is CUDA, or is reindexed',
        )
    if wanted == "auto":
        return "fp16" if device == "cuda" else "fp32"
    return wanted


def bound_threads(device: Device, workers: Workers) -> None:
    """Keeps torch, in this whole process, to as many threads as a pool has: never more than it was allowed already."""
    torch = import_torch()
    if device == "cpu":
        torch.set_num_threads(min(torch.get_num_threads(), workers.threads))


def load_model(kind: Callable[..., Any], folder: Path, name: str, device: Device, precision: TorchPrecision, **arguments: Any) -> Any:
    """A model from a folder: from safetensors only, offline, and without running code that comes with it.

    Args:
        kind: `SentenceTransformer` or `CrossEncoder`.

    Raises:
        InputError: The model needs code of its own, or has weights that only unpickling could read.
        CorruptionError: A file of it is damaged.
        BackendError: It cannot be loaded.
    """
    check_no_code(folder)
    dtype = import_torch().float16 if precision == "fp16" else import_torch().float32
    options = {"device": device, "local_files_only": True, "trust_remote_code": False}
    try:
        with _quiet():
            model = kind(str(folder), model_kwargs={"dtype": dtype, "use_safetensors": True}, **options, **arguments)
            return model.to(dtype).eval()
    except Exception as error:  # their errors have no common root
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if "trust_remote_code" in str(error):
            raise InputError(
                f"the model {name} needs code that comes with it, which is not run",
                hint="use a model of an architecture that transformers has built in",
            ) from error
        raise BackendError(
            f"sentence-transformers could not load {name}: {reason}", hint="fetch the model again, or try a newer sentence-transformers"
        ) from error


def check_no_code(folder: Path) -> None:
    """Raises InputError for modules that are not sentence-transformers' own, and for weights that can hold code."""
    modules = read_json(folder / "modules.json", default=[])
    places = {folder}
    for module in modules:
        try:
            kind, path = str(module["type"]), str(module["path"])
        except (KeyError, TypeError) as error:
            raise CorruptionError(f"{folder / 'modules.json'} does not hold what it should", hint="fetch the model again") from error
        if not kind.startswith("sentence_transformers."):
            raise InputError(f"{folder.name} has a layer {kind!r} whose code comes with it, which is not run", hint="use another model")
        place = (folder / path).resolve()
        if not place.is_relative_to(folder.resolve()):
            raise CorruptionError(f"{folder / 'modules.json'} names {path!r}, outside its folder", hint="fetch the model again")
        places.add(place)
    for place in places:
        pickles = sorted(file.name for pattern in _PICKLES for file in place.glob(pattern))
        if pickles and not any(place.glob("*.safetensors")):
            raise InputError(
                f"the weights in {place / pickles[0]} can hold code, and are not read",
                hint="convert them to safetensors: `model.save_pretrained(folder)` of a current sentence-transformers does",
            )


def batches(lengths: Sequence[int], *, most: int, most_tokens: int) -> Iterator[list[int]]:
    """Which texts to run together: the longest first, at most so many, and so many tokens with their padding.

    A text longer than `most_tokens` runs alone.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True):
        if batch and (len(batch) == most or (len(batch) + 1) * lengths[batch[0]] > most_tokens):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]], tokenizer: Any, device: Device) -> dict[str, Any]:
    """Token ids as a model takes them: `input_ids` and `attention_mask`, `(n, longest)` int64."""
    torch = import_torch()
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id or 0, dtype=torch.int64)
    mask = torch.zeros((len(rows), longest), dtype=torch.int64)
    for i, row in enumerate(rows):
        place = slice(longest - len(row), longest) if tokenizer.padding_side == "left" else slice(0, len(row))
        ids[i, place] = torch.tensor(row, dtype=torch.int64)
        mask[i, place] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def model_sha256(folder: Path, hash_file: Callable[[Path], str]) -> str:
    """Of everything that decides what the vectors are, but the tokenizer, which the model may have changed."""
    names = {name for name in files_of(folder) if name.endswith((".safetensors", "config.json", "modules.json"))}
    names -= {"tokenizer_config.json", "generation_config.json", "preprocessor_config.json"}
    return hashlib.sha256(repr([(name, hash_file(folder / name)) for name in sorted(names)]).encode()).hexdigest()


@contextlib.contextmanager
def failures_named(name: str, hint: Mapping[str, str]) -> Iterator[None]:
    """Turns torch's errors into BackendError, with a hint for those out of memory.

    Args:
        hint: What to do, under "memory" and "else".
    """
    torch = import_torch()
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BackendError(f"the graphics card has not enough memory to run {name}", hint=hint["memory"]) from error
    except (RuntimeError, IndexError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BackendError(f"torch could not run {name}: {reason}", hint=hint["else"]) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and reports that transformers writes to the screen while it loads a model."""
    from transformers import utils

    logging: Any = utils.logging
    with _loading:
        verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
