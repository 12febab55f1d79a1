"""JSON answers."""

from __future__ import annotations

import asyncio
import json

import pytest

from ragline.server.replies import long_reply


@pytest.mark.parametrize("count", [0, 1, 256, 1000])
async def test_a_long_list_is_written_whole_while_others_run(count: int) -> None:
    ran = 0

    async def other() -> None:
        nonlocal ran
        while True:
            ran += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    answer = await long_reply({"id": 'a"'}, "values", range(count), lambda number: {"n": number, "half": "\ud800"})
    beside.cancel()
    assert json.loads(bytes(answer.body)) == {"id": 'a"', "values": [{"n": number, "half": "?"} for number in range(count)]}
    assert ran >= count // 256
