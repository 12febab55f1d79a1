"""ragline: documents go in, cited answers come out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragline.caching.cached import cached
    from ragline.caching.query_optimizer import QueryOptimizer
    from ragline.caching.registry import get_cache_manager
    from ragline.concurrency.batching import BatchProcessor
    from ragline.concurrency.pool import ConnectionPool
    from ragline.embedding.batch_embedder import BatchEmbedder
    from ragline.engine import Engine
    from ragline.errors import RaglineError
    from ragline.observe.optimization import OptimizationMetrics
    from ragline.observe.performance import PerformanceMonitor, get_performance_tracker, profile_function, track_performance
    from ragline.settings import Settings, load_settings
    from ragline.sync import SyncEngine, open
    from ragline.types import Answer, Citation, Document, Effort, IngestReport, Scope, ScoredChunk, SearchResult, StreamEvent, Turn, Upload

__version__ = "0.1.0"

# Names are imported when first used: `import ragline` takes milliseconds, not the time of numpy and FAISS.
_HOMES = {
    "Answer": "ragline.types",
    "BatchEmbedder": "ragline.embedding.batch_embedder",
    "BatchProcessor": "ragline.concurrency.batching",
    "Citation": "ragline.types",
    "ConnectionPool": "ragline.concurrency.pool",
    "Document": "ragline.types",
    "Effort": "ragline.types",
    "Engine": "ragline.engine",
    "IngestReport": "ragline.types",
    "OptimizationMetrics": "ragline.observe.optimization",
    "PerformanceMonitor": "ragline.observe.performance",
    "QueryOptimizer": "ragline.caching.query_optimizer",
    "RaglineError": "ragline.errors",
    "Scope": "ragline.types",
    "ScoredChunk": "ragline.types",
    "SearchResult": "ragline.types",
    "Settings": "ragline.settings",
    "StreamEvent": "ragline.types",
    "SyncEngine": "ragline.sync",
    "Turn": "ragline.types",
    "Upload": "ragline.types",
    "cached": "ragline.caching.cached",
    "get_cache_manager": "ragline.caching.registry",
    "get_performance_tracker": "ragline.observe.performance",
    "load_settings": "ragline.settings",
    "open": "ragline.sync",
    "profile_function": "ragline.observe.performance",
    "track_performance": "ragline.observe.performance",
}

__all__ = [
    "Answer",
    "BatchEmbedder",
    "BatchProcessor",
    "Citation",
    "ConnectionPool",
    "Document",
    "Effort",
    "Engine",
    "IngestReport",
    "OptimizationMetrics",
    "PerformanceMonitor",
    "QueryOptimizer",
    "RaglineError",
    "Scope",
    "ScoredChunk",
    "SearchResult",
    "Settings",
    "StreamEvent",
    "SyncEngine",
    "Turn",
    "Upload",
    "cached",
    "get_cache_manager",
    "get_performance_tracker",
    "load_settings",
    "open",
    "profile_function",
    "track_performance",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'ragline' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
