"""The ids of documents, as callers give them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ragline.errors import InputError


def id_list(ids: Any) -> list[str]:
    """One id, or any number of them, as a list.

    Raises:
        InputError: One is no string.
    """
    found = list(ids) if isinstance(ids, Iterable) and not isinstance(ids, str) else [ids]
    for id in found:
        if not isinstance(id, str):
            raise InputError(
                f"the id of a document is a string, not {type(id).__name__}", hint="`ragline documents list` shows those there are"
            )
    return found
