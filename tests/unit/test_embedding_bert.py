"""The graphs that are built, against BERT in plain numpy; and models that cannot be built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from ragline.embedding.bert import build_graph
from ragline.embedding.bert_config import BertConfig
from ragline.embedding.precision import Precision, choose_precision, int8_instructions, int8_weight_bits
from ragline.embedding.safetensors import SafetensorsFile
from ragline.errors import CorruptionError, InputError
from ragline.types import Float32
from tests.tiny_bert import HIDDEN, WINDOW, as_stored, forward, random_weights, write_model

TEXTS = ([2, 3], [2, 7, 9, 4, 31, 3], [2, *range(4, WINDOW + 2), 3])


def run(folder: Path, ids: list[int], precision: Precision = "fp32") -> Float32:
    graph = build_graph(
        BertConfig.read(folder), SafetensorsFile(folder / "model.safetensors"), precision, weight_bits=int8_weight_bits(int8_instructions())
    )
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    vector: Float32 = session.run(None, {"input_ids": np.array([ids], np.int32)})[0][0]
    return vector


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
@pytest.mark.parametrize(("dtype", "prefix"), [("F32", ""), ("F16", "bert."), ("BF16", "")])
def test_fp32_graph_computes_what_bert_does(
    tmp_path: Path, pooling: Literal["mean", "cls"], activation: str, dtype: Literal["F32", "F16", "BF16"], prefix: str
) -> None:
    folder = write_model(tmp_path, pooling=pooling, dtype=dtype, prefix=prefix, hidden_act=activation)
    weights = {name: as_stored(weight, dtype) for name, weight in random_weights().items()}
    for ids in TEXTS:
        expected = forward(weights, ids[:WINDOW], pooling=pooling, tanh=activation == "gelu_new")
        np.testing.assert_allclose(run(folder, ids[:WINDOW]), expected, atol=2e-6)


def test_the_two_forms_of_gelu_are_told_apart(tmp_path: Path) -> None:
    exact, approximate = (run(write_model(tmp_path / name, hidden_act=name), TEXTS[1]) for name in ("gelu", "gelu_new"))
    assert 1e-5 < np.abs(exact - approximate).max() < 1e-2


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_int8_graph_is_near_fp32_but_not_the_same(tmp_path: Path, pooling: Literal["mean", "cls"]) -> None:
    folder = write_model(tmp_path, pooling=pooling)
    for ids in TEXTS[:2]:
        exact, quantised = run(folder, ids), run(folder, ids, "int8")
        assert np.linalg.norm(quantised) == pytest.approx(1, abs=1e-5)
        assert exact @ quantised > 0.99
        assert (exact != quantised).any()


def test_weights_of_seven_bits_leave_room_for_the_sum_of_two_products(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    for bits, largest in ((7, 63), (8, 127)):
        graph = onnx.load_model_from_string(build_graph(BertConfig.read(folder), random_weights(), "int8", weight_bits=bits))  # type: ignore[arg-type]
        whole = [numpy_helper.to_array(each) for each in graph.graph.initializer if each.data_type == onnx.TensorProto.INT8]
        assert whole and {int(np.abs(each).max()) for each in whole} == {largest}
    assert 2 * 255 * 63 < 2**15 < 2 * 255 * 127


def test_a_column_of_zeros_is_quantised_to_zeros(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    weights = random_weights()
    weights["encoder.layer.0.output.dense.weight"][5] = 0
    graph = build_graph(BertConfig.read(folder), weights, "int8")
    vector = onnxruntime.InferenceSession(graph).run(None, {"input_ids": np.array([TEXTS[1]], np.int32)})[0][0]
    assert vector @ forward(weights, TEXTS[1]) > 0.99


def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    config = BertConfig.read(write_model(tmp_path))
    assert build_graph(config, random_weights(), "int8") == build_graph(config, random_weights(), "int8")


def test_a_model_too_large_for_a_graph_is_refused_before_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragline.embedding.bert._MAX_BYTES", 10_000)
    with pytest.raises(InputError, match="too large") as raised:
        build_graph(BertConfig.read(write_model(tmp_path)), random_weights(), "fp32")
    assert "int8" in raised.value.hint and "sentence-transformers" in raised.value.hint


def test_weights_that_are_not_a_bert_encoder_are_refused_by_name(tmp_path: Path) -> None:
    config = BertConfig.read(write_model(tmp_path))
    weights = random_weights()
    del weights["encoder.layer.1.output.dense.bias"]
    with pytest.raises(InputError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        build_graph(config, weights, "fp32")
    with pytest.raises(InputError, match="word_embeddings"):
        build_graph(config, {}, "fp32")


def test_weights_of_another_shape_than_configured_are_refused(tmp_path: Path) -> None:
    config = BertConfig.read(write_model(tmp_path, hidden_size=HIDDEN * 2))
    with pytest.raises(InputError, match="shape"):
        build_graph(config, random_weights(), "fp32")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "modernbert"}, "modernbert"),
        ({"is_decoder": True}, "bert"),
        ({"position_embedding_type": "relative_key"}, "bert"),
        ({"hidden_act": "relu"}, "relu"),
    ],
)
def test_other_architectures_are_refused_with_what_is_supported(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named) as raised:
        BertConfig.read(write_model(tmp_path, **change))
    assert "BERT" in raised.value.hint


def test_other_poolings_and_layers_are_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(InputError, match="max_tokens"):
        BertConfig.read(folder)
    (folder / "modules.json").write_text('[{"idx": 0, "path": "2_Dense", "type": "sentence_transformers.models.Dense"}]')
    with pytest.raises(InputError, match="Dense"):
        BertConfig.read(folder)


def test_a_model_whose_pooling_file_is_lost_is_not_guessed_at(tmp_path: Path) -> None:
    folder = write_model(tmp_path, pooling="cls")
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(CorruptionError, match="pools"):
        BertConfig.read(folder)


def test_a_folder_of_transformers_alone_is_pooled_by_the_mean(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    for name in ("modules.json", "1_Pooling/config.json", "config_sentence_transformers.json"):
        (folder / name).unlink()
    assert BertConfig.read(folder).pooling == "mean"


def test_pooling_is_read_in_its_newer_form_as_well(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls", "include_prompt": true}')
    assert BertConfig.read(folder).pooling == "cls"


def test_the_window_is_the_smallest_that_any_file_tells(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    assert BertConfig.read(folder).max_tokens == WINDOW
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1e30}')
    assert BertConfig.read(folder).max_tokens == WINDOW
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 48}')
    assert BertConfig.read(folder).max_tokens == 48
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 32}')
    assert BertConfig.read(folder).max_tokens == 32


def test_prompts_are_read_as_sentence_transformers_reads_them(tmp_path: Path) -> None:
    config = BertConfig.read(write_model(tmp_path, prompts={"query": "query: ", "passage": "passage: "}))
    assert (config.question_prompt, config.passage_prompt) == ("query: ", "passage: ")
    (tmp_path / "config_sentence_transformers.json").write_text('{"prompts": {"all": "text: "}, "default_prompt_name": "all"}')
    config = BertConfig.read(tmp_path)
    assert (config.question_prompt, config.passage_prompt) == ("text: ", "text: ")


def test_broken_configuration_is_found(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CorruptionError, match="hidden_size"):
        BertConfig.read(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CorruptionError, match=r"config\.json"):
        BertConfig.read(folder)


@pytest.mark.parametrize(
    "damage", [b"", b"\x10", (10**6).to_bytes(8, "little"), (4).to_bytes(8, "little") + b"nope", b"\x02" + bytes(7) + b"[]"]
)
def test_files_that_are_not_safetensors_are_found(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(damage)
    with pytest.raises(CorruptionError, match=r"model\.safetensors"):
        SafetensorsFile(tmp_path / "model.safetensors")


def test_truncated_weights_are_found_and_other_types_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path) / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(CorruptionError, match="cut short"):
        _ = dict(SafetensorsFile(path))
    header = json.dumps({"ids": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(InputError, match="I64"):
        _ = SafetensorsFile(path)["ids"]


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n", "avx512_vnni"),
        ("flags : fpu avx2 avx_vnni\n", "avx_vnni"),
        ("flags : fpu avx2 avx512f\n", "avx2"),
        ("flags : fpu sse2\n", None),
        ("processor : 0\nFeatures\t: fp asimd asimddp\n", "asimddp"),
        ("Features : fp asimd\n", None),
        ("model name : avx512_vnni\n", None),
    ],
)
def test_instructions_for_int8_are_found_in_what_the_system_tells(cpuinfo: str, expected: str | None) -> None:
    assert int8_instructions(cpuinfo) == expected


def test_weights_have_eight_bits_only_where_products_are_added_up_in_32() -> None:
    assert [int8_weight_bits(each) for each in ("avx512_vnni", "amx_int8", "asimddp", "avx2", None)] == [8, 8, 8, 7, 7]


def test_auto_takes_int8_only_where_the_processor_has_the_instructions() -> None:
    assert choose_precision("auto") == ("int8" if int8_instructions() else "fp32")
    assert (choose_precision("int8"), choose_precision("fp32")) == ("int8", "fp32")
