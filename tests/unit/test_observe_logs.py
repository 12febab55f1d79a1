"""What is written to the log: for people, for programs, and for which request."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from datetime import datetime
from typing import Any

import pytest
from pydantic import SecretStr

from ragline.concurrency.workers import Workers
from ragline.observe.logs import configure_logging
from ragline.observe.request_ids import LONGEST, new_request_id, request, request_id

log = logging.getLogger("ragline.tests")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=lambda name: pytest.fail(name)) for line in stream.getvalue().splitlines()]


def test_lines_are_json_with_what_they_were_given() -> None:
    stream = io.StringIO()
    configure_logging("info", json=True, stream=stream)
    with request("r1"):
        log.info("asked %s", "twice", extra={"lsn": 7, "level": "mine"})
    log.debug("not this")
    line, *others = lines(stream)
    assert not others
    assert datetime.fromisoformat(line.pop("ts")).tzinfo is not None
    assert line == {"level": "info", "logger": "ragline.tests", "message": "asked twice", "request_id": "r1", "lsn": 7, "level_": "mine"}


def test_exceptions_are_part_of_their_line() -> None:
    stream = io.StringIO()
    configure_logging("error", json=True, stream=stream)
    try:
        raise ValueError("mine\nand more")
    except ValueError:
        log.exception("it broke")
    (line,) = lines(stream)
    assert line["message"] == "it broke" and "ValueError: mine\nand more" in line["exception"] and "request_id" not in line


def test_secrets_stay_secret_and_odd_values_do_no_harm() -> None:
    stream = io.StringIO()
    configure_logging("info", json=True, stream=stream)
    circle: list[object] = []
    circle.append(circle)
    log.info("key %s", SecretStr("hush"), extra={"key": SecretStr("hush"), "nested": {"key": [SecretStr("hush")]}})
    for odd in (float("nan"), circle, {(1, 2): SecretStr("hush")}, b"\xff", "\ud800", object()):
        log.info("odd", extra={"odd": odd})
    assert len(lines(stream)) == 7 and "hush" not in stream.getvalue()


def test_text_is_one_line_whatever_a_message_holds() -> None:
    stream = io.StringIO()
    configure_logging("warning", stream=stream)
    with request("r2"):
        log.warning("cannot read %s", "a\n12:00:00 ERROR ragline: forged\x1b[2J\r\u2028\u202e")
    (line,) = stream.getvalue().splitlines()
    assert " WARNING ragline.tests [r2]: cannot read a | 12:00:00 ERROR" in line
    assert line.isprintable()
    try:
        raise ValueError("mine")
    except ValueError:
        log.warning("it broke", exc_info=True)
    assert stream.getvalue().splitlines()[-1] == "ValueError: mine"


def test_configuring_again_replaces_and_the_root_logger_is_left_alone() -> None:
    before = list(logging.getLogger().handlers), logging.getLogger().level
    first, second = io.StringIO(), io.StringIO()
    configure_logging("info", stream=first)
    configure_logging("info", json=True, stream=second)
    log.info("once")
    assert not first.getvalue() and len(lines(second)) == 1
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == before


async def test_the_request_id_goes_along_to_tasks_and_worker_threads() -> None:
    stream = io.StringIO()
    configure_logging("info", json=True, stream=stream)
    workers = Workers("test", 2)

    async def ask(number: int) -> None:
        with request(f"r{number}"):
            await asyncio.sleep(0)
            log.info("here %d", number)
            await workers.run(log.info, "worker %d", number)
            await workers.run(lambda extra: log.info("keyword %d", number, extra=extra), extra={"more": number})
            await asyncio.gather(*(asyncio.create_task(workers.run(log.info, "task %d", number)) for _ in range(2)))

    try:
        await asyncio.gather(*(ask(number) for number in range(20)))
        await workers.run(log.info, "nobody's")
    finally:
        workers.close()
    found = lines(stream)
    assert len(found) == 20 * 5 + 1
    for line in found:
        assert line.get("request_id", "none") == ("none" if line["message"] == "nobody's" else f"r{line['message'].split()[-1]}")


def test_a_request_keeps_the_id_around_it_and_ends_with_its_block() -> None:
    with request() as outer:
        with request() as inner:
            assert inner == outer == request_id() and len(outer) == 16
        with request("own") as own:
            assert own == "own" == request_id()
        assert request_id() == outer
    assert request_id() == ""
    assert len({new_request_id() for _ in range(1000)}) == 1000


@pytest.mark.parametrize(("sent", "kept"), [(" a\r\nb\x00 ", "ab"), ("x" * 1000, "x" * LONGEST)])
def test_ids_that_callers_send_are_fit_for_a_log(sent: str, kept: str) -> None:
    with request(sent) as id:
        assert id == kept
    with request("\n\t") as id:
        assert len(id) == 16
