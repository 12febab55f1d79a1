"""Embeddings: texts in, vectors out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, WithJsonSchema, field_validator

from ragline.server.schemas.asking import WholeNumber
from ragline.server.schemas.openai.base import OpenAIBody, unsupported

MAX_TEXTS = 2048
"""As OpenAI's own API."""

Text = Annotated[str, Field(min_length=1)]


class EmbeddingsRequest(OpenAIBody):
    """Texts to embed. Names that are not listed here are let pass and mean nothing."""

    model: str = Field(min_length=1, description="The name of an embedding model that /v1/models lists.")
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_TEXTS)]
    )
    encoding_format: Literal["float", "base64"] | None = Field(None, description="Lists of numbers, or float32 in base64.")
    dimensions: Annotated[WholeNumber, Field(ge=1)] | None = Field(None, description="Only the length that the model has here.")
    user: Annotated[Any, WithJsonSchema({"type": ["string", "null"]})] = None

    @field_validator("input", mode="before")
    @classmethod
    def _is_no_tokens(cls, given: Any) -> Any:
        first = given[0] if isinstance(given, list) and given else None
        if isinstance(first, int | list):
            raise unsupported(
                "tokens as input are", "they are of another model's tokenizer; send texts (LangChain: check_embedding_ctx_length=False)"
            )
        return given

    @property
    def texts(self) -> list[str]:
        """All of them."""
        return [self.input] if isinstance(self.input, str) else self.input


class Embedding(BaseModel):
    """A vector of unit length."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(BaseModel):
    """Tokens of all texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(BaseModel):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage
