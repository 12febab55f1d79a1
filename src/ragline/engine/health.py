"""What a data folder holds, and whether it is well."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw

from ragline.embedding.precision import int8_instructions
from ragline.engine.resources import Resources
from ragline.errors import RaglineError
from ragline.index.lexical import LexicalIndex
from ragline.index.snapshot import verify_snapshot
from ragline.types import CollectionStatus, Finding, Scope, Status

LOW_DISK_BYTES = 1024**3


async def read_status(resources: Resources, tenant: str) -> Status:
    """Sizes, LSNs and models of a tenant's collections. Loads their views."""
    collections = []
    for info in await resources.store.collections(tenant):
        views, head = await resources.follower.views(Scope(tenant, info.name), wait_s=resources.settings.index.wait_s)
        collections.append(
            CollectionStatus(
                name=info.name,
                documents=info.documents,
                chunks=info.chunks,
                lsn=head.lsn,
                view_lsn=views.lsn,
                model=info.embedder.get("model", ""),
                precision=info.embedder.get("precision", ""),
            )
        )
    data_dir = resources.settings.data_dir
    store_bytes, views_bytes = await resources.bulk_workers.run(_sizes, data_dir)
    return Status(
        data_dir=str(data_dir),
        incarnation=resources.store.incarnation,
        collections=tuple(collections),
        indexer="this process" if resources.follower.is_indexer else "another process",
        store_bytes=store_bytes,
        views_bytes=views_bytes,
    )


async def check_health(resources: Resources, tenant: str, *, verify: bool) -> Sequence[Finding]:
    """Environment, model, store and views, one finding each; `verify` reads every file."""
    findings = [*_environment(), _disk(resources.settings.data_dir)]
    findings.append(await _model(resources, Scope(tenant, resources.settings.collection)))
    findings += await _collections(resources, tenant)
    if verify:
        findings += await _verify(resources)
    return findings


def _environment() -> Iterator[Finding]:
    yield Finding("ok", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("ok", f"SQLite {apsw.sqlite_lib_version()}")
    instructions = int8_instructions()
    if instructions:
        yield Finding("ok", f"the processor has {instructions}: embedding runs in int8 unless told")
    else:
        yield Finding("ok", "the processor has no int8 instructions: embedding runs in fp32 unless told")


def _disk(data_dir: Path) -> Finding:
    try:
        free = shutil.disk_usage(data_dir).free
    except OSError as failure:
        return Finding("error", f"the data folder {data_dir} cannot be read: {failure.strerror}", "put it back, or ingest into a new one")
    if free < LOW_DISK_BYTES:
        return Finding("warning", f"{free / 1024**2:,.0f} MB are free where {data_dir} is", "make room before you ingest more")
    return Finding("ok", f"{free / 1024**3:,.0f} GB are free where {data_dir} is")


async def _model(resources: Resources, scope: Scope) -> Finding:
    try:
        embedder = await resources.embedder_for(scope)
    except RaglineError as failure:
        return Finding("error", failure.message, failure.hint)
    return Finding("ok", f"embedding with {embedder.name}: {embedder.dimension} dimensions, {embedder.max_tokens} tokens")


async def _collections(resources: Resources, tenant: str) -> list[Finding]:
    findings = []
    for info in await resources.store.collections(tenant):
        views, head = await resources.follower.views(Scope(tenant, info.name), wait_s=resources.settings.index.wait_s)
        lag = head.lsn - views.lsn
        what = f"collection {info.name!r}: {info.documents:,} documents, {info.chunks:,} chunks"
        if lag > 0:
            findings.append(Finding("warning", f"{what}; its index is {lag} changes behind", "wait, or run `ragline reindex`"))
        else:
            findings.append(Finding("ok", f"{what}; its index is current"))
    return findings


async def _verify(resources: Resources) -> list[Finding]:
    """Reads the store and all files of all views. Damaged views mend themselves when next opened; a store does not."""
    faults = [
        Finding("error", fault, "restore the data folder from a backup, or ingest into a new one")
        for fault in await resources.store.check()
    ]
    for scope, head in (await resources.store.heads()).items():
        folder = resources.settings.data_dir / "views" / str(head.scope_id)
        for what, check in (("memory", verify_snapshot), ("lexical", LexicalIndex.verify)):
            if (folder / what).is_dir():
                for fault in await resources.bulk_workers.run(check, folder / what):
                    name = f"{scope.tenant}/{scope.collection}"
                    hint = f"run `ragline reindex --collection {scope.collection}`; it is rebuilt from the store"
                    faults.append(Finding("error", f"index of {name}: {fault}", hint))
    return faults or [Finding("ok", "every file of the store and its views is sound")]


def _sizes(data_dir: Path) -> tuple[int, int]:
    """Bytes on disk of the store's files and of the views; sparse files count what they occupy."""
    views = data_dir / "views"
    store_bytes = sum(_occupied(path) for path in data_dir.glob("*") if path.is_file())
    return store_bytes, sum(_occupied(Path(folder, name)) for folder, _, names in os.walk(views) for name in names)


def _occupied(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0  # gone since it was listed
