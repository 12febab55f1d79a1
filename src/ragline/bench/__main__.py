"""Measures ragline on this machine: `python -m ragline.bench [CASE ...]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ragline.bench import asking, batching, caching, first_token, ingest, lexical, load, quality, remote, search, semantic, start
from ragline.bench.machine import describe_machine
from ragline.bench.texts import Workload, make_workload, read_sentences
from ragline.embedding.models import locate_model
from ragline.embedding.tokenizer import ModelTokenizer
from ragline.errors import RaglineError
from ragline.settings import CacheSettings, Settings, load_settings


@dataclass(frozen=True)
class Inputs:
    """What the cases are measured on: made once, when the first of them wants it."""

    data: Path
    reference: Path | None
    settings: Settings

    @cached_property
    def sentences(self) -> list[str]:
        """All sentences of the data."""
        return read_sentences(self.data)

    @cached_property
    def workload(self) -> Workload:
        """Documents of one chunk each, and questions."""
        return self._workload(search.QUESTIONS)

    @cached_property
    def documents(self) -> Workload:
        """Documents alone, for which less text is enough."""
        return self._workload(0)

    def _workload(self, questions: int) -> Workload:
        model = locate_model(self.settings.embedding.model, cache_dir=self.settings.model_cache_dir(), announce=_say)
        tokenizer = ModelTokenizer(model.path / "tokenizer.json")
        documents = max(search.DOCUMENTS, ingest.REPEATS * ingest.DOCUMENTS)
        return make_workload(self.sentences, lambda text: len(tokenizer.ids(text)), documents=documents, questions=questions)


def _quality(inputs: Inputs) -> dict[str, Any]:
    reference = quality.read_reference(inputs.reference) if inputs.reference is not None else None
    return quality.measure_quality(inputs.data, inputs.settings, reference=reference)


CASES: Mapping[str, tuple[str, Callable[[Inputs], dict[str, Any]]]] = {
    "quality": ("nDCG@10 and recall on labelled sets", _quality),
    "ingest": ("chunks a second on one core and on all; where the time goes", lambda of: ingest.measure_ingest(of.workload, of.settings)),
    "memory": ("peak memory of ingesting 100 MB of text (long)", lambda of: ingest.measure_ingest_memory(of.data, of.settings)),
    "search": ("times of a search and of its parts; many callers", lambda of: search.measure_search(of.workload, of.settings)),
    "lexical": (
        "the lexical view over 500,000 passages",
        lambda of: lexical.measure_lexical(of.sentences, of.workload.questions, of.settings),
    ),
    "asking": (
        "answers that are known already, by the step that served them; what measuring costs",
        lambda of: asking.measure_asking(of.documents, of.settings),
    ),
    "load": (
        "many callers; a slow language model; a big ingest beside questions",
        lambda of: load.measure_load(of.workload, of.settings),
    ),
    "caching": ("hit ratios of the cache's policy and of LRU; times of lookups", lambda of: caching.measure_caching()),
    "remote": (
        "texts a second from an embedding server with 20 ms latency: one by one, in batches, in parallel (extra openai)",
        lambda of: remote.measure_remote(of.sentences),
    ),
    "stream": (
        "how much later than the language model a streamed answer begins, also through `ragline serve` (extras openai, server)",
        lambda of: first_token.measure_first_token(of.sentences),
    ),
    "batching": (
        "10 short texts, new and cached; many callers of a server with 20 ms latency, with and without a queue (extra openai)",
        lambda of: batching.measure_batching(of.sentences, of.settings),
    ),
    "semantic": (
        "right and wrong answers served to other questions; needs xquad_en and question_pairs (long)",
        lambda of: semantic.measure_semantic(of.data, of.settings),
    ),
    "start": ("import, --help and ask in fresh processes", lambda of: start.measure_start(of.workload)),
    "install": ("size of a fresh installation (needs a package index)", lambda of: start.measure_install()),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the cases named, one after the other; returns the exit code."""
    lines = "\n".join(f"  {name:8} {what}" for name, (what, _) in CASES.items())
    parser = argparse.ArgumentParser(
        prog="python -m ragline.bench", description=f"cases:\n{lines}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="which to run; all unless named")
    parser.add_argument(
        "--data", type=Path, default=Path("examples/corpus"), help="folder with labelled sets in BEIR's layout, or with texts"
    )
    parser.add_argument("--reference", type=Path, help="JSON with known nDCG@10 by set and mode, to compare quality with")
    parser.add_argument("--json", action="store_true", help="write one JSON object instead of lines")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"there is no case {unknown[0]!r}; choose from {', '.join(CASES)}")
    # The defaults are measured, whatever this machine's settings are; only the place of the models is its own.
    inputs = Inputs(
        options.data, options.reference, Settings(cache_dir=load_settings().settings.cache_dir, cache=CacheSettings(enabled=False))
    )
    results = {}
    try:
        for name in options.cases or CASES:
            _say(f"{name}: {CASES[name][0]}")
            results[name] = {**CASES[name][1](inputs), "machine": describe_machine()}
            if not options.json:
                print("\n".join(_lines({name: results[name]})), flush=True)
    except RaglineError as failure:
        _say(f"error: {failure}")
        return 1
    if options.json:
        print(json.dumps(results, indent=1))
    return 0


def _lines(values: Mapping[str, Any], path: str = "") -> list[str]:
    """`path.to.value  value` for each value of a tree."""
    lines: list[str] = []
    for key, value in values.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            lines += _lines(value, name)
        else:
            lines.append(f"{name:60} {f'{value:.4g}' if isinstance(value, float) else value}")
    return lines


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
