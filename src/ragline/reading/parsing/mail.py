"""An e-mail message becomes text: who wrote what to whom and when, and what was attached."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage, Message
from typing import Any

from .blocks import Blocks, clean
from .markup import MarkupText

_SHOWN = ("Subject", "From", "To", "Cc", "Date")


def read_mail(data: bytes) -> dict[str, Any]:
    """The text of a message (RFC 5322): its main headers, its body, the names of its attachments.

    Of a body given twice, as plain text and as HTML, the plain one is read. Attachments are named, not read.
    """
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    blocks = Blocks()
    metadata: dict[str, Any] = {}
    for name in _SHOWN:
        value = _header(message, name)
        if value:
            blocks.add(f"{name}: {value}", tight=True)
            metadata[name.lower()] = value
    if "subject" in metadata:
        metadata["title"] = metadata["subject"]
    _add_body(blocks, message)
    attachments = _attachments(message)
    if attachments:
        blocks.add("Attachments: " + ", ".join(attachments))
        metadata["attachments"] = attachments
    return {**blocks.result(), "metadata": metadata}


def _header(message: EmailMessage, name: str) -> str:
    try:
        value = message[name]
    except Exception:
        # The standard library's header parser raises many kinds of errors on headers that break the rules.
        value = next((raw for key, raw in message.raw_items() if key.lower() == name.lower()), "")
    return " ".join(clean(str(value or "")).split())


def _add_body(blocks: Blocks, message: EmailMessage) -> None:
    try:
        body: Message | None = message.get_body(("plain", "html"))
    except Exception:
        # As above: a message whose structure breaks the rules is read part by part.
        body = next((part for part in message.walk() if part.get_content_maintype() == "text"), None)
    if body is None:
        return
    payload = body.get_payload(decode=True)
    text = _decode(payload, body.get_content_charset()) if isinstance(payload, bytes) else str(payload or "")
    if body.get_content_type() == "text/html":
        page = MarkupText(blocks)
        page.feed(text)
        page.finish()
        return
    for paragraph in clean(text).split("\n\n"):
        blocks.add(paragraph)


def _decode(payload: bytes, charset: str | None) -> str:
    try:
        return payload.decode(charset or "utf-8")
    except (LookupError, UnicodeDecodeError):
        pass
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError:
        return payload.decode("windows-1252", "replace")


def _attachments(message: EmailMessage) -> list[str]:
    names = []
    for part in message.walk():
        try:
            name = part.get_filename()
        except Exception:
            name = None
        if name:
            names.append(" ".join(clean(name).split()))
    return names
