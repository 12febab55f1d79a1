"""What the commands about caches do: of the data folder's servers, and of a server by its address."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ragline.cli.options import Common
from ragline.cli.screen import Screen, print_json
from ragline.errors import BackendError, ConflictError, InputError, NotFoundError, OverloadedError, RaglineError

_AT_ONCE = 4
_PATIENCE_S = 120.0
_TRIES = 5
_LONGEST_WAIT_S = 60.0
_KEY_BEGINS = "rl_"


async def stats(common: Common, url: str | None, key: str | None) -> int:
    """`ragline cache stats`."""
    if url is not None:
        async with _Server(url, key) as server:
            told = await server.ask("GET", "/api/v1/cache")
        found = {name: told[name] for name in ("searches", "answers")}
        if common.json:
            print_json(told)
            return 0
        for name, counts in found.items():
            Screen().line((f"{name}: ", "bold"), ", ".join(f"{count} {step.replace('_', ' ')}" for step, count in counts.items()))
        return 0
    async with common.engine() as engine:
        usage = await engine.store.vector_usage(engine.settings.tenant)
    if common.json:
        print_json({"vectors": [{"model": model, "vectors": count, "bytes": size} for model, (count, size) in usage.items()]})
        return 0
    screen = Screen()
    rows = [(model, count, f"{size / 1024**2:.1f}") for model, (count, size) in usage.items()]
    screen.table(("embedding model", "vectors", "MB"), rows)
    Screen(sys.stderr).line("these are kept with the documents; what a server keeps in memory it tells with --url")
    return 0


async def clear(common: Common, url: str | None, key: str | None) -> int:
    """`ragline cache clear`."""
    if url is not None:
        async with _Server(url, key) as server:
            await server.ask("DELETE", "/api/v1/cache")
    else:
        from ragline.server.clearing import CLEAR_CACHE

        async with common.engine() as engine:
            await engine.store.keys.audit(engine.settings.tenant, "command line", CLEAR_CACHE, engine.settings.tenant)
    if common.json:
        print_json({"cleared": True})
    else:
        Screen().line("cleared" if url is not None else "every server on this data folder forgets what it keeps for this tenant")
    return 0


async def warm(common: Common, file: Path, url: str | None, key: str | None) -> int:
    """`ragline cache warm`: asks a server every question of a file; 1 where one could not be answered."""
    if url is None:
        raise InputError(
            "what this command would keep in memory ends with it",
            hint="name a running server with --url, such as http://127.0.0.1:8000; in a program, `engine.ask_many(questions)` does it",
        )
    questions = _questions(file)
    body: dict[str, Any] = {} if common.collection is None else {"collections": [common.collection]}
    served: dict[str, int] = {}
    failed: list[dict[str, str]] = []
    waiting = iter(questions)
    async with _Server(url, key) as server:

        async def draw() -> None:
            for question in waiting:
                try:
                    answer = await server.ask("POST", "/api/v1/query", {"query": question, **body})
                except (InputError, NotFoundError, ConflictError) as failure:
                    failed.append({"question": question, "error": failure.message})
                else:
                    served[answer["cache"]] = served.get(answer["cache"], 0) + 1

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, len(questions))):
                group.create_task(draw())
    if common.json:
        print_json({"asked": len(questions), "served": served, "failed": failed})
    else:
        Screen().line(f"{len(questions)} questions: ", ", ".join(f"{count} {step}" for step, count in sorted(served.items())))
        for each in failed:
            Screen(sys.stderr).line(("failed: ", "bold red"), f"{each['question']}: {each['error']}")
    return 1 if failed else 0


def _questions(file: Path) -> Sequence[str]:
    """The lines of a file that are not empty and do not begin with #, each once."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8"
        raise InputError(
            f"the questions in {str(file)!r} cannot be read: {reason}", hint="give a text file, a question a line"
        ) from failure
    return list(dict.fromkeys(line.strip() for line in lines if line.strip() and not line.startswith("#")))


class _Server:
    """A running `ragline serve`, asked over HTTP."""

    def __init__(self, url: str, key: str | None) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError(f"--url is {url!r}", hint="such as http://127.0.0.1:8000")
        self._url = url.rstrip("/")
        self._headers = {} if key is None else {"authorization": f"Bearer {_key(key)}"}

    async def __aenter__(self) -> _Server:
        import httpx2  # takes longer to import than most commands run

        self._client = httpx2.AsyncClient(headers=self._headers, timeout=_PATIENCE_S, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON of an answer; a server that is full is asked again when it says.

        Raises:
            RaglineError: It is not there, or refused.
        """
        import httpx2

        for attempt in range(_TRIES):
            try:
                answer = await self._client.request(method, self._url + path, json=body)
                told = answer.json()
            except (httpx2.RequestError, ValueError) as failure:
                raise BackendError(
                    f"{self._url} does not answer as a ragline server", hint="see that `ragline serve` runs there"
                ) from failure
            if answer.is_success:
                return dict(told)
            if answer.status_code not in (429, 503) or attempt == _TRIES - 1:
                raise _refusal(answer.status_code, told)
            await asyncio.sleep(min(_LONGEST_WAIT_S, float(answer.headers.get("retry-after", 1))))
        raise AssertionError("the last try returned or raised")


def _refusal(status: int, told: Any) -> RaglineError:
    error = told.get("error", {}) if isinstance(told, dict) else {}
    message, hint = str(error.get("message", f"the server answered {status}")), str(error.get("hint", ""))
    if status == 401:  # the server's own hint is for HTTP
        hint = "give one that is in force with --key, or --key @FILE for one in a file; `ragline keys list` on the server shows them"
    kinds: dict[int, type[RaglineError]] = {404: NotFoundError, 409: ConflictError, 422: InputError, 429: OverloadedError}
    return kinds.get(status, BackendError)(message, hint=hint)


def _key(given: str) -> str:
    """A key, or what stands in the file of `@FILE`. What is none is not sent, nor shown: it may be a secret of something else."""
    if not given.startswith("@"):
        if given.startswith(_KEY_BEGINS):
            return given
        cure = f"`--key @{given}` reads it from that file" if os.path.isfile(given) else "`--key @FILE` reads one from a file"
        raise InputError(f"--key is no key: one begins with {_KEY_BEGINS}", hint=f"{cure}; `ragline keys create` makes one")
    try:
        key = Path(given[1:]).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as failure:
        raise InputError(f"no key can be read from {given[1:]!r}", hint="write `--key @FILE`, the file holding nothing else") from failure
    if not key.startswith(_KEY_BEGINS):
        raise InputError(
            f"there is no key in {given[1:]!r}: one begins with {_KEY_BEGINS}", hint="the file is to hold a key and nothing else"
        )
    return key
