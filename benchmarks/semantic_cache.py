"""ragline's answer cache beside GPTCache: which answers does each give to another question, and how many are wrong?

    .venv/bin/python benchmarks/semantic_cache.py --data FOLDER

FOLDER holds `xquad_en` in BEIR's layout (or a folder that does) and `question_pairs/pairs.jsonl.gz`. Both see the same pairs, one at a
time, and the same vectors; GPTCache has its default evaluation, at its default threshold (0.8) and at stricter ones.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragline.bench.machine import describe_machine
from ragline.bench.semantic import CHOSEN, Compared, compare, figures, upper_bound
from ragline.engine import Engine
from ragline.engine.resources import Resources
from ragline.settings import Settings, load_settings

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE / ".venvs" / "gptcache"
REQUIREMENTS = HERE / "adapters" / "requirements-gptcache.txt"
THRESHOLDS = (0.8, 0.9, 0.95, 0.975, 0.98, 0.985, 0.99, 0.995, 0.999)
"""Of GPTCache's score, from 0 to 1: at unit length 0.8 is a cosine of 0.6, 0.95 one of 0.9, 0.99 one of 0.98."""
MOST_PAIRS = 4000
"""Of each set, drawn at random: GPTCache takes a tenth of a second for each."""
SEED = 20261121


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the questions")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder that the figures are written into")
    options = parser.parse_args()
    settings = Settings(cache_dir=load_settings().settings.cache_dir)
    _make_environment()
    compared = asyncio.run(compare(options.data, settings))
    drawn = {name: random.Random(SEED).sample(pairs, min(MOST_PAIRS, len(pairs))) for name, pairs in compared.items()}
    result: dict[str, Any] = {
        "command": "python benchmarks/semantic_cache.py --data FOLDER",
        "machine": describe_machine(),
        "peer": REQUIREMENTS.read_text().split(),
        "all_pairs": {
            name: figures(pairs) for name, pairs in (*compared.items(), ("all", [each for pairs in compared.values() for each in pairs]))
        },
    }
    everything = [each for pairs in drawn.values() for each in pairs]
    result["drawn_pairs"] = {
        "pairs": len(everything),
        "should_share": sum(each.pair.share for each in everything),
        "ragline": _counts(everything, [CHOSEN in each.rules for each in everything]),
        "gptcache": {threshold: _counts(everything, served) for threshold, served in _gptcache(everything, settings).items()},
    }
    options.results.mkdir(exist_ok=True)
    (options.results / "semantic-cache.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["drawn_pairs"], indent=1))


def _gptcache(compared: Sequence[Compared], settings: Settings) -> dict[str, list[int]]:
    questions = list(dict.fromkeys(question for each in compared for question in (each.pair.stored, each.pair.asked)))
    with tempfile.TemporaryDirectory() as folder:
        pairs, vectors = Path(folder, "pairs.json"), Path(folder, "vectors.npy")
        asked = {"questions": questions, "pairs": [(each.pair.stored, each.pair.asked) for each in compared], "thresholds": THRESHOLDS}
        pairs.write_text(json.dumps(asked), encoding="utf-8")
        np.save(vectors, asyncio.run(_vectors(questions, settings)))
        adapter = [str(ENVIRONMENT / "bin" / "python"), str(HERE / "adapters" / "with_gptcache.py"), str(pairs), str(vectors)]
        answer = subprocess.run(adapter, check=True, stdout=subprocess.PIPE, text=True).stdout
        served: dict[str, list[int]] = json.loads(answer.splitlines()[-1])
        return served


async def _vectors(questions: Sequence[str], settings: Settings) -> np.ndarray[Any, Any]:
    with tempfile.TemporaryDirectory() as folder:
        resources = Resources(settings.model_copy(update={"data_dir": Path(folder)}), lambda _: None)
        async with Engine(resources, settings.tenant):
            embedder = await resources.open_embedder(settings.embedding)
            return await embedder.embed_questions(questions)


def _counts(compared: Sequence[Compared], served: Sequence[int | bool]) -> dict[str, float]:
    shares = [each.pair.share for each, was in zip(compared, served, strict=True) if was]
    right = sum(shares)
    return {"right": right, "wrong": len(shares) - right, "wrong_at_most": upper_bound(len(shares) - right, len(shares))}


def _make_environment() -> None:
    made_from = ENVIRONMENT / "made-from.txt"
    if made_from.exists() and made_from.read_text() == REQUIREMENTS.read_text():
        return
    print(f"making the environment {ENVIRONMENT}", file=sys.stderr, flush=True)
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    python = str(ENVIRONMENT / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)], check=True)
    made_from.write_text(REQUIREMENTS.read_text())


if __name__ == "__main__":
    main()
