"""The real command on real files, as a user runs it. Each start costs about a second: few tests, each a whole story."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ragline.embedding.models import DEFAULT_MODEL, locate_model
from ragline.settings import load_settings
from tests.imitation.chat import MODEL, ChatServer, Script

KEYS = """# Security

## Keys

API keys rotate every 90 days. The old key stays valid for one week after a rotation, so that clients have time to change.

## Passwords

Passwords have at least fourteen characters. They are never sent by e-mail.
"""
OFFICE = """# Office

The kitchen is on the third floor. Coffee is free for everyone, and so is the fruit.

The printers stand beside the stairs. Paper is in the cupboard below them.
"""


@pytest.fixture(scope="module", autouse=True)
def model() -> None:
    """The default model, found before the clock of any command runs."""
    locate_model(DEFAULT_MODEL, cache_dir=load_settings().settings.model_cache_dir(), announce=lambda _: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "keys.md").write_text(KEYS)
    (docs / "office.md").write_text(OFFICE)
    return tmp_path


def ragline(folder: Path, *arguments: str | bytes, input: bytes | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "ragline", *arguments]
    finished = subprocess.run(command, cwd=folder, input=input, capture_output=True, env=os.environ | environment, timeout=120, check=False)
    assert b"Traceback" not in finished.stderr, finished.stderr.decode()
    return finished


def document_of(finished: subprocess.CompletedProcess[bytes], code: int = 0) -> Any:
    assert finished.returncode == code, (finished.stdout, finished.stderr)
    return json.loads(finished.stdout)


def test_one_command_answers_from_files_and_names_the_bad_one(folder: Path) -> None:
    (folder / "docs" / "broken.pdf").write_bytes(b"%PDF-1.7\n this is not a pdf")
    first = ragline(folder, "ask", "How often do API keys rotate?", "docs", "--json")
    answer = document_of(first)
    assert b"broken.pdf" in first.stderr
    assert answer["found"] is True
    assert "90 days" in answer["answer"]
    quoted = answer["citations"][0]
    assert quoted["source"] == "docs/keys.md"
    assert quoted["quote"] in KEYS
    assert answer["timings"]["total_ms"] > 0
    assert (folder / ".ragline").is_dir()

    people = ragline(folder, "ask", "How often do API keys rotate?", "docs/keys.md")
    lines = people.stdout.decode().splitlines()
    assert people.returncode == 0
    assert "90 days" in lines[0]
    assert "[1]" in lines[0]
    assert "[1] docs/keys.md, Security > Keys" in lines
    assert "total" in lines[-1]

    elsewhere = document_of(ragline(folder, "ask", "How often do API keys rotate?", "docs/office.md", "--json"))
    assert {hit["source"] for hit in elsewhere["hits"]} == {"docs/office.md"}

    nothing = ragline(folder, "ask", "How often?", "docs/broken.pdf", "absent.md")
    assert nothing.returncode == 1
    assert b"absent.md" in nothing.stderr
    assert nothing.stdout == b""


def test_the_life_of_a_document(folder: Path) -> None:
    report = document_of(ragline(folder, "ingest", "docs", "--json"))
    assert (report["added"], report["failed"], report["lag"]) == (2, [], 0)
    assert document_of(ragline(folder, "ingest", "docs", "--json"))["unchanged"] == 2

    text = "Die Schlüssel liegen im Tresor. 🔑".encode()
    note = ragline(folder, "ingest", "-", "--id", "note", "--metadata", '{"lang": "de"}', "--json", input=text)
    assert document_of(note)["added"] == 1
    found = document_of(ragline(folder, "search", "keys", "--filter", '{"lang": "de"}', "--json"))
    assert [hit["document_id"] for hit in found["hits"]] == ["note"]
    assert found["hits"][0]["metadata"]["lang"] == "de"
    ascii_only = ragline(folder, "search", "Schlüssel", "--filter", '{"lang": "de"}', PYTHONIOENCODING="ascii")
    assert ascii_only.returncode == 0
    assert b"Schl\\xfcssel" in ascii_only.stdout

    listed = document_of(ragline(folder, "documents", "list", "--json"))["documents"]
    assert {each["source"] for each in listed} == {"docs/keys.md", "docs/office.md", "standard input"}
    shown = ragline(folder, "documents", "show", "note").stdout.decode()
    assert "lang" in shown
    assert "Die Schlüssel liegen im Tresor. 🔑" in shown

    deleted = ragline(folder, "documents", "delete", "note", "never-was")
    assert deleted.returncode == 1
    assert b"never-was" in deleted.stderr
    assert document_of(ragline(folder, "documents", "show", "note", "--json"), 1)["error"]["code"] == "not_found"
    assert document_of(ragline(folder, "search", "Tresor", "--filter", '{"lang": "de"}', "--json"))["hits"] == []


def test_the_state_of_the_store_is_shown(folder: Path) -> None:
    assert ragline(folder, "ingest", "docs", "--collection", "wiki").returncode == 0
    status = document_of(ragline(folder, "status", "--json"))
    assert [(each["name"], each["documents"]) for each in status["collections"]] == [("wiki", 2)]
    assert ragline(folder, "doctor", "--verify").returncode == 0
    reindexed = document_of(ragline(folder, "reindex", "--collection", "wiki", "--json"))
    assert (reindexed["documents"], reindexed["embedded"]) == (2, 0)

    empty = ragline(folder, "ask", "How often do keys rotate?")
    assert empty.returncode == 1
    assert b"ragline ingest PATH" in empty.stderr

    assert ragline(folder, "collections", "delete", "wiki").returncode == 0
    assert ragline(folder, "collections", "delete", "wiki").returncode == 1
    assert document_of(ragline(folder, "collections", "list", "--json"))["collections"] == []


def test_bad_questions_are_refused(folder: Path) -> None:
    assert ragline(folder, "ingest", "docs").returncode == 0
    for question in ("", " \n", "x" * 100_000):
        refused = ragline(folder, "ask", question)
        assert refused.returncode == 2, refused
        assert b"question" in refused.stderr
    assert ragline(folder, "search", b"keys \xff\xfe").returncode == 0
    assert ragline(folder, "search", "keys", "--top-k", "0").returncode == 2
    unknown = document_of(ragline(folder, "search", "keys", "--filter", '{"lang": {"like": "e"}}', "--json"), 2)
    assert unknown["error"]["code"] == "invalid_filter"


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_closed_pipe_ends_quietly(folder: Path, form: list[str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "ragline", "config", "show", *form]
    finished = subprocess.run(command, cwd=folder, stdout=write_end, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(write_end)
    assert (finished.returncode, finished.stderr) == (1, b"")


def test_ctrl_c_leaves_a_consistent_store(folder: Path) -> None:
    many = folder / "many"
    many.mkdir()
    for number in range(3000):  # far more than the fastest machine embeds before the signal comes
        (many / f"{number}.html").write_text("<p>" + " ".join(f"word{number}x{part}" for part in range(600)))
    command = [sys.executable, "-m", "ragline", "ingest", "many"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (folder / ".ragline").is_dir() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the parsers get it too
    try:
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, (output, errors)
    assert errors.startswith(b"Error: interrupted\n")
    assert len(errors.splitlines()) == 2, errors
    assert ragline(folder, "doctor", "--verify").returncode == 0
    assert document_of(ragline(folder, "ingest", "docs", "--json"))["added"] == 2


def test_eval_measures_all_modes_on_a_labelled_set(folder: Path) -> None:
    corpus = [{"_id": "keys", "title": "Keys", "text": KEYS}, {"_id": "office", "title": "", "text": OFFICE}]
    (folder / "corpus.jsonl").write_text("\n".join(json.dumps(each) for each in corpus))
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "where is the coffee?"}\n')
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\toffice\t1\n")
    figures = document_of(ragline(folder, "eval", ".", "--json"))
    assert list(figures) == ["dense", "lexical", "hybrid"]
    for mode in figures.values():
        assert list(mode) == ["ndcg@10", "recall@10", "recall@100", "mrr", "p50_ms"]
        assert (mode["ndcg@10"], mode["mrr"]) == (1, 1)
    assert not (folder / ".ragline").exists()


def test_a_language_models_answer_is_shown_as_it_comes_and_ctrl_c_ends_it_at_the_server(tmp_path: Path) -> None:
    (tmp_path / "keys.md").write_text("Keys rotate every 90 days.\n")
    with ChatServer("openai", script=Script(["Keys rotate", 60.0, " every 90 days [1]."])) as server:
        environment = {**os.environ, "OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "a key"}
        flags = ["--set", "generation.generator=openai", "--set", f"generation.model={MODEL}"]
        command = [sys.executable, "-m", "ragline", "ask", "How often do keys rotate?", "keys.md", *flags]
        asking = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        assert asking.stdout is not None
        assert asking.stdout.read(len("Keys rotate")) == b"Keys rotate", "while the model has more to say"
        asking.send_signal(signal.SIGINT)
        asking.communicate(timeout=60)
        assert asking.returncode == 130
        assert server.wait_until_left()
