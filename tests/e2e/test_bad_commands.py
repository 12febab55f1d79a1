"""What a hostile or an unlucky user does to the command: each start costs about a second, so each test is a whole story."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ragline.embedding.models import DEFAULT_MODEL, locate_model
from ragline.errors import NotFoundError
from ragline.settings import load_settings
from ragline.types import Document
from tests.engines import sync_engine

COMMAND = [sys.executable, "-m", "ragline"]
KEYS = "# Keys\n\nAPI keys rotate every 90 days. The old key stays valid for one week.\n"


@pytest.fixture(scope="module", autouse=True)
def model() -> None:
    """The default model, found before any command runs."""
    locate_model(DEFAULT_MODEL, cache_dir=load_settings().settings.model_cache_dir(), announce=lambda _: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "keys.md").write_text(KEYS)
    return tmp_path


def ragline(folder: Path, *arguments: str | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
    finished = subprocess.run([*COMMAND, *arguments], cwd=folder, timeout=120, check=False, **options)
    assert b"Traceback" not in (finished.stderr or b""), finished.stderr.decode()
    return finished


def error_of(finished: subprocess.CompletedProcess[bytes], code: int) -> dict[str, str]:
    assert finished.returncode == code, (finished.stdout, finished.stderr)
    error: dict[str, str] = json.loads(finished.stdout)["error"]
    assert error["message"] and error["hint"]
    return error


def test_file_names_cannot_take_over_the_terminal_or_the_json(folder: Path) -> None:
    docs = os.fsencode(folder / "docs")
    for name in (b"new\nline.txt", b"esc\x1b[31m\x1b]0;title\x07.md", b"--json", b"*.txt", b"bad\xff\xfe.txt", "e\u0301.txt".encode()):
        (Path(os.fsdecode(docs + b"/" + name))).write_text(f"Keys rotate in {len(name)} days.")
    report = json.loads(ragline(folder, "ingest", "docs", "--json").stdout)
    assert (report["added"], report["failed"]) == (7, [])
    shown = ragline(folder, "documents", "list").stdout
    assert b"\x1b" not in shown
    assert len(shown.splitlines()) == 8
    listed = json.loads(ragline(folder, "documents", "list", "--json").stdout)["documents"]
    assert {"docs/new\nline.txt", "docs/--json", "docs/*.txt", "docs/bad\\xff\\xfe.txt"} <= {each["source"] for each in listed}
    by_bytes = ragline(folder, "ingest", b"docs/bad\xff\xfe.txt", "docs/*.txt", "--json")  # a file of that very name, not a pattern
    assert json.loads(by_bytes.stdout)["unchanged"] == 2


def test_a_question_makes_no_store(folder: Path) -> None:
    (folder / "a_file").write_text("")
    for data_dir, what in (("docs", "there is no store in"), ("none", "there is no data folder"), ("a_file", "there is no data folder")):
        error = error_of(ragline(folder, "status", "--data-dir", data_dir, "--json"), 1)
        assert error["code"] == "not_found"
        assert what in error["message"]
    assert sorted(os.listdir(folder)) == ["a_file", "docs"]
    assert os.listdir(folder / "docs") == ["keys.md"]


def test_a_question_for_a_tenant_that_has_nothing_names_the_option_of_tenants(folder: Path) -> None:
    with sync_engine(folder / ".ragline") as engine:
        engine.ingest(Document(KEYS))
    error = error_of(ragline(folder, "search", "keys", "--tenant", "nope", "--json"), 1)
    assert "for the tenant 'nope'" in error["message"] and "--tenant" in error["hint"]


def test_json_without_end_is_refused(folder: Path) -> None:
    bottomless = '{"a": ' + "[" * 50_000 + "]" * 50_000 + "}"
    assert error_of(ragline(folder, "search", "keys", "--filter", bottomless, "--json"), 2)["code"] == "invalid_filter"
    assert error_of(ragline(folder, "ingest", "-", "--metadata", bottomless, "--json"), 2)["code"] == "invalid_input"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_standard_streams_that_are_closed_or_full(folder: Path) -> None:
    assert ragline(folder, "ingest", "docs").returncode == 0

    def close_all() -> None:
        os.closerange(0, 3)

    assert ragline(folder, "search", "keys", preexec_fn=close_all).returncode == 0
    nothing = ragline(folder, "ingest", "-", preexec_fn=lambda: os.close(0))
    assert (nothing.returncode, nothing.stderr) == (1, b"")
    assert b"no text" in nothing.stdout
    assert ragline(folder, "doctor", "--verify").returncode == 0
    with open("/dev/full", "wb") as full:
        for arguments in (["config", "show"], ["search", "keys", "--json"], ["--help"]):
            refused = ragline(folder, *arguments, stdout=full)
            assert (refused.returncode, refused.stderr) == (1, b"Error: standard output cannot be written: No space left on device\n")


def test_a_full_disk_is_named_and_costs_nothing_that_was_acknowledged(folder: Path) -> None:
    (folder / "disk").mkdir()
    (folder / "more.txt").write_text("\n\n".join(f"Passage {number} of words {number * 7}." * 40 for number in range(60)))
    script = f"""
        mount -t tmpfs -o size=2m tmpfs disk || exit 77
        R="{sys.executable} -m ragline"
        $R ingest docs --data-dir disk/data >/dev/null || exit 1
        head -c 4m /dev/zero >disk/fill 2>/dev/null
        $R search keys --data-dir disk/data --json; echo "code $?"
        $R ingest more.txt --data-dir disk/data; echo "code $?"
        rm disk/fill
        $R search keys --data-dir disk/data --json >found.json || exit 1
        $R doctor --verify --data-dir disk/data
    """
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    # A mount name space of its own: the small disk goes with the script.
    finished = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script], cwd=folder, capture_output=True, timeout=120, check=False
    )
    if finished.returncode == 77 or b"unshare" in finished.stderr:
        pytest.skip("this machine lets nobody mount a small disk")
    output = finished.stdout.decode() + finished.stderr.decode()
    assert finished.returncode == 0, output
    assert output.count("code 1") == 2, output
    assert output.count("the disk is full") == 2, output
    assert "Traceback" not in output
    assert len(json.loads((folder / "found.json").read_text())["hits"]) == 1


def test_impatient_ctrl_c_ends_without_a_traceback(folder: Path) -> None:
    (folder / "many").mkdir()
    for number in range(2000):
        (folder / "many" / f"{number}.html").write_text("<p>" + " ".join(f"word{number}x{part}" for part in range(600)))
    process = subprocess.Popen([*COMMAND, "ingest", "many"], cwd=folder, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (folder / ".ragline" / "store.sqlite3").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    while process.poll() is None and time.monotonic() < deadline:
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.01)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode in (130, -signal.SIGINT)
    assert b"Traceback" not in errors, errors.decode()
    assert ragline(folder, "doctor", "--verify").returncode == 0


def test_a_model_that_cannot_be_looked_for_is_not_found(tmp_path: Path) -> None:
    for name in ("x" * 5000, "owner/a--b", "a\0b", "~nobody-of-this-name/model", "../x/y"):
        with pytest.raises(NotFoundError, match=r"there is no model|has no"):
            locate_model(name, cache_dir=tmp_path, announce=lambda _: None)


def test_a_settings_file_is_begun_kept_and_obeyed(folder: Path) -> None:
    assert ragline(folder, "config", "init", "--profile", "memory-constrained", "--set", "collection=notes").returncode == 0
    assert (folder / "ragline.toml").stat().st_mode & 0o777 == 0o600
    assert error_of(ragline(folder, "config", "init", "--json"), 1)["code"] == "conflict"
    assert ragline(folder, "ingest", "docs").returncode == 0
    listed = json.loads(ragline(folder, "collections", "list", "--json").stdout)["collections"]
    assert [each["name"] for each in listed] == ["notes"]
    (folder / "ragline.yaml").write_text("collection: other\n")
    error = error_of(ragline(folder, "status", "--json"), 2)
    assert "ragline.toml, ragline.yaml" in error["message"]
    assert ragline(folder, "status", "--config", "ragline.toml").returncode == 0
    for hostile in ("/dev/zero", "docs", "absent.yaml", "a" * 5000 + ".yaml"):
        assert error_of(ragline(folder, "status", "--config", hostile, "--json"), 2)["code"] == "invalid_setting"


def test_doctor_looks_at_what_is_there_and_names_what_is_not(folder: Path) -> None:
    before = ragline(folder, "doctor", "--json")
    assert before.returncode == 0
    assert not (folder / ".ragline").exists()
    assert "there is no store in .ragline yet" in [each["what"] for each in json.loads(before.stdout)["findings"]]
    assert ragline(folder, "ingest", "docs").returncode == 0
    assert ragline(folder, "doctor", "--verify").returncode == 0
    (folder / ".ragline" / "store.sqlite3").write_bytes(b"no longer a database " * 1000)
    damaged = ragline(folder, "doctor", "--json")
    assert damaged.returncode == 1
    findings = json.loads(damaged.stdout)["findings"]
    assert [each["level"] for each in findings].count("error") == 1
    assert any(each["what"].startswith("embedding with") for each in findings)
