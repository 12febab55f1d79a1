"""Profiles: settings by one name, under everything else."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from ragline.errors import SettingsError
from ragline.settings import PROFILES, Origin, PoolSettings, ProfileName, Settings, load_settings, plain_values, setting_keys
from ragline.settings_reference import reference


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_the_seven_profiles() -> None:
    assert len(PROFILES) == 7
    assert tuple(PROFILES) == get_args(ProfileName)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_sets_what_its_table_says_and_nothing_else(name: ProfileName) -> None:
    loaded = load_settings(environ={"RAGLINE_PROFILE": name})
    values, defaults = plain_values(loaded.settings), plain_values(Settings())
    table = dict(PROFILES[name].values)
    assert {key: values[key] for key in table} == table
    assert {key for key in values if values[key] != defaults[key]} - {"profile"} <= set(table)
    assert {key for key, origin in loaded.origins.items() if origin == Origin("profile", name)} == set(table)
    assert loaded.origins["profile"] == Origin("environment", "RAGLINE_PROFILE")
    assert loaded.settings == Settings(profile=name)
    assert set(table) <= set(setting_keys())


def test_the_profiles_are_those_of_the_design() -> None:
    found = {
        name: (
            (settings.pool.max_size, settings.pool.min_size),
            (settings.cache.items, settings.cache.ttl_s),
            settings.retrieval.max_concurrent,
            (settings.embedding.batch_texts, settings.embedding.batch_wait_s),
        )
        for name in PROFILES
        for settings in [Settings(profile=name)]
    }
    assert found == {
        "high-throughput": ((50, 5), (50_000, 3600), 100, (50, 1)),
        "low-latency": ((20, 10), (10_000, 1800), 20, (10, 0.01)),
        "memory-constrained": ((5, 1), (1_000, 900), 5, (5, 0.1)),
        "laptop": ((20, 5), (10_000, 3600), 50, (32, 1)),
        "server": ((30, 10), (10_000, 3600), 50, (64, 1)),
        "high-traffic": ((50, 20), (50_000, 3600), 100, (128, 0.5)),
        "development": ((5, 1), (100, 60), 5, (10, 0.1)),
    }
    assert Settings(profile="development").index.simd == "lower"


def test_everything_else_wins_over_a_profile(working_folder: Path) -> None:
    (working_folder / "ragline.yaml").write_text("profile: server\npool: {max_size: 7}\n")
    (working_folder / ".env").write_text("RAGLINE_EMBEDDING__BATCH_TEXTS=9\n")
    loaded = load_settings(environ={})
    assert (loaded.settings.pool.max_size, loaded.settings.pool.min_size, loaded.settings.embedding.batch_texts) == (7, 10, 9)
    assert loaded.origins["pool.max_size"] == Origin("file", "ragline.yaml")
    assert loaded.origins["pool.min_size"] == Origin("profile", "server")
    assert str(loaded.origins["pool.min_size"]) == "profile server"
    again = load_settings(environ={}, overrides={"profile": "development"}, assignments={"pool.min_size": "3"})
    assert again.settings.pool.min_size == 3
    assert again.settings.index.simd == "lower"
    assert load_settings(environ={}, overrides={"profile": "unset"}).settings.pool.min_size == 5


def test_a_profile_holds_for_settings_built_in_code_too() -> None:
    assert Settings(profile="server", pool=PoolSettings(max_size=7)).pool == PoolSettings(min_size=10, max_size=7)
    assert Settings(profile="server", pool={"min_size": 1}).pool == PoolSettings(min_size=1, max_size=30)
    given = {"profile": "server", "pool": {"min_size": 1}}
    Settings.model_validate(given)
    assert given == {"profile": "server", "pool": {"min_size": 1}}


@pytest.mark.parametrize("name", ["laptops", "", "Server", "5"])
def test_an_unknown_profile_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(SettingsError, match=r"profile has the value .*memory-constrained"):
        load_settings(environ={}, overrides={"profile": name})


def test_odd_types_are_refused_under_a_profile_as_well(working_folder: Path) -> None:
    for content in ("profile: [server]\n", "profile: {a: 1}\n", "profile: 5\n", "profile: server\npool: {max_size: x}\n"):
        (working_folder / "ragline.yaml").write_text(content)
        with pytest.raises(SettingsError):
            load_settings(environ={})


def test_the_reference_lists_every_profile() -> None:
    page = reference()
    for name, profile in PROFILES.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert profile.purpose in line
        assert all(f"`{key} = {value}`" in line for key, value in profile.values.items())
