"""Which embedder do settings and collection name together?"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragline import cli
from ragline.embedding.following import FollowedSettings, followed
from ragline.embedding.onnx_runtime import OnnxEmbedder
from ragline.embedding.openai import OpenAIEmbedder
from ragline.embedding.probe import probe_of, recognises
from ragline.embedding.tokenizer_files import locate_tokenizer
from ragline.engine import Engine
from ragline.errors import BackendError, MissingExtraError, ModelMismatchError, NotFoundError, RaglineError, SettingsError
from ragline.settings import EmbeddingSettings, Settings
from ragline.types import Document
from tests.imitation.embeddings import EmbeddingsServer
from tests.opened import opened
from tests.tiny_bert import write_model

MINILM = {"model": "sentence-transformers/all-MiniLM-L6-v2", "precision": "int8"}
SERVED = {
    "model": "text-embedding-3-small",
    "runtime": "openai",
    "base_url": "http://gpu-box:8000/v1",
    "vector_length": "1536",
    "question_prefix": "",
    "passage_prefix": "passage: ",
    "probe": "AAAA",
}
ELSEWHERE = {"base_url": "http://new-box:8000/v1"}


async def test_each_runtime_is_opened_by_its_name(tmp_path: Path) -> None:
    async with opened(tmp_path / "cache", model=str(write_model(tmp_path / "model"))) as embedder:
        assert isinstance(embedder, OnnxEmbedder)
    with EmbeddingsServer() as server:
        async with opened(tmp_path, runtime="openai", model=server.model, base_url=server.base_url) as remote:
            assert isinstance(remote, OpenAIEmbedder)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"runtime": "openai"}, "embedding.model"),
        ({"runtime": "openai", "model": "m", "precision": "int8"}, "embedding.precision"),
        ({"runtime": "openai", "model": "m", "device": "cuda"}, "embedding.device"),
        ({"runtime": "openai", "model": "m"}, "embedding.api_key"),
        ({"runtime": "onnx", "base_url": "http://gpu-box:8000/v1"}, "embedding.base_url"),
        ({"runtime": "onnx", "tokenizer": "bert-base-uncased"}, "embedding.tokenizer"),
        ({"runtime": "onnx", "precision": "fp16"}, "embedding.precision"),
        ({"runtime": "onnx", "device": "cuda"}, "embedding.device"),
        ({"runtime": "sentence-transformers", "precision": "int8"}, "embedding.precision"),
    ],
)
async def test_settings_that_do_not_go_together_are_refused_by_name(tmp_path: Path, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named) as raised:
        async with opened(tmp_path, **settings):
            pass
    assert "set " in raised.value.hint or "unset" in raised.value.hint


async def test_without_the_extra_its_install_line_is_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtraError) as raised:
        async with opened(tmp_path, runtime="openai", model="m", base_url="http://127.0.0.1:1/v1"):
            pass
    assert raised.value.hint == "pip install 'ragline[openai]'"


# -- following a collection -------------------------------------------------------------------------------------------


def test_a_collection_that_says_nothing_changes_nothing() -> None:
    settings = EmbeddingSettings(model="m")
    assert followed(settings, {}) is settings


def test_unset_model_and_precision_are_the_collections_also_of_stores_that_know_no_runtime() -> None:
    got = followed(EmbeddingSettings(), {"model": "BAAI/bge-small-en", "precision": "fp32"})
    assert (got.model, got.precision, got.runtime) == ("BAAI/bge-small-en", "fp32", "onnx")


def test_a_collection_of_an_embedder_of_the_users_own_may_have_no_precision() -> None:
    got = followed(EmbeddingSettings(), {"model": "hash", "max_tokens": "64"})
    assert (got.model, got.precision) == ("hash", "auto")


def test_a_served_collection_is_followed_to_where_the_settings_say() -> None:
    got = followed(EmbeddingSettings(**ELSEWHERE, timeout_s=7.0, api_key="k"), SERVED)
    assert isinstance(got, FollowedSettings)
    assert (got.model, got.runtime, got.dimension, got.vector_length, got.probe) == ("text-embedding-3-small", "openai", 0, 1536, "AAAA")
    assert (got.question_prefix, got.passage_prefix) == ("", "passage: ")
    assert (got.base_url, got.timeout_s) == ("http://new-box:8000/v1", 7.0)
    assert got.api_key is not None and got.api_key.get_secret_value() == "k"


def test_the_address_of_a_server_is_never_taken_from_a_store() -> None:
    with pytest.raises(SettingsError, match="http://gpu-box:8000/v1") as raised:
        followed(EmbeddingSettings(), SERVED)
    assert "embedding.base_url" in raised.value.hint
    assert "`ragline reindex --model sentence-transformers/all-MiniLM-L6-v2`" in raised.value.hint
    with pytest.raises(SettingsError) as raised:
        followed(EmbeddingSettings(runtime="openai"), SERVED)
    assert "--set embedding.runtime=onnx`" in raised.value.hint
    openais_own = {**SERVED, "base_url": "https://api.openai.com/v1"}
    assert followed(EmbeddingSettings(), openais_own).base_url is None


def test_the_same_model_named_again_is_followed_in_the_rest() -> None:
    got = followed(EmbeddingSettings(model="text-embedding-3-small", **ELSEWHERE), {**SERVED, "dimension": "256", "vector_length": "256"})
    assert isinstance(got, FollowedSettings)
    assert (got.runtime, got.dimension, got.vector_length) == ("openai", 256, 256)


@pytest.mark.parametrize("spelling", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_a_name_without_its_owner_is_the_same_model(spelling: str) -> None:
    assert followed(EmbeddingSettings(model=spelling), MINILM).precision == "int8"


def test_a_relative_folder_is_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stored = {"model": os.path.realpath(tmp_path / "model"), "precision": "fp32"}
    assert followed(EmbeddingSettings(model="./model"), stored).precision == "fp32"


def test_another_model_or_runtime_takes_nothing() -> None:
    for settings in (EmbeddingSettings(model="other"), EmbeddingSettings(runtime="sentence-transformers")):
        assert followed(settings, SERVED) is settings
    local = EmbeddingSettings(runtime="openai", model="all-MiniLM-L6-v2", **ELSEWHERE)
    assert followed(local, MINILM) is local


def test_a_setting_that_was_given_wins_though_it_does_not_fit() -> None:
    got = followed(EmbeddingSettings(dimension=256, passage_prefix="", **ELSEWHERE), SERVED)
    assert isinstance(got, FollowedSettings)
    assert (got.dimension, got.passage_prefix) == (256, "")
    assert (got.vector_length, got.probe) == (0, ""), "what is stored is of vectors of another length"


@pytest.mark.parametrize("told", [{"runtime": "abacus"}, {"precision": "int3"}, {"dimension": "9" * 30}])
def test_what_a_newer_ragline_wrote_is_an_error_not_a_crash(told: dict[str, str]) -> None:
    with pytest.raises(ModelMismatchError, match="does not know"):
        followed(EmbeddingSettings(), {**MINILM, **told})


def test_odd_numbers_in_a_store_are_not_known_numbers() -> None:
    for odd in ("", "-1", "1e3", "many", "١٢"):
        assert followed(EmbeddingSettings(), {**MINILM, "dimension": odd}).dimension == 0


async def test_shortened_and_prefixed_it_is_opened_again_from_its_description(tmp_path: Path) -> None:
    with EmbeddingsServer() as server:
        first = EmbeddingSettings(
            runtime="openai", model=server.model, base_url=server.base_url, dimension=16, question_prefix="q: ", passage_prefix=""
        )
        async with opened(tmp_path, first) as embedder:
            description, fingerprint = embedder.description, embedder.fingerprint
        asked = len(server.requests)
        async with opened(tmp_path, followed(EmbeddingSettings(base_url=server.base_url), description)) as again:
            assert again.fingerprint == fingerprint and again.description == description
            assert len(server.requests) == asked
            assert (await again.embed_questions(["keys"])).shape == (1, 16)


async def mismatch_of(data: Path, model: Path, **embedding: Any) -> ModelMismatchError:
    settings = Settings.model_validate({"cache_dir": data / "models", "embedding": {"model": str(model), **embedding}})
    async with Engine.open(data, settings=settings) as engine:
        with pytest.raises(ModelMismatchError) as raised:
            await engine.search("keys")
    return raised.value


async def test_the_setting_that_does_not_fit_a_collection_is_named_with_the_command_that_switches(tmp_path: Path) -> None:
    model, data = write_model(tmp_path / "model"), tmp_path / "data"
    settings = Settings.model_validate({"cache_dir": data / "models", "embedding": {"model": str(model), "precision": "fp32"}})
    async with Engine.open(data, settings=settings) as engine:
        await engine.ingest(Document(text="keys rotate every day"))
    int8 = await mismatch_of(data, model, precision="int8")
    assert int8.message == "the collection 'default' was embedded with embedding.precision fp32, not int8"
    assert int8.hint == "leave embedding.precision unset to go on with it, or switch with `ragline reindex --precision int8`"
    short = await mismatch_of(data, model, dimension=8)
    assert "embedding.dimension the model's own, not 8" in short.message and "leave embedding.dimension unset" in short.hint
    assert f"`ragline reindex --model {model} --set embedding.dimension=8`" in short.hint
    other = write_model(tmp_path / "other", seed=1)
    named = await mismatch_of(data, other, precision="int8")
    assert f"embedding.model {model}, not {other}; embedding.precision fp32, not int8" in named.message
    assert f"`ragline reindex --model {other} --set embedding.precision=int8`" in named.hint
    write_model(model, seed=2)
    assert "another version" in (await mismatch_of(data, model)).message


@pytest.mark.parametrize("switch", ["--precision int8", "--model MODEL --set embedding.dimension=8"])
def test_the_command_that_a_mismatch_names_really_switches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    model = write_model(tmp_path / "model")
    (tmp_path / "a.txt").write_text("keys rotate every day")
    monkeypatch.setenv("RAGLINE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RAGLINE_EMBEDDING__MODEL", str(model))
    name, value = ("precision", "int8") if "precision" in switch else ("dimension", "8")
    search = ["search", "keys", "--set", f"embedding.{name}={value}"]
    assert cli.run(["ingest", str(tmp_path / "a.txt"), "--set", "embedding.precision=fp32"]) == 0
    assert cli.run(search) == 1
    assert cli.run(["reindex", *switch.replace("MODEL", str(model)).split()]) == 0
    assert cli.run(search) == 0


# -- probes -----------------------------------------------------------------------------------------------------------


def test_a_probe_knows_its_model_through_noise_and_no_other() -> None:
    draw = np.random.default_rng(3)
    for length in (8, 64, 384, 3072):
        vector = draw.standard_normal(length).astype(np.float32)
        vector /= np.linalg.norm(vector)
        noise = draw.standard_normal(length).astype(np.float32) * 0.1 / np.sqrt(length)
        assert recognises(probe_of(vector), vector) and recognises(probe_of(vector), vector + noise)
        assert recognises(probe_of(vector), vector.astype(np.float16).astype(np.float32))
        assert not recognises(probe_of(vector), draw.standard_normal(length).astype(np.float32))
    assert recognises(probe_of(np.ones(64, np.float32)), np.full(384, 0.05, np.float32)), "a part of a longer vector is enough"


def test_a_probe_that_cannot_be_read_passes() -> None:
    vector = np.ones(64, np.float32)
    for odd in ("", "!", "AAAA", "é"):
        assert recognises(odd, vector)


# -- tokenizers of models that are not here ---------------------------------------------------------------------------


def test_a_tokenizer_comes_from_a_folder_or_from_what_was_fetched_before(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    assert locate_tokenizer(str(folder), cache_dir=tmp_path, announce=print) == folder / "tokenizer.json"
    for kind in ("models", "tokenizers"):
        kept = tmp_path / kind / f"owner--{kind}" / "tokenizer.json"
        kept.parent.mkdir(parents=True)
        kept.write_text("{}")
        assert locate_tokenizer(f"owner/{kind}", cache_dir=tmp_path, announce=print) == kept


def test_a_folder_without_a_tokenizer_and_a_name_that_is_none_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no tokenizer\.json"):
        locate_tokenizer(str(tmp_path), cache_dir=tmp_path, announce=print)
    with pytest.raises(NotFoundError):
        locate_tokenizer("no such/name at/all", cache_dir=tmp_path, announce=print)


def test_without_a_network_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said: list[str] = []
    with pytest.raises(RaglineError, match="owner/model") as raised:
        locate_tokenizer("owner/model", cache_dir=tmp_path, announce=said.append)
    assert isinstance(raised.value, BackendError | NotFoundError) and "leave it unset to estimate" in raised.value.hint
    assert len(said) == 1 and not (tmp_path / "tokenizers" / "owner--model").exists()
