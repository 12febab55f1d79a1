"""`ragline cache` beside a running server, and without one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragline.cli import run
from ragline.types import Document
from tests.server.live import Live, live


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, Path]]:
    folder = tmp_path_factory.mktemp("served")
    with live(folder) as server:
        server.run(lambda engine: engine.ingest(Document("The vault opens at nine.", id="vault")))
        yield server, folder


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = run([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_server_is_warmed_tells_what_it_knew_and_forgets(
    served: tuple[Live, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, folder = served
    questions = tmp_path / "questions.txt"
    questions.write_text("# often asked\nWhen does the vault open?\n\nWho opens the vault?\nWhen does the vault open?\n")
    url = ("--url", server.url)
    assert told(capsys, "cache", "warm", str(questions), *url) == (0, {"asked": 2, "served": {"miss": 2}, "failed": []})
    assert told(capsys, "cache", "warm", str(questions), *url)[1]["served"] == {"hit": 2}
    _, stats = told(capsys, "cache", "stats", *url)
    assert (stats["answers"]["miss"], stats["answers"]["hit"]) == (2, 2)
    assert told(capsys, "cache", "clear", *url) == (0, {"cleared": True})
    assert told(capsys, "cache", "warm", str(questions), *url)[1]["served"] == {"miss": 2}
    assert told(capsys, "--data-dir", str(folder), "cache", "clear") == (0, {"cleared": True})
    for _ in range(100):  # the server looks four times a second
        if told(capsys, "cache", "warm", str(questions), *url)[1]["served"] == {"miss": 2}:
            return
        time.sleep(0.1)
    raise AssertionError("the server did not hear of it")


def test_a_question_that_is_refused_is_told_and_stops_no_other(
    served: tuple[Live, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = tmp_path / "questions.txt"
    questions.write_text(f"{'x' * 40_000}\nWho painted the vault?\n")
    code, report = told(capsys, "cache", "warm", str(questions), "--url", served[0].url)
    assert (code, report["served"], len(report["failed"])) == (1, {"miss": 1}, 1)


def test_without_a_server_the_stored_vectors_are_told(served: tuple[Live, Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, stats = told(capsys, "--data-dir", str(served[1]), "cache", "stats")
    assert code == 0 and [each["vectors"] for each in stats["vectors"]] == [1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cache", "warm", "FILE"], "--url"),
        (["cache", "warm", "missing.txt", "--url", "http://127.0.0.1:9"], "cannot be read"),
        (["cache", "stats", "--url", "127.0.0.1:9"], "http://"),
        (["cache", "stats", "--url", "http://127.0.0.1:9"], "does not answer"),
        (["cache", "stats", "--url", "http://127.0.0.1:9", "--key", "@missing"], "no key can be read"),
        (["cache", "stats", "--url", "http://127.0.0.1:9", "--key", "FILE"], "`--key @FILE` reads it from that file"),
        (["cache", "stats", "--url", "http://127.0.0.1:9", "--key", "no-file"], "begins with rl_"),
        (["cache", "stats", "--url", "http://127.0.0.1:9", "--key", "@FILE"], "there is no key in 'FILE'"),
        (["--data-dir", "missing", "cache", "clear"], "no data folder"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("a question\n")
    code, report = told(capsys, *arguments)
    assert code in (1, 2) and words in report["error"]["message"] + report["error"]["hint"]


def test_on_the_command_line_a_key_that_is_missing_or_wrong_is_cured_by_its_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with live(tmp_path) as server:
        (tmp_path / "key.txt").write_text(f"{server.key('default')}\n")
        stats = ("cache", "stats", "--url", server.url)
        for given in ((), ("--key", f"rl_{'0' * 16}_{'0' * 64}")):
            code, report = told(capsys, *stats, *given)
            assert code == 1 and "--key @FILE" in report["error"]["hint"] and "Authorization" not in report["error"]["hint"]
        assert told(capsys, *stats, "--key", f"@{tmp_path / 'key.txt'}")[0] == 0
