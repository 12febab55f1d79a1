"""What `ragline doctor` looks at: the machine, and each part that may be missing, damaged or silent."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ragline import cli
from ragline.engine import health, machine
from ragline.engine.engine import Engine
from ragline.engine.health import diagnose, has_wal_reset_bug
from ragline.engine.machine import Processor, available_bytes, read_cpuinfo, read_sysctl
from ragline.generation.chat import ChatGenerator
from ragline.index.simd import best_simd_level, simd_level
from ragline.retrieval.reranking.endpoint import EndpointReranker
from ragline.settings import Settings
from ragline.types import Document, Finding
from tests.embedders import HashEmbedder
from tests.engines import engine
from tests.imitation.chat import MODEL as CHAT_MODEL
from tests.imitation.chat import ChatServer
from tests.imitation.embeddings import EmbeddingsServer
from tests.imitation.http import GARBAGE_BODY, HANG, RESET, closed_port, status
from tests.imitation.rerank import RerankServer
from tests.tiny_bert import write_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def settings_of(tmp_path: Path, model: Path, **others: Any) -> Settings:
    values = {"data_dir": tmp_path / "data", "cache_dir": tmp_path / "cache", **others}
    return Settings.model_validate({**values, "embedding": {"model": str(model), "precision": "fp32", **others.get("embedding", {})}})


async def findings_of(settings: Settings, *, verify: bool = False) -> Sequence[Finding]:
    return await diagnose(settings, lambda _: None, verify=verify)


def one(findings: Sequence[Finding], *words: str) -> Finding:
    found = [finding for finding in findings if all(word in finding.what for word in words)]
    assert len(found) == 1, findings
    return found[0]


def errors(findings: Sequence[Finding]) -> list[str]:
    return [finding.what for finding in findings if finding.level == "error"]


CPUINFO = """\
processor	: 0
vendor_id	: GenuineIntel
model		: 143
model name	: Intel(R) Xeon(R) Platinum 8488C
flags		: fpu sse2 avx2 avx512f avx512_vnni amx_tile amx_int8

processor	: 1
model name	: another
flags		: fpu
"""
ARM_CPUINFO = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd asimddp sve i8mm\nCPU part\t: 0xd40\n"
INTEL_MAC = """\
machdep.cpu.brand_string: Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz
machdep.cpu.features: FPU SSE2 AVX1.0
machdep.cpu.leaf7_features: RDWRFSGSBASE AVX2
hw.optional.avx2_0: 1
hw.optional.avx512f: 0
"""
APPLE_MAC = "machdep.cpu.brand_string: Apple M3\nhw.optional.neon: 1\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 1\n"


@pytest.mark.parametrize(
    ("processor", "name", "features"),
    [
        (read_cpuinfo(CPUINFO), "Intel(R) Xeon(R) Platinum 8488C", ("AVX2", "AVX-512", "VNNI", "AMX")),
        (read_cpuinfo(ARM_CPUINFO), None, ("NEON", "dot product", "i8mm", "SVE")),
        (read_cpuinfo(""), None, ()),
        (read_sysctl(INTEL_MAC), "Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", ("AVX2",)),
        (read_sysctl(APPLE_MAC), "Apple M3", ("NEON", "dot product", "i8mm")),
        (read_sysctl(""), None, ()),
    ],
)
def test_the_processor_is_read_from_what_the_system_says(processor: Processor, name: str | None, features: tuple[str, ...]) -> None:
    assert processor.features == features
    assert processor.name if name is None else processor.name == name


@pytest.mark.parametrize(
    ("version", "bug"),
    [
        ("3.40.1", True),
        ("3.50.7", True),
        ("3.51.2", True),
        ("3.51.3", False),
        ("3.52.0", True),
        ("3.53.0", False),
        ("3.54.1", False),
        ("4.0.0", False),
    ],
)
def test_an_sqlite_that_corrupts_is_known_by_its_version(version: str, bug: bool) -> None:
    assert has_wal_reset_bug(version) is bug


def test_memory_is_what_the_container_leaves(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 4000 kB\nMemAvailable:    2000 kB\n")
    assert available_bytes(tmp_path) == 2000 * 1024
    cgroup = tmp_path / "sys/fs/cgroup"
    cgroup.mkdir(parents=True)
    (cgroup / "memory.current").write_text("400000\n")
    (cgroup / "memory.max").write_text("max\n")
    assert available_bytes(tmp_path) == 2000 * 1024
    (cgroup / "memory.max").write_text("1000000\n")
    assert available_bytes(tmp_path) == 600_000
    (cgroup / "memory.max").write_text("1\n")
    assert available_bytes(tmp_path) == 0


async def test_a_healthy_machine_without_a_store_yet_is_told_to_begin_and_nothing_is_made(tmp_path: Path, model: Path) -> None:
    findings = await findings_of(settings_of(tmp_path, model))
    assert errors(findings) == []
    assert one(findings, "there is no store").level == "warning"
    assert "ragline ingest" in one(findings, "there is no store").hint
    assert not (tmp_path / "data").exists()
    for words in (["Python 3."], ["SQLite 3."], ["processor:"], ["FAISS uses"], ["memory"], ["are free where"], ["scanned pages"]):
        assert one(findings, *words)
    assert one(findings, "embedding with", str(model), "runtime onnx", "precision fp32", "24 dimensions", "64 tokens")
    assert one(findings, "without a language model")


async def test_a_store_is_reported_by_collection(tmp_path: Path, model: Path) -> None:
    settings = settings_of(tmp_path, model)
    async with engine(tmp_path / "data") as opened:
        await opened.ingest([Document("keys rotate", id="a"), Document("every day", id="b")])
        await opened.ingest([Document("how do we", id="a")], collection="other")
        await opened.delete(["b"])
        from_engine = await opened.doctor(verify=True)
    assert errors(from_engine) == []
    assert one(from_engine, "'default'", "1 documents, 1 chunks", "current", "searched exactly", "MB").level == "ok"
    assert one(from_engine, "'other'", "1 documents")
    assert one(from_engine, "every file", "sound")
    findings = await findings_of(settings, verify=True)
    assert "was embedded with" in one(findings, "'default'", f"not {model}").what  # the hashed model is not that of the settings
    assert one(findings, "every file", "sound")


async def test_a_damaged_store_is_a_finding_and_hides_nothing_else(tmp_path: Path, model: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "store.sqlite3").write_bytes(b"surely not a database" * 500)
    findings = await findings_of(settings_of(tmp_path, model), verify=True)
    assert [finding for finding in findings if finding.level == "error"] == [one(findings, "store.sqlite3", "not a SQLite database")]
    assert one(findings, "store.sqlite3").hint
    assert one(findings, "embedding with")


async def test_a_data_folder_that_is_none_is_a_finding(tmp_path: Path, model: Path) -> None:
    (tmp_path / "data").write_text("a file")
    findings = await findings_of(settings_of(tmp_path, model))
    assert one(findings, "there is no store")
    assert (tmp_path / "data").read_text() == "a file"


async def test_a_missing_model_is_a_finding_and_hides_nothing_else(tmp_path: Path) -> None:
    findings = await findings_of(settings_of(tmp_path, tmp_path / "no-such-model"))
    assert len(errors(findings)) == 1
    assert "no-such-model" in errors(findings)[0]
    assert one(findings, "there is no store")


async def test_a_damaged_index_is_found_by_reading_every_file(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as opened:
        await opened.ingest([Document(f"keys rotate every {number} days", id=str(number)) for number in range(50)])
    segment = max((tmp_path / "data" / "views").rglob("*.store"), key=lambda file: file.stat().st_size)
    async with engine(tmp_path / "data") as opened:
        await opened.search("keys")
        content = bytearray(segment.read_bytes())
        content[len(content) // 2] ^= 0xFF
        segment.write_bytes(content)
        found = [finding for finding in await opened.doctor(verify=True) if finding.level == "error"]
    assert found and "index of default/default" in found[0].what
    assert "reindex" in found[0].hint


async def test_little_room_is_a_warning(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    monkeypatch.setattr(health, "LOW_DISK_BYTES", 1 << 60)
    monkeypatch.setattr(health, "LOW_MEMORY_BYTES", 1 << 60)
    try:
        findings = await findings_of(settings_of(tmp_path, model))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for words in (["256 files"], ["MB of memory are left"], ["are free where"]):
        assert one(findings, *words).level == "warning"
        assert one(findings, *words).hint
    monkeypatch.setattr(machine, "open_files_limit", lambda: None)
    assert not [finding for finding in await findings_of(settings_of(tmp_path, model)) if "files:" in finding.what]


async def test_the_language_data_of_tesseract_is_looked_for_where_the_settings_say(tmp_path: Path, model: Path) -> None:
    reading = {"ocr_language": "xyz+eng", "ocr_data_dir": str(tmp_path / "tessdata")}
    missing = one(await findings_of(settings_of(tmp_path, model, reading=reading)), "scanned pages")
    assert "apt install tesseract-ocr-xyz" in missing.hint
    (tmp_path / "tessdata").mkdir()
    for name in ("xyz", "eng"):
        (tmp_path / "tessdata" / f"{name}.traineddata").write_bytes(b"")
    found = one(await findings_of(settings_of(tmp_path, model, reading=reading)), "scanned pages")
    assert "is recognised" in found.what and str(tmp_path / "tessdata") in found.what


def rerank_at(url: str, **more: Any) -> dict[str, Any]:
    return {"reranker": "endpoint", "base_url": url, **more}


async def test_a_reranker_that_answers_is_well(tmp_path: Path, model: Path) -> None:
    with RerankServer(key="sk-hunter2") as server:
        findings = await findings_of(settings_of(tmp_path, model, rerank=rerank_at(server.url, api_key="sk-hunter2")))
        assert errors(findings) == []
        assert one(findings, "reranking with", server.url)
        refused = await findings_of(settings_of(tmp_path, model, rerank=rerank_at(server.url, api_key="sk-wrong-one")))
    assert len(errors(refused)) == 1
    assert "sk-wrong-one" not in str(refused)


@pytest.mark.parametrize("fault", [RESET, HANG, status(500), status(429, {"Retry-After": "600"})], ids=["reset", "hang", "500", "429"])
async def test_a_reranker_that_fails_is_a_finding_soon(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    monkeypatch.setattr(health, "CHECK_S", 0.5)
    with RerankServer() as server:
        server.fail_next(*[fault] * 20)
        started = time.monotonic()
        findings = await findings_of(settings_of(tmp_path, model, rerank=rerank_at(server.url)))
        assert time.monotonic() - started < 30
    assert len(errors(findings)) == 1
    assert "rerank" in errors(findings)[0]
    assert one(findings, "embedding with")


def chat_at(protocol: str, url: str, **more: Any) -> dict[str, Any]:
    return {"generator": protocol, "base_url": url, "model": CHAT_MODEL, **more}


@pytest.mark.parametrize("protocol", ["openai", "ollama"])
async def test_a_language_model_is_asked_for_and_what_is_wrong_is_said(tmp_path: Path, model: Path, protocol: Any) -> None:
    with ChatServer(protocol) as server:
        findings = await findings_of(settings_of(tmp_path, model, generation=chat_at(protocol, server.base_url)))
        assert errors(findings) == []
        assert one(findings, f"answers are written by {CHAT_MODEL} ({protocol} at {server.base_url})")
        assert server.asked == [], "a check costs no tokens"
        other = await findings_of(settings_of(tmp_path, model, generation=chat_at(protocol, server.base_url, model="other-1")))
        assert len(errors(other)) == 1
        assert "'other-1' is not there" in errors(other)[0]


async def test_a_language_model_is_checked_though_the_embedding_model_is_missing(tmp_path: Path) -> None:
    with ChatServer("openai") as server:
        findings = await findings_of(settings_of(tmp_path, tmp_path / "none", generation=chat_at("openai", server.base_url)))
    assert len(errors(findings)) == 1
    assert one(findings, "answers are written by")


async def test_a_bad_prompt_template_is_a_finding(tmp_path: Path, model: Path) -> None:
    (tmp_path / "prompt.txt").write_text("no place for anything")
    with ChatServer("openai") as server:
        generation = chat_at("openai", server.base_url, prompt_file=str(tmp_path / "prompt.txt"))
        findings = await findings_of(settings_of(tmp_path, model, generation=generation))
    assert len(errors(findings)) == 1
    assert "prompt.txt" in errors(findings)[0]


async def test_an_embedding_server_is_asked_for_a_vector(tmp_path: Path, model: Path) -> None:
    with EmbeddingsServer() as server:
        embedding = {"runtime": "openai", "model": server.model, "base_url": server.base_url, "precision": "auto"}
        findings = await findings_of(settings_of(tmp_path, model, embedding=embedding))
        assert errors(findings) == []
        assert one(findings, "embedding with", "runtime openai", "64 dimensions")
    down = await findings_of(settings_of(tmp_path, model, embedding=embedding))
    assert len(errors(down)) == 1
    assert "embedding server" in errors(down)[0]


@pytest.mark.parametrize("fault", [RESET, HANG, GARBAGE_BODY, status(500), status(401)], ids=["reset", "hang", "garbage", "500", "401"])
async def test_servers_that_fail_are_findings_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    monkeypatch.setattr(health, "CHECK_S", 0.5)
    with EmbeddingsServer() as embeddings, ChatServer("openai") as chat:
        for server in (embeddings, chat):
            server.fail_next(*[fault] * 20)
        embedding = {
            "runtime": "openai",
            "model": "hash-embed",
            "base_url": embeddings.base_url,
            "precision": "auto",
            "api_key": "sk-hunter2",
        }
        generation = chat_at("openai", chat.base_url, api_key="sk-hunter2")
        started = time.monotonic()
        findings = await findings_of(settings_of(tmp_path, tmp_path, embedding=embedding, generation=generation))
        assert time.monotonic() - started < 30
    assert len(errors(findings)) == 2
    assert all(finding.hint for finding in findings if finding.level == "error")
    assert "hunter2" not in str(findings)


async def test_services_that_are_down_are_findings_with_a_cure_and_checked_side_by_side(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"http://127.0.0.1:{closed_port()}"
    settings = settings_of(tmp_path, model, rerank=rerank_at(nowhere), generation=chat_at("ollama", nowhere))
    findings = await findings_of(settings)
    assert len(errors(findings)) == 2
    assert all(finding.hint for finding in findings if finding.level != "ok")

    under_way: set[str] = set()
    both = asyncio.Event()

    async def check(part: object) -> None:
        under_way.add(type(part).__name__)
        if len(under_way) == 2:
            both.set()
        await both.wait()

    monkeypatch.setattr(EndpointReranker, "check", check)
    monkeypatch.setattr(ChatGenerator, "check", check)
    assert errors(await findings_of(settings)) == []


async def test_a_program_with_parts_of_its_own_is_asked_about_those(tmp_path: Path) -> None:
    class Own:
        fingerprint = "own"

        async def close(self) -> None:
            pass

    opened = Engine.open(tmp_path / "data", settings=Settings(), embedder=HashEmbedder(), generator=Own())  # type: ignore[arg-type]
    async with opened:
        findings = await opened.doctor()
    assert errors(findings) == []
    assert one(findings, "own generator")


async def test_a_bug_in_one_check_does_not_hide_the_others(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> Sequence[Finding]:
        raise ZeroDivisionError("sk-hunter2")

    monkeypatch.setattr(health, "_reranker", broken)
    findings = await findings_of(settings_of(tmp_path, model))
    assert errors(findings) == ["the reranker cannot be checked: unexpected ZeroDivisionError"]
    assert one(findings, "embedding with")


def test_the_command_fails_on_errors_only(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--set", f"embedding.model={model}", "--set", f"cache_dir={tmp_path / 'cache'}"]
    assert cli.run(["doctor", "--json", *flags]) == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    assert {tuple(finding) for finding in found} == {("level", "what", "hint")}
    assert {finding["level"] for finding in found} == {"ok", "warning"}
    assert cli.run(["doctor", *flags, "--set", "embedding.model=nowhere/at-all-of-this-name/x"]) == 1
    shown = capsys.readouterr().out
    assert "error: " in shown
    assert "warning: there is no store in .ragline yet" in shown
    assert sorted(os.listdir(tmp_path)) == ["cache", "model"]


LEVELS = """
import asyncio, json, sys, numpy as np
from pathlib import Path
from ragline.engine import Engine
from ragline.engine.health import _simd
from ragline.engine.engine import Engine
from ragline.generation.chat import ChatGenerator
from ragline.index.simd import simd_level
from ragline.index.vectors import VectorIndex
from ragline.settings import Settings
from ragline.types import Document
from tests.embedders import HashEmbedder

async def main(folder, simd):
    settings = Settings(index={"simd": simd, "exact_below": 200})
    async with Engine.open(folder, settings=settings, embedder=HashEmbedder()) as engine:
        await engine.ingest([Document(f"common word {n} and word {n * 7 % 101}", id=str(n)) for n in range(400)])
        hits = await engine.search("common word 7 and word 49", top_k=20, mode="dense")
        finding = _simd(settings)
        found = {"ids": [hit.document_id for hit in hits], "scores": [hit.score for hit in hits]}
        return found | {"level": simd_level(), "finding": finding.level}

print(json.dumps(asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))))
"""


def searched(folder: Path, simd: str, **variables: str) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), **variables}
    command = [sys.executable, "-c", LEVELS, str(folder), simd]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert finished.returncode == 0, finished.stderr
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


def test_lower_instructions_find_the_same(tmp_path: Path) -> None:
    best, lower, plain = (
        searched(tmp_path / "a", "auto"),
        searched(tmp_path / "b", "lower"),
        searched(tmp_path / "c", "auto", FAISS_SIMD_LEVEL="NONE"),
    )
    assert best["level"] == best_simd_level() == simd_level()
    assert plain["level"] == "NONE"
    if best_simd_level() == "NONE":
        assert lower["level"] == "NONE"
        assert lower["finding"] == "warning"
    else:
        assert lower["level"] not in (best["level"], "")
        assert (best["finding"], lower["finding"], plain["finding"]) == ("ok", "ok", "warning")
    for found in (lower, plain):
        assert found["ids"] == best["ids"]
        assert found["scores"] == pytest.approx(best["scores"], abs=1e-6)
