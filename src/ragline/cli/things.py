"""What the commands about things do: documents, collections, the data folder, settings."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ragline import json_shapes
from ragline.cli.options import Common, announce, nothing_ingested
from ragline.cli.screen import Screen, one_line, print_json
from ragline.errors import InputError, NotFoundError
from ragline.settings import load_flags, nearest, plain_values, setting_groups
from ragline.types import Scope

if TYPE_CHECKING:
    from ragline.engine import Engine
    from ragline.storage.base import StoredDocument
    from ragline.types import CollectionStatus

PAGE = 1000
"""Documents listed at a time, so that memory stays flat."""


async def list_documents(common: Common, limit: int | None, after: str) -> int:
    """`ragline documents list`."""
    async with common.engine() as engine:
        if common.json:
            print_json({"documents": [json_shapes.document(each) async for each in _documents(engine, limit, after)]})
            return 0
        screen = Screen()
        columns = ("id", "source", "chunks", "characters", "changed")
        page: list[tuple[object, ...]] = []
        async for each in _documents(engine, limit, after):
            page.append((each.id, each.source or "", each.chunk_count, each.characters, _when(each.updated_at)))
            if len(page) == PAGE:
                screen.table(columns, page)
                page = []
        if page:
            screen.table(columns, page)
    return 0


async def _documents(engine: Engine, limit: int | None, after: str) -> AsyncIterator[StoredDocument]:
    left = limit
    while left is None or left > 0:
        page = await engine.documents(after=after, limit=PAGE if left is None else min(PAGE, left))
        for each in page:
            yield each
        if not page:
            return
        after = page[-1].id
        left = None if left is None else left - len(page)


async def show_document(common: Common, document_id: str, with_chunks: bool) -> int:
    """`ragline documents show`."""
    async with common.engine() as engine:
        stored = await engine.document(document_id)
        text = await engine.text(document_id)
        chunks = await engine.chunks(document_id) if with_chunks else ()
    if common.json:
        shape: dict[str, Any] = {**json_shapes.document(stored), "text": text}
        if with_chunks:
            shape["chunks"] = [json_shapes.chunk(chunk) for chunk in chunks]
        print_json(shape)
        return 0
    screen = Screen()
    shown = {**json_shapes.document(stored), "metadata": json.dumps(dict(stored.metadata), ensure_ascii=False)}
    for name, value in {**shown, "updated_at": _when(stored.updated_at)}.items():
        screen.line((f"{name}: ", "bold"), one_line(str(value)))
    if not with_chunks:
        screen.line("")
        screen.text(text)
    for chunk in chunks:
        place = f"characters {chunk.start} to {chunk.end}" + (f", page {chunk.page}" if chunk.page is not None else "")
        screen.line("")
        screen.line((f"{chunk.row}. {place}{f', {chunk.heading}' if chunk.heading else ''}", "bold"))
        screen.text(chunk.text)
    return 0


async def delete_documents(common: Common, ids: list[str]) -> int:
    """`ragline documents delete`."""
    async with common.engine() as engine:
        deleted = set(await engine.delete(ids))
    missing = [each for each in dict.fromkeys(ids) if each not in deleted]
    if common.json:
        print_json({"deleted": sorted(deleted), "missing": missing})
        return 1 if missing else 0
    if deleted:
        Screen().line(f"deleted {len(deleted)} of {len(deleted) + len(missing)} documents")
    if missing:
        raise NotFoundError(
            f"there is no document {', '.join(repr(each) for each in missing)}", hint="`ragline documents list` shows the ids"
        )
    return 0


async def list_collections(common: Common) -> int:
    """`ragline collections list`."""
    async with common.engine() as engine:
        found = await engine.collections()
    if common.json:
        print_json({"collections": [json_shapes.collection(each) for each in found]})
    elif found:
        rows = [(each.name, each.documents, each.chunks, " ".join(each.embedder.values())) for each in found]
        Screen().table(("collection", "documents", "chunks", "embedded with"), rows)
    return 0


async def delete_collection(common: Common, name: str) -> int:
    """`ragline collections delete`."""
    async with common.engine() as engine:
        if not await engine.delete_collection(name):
            raise NotFoundError(f"there is no collection {name!r}", hint="`ragline collections list` shows those there are")
    if common.json:
        print_json({"deleted": [name]})
    else:
        Screen().line(f"deleted the collection {name!r}")
    return 0


async def status(common: Common) -> int:
    """`ragline status`."""
    async with common.engine() as engine:
        found = await engine.status()
    if common.json:
        print_json(json_shapes.status(found))
        return 0
    screen = Screen()
    screen.line(("data folder: ", "bold"), found.data_dir)
    screen.line(("store: ", "bold"), _size(found.store_bytes), (", index: ", "bold"), _size(found.views_bytes))
    screen.line(("index kept by: ", "bold"), found.indexer)
    rows = [
        (each.name, each.documents, each.chunks, _embedded_with(each), "current" if each.view_lsn >= each.lsn else "behind")
        for each in found.collections
    ]
    if rows:
        screen.table(("collection", "documents", "chunks", "embedded with", "index"), rows)
    return 0


async def doctor(common: Common, verify: bool) -> int:
    """`ragline doctor`; 1 where something is wrong."""
    from ragline.engine.health import diagnose

    findings = await diagnose(common.settings().settings, announce, verify=verify)
    if common.json:
        print_json({"findings": [json_shapes.finding(each) for each in findings]})
    else:
        screen = Screen()
        styles = {"ok": "green", "warning": "yellow", "error": "bold red"}
        for each in findings:
            screen.line((f"{each.level}: ", styles[each.level]), each.what)
            if each.hint:
                screen.line(each.hint, indent=4)
    return 1 if any(each.level == "error" for each in findings) else 0


async def show_config(common: Common, keys: Sequence[str]) -> int:
    """`ragline config show`; of all settings, or of those named by key or group."""
    loaded = common.settings()
    values = {**plain_values(loaded.settings), "cache_dir": str(loaded.settings.model_cache_dir())}
    unknown = [each for each in keys if not any(_covers(each, key) for key in values)]
    if unknown:
        close = nearest(unknown[0], (*setting_groups(), *values))
        meant = f" (did you mean {close!r}?)" if close else ""
        raise InputError(f"there is no setting {unknown[0]!r}{meant}", hint="`ragline config show` lists every setting")
    if keys:
        values = {key: value for key, value in values.items() if any(_covers(each, key) for each in keys)}
    if common.json:
        print_json({key: {"value": value, "origin": str(loaded.origins[key])} for key, value in values.items()})
        return 0
    rows = [(key, "unset" if value is None else str(value), loaded.origins[key]) for key, value in values.items()]
    Screen().table(("setting", "value", "from"), rows)
    return 0


def _covers(name: str, key: str) -> bool:
    return key == name or key.startswith(f"{name}.")


async def init_config(common: Common, form: Literal["toml", "yaml"] | None, force: bool) -> int:
    """`ragline config init`."""
    from ragline.settings.files import form_of
    from ragline.settings.writing import write_settings_file

    file = common.config or Path(f"ragline.{form or 'toml'}")
    written = form_of(file)
    if form is not None and form != written:
        raise InputError(f"{str(file)!r} is not the name of a {form.upper()} file", hint="leave out --format, or name the file otherwise")
    # Only the flags: what stands in the file that is replaced may be what is wrong.
    write_settings_file(file, load_flags(flags=common.flags(), assignments=common.assigned()), written, replace=force)
    if common.json:
        print_json({"written": str(file)})
    else:
        Screen().line(f"wrote {file}; `ragline config show` prints what is in force")
    return 0


async def must_hold_documents(engine: Engine) -> None:
    """Raises NotFoundError where the collection is empty: no question can be answered from nothing."""
    name = engine.settings.collection
    if not await engine.documents(limit=1):
        tenant = engine.settings.tenant
        whose = f" for the tenant {tenant!r}" if tenant != Scope().tenant else ""
        raise nothing_ingested(f"nothing has been ingested into the collection {name!r} of {str(engine.settings.data_dir)!r}{whose}")


def _embedded_with(collection: CollectionStatus) -> str:
    return f"{collection.model} ({collection.precision})" if collection.precision else collection.model  # a server tells none


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _size(size: int) -> str:
    units = ("bytes", "kB", "MB", "GB", "TB")
    power = min(len(f"{size:d}") - 1, 14) // 3
    return f"{size} bytes" if power == 0 else f"{size / 1000**power:.1f} {units[power]}"
