"""How good is retrieval on labelled sets, and how far is that from figures that are already known?"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ragline.bench.evaluation import MODES, Evaluation, LabelledSet, evaluate, load_labelled_set
from ragline.engine import Engine
from ragline.errors import InputError
from ragline.settings import Settings

MEAN_MARGIN = 0.005
SET_MARGIN = 0.015
"""How much nDCG@10 may lie below the reference: on average over the sets, and on any one of them."""

Reference = Mapping[str, Mapping[str, float]]
"""nDCG@10 by set and mode."""


def measure_quality(data: Path, settings: Settings, *, reference: Reference | None = None) -> dict[str, Any]:
    """nDCG@10, recall and search time of each mode on every labelled set in a folder, through the engine.

    With `reference`, also by how much nDCG@10 differs from it, and whether that is within the margins.

    Raises:
        InputError: The folder holds no labelled set, or one that is not in BEIR's layout.
    """
    folders = sorted(file.parent for file in data.glob("*/corpus.jsonl"))
    if not folders:
        raise InputError(f"{data} holds no labelled sets", hint="name a folder whose subfolders have corpus.jsonl, queries.jsonl, qrels/")
    sets: dict[str, dict[str, dict[str, float]]] = {}
    for folder in folders:
        found = asyncio.run(_evaluate(load_labelled_set(folder), settings))
        sets[folder.name] = {mode: asdict(found.figures[mode]) for mode in MODES}
    ndcg = {name: {mode: figures["ndcg_at_10"] for mode, figures in modes.items()} for name, modes in sets.items()}
    result: dict[str, Any] = {
        "sets": sets,
        "mean_ndcg_at_10": {mode: statistics.fmean(ndcg[name][mode] for name in ndcg) for mode in MODES},
    }
    if reference is not None:
        result["against_reference"] = {mode: compare(ndcg, reference, mode) for mode in MODES}
    return result


async def _evaluate(labelled: LabelledSet, settings: Settings) -> Evaluation:
    with tempfile.TemporaryDirectory(prefix="ragline-bench-") as folder:
        async with Engine.open(folder, settings=settings) as engine:
            return await evaluate(engine, labelled)


def compare(ndcg: Reference, reference: Reference, mode: str) -> dict[str, Any]:
    """By how much each set's nDCG@10 differs from the reference (above 0 is better), and whether the margins hold.

    Sets and modes that only one side has are left out; without any, `within_margins` is None.
    """
    differences = {
        name: figures[mode] - reference[name][mode] for name, figures in ndcg.items() if mode in figures and mode in reference.get(name, {})
    }
    if not differences:
        return {"mean": None, "worst": None, "within_margins": None, "sets": {}}
    mean, worst = statistics.fmean(differences.values()), min(differences.values())
    return {"mean": mean, "worst": worst, "within_margins": mean >= -MEAN_MARGIN and worst >= -SET_MARGIN, "sets": differences}


def read_reference(file: Path) -> Reference:
    """Reads nDCG@10 by set and mode: `{"cranfield": {"dense": 0.4, "hybrid": 0.431}, ...}`.

    Raises:
        InputError: The file is not that.
    """
    try:
        reference = json.loads(file.read_text(encoding="utf-8"))
        return {name: {mode: float(value) for mode, value in modes.items()} for name, modes in reference.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{file} is not a reference: {error}", hint='write {"set": {"dense": 0.4, "hybrid": 0.43}, ...}') from error
