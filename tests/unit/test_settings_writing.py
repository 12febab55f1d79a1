"""`ragline config init`: the file it writes is whole, private, and says what the code says."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from ragline import cli
from ragline.errors import SettingsError
from ragline.settings import PROFILES, Settings, load_flags, load_settings, plain_values, setting_keys
from ragline.settings.files import MAX_FILE_BYTES, Form
from ragline.settings.writing import settings_text

FORMS: tuple[Form, ...] = ("toml", "yaml")


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def uncommented(text: str) -> str:
    """The file with every setting in force: explanations stand after "# ", settings after "#"."""
    return re.sub(r"^( *)#(?=\S)", r"\1", text, flags=re.MULTILINE)


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    message: str = json.loads(capsys.readouterr().out)["error"]["message"]
    return message


@pytest.mark.parametrize("form", FORMS)
def test_the_file_written_changes_nothing_until_it_is_edited(form: Form, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", "init", "--format", form]) == 0
    assert f"wrote ragline.{form}" in capsys.readouterr().out
    loaded = load_settings(environ={})
    assert loaded.settings == Settings()
    assert {origin.kind for origin in loaded.origins.values()} == {"default"}


@pytest.mark.parametrize("form", FORMS)
def test_every_setting_stands_in_it_with_its_description_and_default(form: Form) -> None:
    cli.run(["config", "init", "--format", form])
    file = Path(f"ragline.{form}")
    words = " ".join(file.read_text().replace("#", " ").split())
    assert [key for key, field in setting_keys().items() if " ".join((field.description or "?").split()) not in words] == []
    file.write_text(uncommented(file.read_text()))
    loaded = load_settings(environ={})
    assert loaded.settings == Settings()
    assert {origin.kind for origin in loaded.origins.values()} == {"file"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_is_set_and_its_values_are_shown(form: Form, profile: str) -> None:
    assert cli.run(["config", "init", "--format", form, "--profile", profile]) == 0
    file = Path(f"ragline.{form}")
    assert load_settings(environ={}).settings == Settings(profile=profile)
    file.write_text(uncommented(file.read_text()))
    loaded = load_settings(environ={})
    assert plain_values(loaded.settings) == plain_values(Settings(profile=profile))
    assert loaded.origins["pool.max_size"].kind == "file"


ODD = {
    "tenant": 'quote " backslash \\ tab \t hash # colon: \u2028 \x85 \x7f \ufeff é 😀',
    "collection": "on",
    "embedding.question_prefix": "",
    "embedding.passage_prefix": " passage: ",
    "generation.temperature": "unset",
    "generation.api_key": "sk-x",
    "reading.hidden": "yes",
    "data_dir": "2024-01-01",
    "retrieval.top_k": "7",
    "index.wait_s": "0.5",
}


@pytest.mark.parametrize("form", FORMS)
def test_flags_are_written_as_values_in_force(form: Form) -> None:
    flags = [part for key, value in ODD.items() for part in ("--set", f"{key}={value}")]
    assert cli.run(["config", "init", "--format", form, *flags]) == 0
    loaded = load_settings(environ={})
    assert loaded.settings == load_settings(environ={}, assignments=ODD, config_file=None).settings
    assert {key for key, origin in loaded.origins.items() if origin.kind == "file"} == set(ODD)
    assert loaded.settings.generation.temperature is None
    assert loaded.settings.tenant == ODD["tenant"]


def test_a_file_that_is_there_is_kept_unless_forced(capsys: pytest.CaptureFixture[str]) -> None:
    Path("ragline.toml").write_text("tenant = 'mine'\n")
    assert cli.run(["config", "init", "--json"]) == 1
    assert "there is a settings file 'ragline.toml' already" in error_of(capsys)
    assert Path("ragline.toml").read_text() == "tenant = 'mine'\n"
    assert cli.run(["config", "init", "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"written": "ragline.toml"}
    assert load_settings(environ={}).settings == Settings()


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_no_second_file_is_written_beside_one_of_another_form(force: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("ragline.yml").write_text("tenant: mine\n")
    assert cli.run(["config", "init", *force, "--json"]) == 1
    assert "'ragline.yml'" in error_of(capsys)
    assert os.listdir() == ["ragline.yml"]


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_only_its_owner_can_read_it_and_nothing_else_is_left(force: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if force:
        Path("ragline.toml").write_text("")
        Path("ragline.toml").chmod(0o644)
    assert cli.run(["config", "init", *force]) == 0
    assert stat.S_IMODE(os.stat("ragline.toml").st_mode) == 0o600
    assert os.listdir() == ["ragline.toml"]


def test_a_file_that_cannot_be_loaded_can_be_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    Path("ragline.toml").write_text("what = is = this\n")
    Path(".env").write_text("RAGLINE_NOPE=1\n")
    assert cli.run(["config", "init", "--force"]) == 0
    Path(".env").unlink()
    assert load_settings(environ={}).settings == Settings()


def test_config_names_the_file_and_its_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", "init", "--config", "my.yaml"]) == 0
    assert yaml.safe_load(Path("my.yaml").read_text())["retrieval"] is None
    assert cli.run(["config", "init", "--config", "other.yaml", "--format", "toml"]) == 2
    assert cli.run(["config", "init", "--config", "other.ini"]) == 2
    assert cli.run(["config", "init", "--config", "no/such/folder.toml"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert os.listdir() == ["my.yaml"]


@pytest.mark.parametrize(
    "flags", [["--profile", "huge"], ["--set", "retrieval.top_k=many"], ["--set", "nope=1"], ["--set", "x"], ["--set", "tenant=\udcff"]]
)
def test_what_cannot_be_set_is_not_written(flags: list[str]) -> None:
    assert cli.run(["config", "init", *flags]) == 2
    assert os.listdir() == []


def test_a_full_disk_leaves_neither_half_a_file_nor_a_claim_to_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "ragline.toml")

    monkeypatch.setattr(os, "fsync", full)
    assert cli.run(["config", "init"]) == 1
    assert os.listdir() == []
    Path("ragline.toml").write_text("tenant = 'mine'\n")
    assert cli.run(["config", "init", "--force"]) == 1
    assert os.listdir() == ["ragline.toml"]
    assert Path("ragline.toml").read_text() == "tenant = 'mine'\n"


@pytest.mark.parametrize("form", FORMS)
def test_the_file_is_far_from_the_limits_of_what_is_read(form: Form) -> None:
    text = settings_text(load_flags(flags={}, assignments={}), form)
    assert len(text.encode()) < MAX_FILE_BYTES / 3
    assert max(len(line) for line in text.splitlines()) <= 140


def test_flags_that_cannot_be_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"--set retrieval\.top"):
        load_flags(flags={}, assignments={"retrieval.top": "1"})
