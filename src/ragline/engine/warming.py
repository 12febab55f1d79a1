"""What the first question would otherwise wait for: models and views, loaded before anyone asks."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from ragline.engine.resources import Resources
from ragline.errors import InputError, MissingExtraError, NotFoundError, RaglineError, SettingsError
from ragline.types import Scope

_log = logging.getLogger("ragline.engine")

_MOST_COLLECTIONS = 16


async def warm_up(resources: Resources, first: Scope) -> None:
    """Opens the models of the collections there are, and the views of some: those of `first`, then in the order they were made.

    What cannot be loaded now, or of one collection alone, is told to the log; who asks for it will be told why.

    Raises:
        SettingsError: The settings name a model that is not there, or none where one is needed: nothing could be answered.
        NotFoundError: So for the reranker.
        MissingExtraError: They want an extra that is not installed.
    """
    heads = {scope: head for scope, head in (await resources.store.heads()).items() if head.model}
    scopes = sorted(heads, key=lambda scope: (scope != first, heads[scope].scope_id))
    await _prepare_answers(resources, scopes[0] if scopes else first, exists=bool(scopes))
    models: set[str] = set()
    for place, scope in enumerate(scopes):
        try:
            if (model := heads[scope].model) not in models:
                models.add(model)
                embedder = await resources.embedder_for(scope)
                await embedder.embed_questions(["warm"])
            if place < min(_MOST_COLLECTIONS, resources.settings.index.resident_scopes):
                await resources.follower.views(scope, wait_s=resources.settings.index.wait_s)
        except RaglineError as failure:
            _log.warning("the collection %r of tenant %r cannot be made ready: %s", scope.collection, scope.tenant, failure.message)


async def _prepare_answers(resources: Resources, scope: Scope, *, exists: bool) -> None:
    """Opens what the settings name: the embedder, unless a collection that exists has another, the generator, the reranker."""
    named = {"model", "runtime"} & resources.settings.embedding.model_fields_set
    try:
        await resources.embedder_for(scope)
    except (SettingsError, MissingExtraError):
        if named or not exists:
            raise
        return  # it is of the collection, and told with it
    except RaglineError:
        pass  # perhaps for the moment only; told with the generator
    await _told(resources.generator_for([scope]))
    await _told(resources.reranker())


async def _told(opening: Awaitable[object]) -> None:
    try:
        await opening
    except (InputError, NotFoundError):  # it is in the settings
        raise
    except RaglineError as failure:
        _log.warning("answers cannot be made ready: %s", failure.message)
