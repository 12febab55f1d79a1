"""What an embedding server answers: vectors, checked to the last number, or an error put into our words."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ragline.concurrency.retries import retry_after_s
from ragline.errors import BackendError, DeadlineError, InputError, RaglineError, SettingsError
from ragline.types import Float32

if TYPE_CHECKING:
    import openai

_PASSING = frozenset({408, 409, 424, 425, 429})
"""Statuses below 500 after which the same request may succeed (424: text-embeddings-inference, where its model failed)."""

_LASTING = frozenset({501, 505})

_TEXTS_REFUSED = frozenset({400, 413, 422})

_TOO_LARGE = re.compile(r"too (large|long)|physical batch", re.IGNORECASE)

_SAID_CHARS = 300


class ReplyError(Exception):
    """A reply of status 200 that is none; the message says what it is instead."""


class RefusedError(InputError):
    """The server refuses these texts: too many at once, or one that is too long."""


def read_vectors(content: bytes, count: int) -> Float32:
    """The vectors of a reply in the order of its texts, `(count, width)`, as they came. Takes time: not for the event loop.

    Raises:
        ReplyError: It is not JSON, or not vectors, or not one finite vector for each text, all of one length.
    """
    try:
        rows = json.loads(content)["data"]
        vectors = [_vector(row["embedding"]) for row in rows]
        places = [row.get("index") for row in rows]
        order = range(count) if places == [None] * count else sorted(range(len(places)), key=places.__getitem__)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReplyError(f"something that is not vectors: {_shortened(content[:200].decode('utf-8', 'replace'))!r}") from error
    if len(vectors) != count:
        raise ReplyError(f"{len(vectors)} vectors for {count} texts")
    if places != [None] * count and [places[row] for row in order] != list(range(count)):
        raise ReplyError("vectors that do not say which text is whose")
    if len({vector.shape for vector in vectors}) > 1 or vectors[0].ndim != 1 or not vectors[0].size:
        raise ReplyError("vectors of different lengths, or several for one text")
    matrix = np.stack([vectors[row] for row in order])
    if not np.isfinite(matrix).all():
        raise ReplyError("vectors with numbers that are none (NaN or infinite)")
    return matrix


def _vector(embedding: Any) -> Float32:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float32, copy=False)
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
        return np.array(embedding, np.float32)


def unit_length(vectors: Float32, dimension: int) -> Float32:
    """The first `dimension` numbers of each row (0: all), of unit length.

    Raises:
        ReplyError: There are fewer, or a row is nothing but zeros.
    """
    if vectors.shape[1] < dimension:
        raise ReplyError(f"vectors of {vectors.shape[1]} numbers, and embedding.dimension is {dimension}")
    kept = vectors[:, : dimension or None]
    lengths = np.linalg.norm(kept.astype(np.float64), axis=1, keepdims=True)
    if not lengths.all():
        raise ReplyError("a vector of nothing but zeros")
    vectors = (kept / lengths).astype(np.float32)
    return vectors


def wait_after(error: BaseException) -> float | None:
    """How long to wait before a request that failed so is tried again; None where that cannot help. See `retried`."""
    import openai

    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        if _is_lasting(error) or not (status in _PASSING or (status >= 500 and status not in _LASTING)):
            return None
        return retry_after_s(error.response.headers) or 0.0
    return 0.0 if isinstance(error, openai.APIConnectionError | DeadlineError) else None


def _is_lasting(error: openai.APIStatusError) -> bool:
    """Whether an error of a passing status says itself that it will not pass."""
    # OpenAI's 429 for an account without money; llama.cpp's 500 for a text beyond its batch.
    too_large = error.status_code >= 500 and _TOO_LARGE.search(said(error)) is not None
    return too_large or "insufficient_quota" in (error.code, error.type) or error.response.headers.get("x-should-retry") == "false"


def complains_of(error: openai.APIError, parameter: str) -> bool:
    """Whether the server refuses a parameter of the request by its name."""
    import openai

    return (
        isinstance(error, openai.APIStatusError) and error.status_code in (*_TEXTS_REFUSED, 404, 500) and parameter in said(error).lower()
    )


def translated(error: openai.APIError, url: str, model: str, key: str) -> RaglineError:
    """The error in our words, with its cure; the key never stands in it."""
    import openai

    if not isinstance(error, openai.APIStatusError):
        reason = _shortened(str(error.__cause__ or error)) or type(error.__cause__).__name__
        return BackendError(
            f"the embedding server at {url} cannot be reached: {without(key, reason)}", hint="start it, or correct embedding.base_url"
        )
    status, words = error.status_code, without(key, said(error))
    where = f"the embedding server at {url}"
    if status in (401, 403):
        what = "refuses embedding.api_key" if key else "wants a key, and embedding.api_key is not set"
        return SettingsError(f"{where} {what} ({status}: {words})", hint="set RAGLINE_EMBEDDING__API_KEY to a key that it takes")
    if status in (404, 405):
        return SettingsError(
            f"{where} has no model {model!r}, or embeds under another address ({status}: {words})",
            hint="set embedding.model to a name that it knows; embedding.base_url mostly ends in /v1",
        )
    if 300 <= status < 400:
        target = without(key, _shortened(error.response.headers.get("location", ""))) or "another address"
        return SettingsError(f"{where} sends on to {target}", hint="set embedding.base_url to where it really is")
    if status in _TEXTS_REFUSED or (status >= 500 and _TOO_LARGE.search(words)):
        return RefusedError(
            f"{where} refuses a text or a setting ({status}: {words})",
            hint="if it is too long, set embedding.max_tokens to what the model takes, and chunking.max_tokens to no more; "
            "else correct embedding.model or embedding.dimension",
        )
    if status == 429:
        if _is_lasting(error):
            return BackendError(f"{where} takes no more from this account ({words})", hint="see to its billing, or use another server")
        return BackendError(f"{where} is busy, or its rate limit is used up ({words})", hint="try again later, or raise embedding.retry_s")
    return BackendError(f"{where} failed ({status}: {words})", hint="see its log; `ragline doctor` asks it again")


def said(error: openai.APIStatusError) -> str:
    """What the server says went wrong, in one line of bounded length."""
    body: Any = error.body
    for _ in range(3):  # {"error": {"message": ...}}, {"error": "..."}, {"detail": ...}, {"message": ...}
        if isinstance(body, Mapping):
            body = next((body[key] for key in ("error", "message", "detail", "error_type") if body.get(key)), "")
    return _shortened(body if isinstance(body, str) else json.dumps(body)) or "it says nothing more"


def _shortened(text: str) -> str:
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _SAID_CHARS else line[: _SAID_CHARS - 3] + "..."


def without(key: str, text: str) -> str:
    """The text with the key, if there is one, blotted out."""
    return text.replace(key, "***") if key else text
