"""Many questions at once: in order, a bounded number at a time, each with its own result or error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from ragline.errors import InputError, RaglineError

T = TypeVar("T")


async def each_of(questions: Sequence[str], answer: Callable[[str], Awaitable[T]], *, max_concurrent: int) -> list[T | RaglineError]:
    """The result of each question, in order; a `RaglineError` in the place of one that failed.

    Any other exception is a fault of the program: it ends the rest and is raised.

    Raises:
        InputError: One text instead of a sequence, or no question at a time.
    """
    if isinstance(questions, str) or not isinstance(questions, Iterable):
        raise InputError(f"several questions are a list, and this is one {type(questions).__name__}", hint="put it into a list")
    questions = list(questions)
    if isinstance(max_concurrent, bool) or not isinstance(max_concurrent, int) or max_concurrent < 1:
        raise InputError(f"max_concurrent is {max_concurrent!r}", hint="use a whole number from 1 up")
    results: dict[int, T | RaglineError] = {}
    waiting = iter(enumerate(questions))

    async def draw() -> None:
        for place, question in waiting:
            try:
                results[place] = await answer(question)
            except RaglineError as failure:
                results[place] = failure

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(max_concurrent, len(questions))):
                group.create_task(draw())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [results[place] for place in range(len(questions))]
