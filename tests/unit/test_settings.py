"""Settings: where values come from, which wins, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from ragline.errors import SettingsError
from ragline.settings import LoadedSettings, Origin, Settings, load_settings, plain_values, setting_keys, variable_of
from ragline.settings_reference import reference


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(environ: dict[str, str] | None = None, **others: Any) -> LoadedSettings:
    return load_settings(environ=environ or {}, **others)


def test_without_anything_every_value_is_the_default() -> None:
    loaded = load()
    assert loaded.settings == Settings()
    assert set(loaded.origins) == set(setting_keys())
    assert set(loaded.origins.values()) == {Origin("default")}


def test_flags_win_over_environment_over_dotenv_over_file(working_folder: Path) -> None:
    (working_folder / "ragline.toml").write_text("[retrieval]\ntop_k = 1\nrrf_k = 1\ncandidates = 1\nevidence = 1\n")
    (working_folder / ".env").write_text("RAGLINE_RETRIEVAL__TOP_K=2\nRAGLINE_RETRIEVAL__RRF_K=2\nRAGLINE_RETRIEVAL__CANDIDATES=2\n")
    loaded = load({"RAGLINE_RETRIEVAL__TOP_K": "3", "RAGLINE_RETRIEVAL__RRF_K": "3"}, flags={"retrieval.top_k": 4})
    retrieval = loaded.settings.retrieval
    assert (retrieval.top_k, retrieval.rrf_k, retrieval.candidates, retrieval.evidence) == (4, 3, 2, 1)
    assert loaded.origins["retrieval.top_k"] == Origin("flag", "--top-k")
    assert loaded.origins["retrieval.rrf_k"] == Origin("environment", "RAGLINE_RETRIEVAL__RRF_K")
    assert loaded.origins["retrieval.candidates"] == Origin(".env", "RAGLINE_RETRIEVAL__CANDIDATES")
    assert loaded.origins["retrieval.evidence"] == Origin("file", "ragline.toml")
    assert loaded.origins["retrieval.mode"] == Origin("default")


def test_every_setting_can_be_given_by_its_variable() -> None:
    values = {key: field.default for key, field in setting_keys().items() if field.default is not None}
    loaded = load({variable_of(key): str(value) for key, value in values.items()})
    assert loaded.settings == Settings()
    assert all(loaded.origins[key] == Origin("environment", variable_of(key)) for key in values)


def test_explicit_falsy_values_survive_a_lower_layer(working_folder: Path) -> None:
    (working_folder / "ragline.toml").write_text(
        "[index]\nwait_s = 5\n[reading]\nhidden = true\nworkers = 3\n[retrieval]\ndense_weight = 0.9\n"
    )
    settings = load({"RAGLINE_INDEX__WAIT_S": "0", "RAGLINE_READING__HIDDEN": "false"}, overrides={"retrieval.dense_weight": 0.0}).settings
    assert settings.index.wait_s == 0
    assert settings.reading.hidden is False
    assert settings.retrieval.dense_weight == 0
    assert settings.reading.workers == 3


def test_a_variable_set_to_nothing_counts_as_not_set(working_folder: Path) -> None:
    (working_folder / ".env").write_text("RAGLINE_TENANT=acme\nRAGLINE_COLLECTION=\n")
    loaded = load({"RAGLINE_TENANT": "", "RAGLINE_CONFIG": "", "RAGLINE_RETRIEVAL__TOP_K": ""})
    assert loaded.settings == Settings(tenant="acme")
    assert loaded.origins["retrieval.top_k"] == Origin("default")


def test_a_settings_file_can_be_named_by_argument_variable_or_dotenv(working_folder: Path) -> None:
    for name in ("ragline", "argument", "variable", "dotenv"):
        (working_folder / f"{name}.toml").write_text(f'collection = "{name}"\n')
    assert load().settings.collection == "ragline"
    (working_folder / ".env").write_text("RAGLINE_CONFIG=dotenv.toml\n")
    assert load().settings.collection == "dotenv"
    assert load({"RAGLINE_CONFIG": "variable.toml"}).settings.collection == "variable"
    loaded = load({"RAGLINE_CONFIG": "variable.toml"}, config_file=Path("argument.toml"))
    assert loaded.settings.collection == "argument"
    assert loaded.origins["collection"] == Origin("file", "argument.toml")


def test_the_process_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGLINE_GENERATION__MAX_SENTENCES", "7")
    assert load_settings().settings.generation.max_sentences == 7


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("top_k = 5", ["'top_k'", "ragline.toml", "did you mean 'retrieval.top_k'"]),
        ("[retrieval]\ntop_n = 5", ["'retrieval.top_n'", "did you mean 'retrieval.top_k'"]),
        ("[retreival]\ntop_k = 5", ["'retreival'", "did you mean [retrieval]?"]),
        ("retreival = 5", ["'retreival'", "is not a setting"]),
        ("[retrieval.top_k]\nx = 5", ["retrieval.top_k", "{'x': 5}"]),
        ("retrieval = 5", ["'retrieval'", "[retrieval]"]),
    ],
)
def test_unknown_keys_of_the_file_are_refused_by_name(working_folder: Path, content: str, words: list[str]) -> None:
    (working_folder / "ragline.toml").write_text(content)
    with pytest.raises(SettingsError) as caught:
        load()
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.hint


def test_unknown_variables_are_refused_by_name_even_if_empty(working_folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"'RAGLINE_TOP_K' in the environment is not a setting.*did you mean"):
        load({"RAGLINE_TOP_K": ""})
    with pytest.raises(SettingsError, match="did you mean 'RAGLINE_COLLECTION'"):
        load({"RAGLINE_COLECTION": "x"})
    (working_folder / ".env").write_text("RAGLINE_FOO=1\n")
    with pytest.raises(SettingsError, match=r"'RAGLINE_FOO' in \.env"):
        load()


def test_unknown_flags_and_overrides_are_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"'retrieval\.top' in --top is not a setting \(did you mean 'retrieval\.top_k'"):
        load(flags={"retrieval.top": 3})
    with pytest.raises(SettingsError, match=r"'retrieval\.top' in overrides is not a setting \(did you mean 'retrieval\.top_k'"):
        load(overrides={"retrieval.top": 3})


def test_a_value_that_a_program_gave_is_named_by_its_setting_and_by_no_flag() -> None:
    with pytest.raises(SettingsError, match=r"retrieval\.top_k has the value 0 \(from overrides\)") as caught:
        load(overrides={"retrieval.top_k": 0})
    assert caught.value.hint.startswith("correct retrieval.top_k, or leave it out")
    with pytest.raises(SettingsError, match="from --top-k") as caught:
        load(flags={"retrieval.top_k": 0})
    assert caught.value.hint.startswith("correct --top-k")


@pytest.mark.parametrize(
    ("environ", "flags", "words"),
    [
        ({"RAGLINE_RETRIEVAL__TOP_K": "many"}, {}, ["retrieval.top_k", "'many'", "RAGLINE_RETRIEVAL__TOP_K in the environment"]),
        ({"RAGLINE_RETRIEVAL__MODE": "fuzzy"}, {}, ["retrieval.mode", "'fuzzy'", "'hybrid', 'dense' or 'lexical'"]),
        ({"RAGLINE_READING__TIMEOUT_S": "inf"}, {}, ["reading.timeout_s", "'inf'", "finite"]),
        ({}, {"retrieval.top_k": 0}, ["retrieval.top_k", "0", "--top-k", "greater than or equal to 1"]),
        ({}, {"retrieval.top_k": 10**6}, ["1000000", "less than or equal to 1000"]),
        ({}, {"retrieval.top_k": True}, ["True", "number"]),
        ({}, {"data_dir": ""}, ["data_dir", "--data-dir", "empty"]),
        ({}, {"cache_dir": "~no-such-user-here/x"}, ["cache_dir", "home"]),
        ({}, {"tenant": 5}, ["tenant", "5", "string"]),
    ],
)
def test_bad_values_name_key_value_and_origin(environ: dict[str, str], flags: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(environ, flags=flags)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert "pydantic" not in str(caught.value)
    assert "default" in caught.value.hint


def test_all_faults_are_named_at_once(working_folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"chunking\.max_tokens.*retrieval\.top_k"):
        load(overrides={"retrieval.top_k": 0, "chunking.max_tokens": 1})
    (working_folder / "ragline.toml").write_text("a = 1\nb = 2\n")
    with pytest.raises(SettingsError, match=r"'a'.*'b'.*RAGLINE_C"):
        load({"RAGLINE_C": "1"})


def test_a_long_bad_value_is_shortened() -> None:
    with pytest.raises(SettingsError) as caught:
        load(overrides={"retrieval.mode": "x" * 10_000})
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("content", [b"[retrieval\n", b"tenant = '\xff'\n"])
def test_a_file_that_is_not_toml_is_refused_by_name(working_folder: Path, content: bytes) -> None:
    (working_folder / "ragline.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"'ragline\.toml' is not valid TOML"):
        load()


def test_a_named_file_must_exist(working_folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"'absent\.toml' cannot be read: No such file"):
        load(config_file=Path("absent.toml"))
    (working_folder / "folder.toml").mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        load({"RAGLINE_CONFIG": "folder.toml"})


def test_dotenv_of_other_programs_is_left_alone(working_folder: Path) -> None:
    (working_folder / ".env").write_bytes(b"\xef\xbb\xbf# caf\xe9\nPASSWORD=x\xff\nexport RAGLINE_TENANT='acme' # ours\nLONELY\n")
    assert load().settings.tenant == "acme"


def test_a_folder_named_dotenv_is_no_settings_file(working_folder: Path) -> None:
    (working_folder / ".env").mkdir()
    assert load().settings == Settings()


def test_folders_may_start_with_the_home_folder(monkeypatch: pytest.MonkeyPatch, working_folder: Path) -> None:
    monkeypatch.setenv("HOME", str(working_folder))
    assert load({"RAGLINE_DATA_DIR": "~/data"}).settings.data_dir == working_folder / "data"


def test_models_are_kept_in_the_folder_given_else_the_platforms(monkeypatch: pytest.MonkeyPatch, working_folder: Path) -> None:
    assert load({"RAGLINE_CACHE_DIR": "models"}).settings.model_cache_dir() == Path("models")
    default = Settings().model_cache_dir()
    assert default.name == "ragline" or default.parent.name == "ragline"
    assert default.is_absolute()


@pytest.mark.skipif("sys.platform != 'linux'")
def test_the_xdg_cache_folder_is_honoured(monkeypatch: pytest.MonkeyPatch, working_folder: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(working_folder))
    assert Settings().model_cache_dir() == working_folder / "ragline"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().retrieval.top_k = 3  # type: ignore[misc]


def test_plain_values_are_json_with_secrets_masked() -> None:
    class Inner(BaseModel):
        password: SecretStr = SecretStr("hunter2")
        ratio: float = 0.0

    class Outer(BaseModel):
        inner: Inner = Inner()
        folder: Path = Path("a/b")
        nothing: str | None = None

    values = plain_values(Outer())
    assert values == {"inner.password": "**********", "inner.ratio": 0.0, "folder": "a/b", "nothing": None}


def test_the_settings_reference_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
    assert page.read_text(encoding="utf-8") == reference(), "run `python -m ragline.settings_reference > docs/reference/settings.md`"


def test_every_setting_is_explained() -> None:
    assert [key for key, field in setting_keys().items() if not field.description] == []
