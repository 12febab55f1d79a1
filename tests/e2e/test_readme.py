"""What the README shows works, and the public surface is what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import ragline

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


def test_the_commands_in_the_readme_run(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "papers").mkdir()
    (tmp_path / "docs" / "keys.md").write_text("# Keys\n\nTo rotate keys, run the rotation script as the duty officer.\n")
    (tmp_path / "notes.md").write_text("Boats are serviced in March.\n")
    (tmp_path / "papers" / "a.pdf").write_bytes((ROOT / "examples/corpus/reports/datum-survey-2023.pdf").read_bytes())
    commands = _commands()
    assert len(commands) >= 7
    for command in commands:
        ran = subprocess.run([sys.executable, "-m", *shlex.split(command)], cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert ran.returncode == 0, (command, ran.stdout, ran.stderr)


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
    for page in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
