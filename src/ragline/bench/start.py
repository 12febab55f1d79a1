"""How long until it is there? Import, command line and first answer; and how large an installation is."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ragline
from ragline.bench.processes import run_command
from ragline.bench.texts import Workload
from ragline.bench.timing import Spent
from ragline.errors import InputError

REPEATS = 7
DOCUMENTS = 500


def measure_start(workload: Workload) -> dict[str, Any]:
    """Seconds of fresh processes, by the clock and of the processor: medians, after one run that is not counted.

    `ask` runs on a store of `DOCUMENTS` documents.
    """
    with tempfile.TemporaryDirectory(prefix="ragline-bench-") as folder:
        texts = Path(folder, "texts")
        texts.mkdir()
        for place, text in enumerate(workload.documents[:DOCUMENTS]):
            (texts / f"{place:05d}.txt").write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "ragline", "--data-dir", f"{folder}/data"]
        subprocess.run([*command, "ingest", str(texts)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return {
            "options": {"repeats": REPEATS, "documents": DOCUMENTS},
            "python alone": _median([sys.executable, "-c", "pass"]),
            "import ragline": _median([sys.executable, "-c", "import ragline"]),
            "import ragline, open": _median([sys.executable, "-c", "import ragline; ragline.open"]),
            "ragline --help": _median([sys.executable, "-m", "ragline", "--help"]),
            "ragline ask": _median([*command, "ask", workload.questions[0]]),
        }


def _median(command: Sequence[str]) -> Mapping[str, float]:
    run_command(command)
    spent = [run_command(command) for _ in range(REPEATS)]
    return asdict(Spent(statistics.median(each.wall_s for each in spent), statistics.median(each.cpu_s for each in spent)))


def measure_install() -> dict[str, Any]:
    """Installs the source tree without extras into a fresh environment; megabytes of its site-packages, largest first.

    Raises:
        InputError: ragline does not run from a source tree.
    """
    tree = Path(ragline.__file__).resolve().parents[2]
    if not (tree / "pyproject.toml").is_file():
        raise InputError("this ragline is an installed package, not a source tree", hint="run `python -m ragline.bench install` in a clone")
    with tempfile.TemporaryDirectory(prefix="ragline-bench-") as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(tree)], check=True)
        site_packages = next(Path(folder, "lib").glob("*/site-packages"))
        sizes = {entry.name: _bytes(entry) / 1000**2 for entry in site_packages.iterdir()}
        has_torch = (site_packages / "torch").exists()
    largest = dict(sorted(sizes.items(), key=lambda item: item[1], reverse=True)[:12])
    return {"site_packages_mb": sum(sizes.values()), "pip_mb": sizes.get("pip", 0.0), "torch": has_torch, "largest_mb": largest}


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file() and not file.is_symlink())
    return path.stat().st_blocks * 512
