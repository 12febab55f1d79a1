"""Tiny BERT models with random weights, in folders as on the hub, and what they compute, in plain numpy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from ragline.types import Float32

HIDDEN, LAYERS, HEADS, INNER, WINDOW = 24, 2, 3, 40, 64
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
_WORDS = ["keys", "rotate", "how", "do", "we", "query", "passage", "every", "day", "cafe", "中", "文"]
_LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,:;!?()-'\""]
VOCABULARY = [*_SPECIAL, *_WORDS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]


def write_tokenizer(path: Path, *, bert: bool = True) -> None:
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer() if bert else pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", VOCABULARY.index("[CLS]")), ("[SEP]", VOCABULARY.index("[SEP]"))],
    )
    tokenizer.add_special_tokens(_SPECIAL)
    # As files on the hub do; embedding must heed neither.
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(8)
    tokenizer.save(str(path))


def random_weights(seed: int = 0) -> dict[str, Float32]:
    generator = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), HIDDEN),
        "embeddings.position_embeddings.weight": (WINDOW, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
    }
    dense = {"attention.output.dense": (HIDDEN, HIDDEN), "intermediate.dense": (INNER, HIDDEN), "output.dense": (HIDDEN, INNER)}
    dense |= {f"attention.self.{part}": (HIDDEN, HIDDEN) for part in ("query", "key", "value")}
    for layer in range(LAYERS):
        for name, shape in dense.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
    weights = {name: generator.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    norms = ["embeddings.LayerNorm"]
    norms += [f"encoder.layer.{i}.{part}.LayerNorm" for i in range(LAYERS) for part in ("attention.output", "output")]
    for name in norms:
        weights[name + ".weight"] = generator.normal(1, 0.2, HIDDEN).astype(np.float32)
        weights[name + ".bias"] = generator.normal(0, 0.2, HIDDEN).astype(np.float32)
    return weights


def write_safetensors(path: Path, weights: Mapping[str, Float32], dtype: Literal["F32", "F16", "BF16"] = "F32") -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, weight in weights.items():
        if dtype == "BF16":
            raw = (weight.view(np.uint32) >> 16).astype("<u2").tobytes()
        else:
            raw = weight.astype("<f4" if dtype == "F32" else "<f2").tobytes()
        header[name] = {"dtype": dtype, "shape": list(weight.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)


def as_stored(weight: Float32, dtype: Literal["F32", "F16", "BF16"]) -> Float32:
    """A weight after a round trip through the type."""
    if dtype == "BF16":
        return (weight.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return weight if dtype == "F32" else weight.astype(np.float16).astype(np.float32)


def write_model(
    folder: Path,
    *,
    seed: int = 0,
    prefix: str = "",
    dtype: Literal["F32", "F16", "BF16"] = "F32",
    pooling: Literal["mean", "cls"] = "mean",
    prompts: Mapping[str, str] | None = None,
    **config: Any,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    write_tokenizer(folder / "tokenizer.json")
    write_safetensors(folder / "model.safetensors", {prefix + name: weight for name, weight in random_weights(seed).items()}, dtype)
    whole = {
        "model_type": "bert",
        "vocab_size": len(VOCABULARY),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": WINDOW,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        **config,
    }
    modes = {
        "word_embedding_dimension": HIDDEN,
        "pooling_mode_cls_token": pooling == "cls",
        "pooling_mode_mean_tokens": pooling == "mean",
        "pooling_mode_max_tokens": False,
    }
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    for name, content in (
        ("config.json", whole),
        ("modules.json", modules),
        ("1_Pooling/config.json", modes),
        ("config_sentence_transformers.json", {"prompts": prompts or {}}),
    ):
        (folder / name).write_text(json.dumps(content))
    return folder


def part_weights(folder: Path, seed: int = 0) -> list[Path]:
    """Parts the weights of a model as the hub does for large ones."""
    (folder / "model.safetensors").unlink()
    weights = list(random_weights(seed).items())
    parts = {f"model-0000{i}-of-00002.safetensors": dict(weights[i - 1 :: 2]) for i in (1, 2)}
    for name, part in parts.items():
        write_safetensors(folder / name, part)
    index = {"metadata": {}, "weight_map": {weight: name for name, part in parts.items() for weight in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return [folder / name for name in parts]


def write_cross_encoder(folder: Path, *, seed: int = 0, sigmoid: bool | None = None, **config: Any) -> Path:
    """A BERT cross-encoder, as on the hub: transformers' files alone."""
    write_model(folder, seed=seed, prefix="bert.", architectures=["BertForSequenceClassification"], id2label={"0": "LABEL_0"}, **config)
    generator = np.random.default_rng(seed + 1)
    head = {"bert.pooler.dense": (HIDDEN, HIDDEN), "classifier": (1, HIDDEN)}
    weights = {"bert." + name: weight for name, weight in random_weights(seed).items()}
    for name, shape in head.items():
        weights[name + ".weight"] = generator.normal(0, 0.5, shape).astype(np.float32)
        weights[name + ".bias"] = generator.normal(0, 0.5, shape[:1]).astype(np.float32)
    write_safetensors(folder / "model.safetensors", weights)
    for name in ("modules.json", "1_Pooling/config.json", "config_sentence_transformers.json"):
        (folder / name).unlink()
    if sigmoid is not None:
        function = "torch.nn.modules.activation.Sigmoid" if sigmoid else "torch.nn.modules.linear.Identity"
        told = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(told | {"sbert_ce_default_activation_function": function}))
    names = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "model_max_length": WINDOW}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": inputs, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return folder


def forward(
    weights: Mapping[str, Float32], ids: Sequence[int], *, pooling: Literal["mean", "cls"] = "mean", tanh: bool = False
) -> NDArray[np.float64]:
    """What BertModel, pooling and normalisation give for one text, in double precision."""
    w = {name: weight.astype(np.float64) for name, weight in weights.items()}

    def dense(name: str, x: NDArray[np.float64]) -> Any:
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def norm(name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
        return x * w[name + ".weight"] + w[name + ".bias"]

    def gelu(x: NDArray[np.float64]) -> Any:
        if tanh:
            return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    n = len(ids)
    x = w["embeddings.word_embeddings.weight"][list(ids)] + w["embeddings.position_embeddings.weight"][:n]
    x = norm("embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"][0])
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}."
        q, k, v = (dense(f"{name}attention.self.{part}", x).reshape(n, HEADS, -1).transpose(1, 0, 2) for part in ("query", "key", "value"))
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(HIDDEN // HEADS)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        attended = (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(n, HIDDEN)
        x = norm(name + "attention.output.LayerNorm", x + dense(name + "attention.output.dense", attended))
        x = norm(name + "output.LayerNorm", x + dense(name + "output.dense", gelu(dense(name + "intermediate.dense", x))))
    pooled = x[0] if pooling == "cls" else x.mean(0)
    vector: NDArray[np.float64] = pooled / np.linalg.norm(pooled)
    return vector
