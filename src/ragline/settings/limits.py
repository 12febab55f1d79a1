"""Settings of what the HTTP server takes on, and for how long."""

from __future__ import annotations

from pydantic import Field

from ragline.settings.kinds import Number, Seconds, Whole
from ragline.settings.section import Section


class LimitsSettings(Section):
    """How much the HTTP server takes on at once. What is too much is refused at once, and told when to come back."""

    requests_per_s: Number | None = Field(
        None,
        gt=0,
        le=1e6,
        description=(
            "How many requests a second each key may send, in the mean, to all processes of the server together; unset is no limit."
        ),
    )
    burst: Whole = Field(50, ge=1, le=1_000_000, description="How many requests a key may send at once after a rest, under requests_per_s.")
    max_searching: Whole = Field(
        256,
        ge=2,
        le=10_000,
        description=(
            "The most searches and embeddings at once in the whole server: each of server.workers processes has its share, one at least. "
            "How many it really is adapts: as many as do not slow each other."
        ),
    )
    max_asking: Whole = Field(512, ge=2, le=10_000, description="The same for questions, which may wait for a language model.")
    max_ingesting: Whole = Field(64, ge=2, le=10_000, description="The same for uploads and changes of documents.")
    degrade: bool = Field(
        True,
        description=(
            "Whether a server that is asked more than it can answer leaves out work step by step before it refuses: reranking, then depth, "
            "then the language model; comparing quotations by meaning before depth. Results name what was left out, and are not kept."
        ),
    )
    request_timeout_s: Seconds = Field(
        150.0,
        description=(
            "How long a search or a question may take, its wait included. A client may ask for less with X-Request-Timeout: SECONDS."
        ),
    )
    min_body_bytes_per_s: Whole = Field(
        1000, ge=0, le=10**9, description="A body that arrives slower than this, after its first seconds, is refused; 0 takes any."
    )
    write_timeout_s: Seconds = Field(30.0, description="A client that takes nothing of its answer for so long is cut off.")
