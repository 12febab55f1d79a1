"""The machine that an engine runs on: what it has, as far as it tells."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# By what Linux's /proc/cpuinfo and macOS's sysctl call them.
_FEATURES: Mapping[str, tuple[str, ...]] = {
    "AVX2": ("avx2", "avx2_0"),
    "AVX-512": ("avx512f",),
    "VNNI": ("avx512_vnni", "avx_vnni", "avx512vnni"),
    "AMX": ("amx_int8",),
    "NEON": ("asimd", "neon"),
    "dot product": ("asimddp", "feat_dotprod"),
    "i8mm": ("i8mm", "feat_i8mm"),
    "SVE": ("sve", "feat_sve"),
}
_SYSCTL_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor's name and those of its vector instructions that matter here."""

    name: str
    features: tuple[str, ...]


def processor() -> Processor:
    """This machine's processor; without features where the system does not tell them."""
    if sys.platform == "darwin":
        return read_sysctl(_sysctl())
    try:
        return read_cpuinfo(Path("/proc/cpuinfo").read_text(errors="replace"))
    except OSError:
        return Processor(platform.processor() or platform.machine(), ())


def read_cpuinfo(text: str) -> Processor:
    """What Linux's /proc/cpuinfo says of the first processor."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = next((fields[key] for key in ("model name", "Model", "Hardware") if fields.get(key)), platform.machine())
    return Processor(name, _known(f"{fields.get('flags', '')} {fields.get('Features', '')}".split()))


def read_sysctl(text: str) -> Processor:
    """What macOS's `sysctl machdep.cpu hw.optional` prints: `name: value`, a line each."""
    values = dict(re.findall(r"^([\w.]+): (.*)$", text, flags=re.MULTILINE))
    present = [name.rpartition(".")[2].lower() for name, value in values.items() if name.startswith("hw.optional.") and value == "1"]
    features = values.get("machdep.cpu.features", "") + " " + values.get("machdep.cpu.leaf7_features", "")
    return Processor(values.get("machdep.cpu.brand_string", platform.machine()), _known([*present, *features.lower().split()]))


def _known(found: Iterable[str]) -> tuple[str, ...]:
    present = set(found)
    return tuple(name for name, spellings in _FEATURES.items() if not present.isdisjoint(spellings))


def _sysctl() -> str:
    command = ["/usr/sbin/sysctl", "machdep.cpu", "hw.optional"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_SYSCTL_TIMEOUT_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def usable_cores() -> int:
    """The cores this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_bytes(root: Path = Path("/")) -> int | None:
    """The memory that this process can still take, its container's limit counted; None where the system does not tell.

    Args:
        root: Where `proc` and `sys` are.
    """
    try:
        meminfo = (root / "proc/meminfo").read_text()
    except OSError:
        return None
    match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, flags=re.MULTILINE)
    if match is None:
        return None
    available = 1024 * int(match[1])
    try:
        limit, used = ((root / "sys/fs/cgroup" / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return min(available, max(0, int(limit) - int(used)))
    except (OSError, ValueError):  # no container, or one without a limit: "max"
        return available


def open_files_limit() -> int | None:
    """How many files this process may hold open; None for as many as it likes, or where nobody knows."""
    try:
        import resource
    except ImportError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else limit


def free_disk_bytes(folder: Path) -> int:
    """The room where a folder is, or will be.

    Raises:
        OSError: It cannot be looked at.
    """
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
