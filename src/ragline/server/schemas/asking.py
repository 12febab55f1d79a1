"""Searches and questions, and what comes back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ragline.server.schemas.errors import ErrorBody

_FILTER = {"lang": "en", "year": {"gte": 2020}}


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, BeforeValidator(_whole)]
"""JSON has one kind of number: 5.0 is 5."""


class RequestBody(BaseModel):
    """A JSON body; unknown names are refused, for they are mistakes."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SearchRequest(RequestBody):
    """What to look for, and where."""

    query: str = Field(min_length=1, description="In words.", examples=["How do I rotate keys?"])
    top_k: Annotated[WholeNumber, Field(ge=1, le=1000)] | None = Field(
        None, description="How many hits; unset takes retrieval.top_k, for answers retrieval.evidence."
    )
    collections: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(
        None, min_length=1, max_length=100, description="Which collections; unset takes the default one."
    )
    filter: dict[str, Any] | None = Field(None, description="Conditions on metadata.", examples=[_FILTER])

    model_config = ConfigDict(json_schema_extra={"examples": [{"query": "How do I rotate keys?", "top_k": 5}]})


class TurnShape(RequestBody):
    """Something said earlier; `system` is what the application wishes an answer to be like."""

    role: Literal["user", "assistant", "system"]
    text: str


class QueryRequest(SearchRequest):
    """A question, what was said before it, and how its answer is to come."""

    history: list[TurnShape] = Field(
        default_factory=list,
        max_length=2048,
        description="Oldest first. A question that goes on with it is searched with what it refers to.",
        examples=[[{"role": "user", "text": "How often do keys rotate?"}, {"role": "assistant", "text": "Every ninety days."}]],
    )
    stream: bool = Field(False, description="Whether the answer comes as server-sent events: hits, token, citation, answer, error.")


class BatchRequest(RequestBody):
    """Several questions at once."""

    queries: list[SearchRequest] = Field(min_length=1, description="Each as for a single question. `server.max_batch_queries` is the most.")


class Hit(BaseModel):
    """A chunk, its scores and where it stands."""

    chunk_id: int
    document_id: str
    score: float = Field(description="Higher is better; it compares within one result only.")
    dense_score: float | None = Field(description="By meaning: the cosine.")
    lexical_score: float | None = Field(description="By words: BM25.")
    text: str
    source: str | None
    metadata: dict[str, Any]
    document_version: int
    collection: str
    heading: str
    page: int | None
    start: int
    end: int


class SearchReply(BaseModel):
    """The hits, the best first."""

    hits: list[Hit]
    lsn: int | dict[str, int] = Field(description="The position of the log that they are of; by collection where several were searched.")
    lag: int = Field(description="How many positions behind the newest; 0 is none.")
    degraded: list[str] = Field(description="What was left out, and why; empty where nothing was.")
    timings: dict[str, float] = Field(description="Milliseconds of each stage, and `total_ms`.")


class CitationShape(BaseModel):
    """A quotation and where it stands: `document_text[start:end] == quote` in that version of the document."""

    chunk_id: int
    document_id: str
    document_version: int
    start: int
    end: int
    quote: str
    source: str | None
    heading: str
    page: int | None


class AnswerReply(SearchReply):
    """An answer with its evidence; `[1]` in it is the first of the citations."""

    answer: str
    citations: list[CitationShape]
    found: bool = Field(description="False where the documents do not say.")
    cache: Literal["hit", "revalidated", "semantic", "miss", "off"]
    dropped_citations: int = Field(description="Markers that a language model made up; they are not in the answer.")


class BatchReply(BaseModel):
    """The answers, in the order of the questions."""

    results: list[AnswerReply | ErrorBody]
