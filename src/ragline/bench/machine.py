"""Where was it measured? What must stand beside a figure so that it can be compared."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import ragline

PACKAGES = ("apsw", "faiss-cpu", "numpy", "onnxruntime", "tantivy", "tokenizers")


def describe_machine() -> Mapping[str, Any]:
    """Processor, cores this process may use, load, versions, commit and date, as JSON values.

    `load` is how many threads of anybody wanted a core in the last minute: much more than the measurement's own
    means that its wall times are too long.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "ragline": ragline.__version__,
        "cpu": _cpu(),
        "cores": usable_cores(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resident_bytes(pids: Sequence[int]) -> int:
    """The memory that processes hold together now, in bytes; pages they share count for each. 0 where there is no /proc."""
    return sum(_status_bytes(pid, "VmRSS") for pid in pids)


def peak_resident_bytes() -> int:
    """The most memory that this process has held, in bytes."""
    peak = _status_bytes(os.getpid(), "VmHWM")
    if peak:
        return peak
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if platform.system() == "Darwin" else 1024 * used


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs; none where there is no /proc."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            started = [int(child) for child in children.read_text().split()]
        except OSError:  # the thread ended meanwhile
            continue
        for child in started:
            found += [child, *descendants(child)]
    return found


def _status_bytes(pid: int, key: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)


def _cpu() -> str:
    """The processor's name with its family and model, which a cloud's names leave out."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(reversed([(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines) if value]))
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields['cpu family']}, model {fields['model']})" if "cpu family" in fields else name


def _commit() -> str:
    """The commit of the source tree, with `+` where files differ from it; "" for an installed package."""
    tree = Path(__file__).resolve().parents[3]
    if not (tree / ".git").exists():
        return ""
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=tree, capture_output=True, text=True, check=True)
        changes = subprocess.run(["git", "status", "--porcelain", "--", "src"], cwd=tree, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")
