"""ragline beside what else people would use: same data, same questions, same model, one core each, in turn.

    .venv/bin/python benchmarks/peers.py --data FOLDER

FOLDER holds labelled sets in BEIR's layout; the sentences of all of them make the documents and the questions, and one
(`QUALITY_SET`) is searched as it is. Each system runs in a process of its own, in an environment of its own that is made
under `benchmarks/.venvs` with the versions of `adapters/requirements-*.txt`, and all take their turn in every round.
Ratios are of medians; processor time stands beside wall time, because others may use the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # as a script it would not find its neighbours by their full names

from benchmarks.environments import TORCH, VENVS, environment
from ragline.bench.evaluation import LabelledSet, load_labelled_set, ndcg
from ragline.bench.machine import describe_machine, usable_cores
from ragline.bench.texts import make_workload, read_sentences
from ragline.bench.timing import percentile
from ragline.embedding.models import DEFAULT_MODEL, ModelFolder, locate_model
from ragline.embedding.tokenizer import ModelTokenizer
from ragline.settings import load_settings

HERE = Path(__file__).resolve().parent

ROUNDS = 5
INGESTED = 192
"""Documents ingested by each system in each round, other ones each time."""
STORED = 5000
QUESTIONS = 300
CALLERS = 16
TOP_K = 10
QUALITY_SET = "cranfield"


@dataclass(frozen=True)
class System:
    name: str
    adapter: str
    environment: str | None
    arguments: tuple[str, ...] = ()


RAGLINE = System("ragline", "with_ragline.py", None)
PEERS = (
    System("LlamaIndex, default store", "with_llamaindex.py", "llamaindex", ("default",)),
    System("LlamaIndex + FAISS", "with_llamaindex.py", "llamaindex", ("faiss",)),
    System("Haystack, in memory, dense", "with_haystack.py", "haystack", ("dense",)),
    System("Haystack, in memory, hybrid", "with_haystack.py", "haystack", ("hybrid",)),
    System("txtai, hybrid", "with_txtai.py", "txtai"),
    System("Chroma", "with_chroma.py", "chroma"),
    System("LangChain + FAISS", "with_langchain.py", "langchain"),
)
ENVIRONMENTS = tuple(dict.fromkeys(peer.environment for peer in PEERS if peer.environment))


class Process:
    """A system at work, called over its standard input."""

    def __init__(self, system: System, core: int) -> None:
        self.name = system.name
        command = [str(_python(system.environment)), str(HERE / "adapters" / system.adapter), str(core), *system.arguments]
        variables = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables)

    def __call__(self, method: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"method": method, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} ended while it did {method!r}; its error stands above")
        return json.loads(answer)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=f"folder with labelled sets, {QUALITY_SET!r} among them")
    parser.add_argument("--core", type=int, default=usable_cores() - 1, help="the core that each system is kept to")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--stored", type=int, default=STORED, help="documents that are searched")
    parser.add_argument("--ingested", type=int, default=INGESTED, help="documents that each system ingests in each round")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="questions that each system is asked, all rounds together")
    parser.add_argument("--name", default="peers", help="of the files of figures")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder that the figures are written into")
    options = parser.parse_args()

    for name in ENVIRONMENTS:
        _make_environment(name)
    model = locate_model(DEFAULT_MODEL, cache_dir=load_settings().settings.model_cache_dir(), announce=_say)
    tokenizer = ModelTokenizer(model.path / "tokenizer.json")
    sentences = read_sentences(options.data)
    stored = make_workload(
        sentences,
        lambda text: len(tokenizer.ids(text)),
        documents=options.stored + options.rounds * options.ingested,
        questions=max(QUESTIONS, options.questions),
    )
    labelled = load_labelled_set(options.data / QUALITY_SET)

    processes = [Process(system, options.core) for system in (*PEERS, RAGLINE)]
    machine = describe_machine()
    figures: dict[str, dict[str, Any]] = {}
    try:
        for process in processes:
            _say(f"opening {process.name}")
            figures[process.name] = process("open", model=str(model.path), top_k=TOP_K)
        _ingest(processes, figures, stored.documents[options.stored :], options.rounds)
        _search(processes, figures, stored.documents[: options.stored], stored.questions[: options.questions], options.rounds, model)
        _quality(processes, figures, labelled, model)
    finally:
        for process in processes:
            process.close()
    add_ratios(figures)
    result = {
        "command": f"python benchmarks/peers.py --data FOLDER --core {options.core} --rounds {options.rounds} --stored {options.stored}"
        f" --ingested {options.ingested} --questions {options.questions}",
        "machine": {**machine, "load_after": describe_machine()["load"], "cores_each": 1},
        "options": {
            "documents": options.stored,
            "ingested_each_round": options.ingested,
            "questions": options.questions,
            "callers": CALLERS,
            "top_k": TOP_K,
            "tokens_each_document": statistics.fmean(len(tokenizer.ids(text)) for text in stored.documents),
            "tokens_each_question": statistics.fmean(len(tokenizer.ids(text)) for text in stored.questions),
            "quality_set": QUALITY_SET,
            "rounds": options.rounds,
        },
        "versions": {name: _versions(name) for name in ENVIRONMENTS},
        "figures": figures,
    }
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / f"{options.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    table = _markdown(result)
    (options.results / f"{options.name}.md").write_text(table)
    print(table)


def _ingest(processes: Sequence[Process], figures: dict[str, dict[str, Any]], fresh: Sequence[str], rounds: int) -> None:
    """Chunks a second, of different documents in each round."""
    count = len(fresh) // rounds
    measured: dict[str, list[Any]] = {process.name: [] for process in processes}
    for number in range(rounds):
        texts = fresh[number * count : (number + 1) * count]
        ids = [f"{number}-{place}" for place in range(len(texts))]
        for process in processes:
            _say(f"ingest, round {number + 1} of {rounds}: {process.name}")
            answer = process("ingest", texts=texts, ids=ids)
            assert answer["chunks"] == len(texts), f"{process.name} made {answer['chunks']} chunks of {len(texts)} documents"
            measured[process.name].append(answer)
    for name, answers in measured.items():
        figures[name]["ingest"] = {
            "chunks_per_s": [count / answer["ingest"]["wall_s"] for answer in answers],
            "chunks_per_cpu_s": [count / answer["ingest"]["cpu_s"] for answer in answers],
            "save_s": [answer["save"]["wall_s"] for answer in answers if "save" in answer],
        }


def _search(
    processes: Sequence[Process],
    figures: dict[str, dict[str, Any]],
    documents: Sequence[str],
    asked: Sequence[str],
    rounds: int,
    model: ModelFolder,
) -> None:
    """One question after the other, then many callers at once, over the same documents."""
    _build(processes, figures, documents, [str(place) for place in range(len(documents))], model)
    for process in processes:
        process("search", questions=[f"warm-up {place}: {text}" for place, text in enumerate(asked[:20])])
    searched: dict[str, list[Any]] = {process.name: [] for process in processes}
    called: dict[str, list[Any]] = {process.name: [] for process in processes}
    for number in range(rounds):
        questions = asked[number::rounds]
        for process in processes:
            _say(f"search, round {number + 1} of {rounds}: {process.name}")
            searched[process.name].append(process("search", questions=questions)["calls"])
        for process in processes:
            called[process.name].append(process("callers", questions=questions, callers=CALLERS))
    for name in searched:
        calls = [call for calls in searched[name] for call in calls]
        wall = [1000 * call["wall_s"] for call in calls]
        figures[name]["search"] = {
            **{f"p{percent}_ms": percentile(wall, percent) for percent in (50, 95, 99)},
            "cpu_p50_ms": percentile([1000 * call["cpu_s"] for call in calls], 50),
            "p50_ms_of_rounds": [percentile([1000 * call["wall_s"] for call in calls], 50) for calls in searched[name]],
        }
        figures[name]["callers"] = best_callers(called[name], [len(calls) for calls in searched[name]])


def best_callers(answers: Sequence[Mapping[str, Mapping[str, float]]], questions: Sequence[int]) -> dict[str, Any]:
    """Of the ways to serve many callers that were tried, the one with the best median."""
    ways = {
        way: {
            "questions_per_s": [count / answer[way]["wall_s"] for count, answer in zip(questions, answers, strict=True)],
            "questions_per_cpu_s": [count / answer[way]["cpu_s"] for count, answer in zip(questions, answers, strict=True)],
        }
        for way in answers[0]
    }
    best = max(ways, key=lambda way: statistics.median(ways[way]["questions_per_cpu_s"]))
    return {"way": best, **ways[best]}


def _quality(processes: Sequence[Process], figures: dict[str, dict[str, Any]], labelled: LabelledSet, model: ModelFolder) -> None:
    """nDCG@10 of what each finds, with its default way of searching."""
    ids = [str(document.id) for document in labelled.documents]
    _build(processes, figures, [document.text for document in labelled.documents], ids, model)
    for process in processes:
        found = process("search", questions=list(labelled.queries.values()))["ids"]
        rankings = dict(zip(labelled.queries, found, strict=True))
        figures[process.name]["ndcg_at_10"] = statistics.fmean(
            ndcg(list(dict.fromkeys(rankings[query])), relevance, TOP_K) for query, relevance in labelled.qrels.items()
        )


def _build(
    processes: Sequence[Process], figures: dict[str, dict[str, Any]], texts: Sequence[str], ids: Sequence[str], model: ModelFolder
) -> None:
    vectors = _vectors(texts, model)
    for process in processes:
        _say(f"building {len(texts)} documents: {process.name}")
        answer = process("build", texts=list(texts), ids=list(ids), vectors=str(vectors))
        figures[process.name]["peak_mb"] = answer["peak_mb"]


def _vectors(texts: Sequence[str], model: ModelFolder) -> Path:
    """The peers' vectors, made once by sentence-transformers: they are the same in all of them, and take minutes."""
    key = hashlib.sha256(json.dumps([model.weights_sha256, TORCH, *texts]).encode()).hexdigest()[:16]
    path = VENVS / f"vectors-{key}.npy"
    if not path.exists():
        _say(f"embedding {len(texts)} documents with sentence-transformers, once")
        process = Process(PEERS[-1], usable_cores() - 1)
        process("open", model=str(model.path), top_k=TOP_K)
        process("embed", texts=list(texts), path=str(path))
        process.close()
    return path


def add_ratios(figures: dict[str, dict[str, Any]]) -> None:
    """How many times better ragline is than each peer: of medians, by the clock and by processor time."""
    own = figures[RAGLINE.name]
    for peer in PEERS:
        its = figures[peer.name]
        its["ragline_is_better"] = {
            "ingest": _median(own, "ingest", "chunks_per_s") / _median(its, "ingest", "chunks_per_s"),
            "ingest_cpu": _median(own, "ingest", "chunks_per_cpu_s") / _median(its, "ingest", "chunks_per_cpu_s"),
            "search": its["search"]["p50_ms"] / own["search"]["p50_ms"],
            "search_cpu": its["search"]["cpu_p50_ms"] / own["search"]["cpu_p50_ms"],
            "callers": _median(own, "callers", "questions_per_s") / _median(its, "callers", "questions_per_s"),
            "callers_cpu": _median(own, "callers", "questions_per_cpu_s") / _median(its, "callers", "questions_per_cpu_s"),
        }


def _median(figures: Mapping[str, Any], part: str, name: str) -> float:
    return float(statistics.median(figures[part][name]))


def _markdown(result: Mapping[str, Any]) -> str:
    machine, options = result["machine"], result["options"]
    measured = (
        f"{machine['date'][:10]}, commit {machine['commit']}, {machine['cpu']}, one core each, Python {machine['python']};"
        f" load of the machine {machine['load']} before, {machine['load_after']} after. Medians of {options['rounds']} rounds in turn."
        f" `{result['command']}`"
    )
    meaning = (
        f"Documents of {options['tokens_each_document']:.0f} tokens (one chunk each), questions of {options['tokens_each_question']:.0f}"
        f" tokens over {options['documents']:,} documents, k = {options['top_k']}. In brackets: by processor time. Ragline's ingest is"
        " durable and searchable by meaning and by words; the others' is in memory, by meaning."
    )
    columns = ["", "ingest, chunks/s", "search p50 / p95 / p99 ms", f"{options['callers']} callers, questions/s"]
    columns += [f"nDCG@10, {options['quality_set']}", "peak MB"]
    lines = ["# ragline beside others", "", measured, "", meaning, "", f"|{' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, its in result["figures"].items():
        search = its["search"]
        lines.append(
            f"| {name} | {_median(its, 'ingest', 'chunks_per_s'):.1f} ({_median(its, 'ingest', 'chunks_per_cpu_s'):.1f})"
            f" | {search['p50_ms']:.2f} / {search['p95_ms']:.2f} / {search['p99_ms']:.2f} ({search['cpu_p50_ms']:.2f})"
            f" | {_median(its, 'callers', 'questions_per_s'):.0f} ({_median(its, 'callers', 'questions_per_cpu_s'):.0f})"
            f" | {its['ndcg_at_10']:.3f} | {its['peak_mb']:.0f} |"
        )
    lines += ["", "| ragline is better than | ingest | search | callers |", "|---|---|---|---|"]
    for name, its in result["figures"].items():
        if (ratio := its.get("ragline_is_better")) is not None:
            cells = " | ".join(f"{ratio[part]:.1f} x ({ratio[part + '_cpu']:.1f} x)" for part in ("ingest", "search", "callers"))
            lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


def _make_environment(name: str) -> None:
    environment(name, HERE / "adapters" / f"requirements-{name}.txt", first=[TORCH])


def _python(name: str | None) -> Path:
    return Path(sys.executable) if name is None else VENVS / name / "bin" / "python"


def _versions(name: str) -> list[str]:
    return [TORCH, *(HERE / "adapters" / f"requirements-{name}.txt").read_text().split()]


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
