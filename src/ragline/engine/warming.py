"""What the first question would otherwise wait for: models and views, loaded before anyone asks."""

from __future__ import annotations

import logging

from ragline.engine.resources import Resources
from ragline.errors import BackendError, MissingExtraError, ModelMismatchError, RaglineError, SettingsError
from ragline.types import Scope

_log = logging.getLogger("ragline.engine")

_MOST_COLLECTIONS = 16


async def warm_up(resources: Resources, first: Scope) -> None:
    """Opens the models of the collections there are, and the views of some: those of `first`, then in the order they were made.

    What cannot be loaded now is told to the log; who asks for it will be told why.

    Raises:
        SettingsError: With these settings nothing could be answered: they name no model, or one that is not there.
        MissingExtraError: They want an extra that is not installed.
    """
    try:
        await resources.generator_for([first])
        await resources.reranker()
    except (BackendError, ModelMismatchError) as failure:
        _log.warning("answers of tenant %r cannot be made ready: %s", first.tenant, failure.message)
    heads = {scope: head for scope, head in (await resources.store.heads()).items() if head.model}
    scopes = sorted(heads, key=lambda scope: (scope != first, heads[scope].scope_id))
    models: set[str] = set()
    for place, scope in enumerate(scopes):
        try:
            if (model := heads[scope].model) not in models:
                models.add(model)
                embedder = await resources.embedder_for(scope)
                await embedder.embed_questions(["warm"])
            if place < min(_MOST_COLLECTIONS, resources.settings.index.resident_scopes):
                await resources.follower.views(scope, wait_s=resources.settings.index.wait_s)
        except (SettingsError, MissingExtraError):
            raise
        except RaglineError as failure:
            _log.warning("the collection %r of tenant %r cannot be made ready: %s", scope.collection, scope.tenant, failure.message)
