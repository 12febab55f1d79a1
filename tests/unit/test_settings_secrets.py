"""Keys: where they come from, where they may go, and that they are never shown."""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path

import pytest

from ragline import cli
from ragline.errors import SettingsError
from ragline.settings import Origin, Settings, is_secret, load_settings, plain_values, setting_keys
from ragline.settings.variables import ollama_address

SECRET = "sk-hunter2hunter2"
SECRETS = [key for key in setting_keys() if is_secret(key)]
THIEF = "https://thief.example/v1"


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST", "TESSDATA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def key_of(settings: Settings, section: str = "generation") -> str | None:
    secret = getattr(settings, section).api_key
    return None if secret is None else str(secret.get_secret_value())


def test_all_keys_are_known_as_secrets() -> None:
    assert SECRETS == ["embedding.api_key", "rerank.api_key", "generation.api_key"]


@pytest.mark.parametrize("key", SECRETS)
def test_a_key_is_never_shown(key: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = load_settings(environ={}, assignments={key: SECRET}).settings
    assert key_of(settings, key.partition(".")[0]) == SECRET
    shown = [repr(settings), str(settings), settings.model_dump_json(), json.dumps(plain_values(settings)), str(settings.model_dump())]
    assert [text for text in shown if SECRET in text] == []
    for arguments in (["config", "show"], ["config", "show", "--json"], ["config", "show", key]):
        assert cli.run([*arguments, "--set", f"{key}={SECRET}"]) == 0
        printed = capsys.readouterr()
        assert SECRET not in printed.out + printed.err
        assert "*****" in printed.out
    assert SECRET not in caplog.text


@pytest.mark.parametrize("key", SECRETS)
@pytest.mark.parametrize("value", [f"{SECRET}\nX: y", f"{SECRET}\x00", f"{SECRET}é", f"{SECRET}\udcff"])
def test_a_key_that_cannot_stand_in_a_header_is_refused_without_being_quoted(key: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"{key} has a value that it cannot take \(from --set {key}\)") as caught:
        load_settings(environ={}, assignments={key: value})
    assert SECRET not in "".join(traceback.format_exception(caught.value)), "the chain of causes shows it"


@pytest.mark.parametrize("key", SECRETS)
def test_a_key_of_the_wrong_type_is_refused_without_being_quoted(key: str) -> None:
    section, _, name = key.partition(".")
    for value in ("123456789012", "[123456789012]", "{x: 123456789012}", "2031-01-02", "on", "''", "' '"):
        Path("ragline.yaml").write_text(f"{section}:\n  {name}: {value}\n")
        with pytest.raises(SettingsError, match=key) as caught:
            load_settings(environ={})
        chain = "".join(traceback.format_exception(caught.value))
        assert "123456789012" not in chain
        assert "2031" not in chain


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ragline.yaml", f"generation:\n  api_key: {SECRET}: {SECRET}\n"),
        ("ragline.yaml", f"generation:\n  api_key: !!float {SECRET}\n"),
        ("ragline.yaml", f"generation:\n\tapi_key: {SECRET}\n"),
        ("ragline.yaml", f"generation:\n  api_key: *{SECRET}\n"),
        ("ragline.yaml", f'generation:\n  api_key: "{SECRET}\n'),
        ("ragline.yaml", f"generation:\n  api_kee: {SECRET}\n"),
        ("ragline.yaml", f"generation: {SECRET}\n"),
        ("ragline.yaml", f"{SECRET}\n"),
        ("ragline.yaml", f"generation:\n  api_key: {SECRET}\n  api_key: {SECRET}\n"),
        ("ragline.toml", f"[generation]\napi_key = {SECRET}\n"),
        ("ragline.toml", f'[generation]\napi_key = "{SECRET}\n'),
        ("ragline.toml", f'[generation]\napi_kee = "{SECRET}"\n'),
        ("ragline.toml", f'generation = "{SECRET}"\n'),
        (".env", f"RAGLINE_GENERATION__API_KEY='{SECRET}\n"),
        (".env", f"RAGLINE_GENERATION__APIKEY={SECRET}\n"),
        (".env", f"RAGLINE_GENERATION__API_KEY=${{A}}{SECRET}\n"),
    ],
)
def test_a_file_that_is_refused_does_not_show_the_key_in_it(name: str, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(name).write_text(content)
    with pytest.raises(SettingsError) as caught:
        load_settings(environ={})
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert cli.run(["config", "show"]) == 2
    assert SECRET not in "".join(capsys.readouterr())


def test_a_password_in_an_address_is_refused_and_masked() -> None:
    with pytest.raises(SettingsError, match="keys have settings of their own") as caught:
        load_settings(environ={}, assignments={"generation.base_url": f"https://me:{SECRET}@example.com/v1"})
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_key_in_an_address_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    address = f"https://example.com/rerank?api-version=1&key={SECRET}"
    assert cli.run(["config", "show", "rerank.base_url", "--set", f"rerank.base_url={address}"]) == 0
    shown = capsys.readouterr().out
    assert SECRET not in shown
    assert "https://example.com/rerank?..." in shown
    with pytest.raises(SettingsError) as caught:
        load_settings(environ={}, assignments={"rerank.base_url": address.replace("https", "ftp")})
    assert SECRET not in str(caught.value)


def test_a_bare_assignment_is_not_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", "show", "--set", f"generation.api_key:{SECRET}"]) == 2
    assert SECRET not in "".join(capsys.readouterr())


def test_white_space_around_a_key_does_not_belong_to_it() -> None:
    assert key_of(load_settings(environ={"RAGLINE_GENERATION__API_KEY": f" {SECRET}\r\n"}).settings) == SECRET


@pytest.mark.parametrize(
    "address", ["localhost:8000", "ftp://x", "http://", "https:///v1", "http://a b/", "http://x:99999", "http://[::1", "x", ""]
)
def test_an_address_must_be_one(address: str) -> None:
    for key in ("generation.base_url", "embedding.base_url", "rerank.base_url"):
        with pytest.raises(SettingsError, match=key):
            load_settings(environ={}, assignments={key: address})


OPENAI = {"generation": {"generation.generator": "openai"}, "embedding": {"embedding.runtime": "openai"}}


@pytest.mark.parametrize("section", OPENAI)
def test_openais_own_variables_are_taken_where_its_protocol_is_spoken(section: str) -> None:
    environ = {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "https://proxy.example/v1/"}
    loaded = load_settings(environ=environ, assignments=OPENAI[section])
    assert key_of(loaded.settings, section) == SECRET
    assert getattr(loaded.settings, section).base_url == "https://proxy.example/v1"
    assert loaded.origins[f"{section}.api_key"] == Origin("environment", "OPENAI_API_KEY")
    assert loaded.origins[f"{section}.base_url"] == Origin("environment", "OPENAI_BASE_URL")


def test_nothing_is_taken_where_another_protocol_is_spoken() -> None:
    environ = {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "https://proxy.example/v1/", "OLLAMA_HOST": "gpu-box"}
    for assignments in (
        {"embedding.runtime": "onnx"},
        {"embedding.runtime": "sentence-transformers", "generation.generator": "extractive"},
    ):
        loaded = load_settings(environ=environ, assignments=assignments)
        for section in ("embedding", "generation", "rerank"):
            assert key_of(loaded.settings, section) is None
            assert getattr(loaded.settings, section).base_url is None
            assert loaded.origins[f"{section}.api_key"] == Origin("default")


def test_a_runtime_left_open_may_be_the_collections_and_has_its_key() -> None:
    settings = load_settings(environ={"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "https://proxy.example/v1"}).settings
    assert key_of(settings, "embedding") == SECRET
    assert (settings.embedding.runtime, settings.embedding.base_url) == ("onnx", None)  # onnx refuses an address
    elsewhere = load_settings(environ={"OPENAI_API_KEY": SECRET}, assignments={"embedding.base_url": THIEF}).settings
    assert key_of(elsewhere, "embedding") is None


@pytest.mark.parametrize("section", OPENAI)
def test_our_own_settings_win_over_openais_variables(section: str) -> None:
    environ = {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "https://proxy.example/v1"}
    mine = {**OPENAI[section], f"{section}.api_key": "mine", f"{section}.base_url": "http://localhost:1"}
    loaded = load_settings(environ=environ, assignments=mine)
    assert key_of(loaded.settings, section) == "mine"
    assert getattr(loaded.settings, section).base_url == "http://localhost:1"


@pytest.mark.parametrize("section", OPENAI)
@pytest.mark.parametrize(
    "address", [THIEF, "https://api.openai.com.thief.example/v1", "http://api.openai.com/v1", "https://api.openai.com:444/v1"]
)
def test_a_key_of_the_environment_does_not_go_where_files_or_flags_say(section: str, address: str, working_folder: Path) -> None:
    environ = {"OPENAI_API_KEY": SECRET}
    choice = next(iter(OPENAI[section]))
    (working_folder / "ragline.toml").write_text(f"{choice} = 'openai'\n{section}.base_url = '{address}'\n")
    assert key_of(load_settings(environ=environ).settings, section) is None
    (working_folder / "ragline.toml").unlink()
    (working_folder / ".env").write_text(f"RAGLINE_{section.upper()}__BASE_URL={address}\n")
    assert key_of(load_settings(environ=environ, assignments=OPENAI[section]).settings, section) is None
    (working_folder / ".env").unlink()
    assert key_of(load_settings(environ=environ, assignments={**OPENAI[section], f"{section}.base_url": address}).settings, section) is None
    (working_folder / ".env").write_text(f"OPENAI_BASE_URL={address}\n")
    redirected = load_settings(environ=environ, assignments=OPENAI[section])
    assert getattr(redirected.settings, section).base_url == address
    assert redirected.origins[f"{section}.base_url"] == Origin(".env", "OPENAI_BASE_URL")
    assert key_of(redirected.settings, section) is None


@pytest.mark.parametrize("address", ["https://api.openai.com/v1", "https://api.openai.com", "https://proxy.example/v1/"])
def test_a_file_may_repeat_an_address_that_the_key_goes_to_anyway(address: str, working_folder: Path) -> None:
    (working_folder / "ragline.toml").write_text(f"[generation]\ngenerator = 'openai'\nbase_url = '{address}'\n")
    environ = {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "https://proxy.example/v1"}
    assert key_of(load_settings(environ=environ).settings) == SECRET


def test_a_key_in_dotenv_may_go_where_that_dotenv_says(working_folder: Path) -> None:
    (working_folder / ".env").write_text(f"OPENAI_API_KEY={SECRET}\nOPENAI_BASE_URL=http://localhost:8000/v1\n")
    loaded = load_settings(environ={}, assignments=OPENAI["generation"])
    assert key_of(loaded.settings) == SECRET
    assert loaded.origins["generation.api_key"] == Origin(".env", "OPENAI_API_KEY")
    both = load_settings(environ={"OPENAI_API_KEY": "from the environment"}, assignments=OPENAI["generation"])
    assert key_of(both.settings) is None


def test_settings_built_in_code_take_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert key_of(Settings(generation={"generator": "openai"})) is None


def test_ollamas_variable_is_taken_for_ollama_only() -> None:
    loaded = load_settings(environ={"OLLAMA_HOST": "gpu-box:8080"}, assignments={"generation.generator": "ollama"})
    assert loaded.settings.generation.base_url == "http://gpu-box:8080"
    assert loaded.origins["generation.base_url"] == Origin("environment", "OLLAMA_HOST")
    assert load_settings(environ={"OLLAMA_HOST": "gpu-box"}, assignments=OPENAI["generation"]).settings.generation.base_url is None
    mine = {"generation.generator": "ollama", "generation.base_url": "http://mine:1"}
    assert load_settings(environ={"OLLAMA_HOST": "gpu-box"}, assignments=mine).settings.generation.base_url == "http://mine:1"
    with pytest.raises(SettingsError, match=r"generation\.base_url has the value 'ftp://x' \(from OLLAMA_HOST in the environment\)"):
        load_settings(environ={"OLLAMA_HOST": "ftp://x"}, assignments={"generation.generator": "ollama"})


def test_tesseracts_variable_names_the_folder_of_its_data() -> None:
    loaded = load_settings(environ={"TESSDATA_PREFIX": "/opt/tessdata"})
    assert loaded.settings.reading.ocr_data_dir == Path("/opt/tessdata")
    assert loaded.origins["reading.ocr_data_dir"] == Origin("environment", "TESSDATA_PREFIX")
    mine = load_settings(environ={"TESSDATA_PREFIX": "/opt/tessdata"}, assignments={"reading.ocr_data_dir": "mine"})
    assert mine.settings.reading.ocr_data_dir == Path("mine")


@pytest.mark.parametrize(
    ("spelling", "address"),
    [
        ("gpu-box", "http://gpu-box:11434"),
        ("gpu-box:8080", "http://gpu-box:8080"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("http://0.0.0.0:11434", "http://127.0.0.1:11434"),
        ("http://gpu-box", "http://gpu-box:80"),
        ("https://gpu-box", "https://gpu-box:443"),
        ("HTTPS://gpu-box/ollama/", "https://gpu-box:443/ollama"),
        ("gpu-box:8080/path/", "http://gpu-box:8080/path"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("::1", "http://[::1]:11434"),
        ("[::]:8080", "http://[::1]:8080"),
        (' "gpu-box" ', "http://gpu-box:11434"),
        ("ftp://x", None),
        ("gpu-box:99999", None),
        ("gpu-box:port", None),
        ("[::1", None),
    ],
)
def test_ollamas_own_spellings_of_its_address(spelling: str, address: str | None) -> None:
    assert ollama_address(spelling) == address
