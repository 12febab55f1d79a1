"""What is put before questions and passages: what the user says, else what the model declares, else what its card tells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from textwrap import shorten
from typing import Any, NamedTuple

from ragline.embedding.tokenizer import ModelTokenizer
from ragline.errors import SettingsError
from ragline.settings import EmbeddingSettings


class Prefixes(NamedTuple):
    """Put before every question and every passage; "" for most models."""

    question: str = ""
    passage: str = ""


_BGE = "Represent this sentence for searching relevant passages: "
_BGE_CHINESE = "为这个句子生成表示以用于检索相关文章："  # noqa: RUF001
# From the models' cards on the hub, for those whose files say nothing. Only whole names: what is made from such a model
# and bears a name of its own may have been trained otherwise.
_KNOWN = (
    (r"e5-(small|base|large)(-v2)?|multilingual-e5-(small|base|large)", Prefixes("query: ", "passage: ")),
    (r"bge-(small|base|large)-en(-v1\.5)?", Prefixes(_BGE)),
    (r"bge-(small|base|large)-zh(-v1\.5)?", Prefixes(_BGE_CHINESE)),
    (r"snowflake-arctic-embed-(xs|s|m|m-v1\.5|m-long|l)", Prefixes(_BGE)),
    (r"snowflake-arctic-embed-(m|l)-v2\.0", Prefixes("query: ")),
    (r"mxbai-embed-large-v1", Prefixes(_BGE)),
    (r"nomic-embed-text-v1(\.5)?|modernbert-embed-base", Prefixes("search_query: ", "search_document: ")),
)


def known_prefixes(name: str) -> Prefixes:
    """The prefixes of a widely used model by its name on the hub, or by its folder's; none for others."""
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    return next((prefixes for pattern, prefixes in _KNOWN if re.fullmatch(pattern, last, re.IGNORECASE)), Prefixes())


def declared_prefixes(config: Mapping[str, Any]) -> Prefixes:
    """The prompts in a model's config_sentence_transformers.json, chosen by name as sentence-transformers chooses."""
    return Prefixes(_prompt(config, "query"), _prompt(config, "document", "passage", "corpus"))


def choose_prefixes(settings: EmbeddingSettings, name: str, declared: Prefixes) -> Prefixes:
    """The prefixes to use: a setting wins, "" included; else what the model declares, if anything; else those known by name."""
    found = declared if any(declared) else known_prefixes(name)
    return Prefixes(
        found.question if settings.question_prefix is None else settings.question_prefix,
        found.passage if settings.passage_prefix is None else settings.passage_prefix,
    )


def check_prefixes(tokenizer: ModelTokenizer, prefixes: Iterable[str], window: int) -> None:
    """Raises SettingsError for a prefix that leaves less than half of the model's window for the text."""
    for prefix in prefixes:
        before, after = tokenizer.surrounding(prefix)
        if prefix and len(before) + len(after) > window // 2:
            raise SettingsError(
                f"the prefix {shorten(prefix, 60)!r} has {len(before)} tokens, of the {window} that the model takes",
                hint="shorten embedding.question_prefix or embedding.passage_prefix",
            )


def _prompt(config: Mapping[str, Any], *names: str) -> str:
    prompts = config.get("prompts") or {}
    for name in (*names, config.get("default_prompt_name")):
        if prompts.get(name):
            return str(prompts[name])
    return ""
