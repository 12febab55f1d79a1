"""URLs on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragline import cli
from tests.imitation.http import ImitationServer
from tests.imitation.site import Site, page


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("flag", [["--depth", "1"], ["--sitemap"], ["--max-pages", "5"]])
@pytest.mark.parametrize("command", [["ingest"], ["ask", "why?"]])
def test_flags_about_urls_need_one(command: list[str], flag: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*command, "docs", *flag]) == 2
    printed = capsys.readouterr().err
    assert flag[0] in printed and "Hint: " in printed


@pytest.mark.parametrize("flag", [["--depth", "-1"], ["--depth", "101"], ["--max-pages", "0"]])
def test_flags_out_of_range_are_named(flag: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ingest", "http://127.0.0.1/", *flag]) == 2
    assert flag[0] in capsys.readouterr().err


def test_a_site_is_read_and_asked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {"/docs/": page("The way in.", "keys", "boats", "gone"), "/docs/keys": page("Signing keys are rotated every ninety days.")}
    with ImitationServer(Site({**pages, "/docs/boats": page("The Kittiwake seats nine.")})) as server:
        url = server.url + "/docs/"
        assert cli.run(["ingest", url, "--json"]) == 1, "addresses of this machine are refused by default"
        refused = json.loads(capsys.readouterr().out)
        assert "web.private_addresses" in refused["failed"][0]["hint"] and not server.requests
        monkeypatch.setenv("RAGLINE_WEB__PRIVATE_ADDRESSES", "true")
        assert cli.run(["ingest", url, "--depth", "1", "--max-pages", "2", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["added"] == 3 and [each["source"] for each in report["skipped"]] == [url + "gone"]
        assert "web.max_pages is 2" in report["skipped"][0]["reason"]
        assert cli.run(["ask", "How often are signing keys rotated?", url, "--depth", "1", "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert "ninety days" in answer["answer"] and answer["citations"][0]["source"] == server.url + "/docs/keys"
