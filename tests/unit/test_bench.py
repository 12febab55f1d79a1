"""The harness itself: a benchmark that computes its figures wrongly is worse than none."""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import sys
import time
from pathlib import Path

import pytest

from benchmarks import peers
from ragline.bench.__main__ import CASES, main
from ragline.bench.machine import descendants, describe_machine, peak_resident_bytes, resident_bytes
from ragline.bench.processes import in_fresh_process, run_command
from ragline.bench.quality import compare, read_reference
from ragline.bench.texts import DOCUMENT_TOKENS, QUESTION_TOKENS, make_workload, passages, read_sentences, write_text_files
from ragline.bench.timing import Spent, Stopwatch, latency, percentile
from ragline.errors import InputError


def test_a_percentile_lies_between_its_neighbours_as_numpy_has_it() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 0) == 1.0
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert percentile([4.0, 1.0, 3.0, 2.0], 100) == 4.0
    assert percentile([10.0, 20.0], 95) == pytest.approx(19.5)
    assert percentile([7.0], 99) == 7.0


def test_the_50th_percentile_is_the_median() -> None:
    draw = random.Random(1)
    for count in range(1, 30):
        values = [draw.random() for _ in range(count)]
        assert percentile(values, 50) == pytest.approx(statistics.median(values))


def test_a_percentile_of_nothing_or_beyond_a_hundred_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
    with pytest.raises(ValueError, match="not a percentage"):
        percentile([1.0], 101)


def test_latency_is_in_milliseconds_and_keeps_wall_and_processor_time_apart() -> None:
    found = latency([Spent(0.001 * place, 0.002) for place in range(1, 102)])
    assert found.calls == 101
    assert [found.p50_ms, found.p95_ms, found.p99_ms] == pytest.approx([51, 96, 100])
    assert found.cpu_p50_ms == pytest.approx(2.0)


def test_a_stopwatch_counts_sleep_by_the_clock_and_not_by_the_processor() -> None:
    watch = Stopwatch()
    time.sleep(0.05)
    spent = watch.stop()
    assert spent.wall_s >= 0.05 > spent.cpu_s


def test_a_command_is_charged_with_its_own_processor_time_only() -> None:
    for _ in range(200_000):
        math.sqrt(2)
    idle = run_command([sys.executable, "-S", "-c", "pass"])
    busy = run_command([sys.executable, "-S", "-c", "import time\nwhile time.process_time() < 0.5: pass"])
    assert busy.cpu_s >= 0.5
    assert idle.cpu_s < busy.cpu_s


def _cores_and_pid() -> tuple[int, int]:
    return len(os.sched_getaffinity(0)), os.getpid()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not keep processes to cores")
def test_a_fresh_process_has_the_cores_it_is_given() -> None:
    before = os.sched_getaffinity(0)
    cores, pid = in_fresh_process(_cores_and_pid, 1)
    assert cores == 1 and pid != os.getpid()
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_memory_is_that_of_the_processes_named() -> None:
    here = resident_bytes([os.getpid()])
    assert 5_000_000 < here <= peak_resident_bytes() * 1.05
    assert resident_bytes([os.getpid(), os.getpid()]) > here
    assert os.getpid() in descendants(os.getppid())


def test_a_result_says_where_it_was_measured() -> None:
    machine = json.loads(json.dumps(describe_machine()))
    assert machine["cores"] >= 1 and machine["cpu"] and machine["python"] and machine["date"].endswith("+00:00")
    assert "tantivy" in machine["packages"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    draw = random.Random(2)
    words = [f"word{number}" for number in range(300)]
    lines = [" ".join(draw.choices(words, k=draw.randint(8, 30))) + "." for _ in range(400)]
    (tmp_path / "a.md").write_text("# A title\n\n" + " ".join(lines[:300]))
    (tmp_path / "set").mkdir()
    entries = [{"_id": str(number), "title": "", "text": line} for number, line in enumerate(lines[250:])]
    (tmp_path / "set" / "corpus.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return tmp_path


def _words(text: str) -> int:
    return text.count(" ") + 1


def test_sentences_come_once_each_from_texts_and_labelled_sets_in_the_same_order_each_time(texts: Path) -> None:
    sentences = read_sentences(texts)
    assert len(sentences) == len(set(sentences)) == 400
    assert sentences == read_sentences(texts)


def test_a_folder_without_text_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=tmp_path.name):
        read_sentences(tmp_path)


def test_a_workload_has_the_lengths_it_promises_and_no_question_stands_in_a_document(texts: Path) -> None:
    sentences = read_sentences(texts)
    workload = make_workload(sentences, _words, documents=50, questions=40)
    assert len(workload.documents) == 50 and len(set(workload.questions)) == 40
    assert all(DOCUMENT_TOKENS[0] <= _words(text) <= DOCUMENT_TOKENS[1] for text in workload.documents)
    assert all(QUESTION_TOKENS[0] <= _words(text) <= QUESTION_TOKENS[1] for text in workload.questions)
    assert not any(question in text for question in workload.questions for text in workload.documents)
    assert workload == make_workload(sentences, _words, documents=50, questions=40)


def test_too_little_text_for_the_questions_is_said(texts: Path) -> None:
    with pytest.raises(InputError, match="not 5000"):
        make_workload(read_sentences(texts), _words, documents=1, questions=5000)


def test_passages_are_at_least_as_long_as_asked(texts: Path) -> None:
    made = list(passages(read_sentences(texts), 20, 70))
    assert len(set(made)) == 20
    assert all(_words(text) >= 70 for text in made)


def test_text_files_hold_as_many_bytes_as_asked(texts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    count = write_text_files(read_sentences(texts), folder, total_bytes=100_000, file_bytes=30_000)
    sizes = [file.stat().st_size for file in sorted(folder.iterdir())]
    assert count == len(sizes) == 4
    assert 100_000 <= sum(sizes) < 105_000
    assert all(30_000 <= size < 32_000 for size in sizes[:-1])


def test_a_comparison_fails_on_the_mean_or_on_one_set_and_ignores_sets_without_reference() -> None:
    reference = {"a": {"dense": 0.5}, "b": {"dense": 0.5}}
    good = compare({"a": {"dense": 0.51}, "b": {"dense": 0.49}, "c": {"dense": 0.1}}, reference, "dense")
    assert good["within_margins"] is True and good["mean"] == pytest.approx(0) and good["worst"] == pytest.approx(-0.01)
    assert set(good["sets"]) == {"a", "b"}
    assert compare({"a": {"dense": 0.49}, "b": {"dense": 0.49}}, reference, "dense")["within_margins"] is False  # the mean
    assert compare({"a": {"dense": 0.6}, "b": {"dense": 0.48}}, reference, "dense")["within_margins"] is False  # one set
    assert compare({"c": {"dense": 0.1}}, reference, "dense")["within_margins"] is None
    assert compare({"a": {"dense": 0.5}}, reference, "hybrid")["within_margins"] is None


def test_a_reference_that_is_not_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "reference.json"
    for content in ("[1]", '{"a": 1}', '{"a": {"dense": "high"}}', "no json"):
        file.write_text(content)
        with pytest.raises(InputError, match="not a reference"):
            read_reference(file)
    file.write_text('{"a": {"dense": 0.5}}')
    assert read_reference(file) == {"a": {"dense": 0.5}}


def test_an_unknown_case_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["speed"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "'speed'" in said and all(name in said for name in CASES)


def test_a_case_without_its_data_fails_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quality", "--data", str(tmp_path)]) == 1
    assert "holds no labelled sets" in capsys.readouterr().err


def _measured(ingest: float, search_ms: float, callers: float) -> dict[str, object]:
    """Figures of one system; by processor time it is twice as good as by the clock."""
    return {
        "ingest": {"chunks_per_s": [ingest / 2, ingest, ingest * 9], "chunks_per_cpu_s": [2 * ingest]},
        "search": {"p50_ms": search_ms, "cpu_p50_ms": search_ms / 2},
        "callers": {"questions_per_s": [callers, callers, 0.1], "questions_per_cpu_s": [2 * callers]},
    }


def test_ratios_are_of_medians_and_above_one_where_ragline_is_better() -> None:
    figures: dict[str, dict[str, object]] = {peer.name: _measured(10, 20, 5) for peer in peers.PEERS}
    figures[peers.RAGLINE.name] = _measured(50, 2, 100)
    peers.add_ratios(figures)
    for peer in peers.PEERS:
        assert figures[peer.name]["ragline_is_better"] == pytest.approx(
            {"ingest": 5, "ingest_cpu": 5, "search": 10, "search_cpu": 10, "callers": 20, "callers_cpu": 20}
        )
    assert "ragline_is_better" not in figures[peers.RAGLINE.name]


def test_of_several_ways_to_serve_callers_a_system_is_judged_by_its_best() -> None:
    slow, fast = {"wall_s": 4.0, "cpu_s": 4.0}, {"wall_s": 2.0, "cpu_s": 1.0}
    best = peers.best_callers([{"threads": slow, "one after the other": fast}], [100])
    assert best == {"way": "one after the other", "questions_per_s": [50.0], "questions_per_cpu_s": [100.0]}
