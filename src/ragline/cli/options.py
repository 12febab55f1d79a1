"""What the commands have in common: options, settings, an open engine."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ragline.errors import BackendError, FilterError, InputError, NotFoundError, RaglineError

if TYPE_CHECKING:  # an engine takes as long to import as `--help` may take
    from ragline.engine import Engine
    from ragline.settings import LoadedSettings

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]


@dataclass(frozen=True, slots=True)
class Common:
    """The options that every command has, before or after its name."""

    json: Annotated[bool, typer.Option("--json", help="Print one JSON document, errors too, and nothing else on standard output.")] = False
    data_dir: Annotated[str | None, typer.Option("--data-dir", metavar="FOLDER", help="Where the store lives. [default: .ragline]")] = None
    collection: Annotated[str | None, typer.Option("--collection", metavar="NAME", help="Which collection. [default: default]")] = None
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="Whose documents. [default: default]")] = None
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="A settings file, TOML or YAML. [default: ragline.toml]")
    ] = None
    profile: Annotated[str | None, typer.Option("--profile", metavar="NAME", help="Settings that belong together, such as laptop.")] = None
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting: retrieval.top_k=5. May be repeated.")
    ] = None
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False
    log_level: Annotated[Level | None, typer.Option("--log-level", help="Log to standard error: this and what is worse.")] = None
    log_format: Annotated[Format | None, typer.Option("--log-format", help="Log lines for people, or one JSON object a line.")] = None

    def over(self, other: Common) -> Common:
        """These options, and the other's where these were not given."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        nearest = Common(*(theirs if mine in (None, False) else mine for mine, theirs in pairs))
        return replace(nearest, assignments=[*(other.assignments or []), *(self.assignments or [])])  # the later wins

    def log(self) -> None:
        """Sends the log to standard error where a flag asks for it."""
        if self.log_level is not None or self.log_format is not None:
            from ragline.observe.logs import configure_logging

            configure_logging(self.log_level or "info", self.log_format == "json")

    def flags(self, **flags: Any) -> dict[str, Any]:
        """The settings that flags of their own give, by dotted key; `flags` has `__` for the dot, None where not given."""
        given = {"data_dir": self.data_dir, "collection": self.collection, "tenant": self.tenant, "profile": self.profile, **flags}
        return {key.replace("__", "."): value for key, value in given.items() if value is not None}

    def assigned(self) -> dict[str, str]:
        """The settings that `--set` gives, by dotted key.

        Raises:
            InputError: One is not KEY=VALUE; it is not quoted, for it may be a secret.
        """
        pairs = [assignment.partition("=") for assignment in self.assignments or []]
        if not all(key and separator for key, separator, _ in pairs):
            raise InputError("--set takes KEY=VALUE", hint="such as --set retrieval.top_k=5; `ragline config show` lists the keys")
        return {key.strip(): value for key, _, value in pairs}

    def settings(self, **flags: Any) -> LoadedSettings:
        """The settings in force; `flags` are settings by dotted key (`__` for the dot), None where not given."""
        from ragline.settings import load_settings

        return load_settings(config_file=self.config, flags=self.flags(**flags), assignments=self.assigned())

    @asynccontextmanager
    async def engine(self, *, writes: bool = False, **flags: Any) -> AsyncIterator[Engine]:
        """An open engine.

        Raises:
            NotFoundError: There is no store, and the command does not write: a question makes none.
        """
        settings = self.settings(**flags).settings
        if not writes:
            _must_hold_a_store(settings.data_dir)
        from ragline.engine import Engine

        async with Engine.open(settings=settings, announce=announce) as engine:
            yield engine


def nothing_ingested(what: str) -> RaglineError:
    """The error of a question to nothing."""
    return NotFoundError(
        what, hint="ingest something first: `ragline ingest PATH`; or name another with --data-dir, --collection or --tenant"
    )


def _must_hold_a_store(data_dir: Path) -> None:
    from ragline.storage.sqlite.store import FILE_NAME

    try:
        os.stat(data_dir / FILE_NAME)
    except (FileNotFoundError, NotADirectoryError) as failure:
        missing = f"there is no data folder {str(data_dir)!r}" if not os.path.isdir(data_dir) else f"there is no store in {str(data_dir)!r}"
        raise nothing_ingested(missing) from failure
    except (OSError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else failure
        raise BackendError(
            f"the data folder {str(data_dir)!r} cannot be read: {reason}", hint="make it readable, or name another with --data-dir"
        ) from failure


def announce(sentence: str) -> None:
    """Says on standard error what takes long."""
    print(sentence, file=sys.stderr, flush=True)


Command = Callable[..., Coroutine[Any, Any, int | None] | int | None]


def command(app: typer.Typer, name: str | None = None) -> Callable[[Command], Command]:
    """Makes a function a command, mostly an async one: its first parameter gets the common options, the others are its own.

    What the function returns is the exit code; None is 0.
    """

    def register(function: Command) -> Command:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        common = list(inspect.signature(Common, eval_str=True).parameters.values())
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *common)]

        @wraps(function)
        def run(*, context: typer.Context, **values: Any) -> int | None:
            given = Common(**{each.name: values.pop(each.name) for each in common}).over(context.find_root().obj)
            given.log()
            outcome = function(given, **values)
            return asyncio.run(outcome) if isinstance(outcome, Coroutine) else outcome

        run.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in (context, *parameters)}
        app.command(name)(run)
        return function

    return register


def json_object(text: str | None, flag: str, error: type[InputError] = FilterError) -> dict[str, Any] | None:
    """The JSON object of a flag, or None where it was not given."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise error(f"{flag} is not JSON: {fault}", hint=f"""quote it for the shell: {flag} '{{"lang": "en"}}'""") from fault
    if not isinstance(value, dict):
        raise error(f"{flag} is not a JSON object: {text[:80]}", hint=f"""such as {flag} '{{"lang": "en"}}'""")
    return value
