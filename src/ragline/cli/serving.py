"""What `ragline serve` does."""

from __future__ import annotations

from typing import Any

from ragline.cli.options import Common
from ragline.errors import MissingExtraError


def serve(common: Common, flags: dict[str, Any]) -> int:
    """Runs the server until it is told to stop. Raises MissingExtraError where the extra is not installed."""
    settings = common.settings(**{f"server__{name}": value for name, value in flags.items()}).settings
    try:
        from ragline.server.running import serve as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("ragline"):
            raise
        raise MissingExtraError(f"the server needs the Python package {error.name!r}", hint="pip install 'ragline[server]'") from error
    return run(settings)
