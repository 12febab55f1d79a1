"""What all parts of an engine stand on: its resources, a tenant, and the rule that it must be open."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from ragline.engine.asking import Asking
from ragline.engine.resources import Resources
from ragline.observe.performance import PerformanceMonitor
from ragline.settings import Settings
from ragline.types import Effort, Scope

P = ParamSpec("P")
T = TypeVar("T")


def while_open(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Keeps the engine open until the method is done, and refuses it on one that is not open."""

    @functools.wraps(method)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        engine = args[0]
        assert isinstance(engine, OpenedEngine)
        with engine._resources.in_use():
            return await method(*args, **kwargs)

    return guarded


class OpenedEngine:
    """One tenant's way to resources that many share."""

    def __init__(
        self, resources: Resources, tenant: str, *, asking: Asking | None = None, effort: Effort | None = None, owner: bool = True
    ) -> None:
        self._resources = resources
        self._asking = asking or Asking(resources)
        self._tenant = tenant
        self._effort = effort or Effort()
        self._owner = owner

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._resources.settings

    @property
    def monitor(self) -> PerformanceMonitor:
        """What was measured of the requests to this engine and to its tenants': "search", "ask", "stream" and the like."""
        return self._resources.monitor

    def _scope(self, collection: str | None) -> Scope:
        return Scope(self._tenant, self.settings.collection if collection is None else collection)
