"""The store in one SQLite file."""

from ragline.storage.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
