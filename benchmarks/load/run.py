"""`ragline serve` under load: how much it answers, how fast, and what it does when more comes.

    .venv/bin/python benchmarks/load/run.py --data FOLDER [--workers N] [SCENARIO ...]

Scenarios: saturation, steady, overload, llm, uploads, users (with locust) and peer (LangChain with FAISS behind FastAPI), the last two
in environments of their own. Client and server share the machine. Figures go to `benchmarks/results/load.json` and `load.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # for what lies beside this folder

from bench import SECONDS, Bench
from peer import beside_langchain
from report import write_report
from serving import Watched, imitated_llm, serving
from uploading import upload_while_searching
from users import users
from workload import CHUNKS, prepare

from ragline.bench.machine import describe_machine, usable_cores

OVERLOAD_SECONDS = 20.0
KNOWN = 100
"""Questions of which the answers are known."""
LLM_CONNECTIONS = 8
"""So many of 0.2 s each: the language model gives 40 answers a second, and is what there is least of."""


def saturation(bench: Bench) -> dict[str, Any]:
    """As much as client and server can do, side by side on the machine: searches and answers that nobody asked before, answers known."""
    uncached = {"cache.enabled": "false"}
    with bench.serving(uncached) as server:
        bench.warm(server)
        found = {
            "searches": bench.peak(server, "/api/v1/search", bench.unseen),
            "answers": bench.peak(server, "/api/v1/query", bench.unseen),
        }
    with bench.serving() as server:
        bench.warm(server)
        known = bench.unseen()[:KNOWN]
        bench.load(server, "/api/v1/query", known, connections=2 * bench.workers, seconds=15 * bench.workers)  # each process keeps its own
        found["known answers"] = bench.peak(server, "/api/v1/query", lambda: known)
        found["memory_mb"] = max(server.memory_bytes) / 1e6
    return found


def steady(bench: Bench) -> dict[str, Any]:
    """100 uncached searches a second over 10 connections."""
    with bench.serving({"cache.enabled": "false"}) as server:
        bench.warm(server)
        return bench.load(server, "/api/v1/search", bench.unseen(), connections=10, rate=100, seconds=OVERLOAD_SECONDS)


def overload(bench: Bench) -> dict[str, Any]:
    """Four times the searches that it can serve; client and server on one core each, and the peak measured in the same way."""
    with serving(bench.store, {"cache.enabled": "false", "limits.degrade": "false"}, core=bench.server_core) as server:
        return _overloaded(bench, server, "/api/v1/search", core=bench.client_core)


def llm(bench: Bench) -> dict[str, Any]:
    """Four times the questions that an imitated language model of 0.2 s can answer; then the same with work left out under load."""
    found = {}
    with imitated_llm() as address:
        for name, degrade in (("without degrading", "false"), ("degrading", "true")):
            settings = {
                "cache.enabled": "false",
                "limits.degrade": degrade,
                "generation.generator": "openai",
                "generation.model": "m",
                "generation.base_url": address,
                "generation.api_key": "none",
                "pool.max_size": LLM_CONNECTIONS,
            }
            with serving(bench.store, settings) as server:
                found[name] = _overloaded(bench, server, "/api/v1/query")
    return found


def _overloaded(bench: Bench, server: Watched, path: str, **plan: Any) -> dict[str, Any]:
    bench.warm(server)
    alone = bench.load(server, path, bench.unseen(), connections=1, seconds=SECONDS, **plan)
    peak = bench.peak(server, path, bench.unseen, **plan)
    rate = 4 * float(peak["good_per_s"])
    before = server.memory_bytes[-1]
    crowd = bench.load(server, path, bench.unseen(), connections=200, rate=rate, seconds=OVERLOAD_SECONDS, skip_s=4.0, **plan)
    return {
        "alone": alone,
        "peak": peak,
        "offered_per_s": rate,
        "crowd": crowd,
        "goodput_of_peak": crowd["good_per_s"] / peak["good_per_s"],
        "p99_of_alone": crowd["p99_ms"] / alone["p99_ms"],
        "memory_mb": {"before": before / 1e6, "after": server.memory_bytes[-1] / 1e6},
    }


def uploads(bench: Bench) -> dict[str, Any]:
    """Files of 100 kB as fast as they are taken, while 5 searches a second go on."""
    return upload_while_searching(bench)


SCENARIOS: Mapping[str, Callable[[Bench], dict[str, Any]]] = {
    "saturation": saturation,
    "steady": steady,
    "overload": overload,
    "llm": llm,
    "uploads": uploads,
    "users": users,
    "peer": beside_langchain,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--data", type=Path, help="a folder of texts, or of labelled sets; else texts are made up")
    parser.add_argument("--store", type=Path, help="where the documents are kept for the next time; else they are thrown away")
    parser.add_argument("--chunks", type=int, default=CHUNKS, help="how many documents, of one chunk each, there are")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes of the server; overload and llm have one")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        kept = asked.store or Path(scratch) / "kept"
        kept.mkdir(parents=True, exist_ok=True)
        questions = prepare(kept, asked.data, asked.chunks)
        results: dict[str, Any] = {}
        for name in asked.scenarios or SCENARIOS:
            print(f"{name} ...", flush=True)
            store = Path(scratch) / name  # what one scenario writes, the next does not find
            shutil.copytree(kept, store)
            before = os.getloadavg()[0]
            found = SCENARIOS[name](Bench(store, questions, asked.workers))
            results[name] = {"load_before": round(before, 2), "workers": 1 if name in ("overload", "llm") else asked.workers, **found}
            print(json.dumps(results[name], indent=1), flush=True)
            shutil.rmtree(store)
    write_report(Path(__file__).parent.parent / "results", describe_machine(), results)


if __name__ == "__main__":
    main()
