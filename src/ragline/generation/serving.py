"""What the adapters of language models share: where the server is, which key it gets, and what its failures mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ragline.concurrency.retries import retry_after_s
from ragline.errors import BackendError, NotFoundError, OverloadedError, SettingsError
from ragline.generation.chat_model import ModelFailedError
from ragline.generation.degradation import LLM_RATE_LIMITED, LLM_REJECTED, LLM_UNAVAILABLE
from ragline.settings import GenerationSettings
from ragline.settings.addresses import is_this_machine

CONNECT_TIMEOUT_S = 5.0
"""A server that does not even take a connection for so long is down."""

REACHABLE_TIMEOUT_S = 5.0
"""How long a server may take to say which models it has."""

LAST_WORDS_S = 0.1
"""How long a server may take after an answer's end to end its reply too, so that the connection can be used again."""

_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
"""Statuses after which the same request may succeed."""

_BUSY = frozenset({429, 503, 529})

_NO_QUOTA = re.compile(r"insufficient_quota|exceeded your current quota|billing", re.IGNORECASE)
_TOO_LONG = re.compile(r"context.{0,20}(?:length|window|size)|maximum context|too many tokens|prompt is too long", re.IGNORECASE)
_SHOWN_CHARACTERS = 300
_READ_CHARACTERS = 10_000
"""Of what a server says went wrong, no more is looked at: this happens on the event loop."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where a model is served, and what goes wrong there in the words of ragline's errors.

    Attributes:
        url: As errors show it: without what may be secret.
        missing_hint: What to do where the server does not know the model.
    """

    url: str
    model: str
    missing_hint: str
    key: str = field(default="", repr=False)

    @classmethod
    def of(cls, settings: GenerationSettings, usual_url: str, *, missing_hint: str) -> Server:
        """The server that the settings name.

        Raises:
            SettingsError: They name no model.
        """
        if not (settings.model or "").strip():
            raise SettingsError(
                f"generation.model is not set, and the generator {settings.generator!r} has no model of its own",
                hint='name one that the server has, such as RAGLINE_GENERATION__MODEL=... or model = "..." under [generation]',
            )
        key = settings.api_key.get_secret_value() if settings.api_key is not None else ""
        parts = urlsplit(settings.base_url or usual_url)
        return cls(f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", str(settings.model).strip(), missing_hint, key)

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine, which no proxy leads to."""
        return is_this_machine(self.url)

    @property
    def is_encrypted(self) -> bool:
        """Whether there is a certificate to verify: what that takes is not made for nothing, since it takes long."""
        return self.url.startswith("https:")

    def unreachable(self, why: object) -> ModelFailedError:
        """There is no connection, or it broke before the answer began."""
        return ModelFailedError(
            BackendError(
                f"the language model's server at {self.url} cannot be reached: {self.shown(why)}",
                hint="start it, or put its address right in generation.base_url",
            ),
            LLM_UNAVAILABLE,
            wait_s=0.0,
        )

    def broke_off(self, why: object) -> ModelFailedError:
        """The answer ended before its end."""
        return ModelFailedError(
            BackendError(
                f"the language model's server at {self.url} broke off: {self.shown(why)}", hint="see the server's own log; ask again"
            ),
            LLM_UNAVAILABLE,
            wait_s=0.0,
        )

    def nonsense(self, why: object) -> ModelFailedError:
        """It answered what this protocol does not know."""
        return ModelFailedError(
            BackendError(
                f"the language model's server at {self.url} answered what makes no sense: {self.shown(why)}",
                hint="generation.generator must fit the server, and generation.base_url its API",
            ),
            LLM_UNAVAILABLE,
            wait_s=0.0,
        )

    def refusal(self, status: int, said: object, headers: Mapping[str, str], *, code: str | None = None) -> ModelFailedError:
        """It answered with a status other than 200; `code` is its own word for that, if it has one."""
        text = str(said)[:_READ_CHARACTERS]
        text = f"{text} ({code})" if code and code != str(status) else text
        what = f"the language model's server at {self.url} answered with status {status}: {self.shown(text)}"
        if status in (401, 403):
            # Not what it said: some servers repeat the key, or most of it.
            error = SettingsError(
                f"the language model's server at {self.url} refuses the key (status {status})"
                if self.key
                else f"the language model's server at {self.url} wants a key (status {status})",
                hint="set generation.api_key (RAGLINE_GENERATION__API_KEY) to a key that may use this model",
            )
            return ModelFailedError(error, LLM_REJECTED)
        if 300 <= status < 400:
            moved = f"the language model's server at {self.url} sends us elsewhere: {self.shown(headers.get('location', status))}"
            return ModelFailedError(
                SettingsError(moved, hint="set generation.base_url to where it is now, if you trust that"), LLM_REJECTED
            )
        if status == 404:
            return ModelFailedError(self.missing(text), LLM_REJECTED)
        if status == 429 and _NO_QUOTA.search(text):
            return ModelFailedError(SettingsError(what, hint="the key's account has run out: add to it, or use another"), LLM_REJECTED)
        if status in _PASSING:
            wait_s = retry_after_s(headers) or 0.0
            if status in _BUSY:
                return ModelFailedError(OverloadedError(what, hint="try again later"), LLM_RATE_LIMITED, wait_s=wait_s)
            return ModelFailedError(BackendError(what, hint="see the server's own log"), LLM_UNAVAILABLE, wait_s=wait_s)
        hint = "read what it says; the settings under generation must fit the server and the model"
        if status == 413 or _TOO_LONG.search(text):
            hint = "lower generation.prompt_tokens or generation.max_tokens: together they must fit the model's context"
        return ModelFailedError(SettingsError(what, hint=hint), LLM_REJECTED)

    def missing(self, said: object = "") -> NotFoundError:
        """It does not have the model, or not at this address."""
        said = f": {self.shown(said)}" if said else ""
        return NotFoundError(f"the model {self.model!r} is not there at {self.url}{said}", hint=self.missing_hint)

    def tells_key(self, error: Exception) -> bool:
        """Whether a driver's error may hold the key, so that nobody may see it."""
        return getattr(error, "status_code", 0) in (401, 403) or (bool(self.key) and self.key in str(error))

    def shown(self, said: object) -> str:
        """What a server or a driver said, in one short line without the key."""
        text = " ".join(str(said)[:_READ_CHARACTERS].split()) or type(said).__name__
        if self.key:
            text = text.replace(self.key, "***")
        return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]} ..."
