"""What a data folder holds, and whether it is well."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from ragline.embedding.precision import int8_instructions
from ragline.engine import machine
from ragline.engine.job_work import jobs_findings
from ragline.engine.pool_advice import pool_advice
from ragline.engine.resources import Resources, open_chat_generator
from ragline.errors import RaglineError
from ragline.index.lexical import LexicalIndex
from ragline.index.simd import best_simd_level, is_lowered, simd_level
from ragline.index.snapshot import verify_snapshot
from ragline.settings import ReadingSettings, Settings
from ragline.storage.base import CollectionInfo
from ragline.storage.sqlite.store import FILE_NAME
from ragline.types import CollectionStatus, Finding, Scope, Status

log = logging.getLogger("ragline.engine")

LOW_DISK_BYTES = 1024**3
LOW_MEMORY_BYTES = 512 * 1024**2
LOW_OPEN_FILES = 1024

CHECK_S = 5.0
"""How long a server may take to answer a check."""


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


async def diagnose(settings: Settings, announce: Callable[[str], None], *, verify: bool) -> Sequence[Finding]:
    """As `check_health`, of what is not open yet: whatever cannot be opened is a finding, and the rest is looked at all the same.

    Nothing is made where nothing is: without a store, the services are checked beside an empty one that is thrown away.
    """
    data_dir, fault = settings.data_dir, _fault_of_store(settings.data_dir)
    settings = settings.model_copy(update=_impatient(settings))
    if fault is None:
        resources = Resources(settings, announce)
        try:
            await resources.open()
        except RaglineError as failure:
            fault = Finding("error", failure.message, failure.hint or "restore the data folder from a backup, or ingest into a new one")
        else:
            try:
                return await check_health(resources, settings.tenant, verify=verify)
            finally:
                await resources.close()
    with tempfile.TemporaryDirectory(prefix="ragline-doctor-") as folder:
        resources = Resources(settings.model_copy(update={"data_dir": Path(folder)}), announce)
        await resources.open()
        try:
            machine = await resources.question_workers.run(_machine, settings, data_dir)
            return [*machine, *await _services(resources, Scope(settings.tenant, settings.collection)), fault]
        finally:
            await resources.close()


async def check_health(resources: Resources, tenant: str, *, verify: bool) -> Sequence[Finding]:
    """Machine, services, store and views, one finding each; `verify` reads every file."""
    settings = resources.settings
    findings = [*await resources.question_workers.run(_machine, settings, settings.data_dir)]
    if _fault_of_store(settings.data_dir) is not None:  # of an open engine: it was there
        findings.append(Finding("error", f"the data folder {settings.data_dir} cannot be read: its store is gone", "put it back"))
    findings += await _services(resources, Scope(tenant, settings.collection))
    findings += [
        Finding("warning", f"{name} failed again and again: this process leaves it alone for now", "see that it is up")
        for name, alone in resources.circuits().items()
        if alone
    ]
    findings += pool_advice(settings, resources.monitor.get_stats())
    findings += await _looked_at("the jobs", lambda: jobs_findings(resources))
    findings += await _looked_at("the collections", lambda: _collections(resources, tenant))
    if verify:
        findings += await _looked_at("the files", lambda: _verify(resources))
    return findings


def _fault_of_store(data_dir: Path) -> Finding | None:
    """What stands in the way of opening the store; None where it is there."""
    try:
        os.stat(data_dir / FILE_NAME)
    except (FileNotFoundError, NotADirectoryError):
        return Finding("warning", f"there is no store in {data_dir} yet", "ingest something: `ragline ingest PATH`; or name another folder")
    except (OSError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else failure
        return Finding("error", f"the data folder {data_dir} cannot be read: {reason}", "make it readable, or name another")
    return None


def _impatient(settings: Settings) -> dict[str, Any]:
    """Settings under which no server is waited for longer than a check may take."""
    embedding, rerank = settings.embedding, settings.rerank
    return {
        "embedding": embedding.model_copy(
            update={"timeout_s": min(embedding.timeout_s, CHECK_S), "retry_s": min(embedding.retry_s, CHECK_S / 2)}
        ),
        "rerank": rerank.model_copy(update={"timeout_s": min(rerank.timeout_s, CHECK_S)}),
    }


def _machine(settings: Settings, data_dir: Path) -> Sequence[Finding]:
    return [*_versions(), *_processor(settings), _memory(), *_open_files(), _disk(data_dir), _recognition(settings.reading)]


def _versions() -> Iterator[Finding]:
    yield Finding("ok", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    version = apsw.sqlite_lib_version()
    if has_wal_reset_bug(version):
        yield Finding("error", f"SQLite {version} can lose commits of two processes (the WAL-reset bug)", "pip install --upgrade apsw")
    else:
        yield Finding("ok", f"SQLite {version}")


def has_wal_reset_bug(version: str) -> bool:
    """Whether this SQLite may corrupt a database in WAL mode that several connections write; fixed in 3.51.3 and in 3.53."""
    major, minor, patch = (int(part) for part in (*version.split("."), "0", "0")[:3])
    return not ((3, 51, 3) <= (major, minor, patch) < (3, 52) or (major, minor) >= (3, 53))


def _processor(settings: Settings) -> Iterator[Finding]:
    found, cores = machine.processor(), machine.usable_cores()
    features = ", ".join(found.features) or "no vector instructions that it tells of"
    yield Finding("ok", f"processor: {found.name}, {cores} {'core' if cores == 1 else 'cores'} to use; {features}")
    yield _simd(settings)
    instructions = int8_instructions()
    if instructions:
        yield Finding("ok", f"the processor has {instructions}: onnx computes in int8 unless told")
    else:
        yield Finding("ok", "the processor has no int8 instructions: onnx computes in fp32 unless told")


def _simd(settings: Settings) -> Finding:
    level, best = simd_level(), best_simd_level()
    wanted = settings.index.simd == "lower"
    if not level:
        return Finding("warning" if wanted else "ok", "FAISS does not tell which instructions it uses", "pip install --upgrade faiss-cpu")
    if wanted and not is_lowered():
        return Finding("warning", f"FAISS uses {level}: index.simd asks for a lower level, and there is none", "set index.simd to auto")
    if is_lowered() and not wanted:
        hint = "unset FAISS_SIMD_LEVEL; or, if an engine of this process was opened with index.simd = lower, start another process"
        return Finding("warning", f"FAISS uses {level}, though it could use {best}", hint)
    return Finding("ok", f"FAISS uses {level}" + (f", below {best}, as index.simd asks" if wanted else ", the best there is"))


def _memory() -> Finding:
    available = machine.available_bytes()
    if available is None:
        return Finding("ok", "the system does not tell how much memory is left")
    if available < LOW_MEMORY_BYTES:
        hint = "end other programs, or take the profile memory-constrained"
        return Finding("warning", f"{available / 1024**2:,.0f} MB of memory are left", hint)
    return Finding("ok", f"{available / 1024**3:,.1f} GB of memory are left")


def _open_files() -> Iterator[Finding]:
    limit = machine.open_files_limit()
    if limit is not None and limit < LOW_OPEN_FILES:
        what = f"this process may open {limit} files: too few for many collections"
        yield Finding("warning", what, "`ulimit -n 4096` before it starts; or lower index.resident_scopes")


def _disk(data_dir: Path) -> Finding:
    try:
        free = machine.free_disk_bytes(data_dir)
    except OSError as failure:
        return Finding("error", f"the data folder {data_dir} cannot be read: {failure.strerror}", "put it back, or ingest into a new one")
    if free < LOW_DISK_BYTES:
        return Finding("warning", f"{free / 1024**2:,.0f} MB are free where {data_dir} is", "make room before you ingest more")
    return Finding("ok", f"{free / 1024**3:,.0f} GB are free where {data_dir} is")


def _recognition(settings: ReadingSettings) -> Finding:
    from ragline.reading.parsing.documents import tessdata  # with it comes the library that parses

    language = settings.ocr_language
    folder = tessdata(language, str(settings.ocr_data_dir) if settings.ocr_data_dir else None)
    if folder is None:
        package = f"tesseract-ocr-{language.partition('+')[0].replace('_', '-')}"
        hint = f"where you have such files: apt install {package} (Debian, Ubuntu), brew install tesseract-lang (macOS)"
        return Finding("ok", f"no language data {language!r} of tesseract: scanned pages and images give no text", hint)
    return Finding("ok", f"text in scanned pages and images is recognised: tesseract's data {language!r} is in {folder}")


async def _services(resources: Resources, scope: Scope) -> list[Finding]:
    """Models and servers, side by side."""
    checks = (
        _looked_at("the embedding model", lambda: _embedder(resources, scope)),
        _looked_at("the reranker", lambda: _reranker(resources)),
        _looked_at("the language model", lambda: _generator(resources)),
    )
    return [finding for findings in await asyncio.gather(*checks) for finding in findings]


async def _looked_at(what: str, look: Callable[[], Awaitable[Sequence[Finding]]]) -> Sequence[Finding]:
    """What a check found, or its failure as a finding: one bad part does not hide the others."""
    try:
        return await look()
    except RaglineError as failure:
        return [Finding("error", failure.message, failure.hint)]
    except TimeoutError:
        return [Finding("error", f"{what} did not answer within {CHECK_S:g} s", "see that its server runs and is not too busy")]
    except Exception as failure:
        log.debug("doctor could not look at %s", what, exc_info=True)
        return [Finding("error", f"{what} cannot be checked: unexpected {type(failure).__name__}", "report it")]


async def _answers(part: object) -> None:
    """Asks a part that lives on a server whether it is there."""
    check = getattr(part, "check", None)
    if check is not None:
        async with asyncio.timeout(CHECK_S):
            await check()


async def _embedder(resources: Resources, scope: Scope) -> Sequence[Finding]:
    # It takes its time: a model may have to be fetched or built, a client imported. A server has CHECK_S, by its settings here.
    embedder = await resources.embedder_for(scope)
    await _answers(embedder)
    told = {"runtime": resources.settings.embedding.runtime, **embedder.description}
    details = [f"{name} {told[name]}" for name in ("runtime", "precision", "device") if told.get(name)]
    size = f"{embedder.dimension} dimensions, {embedder.max_tokens} tokens"
    return [Finding("ok", f"embedding with {embedder.name}: {', '.join([*details, size])}")]


async def _reranker(resources: Resources) -> Sequence[Finding]:
    reranker = await resources.reranker()
    if reranker is None:
        return []
    await _answers(reranker)
    return [Finding("ok", f"reranking with {reranker.name}")]


async def _generator(resources: Resources) -> Sequence[Finding]:
    settings = resources.settings.generation
    if resources.own_generator is not None:
        await _answers(resources.own_generator)
        return [Finding("ok", "answers are made by the program's own generator")]
    if settings.generator == "extractive":
        return [Finding("ok", "answers are quoted from the documents, without a language model")]
    # Without what it falls back on: the embedding model has a check of its own.
    generator = await resources.question_workers.run(open_chat_generator, resources.settings, None, resources.question_workers)
    try:
        await _answers(generator)
    finally:
        await generator.close()
    return [Finding("ok", f"answers are written by {settings.model} ({settings.generator}{_at(settings.base_url)})")]


def _at(address: str | None) -> str:
    return f" at {address.partition('?')[0]}" if address else ""


async def _collections(resources: Resources, tenant: str) -> list[Finding]:
    findings: list[Finding] = []
    for info in await resources.store.collections(tenant):
        look = partial(_collection, resources, Scope(tenant, info.name), info)
        findings += await _looked_at(f"the collection {info.name!r}", look)
    return findings


async def _collection(resources: Resources, scope: Scope, info: CollectionInfo) -> Sequence[Finding]:
    views, head = await resources.follower.views(scope, wait_s=resources.settings.index.wait_s)
    size = await resources.bulk_workers.run(_size_of, views.folder)
    lag = head.lsn - views.lsn
    what = f"collection {info.name!r}: {info.documents:,} documents, {info.chunks:,} chunks"
    if lag > 0:
        return [Finding("warning", f"{what}; its index is {lag} changes behind", "wait, or run `ragline reindex`")]
    searched = "through codes" if views.dense is not None and views.dense.codes is not None else "exactly"
    deleted = views.lexical.deleted_fraction if views.lexical is not None else 0.0
    return [
        Finding("ok", f"{what}; its index is current, searched {searched}, {size / 1024**2:,.1f} MB, {deleted:.0%} of its words deleted")
    ]


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
    return sum(_occupied(path) for path in data_dir.glob("*") if path.is_file()), _size_of(data_dir / "views")


def _size_of(folder: Path) -> int:
    return sum(_occupied(Path(inner, name)) for inner, _, names in os.walk(folder) for name in names)


def _occupied(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0  # gone since it was listed
