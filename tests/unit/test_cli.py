"""The command line before any engine opens: options, exit codes, errors, help."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ragline import cli
from ragline.cli.app import app
from ragline.cli.options import Common
from ragline.errors import (
    BackendError,
    ConflictError,
    FilterError,
    InputError,
    MissingExtraError,
    NotFoundError,
    RaglineError,
    ReadError,
    SettingsError,
)
from ragline.observe.logs import JsonLines

COMMANDS = [
    ["ask"],
    ["ingest"],
    ["search"],
    ["reindex"],
    ["eval"],
    ["serve"],
    ["status"],
    ["doctor"],
    ["documents", "list"],
    ["documents", "show"],
    ["documents", "delete"],
    ["collections", "list"],
    ["collections", "delete"],
    ["keys", "create"],
    ["keys", "list"],
    ["keys", "revoke"],
    ["cache", "stats"],
    ["cache", "clear"],
    ["cache", "warm"],
    ["config", "show"],
    ["config", "init"],
]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_keys_list_says_what_it_means_that_there_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["keys", "list"]) == 0
    assert "no keys: a server on this data folder answers its own machine only" in capsys.readouterr().out
    assert cli.run(["keys", "create", "--tenant", "acme"]) == 0
    assert cli.run(["keys", "list", "--tenant", "other"]) == 0
    assert "tenant other has no keys" in capsys.readouterr().out


def error_of(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    printed = capsys.readouterr()
    assert printed.err == ""
    error: dict[str, str] = json.loads(printed.out)["error"]
    return error


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_and_has_the_common_options(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], prog_name="ragline")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: ragline {' '.join(command)} ")
    for option in (
        "--json",
        "--data-dir",
        "--collection",
        "--tenant",
        "--config",
        "--profile",
        "--set",
        "--debug",
        "--log-level",
        "--log-format",
    ):
        assert option in result.stdout


def test_there_are_no_other_commands() -> None:
    listed = CliRunner().invoke(app, ["--help"]).stdout.partition("Commands:\n")[2]
    assert [line.split()[0] for line in listed.splitlines()] == list(dict.fromkeys(command[0] for command in COMMANDS))


def test_the_log_goes_to_standard_error_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger("ragline")
    for name, value in (("handlers", []), ("level", 0), ("propagate", True)):
        monkeypatch.setattr(root, name, value)
    assert cli.run(["config", "show", "pool", "--json"]) == 0 and root.handlers == []
    assert cli.run(["--log-level", "debug", "config", "show", "pool", "--log-format", "json", "--json"]) == 0
    (handler,) = root.handlers
    assert root.level == logging.DEBUG and isinstance(handler.formatter, JsonLines)


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ragline 0.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "nope"),
        (["search"], "query"),
        (["documents"], "Missing command"),
        (["search", "x", "--no-such-option"], "--no-such-option"),
        (["search", "x", "--mode", "fuzzy"], "'hybrid', 'dense', 'lexical'"),
        (["search", "x", "--top-k", "many"], "--top-k"),
        (["search", "x", "--filter", "{"], "--filter is not JSON"),
        (["search", "x", "--filter", "[1]"], "--filter is not a JSON object"),
        (["search", "x", "--data-dir", ""], "data_dir"),
        (["search", "x", "--config", "absent.toml"], "absent.toml"),
        (["search", "x", "--config", "settings.ini"], "settings.ini"),
        (["search", "x", "--profile", "huge"], "memory-constrained"),
        (["search", "x", "--set", "retrieval.top_k"], "KEY=VALUE"),
        (["search", "x", "--set", "=5"], "KEY=VALUE"),
        (["search", "x", "--set", "retrieval.top=5"], "did you mean 'retrieval.top_k'"),
        (["search", "x", "--set", "retrieval.top_k=many"], "--set retrieval.top_k"),
        (["config", "show", "retrieval.top"], "'retrieval.top' (did you mean 'retrieval.top_k'?)"),
        (["config", "show", "retrievl"], "did you mean 'retrieval'?"),
        (["config", "init", "--format", "ini"], "--format"),
        (["config", "init", "--config", "my.yaml", "--format", "toml"], "my.yaml"),
        (["ingest", "x", "--id", "1"], "--id"),
        (["ingest", "-", "--metadata", "3"], "--metadata"),
        (["documents", "list", "--limit", "0"], "--limit"),
        (["eval", "absent"], "absent"),
    ],
)
def test_wrong_usage_is_2_with_a_message_and_a_cure(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Error: ")
    assert words in printed.err
    assert "Hint: " in printed.err
    assert cli.run(["--json", *arguments]) == 2
    assert words in error_of(capsys)["message"]


def test_the_hint_of_wrong_usage_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["documents", "show"])
    assert "`ragline documents show --help`" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["search", "x"], ["ask", "x"], ["status"], ["documents", "list"], ["collections", "delete", "x"]])
def test_a_question_to_no_data_folder_says_how_to_begin_and_makes_none(
    arguments: list[str], capsys: pytest.CaptureFixture[str], working_folder: Path
) -> None:
    assert cli.run(arguments) == 1
    assert "ragline ingest PATH" in capsys.readouterr().err
    assert list(working_folder.iterdir()) == []


def test_an_unknown_variable_is_refused_by_every_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGLINE_DATADIR", "x")
    assert cli.run(["search", "x", "--json"]) == 2
    error = error_of(capsys)
    assert error["code"] == "invalid_setting"
    assert "did you mean 'RAGLINE_DATA_DIR'" in error["message"]


def test_options_stand_before_or_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    def shown(arguments: Sequence[str]) -> dict[str, Any]:
        assert cli.run(arguments) == 0
        values: dict[str, Any] = json.loads(capsys.readouterr().out)
        return values

    before = shown(["--json", "--tenant", "acme", "config", "show"])
    assert before["tenant"] == {"value": "acme", "origin": "--tenant"}
    assert shown(["config", "show", "--tenant", "acme", "--json"]) == before
    assert shown(["--tenant", "other", "config", "show", "--json", "--tenant", "acme"]) == before


def test_any_setting_can_be_set_on_the_command_line_and_wins_over_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGLINE_RETRIEVAL__TOP_K", "7")
    monkeypatch.setenv("RAGLINE_PROFILE", "laptop")

    def shown(*arguments: str) -> dict[str, Any]:
        assert cli.run([*arguments, "--json"]) == 0
        values: dict[str, Any] = json.loads(capsys.readouterr().out)
        return values

    values = shown("--set", "retrieval.top_k=8", "--set", "pool.max_size=3", "config", "show", "--set", "retrieval.top_k=9")
    assert values["retrieval.top_k"] == {"value": 9, "origin": "--set retrieval.top_k"}
    assert values["pool.max_size"] == {"value": 3, "origin": "--set pool.max_size"}
    assert values["embedding.batch_texts"] == {"value": 32, "origin": "profile laptop"}
    assert values["profile"] == {"value": "laptop", "origin": "RAGLINE_PROFILE in the environment"}
    assert shown("config", "show", "--profile", "server")["embedding.batch_texts"] == {"value": 64, "origin": "profile server"}
    prefix = shown("config", "show", "--set", "embedding.question_prefix=a = b: c ")["embedding.question_prefix"]
    assert prefix == {"value": "a = b: c ", "origin": "--set embedding.question_prefix"}
    assert shown("config", "show", "--set", "generation.temperature=unset")["generation.temperature"]["value"] is None
    assert shown("config", "show", "--set", "tenant=a", "--tenant", "b")["tenant"] == {"value": "b", "origin": "--tenant"}


def test_config_show_can_be_asked_for_some_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", "show", "pool", "retrieval.top_k", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["retrieval.top_k", "pool.min_size", "pool.max_size"]
    assert cli.run(["config", "show", "generation.api_key"]) == 0
    assert "generation.api_key  unset  default" in capsys.readouterr().out


def test_the_nearer_option_wins() -> None:
    near = Common(collection="near", assignments=["a=2"])
    far = Common(json=True, collection="far", tenant="far", assignments=["a=1"])
    assert near.over(far) == Common(json=True, collection="near", tenant="far", assignments=["a=1", "a=2"])
    assert Common(data_dir="").over(Common(data_dir="far")).data_dir == ""


def test_config_show_names_the_origin_of_every_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, working_folder: Path
) -> None:
    (working_folder / "my.toml").write_text("[chunking]\nmax_tokens = 128\n")
    (working_folder / ".env").write_text("RAGLINE_RETRIEVAL__TOP_K=7\n")
    monkeypatch.setenv("RAGLINE_INDEX__WAIT_S", "0")
    monkeypatch.setenv("RAGLINE_CACHE_DIR", "models")
    assert cli.run(["config", "show", "--config", "my.toml", "--data-dir", "d", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["chunking.max_tokens"] == {"value": 128, "origin": "my.toml"}
    assert values["retrieval.top_k"] == {"value": 7, "origin": "RAGLINE_RETRIEVAL__TOP_K in .env"}
    assert values["index.wait_s"] == {"value": 0.0, "origin": "RAGLINE_INDEX__WAIT_S in the environment"}
    assert values["cache_dir"] == {"value": "models", "origin": "RAGLINE_CACHE_DIR in the environment"}
    assert values["data_dir"] == {"value": "d", "origin": "--data-dir"}
    assert values["retrieval.mode"] == {"value": "hybrid", "origin": "default"}
    assert cli.run(["config", "show", "--config", "my.toml"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("chunking.max_tokens"))
    assert line.split() == ["chunking.max_tokens", "128", "my.toml"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x"), 2),
        (FilterError("x"), 2),
        (SettingsError("x"), 2),
        (ReadError("x"), 1),
        (MissingExtraError("x"), 1),
        (NotFoundError("x"), 1),
        (ConflictError("x"), 1),
        (BackendError("x"), 1),
    ],
)
def test_the_exit_code_says_whose_fault_it_is(error: RaglineError, code: int) -> None:
    assert cli.exit_code(error) == code


@pytest.fixture
def broken_command(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Lets `ragline status` raise what is put into the list."""
    from ragline.cli import things

    raised: list[BaseException] = []

    async def status(common: Common) -> int:
        raise raised[0]

    monkeypatch.setattr(things, "status", status)
    return raised


def test_an_unexpected_error_is_one_line_unless_debug_is_given(
    broken_command: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    broken_command.append(ZeroDivisionError("deep\ndown"))
    assert cli.run(["status"]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "Error: unexpected ZeroDivisionError: deep",
        "Hint: run it again with --debug and report what that shows",
    ]
    assert cli.run(["status", "--json"]) == 1
    assert error_of(capsys)["code"] == "internal"
    with pytest.raises(ZeroDivisionError):
        cli.run(["status", "--debug"])


def test_an_expected_error_keeps_code_message_and_hint(broken_command: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    broken_command.append(BackendError("the disk is full", hint="make room"))
    assert cli.run(["status"]) == 1
    assert capsys.readouterr().err == "Error: the disk is full\nHint: make room\n"
    assert cli.run(["status", "--json"]) == 1
    assert error_of(capsys) == {"code": "backend_failed", "message": "the disk is full", "hint": "make room"}


def test_an_interrupt_is_130_without_a_traceback(broken_command: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    broken_command.append(KeyboardInterrupt())
    assert cli.run(["status"]) == 130
    printed = capsys.readouterr()
    assert printed.err.startswith("Error: interrupted\n")
    assert cli.run(["status", "--json"]) == 130
    assert error_of(capsys)["code"] == "interrupted"


def test_json_after_a_double_dash_is_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["search", "--", "--json"]) == 1
    assert "Error: there is no data folder" in capsys.readouterr().err


def test_help_needs_neither_engine_nor_rich() -> None:
    code = (
        "import sys; from ragline import cli; cli.run(['--help'])\n"
        "heavy = {'numpy', 'pydantic', 'rich', 'onnxruntime', 'faiss', 'tantivy', 'asyncpg', 'ragline.engine'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
