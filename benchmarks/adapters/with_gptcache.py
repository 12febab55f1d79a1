"""GPTCache with its default evaluation (distance of the vectors) on FAISS and SQLite: `python with_gptcache.py PAIRS VECTORS`.

PAIRS holds `questions`, `pairs` (`[[stored, asked], ...]`) and `thresholds`; VECTORS the questions' vectors in their order. Its own
files lie beside them. Prints, for each threshold, which pairs are served.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from gptcache import Cache, Config
from gptcache.adapter.api import get, put
from gptcache.manager import manager_factory
from gptcache.processor.pre import get_prompt
from gptcache.similarity_evaluation import SearchDistanceEvaluation

asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
vectors = dict(zip(asked["questions"], np.load(sys.argv[2]), strict=True))
served: dict[str, list[int]] = {str(threshold): [] for threshold in asked["thresholds"]}
data = manager_factory(
    "sqlite,faiss", data_dir=str(Path(sys.argv[1]).parent), vector_params={"dimension": len(next(iter(vectors.values())))}
)
cache = Cache()
cache.init(
    pre_embedding_func=get_prompt,
    embedding_func=lambda question, **_: vectors[question],
    data_manager=data,
    similarity_evaluation=SearchDistanceEvaluation(),
    config=Config(disable_report=True, enable_token_counter=False),
)
for stored, question in asked["pairs"]:
    put(stored, "the answer", cache_obj=cache)
    for threshold, answers in served.items():
        cache.config.similarity_threshold = float(threshold)
        answers.append(int(get(question, cache_obj=cache) is not None))
    # One pair at a time: the next finds the cache empty.
    ids = data.s.get_ids(deleted=False)
    data.v.delete(ids)
    data.s.mark_deleted(ids)
    data.s.clear_deleted_data()
print(json.dumps(served))
