"""What a model's folder says of itself: shape, pooling, prompts, window."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ragline.embedding.architectures import ARCHITECTURES, Architecture
from ragline.embedding.prefixes import declared_prefixes
from ragline.errors import CorruptionError, InputError

_ENCODERS = (
    "use a BERT, RoBERTa, XLM-RoBERTa, DistilBERT or MPNet encoder with mean or CLS pooling and model.safetensors, "
    'or set embedding.runtime = "sentence-transformers", which runs others too'
)
_CROSS_ENCODERS = (
    "use a BERT, RoBERTa, XLM-RoBERTa, DistilBERT or MPNet cross-encoder with one score and model.safetensors, "
    'or set rerank.reranker = "sentence-transformers", which runs others too'
)
_ACTIVATIONS: dict[str, Literal["none", "tanh"]] = {
    "gelu": "none",
    "gelu_python": "none",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_fast": "tanh",
}


@dataclass(frozen=True, slots=True)
class BertConfig:
    """Everything about an encoder, or a cross-encoder, but its weights.

    Attributes:
        gelu: How the activation is computed: by the error function ("none") or its tanh approximation.
        pooling: What makes one vector of the tokens' vectors: their mean, or the first one's. "score": what scores a
            pair from the first one's.
        max_tokens: The longest input, special tokens and prompt included.
        question_prompt, passage_prompt: Put before every question and passage; "" for most models.
        family: The architecture, as config.json names it.
        first_position: The number of a text's first position.
        buckets, farthest: How far tokens are apart is told to the attention in so many buckets, up to this distance
            (MPNet); 0 for none.
        sigmoid: Whether the model's configuration asks for scores between 0 and 1.
    """

    hidden: int
    layers: int
    heads: int
    gelu: Literal["none", "tanh"]
    epsilon: float
    pooling: Literal["mean", "cls", "score"]
    max_tokens: int
    question_prompt: str = ""
    passage_prompt: str = ""
    # Not in `repr`, which stored fingerprints were made from before there were other families: see `beyond_bert`.
    family: str = field(default="bert", repr=False)
    first_position: int = field(default=0, repr=False)
    buckets: int = field(default=0, repr=False)
    farthest: int = field(default=0, repr=False)
    sigmoid: bool = field(default=False, repr=False)

    @property
    def architecture(self) -> Architecture:
        """How the family differs from BERT."""
        return ARCHITECTURES[self.family]

    @property
    def reads_segments(self) -> bool:
        """Whether the graph is told which text of a pair a token belongs to."""
        return self.pooling == "score" and self.architecture.segments > 1

    @property
    def beyond_bert(self) -> tuple[object, ...]:
        """What `repr` leaves out, for fingerprints; empty for a BERT encoder."""
        rest = (self.family, self.first_position, self.buckets, self.farthest, self.sigmoid)
        return () if rest == ("bert", 0, 0, 0, False) else rest

    @property
    def of_graph(self) -> tuple[object, ...]:
        """What a graph built for it depends on."""
        shape = (self.hidden, self.layers, self.heads, self.gelu, self.epsilon, self.pooling, self.max_tokens)
        return (*shape, "", "", *self.beyond_bert)  # the empty ones: where prompts stood, for graphs built before

    @classmethod
    def read(cls, folder: Path) -> BertConfig:
        """Reads an encoder's folder in the layout of sentence-transformers, or of transformers alone (then mean pooling).

        Raises:
            InputError: The model is of a kind that is not supported; the message names what it is.
            CorruptionError: A configuration file cannot be read.
        """
        prefixes = declared_prefixes(read_json(folder / "config_sentence_transformers.json"))
        shape = _shape(folder, _ENCODERS)
        return cls(**shape, pooling=_pooling(folder), question_prompt=prefixes.question, passage_prompt=prefixes.passage)

    @classmethod
    def read_cross_encoder(cls, folder: Path) -> BertConfig:
        """Reads the folder of a cross-encoder, a model that gives one score for a pair of texts.

        Raises:
            InputError: The model is of a kind that is not supported; the message names what it is.
            CorruptionError: A configuration file cannot be read.
        """
        _check_scores_once(folder)
        return cls(**_shape(folder, _CROSS_ENCODERS), pooling="score", sigmoid=asks_for_sigmoid(folder))


def _check_scores_once(folder: Path) -> None:
    """Raises InputError where the model was not made to give one score for a pair, or does more than its graph would."""
    config = read_json(folder / "config.json")
    kind = str((config.get("architectures") or ["unnamed"])[0])
    labels = config.get("num_labels", len(config.get("id2label") or (0, 1)))  # transformers writes neither where there are two
    if not kind.endswith("ForSequenceClassification") or labels != 1:
        raise InputError(f"{folder.name} is no cross-encoder that gives one score: {kind} with {labels} labels", hint=_CROSS_ENCODERS)
    unknown = set(_modules(folder)) - {"Transformer"}
    if unknown:
        raise InputError(f"{folder.name} has a layer {min(unknown)!r}, which is not supported", hint=_CROSS_ENCODERS)
    if any(declared_prefixes(read_json(folder / "config_sentence_transformers.json"))):
        raise InputError(f"{folder.name} wants a prompt, which is not supported", hint=_CROSS_ENCODERS)


def asks_for_sigmoid(folder: Path) -> bool:
    """Whether a cross-encoder's files ask for scores between 0 and 1. Without a word on it they are left as they come.

    The order is the same either way, but far from 0.5 the function rounds different scores to one.
    """
    config = read_json(folder / "config.json")
    newest = read_json(folder / "config_sentence_transformers.json").get("activation_fn")
    newer = (config.get("sentence_transformers") or {}).get("activation_fn")
    return str(newest or newer or config.get("sbert_ce_default_activation_function") or "").endswith(".Sigmoid")


def _shape(folder: Path, hint: str) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in ARCHITECTURES or config.get("is_decoder") or config.get("position_embedding_type", "absolute") != "absolute":
        raise InputError(f"{folder.name} is a model of type {kind!r}, which is not supported", hint=hint)
    architecture = ARCHITECTURES[kind]

    def told(key: str) -> Any:
        return config[architecture.keys.get(key, key)]

    activation = config.get(architecture.keys.get("hidden_act", "hidden_act"), "gelu")
    if activation not in _ACTIVATIONS:
        raise InputError(f"{folder.name} uses the activation {activation!r}, which is not supported", hint=hint)
    try:
        first = int(config.get("pad_token_id", 1)) + 1 if architecture.counts_from_padding else 0
        return {
            "hidden": int(told("hidden_size")),
            "layers": int(told("num_hidden_layers")),
            "heads": int(told("num_attention_heads")),
            "gelu": _ACTIVATIONS[activation],
            "epsilon": float(config.get("layer_norm_eps", 1e-12)),
            "max_tokens": _window(folder, int(told("max_position_embeddings")) - first),
            "family": kind,
            "first_position": first,
            "buckets": int(config.get("relative_attention_num_buckets", 32)) if kind == "mpnet" else 0,
            "farthest": 128 if kind == "mpnet" else 0,  # transformers has it in its code
        }
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptionError(
            f"the configuration of the model in {folder} is not usable: {error!r}", hint="fetch the model again"
        ) from error


def _pooling(folder: Path) -> Literal["mean", "cls"]:
    modules = _modules(folder)
    unknown = set(modules) - {"Transformer", "Pooling", "Normalize"}
    if unknown:
        raise InputError(f"{folder.name} has a layer {min(unknown)!r}, which is not supported", hint=_ENCODERS)
    path = modules.get("Pooling", folder / "1_Pooling") / "config.json"
    if "Pooling" in modules and not path.is_file():
        raise CorruptionError(f"the model lacks {path}, so how it pools is not known", hint="fetch the model again")
    config = read_json(path)
    modes = {key.removeprefix("pooling_mode_") for key, value in config.items() if key.startswith("pooling_mode_") and value is True}
    told = config.get("pooling_mode")
    if told is not None:
        modes = {told} if isinstance(told, str) else set(map(str, told))
    if not config.get("include_prompt", True):
        modes.add("without its prompt")
    if modes in ({"mean_tokens"}, {"mean"}, set()):
        return "mean"
    if modes in ({"cls_token"}, {"cls"}):
        return "cls"
    raise InputError(f"{folder.name} pools by {', '.join(sorted(modes))}, which is not supported", hint=_ENCODERS)


def _modules(folder: Path) -> dict[str, Path]:
    """The folder of each module by the last part of its type's name; empty for models of transformers alone."""
    try:
        listed = read_json(folder / "modules.json", default=[])
        return {str(module["type"]).rpartition(".")[2]: folder / module["path"] for module in listed}
    except (KeyError, TypeError) as error:
        raise CorruptionError(f"{folder / 'modules.json'} does not hold what it should", hint="fetch the model again") from error


def _window(folder: Path, positions: int) -> int:
    """The longest input in tokens: what the model's files tell, and never more than it has positions."""
    told = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    if told is None:
        # Tokenizers without a limit of their own say 1e30 here.
        told = read_json(folder / "tokenizer_config.json").get("model_max_length")
    return positions if told is None else max(1, int(min(positions, told)))


def read_json(path: Path, default: Any = None) -> Any:
    """The content of a JSON file; `default`, or an empty dict, where there is none.

    Raises:
        CorruptionError: It cannot be read, or is not of the kind of `default`.
    """
    default = {} if default is None else default
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except (OSError, ValueError) as error:
        raise CorruptionError(f"{path} cannot be read: {error}", hint="fetch the model again") from error
    if not isinstance(content, type(default)):
        raise CorruptionError(f"{path} does not hold what it should", hint="fetch the model again")
    return content
