"""Which language model? From settings to a generator; each adapter is imported when it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ragline.caching.base import Cache
from ragline.concurrency.circuit import Circuit
from ragline.concurrency.workers import Workers
from ragline.errors import MissingExtraError, SettingsError
from ragline.generation.base import Generator
from ragline.generation.chat_model import ChatModel
from ragline.settings import GenerationSettings, PoolSettings

if TYPE_CHECKING:
    from ragline.generation.chat import ChatGenerator


def open_generator(
    settings: GenerationSettings,
    pool: PoolSettings,
    *,
    count_tokens: Callable[[str], int],
    fallback: Generator | None,
    workers: Workers,
    circuit: Circuit | None = None,
    responses: Cache[str] | None = None,
    responses_ttl_s: float | None = None,
) -> ChatGenerator:
    """The generator that the settings name, with a language model. Imports what it needs, which takes a moment.

    Args:
        count_tokens: How many tokens a text has, estimated on the long side.
        fallback: Quotes instead where the model fails and `settings.fallback` is set. Stays the caller's to close.
        workers: Where prompts are made and quotations are chosen. Stay the caller's to close.
        circuit: Stands before the model's server.
        responses, responses_ttl_s: Where what the model wrote is kept, and for how long; None keeps nothing.

    Raises:
        SettingsError: The model is not named, the key that its server wants is missing, or the template is none.
        MissingExtraError: The model's extra is not installed.
    """
    from ragline.generation.chat import ChatGenerator
    from ragline.generation.guarded import GuardedChatModel
    from ragline.generation.remembered import RememberedChatModel

    model = open_chat_model(settings, pool)
    if circuit is not None:
        model = GuardedChatModel(model, circuit, silence_s=0.9 * settings.first_token_timeout_s)
    if responses is not None:
        model = RememberedChatModel(model, responses, ttl_s=responses_ttl_s)
    return ChatGenerator(model, count_tokens, settings, fallback, workers=workers)


def open_chat_model(settings: GenerationSettings, pool: PoolSettings) -> ChatModel:
    """The language model that the settings name: to be closed by the caller. Nothing is sent yet.

    Raises:
        SettingsError: There is none, or it is not named, or the key that its server wants is missing.
        MissingExtraError: Its extra is not installed.
    """
    if settings.generator not in _MODELS:
        raise SettingsError(
            f"the generator {settings.generator!r} has no language model", hint=f"set generation.generator to {' or '.join(_MODELS)}"
        )
    return _MODELS[settings.generator](settings, pool)


def _openai(settings: GenerationSettings, pool: PoolSettings) -> ChatModel:
    try:
        from ragline.generation.openai import OpenAIChat
    except ModuleNotFoundError as error:
        raise _missing("openai") from error
    return OpenAIChat(settings, pool)


def _ollama(settings: GenerationSettings, pool: PoolSettings) -> ChatModel:
    try:
        from ragline.generation.ollama import OllamaChat
    except ModuleNotFoundError as error:
        raise _missing("ollama") from error
    return OllamaChat(settings, pool)


_MODELS: Mapping[str, Callable[[GenerationSettings, PoolSettings], ChatModel]] = {"openai": _openai, "ollama": _ollama}


def _missing(extra: str) -> MissingExtraError:
    # The package that the extra is named after: what is missing first may be one that it needs itself.
    return MissingExtraError(f"the generator {extra!r} needs the Python package {extra!r}", hint=f"pip install 'ragline[{extra}]'")
