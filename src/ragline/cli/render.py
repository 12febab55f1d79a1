"""Answers, hits and reports for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ragline.cli.screen import Part, Screen, one_line
from ragline.types import Answer, Citation, FailedSource, IngestReport, ScoredChunk, SearchResult

SHOWN_REASONS, SHOWN_SOURCES = 20, 5
"""Reasons why sources gave no document, and sources under each; JSON lists all."""

SHOWN_CHARACTERS = 300
"""Of a hit's text; JSON has all of it."""


def write_answer(screen: Screen, answer: Answer) -> None:
    """The answer, its numbered citations, and the time of each stage."""
    screen.line(answer.text)
    write_citations(screen, answer)


def write_citations(screen: Screen, answer: Answer) -> None:
    """What stands below the text of an answer."""
    for number, citation in enumerate(answer.citations, start=1):
        screen.line("")
        screen.line((f"[{number}] ", "bold"), (place(citation), "cyan"))
        screen.line(f'"{one_line(citation.quote)}"', indent=4)
    screen.line("")
    _write_state(screen, answer.timings, answer.lag, answer.degraded)


def write_hits(screen: Screen, result: SearchResult) -> None:
    """The hits, best first, and the time of each stage."""
    if not result.hits:
        screen.line("no passage matches")
    for number, hit in enumerate(result, start=1):
        scores = [f"score {hit.score:.3f}"]
        scores += [f"dense {hit.dense_score:.3f}"] if hit.dense_score is not None else []
        scores += [f"lexical {hit.lexical_score:.2f}"] if hit.lexical_score is not None else []
        screen.line((f"{number}. ", "bold"), (place(hit), "cyan"), (f"  {', '.join(scores)}", "dim"))
        screen.line(one_line(hit.text, SHOWN_CHARACTERS), indent=4)
        screen.line("")
    _write_state(screen, result.timings, result.lag, result.degraded)


def place(found: Citation | ScoredChunk) -> str:
    """The file, and the page or else the heading."""
    where = f"page {found.page}" if found.page is not None else found.heading
    return one_line(f"{found.source or found.document_id}{', ' if where else ''}{where}")


def _write_state(screen: Screen, timings: Mapping[str, float], lag: int, degraded: Sequence[str]) -> None:
    stages = [f"{name.removesuffix('_ms')} {value:.1f} ms" for name, value in timings.items()]
    screen.line((", ".join(stages), "dim"))
    if lag:
        screen.line(("the index is behind the store: the newest changes may be missing", "yellow"))
    if degraded:
        screen.line((f"degraded: {', '.join(degraded)}", "yellow"))


def write_report(screen: Screen, report: IngestReport) -> None:
    """What an ingest did, source by source where one gave no document."""
    counts = [f"{report.added:,} added", f"{report.replaced:,} replaced", f"{report.unchanged:,} unchanged"]
    counts += [f"{report.pruned:,} pruned"] if report.pruned else []
    counts += [f"{len(report.skipped):,} skipped", f"{len(report.failed):,} failed"]
    screen.line(("Documents: ", "bold"), f"{', '.join(counts)}; {report.chunks:,} chunks written in {report.seconds:.1f} s")
    _write_sources(screen, ("skipped", "yellow"), [(each.source, each.reason, "") for each in report.skipped])
    write_failed(screen, report.failed)
    if report.lag:
        screen.line(("stored, but not all of it can be searched yet: the index follows in the background", "yellow"))


def write_failed(screen: Screen, failed: Sequence[FailedSource]) -> None:
    """The sources that gave no text, why, and the cure."""
    _write_sources(screen, ("failed", "red"), [(each.source, each.error, each.hint) for each in failed])


def _write_sources(screen: Screen, what: Part, entries: Sequence[tuple[str, str, str]]) -> None:
    """Sources by reason: a folder of a hundred scans is one thing to mend, not a hundred."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for source, reason, hint in entries:
        reasons.setdefault((one_line(reason), one_line(hint)), []).append(one_line(source))
    shown = list(reasons.items())[:SHOWN_REASONS]
    for (reason, hint), sources in shown:
        screen.line(what, f" {sources[0] if len(sources) == 1 else f'{len(sources):,} files'}: {reason}", indent=2)
        if hint:
            screen.line(hint, indent=4)
        if len(sources) > 1:
            for source in sources[:SHOWN_SOURCES]:
                screen.line(source, indent=6)
        if len(sources) > SHOWN_SOURCES:
            screen.line(f"... and {len(sources) - SHOWN_SOURCES:,} more", indent=6)
    if len(reasons) > len(shown):
        rest = len(entries) - sum(len(sources) for _, sources in shown)
        screen.line(f"... and {rest:,} more (`ragline ingest --json` lists all)", indent=2)
