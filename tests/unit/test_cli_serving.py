"""`ragline keys` and `ragline serve`, as far as they answer without serving."""

from __future__ import annotations

import json
import signal
import socket
import sys
from pathlib import Path

import pytest

from ragline import cli
from ragline.server.running import _hanging_up_stops, is_local, listen


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_key_is_shown_once_listed_and_revoked(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["keys", "create", "--tenant", "acme", "--name", "ci", "--scope", "read", "--scope", "admin", "--rate", "2.5"]) == 0
    printed = capsys.readouterr()
    key = printed.out.strip()
    id = key.split("_")[1]
    assert key.startswith("rl_") and "not shown again" in printed.err and "wants a key" in printed.err and key not in printed.err
    assert cli.run(["keys", "create", "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["tenant"] == "default" and second["scopes"] == ["read", "write"] and second["key"].startswith(f"rl_{second['id']}_")

    assert cli.run(["keys", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["keys"]
    assert [each["id"] for each in listed] == [id, second["id"]]
    assert listed[0] | {"created_at": 0} == {
        "id": id,
        "tenant": "acme",
        "name": "ci",
        "scopes": ["admin", "read"],
        "rate_per_s": 2.5,
        "burst": None,
        "created_at": 0,
        "last_used_at": None,
        "revoked_at": None,
    }
    assert cli.run(["keys", "list", "--tenant", "acme"]) == 0
    table = capsys.readouterr().out
    assert id in table and second["id"] not in table and key.split("_")[2] not in table

    assert cli.run(["keys", "revoke", id, "--tenant", "other"]) == 1
    assert cli.run(["keys", "revoke", key]) == 0
    assert cli.run(["keys", "revoke", id]) == 0
    assert "was revoked before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["keys", "create", "--scope", "root"], 2),
        (["keys", "create", "--burst", "3"], 2),
        (["keys", "create", "--rate", "0"], 2),
        (["keys", "create", "--name", "two\nlines"], 2),
        (["keys", "create", "--tenant", " "], 2),
        (["keys", "revoke", "0123456789abcdef"], 1),
        (["keys", "revoke", "\udcff"], 1),
        (["serve", "--port", "70000"], 2),
        (["serve", "--workers", "0"], 2),
        (["serve", "--cors-origins", "*"], 2),
        (["serve", "--cors-origins", "https://a.example/path"], 2),
        (["serve", "--allowed-hosts", "a.example:80"], 2),
        (["serve", "--host", "0.0.0.0", "--port", "0"], 2),
        (["serve", "--host", "no.such.host.invalid"], 1),
    ],
)
def test_what_cannot_be_is_refused_with_its_cure(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*arguments, "--json"]) == code
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["message"] and error["hint"]


def test_a_port_that_is_taken_is_an_error_that_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert cli.run(["serve", "--port", str(taken.getsockname()[1])]) == 1
    assert "cannot be listened on" in capsys.readouterr().err


def test_what_keeps_it_from_starting_is_told_in_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "views").write_text("no folder")
    assert cli.run(["serve", "--port", "0", "--data-dir", str(tmp_path / "data")]) == 1
    said = capfd.readouterr().err
    assert "cannot be written" in said and "Traceback" not in said


def test_a_folder_that_is_no_model_ends_it_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    chosen = ["--set", f"embedding.model={tmp_path / 'empty'}"]
    assert cli.run(["serve", "--port", "0", "--data-dir", str(tmp_path / "data"), *chosen]) == 1
    assert "the server cannot run" in capfd.readouterr().err


def test_hanging_up_is_ignored_where_it_was_before() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        with _hanging_up_stops():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with _hanging_up_stops():
            assert callable(signal.getsignal(signal.SIGHUP))
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("generation.generator=openai", "generation.model"),
        ("embedding.model=/no/model", "there is no model '/no/model'"),
    ],
)
def test_settings_with_which_nothing_could_be_answered_end_it_with_a_sentence(
    setting: str, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["serve", "--port", "0", "--data-dir", str(tmp_path / "data"), "--set", setting]) == 1
    log = capfd.readouterr().err
    assert "the server cannot run" in log and said in log and "Traceback" not in log


def test_without_the_extra_its_install_line_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in sys.modules if name.startswith(("ragline.server", "fastapi", "uvicorn"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("fastapi", "uvicorn"):
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.run(["serve", "--port", "0"]) == 1
    assert "pip install 'ragline[server]'" in capsys.readouterr().err


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("localhost", True), ("127.9.9.9", True), ("0.0.0.0", False)])
def test_an_address_that_others_can_reach_is_known(host: str, local: bool) -> None:
    with listen(host, 0) as listening:
        assert is_local(listening) is local
