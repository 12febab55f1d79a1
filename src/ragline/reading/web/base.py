"""What is behind a URL? Values that fetching hands on."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ragline.errors import ReadError

MAX_STORED_LINKS_CHARS = 32_768
"""A page whose links are longer together is not asked conditionally while its links are followed."""

_MAX_VALIDATOR_CHARS = 1024

KnownPages: TypeAlias = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]
"""The signatures of those pages, by URL, that need not be read again if the server says that they have not changed."""


class PageError(ReadError):
    """A page that cannot be had.

    Attributes:
        status: The server's answer; 0 where there was none.
        retry_s: How long the server asked to wait before another try, 0 where it did not say; None where that cannot help.
        absent: It is not there, not for us, or of a type that is not read: what a site's dead links are like.
    """

    def __init__(self, message: str, *, hint: str = "", status: int = 0, retry_s: float | None = None, absent: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.retry_s = retry_s
        self.absent = absent


@dataclass(frozen=True, slots=True)
class FoundPage:
    """A page to fetch: its normalised URL, which is its document's identity and what people are shown."""

    uri: str

    @property
    def source(self) -> str:
        """The URL."""
        return self.uri


@dataclass(frozen=True, slots=True)
class PageState:
    """What is kept of a page to learn next time, cheaply, whether it has changed: a file's signature.

    Attributes:
        url: Where it was in the end, redirects followed.
        digest: Hash of its bytes.
        etag, modified: The server's validators, as it sent them; "" for none.
        links: The pages of its site that it links to; None where nobody looked.
    """

    url: str
    digest: str
    etag: str = ""
    modified: str = ""
    links: tuple[str, ...] | None = None

    def to_text(self) -> str:
        """The signature to store."""
        fields: dict[str, Any] = {"url": self.url, "digest": self.digest}
        fields |= {name: value for name, value in (("etag", self.etag), ("modified", self.modified)) if value}
        if self.links is not None and sum(map(len, self.links)) <= MAX_STORED_LINKS_CHARS:
            fields["links"] = self.links
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> PageState | None:
        """What `to_text` wrote; None for anything else."""
        try:
            fields = json.loads(text)
            links = fields.pop("links", None)
            state = cls(**fields, links=None if links is None else tuple(links))
        except (ValueError, TypeError, AttributeError):
            return None
        return state if all(isinstance(part, str) for part in (state.url, state.digest, state.etag, state.modified)) else None


@dataclass(frozen=True, slots=True)
class Page:
    """A page that was fetched.

    Attributes:
        path: The file that holds its content until `Visit.release`; None where the server says that it has not changed.
        size: Of that file, in bytes.
        state: What to keep of it.
    """

    uri: str
    path: str | None
    size: int
    state: PageState

    @property
    def source(self) -> str:
        """The URL."""
        return self.uri

    @property
    def signature(self) -> str:
        """What to keep of it, as a file's signature."""
        return self.state.to_text()


def usable_validator(value: str) -> str:
    """A validator that may be stored and sent back; "" for one that is odd or endless."""
    return value if len(value) <= _MAX_VALIDATOR_CHARS and value.isascii() and value.isprintable() else ""
