"""The engine against a dict: any sequence of calls leaves both with the same documents."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ragline.sync import SyncEngine
from ragline.types import Document
from tests.engines import sync_engine

IDS = st.sampled_from([f"d{number}" for number in range(6)])
WORDS = st.lists(st.sampled_from(["walrus", "gannet", "ferry", "harbour", "ledger", "lantern"]), min_size=1, max_size=60)
METADATA = st.fixed_dictionaries({"n": st.integers(0, 3)}, optional={"tag": st.sampled_from(["x", "y"])})


class EngineAgainstDict(RuleBasedStateMachine):
    """`self.model` is what the store must hold: text and metadata by id."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ragline-model-"))
        self.model: dict[str, tuple[str, dict[str, Any]]] = {}
        self.versions: dict[str, int] = {}
        self.engine: SyncEngine = self.open()

    def open(self) -> SyncEngine:
        return sync_engine(self.folder, chunking={"max_tokens": 20})

    def teardown(self) -> None:
        self.engine.close()
        shutil.rmtree(self.folder)

    @rule(id=IDS, words=WORDS, metadata=METADATA)
    def ingest(self, id: str, words: list[str], metadata: dict[str, Any]) -> None:
        text = "common " + " ".join(words)
        report = self.engine.ingest(Document(text=text, id=id, metadata=metadata))
        same = self.model.get(id) == (text, metadata)
        assert (report.added, report.replaced, report.unchanged) == (
            int(id not in self.model),
            int(id in self.model and not same),
            int(same),
        )
        assert report.lag == 0
        self.model[id] = (text, metadata)

    @rule(ids=st.lists(IDS, max_size=3, unique=True))
    def delete(self, ids: list[str]) -> None:
        assert sorted(self.engine.delete(ids)) == sorted(id for id in ids if id in self.model)
        for id in ids:
            self.model.pop(id, None)

    @rule()
    def open_again(self) -> None:
        self.engine.close()
        self.engine = self.open()

    @precondition(lambda self: self.model)
    @rule()
    def reindex(self) -> None:
        assert self.engine.reindex().documents == len(self.model)

    @rule(n=st.integers(0, 3), tag=st.sampled_from(["x", "y"]))
    def search_with_a_filter(self, n: int, tag: str) -> None:
        filters: list[tuple[dict[str, Any], Any]] = [
            ({"n": n}, lambda metadata: metadata["n"] == n),
            ({"n": {"gte": n}}, lambda metadata: metadata["n"] >= n),
            ({"tag": tag}, lambda metadata: metadata.get("tag") == tag),
            ({"tag": {"exists": True}}, lambda metadata: "tag" in metadata),
            ({"or": [{"n": n}, {"tag": tag}]}, lambda metadata: metadata["n"] == n or metadata.get("tag") == tag),
        ]
        for filter, matches in filters:
            found = {hit.document_id for hit in self.engine.search("common", top_k=1000, filter=filter, mode="dense")}
            assert found == {id for id, (_, metadata) in self.model.items() if matches(metadata)}

    @invariant()
    def documents_are_those_of_the_model(self) -> None:
        assert [document.id for document in self.engine.documents()] == sorted(self.model)

    @invariant()
    def both_legs_find_exactly_the_current_texts(self) -> None:
        first = {id: text.split()[1] for id, (text, _) in self.model.items()}
        for mode in ("dense", "lexical"):
            found: dict[str, list[Any]] = {}
            for hit in self.engine.search("common " + " ".join(sorted(set(first.values()))), top_k=1000, mode=mode):
                found.setdefault(hit.document_id, []).append(hit)
            assert set(found) == set(self.model)
            for id, hits in found.items():
                text, metadata = self.model[id]
                assert all(text[hit.start : hit.end] == hit.text and dict(hit.metadata) == metadata for hit in hits)
                assert len({hit.chunk_id for hit in hits}) == len(hits)
                assert len({hit.document_version for hit in hits}) == 1
                if mode == "dense":
                    assert sum(len(hit.text.split()) for hit in hits) == len(text.split())


EngineAgainstDict.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestEngineAgainstDict = EngineAgainstDict.TestCase
