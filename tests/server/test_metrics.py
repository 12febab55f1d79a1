"""What Prometheus reads, of one process and of several."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ragline.observe.prometheus import CONTENT_TYPE
from ragline.observe.series import BUCKETS_S, Histogram
from ragline.server.figure_files import FigureFiles
from ragline.server.figures import HELP, Figures, key
from ragline.types import Document
from tests.server.serving import Served, serving

REQUESTS = key("ragline_http_requests_total", route="/api/v1/search", method="POST", status="200")
IN_FLIGHT = key("ragline_http_requests_in_flight")
LAG = key("ragline_index_lag_lsns")
TOOK = key("ragline_http_request_duration_seconds", route="/api/v1/search", method="POST")


async def scraped(served: Served, **headers: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels."""
    answer = await served.client.get("/metrics", headers=headers)
    assert answer.status_code == 200 and answer.headers["content-type"] == CONTENT_TYPE
    families = list(text_string_to_metric_families(answer.text))
    assert {family.name for family in families} <= {name.removesuffix("_total") for name in HELP}
    assert len(families) == len({family.name for family in families}), "a family came twice"
    return {(sample.name, frozenset(sample.labels.items())): sample.value for family in families for sample in family.samples}


async def test_requests_stages_and_caches_are_counted_and_no_tenant_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key_of_acme = await served.key("acme-secret", "read")
        operator = await served.key("default", "metrics")
        await served.state.engine.tenant("acme-secret").ingest(
            Document("The vault opens at nine.", id="secret-id"), collection="secret-plans"
        )
        asked = {"query": "When does the vault open?", "collections": ["secret-plans"]}
        for _ in range(2):
            assert (await served.client.post("/api/v1/query", json=asked, headers=key_of_acme)).status_code == 200
        await served.client.get("/no/such/secret/path", headers=key_of_acme)
        await served.client.request("BREW", "/api/v1/search", headers=key_of_acme)
        samples = await scraped(served, **operator)

        def value(name: str, **labels: str) -> float:
            return samples[name, frozenset(labels.items())]

        assert value("ragline_http_requests_total", route="/api/v1/query", method="POST", status="200") == 2
        assert value("ragline_http_requests_total", route="(none)", method="GET", status="404") == 1
        assert value("ragline_http_request_duration_seconds_count", route="/api/v1/query", method="POST") == 2
        assert value("ragline_operations_total", operation="ask") == 2
        assert value("ragline_stage_duration_seconds_count", operation="ask", stage="embed") == 1
        assert value("ragline_stage_duration_seconds_count", operation="ask", stage="cache") == 2
        assert (value("ragline_answers_total", step="hit"), value("ragline_answers_total", step="miss")) == (1, 1)
        assert value("ragline_cache_items", cache="answers") == 1 and value("ragline_cache_items", cache="vectors") >= 1
        assert value("ragline_admission_admitted_total", budget="asking") == 1, "what is known needs no place"
        assert value("ragline_admission_in_flight", budget="asking") == 0
        assert value("ragline_index_lag_lsns") == 0 and value("ragline_workers") == 1
        assert value("ragline_jobs", state="queued") == 0
        assert value("ragline_http_requests_in_flight") == 1  # this one
        told = " ".join(part for _, labels in samples for label in labels for part in label)
        assert "secret" not in told and "BREW" not in told and "tenant" not in told


async def test_figures_need_a_key_of_their_own_scope(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        assert (await served.client.get("/metrics")).status_code == 200  # without keys, this machine may do everything
        every = await served.key("acme", "read", "write", "admin")
        assert (await served.client.get("/metrics", headers=every)).status_code == 403
        assert (await served.client.get("/metrics")).status_code == 401
        assert (await served.client.get("/metrics", headers=await served.key("acme", "metrics"))).status_code == 200


def counted(requests: int, *, lag: int = 0) -> Figures:
    buckets = tuple([requests] + [0] * len(BUCKETS_S))
    return Figures({REQUESTS: requests}, {IN_FLIGHT: 1.0}, {LAG: lag}, {TOOK: Histogram(buckets, requests * 0.00005)})


def opened(folder: Path) -> FigureFiles:
    files = FigureFiles(folder)
    files.begin()
    return files


def died(files: FigureFiles) -> None:
    """As when its process is killed: the system lets go of its lock."""
    files._alive.release()


def test_counts_add_up_over_processes_and_levels_over_those_that_live(tmp_path: Path) -> None:
    one, two, three = (opened(tmp_path) for _ in range(3))
    one.write(counted(1, lag=4))
    two.write(counted(10, lag=2))
    three.write(counted(100))
    seen = three.others()
    assert (seen.counters[REQUESTS], seen.levels[IN_FLIGHT], seen.peaks[LAG]) == (11, 2, 4)
    assert seen.histograms[TOOK].buckets[0] == 11 and seen.histograms[TOOK].total_s == pytest.approx(11 * 0.00005)
    died(one)
    seen = three.others()
    assert (seen.counters[REQUESTS], seen.levels[IN_FLIGHT], seen.peaks[LAG]) == (11, 1, 2)


def test_what_a_process_counted_stays_when_it_was_killed_and_another_takes_its_place(tmp_path: Path) -> None:
    reader = opened(tmp_path)
    for round in range(1, 6):
        worker = opened(tmp_path)
        worker.write(counted(10))
        if round % 2:
            died(worker)
        else:
            worker.end(counted(10))
        assert reader.others().counters[REQUESTS] == 10 * round
    last = opened(tmp_path)
    assert last.others().counters[REQUESTS] == 50
    assert len(list(tmp_path.glob("*/*-*.json"))) == 0, "files of processes that have ended are not heaped up"


def test_a_process_that_dies_while_it_sums_up_others_makes_nothing_count_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, worker = opened(tmp_path), opened(tmp_path)
    worker.write(counted(10))
    died(worker)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path)
    assert reader.others().counters[REQUESTS] == 10
    opened(tmp_path)
    assert reader.others().counters[REQUESTS] == 10


def test_figures_of_another_server_and_damaged_files_are_left_out(tmp_path: Path) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    one.write(counted(1))
    (next(tmp_path.glob("*/*.json")).parent / "0-torn.json").write_text('{"counters": [[')
    other = tmp_path / "1-1"
    other.mkdir()
    (other / "1-x.json").write_text('{"counters": [], "levels": [], "peaks": [], "histograms": []}')
    assert two.others().counters[REQUESTS] == 1


def test_figures_survive_their_file(tmp_path: Path) -> None:
    figures = counted(3, lag=1)
    assert Figures.of_plain(figures.to_plain()) == figures
