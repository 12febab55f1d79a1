"""What all of OpenAI's requests and errors have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from ragline.server.guarding import operation
from ragline.server.schemas.errors import problems
from ragline.storage.keys import KeyScope


class OpenAIBody(BaseModel):
    """A request as OpenAI's clients send it: they send much that means nothing here, and that is let pass."""

    model_config = ConfigDict(extra="ignore", strict=True)


class OpenAIProblem(BaseModel):
    """What went wrong, in OpenAI's words."""

    message: str
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(description="Which part of the request it is about.")
    code: str | None


class OpenAIErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: OpenAIProblem


def unsupported(what: str, instead: str) -> PydanticCustomError:
    """The refusal of something that OpenAI's API has and this server has not."""
    return PydanticCustomError("unsupported", "{what} not supported: {instead}", {"what": what, "instead": instead})


def openai_operation(needs: KeyScope, *statuses: int) -> dict[str, Any]:
    """As `operation`, with OpenAI's errors; what others answer with 422 is 400 there."""
    extra = operation(needs)
    told = problems(*statuses, *((400,) if 422 in statuses else ()))
    extra["responses"] = {status: {**described, "model": OpenAIErrorBody} for status, described in told.items() if status != 422}
    return extra
