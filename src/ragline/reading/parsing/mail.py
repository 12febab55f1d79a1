"""E-mail becomes text: who wrote what to whom and when, and what was attached."""

from __future__ import annotations

import codecs
import email
import email.policy
import re
from collections.abc import Iterator
from email.message import EmailMessage, Message
from functools import partial
from typing import Any

from . import formats
from .blocks import Blocks, clean, one_line
from .encodings import decoded
from .markup import MarkupText
from .nested import MAX_DEPTH, Budget, Extract, Sections
from .packages import UnreadableError
from .texts import NotTextError, decode

_SHOWN = ("Subject", "From", "To", "Cc", "Date")
# The standard library's header parser takes time in the square of a header's length.
_MAX_PARSED_HEADER = 4096
_MAX_SHOWN_HEADER = 2000
_MAX_PARTS = 1000
_MAX_NAMED = 100
_PLACEHOLDER_CHARS = 200
_TIMES_A_PLACEHOLDER = 4
_NO_BODIES = frozenset({"text/css", "text/javascript", "text/rfc822-headers"})
_UNTOLD = (None, "us-ascii")  # what programs write that know no other
_FROM_LINE = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From [^\n]*(?:\n|\Z)")
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)


def read_mail(data: bytes, budget: Budget, extract: Extract) -> dict[str, Any]:
    """The text of a message (RFC 5322): its main headers, its body, its attachments.

    Of a body given twice, as plain text and as HTML, the plain one is read, unless it says little where the other says
    much: "your program shows no HTML". Each attachment that gives text is a
    section under its file name; pictures shown inside the body are left out.

    Raises:
        LimitError: What is attached goes beyond a bound.
    """
    return _read_message(_parse(data), budget, extract)


def read_mailbox(data: bytes, budget: Budget, extract: Extract) -> dict[str, Any]:
    """The text of a mailbox (mbox, RFC 4155): each message a section under its subject, in the order they stand.

    Raises:
        UnreadableError: It is no mailbox.
        LimitError: It holds more messages than are read, or what is attached goes beyond a bound.
    """
    starts = [(match.start(), match.end()) for match in _FROM_LINE.finditer(data)]
    if not starts:
        raise UnreadableError("it is no mailbox: it does not begin with a From line")
    sections = Sections(budget, ordered=False)
    ends = [start for start, _ in starts[1:]] + [len(data)]
    for number, ((_, begin), end) in enumerate(zip(starts, ends, strict=True), 1):
        message = _parse(_QUOTED_FROM.sub(rb"\1", data[begin:end]))
        subject = _header(message, "Subject") or f"Message {number}"
        sections.add(subject, partial(_read_nested, message, budget, extract), shown=True)
    blocks = Blocks()
    if not sections.write(blocks):
        return sections.why_empty()
    return {**blocks.result(), "metadata": {"messages": len(starts), **sections.unread()}}


def _parse(data: bytes) -> EmailMessage:
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def _read_message(message: EmailMessage, budget: Budget, extract: Extract) -> dict[str, Any]:
    blocks = Blocks()
    metadata: dict[str, Any] = {}
    for name in _SHOWN:
        value = _header(message, name)
        if value:
            blocks.add(f"{name}: {value}", tight=True)
            metadata[name.lower()] = value
    if "subject" in metadata:
        metadata["title"] = metadata["subject"]
    bodies, attached = _parts(message)
    for body in bodies:
        _add_body(blocks, body)
    names = [name for name, _ in attached]
    if names:
        blocks.add("Attachments: " + ", ".join(names))
        metadata["attachments"] = names[:_MAX_NAMED]
    sections = Sections(budget, ordered=False)
    if len(budget.inside) < MAX_DEPTH:
        for name, part in attached:
            sections.add(name, partial(_read_attachment, part, budget, extract), shown=True)
    sections.write(blocks)
    return {**blocks.result(), "metadata": {**metadata, **sections.unread()}}


def _read_nested(message: EmailMessage, budget: Budget, extract: Extract, name: str) -> dict[str, Any]:
    return {"media_type": formats.MAIL, **_read_message(message, budget, extract)}


def _read_attachment(part: Message, budget: Budget, extract: Extract, name: str) -> dict[str, Any]:
    if part.get_content_type() == "message/rfc822":
        inner = part.get_payload()
        message = inner[0] if isinstance(inner, list) and inner else None
        if isinstance(message, EmailMessage):
            return _read_nested(message, budget, extract, name)
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return {"error": "it cannot be decoded"}
    budget.unpacked(len(payload))
    if not formats.may_read(name):
        return {"error": "of a type that ragline does not read", "unsupported": True}
    if charset := part.get_content_charset():
        payload = _as_utf8(payload, name, charset)
    return extract(payload, name, budget)


def _as_utf8(payload: bytes, name: str, charset: str) -> bytes:
    """An attached text in the encoding that its part declares, as UTF-8 with its mark, which readers obey; all else as it is."""
    kind = formats.by_content(payload[: formats.HEAD_BYTES], name)
    if kind is None or not (formats.is_plain(kind) or kind == formats.HTML):
        return payload
    try:
        if b"\x1b" not in payload:  # with which ISO-2022 changes its alphabet
            payload.decode("utf-8")
            return payload  # whatever is declared: Western European is, by many programs, for everything
    except UnicodeDecodeError:
        pass
    found = decoded(payload, charset)
    return payload if found is None else codecs.BOM_UTF8 + found[0].encode("utf-8", "replace")


# -- parts -------------------------------------------------------------------------------------------------------------


def _parts(message: EmailMessage) -> tuple[list[Message], list[tuple[str, Message]]]:
    """The parts that are the message's own text, and those that are attached, with their names."""
    bodies: list[Message] = []
    attached: list[tuple[str, Message]] = []
    for part, is_alternative in _leaves(message):
        kind, name = part.get_content_type(), _file_name(part)
        if kind == "message/rfc822":
            attached.append((name or _forwarded_name(part), part))
        elif name or _is_attachment(part):
            if not _is_shown_inside(part):
                attached.append((name or "unnamed", part))
        elif part.get_content_maintype() == "text" and kind not in _NO_BODIES and not is_alternative:
            bodies.append(part)
    return bodies, attached


def _leaves(message: Message) -> Iterator[tuple[Message, bool]]:
    """The parts that hold no parts (of this message), and whether another part says the same."""
    pending: list[tuple[Message, bool]] = [(message, False)]
    count = 0
    while pending:
        part, is_alternative = pending.pop()
        count += 1
        if count > _MAX_PARTS:
            raise UnreadableError(f"the message has more than {_MAX_PARTS:,} parts")
        inner = part.get_payload()
        if part.get_content_maintype() != "multipart" or not isinstance(inner, list):
            yield part, is_alternative
            continue
        chosen = _chosen(inner) if part.get_content_subtype() == "alternative" else None
        children = [child for child in reversed(inner) if isinstance(child, Message)]
        pending += [(child, is_alternative or (chosen is not None and child is not chosen)) for child in children]


def _chosen(alternatives: list[Any]) -> Any:
    """Which of several forms of one text is read: plain, unless it only says that there is another; then what holds HTML."""
    plain = (part for part in alternatives if part.get_content_type() == "text/plain" and _text(part).strip())
    markup = (part for part in alternatives if part.get_content_type() in ("text/html", "multipart/related", "multipart/mixed"))
    # Each by itself, not by truth: a part without headers is false.
    first, other = next(plain, None), next(markup, None)
    if first is None or other is None:
        return other if first is None else first
    said = len(_text(first).strip())
    is_placeholder = said < _PLACEHOLDER_CHARS and len(_shown(other)) >= _TIMES_A_PLACEHOLDER * said
    return other if is_placeholder else first


def _shown(part: Message) -> str:
    """The text of a part that is HTML, or of the first HTML inside it; "" for none."""
    for _ in range(MAX_DEPTH):
        if part.get_content_type() == "text/html":
            page = MarkupText()
            page.feed(_text(part))
            return str(page.finish()["text"])
        inner = part.get_payload()
        parts = [child for child in inner if isinstance(child, Message)] if isinstance(inner, list) else []
        found = (child for child in parts if child.get_content_type() == "text/html" or child.get_content_maintype() == "multipart")
        part = next(found, Message())
    return ""


def _is_attachment(part: Message) -> bool:
    return _first_word(part.get("Content-Disposition")) == "attachment"


def _is_shown_inside(part: Message) -> bool:
    """Whether it is a picture of the body: a logo, a smiley."""
    return part.get_content_maintype() == "image" and not _is_attachment(part)


def _first_word(header: object) -> str:
    return str(header or "").partition(";")[0].strip().lower()


def _file_name(part: Message) -> str:
    try:
        return one_line(part.get_filename() or "")
    except Exception:  # as in `_header`
        return ""


def _forwarded_name(part: Message) -> str:
    inner = part.get_payload()
    message = inner[0] if isinstance(inner, list) and inner else None
    subject = _header(message, "Subject") if isinstance(message, EmailMessage) else ""
    return subject or "attached message"


def _header(message: EmailMessage, name: str) -> str:
    raw = next((str(value) for key, value in message.raw_items() if key.lower() == name.lower()), "")
    if len(raw) > _MAX_PARSED_HEADER:
        value = one_line(raw[: 2 * _MAX_SHOWN_HEADER])
    else:
        try:
            value = one_line(str(message[name] or ""))
        except Exception:
            # The standard library's header parser raises many kinds of errors on headers that break the rules.
            value = one_line(raw)
    return value if len(value) <= _MAX_SHOWN_HEADER else value[: _MAX_SHOWN_HEADER - 3] + "..."


# -- body --------------------------------------------------------------------------------------------------------------


def _add_body(blocks: Blocks, body: Message) -> None:
    text = _text(body)
    if body.get_content_type() == "text/html":
        page = MarkupText(blocks)
        page.feed(text)
        page.finish()
        return
    for paragraph in clean(text).split("\n\n"):
        blocks.add(paragraph)


def _text(part: Message) -> str:
    """The text of a part, or its markup, decoded: as its header says, else as a page itself does, else as it looks."""
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return str(payload or "")
    charset = part.get_content_charset()
    if charset not in _UNTOLD and (found := decoded(payload, charset)) is not None:
        return found[0]
    try:
        return decode(payload, markup=part.get_content_type() == "text/html").text
    except NotTextError:
        return payload.decode("windows-1252", "replace")
