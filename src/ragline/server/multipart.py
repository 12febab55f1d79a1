"""Form bodies, part by part, as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ragline.server.errors import HttpError


@dataclass(frozen=True, slots=True)
class PartStart:
    """A part begins.

    Attributes:
        filename: What the client calls the file; None for a plain field.
        content_type: What it says is in it; "" where it does not say.
    """

    name: str
    filename: str | None
    content_type: str


Piece = PartStart | bytes
"""The beginning of a part, or the next bytes of the part that has begun."""


class _Collector:
    """What the parser has found since it was last asked. The parser calls its methods."""

    def __init__(self) -> None:
        self.found: list[Piece] = []
        self.ended = False
        self._field = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}

    def on_part_begin(self) -> None:
        self._headers = {}

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def on_headers_finished(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition"))
        if disposition != b"form-data" or b"name" not in options:
            raise _bad("a part has no name")
        filename = options.get(b"filename")
        content_type, _ = parse_options_header(self._headers.get(b"content-type"))
        self.found.append(
            PartStart(_text(options[b"name"]), None if filename is None else _text(filename), content_type.decode("latin-1").lower())
        )

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.found.append(data[start:end])

    def on_end(self) -> None:
        self.ended = True


async def form_pieces(content_type: str, body: AsyncIterator[bytes]) -> AsyncGenerator[Piece, None]:
    """The parts of a multipart/form-data body, in pieces no larger than those in which it came.

    Raises:
        HttpError: 400 where it is none, or ends before its end.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 200:
        raise _bad("its Content-Type names no boundary")
    collector = _Collector()
    callbacks = {name: getattr(collector, name) for name in dir(collector) if name.startswith("on_")}
    parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
    try:
        async for piece in body:
            parser.write(piece)
            for found in collector.found:
                yield found
            collector.found.clear()
        parser.finalize()
    except FormParserError as fault:
        raise _bad(str(fault)[:200]) from fault
    if not collector.ended:
        raise _bad("it ends before its last boundary")


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _bad(reason: str) -> HttpError:
    return HttpError(
        400, "invalid_form", f"the body is not multipart/form-data: {reason}", hint="let the HTTP client make it: curl -F file=@a.pdf"
    )
