"""Chat completions: messages in, an answer with citations out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, WithJsonSchema, field_validator

from ragline.server.schemas.asking import CitationShape, RequestBody, WholeNumber
from ragline.server.schemas.openai.base import OpenAIBody, unsupported

Nothing = Annotated[Any, WithJsonSchema({"type": "null"})]


class Part(OpenAIBody):
    """A part of a message: text."""

    type: Literal["text", "refusal"]
    text: str | None = None
    refusal: str | None = None

    @field_validator("type", mode="before")
    @classmethod
    def _is_text(cls, given: Any) -> Any:
        if isinstance(given, str) and given not in ("text", "refusal"):
            raise unsupported(f"a message part of type {given[:40]!r} is", "send text")
        return given


class Message(OpenAIBody):
    """Something said: by the application (system, developer), the user, or earlier by the assistant."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = Field(None, description="A text, or parts that are texts.")

    @field_validator("role", mode="before")
    @classmethod
    def _is_no_tool(cls, given: Any) -> Any:
        if given in ("tool", "function"):
            raise unsupported("tools are", "ragline answers from documents alone")
        return given

    @property
    def text(self) -> str:
        """All of it as one text."""
        if isinstance(self.content, list):
            return "\n".join(part.text or "" for part in self.content)
        return self.content or ""


class StreamOptions(OpenAIBody):
    """What a stream says beside the answer."""

    include_usage: bool | None = Field(None, description="Whether one more chunk, the last, holds `usage` and no choices.")


class ResponseFormat(OpenAIBody):
    """The form of the answer: text."""

    type: Literal["text"]

    @field_validator("type", mode="before")
    @classmethod
    def _is_text(cls, given: Any) -> Any:
        if isinstance(given, str) and given != "text":
            raise unsupported(f"the response format {given[:40]!r} is", "an answer is text with citations")
        return given


class Where(RequestBody):
    """An extension, of which unknown names are refused: where to look for evidence, and whether the text tells where it was found."""

    filter: dict[str, Any] | None = Field(None, description="Conditions on metadata.", examples=[{"lang": "en"}])
    top_k: Annotated[WholeNumber, Field(ge=1, le=1000)] | None = Field(None, description="How many passages the answer is made from.")
    sources: bool | None = Field(None, description="Whether a list of the sources ends the text; unset takes `server.sources_in_text`.")


class ChatRequest(OpenAIBody):
    """A conversation whose last message is the question. Names that are not listed here are let pass and mean nothing."""

    model: str = Field(min_length=1, description="A collection's name; `ragline` is the default collection.", examples=["ragline"])
    messages: list[Message] = Field(
        min_length=1,
        max_length=2048,
        description="The last is the user's question, those before are the history; system messages wish how answers should be.",
        examples=[[{"role": "user", "content": "How often do keys rotate?"}]],
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[WholeNumber | None, WithJsonSchema({"enum": [1, None]})] = None
    max_tokens: Annotated[WholeNumber, Field(ge=1)] | None = Field(None, description="The answer ends after about so many tokens.")
    max_completion_tokens: Annotated[WholeNumber, Field(ge=1)] | None = Field(None, description="The same.")
    stop: str | Annotated[list[str], Field(max_length=4)] | None = Field(None, description="The answer ends before the first of these.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="Has no effect: the server's settings say.")
    top_p: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="Has no effect: the server's settings say.")
    tools: Annotated[list[Any] | None, WithJsonSchema({"type": ["array", "null"], "maxItems": 0})] = None
    functions: Annotated[list[Any] | None, WithJsonSchema({"type": ["array", "null"], "maxItems": 0})] = None
    logprobs: Annotated[bool | None, WithJsonSchema({"enum": [False, None]})] = None
    audio: Nothing = None
    response_format: ResponseFormat | None = None
    ragline: Where | None = None

    @field_validator("n")
    @classmethod
    def _is_one(cls, given: int | None) -> int | None:
        if given not in (None, 1):
            raise unsupported("n other than 1 is", "there is one answer")
        return given

    @field_validator("tools", "functions", "logprobs", "audio")
    @classmethod
    def _is_not_there(cls, given: Any, info: Any) -> Any:
        if given:
            raise unsupported(f"{info.field_name} {'is' if info.field_name == 'audio' else 'are'}", "ragline answers from documents alone")
        return given

    @property
    def longest(self) -> int | None:
        """After how many tokens the answer ends; None for no such limit."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """What the answer ends before."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in stops if stop)


class AnswerMessage(BaseModel):
    """The answer; `[1]` in `content` is the first of the citations."""

    role: Literal["assistant"]
    content: str
    refusal: None
    annotations: list[dict[str, Any]] = Field(description="OpenAI's `url_citation`, for citations of URLs.")
    citations: list[CitationShape]


class Choice(BaseModel):
    """The one answer."""

    index: int
    message: AnswerMessage
    logprobs: None
    finish_reason: Literal["stop", "length"]


class Usage(BaseModel):
    """Tokens of the request's messages and of the answer, estimated: what was sent to a language model, if to any, is not in it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Details(BaseModel):
    """An extension: what the answer rests on. In a stream it stands in the chunk that has a `finish_reason`."""

    found: bool = Field(description="False where the documents do not say.")
    cache: Literal["hit", "revalidated", "semantic", "miss", "off"] | None = Field(description="None where the answer was cut.")
    lsn: int | dict[str, int] | None
    lag: int
    degraded: list[str]


class ChatCompletion(BaseModel):
    """An answer. With `stream` it comes in chunks (`chat.completion.chunk`), and the last but one holds the citations."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    ragline: Details
