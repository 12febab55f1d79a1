"""What does a page link to, and may it be indexed? For following a site; the text is `markup`'s business."""

from __future__ import annotations

from typing import Any

from .tags import TagStream

LINKS = "application/x-ragline-links"
"""In the place of a media type: the links of an HTML page are wanted, not its text."""

_MAX_LINKS = 10_000
_MAX_LINK_CHARS = 8192
_ROBOT_NAMES = frozenset({"robots", "ragline"})


class _Links(TagStream):
    def __init__(self) -> None:
        self.base = ""
        self.found: dict[str, None] = {}  # in the order of the page, each once
        self.robots: list[str] = []

    def handle_starttag(self, tag: str, attributes: dict[str, str]) -> None:
        if tag in ("a", "area"):
            link = attributes.get("href", "")
            follows = "nofollow" not in attributes.get("rel", "").lower().split()
            if link and follows and len(link) <= _MAX_LINK_CHARS and len(self.found) < _MAX_LINKS:
                self.found[link] = None
        elif tag == "base":
            self.base = self.base or attributes.get("href", "")[:_MAX_LINK_CHARS]
        elif tag == "meta" and attributes.get("name", "").strip().lower() in _ROBOT_NAMES and len(self.robots) < 10:
            self.robots.append(attributes.get("content", "")[:1000])


def read_links(markup: str) -> dict[str, Any]:
    """The `links` of an HTML page as it has them, its `base` (one at most) and what its `robots` tags say."""
    page = _Links()
    page.feed(markup)
    return {"links": list(page.found), "base": [page.base] if page.base else [], "robots": page.robots}
