"""Who may come in now? Decided once it is known who asks, before anything of the body is worked on."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import ExitStack

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragline.concurrency.admission import Admission, Place
from ragline.concurrency.deadlines import deadline
from ragline.concurrency.entering import entrance
from ragline.concurrency.limited import LimitExceeded, limited
from ragline.errors import DeadlineError, InputError, OverloadedError, RaglineError
from ragline.server.access import Caller
from ragline.server.budgets import LIMITED, Budgets
from ragline.server.errors import HttpError, error_response
from ragline.settings.limits import LimitsSettings
from ragline.types import Effort

SLOW_AFTER_S = 5.0
"""A body may take so long before it is looked at how fast it comes."""

_MAY_BE_KNOWN = frozenset({"/api/v1/search", "/api/v1/query", "/v1/chat/completions"})
"""Where an answer that is known is given whatever the crowd: looking it up costs hardly more than refusing."""

_GRACE_S = 0.25
"""Work keeps to its deadline itself, and says so in its own words; what does not is cut off so much later."""


class Visit:
    """One request of a budget, from its head to the end of its answer.

    It waits for its place when its body is there, not before: a client that sends slowly holds none. Where what it asks for may be
    known already, it takes none before that has been looked up.

    Attributes:
        effort: What the work may cost.
        looks_up: Whether what it asks for may be known already; the engine says when it is not.
        refused: Whether it was refused before it waited.
    """

    def __init__(self, admission: Admission, kind: str, effort: Effort, *, looks_up: bool = False) -> None:
        self._admission = admission
        self._kind = kind
        self._place: Place | None = None
        self._done = False
        self.effort = effort
        self.looks_up = looks_up
        self.refused = False

    def turned_out(self, what: str) -> None:
        """Names what came of it, in the words of `Answer.cache`: how long a known answer takes says nothing of others."""
        if self._place is not None:
            self._place.kind = self._kind_of(what)

    def part_turned_out(self, what: str | None) -> None:
        """The same of one of several questions that are answered in this place one after the other; None of one that failed."""
        if self._place is not None:
            self._place.part_ended(None if what is None else self._kind_of(what))

    def beside(self) -> Visit | None:
        """A further place of its own, for what of this request can be done at the same time, where one is free now. Leave it."""
        place = self._admission.enter_now(self._kind)
        if place is None:
            return None
        beside = Visit(self._admission, self._kind, self.effort)
        beside._place = place
        return beside

    def _kind_of(self, what: str) -> str:
        return self._kind if what in ("miss", "off") else f"{self._kind} {what}"

    async def enter(self) -> None:
        """Waits for a place. Raises OverloadedError where there is none soon enough."""
        if self._place is None and not self._done:
            try:
                self._admission.must_not_be_full(self._kind)
            except OverloadedError:
                self.refused = True
                raise
            self._place = await self._admission.enter(self._kind)

    def leave(self, *, counts: bool) -> None:
        """Frees the place."""
        self._done = True
        if self._place is not None:
            self._place.leave(counts=counts)
            self._place = None


def visit_of(request: Request) -> Visit:
    """The visit that a request of a budget is."""
    visit = request.state.visit
    assert isinstance(visit, Visit)
    return visit


class Door:
    """Refuses what is too much (429 for a key's rate, 503 where it is full), and gives what is let in a deadline and a place.

    Args:
        looks_up: Whether answers are kept; else all that may be known is refused before it is read, too.
    """

    def __init__(self, app: ASGIApp, budgets: Budgets, settings: LimitsSettings, *, looks_up: bool) -> None:
        self._app = app
        self._budgets = budgets
        self._settings = settings
        self._looks_up = looks_up

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it, without reading its body where what it asks for cannot be known."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith(LIMITED):
            await self._app(scope, receive, send)
            return
        came = time.perf_counter()
        budget = self._budgets.budget_of(scope["method"], path)
        try:
            caller: Caller = scope["state"]["caller"]
            key = caller.key
            self._budgets.take_rate(caller.name, key.rate_per_s if key is not None else None, key.burst if key is not None else None)
            visit = self._visit(budget, path)
            seconds = self._seconds(scope, budget)
        except RaglineError as refusal:
            await error_response(path, refusal)(scope, receive, send)
            if not isinstance(refusal, InputError):
                self._note_refusal(scope, came)
            return
        if visit is None:
            await self._app(scope, _Paced(receive, self._settings.min_body_bytes_per_s), send)
        else:
            try:
                await self._serve(visit, seconds, scope, receive, send)
            finally:
                if visit.refused:
                    self._note_refusal(scope, came)

    def _note_refusal(self, scope: Scope, came: float) -> None:
        scope["state"]["refused"] = True
        self._budgets.refused(time.perf_counter() - scope["state"].get("came", came))

    def _visit(self, budget: str | None, path: str) -> Visit | None:
        if budget is None:
            return None
        admission = self._budgets.admissions[budget]
        effort = self._budgets.effort(budget)
        # With less effort a call is of the same kind: how long it takes is compared with the whole. Paths of documents have no end.
        kind = budget if budget == "ingesting" else path
        looks_up = self._looks_up and path in _MAY_BE_KNOWN
        if not looks_up:
            admission.must_not_be_full(kind)
        return Visit(admission, kind, effort, looks_up=looks_up)

    async def _serve(self, visit: Visit, seconds: float | None, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["visit"] = visit
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        paced = _Paced(receive, self._settings.min_body_bytes_per_s, visit)
        whole = False
        try:
            with ExitStack() as within:
                if seconds is not None:
                    within.enter_context(deadline(seconds))
                if visit.looks_up:
                    within.enter_context(entrance(visit.enter))
                limit = asyncio.timeout(seconds + _GRACE_S if seconds is not None else None)
                try:
                    async with limit:
                        await self._app(scope, paced, answer)
                        whole = True
                except TimeoutError:
                    if not limit.expired() or status:  # what has begun cannot become an error: it stays unfinished
                        raise
                    late = DeadlineError(f"this took longer than {seconds:g} s", hint="allow it more time, or try again later")
                    await error_response(scope["path"], late)(scope, receive, answer)
        finally:
            visit.leave(counts=whole and 200 <= status < 300)

    def _seconds(self, scope: Scope, budget: str | None) -> float | None:
        """How long it may take; uploads have limits of their own."""
        if budget in (None, "ingesting"):
            return None
        most = self._settings.request_timeout_s
        for name, value in scope["headers"]:
            if name == b"x-request-timeout":
                try:
                    asked = float(value)
                except ValueError:
                    asked = math.nan
                if not 0 < asked < math.inf:
                    raise InputError("X-Request-Timeout is no number of seconds", hint="send one such as 2.5, or leave it out")
                return min(most, asked)
        return most


class _Paced:
    """Receives a body no slower than a pace, and waits for a place inside when it is there."""

    def __init__(self, receive: Receive, bytes_per_s: int, visit: Visit | None = None) -> None:
        self._receive = receive
        self._bytes_per_s = bytes_per_s
        self._visit = visit
        self._began = time.monotonic()
        self._received = 0
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        message = await self._next()
        if message["type"] != "http.request":
            self._complete = True
            return message
        self._received += len(message.get("body", b""))
        if not message.get("more_body", False):
            self._complete = True
            if self._visit is not None and not self._visit.looks_up:
                await self._visit.enter()
        return message

    async def _next(self) -> Message:
        if not self._bytes_per_s:
            return await self._receive()
        # So long may the next bytes be in coming.
        allowed_s = SLOW_AFTER_S + self._received / self._bytes_per_s
        try:
            return await limited(max(0.0, allowed_s - (time.monotonic() - self._began)), self._receive())
        except LimitExceeded:
            self._complete = True
            raise HttpError(
                408,
                "slow_body",
                f"the body came slower than {self._bytes_per_s:,} bytes a second",
                hint="send it over a faster connection, or in smaller parts",
                headers={"connection": "close"},
            ) from None
