"""Environments of other software, made under `benchmarks/.venvs` from pinned requirements when they are first needed."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

VENVS = Path(__file__).resolve().parent / ".venvs"
TORCH = "torch==2.13.0"
"""Installed alone and first: what comes after must not choose another build."""


def environment(name: str, requirements: Path, *, first: Sequence[str] = ()) -> Path:
    """The folder of an environment's programs; it is made anew where its requirements changed.

    Args:
        first: What is installed before, on its own.
    """
    folder = VENVS / name
    made_from = folder / "made-from.txt"
    wanted = "\n".join([*first, requirements.read_text(encoding="utf-8")])
    if not made_from.exists() or made_from.read_text(encoding="utf-8") != wanted:
        print(f"making the environment {folder}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for arguments in (*([each] for each in first), ["-r", str(requirements)]):
            subprocess.run([*pip, *arguments], check=True, stdout=sys.stderr)
        made_from.write_text(wanted, encoding="utf-8")
    return folder / "bin"
