"""Tiny models with random weights of many architectures, written by transformers and sentence-transformers themselves."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.tiny_bert import VOCABULARY, write_tokenizer

HIDDEN, LAYERS, HEADS, INNER, WINDOW = 24, 2, 3, 40, 64
_SHAPE: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "initializer_range": 0.3,  # so large that every layer tells in the result
}
_PIECES = ["<s>", "<pad>", "</s>", "<unk>"]
_WORDS = ["keys", "rotate", "how", "do", "we", "query", "passage", "every", "day", "cafe", "\u4e2d", "\u6587"]
_LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,:;!?()-'\""]
UNIGRAMS = [*_PIECES, "▁", *("▁" + word for word in _WORDS), *_WORDS, *_LETTERS]

FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "mpnet")


def write_unigram_tokenizer(path: Path) -> None:
    """Pieces of words as in XLM-RoBERTa: white space belongs to the word after it."""
    pieces = [(piece, -4.0 if len(piece) > 2 else -9.0) for piece in UNIGRAMS]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=UNIGRAMS.index("<unk>")))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(_PIECES)
    tokenizer.save(str(path))


def _config(family: str, **more: Any) -> Any:
    import transformers

    words = {"vocab_size": len(VOCABULARY), "max_position_embeddings": WINDOW}
    pieces = {"vocab_size": len(UNIGRAMS), "max_position_embeddings": WINDOW + 2, "pad_token_id": 1, "layer_norm_eps": 1e-5}
    roberta = pieces | _SHAPE | {"type_vocab_size": 1}
    distil = {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": INNER, "initializer_range": 0.3}
    special = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    name, told = {
        "bert": ("BertConfig", words | _SHAPE),
        "roberta": ("RobertaConfig", roberta),
        "xlm-roberta": ("XLMRobertaConfig", roberta),
        "camembert": ("CamembertConfig", roberta),
        "mpnet": ("MPNetConfig", pieces | _SHAPE),
        "distilbert": ("DistilBertConfig", words | distil),
        "modernbert": ("ModernBertConfig", words | _SHAPE | special),
    }[family]
    return getattr(transformers, name)(**{**told, **more})


def _shaken(model: Any) -> Any:
    """Biases and norms that are not what they begin as, so that none may be left out unseen."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def _write_tokenizer(folder: Path, family: str) -> None:
    if family in ("bert", "distilbert", "modernbert"):
        write_tokenizer(folder / "tokenizer.json")
        names: dict[str, Any] = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
        if family == "bert":
            names["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    else:
        write_unigram_tokenizer(folder / "tokenizer.json")
        names = {"unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>", "cls_token": "<s>"}
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": WINDOW, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


def write_encoder(
    folder: Path,
    family: str = "bert",
    *,
    pooling: str = "mean",
    normalize: bool = True,
    dense: int = 0,
    seed: int = 0,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    prompts: dict[str, str] | None = None,
    **config: Any,
) -> Path:
    """A folder as sentence-transformers saves it."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoModel

    auto: Any = AutoModel
    torch.manual_seed(seed)
    raw = folder.with_name(folder.name + "-raw")
    raw.mkdir(parents=True)
    _shaken(auto.from_config(_config(family, **config))).to(getattr(torch, dtype)).save_pretrained(raw)
    _write_tokenizer(raw, family)
    modules: list[Any] = [Transformer(str(raw), model_kwargs={"dtype": getattr(torch, dtype)})]
    modules.append(Pooling(HIDDEN, pooling_mode=pooling))
    if dense:
        modules.append(_shaken(Dense(HIDDEN, dense)))
    if normalize:
        modules.append(Normalize())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about writing a card
        SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save(str(folder), create_model_card=False)
    return folder


def write_cross_encoder(folder: Path, family: str = "bert", *, labels: int = 1, seed: int = 0, **config: Any) -> Path:
    """A folder as on the hub: transformers' files alone."""
    import torch
    from transformers import AutoModelForSequenceClassification

    auto: Any = AutoModelForSequenceClassification
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    model = auto.from_config(_config(family, num_labels=labels, **config))
    _shaken(model).save_pretrained(folder)
    _write_tokenizer(folder, family)
    return folder
