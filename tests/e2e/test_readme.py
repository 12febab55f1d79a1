"""What the README shows works, and the public surface is what it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import ragline
from tests.imitation.chat import MODEL, ChatServer, Script
from tests.imitation.http import ImitationServer, Reply
from tests.imitation.site import Site, page

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_program_in_the_readme_runs(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "keys.md").write_text("# Keys\n\nTo rotate keys, run the rotation script as the duty officer.\n")
    (program,) = _blocks("python")
    ran = subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    assert "1 added; ()" in ran.stdout
    assert "rotation script" in ran.stdout and "[1] docs/keys.md Keys" in ran.stdout


def _commands() -> list[str]:
    lines = [line for block in _blocks("sh") for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line.startswith("ragline")]


SITE = {
    "/": page("The gate opens at nine.", "/docs/"),
    "/docs/": page("Keys are kept in the safe.", "/docs/keys.html"),
    "/docs/keys.html": page("To rotate keys, run the rotation script as the duty officer."),
    "/sitemap.xml": Reply(
        b'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"><url><loc>HERE/docs/keys.html</loc></url></urlset>',
        200,
        {"content-type": "application/xml"},
    ),
}


def test_the_commands_in_the_readme_run(tmp_path: Path) -> None:
    """With a site and language models on this machine in the place of those named."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "papers").mkdir()
    (tmp_path / "docs" / "keys.md").write_text("# Keys\n\nTo rotate keys, run the rotation script as the duty officer.\n")
    (tmp_path / "notes.md").write_text("Boats are serviced in March.\n")
    (tmp_path / "papers" / "a.pdf").write_bytes((ROOT / "examples/corpus/reports/datum-survey-2023.pdf").read_bytes())
    commands = _commands()
    assert len(commands) >= 12
    site = Site(SITE)
    written = Script(["The duty officer rotates them [1]."])
    with ImitationServer(site) as web, ChatServer("openai", script=written) as openai, ChatServer("ollama", script=written) as ollama:
        map_of_site = site.pages["/sitemap.xml"]
        assert isinstance(map_of_site.body, bytes)
        site.pages["/sitemap.xml"] = replace(map_of_site, body=map_of_site.body.replace(b"HERE", web.url.encode()))
        environment = {
            **os.environ,
            "RAGLINE_WEB__PRIVATE_ADDRESSES": "true",
            "OPENAI_BASE_URL": openai.base_url,
            "OPENAI_API_KEY": "a key",
            "OLLAMA_HOST": ollama.base_url,
        }
        for command in commands:
            line = command.replace("https://example.com", web.url)
            line = re.sub("generation.model=[^ ]+", f"generation.model={MODEL}", line)
            arguments = [sys.executable, "-m", *shlex.split(line)]
            ran = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=240, env=environment)
            assert ran.returncode == 0, (command, ran.stdout, ran.stderr)
            if "generation." in command:
                assert "The duty officer rotates them" in ran.stdout, (command, ran.stdout, ran.stderr)
        assert {request.path for request in web.requests} >= {"/docs/", "/docs/keys.html", "/sitemap.xml"}
        assert openai.asked and ollama.asked


def test_every_command_is_in_the_readme() -> None:
    listed = subprocess.run([sys.executable, "-m", "ragline", "--help"], capture_output=True, text=True, timeout=60).stdout
    for name in re.findall(r"^  ([a-z]+)  ", listed.split("Commands:")[1], re.MULTILINE):
        assert re.search(rf"ragline {name}|`{name}", README), f"the README does not mention `ragline {name}`"


def test_the_public_names_are_sorted_and_there() -> None:
    assert ragline.__all__ == sorted(ragline.__all__, key=lambda name: (not name[0].isupper(), name))
    for name in ragline.__all__:
        assert getattr(ragline, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute"):
        ragline.nothing  # noqa: B018


def test_importing_ragline_loads_nothing_heavy() -> None:
    program = "import sys, ragline; print([m for m in ('numpy', 'faiss', 'onnxruntime', 'pydantic', 'kreuzberg') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "[]", ran.stderr


def test_links_between_the_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        prose = re.sub("```.*?```", "", document.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#:]+)\)", prose):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
