"""What people and programs read: answers, hits, reports, tables, JSON."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace

import pytest

from ragline import json_shapes
from ragline.cli.progress import progress_line, shown_progress
from ragline.cli.render import place, write_answer, write_failed, write_hits, write_report
from ragline.cli.screen import Screen, clean, one_line, print_json
from ragline.storage.base import StoredDocument
from ragline.types import Answer, Citation, FailedSource, IngestProgress, IngestReport, ScoredChunk, SearchResult, SkippedSource

HIT = ScoredChunk(
    chunk_id=7,
    document_id="d1",
    document_version=2,
    score=0.75,
    dense_score=0.5,
    lexical_score=None,
    text="Keys rotate\nevery 90 days. " + "And so on. " * 50,
    source="docs/keys.md",
    metadata={"lang": "en"},
    start=10,
    end=37,
    heading="Security > Keys",
)
CITATION = Citation(7, "d1", 2, 10, 37, "Keys rotate\nevery 90 days.", "docs/keys.md", "Security > Keys")
TIMINGS = {"embed_ms": 1.25, "search_ms": 0.5, "total_ms": 1.75}
ANSWER = Answer("Keys rotate every 90 days. [1]", (CITATION,), True, (HIT,), lsn=4, timings=TIMINGS)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Screen(Terminal())


def written(screen: Screen) -> str:
    stream = screen.console.file
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def test_an_answer_is_followed_by_numbered_citations_and_the_time_of_each_stage() -> None:
    screen = Screen(io.StringIO())
    write_answer(screen, ANSWER)
    assert written(screen).splitlines() == [
        "Keys rotate every 90 days. [1]",
        "",
        "[1] docs/keys.md, Security > Keys",
        '    "Keys rotate every 90 days."',
        "",
        "embed 1.2 ms, search 0.5 ms, total 1.8 ms",
    ]


def test_an_answer_says_plainly_that_nothing_was_found() -> None:
    screen = Screen(io.StringIO())
    write_answer(screen, Answer("The documents do not say.", (), False, (HIT,), lsn=4, timings=TIMINGS))
    assert written(screen).splitlines()[:2] == ["The documents do not say.", ""]
    assert "[1]" not in written(screen)


def test_a_late_or_partial_answer_says_so() -> None:
    screen = Screen(io.StringIO())
    write_answer(screen, replace(ANSWER, lag=3, degraded=("dense",)))
    assert "behind the store" in written(screen)
    assert "degraded: dense" in written(screen)


def test_a_place_is_the_page_where_there_is_one_else_the_heading_else_the_id() -> None:
    assert place(CITATION) == "docs/keys.md, Security > Keys"
    assert place(replace(CITATION, page=3)) == "docs/keys.md, page 3"
    assert place(replace(CITATION, heading="", source=None)) == "d1"


def test_hits_show_place_scores_and_the_start_of_the_text() -> None:
    screen = Screen(io.StringIO())
    write_hits(screen, SearchResult((HIT, replace(HIT, dense_score=None, lexical_score=3.21, text="short")), lsn=4, timings=TIMINGS))
    lines = written(screen).splitlines()
    assert lines[0] == "1. docs/keys.md, Security > Keys  score 0.750, dense 0.500"
    assert lines[1].startswith("    Keys rotate every 90 days. And so on.")
    assert lines[1].endswith(" ...")
    assert len(lines[1]) < 320
    assert lines[3] == "2. docs/keys.md, Security > Keys  score 0.750, lexical 3.21"


def test_no_hits_are_said_plainly() -> None:
    screen = Screen(io.StringIO())
    write_hits(screen, SearchResult((), lsn=4, timings=TIMINGS))
    assert written(screen).startswith("no passage matches\n")


def test_a_report_names_each_source_that_gave_no_document() -> None:
    screen = Screen(io.StringIO())
    report = IngestReport(
        added=1200,
        unchanged=1,
        skipped=(SkippedSource("a.bin", "unsupported"),),
        failed=(FailedSource("b.pdf", "encrypted", "decrypt it"),),
        chunks=5000,
        seconds=2.5,
        lag=1,
    )
    write_report(screen, report)
    lines = written(screen).splitlines()
    assert lines[0] == "Documents: 1,200 added, 0 replaced, 1 unchanged, 1 skipped, 1 failed; 5,000 chunks written in 2.5 s"
    assert lines[1:4] == ["  skipped a.bin: unsupported", "  failed b.pdf: encrypted", "    decrypt it"]
    assert "not all of it can be searched yet" in lines[4]


def test_sources_that_failed_alike_are_told_together_and_shortened() -> None:
    screen = Screen(io.StringIO())
    write_failed(screen, [FailedSource(f"{number}.png", "a picture", "add eyes") for number in range(1005)])
    assert written(screen).splitlines() == [
        "  failed 1,005 files: a picture",
        "    add eyes",
        *(f"      {number}.png" for number in range(5)),
        "      ... and 1,000 more",
    ]


def test_many_ways_to_fail_end_in_a_count() -> None:
    screen = Screen(io.StringIO())
    write_failed(screen, [FailedSource(f"{number}.pdf", f"fault {number % 30}") for number in range(60)])
    lines = written(screen).splitlines()
    assert lines[:3] == ["  failed 2 files: fault 0", "      0.pdf", "      30.pdf"]
    assert "and 20 more (" in lines[-1]


def test_a_narrow_terminal_wraps_with_the_indent_kept(narrow: Screen) -> None:
    narrow.line("word " * 30, indent=4)
    narrow.line("")
    *lines, blank = written(narrow).splitlines()
    assert blank == ""
    assert len(lines) > 3
    assert all(line.startswith("    word") and len(line) <= 40 for line in lines)


def test_a_narrow_terminal_folds_tables(narrow: Screen) -> None:
    narrow.table(("id", "source"), [("x" * 64, "y" * 64)])
    assert all(len(clean_line) <= 40 for clean_line in written(narrow).replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines())
    assert written(narrow).count("x") == 64


def test_a_pipe_gets_whole_lines_without_styles() -> None:
    screen = Screen(io.StringIO())
    screen.line(("bold ", "bold"), "word " * 100_000)
    screen.table(("id", "number"), [("x" * 500, 1234567)])
    lines = written(screen).splitlines()
    assert len(lines) == 3
    assert "\x1b" not in written(screen)
    assert lines[2].split() == ["x" * 500, "1,234,567"]


def test_what_documents_say_cannot_move_the_cursor(narrow: Screen) -> None:
    evil = "a\x1b[2Jb\x9b31mc\rd\x07e\x00f\x7fg\tx\ny"
    assert clean(evil) == "a\ufffd[2Jb\ufffd31mc\ufffdd\ufffde\ufffdf\ufffdg\tx\ny"
    for screen in (narrow, Screen(io.StringIO())):
        screen.line(evil)
        screen.text(evil)
        screen.table(("evil",), [(evil,)])
        assert not any(mark in written(screen) for mark in ("\x1b[2J", "\x9b", "\r", "\x07", "\x00", "\x7f"))


def test_documents_cannot_use_markup() -> None:
    screen = Screen(io.StringIO())
    screen.line("[bold]x[/bold] :smile: [1]")
    assert written(screen) == "[bold]x[/bold] :smile: [1]\n"


def test_one_line_is_cut_at_a_word() -> None:
    assert one_line("a\n b\tc") == "a b c"
    assert one_line("hello world again", 10) == "hello ..."
    assert one_line("x" * 20, 10) == "x" * 10 + " ..."


class Locale(io.TextIOWrapper):
    """Standard output of another locale."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def bytes(self) -> bytes:
        self.flush()
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue()


@pytest.mark.parametrize(("value", "encoding"), [("é", "utf-8"), ("é😀", "ascii"), ("é😀", "latin-1"), ("lone \udcff", "utf-8")])
def test_json_is_one_document_in_every_locale(value: str, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = Locale(encoding)
    monkeypatch.setattr(sys, "stdout", stdout)
    print_json({"text": value})
    printed = stdout.bytes()
    assert json.loads(printed.decode(encoding)) == {"text": value}
    assert (b"\\u" in printed) == ((value, encoding) != ("é", "utf-8"))


def test_json_holds_no_raw_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2J\x9b31m\x7f\x85"
    print_json({"text": evil})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"text": evil}
    assert not any((ord(character) < 32 and character != "\n") or 0x7F <= ord(character) < 0xA0 for character in printed)


def test_the_shapes_hold_the_agreed_keys() -> None:
    search = json_shapes.search(SearchResult((HIT,), lsn={"a": 1, "b": 2}, timings=TIMINGS))
    assert list(search) == ["hits", "lsn", "lag", "degraded", "timings"]
    assert search["lsn"] == {"a": 1, "b": 2}
    agreed = {"chunk_id", "document_id", "score", "dense_score", "lexical_score", "text", "source", "metadata"}
    assert agreed <= set(search["hits"][0])
    answer = json_shapes.answer(ANSWER)
    assert list(answer) == ["answer", "citations", "found", "hits", "cache", "lsn", "lag", "degraded", "timings", "dropped_citations"]
    assert answer["cache"] == "off"
    assert {"chunk_id", "document_id", "document_version", "start", "end", "quote", "source"} <= set(answer["citations"][0])
    failed = IngestReport(skipped=(SkippedSource("a", "b"),), failed=(FailedSource("c", "d", "e"),))
    ingest = json_shapes.ingest(failed)
    assert {"added", "replaced", "unchanged", "skipped", "failed", "chunks", "seconds"} <= set(ingest)
    assert (ingest["added"], ingest["skipped"], ingest["failed"]) == (
        0,
        [{"source": "a", "reason": "b"}],
        [{"source": "c", "error": "d", "hint": "e"}],
    )


def test_the_shapes_hold_every_field_of_their_value() -> None:
    shape = json_shapes.hit(HIT)
    assert shape == {name: getattr(HIT, name) for name in HIT.__slots__}
    assert json_shapes.citation(CITATION) == {name: getattr(CITATION, name) for name in CITATION.__slots__}
    stored = StoredDocument("d1", 2, "a.md", {"lang": "en"}, b"\x00", "text/plain", 100, 3, 9, 1.5)
    assert set(StoredDocument.__slots__) - set(json_shapes.document(stored)) == {"content_hash", "chunk_count"}
    assert all(json.loads(json.dumps(each)) == each for each in (shape, json_shapes.answer(ANSWER), json_shapes.document(stored)))


def test_progress_shows_files_chunks_speed_and_time_left() -> None:
    progress = IngestProgress(sources_done=50, sources_total=200, chunks=4000, seconds=40.0, current="a\x1bb.md")
    assert progress_line(progress) == "50/200 files, 4,000 chunks, 100 chunks/s, 2:00 left  a\ufffdb.md"
    assert progress_line(IngestProgress(0, None, 0, 0.0)) == "0/? files, 0 chunks"
    assert "1:23:20 left" in progress_line(IngestProgress(1, 501, 10, 10.0))


def test_progress_is_drawn_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with shown_progress() as draw:
        assert draw is None
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with shown_progress() as draw:
        assert draw is not None
        draw(IngestProgress(1, 2, 3, 1.0, "a.md"))
    assert "1/2 files" in terminal.getvalue()
