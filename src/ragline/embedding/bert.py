"""Builds the ONNX graph of a BERT encoder, pooling and normalisation included, or of a cross-encoder, from its weights.

The layout is the fastest of those measured for one text per run: a fused attention operator, plain
layer normalisation, and for int8 one scale for each column of a weight and one for each activation, found as it comes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ragline.embedding.bert_config import BertConfig
from ragline.embedding.precision import Precision, WeightBits
from ragline.errors import InputError
from ragline.types import Float32

_CONTRIB = "com.microsoft"  # operators that only onnxruntime has
_WORDS = "embeddings.word_embeddings.weight"
_MAX_BYTES = 2**31 - 2**20  # what one file of protocol buffers can hold, and a little room


def build_graph(config: BertConfig, weights: Mapping[str, Float32], precision: Precision, *, weight_bits: WeightBits = 8) -> bytes:
    """A serialised ONNX model.

    An encoder takes `input_ids` `(1, n)` int32 and gives `embedding` `(1, hidden)` float32 of unit length. A cross-encoder
    gives `score` `(1, 1)` float32, and where its family tells the two texts of a pair apart it takes
    `token_type_ids` `(1, n)` int32 too.

    Args:
        weight_bits: Of each int8 weight; see `precision.int8_weight_bits`.

    Raises:
        InputError: The weights are not those of such a model of this shape; the message names what is missing.

    Source: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2019; its encoder as in BertModel. The
    others as in RobertaModel, DistilBertModel and MPNetModel.
    """
    return _Builder(config, weights, precision, weight_bits).build()


class _Builder:
    def __init__(self, config: BertConfig, weights: Mapping[str, Float32], precision: Precision, weight_bits: WeightBits) -> None:
        self._config = config
        self._weights = weights
        self._int8 = precision == "int8"
        self._weight_bits = weight_bits
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._prefix = next((name.removesuffix(_WORDS) for name in weights if name.endswith(_WORDS)), "")
        words = self._weight(_WORDS)
        if words.ndim != 2 or words.shape[1] != config.hidden or config.hidden % config.heads:
            raise InputError(f"the weights have the shape {words.shape}, the configuration says {config.hidden} by {config.heads} heads")

    def build(self) -> bytes:
        tokens = self._embeddings()
        bias = self._distances() if self._config.buckets else ""
        for layer in range(self._config.layers):
            tokens = self._layer(f"encoder.layer.{layer}.", tokens, bias)
        last = "score" if self._config.pooling == "score" else "embedding"
        if self._config.pooling == "mean":
            pooled = self._add("ReduceMean", tokens, self._constant(np.array([1])), keepdims=0)
        else:
            pooled = self._add("Gather", tokens, self._constant(np.array(0)), axis=1)
        if last == "score":
            self._nodes.append(helper.make_node("Identity", [self._score(pooled)], [last]))
        else:
            self._nodes.append(helper.make_node("LpNormalization", [pooled], [last], axis=-1, p=2))
        self._check_size()
        width = 1 if last == "score" else self._config.hidden
        inputs = ["input_ids", "token_type_ids"] if self._config.reads_segments else ["input_ids"]
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info(name, TensorProto.INT32, [1, "tokens"]) for name in inputs],
            [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, width])],
            self._constants,
        )
        # Versions that the oldest onnxruntime we allow can read, not the newest that `onnx` can write.
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(_CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="ragline")
        return bytes(model.SerializeToString(deterministic=True))

    def _check_size(self) -> None:
        if sum(len(constant.raw_data) for constant in self._constants) > _MAX_BYTES:
            raise InputError(
                "the model is too large for a graph of 32-bit numbers, which can hold 2 GB",
                hint='set the precision to "int8", or run the model with sentence-transformers',
            )

    def _embeddings(self) -> str:
        words = self._weight(_WORDS)
        if self._int8:
            # Half the memory; the rounding is far below that of the int8 layers.
            words16 = self._add("Gather", self._constant(words.astype(np.float16)), "input_ids")
            token = self._add("Cast", words16, to=TensorProto.FLOAT)
        else:
            token = self._add("Gather", self._constant(words), "input_ids")
        first = self._config.first_position
        positions = self._weight("embeddings.position_embeddings.weight")[first : first + self._config.max_tokens]
        if self._config.reads_segments:
            segments = self._constant(self._weight("embeddings.token_type_embeddings.weight"))
            token = self._add("Add", token, self._add("Gather", segments, "token_type_ids"))
        elif self._config.architecture.segments:
            # Every token is of the first segment, so its vector is added to the positions' once and for all.
            positions = positions + self._weight("embeddings.token_type_embeddings.weight")[0]
        zero = self._constant(np.array([0]))
        count = self._add("Shape", "input_ids", start=1, end=2)
        position = self._add("Slice", self._constant(positions), zero, count, zero)
        return self._normalised("embeddings.LayerNorm", self._add("Add", token, position))

    def _distances(self) -> str:
        """What the attention of each head adds for two tokens so far apart: `(1, heads, n, n)`.

        Source: Song et al., "MPNet", 2020, with the buckets of Raffel et al., "T5", 2020.
        """
        table = self._weight("encoder.relative_attention_bias.weight")
        window = self._config.max_tokens
        apart = np.arange(1 - window, window)  # of the token attended to, from the one that attends
        by_distance = table[_buckets(apart, self._config.buckets, self._config.farthest)].T  # (heads, 2 * window - 1)
        whole = np.stack([by_distance[:, window - 1 - i : 2 * window - 1 - i] for i in range(window)], axis=1)
        zeros = self._constant(np.array([0, 0]))
        count = self._add("Shape", "input_ids", start=1, end=2)
        counts = self._add("Concat", count, count, axis=0)
        return self._add("Slice", self._constant(whole[None]), zeros, counts, self._constant(np.array([2, 3])))

    def _score(self, first: str) -> str:
        """One number from the first token's vector."""
        inner, function, outer = self._config.architecture.head
        for name in (inner, outer):
            weight = self._constant(self._weight(name + ".weight").T)
            first = self._add("Add", self._add("MatMul", first, weight), self._constant(self._weight(name + ".bias")))
            if name == inner:
                first = self._add(function, first)
        return first

    def _layer(self, name: str, tokens: str, bias: str) -> str:
        attended = self._dense(name + "attention.output.dense", self._attention(name + "attention.self.", tokens, bias))
        tokens = self._normalised(name + "attention.output.LayerNorm", self._add("Add", attended, tokens))
        inner = self._dense(name + "intermediate.dense", tokens)
        inner = self._add("Gelu", inner, approximate=self._config.gelu)
        outer = self._dense(name + "output.dense", inner)
        return self._normalised(name + "output.LayerNorm", self._add("Add", outer, tokens))

    def _attention(self, name: str, tokens: str, distances: str) -> str:
        parts = ("query", "key", "value")
        weight = np.concatenate([self._weight(f"{name}{part}.weight") for part in parts]).T
        bias = self._constant(np.concatenate([self._weight(f"{name}{part}.bias") for part in parts]))
        heads = self._config.heads
        if not self._int8:
            inputs: tuple[str, ...] = (tokens, self._constant(weight), bias, *(("", "", distances) if distances else ()))
            return self._add("Attention", *inputs, domain=_CONTRIB, num_heads=heads)
        columns, scales = _quantised(weight, self._weight_bits)
        if distances:  # which the quantised attention does not take
            whole = self._add("DynamicQuantizeMatMul", tokens, self._constant(columns), self._constant(scales), "", bias, domain=_CONTRIB)
            split = self._add_many("Split", whole, outputs=3, axis=-1, num_outputs=3)
            return self._add("MultiHeadAttention", *split, "", "", distances, domain=_CONTRIB, num_heads=heads)
        quantised, scale, zero = self._add_many("DynamicQuantizeLinear", tokens, outputs=3)
        inputs = (quantised, self._constant(columns), bias, scale, self._constant(scales), "", zero)
        return self._add("QAttention", *inputs, domain=_CONTRIB, num_heads=heads)

    def _dense(self, name: str, tokens: str) -> str:
        weight = self._weight(name + ".weight").T
        bias = self._constant(self._weight(name + ".bias"))
        if not self._int8:
            return self._add("Add", self._add("MatMul", tokens, self._constant(weight)), bias)
        columns, scales = _quantised(weight, self._weight_bits)
        return self._add("DynamicQuantizeMatMul", tokens, self._constant(columns), self._constant(scales), "", bias, domain=_CONTRIB)

    def _normalised(self, name: str, tokens: str) -> str:
        scale, bias = self._constant(self._weight(name + ".weight")), self._constant(self._weight(name + ".bias"))
        return self._add("LayerNormalization", tokens, scale, bias, axis=-1, epsilon=self._config.epsilon)

    def _weight(self, name: str) -> Float32:
        name = self._config.architecture.weight(name)
        for known in (self._prefix + name, name):  # what scores stands outside the encoder
            if known in self._weights:
                return self._weights[known]
        raise InputError(f"the weights lack {name!r}", hint=f"use the weights of a whole {self._config.family} model")

    def _constant(self, array: NDArray[Any]) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def _add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return self._add_many(operator, *inputs, outputs=1, domain=domain, **attributes)[0]

    def _add_many(self, operator: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        names = [f"value_{len(self._nodes)}_{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(operator, inputs, names, domain=domain, **attributes))
        return names


def _quantised(weight: Float32, bits: WeightBits) -> tuple[NDArray[np.int8], Float32]:
    """`(in, out)` float32 to `bits` of int8 of the same shape and the scale of each column, `(out,)`: symmetric, to the nearest.

    One scale for the whole matrix, the default of onnxruntime's own quantiser, was measured at a mean cosine to
    fp32 of 0.947 on six sets of texts; one for each column gives 0.995 at the same speed.
    """
    scales = np.abs(weight).max(axis=0) / np.float32(2 ** (bits - 1) - 1)
    scales[scales == 0] = 1
    return np.rint(weight / scales).astype(np.int8), scales.astype(np.float32)


def _buckets(apart: NDArray[np.int64], count: int, farthest: int) -> NDArray[np.int64]:
    """The bucket of each distance: one for each near one, and the wider the farther, for each direction."""
    half = count // 2
    exact = half // 2
    far = np.abs(apart)
    # In float32, as it was trained: at the edges a rounding decides.
    ratio = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact)) / np.float32(math.log(farthest / exact))
    wide = np.minimum(exact + (ratio * np.float32(half - exact)).astype(np.int64), half - 1)
    return np.where(apart > 0, half, 0) + np.where(far < exact, far, wide)
