"""The server as it is run: one process, several, under gunicorn; how each stops, and what they share."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import psutil
import pytest

from ragline import Document
from ragline import open as open_engine
from ragline.settings import Settings
from tests.imitation.chat import MODEL, ChatServer, Script
from tests.server.processes import started, until
from tests.tiny_bert import write_model

SEARCH = "/api/v1/search"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Settings of every process: a model that is there at once."""
    return {
        "RAGLINE_DATA_DIR": str(tmp_path / "data"),
        "RAGLINE_CACHE_DIR": str(tmp_path / "models"),
        "RAGLINE_EMBEDDING__MODEL": str(write_model(tmp_path / "tiny")),
        "RAGLINE_READING__WORKERS": "1",
        "RAGLINE_SERVER__DRAIN_S": "0.3",
    }


def settings_of(environment: dict[str, str]) -> Settings:
    return Settings(
        data_dir=environment["RAGLINE_DATA_DIR"],
        cache_dir=environment["RAGLINE_CACHE_DIR"],
        embedding={"model": environment["RAGLINE_EMBEDDING__MODEL"]},
    )


def test_told_to_stop_it_is_not_ready_finishes_what_it_has_and_ends_well(tmp_path: Path, environment: dict[str, str]) -> None:
    environment |= {"RAGLINE_GENERATION__GENERATOR": "ollama", "RAGLINE_GENERATION__MODEL": MODEL}
    with ChatServer("ollama", script=Script(["Nine", 1.5, " o'clock."])) as model:
        environment |= {"RAGLINE_GENERATION__BASE_URL": model.base_url, "RAGLINE_SERVER__DRAIN_S": "1"}
        with open_engine(settings=settings_of(environment)) as engine:
            engine.ingest(Document("The ferry leaves at nine.", id="a"))
        with started(["ragline", "serve", "--port", "0"], tmp_path, environment) as server:
            answers: list[httpx2.Response] = []
            asking = threading.Thread(target=lambda: answers.append(server.post("/api/v1/query", {"query": "when does the ferry leave?"})))
            asking.start()
            until(lambda: model.asked, "the question was with the model")
            server.process.send_signal(signal.SIGTERM)
            until(lambda: server.get("/readyz").status_code == 503, "it was not ready any more")
            assert server.post(SEARCH, {"query": "ferry"}).status_code == 200, "while it drains, it still answers"
            asking.join()
            assert answers[0].status_code == 200 and answers[0].json()["answer"].startswith("Nine o'clock.")
            assert server.process.wait(30) == 0, server.said()
            assert "Traceback" not in server.said()


def test_a_stream_that_would_not_end_does_not_hold_it_up(tmp_path: Path, environment: dict[str, str]) -> None:
    environment |= {"RAGLINE_GENERATION__GENERATOR": "ollama", "RAGLINE_GENERATION__MODEL": MODEL, "RAGLINE_SERVER__SHUTDOWN_S": "0.5"}
    with ChatServer("ollama", script=Script(["Nine", 60.0])) as model:
        environment |= {"RAGLINE_GENERATION__BASE_URL": model.base_url}
        with open_engine(settings=settings_of(environment)) as engine:
            engine.ingest(Document("The ferry leaves at nine.", id="a"))
        with (
            started(["ragline", "serve", "--port", "0"], tmp_path, environment) as server,
            httpx2.stream("POST", f"{server.url}/api/v1/query", json={"query": "when?", "stream": True}, timeout=60) as stream,
        ):
            lines = stream.iter_lines()
            assert next(lines) == "event: hits"
            until(lambda: model.asked, "the question was with the model")
            began = time.monotonic()
            assert server.stop(signal.SIGHUP) == 0, server.said()
            assert time.monotonic() - began < 30 and "stopped" in server.said()


def test_several_processes_are_one_server(tmp_path: Path, environment: dict[str, str]) -> None:
    """Documents, keys and the cache are the same in all of them; one that dies is replaced; none outlives its parent."""
    with (
        open_engine(settings=settings_of(environment)) as engine,
        started(["ragline", "serve", "--port", "0", "--workers", "2"], tmp_path, environment) as server,
    ):
        first = until(lambda: len(found := server.workers()) == 2 and found, "both were there")
        for round in range(2):
            word = f"word{round}"
            engine.ingest(Document(f"common {word}", id=f"d{round}"))
            committed = time.monotonic()
            seen = 0
            while seen < 6:  # on a connection each, so that both are asked
                hits = server.post(SEARCH, {"query": word, "top_k": 3}).json()["hits"]
                seen = seen + 1 if f"d{round}" in {hit["document_id"] for hit in hits} else 0
                assert seen or time.monotonic() - committed < 10
            engine.delete(f"d{round}")
            for _ in range(6):
                assert word not in server.post(SEARCH, {"query": word}).text.partition('"hits"')[2]

        accepted = [server.post("/api/v1/documents", {"text": f"upload {number}"}).json()["job_id"] for number in range(8)]
        doomed = first.pop()
        psutil.Process(doomed).kill()
        until(lambda: len(found := server.workers()) == 2 and doomed not in found, "the dead one was replaced")
        assert all(server.post(SEARCH, {"query": "common"}).status_code == 200 for _ in range(6))

        states = [f"/api/v1/jobs/{job}" for job in accepted]
        until(lambda: {server.get(path).json()["state"] for path in states} == {"succeeded"}, "all uploads were done")
        assert {server.get(path).json()["files"][0]["outcome"] for path in states} == {"added"}

        def keys(*arguments: str) -> str:
            command = [sys.executable, "-m", "ragline", "keys", *arguments]
            return subprocess.run(
                command, cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, check=True
            ).stdout.strip()

        key = keys("create", "--tenant", "acme", "--scope", "read")
        assert {server.post(SEARCH, {"query": "x"}).status_code for _ in range(6)} == {401}
        assert {server.post(SEARCH, {"query": "x"}, authorization=f"Bearer {key}").status_code for _ in range(6)} == {200}
        keys("revoke", key)
        assert {server.post(SEARCH, {"query": "x"}, authorization=f"Bearer {key}").status_code for _ in range(6)} == {401}

        children = [psutil.Process(each) for each in server.workers()]
        server.process.kill()
        psutil.wait_procs(children, timeout=30)
        assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in children)


def must_refuse_a_head_without_end(url: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    said = b""
    with socket.create_connection((host, int(port)), timeout=20) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000)
        while part := connection.recv(65536):
            said += part
    assert said == b"" or said.startswith(b"HTTP/1.1 431")


def test_it_runs_under_gunicorn_whose_workers_come_and_go(tmp_path: Path, environment: dict[str, str]) -> None:
    command = ["gunicorn", "-k", "ragline.server.gunicorn_worker.Worker", "--workers", "2"]
    command += ["--max-requests", "8", "--max-requests-jitter", "4"]
    command += ["--bind", "127.0.0.1:0", "--timeout", "60", "--graceful-timeout", "20", "ragline.server.app:create_app()"]
    with started(command, tmp_path, environment) as server:
        first = until(lambda: len(found := server.workers()) == 2 and found, "both were there")
        must_refuse_a_head_without_end(server.url)
        statuses = set()
        ends = time.monotonic() + 60
        while first & server.workers() and time.monotonic() < ends:
            statuses.add(server.post(SEARCH, {"query": "ferry"}).status_code)
        assert statuses == {200} and not first & server.workers()
        assert server.stop() == 0, server.said()
