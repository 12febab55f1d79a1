"""Settings of the HTTP server."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ragline.settings.kinds import Number, Positive, Seconds, Whole
from ragline.settings.section import Section


def _origins(value: str) -> str:
    for each in split(value):
        scheme, separator, rest = each.partition("://")
        if scheme not in ("http", "https") or not separator or not _is_plain(rest.removeprefix("[").replace("]", "")):
            raise ValueError("each must be an origin such as https://app.example.com, without a path")
    return ", ".join(split(value)).lower()


def _hosts(value: str) -> str:
    for each in split(value):
        if not _is_plain(each) or ":" in each:
            raise ValueError("each must be a name or an IPv4 address such as rag.example.com, without a port")
    return ", ".join(split(value)).lower()


def _is_plain(name: str) -> bool:
    return bool(name) and all(sign.isascii() and (sign.isalnum() or sign in ".-_:") for sign in name)


def split(value: str | None) -> tuple[str, ...]:
    """The parts of a list that is written with commas."""
    return tuple(part for each in (value or "").split(",") if (part := each.strip()))


Origins = Annotated[str, AfterValidator(_origins), "origins with commas between"]
HostNames = Annotated[str, AfterValidator(_hosts), "names with commas between"]


class ServerSettings(Section):
    """The HTTP server: `ragline serve`."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="The address to listen on. Other than this machine's own, it needs keys: `ragline keys create`.",
    )
    port: Whole = Field(8000, ge=0, le=65_535, description="The port to listen on; 0 takes a free one and says which.")
    workers: Whole = Field(1, ge=1, le=256, description="Processes that answer. Each holds the models and indexes in its own memory.")
    cors_origins: Origins | None = Field(
        None, description="Web pages that may call the API from a browser, such as https://app.example.com; none unless named."
    )
    allowed_hosts: HostNames | None = Field(
        None,
        description=(
            "Names that the server is called by. Without keys others than localhost are refused unless they stand here; with keys, "
            "all are taken where this is unset."
        ),
    )
    max_body_bytes: Positive = Field(1024**2, description="The largest JSON body.")
    max_upload_bytes: Positive = Field(256 * 1024**2, description="The largest upload, all its files together.")
    max_upload_files: Whole = Field(100, ge=1, le=10_000, description="The most files in one upload.")
    max_receiving: Whole = Field(
        256,
        ge=1,
        le=100_000,
        description=(
            "The most uploads that the server receives at once, each of its processes its share, one at least; further ones are refused "
            "until some are there."
        ),
    )
    max_receiving_bytes: Positive = Field(
        4 * 1024**3,
        description=(
            "How many bytes the uploads that the server receives may have together, announced or come; they lie on the disk before "
            "jobs.max_queued_bytes counts them. Each of its processes has its share; less than max_upload_bytes counts as that."
        ),
    )
    upload_timeout_s: Seconds = Field(600.0, description="How long an upload may take to arrive.")
    max_json_depth: Whole = Field(32, ge=4, le=100, description="How deep lists and objects of a JSON body may stand in each other.")
    body_timeout_s: Seconds = Field(30.0, description="How long a JSON body may take to arrive.")
    max_batch_queries: Whole = Field(64, ge=1, le=10_000, description="The most questions in one batch.")
    sources_in_text: bool = Field(
        False,
        description=(
            "Whether the text of a chat completion under /v1 ends with a list of its sources: for user interfaces that show text alone."
        ),
    )
    heartbeat_s: Seconds = Field(10.0, description="How often a stream that has nothing to say shows that it is alive.")
    drain_s: Number = Field(
        1.0, ge=0, le=3600, description="How long the server, told to stop, still takes requests while /readyz says that it is not ready."
    )
    shutdown_s: Seconds = Field(30.0, description="How long accepted work may go on after the server was told to stop.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that `ragline serve` logs.")
    log_format: Literal["text", "json"] = Field("text", description="Lines for people, or one JSON object a line.")
