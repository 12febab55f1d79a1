"""Documents and jobs over HTTP, with a real client on a real socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from tests.server.live import Live, live

LIMIT_BYTES = 400_000
FORM_HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Live]:
    settings = {"max_upload_bytes": LIMIT_BYTES, "max_upload_files": 5, "max_body_bytes": 100_000}
    with live(folder, server=settings, reading={"workers": 1}) as running:
        yield running


@pytest.fixture
def client(server: Live, request: pytest.FixtureRequest) -> Iterator[httpx2.Client]:
    """A client whose key is of a tenant of its own."""
    key = server.key(request.node.name[:100])
    with httpx2.Client(base_url=server.url, headers={"x-api-key": key}, timeout=30) as client:
        yield client


def ended(client: httpx2.Client, accepted: httpx2.Response) -> dict[str, Any]:
    """The job of an upload when it has ended, by its events."""
    assert accepted.status_code == 202, accepted.text
    with client.stream("GET", f"{accepted.headers['location']}/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in events.iter_lines() if line]
    assert lines[-2] == "event: end"
    job: dict[str, Any] = json.loads(lines[-1].removeprefix("data: "))
    return job


def post(client: httpx2.Client, *files: tuple[str, bytes], **fields: str) -> httpx2.Response:
    return client.post("/api/v1/documents", files=[("file", file) for file in files], data=fields)


def left_over(folder: Path) -> list[str]:
    return [path.name for path in (folder / "uploads").glob("*")]


def nothing_left(folder: Path) -> bool:
    """Whether the folder of uploads is empty, soon: files of jobs that have ended are deleted after that."""
    waiting = threading.Event()
    return any(not left_over(folder) or waiting.wait(0.02) for _ in range(500))


def refused(answer: httpx2.Response, status: int, word: str = "") -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] and error["message"] and word in error["message"], error


def test_a_text_is_accepted_ingested_and_found(client: httpx2.Client) -> None:
    given = {"text": "# Ferries\n\nThe ferry will leave at nine.", "id": "kb/42", "source": "https://kb/42", "metadata": {"lang": "en"}}
    accepted = client.post("/api/v1/documents", json=given)
    assert accepted.json() == {"id": "kb/42", "job_id": accepted.json()["job_id"], "status": "processing"}
    job = ended(client, accepted)
    assert (job["state"], job["progress"]) == ("succeeded", {"files": 1, "done": 1})
    assert job == client.get(accepted.headers["location"]).json()
    found = client.get("/api/v1/documents/kb/42").json()
    assert (found["id"], found["source"], found["metadata"], found["version"]) == ("kb/42", "https://kb/42", {"lang": "en"}, 1)
    assert client.get("/api/v1/documents/kb%2F42").json() == found
    assert "nine" in client.get("/api/v1/documents/kb/42/chunks").json()["chunks"][0]["text"]
    hits = client.post("/api/v1/search", json={"query": "when does the ferry leave?"}).json()["hits"]
    assert hits[0]["document_id"] == "kb/42"
    assert client.delete("/api/v1/documents/kb/42").json() == {"deleted": "kb/42"}
    refused(client.get("/api/v1/documents/kb/42"), 404, "kb/42")
    refused(client.delete("/api/v1/documents/kb/42"), 404)
    refused(client.get("/api/v1/documents/kb/42/chunks"), 404)


def test_files_are_known_by_their_bytes_or_their_id(client: httpx2.Client, folder: Path) -> None:
    big = b"Tides turn twice a day. " * 5000
    job = ended(client, post(client, ("keys.md", b"# Keys\n\nThey rotate."), ("tides.txt", big), ("what.bin.txt", b"\0\1\2" * 99)))
    assert [file["outcome"] for file in job["files"]] == ["added", "added", "failed"] and job["state"] == "failed"
    assert job["files"][2]["error"] and job["files"][2]["hint"]
    again = post(client, ("tides.txt", big))
    assert again.json()["id"] == job["files"][1]["id"]
    assert ended(client, again)["files"][0]["outcome"] == "unchanged"
    named = ended(client, post(client, ("tides.txt", big), id="tides", source="almanac", metadata='{"year": 2025}'))
    assert named["files"][0]["outcome"] == "added"
    assert client.get("/api/v1/documents/tides").json()["metadata"] == {"year": 2025}
    replaced = client.put("/api/v1/documents/tides", files={"file": ("tides.txt", b"No more tides.")})
    assert ended(client, replaced)["files"][0]["outcome"] == "replaced"
    assert client.get("/api/v1/documents/tides").json()["version"] == 2
    assert ended(client, client.put("/api/v1/documents/tides", json={"text": "Some."}))["state"] == "succeeded"


def test_the_type_comes_from_the_name_or_is_declared(client: httpx2.Client) -> None:
    page = b"<p>Hidden <b>words</b></p>"
    files = [("file", ("page", page, "text/html")), ("file", ("notes", b"plain", "application/octet-stream"))]
    job = ended(client, client.post("/api/v1/documents", files=files, data={"source": "s"}))
    assert [file["name"] for file in job["files"]] == ["page.html", "notes"]
    assert client.get(f"/api/v1/documents/{job['files'][0]['id']}").json()["media_type"] == "text/html"
    for name, declared in (("a.exe", "application/x-msdownload"), ("b.7z", "application/octet-stream"), ("c.mp4", "video/mp4")):
        refused(client.post("/api/v1/documents", files={"file": (name, b"x", declared)}), 415, name)


def test_ids_may_hold_what_they_like(client: httpx2.Client) -> None:
    for id in ("a b", "ümläut/ß", "x/chunks", "per%cent", "?&#", "a//b", "..", "chunks"):
        quoted = quote(id, safe="").replace(".", "%2E")
        assert ended(client, client.put(f"/api/v1/documents/{quoted}", json={"text": f"common {id}"}))["state"] == "succeeded"
        assert client.get(f"/api/v1/documents/{quoted}").json()["id"] == id
        assert client.get(f"/api/v1/documents/{quoted}/chunks").json()["document_id"] == id
    first = client.get("/api/v1/documents", params={"limit": 3}).json()
    rest = client.get("/api/v1/documents", params={"limit": 100, "after": first["next"]}).json()
    assert len(first["documents"]) == 3 and len(rest["documents"]) == 5 and rest["next"] is None


def test_jobs_are_listed_page_by_page_cancelled_and_retried(client: httpx2.Client) -> None:
    blank = ended(client, post(client, ("blank.txt", b"  \n ")))
    assert blank["state"] == "failed" and "no text" in blank["files"][0]["error"]
    retried = client.post(f"/api/v1/jobs/{blank['id']}/retry")
    assert retried.status_code == 202 and retried.json()["state"] == "queued"
    fine = ended(client, post(client, ("a.txt", b"text")))
    refused(client.delete(f"/api/v1/jobs/{fine['id']}"), 409, "succeeded")
    refused(client.post(f"/api/v1/jobs/{fine['id']}/retry"), 409)
    page = client.get("/api/v1/jobs", params={"limit": 1}).json()
    assert page["jobs"][0]["id"] == fine["id"] == page["next"]
    assert [job["id"] for job in client.get("/api/v1/jobs", params={"after": page["next"]}).json()["jobs"]] == [blank["id"]]
    assert [job["id"] for job in client.get("/api/v1/jobs", params={"state": "succeeded"}).json()["jobs"]] == [fine["id"]]
    for path in ("", "/events"):
        refused(client.get(f"/api/v1/jobs/nothing{path}"), 404)
    refused(client.get("/api/v1/jobs", params={"state": "lost"}), 422)


def test_the_same_request_under_the_same_key_is_one_job(client: httpx2.Client, folder: Path) -> None:
    headers = {"idempotency-key": "7f9c"}
    big = b"Tides turn twice a day. " * 5000

    def send(content: bytes) -> httpx2.Response:
        return client.post("/api/v1/documents", files={"file": ("tides.txt", content)}, headers=headers)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(send, [big] * 4))
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    ended(client, answers[0])
    assert send(big).json()["status"] == "succeeded"
    refused(send(b"other"), 409, "7f9c")
    refused(client.post("/api/v1/documents", json={"text": "x"}, headers={"idempotency-key": "a b"}), 422, "Idempotency-Key")
    assert len(client.get("/api/v1/jobs").json()["jobs"]) == 1


def test_what_cannot_be_taken_is_refused_and_leaves_nothing(client: httpx2.Client, folder: Path) -> None:
    big = b"x" * (LIMIT_BYTES + 1)
    refused(post(client, ("a.txt", big)), 413, "larger")
    refused(post(client, ("a.txt", b"x" * 200_000), ("b.txt", b"x" * 250_000)), 413)
    unannounced = iter([FORM_HEAD, big])
    refused(client.post("/api/v1/documents", content=unannounced, headers={"content-type": "multipart/form-data; boundary=b"}), 413)
    refused(post(client, *[(f"{number}.txt", b"x") for number in range(6)]), 413, "more than 5 files")
    refused(post(client, ("a.txt", b"x"), ("b.txt", b"y"), id="both"), 422, "one id")
    refused(post(client, ("a.txt", b"")), 422, "empty")
    for id in ("", " "):
        refused(post(client, ("a.txt", b"x"), id=id), 422, "id is empty")
    refused(post(client, ("a.txt", b"x"), metadata="[1]"), 422, "not a JSON object")
    refused(post(client, ("a.txt", b"x"), metadata="{no"), 400, "metadata is not JSON")
    refused(post(client, ("a.txt", b"x"), metadata='{"x": "\\u0000"}'), 422)
    refused(post(client, ("a.txt", b"x"), metadata="x" * 100_001), 413)
    refused(post(client, ("a.txt", b"x"), colour="red"), 422, "'colour'")
    refused(post(client, ("a.txt", b"x"), collection=" bad "), 422, "collection")
    refused(client.post("/api/v1/documents", data={"id": "a"}), 415, "multipart/form-data")
    refused(
        client.post("/api/v1/documents", content=b"x", headers={"content-type": "text/plain"}), 415, "form (multipart/form-data) or JSON"
    )
    refused(client.post("/api/v1/documents", files={"id": (None, "a")}), 422, "no file")
    refused(client.put("/api/v1/documents/a", files={"file": ("a.txt", b"x")}, data={"id": "b"}), 422, "another")
    for body, status in (
        ({}, 422), ({"text": ""}, 422), ({"text": " "}, 422), ({"text": "x", "id": ""}, 422), ({"text": "x", "id": 5}, 422),
        ({"text": "x\0"}, 422), ({"text": "x", "path": "/etc/passwd"}, 422), ({"text": "x", "metadata": []}, 422), ([], 422),
        ({"text": "x", "collection": "\n"}, 422),
    ):  # fmt: skip
        refused(client.post("/api/v1/documents", json=body), status)
    assert client.get("/api/v1/jobs").json() == {"jobs": [], "next": None}
    assert nothing_left(folder)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"nothing", b"--b\r\n", b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\ntorn',
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", b"--b\r\nno header\r\n\r\nx\r\n--b--\r\n", b"--b--\r\n",
        b"--b\r\n" + b"X: y\r\n" * 50 + b"\r\nx\r\n--b--\r\n",
    ],
    ids=range(8),
)  # fmt: skip
def test_a_broken_form_is_refused(client: httpx2.Client, folder: Path, body: bytes) -> None:
    answer = client.post("/api/v1/documents", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    refused(answer, 422 if body == b"--b--\r\n" else 400)
    refused(client.post("/api/v1/documents", content=body, headers={"content-type": "multipart/form-data"}), 400, "boundary")
    assert nothing_left(folder)


def test_a_client_that_leaves_in_the_middle_leaves_nothing(client: httpx2.Client, server: Live, folder: Path) -> None:
    assert nothing_left(folder)
    address = httpx2.URL(server.url)
    with socket.create_connection((address.host, address.port or 80)) as connection:
        connection.sendall(
            b"POST /api/v1/documents HTTP/1.1\r\nHost: localhost\r\nX-API-Key: "
            + client.headers["x-api-key"].encode()
            + b"\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 300000\r\n\r\n"
            + FORM_HEAD
            + b"x" * 100_000
        )
        waiting = threading.Event()
        assert any(left_over(folder) or waiting.wait(0.02) for _ in range(500))
    assert nothing_left(folder) and client.get("/api/v1/jobs").json()["jobs"] == []


def test_names_of_files_are_never_paths(client: httpx2.Client, folder: Path) -> None:
    assert nothing_left(folder)
    before = sorted(folder.rglob("*.txt"))
    for name in ("../../../evil.txt", "..\\evil.txt", "/etc/evil.txt", "evil.txt\u2028"):
        job = ended(client, post(client, (name, f"common {name} ".encode() * 5000)))
        assert "/" not in job["files"][0]["name"] and "\\" not in job["files"][0]["name"]
    assert nothing_left(folder) and sorted(folder.rglob("*.txt")) == before and not (folder.parent / "evil.txt").exists()


def test_reading_and_writing_need_their_scopes(server: Live) -> None:
    reader, writer = ({"x-api-key": server.key("scopes", scope)} for scope in ("read", "write"))
    accepted = httpx2.post(f"{server.url}/api/v1/documents", json={"text": "x", "id": "a"}, headers=writer)
    job = accepted.json()["job_id"]
    for method, path in (
        ("GET", "documents"),
        ("GET", "documents/a"),
        ("GET", "documents/a/chunks"),
        ("GET", "jobs"),
        ("GET", f"jobs/{job}"),
    ):
        refused(httpx2.request(method, f"{server.url}/api/v1/{path}", headers=writer), 403)
    for method, path in (
        ("POST", "documents"), ("PUT", "documents/a"), ("DELETE", "documents/a"), ("DELETE", f"jobs/{job}"), ("POST", f"jobs/{job}/retry"),
    ):  # fmt: skip
        refused(httpx2.request(method, f"{server.url}/api/v1/{path}", headers=reader), 403)
