"""What the commands that do work do: ask, ingest, search, reindex, eval."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ragline import json_shapes
from ragline.bench.evaluation import Figures, load_labelled_set
from ragline.bench.evaluation import evaluate as run_evaluation
from ragline.cli.options import Common, announce, json_object
from ragline.cli.progress import shown_progress
from ragline.cli.render import write_answer, write_citations, write_failed, write_hits, write_report
from ragline.cli.screen import Screen, print_json
from ragline.cli.things import must_hold_documents
from ragline.errors import InputError, NotFoundError
from ragline.filters import parse_filter
from ragline.reading.web.urls import is_url
from ragline.retrieval.question import normalise_question
from ragline.types import Document


def web_flags(paths: Sequence[str], depth: int | None, sitemap: bool, max_pages: int | None) -> Mapping[str, Any]:
    """The settings that the flags about URLs give. Raises InputError for one that has no URL to be about."""
    given = {"--depth": depth, "--sitemap": sitemap or None, "--max-pages": max_pages}
    unused = [flag for flag, value in given.items() if value is not None]
    if unused and not any(map(is_url, paths)):
        raise InputError(
            f"{unused[0]} is about URLs, and none is given", hint="give one such as https://example.com/docs/, or leave it out"
        )
    return {f"web__{flag[2:].replace('-', '_')}": value for flag, value in given.items()}


async def ask(
    common: Common,
    question: str,
    paths: Sequence[str],
    top_k: int | None,
    filter: str | None,
    mode: str | None,
    web: Mapping[str, Any],
) -> int:
    """`ragline ask`. Files that give no text are named on standard error and do not fail it."""
    conditions = json_object(filter, "--filter")
    async with common.engine(writes=bool(paths), retrieval__mode=mode, **web) as engine:
        documents: Sequence[str] | None = None
        if paths:
            # What would be refused is refused now, not after long work.
            normalise_question(question, max_chars=engine.settings.retrieval.max_question_chars)
            parse_filter(conditions)
            with shown_progress() as progress:
                report = await engine.ingest(paths, retry_failed=False, progress=progress)
            write_failed(Screen(sys.stderr), report.failed)
            documents = report.document_ids
            if not documents:
                raise NotFoundError("none of the paths gave a text to answer from", hint="name files that hold text, or their folder")
        screen = None if common.json or engine.settings.generation.generator == "extractive" else Screen()
        async with aclosing(engine.stream(question, top_k=top_k, filter=conditions, documents=documents)) as events:
            async for event in events:
                if event.kind == "hits" and not event.data.hits and not conditions:
                    await must_hold_documents(engine)
                elif event.kind == "token" and screen is not None:  # a language model takes its time: people read along
                    screen.piece(event.data)
                elif event.kind == "error":
                    raise event.data
                elif event.kind == "answer":
                    answer = event.data
    if common.json:
        print_json(json_shapes.answer(answer))
    elif screen is None:
        write_answer(Screen(), answer)
    else:
        screen.line("")
        write_citations(screen, answer)
    return 0


async def ingest(
    common: Common,
    paths: Sequence[str],
    prune: bool,
    id: str | None,
    source: str | None,
    metadata: str | None,
    web: Mapping[str, Any],
) -> int:
    """`ragline ingest`; 1 where a source failed."""
    described = {"--id": id, "--source": source, "--metadata": metadata}
    unused = [flag for flag, value in described.items() if value is not None]
    if unused and "-" not in paths:
        raise InputError(f"{unused[0]} describes the text from standard input", hint="give `-` as a path, or leave it out")
    values = json_object(metadata, "--metadata", InputError) or {}
    sources: list[str | Document] = [path for path in paths if path != "-"]
    if "-" in paths:
        text = _standard_input(common.settings().settings.reading.max_file_bytes)
        sources.append(Document(text, id=id, source=source or "standard input", metadata=values))
    async with common.engine(writes=True, **web) as engine:
        with shown_progress() as progress:
            report = await engine.ingest(sources, prune=prune, progress=progress)
    if common.json:
        print_json(json_shapes.ingest(report))
    else:
        write_report(Screen(), report)
    return 1 if report.failed else 0


def _standard_input(max_bytes: int) -> str:
    # asyncio would take Ctrl-C for the event loop, which does not turn while this waits for the input's end.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        content = sys.stdin.buffer.read(max_bytes + 1)
    finally:
        signal.signal(signal.SIGINT, handler)
    if len(content) > max_bytes:
        raise InputError(f"standard input holds more than {max_bytes:,} bytes", hint="split it, or raise reading.max_file_bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"standard input is not UTF-8 text: {error}", hint="ingest other formats as files: `ragline ingest FILE`"
        ) from error


async def search(common: Common, query: str, top_k: int | None, filter: str | None, mode: str | None) -> int:
    """`ragline search`."""
    conditions = json_object(filter, "--filter")
    async with common.engine(retrieval__mode=mode) as engine:
        result = await engine.search(query, top_k=top_k, filter=conditions)
        if not result.hits:
            await must_hold_documents(engine)
    if common.json:
        print_json(json_shapes.search(result))
    else:
        write_hits(Screen(), result)
    return 0


async def reindex(common: Common, model: str | None, precision: str | None) -> int:
    """`ragline reindex`."""
    async with common.engine() as engine:
        with shown_progress() as progress:
            report = await engine.reindex(model=model, precision=precision, progress=progress)
    if common.json:
        print_json(json_shapes.reindex(report))
        return 0
    Screen().line(
        f"{report.documents:,} documents, {report.chunks:,} chunks, {report.embedded:,} embedded anew with {report.model},"
        f" in {report.seconds:.1f} s"
    )
    return 0


async def evaluate(common: Common, folder: Path, split: str) -> int:
    """`ragline eval`."""
    labelled = load_labelled_set(folder, split=split)
    collection = common.collection or f"eval {folder.name}".strip()
    with tempfile.TemporaryDirectory(prefix="ragline-eval-") as temporary:
        flags = {} if "data_dir" in {**common.flags(), **common.assigned()} else {"data_dir": temporary}
        async with common.engine(writes=True, **flags) as engine:
            with shown_progress() as progress:
                found = await run_evaluation(engine, labelled, collection=collection, progress=progress, announce=announce)
    write_failed(Screen(sys.stderr), found.report.failed)
    if common.json:
        print_json({mode: eval_shape(figures) for mode, figures in found.figures.items()})
        return 0
    rows = [(mode, *(f"{value:.3f}" for value in eval_shape(figures).values())) for mode, figures in found.figures.items()]
    Screen().table(("mode", *eval_shape(found.figures["dense"])), rows)
    return 0


def eval_shape(figures: Figures) -> Mapping[str, float]:
    """The JSON form of a mode's figures."""
    return {name.replace("_at_", "@"): value for name, value in asdict(figures).items()}
