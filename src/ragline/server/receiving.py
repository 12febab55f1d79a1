"""Uploads as they come over HTTP: streamed to where they wait, refused as soon as it shows that they cannot be taken."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, MutableSequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from ragline.engine import Engine
from ragline.engine.jobs import discard, new_file
from ragline.errors import InputError, OverloadedError
from ragline.jobs.uploads import Body
from ragline.reading.parsing import formats
from ragline.server.bodies import check_value, disconnected, must_not_be_packed, parse_json, read_json, too_large, too_slow
from ragline.server.errors import HttpError, refused_unread
from ragline.server.multipart import PartStart, form_pieces
from ragline.server.reception import Arrival
from ragline.server.schemas.documents import TextUpload
from ragline.server.state import ServerState
from ragline.settings import ServerSettings
from ragline.storage.jobs import Job, NewFile

_FIELDS = ("id", "source", "metadata", "collection")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(slots=True)
class _Form:
    """What was received of a form. Bodies belong to the files at the same place."""

    fields: dict[str, bytearray] = field(default_factory=dict)
    files: list[tuple[str, Body]] = field(default_factory=list)


async def accept_upload(request: Request, engine: Engine, state: ServerState, *, id: str | None = None) -> Job:
    """Receives an upload, a form or JSON, and accepts it as a job.

    Args:
        id: The document that it is for, where the address names it.

    Raises:
        HttpError: 400 for a body that cannot be understood, 408 for one too slow, 413 for one too large or of too many files, 415
            for a type that is not read, 503 where too much is being received or waits already: then the body is not read any further.
        InputError: A field that cannot be taken.
        ConflictError: The idempotency key was used for another request.
        OverloadedError: Too much is waiting already.
    """
    settings, key = state.settings.server, _idempotency_key(request)
    is_form = _media_type(request) == "multipart/form-data"
    most_bytes, setting = (settings.max_upload_bytes, "max_upload_bytes") if is_form else (settings.max_body_bytes, "max_body_bytes")
    announced = _announced_bytes(request)
    if announced is not None and announced > most_bytes:
        raise too_large(most_bytes, setting)
    if announced is None and not is_form:
        announced = most_bytes  # it is small, and kept in memory
    bodies: list[Body] = []
    with state.reception.begin(announced or 0) as arrival:  # until a job counts them, or they are gone
        try:
            await engine.jobs.must_have_room(announced or 0, idempotency_key=key)
        except OverloadedError as full:
            raise refused_unread(full) from full
        try:
            if is_form:
                files, collection = await _form_files(request, engine, settings, id, bodies, arrival)
            else:
                files, collection = await _json_file(request, engine, settings, id, bodies)
        except BaseException:
            await discard(bodies)
            raise
        return await engine.jobs.accept(files, bodies, collection=collection, idempotency_key=key)


async def _json_file(
    request: Request, engine: Engine, settings: ServerSettings, id: str | None, bodies: MutableSequence[Body]
) -> tuple[list[NewFile], str | None]:
    if _media_type(request) != "application/json":
        raise HttpError(
            415,
            "unsupported_media_type",
            "an upload is a form (multipart/form-data) or JSON",
            hint="send files with curl -F file=@a.pdf, or a text with `Content-Type: application/json`",
        )
    value = await (await read_json(request, settings)).json()
    try:
        given = TextUpload.model_validate(value)
    except ValidationError as failure:
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in failure.errors()]) from failure
    if not given.text.strip():
        raise InputError("the text is empty", hint="there is nothing to ingest")
    body = engine.jobs.receive("")
    bodies.append(body)
    await body.write(given.text.encode())
    named = _one_id(id, given.id)
    file = await new_file(body, given.source or named or "text", "text", id=named, source=given.source, metadata=given.metadata)
    return [file], given.collection


async def _form_files(
    request: Request, engine: Engine, settings: ServerSettings, id: str | None, bodies: MutableSequence[Body], arrival: Arrival
) -> tuple[list[NewFile], str | None]:
    must_not_be_packed(request)
    try:
        async with asyncio.timeout(settings.upload_timeout_s):
            form = await _receive(request, engine, settings, bodies, arrival)
    except TimeoutError:
        raise too_slow("the upload", "upload_timeout_s") from None
    except ClientDisconnect:
        raise disconnected("its upload") from None
    texts = {name: _text(name, value) for name, value in form.fields.items()}
    metadata = _metadata(texts.get("metadata"), settings)
    if not form.files:
        raise InputError("there is no file in the form", hint="send it in the field `file`: curl -F file=@a.pdf")
    named = _one_id(id, texts.get("id"))
    if named is not None and len(form.files) > 1:
        raise InputError(f"{len(form.files)} files cannot have one id", hint="send them one by one, or without an id")
    source = texts.get("source")
    files = [await new_file(body, name, "file", id=named, source=source, metadata=metadata) for name, body in form.files]
    return files, texts.get("collection")


async def _receive(request: Request, engine: Engine, settings: ServerSettings, bodies: MutableSequence[Body], arrival: Arrival) -> _Form:
    """Takes the form apart while it comes: files go to the disk, fields are kept."""
    form = _Form()
    into: Body | bytearray | None = None
    fields_bytes = 0
    pieces_in = _limited(request, settings.max_upload_bytes, arrival)
    async with aclosing(form_pieces(request.headers["content-type"], pieces_in)) as pieces:
        async for piece in pieces:
            if isinstance(piece, PartStart):
                into = _begin(piece, form, engine, settings, bodies)
            elif isinstance(into, bytearray):
                fields_bytes += len(piece)
                if fields_bytes > settings.max_body_bytes:
                    raise too_large(settings.max_body_bytes, "max_body_bytes")
                into += piece
            elif into is not None:
                await into.write(piece)
    return form


def _begin(part: PartStart, form: _Form, engine: Engine, settings: ServerSettings, bodies: MutableSequence[Body]) -> Body | bytearray:
    """Where the bytes of a part go."""
    if part.name == "file":
        if len(form.files) >= settings.max_upload_files:
            raise HttpError(
                413, "too_many_files", f"there are more than {settings.max_upload_files} files", hint="send them in several requests"
            )
        name = _file_name(part)
        body = engine.jobs.receive(name)
        bodies.append(body)
        form.files.append((name, body))
        return body
    if part.name not in _FIELDS or part.name in form.fields:
        raise InputError(
            f"the form has a field {part.name[:100]!r}" + (" twice" if part.name in _FIELDS else ", which is not known"),
            hint=f"its fields are file, {', '.join(_FIELDS)}; file may stand there several times",
        )
    return form.fields.setdefault(part.name, bytearray())


def _file_name(part: PartStart) -> str:
    """The name of a file, which tells its format: without folders, with the extension of its type where it has none that is known."""
    name = re.split(r"[/\\]", part.filename or "")[-1].strip()
    if not name:
        raise InputError("a file of the form has no name", hint="curl -F file=@a.pdf sends one")
    check_value(name, 1)
    if len(name) > 255:
        raise InputError(f"the name of a file has {len(name)} characters", hint="use at most 255")
    if formats.by_name(name) is not None:
        return name
    extension = formats.extension_of(part.content_type)
    if extension:
        return f"{name}.{extension}"
    if part.content_type.startswith("text/") or (not formats.suffix(name) and part.content_type in ("", "application/octet-stream")):
        return name  # its content tells
    raise HttpError(415, "unsupported_media_type", f"{name[:100]!r} is of a type that is not read", hint=formats.HINT)


def _announced_bytes(request: Request) -> int | None:
    announced = request.headers.get("content-length", "")
    return int(announced[:20]) if announced.isdecimal() else None


async def _limited(request: Request, max_bytes: int, arrival: Arrival) -> AsyncIterator[bytes]:
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > max_bytes:
            raise too_large(max_bytes, "max_upload_bytes")
        arrival.came(len(piece))
        if piece:
            yield piece


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise InputError("the Idempotency-Key cannot be taken", hint="use 1 to 255 ASCII characters without spaces, such as a UUID")
    return key


def _one_id(of_address: str | None, of_body: str | None) -> str | None:
    if of_address is not None and of_body not in (None, of_address):
        raise InputError("the id in the body is another than that in the address", hint="leave it out of the body")
    named = of_address if of_address is not None else of_body
    if named is not None and not named.strip():
        raise InputError("the id is empty", hint="leave it out to have one made")
    return named


def _text(name: str, value: bytearray) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise InputError(f"the field {name!r} is not UTF-8", hint="send it as UTF-8 text") from None
    check_value(text, 1)
    return text


def _metadata(text: str | None, settings: ServerSettings) -> dict[str, Any]:
    if text is None:
        return {}
    value = parse_json(text.encode(), "the field metadata")
    if not isinstance(value, dict):
        raise InputError("the metadata is not a JSON object", hint='send it as {"key": value}')
    check_value(value, settings.max_json_depth)
    return value
