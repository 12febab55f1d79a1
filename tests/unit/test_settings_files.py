"""Settings files in TOML and YAML, and `.env`: what they may hold, and how each fault is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ragline.errors import SettingsError
from ragline.settings import Origin, Settings, load_settings


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings_of(content: str | bytes, name: str = "ragline.yaml") -> Settings:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_settings(environ={}).settings


def refusal(content: str | bytes, name: str = "ragline.yaml") -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        settings_of(content, name)
    assert caught.value.hint
    assert len(caught.value.message) < 500
    return caught.value


@pytest.mark.parametrize("name", ["ragline.yaml", "ragline.yml"])
def test_a_yaml_file_is_read_like_a_toml_file(name: str) -> None:
    Path(name).write_text("tenant: acme\nretrieval:\n  top_k: 3\n  mode: lexical\nreading: {hidden: true, timeout_s: 5}\n")
    loaded = load_settings(environ={})
    assert loaded.settings == Settings(
        tenant="acme",
        retrieval={"top_k": 3, "mode": "lexical"},
        reading={"hidden": True, "timeout_s": 5},
    )
    assert loaded.origins["retrieval.top_k"] == Origin("file", name)
    assert loaded.origins["retrieval.evidence"] == Origin("default")


@pytest.mark.parametrize(
    "content", ["", "\n\n", "# nothing\n", "---\n", "---\n...\n", "null\n", "{}\n", "\ufeff", "retrieval:\n  # top_k: 3\n"]
)
def test_a_yaml_file_without_settings_sets_nothing(content: str) -> None:
    assert settings_of(content) == Settings()


def test_nothing_or_unset_takes_back_a_value() -> None:
    assert settings_of("generation:\n  temperature:\n").generation.temperature is None
    assert settings_of("generation:\n  temperature: unset\n").generation.temperature is None
    Path("ragline.yaml").unlink()
    assert settings_of('[generation]\ntemperature = "unset"\n', "ragline.toml").generation.temperature is None
    again = load_settings(environ={}, assignments={"generation.temperature": "0.3"}).settings
    assert again.generation.temperature == 0.3


def test_unset_is_no_value_where_there_must_be_one() -> None:
    assert "retrieval.top_k has the value 'unset'" in refusal("retrieval: {top_k: unset}\n").message
    assert "retrieval.top_k has the value None" in refusal("retrieval: {top_k: }\n").message
    assert settings_of("tenant: unset\n").tenant == "unset"  # a name as good as any


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("retrieval:\n  top_k: [1\n", ["not valid YAML", "line 3"]),
        ("retrieval:\n\ttop_k: 3\n", ["line 2, column 1", "not with tabs"]),
        ("a: 1: 2\n", ["line 1, column 5"]),
        ("tenant: x\ntenant: y\n", ["line 2", "'tenant' is given twice"]),
        ("retrieval:\n  top_k: 1\n  'top_k': 2\n", ["line 3", "'top_k' is given twice"]),
        ("1: x\n", ["line 1", "the key 1 is not a text"]),
        ("on: x\n", ["the key on is not a text"]),
        ("~: x\n", ["is not a text"]),
        ("[a]: x\n", ["line 1: the key is not a text"]),
        ("? {a: 1}\n: x\n", ["is not a text"]),
        ("base: &b {top_k: 3}\nretrieval: *b\n", ["aliases"]),
        ("base: &b {top_k: 3}\nretrieval:\n  <<: *b\n", ["aliases"]),
        ("- a\n- b\n", ["line 1: there must be `name: value`"]),
        ("just words\n", ["line 1: there must be `name: value`"]),
        ("a: 1\n---\nb: 2\n", ["line 2"]),
        ("tenant: !!python/object/apply:os.system [ls]\n", ["line 1", "python/object/apply:os.system"]),
        ("tenant: !mine x\n", ["line 1", "!mine"]),
        ("tenant: 2024-13-45\n", ["line 1: the value is no timestamp"]),
        ("tenant: x\ncollection: " + "[" * 10_000, ["line 2 is longer than 4,096 bytes"]),
        ("tenant: x\ncollection: " + "[\n" * 20_000, ["line 17: it is nested too deeply"]),
        ("".join(f"{' ' * depth}a:\n" for depth in range(300)), ["line 17: it is nested too deeply"]),
        ("\n" * 7 + "tenant: \x00\n", ["line 8: it has a control character"]),
        (b"a: b\ntenant: \xff\n", ["line 2 is not UTF-8"]),
        (b"\xff\xfet\x00e\x00", ["not UTF-8"]),
        ("#" * 300_000, ["larger than 65,536 bytes"]),
    ],
)
def test_what_is_no_plain_yaml_is_refused_with_its_place(content: str | bytes, words: list[str]) -> None:
    error = refusal(content)
    assert all(word in error.message for word in ["ragline.yaml", *words]), error.message


def test_a_bomb_of_aliases_costs_nothing() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]" for below, name in zip("abcdefghij", "bcdefghijk", strict=True)]
    assert "aliases" in refusal("\n".join(lines)).message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("collection: on\n", ["collection has the value True", "ragline.yaml", "string"]),
        ("collection: 2024-01-02\n", ["collection has the value 2024-01-02", "string"]),
        ("collection: 12:30:00\n", ["collection has the value 45000", "string"]),
        ("collection: 007\n", ["collection has the value 7", "string"]),
        ("data_dir: off\n", ["data_dir has the value False", "path"]),
        ("generation: {generator: no}\n", ["generation.generator has the value False", "'extractive'"]),
        ("embedding: {model: 2024-01-02 03:04:05}\n", ["embedding.model has the value 2024-01-02 03:04:05"]),
    ],
)
def test_what_yaml_takes_for_something_else_is_named_with_the_cure(content: str, words: list[str]) -> None:
    error = refusal(content)
    assert all(word in error.message for word in words), error.message
    assert "between quotes" in error.hint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("retrieval: {top_k: many}\n", ["retrieval.top_k", "'many'"]),
        ("retrieval: {top_k: yes}\n", ["retrieval.top_k", "True", "number"]),
        ("retrieval: {top_k: 0x" + "f" * 4000 + "}\n", ["retrieval.top_k"]),
        ("retrieval: {top_k: 1" + "0" * 4050 + "}\n", ["retrieval.top_k"]),
        ("reading: {timeout_s: .inf}\n", ["reading.timeout_s", "finite"]),
        ("tenant: [" + "[" * 9 + "]" * 9 + "]\n", ["tenant"]),
        ("tenant: {a: {b: c}}\n", ["tenant", "string"]),
        ("retrieval: 5\n", ["'retrieval'", "[retrieval]"]),
        ("retrieval: []\n", ["'retrieval'", "[retrieval]"]),
        ("retreival: {top_k: 1}\n", ["'retreival'"]),
        ("retrieval: {top_n: 1}\n", ["'retrieval.top_n'", "did you mean 'retrieval.top_k'"]),
    ],
)
def test_bad_values_and_keys_of_a_yaml_file_are_named(content: str, words: list[str]) -> None:
    error = refusal(content)
    assert all(word in error.message for word in words), error.message


@pytest.mark.parametrize(
    "content",
    [
        "tenant = " + "[" * 100_000,
        "tenant = " + "[\n" * 30_000,
        "tenant = [\n" + "[" * 4000 + "\n" + "]" * 4000 + "\n]",
        "tenant" + ".a" * 2000 + " = 1",
        "[tenant" + ".a" * 2000 + "]\nb = 1",
        "tenant = 1" + "0" * 4080,
        "tenant = 0x" + "f" * 4080,
        "tenant = " + "{a=" * 300 + "1" + "}" * 300,
        "tenant = " + "{a=" * 90 + "1" + "}" * 90,
    ],
)
def test_hostile_toml_is_refused(content: str) -> None:
    refusal(content, "ragline.toml")


def test_two_settings_files_in_one_folder_are_refused_unless_one_is_named() -> None:
    Path("ragline.toml").write_text("tenant = 'a'\n")
    error = refusal("tenant: b\n")
    assert "ragline.toml, ragline.yaml" in error.message
    assert "--config" in error.hint
    assert load_settings(environ={}, config_file=Path("ragline.yaml")).settings.tenant == "b"
    assert load_settings(environ={"RAGLINE_CONFIG": "ragline.toml"}).settings.tenant == "a"


def test_the_form_of_a_named_file_is_told_by_its_suffix() -> None:
    Path("a.YML").write_text("tenant: a\n")
    assert load_settings(environ={}, config_file=Path("a.YML")).settings.tenant == "a"
    for name in ("settings", "settings.json", "settings.toml.bak", ".toml"):
        Path(name).write_text("tenant: a\n")
        with pytest.raises(SettingsError, match="does not tell its form") as caught:
            load_settings(environ={}, config_file=Path(name))
        assert ".yaml" in caught.value.hint


def test_an_endless_file_is_refused() -> None:
    Path("ragline.toml").symlink_to("/dev/zero")
    with pytest.raises(SettingsError, match="larger than"):
        load_settings(environ={}, config_file=Path("ragline.toml"))


def test_garbage_in_dotenv_is_silent_unless_it_is_ours(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    Path(".env").write_text("%%% garbage ^^^\nA='open\n= = =\nRAGLINE_TENANT=acme\n\"odd\nB=1 2\n")
    assert load_settings(environ={}).settings.tenant == "acme"
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    Path(".env").write_text("A=1\nRAGLINE_TENANT='acme\n")
    with pytest.raises(SettingsError, match=r"line 2 of \.env cannot be understood"):
        load_settings(environ={})
    Path(".env").write_text("export RAGLINE_TENANT='acme\n")
    with pytest.raises(SettingsError, match="line 1"):
        load_settings(environ={})


def test_dotenv_is_not_filled_in_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    Path(".env").write_text("OTHER=${SECRET_TOKEN}\nRAGLINE_GENERATION__BASE_URL=http://thief.example/${SECRET_TOKEN}\n")
    with pytest.raises(SettingsError, match=r"RAGLINE_GENERATION__BASE_URL in \.env refers to another variable") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


SERVICE_LINKS: dict[str, Any] = {
    "RAGLINE_SERVICE_HOST": "10.96.0.12",
    "RAGLINE_SERVICE_PORT": "8000",
    "RAGLINE_SERVICE_PORT_HTTP": "8000",
    "RAGLINE_SERVICE_PORT_WEB_UI": "8001",
    "RAGLINE_PORT": "tcp://10.96.0.12:8000",
    "RAGLINE_PORT_8000_TCP": "tcp://10.96.0.12:8000",
    "RAGLINE_PORT_8000_TCP_PROTO": "tcp",
    "RAGLINE_PORT_8000_TCP_PORT": "8000",
    "RAGLINE_PORT_8000_TCP_ADDR": "10.96.0.12",
    "RAGLINE_PORT_53_UDP": "udp://[fd00::1]:53",
    "RAGLINE_PORT_53_UDP_ADDR": "fd00::1",
    "RAGLINE_REDIS_CACHE_SERVICE_HOST": "10.96.0.13",
    "RAGLINE_REDIS_CACHE_PORT": "tcp://10.96.0.13:6379",
    "RAGLINE_REDIS_CACHE_PORT_6379_TCP_PROTO": "tcp",
}


def test_what_kubernetes_adds_for_services_is_left_alone() -> None:
    assert load_settings(environ=SERVICE_LINKS).settings == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RAGLINE_PORT", "8000"),
        ("RAGLINE_PORT", ""),
        ("RAGLINE_SERVICE_HOST", "localhost"),
        ("RAGLINE_SERVICE_PORT", "tcp"),
        ("RAGLINE_PORT_8000_TCP_PROTO", "http"),
        ("RAGLINE_PORT_8000_TCP", "8000"),
        ("RAGLINE_PORT_X_TCP", "tcp://10.0.0.1:80"),
        ("RAGLINE_WEB__PORT", "tcp://10.0.0.1:80"),
        ("RAGLINE_SERVICE_HOSTS", "10.0.0.1"),
    ],
)
def test_what_only_looks_like_a_service_link_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"'{name}' in the environment is not a setting"):
        load_settings(environ={name: value})


def test_service_links_do_not_stand_in_dotenv() -> None:
    Path(".env").write_text("RAGLINE_SERVICE_HOST=10.96.0.12\n")
    with pytest.raises(SettingsError, match=r"in \.env is not a setting"):
        load_settings(environ={})
