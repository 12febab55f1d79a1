"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Programs that tests start can be interrupted also where the tests themselves run in the background.

    A shell starts background jobs with SIGINT ignored, and an ignored signal stays ignored in their children.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
