"""What a model's folder says of itself: shape, pooling, prompts, window."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ragline.errors import CorruptionError, InputError

_SUPPORTED = "use a BERT encoder (all-MiniLM, bge, e5, gte and the like) with mean or CLS pooling and model.safetensors"
_ACTIVATIONS: dict[str, Literal["none", "tanh"]] = {
    "gelu": "none",
    "gelu_python": "none",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_fast": "tanh",
}


@dataclass(frozen=True, slots=True)
class BertConfig:
    """Everything about an encoder but its weights.

    Attributes:
        gelu: How the activation is computed: by the error function ("none") or its tanh approximation.
        pooling: What makes one vector of the tokens' vectors: their mean, or the first one's.
        max_tokens: The longest input, special tokens and prompt included.
        question_prompt, passage_prompt: Put before every question and passage; "" for most models.
    """

    hidden: int
    layers: int
    heads: int
    gelu: Literal["none", "tanh"]
    epsilon: float
    pooling: Literal["mean", "cls"]
    max_tokens: int
    question_prompt: str = ""
    passage_prompt: str = ""

    @classmethod
    def read(cls, folder: Path) -> BertConfig:
        """Reads a folder in the layout of sentence-transformers, or of transformers alone (then mean pooling).

        Raises:
            InputError: The model is of a kind that is not supported; the message names what it is.
            CorruptionError: A configuration file cannot be read.
        """
        config = _json(folder / "config.json")
        kind = config.get("model_type")
        if kind != "bert" or config.get("is_decoder") or config.get("position_embedding_type", "absolute") != "absolute":
            raise InputError(f"{folder.name} is a model of type {kind!r}, which is not supported", hint=_SUPPORTED)
        activation = config.get("hidden_act", "gelu")
        if activation not in _ACTIVATIONS:
            raise InputError(f"{folder.name} uses the activation {activation!r}, which is not supported", hint=_SUPPORTED)
        prompts = _json(folder / "config_sentence_transformers.json")
        try:
            return cls(
                hidden=int(config["hidden_size"]),
                layers=int(config["num_hidden_layers"]),
                heads=int(config["num_attention_heads"]),
                gelu=_ACTIVATIONS[activation],
                epsilon=float(config.get("layer_norm_eps", 1e-12)),
                pooling=_pooling(folder),
                max_tokens=_window(folder, int(config["max_position_embeddings"])),
                question_prompt=_prompt(prompts, "query"),
                passage_prompt=_prompt(prompts, "document", "passage", "corpus"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptionError(
                f"the configuration of the model in {folder} is not usable: {error!r}", hint="fetch the model again"
            ) from error


def _pooling(folder: Path) -> Literal["mean", "cls"]:
    modules: dict[str, Path] = {}
    for module in _json(folder / "modules.json", default=[]):
        modules[str(module["type"]).rpartition(".")[2]] = folder / module["path"]
    unknown = set(modules) - {"Transformer", "Pooling", "Normalize"}
    if unknown:
        raise InputError(f"{folder.name} has a layer {unknown.pop()!r}, which is not supported", hint=_SUPPORTED)
    path = modules.get("Pooling", folder / "1_Pooling") / "config.json"
    if "Pooling" in modules and not path.is_file():
        raise CorruptionError(f"the model lacks {path}, so how it pools is not known", hint="fetch the model again")
    config = _json(path)
    modes = {key.removeprefix("pooling_mode_") for key, value in config.items() if key.startswith("pooling_mode_") and value is True}
    if "pooling_mode" in config:
        modes = {str(config["pooling_mode"])}
    if modes in ({"mean_tokens"}, {"mean"}, set()) and config.get("include_prompt", True):
        return "mean"
    if modes in ({"cls_token"}, {"cls"}):
        return "cls"
    raise InputError(f"{folder.name} pools by {', '.join(sorted(modes))}, which is not supported", hint=_SUPPORTED)


def _window(folder: Path, positions: int) -> int:
    told = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    if told is None:
        # Tokenizers without a limit of their own say 1e30 here.
        told = _json(folder / "tokenizer_config.json").get("model_max_length")
    return positions if told is None else max(1, int(min(positions, told)))


def _prompt(config: dict[str, Any], *names: str) -> str:
    """The prompt of that name, else the default one; sentence-transformers chooses in the same way."""
    prompts = config.get("prompts") or {}
    return str(next((prompts[name] for name in (*names, config.get("default_prompt_name")) if prompts.get(name)), ""))


def _json(path: Path, default: Any = None) -> Any:
    """The content of a JSON file; `default`, or an empty dict, where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {} if default is None else default
    except (OSError, ValueError) as error:
        raise CorruptionError(f"{path} cannot be read: {error}", hint="fetch the model again") from error
