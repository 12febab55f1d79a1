"""What holds for every test."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@pytest.fixture(autouse=True)
def logging_stays_as_it_was() -> Iterator[None]:
    """Commands and servers set up logging for a whole process; the next test is to find it as it was."""
    with _logging_kept():
        yield


@pytest.fixture(autouse=True, scope="module")
def logging_stays_as_it_was_before_a_module() -> Iterator[None]:
    """The same for servers that a whole module shares: set up before them, so that it ends after them."""
    with _logging_kept():
        yield


@contextmanager
def _logging_kept() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("ragline", "uvicorn")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate


def pytest_configure() -> None:
    """Programs that tests start can be interrupted also where the tests themselves run in the background.

    A shell starts background jobs with SIGINT ignored, and an ignored signal stays ignored in their children.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says whether the tests of fp16 on CUDA had a device."""
    if any("test_embedding_cuda" in report.nodeid for report in terminalreporter.getreports("passed")):
        import torch

        found = torch.cuda.get_device_name() if torch.cuda.is_available() else "no device here: its tests checked that this is said"
        terminalreporter.write_line(f"CUDA: {found}")
