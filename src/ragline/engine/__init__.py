"""Ingest, search, ask: the parts put together."""

from ragline.engine.engine import Engine

__all__ = ["Engine"]
