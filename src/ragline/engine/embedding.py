"""Texts of a caller as vectors, by the embedder of a collection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragline.embedding.base import Embedder
from ragline.engine.resources import Resources
from ragline.errors import InputError, NotFoundError
from ragline.types import Embeddings, Scope

_TEXTS_PER_JOB = 8
"""Few, so that questions get in between."""


async def embedder_named(resources: Resources, scope: Scope, model: str | None) -> Embedder:
    """The embedder of a collection; with a name, that of this name among the tenant's collections. No other is ever opened.

    Raises:
        NotFoundError: None of them has this name.
    """
    if model is not None:
        collections = await resources.store.collections(scope.tenant)
        named = [info.name for info in collections if info.embedder.get("model") == model]
        if named and scope.collection not in named:
            scope = Scope(scope.tenant, named[0])
    embedder = await resources.embedder_for(scope)
    if model is not None and embedder.name != model:
        raise NotFoundError(f"there is no embedding model {model!r} here", hint=f"the one that is used is {embedder.name!r}")
    return embedder


async def embed_texts(resources: Resources, embedder: Embedder, texts: Sequence[str]) -> Embeddings:
    """The vectors of texts, and how many tokens each has, special ones included.

    Raises:
        InputError: A text is empty or longer than the model's window, or holds what is no text.
    """
    for place, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"text {place} is empty or no text", hint="leave it out")
    size = _TEXTS_PER_JOB if embedder.is_local else max(1, len(texts))  # a server is asked once
    around = sum(map(len, embedder.tokenizer.special_ids))
    vectors, tokens = [], list[int]()
    for at in range(0, len(texts), size):
        job = texts[at : at + size]
        for spans in await resources.question_workers.run(embedder.tokenizer.spans, job):
            tokens.append(len(spans.ids) + around)
            if tokens[-1] > embedder.max_tokens:
                raise InputError(
                    f"text {len(tokens) - 1} has {tokens[-1]} tokens, and the model {embedder.name} takes {embedder.max_tokens}",
                    hint="cut it, or send its parts",
                )
        vectors.append(await embedder.embed_questions(job))
    whole = np.concatenate(vectors) if vectors else np.empty((0, embedder.dimension), np.float32)
    return Embeddings(embedder.name, whole, tuple(tokens))
