"""Figures become a file for programs and a page for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_COLUMNS = ("good_per_s", "p50_ms", "p95_ms", "p99_ms", "refusal_p50_ms", "server_cpu", "client_cpu")


def write_report(folder: Path, machine: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Writes `load.json` and `load.md`; scenarios that were not run now keep their figures of before."""
    file = folder / "load.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    known |= {name: {"machine": dict(machine), **found} for name, found in results.items()}
    file.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    (folder / "load.md").write_text("\n".join(_page(known)) + "\n", encoding="utf-8")


def _page(known: Mapping[str, Any]) -> Iterator[str]:
    yield "# `ragline serve` under load"
    yield ""
    yield "Made by `benchmarks/load/run.py`. Client and server share the machine; `load_before` is what else ran on it, in cores."
    for name, found in known.items():
        machine = found["machine"]
        yield ""
        yield f"## {name}"
        yield ""
        yield (
            f"{machine['date']}, commit {machine['commit']}, {machine['cpu']}, {machine['cores']} cores, "
            f"load before: {found['load_before']}"
        )
        yield ""
        yield "| run | " + " | ".join(_COLUMNS) + " | statuses |"
        yield "|" + "---|" * (len(_COLUMNS) + 2)
        yield from _rows("", found)
        yield ""
        yield from _values("", found)


def _rows(path: str, found: Mapping[str, Any]) -> Iterator[str]:
    if "good_per_s" in found:
        cells = [_shown(found.get(column)) for column in _COLUMNS]
        statuses = ", ".join(f"{status}: {count}" for status, count in found.get("statuses", {}).items())
        yield f"| {path or 'all'} | " + " | ".join(cells) + f" | {statuses} |"
        return
    for name, value in found.items():
        if isinstance(value, Mapping) and name != "machine":
            yield from _rows(f"{path} {name}".strip(), value)


def _values(path: str, found: Mapping[str, Any]) -> Iterator[str]:
    for name, value in found.items():
        whole = f"{path} {name}".strip()
        if isinstance(value, Mapping):
            if name not in ("machine", "statuses") and "good_per_s" not in value:
                yield from _values(whole, value)
        elif "good_per_s" not in found and name != "load_before":
            yield f"- {whole}: {_shown(value)}"


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:,.2f}" if isinstance(value, float) else str(value)
