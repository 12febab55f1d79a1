"""People who ask and write notes: three questions to one upload of a text of one chunk, 1 to 3 s between.

    locust -f locustfile.py --host http://127.0.0.1:8000 -u 500 -r 50 -t 60s --headless

`RAGLINE_QUESTIONS` names a JSON file with a list of sentences. The first 300 are asked: people ask what others ask, while each upload has
every answer checked anew. Notes are written of the others, two sentences each. `RAGLINE_KEY` holds a key where the server has keys.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from pathlib import Path

from locust import FastHttpUser, between, task

_FILE = os.environ.get("RAGLINE_QUESTIONS")
QUESTIONS = json.loads(Path(_FILE).read_text(encoding="utf-8")) if _FILE else [f"What is said about number {n}?" for n in range(5000)]
DISTINCT = 300
HEADERS = {"Authorization": f"Bearer {key}"} if (key := os.environ.get("RAGLINE_KEY")) else {}
_numbers = itertools.count()


class Person(FastHttpUser):
    """One who asks what others may have asked, and writes what nobody wrote."""

    wait_time = between(1, 3)

    @task(3)
    def ask(self) -> None:
        self.client.post("/api/v1/query", json={"query": random.choice(QUESTIONS[:DISTINCT])}, headers=HEADERS, name="ask")

    @task(1)
    def upload(self) -> None:
        told = " ".join(random.choice(QUESTIONS[DISTINCT:]) for _ in range(2))
        text = f"Note {next(_numbers)} of {os.getpid()}. {told}"
        self.client.post("/api/v1/documents", json={"text": text}, headers=HEADERS, name="upload")
