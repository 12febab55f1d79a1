"""A web site made of a table: what tests of the web reader fetch."""

from __future__ import annotations

from collections.abc import Mapping

from tests.imitation.http import Reply, Request

HTML = "text/html; charset=utf-8"


def page(words: str, *links: str, head: str = "") -> Reply:
    """An HTML page of one paragraph, and links."""
    anchors = "".join(f'<p><a href="{link}">more of it</a></p>' for link in links)
    return Reply(f"<html><head>{head}</head><body><main><p>{words}</p>{anchors}</main></body></html>".encode(), 200, {"content-type": HTML})


def moved(to: str, status: int = 302) -> Reply:
    return Reply(b"", status, {"location": to})


class Site:
    """Answers from a table of paths, which a test may change; all else is 404.

    Attributes:
        validators: Extra headers by path (`etag`, `last-modified`); a request that has them already gets 304.
    """

    def __init__(self, pages: Mapping[str, Reply]) -> None:
        self.pages = dict(pages)
        self.validators: dict[str, dict[str, str]] = {}

    async def __call__(self, request: Request) -> Reply:
        reply = self.pages.get(request.path)
        if reply is None:
            return Reply(b"nothing here", 404, {"content-type": "text/plain"})
        known = self.validators.get(request.path, {})
        asked = {"etag": request.headers.get("if-none-match"), "last-modified": request.headers.get("if-modified-since")}
        if any(asked[name] == value for name, value in known.items()):
            return Reply(b"", 304, known)
        return Reply(reply.body, reply.status, {**reply.headers, **known})
