"""Where is a model's tokenizer, of a model that need not be on this machine itself?"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ragline.embedding.files import new_folder
from ragline.errors import BackendError, NotFoundError, SettingsError

FILE = "tokenizer.json"
_PROBE_TIMEOUT_S = 3.0


def locate_tokenizer(name_or_path: str, *, cache_dir: Path, announce: Callable[[str], None]) -> Path:
    """A `tokenizer.json`: of a folder, of a model in `cache_dir` or the hub's own cache, or fetched from the hub.

    Raises:
        SettingsError: The folder has no such file.
        NotFoundError: The hub has no such model, or it has no such file.
        BackendError: It is not on this machine and cannot be fetched.
    """
    path = Path(os.path.expanduser(name_or_path))
    if os.path.isdir(path):
        if not (path / FILE).is_file():
            raise SettingsError(f"the folder {path} of embedding.tokenizer has no {FILE}", hint="name the folder of a model with one")
        return path / FILE
    name = name_or_path if "/" in name_or_path else f"sentence-transformers/{name_or_path}"
    kept = cache_dir / "tokenizers" / name.replace("/", "--") / FILE
    for known in (kept, cache_dir / "models" / name.replace("/", "--") / FILE):
        if known.is_file():
            return known
    return _from_hub(name, kept, announce)


def _from_hub(name: str, target: Path, announce: Callable[[str], None]) -> Path:
    # Imported here: only needed where the tokenizer is not yet on this machine.
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    hint = "set embedding.tokenizer to a folder or a model on the hub with a tokenizer.json, or leave it unset to estimate"
    try:
        cached = try_to_load_from_cache(name, FILE)
        if isinstance(cached, str):
            return Path(cached)
        announce(f"Fetching the tokenizer of {name} from the Hugging Face hub into {target.parent}.")
        with new_folder(target.parent.parent) as temporary:
            fetched = hf_hub_download(name, FILE, local_dir=temporary, etag_timeout=_PROBE_TIMEOUT_S)
            target.parent.mkdir(exist_ok=True)
            os.replace(fetched, target)
    except LocalEntryNotFoundError as error:  # a kind of EntryNotFoundError that means no network
        raise BackendError(f"the tokenizer of {name} is not on this machine, and the hub cannot be reached", hint=hint) from error
    except (RepositoryNotFoundError, EntryNotFoundError, HFValidationError) as error:
        raise NotFoundError(f"the Hugging Face hub has no tokenizer of {name}", hint=hint) from error
    except Exception as error:  # the hub's errors have no common root
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BackendError(f"the tokenizer of {name} cannot be fetched: {reason}", hint=hint) from error
    return target
