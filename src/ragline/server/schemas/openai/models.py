"""Models: one for each collection, and those that texts are embedded with."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Model(BaseModel):
    """A collection as a model that answers from it, or an embedding model."""

    id: str = Field(examples=["ragline"])
    object: Literal["model"]
    created: int = Field(description="0: it is not kept.")
    owned_by: str = Field(description="`ragline` for collections, `ragline-embedding` for embedding models.")


class ModelList(BaseModel):
    """All that there are."""

    object: Literal["list"]
    data: list[Model]
