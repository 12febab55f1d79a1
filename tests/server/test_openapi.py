"""The OpenAPI document is true: whatever may be sent by it, and what may not, is answered as it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from ragline.types import Document
from tests.server.live import Live, live

LEFT_OUT = [positive_data_acceptance]
"""Which filters can be understood, and that no text holds NUL, is more than a JSON schema can say."""

EXAMPLES = 5
"""For each operation: enough to meet each kind of wrong body, few enough for the whole to take seconds."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("data")) as running:
        running.run(lambda engine: engine.tenant("acme").ingest(Document(text="The ferry will leave at nine.", id="a")))
        yield running


@pytest.fixture(scope="module")
def headers(server: Live) -> dict[str, str]:
    return {"authorization": f"Bearer {server.key('acme', 'admin', 'metrics')}"}


@pytest.fixture(scope="module")
def document(server: Live, headers: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{server.url}/openapi.json", headers=headers).json()
    return found


def test_every_operation_answers_as_the_document_says(document: dict[str, Any], server: Live, headers: dict[str, str]) -> None:
    faults: list[str] = []
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        for mode in schemathesis.GenerationMode:

            @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: Any) -> None:
                case.call_and_validate(base_url=server.url, headers=headers, excluded_checks=LEFT_OUT)

            try:
                check()
            except Unsatisfiable:  # there is nothing wrong that could be sent
                continue
            except (Exception, BaseExceptionGroup) as failure:
                faults.append(f"{operation.label} {mode}: {failure!r}")
    assert not faults, "\n".join(faults)


def test_every_operation_is_explained(document: dict[str, Any]) -> None:
    names = set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method.upper()} {path}"
            assert operation["summary"] and operation["description"] and operation["tags"], where
            descriptions = [answer["description"] for answer in operation["responses"].values()]
            assert "Successful Response" not in descriptions and "Validation Error" not in descriptions, where
            assert not path.startswith("/v1/") or "422" not in operation["responses"], where
            names.add(operation["operationId"])
    assert len(names) == sum(len(methods) for methods in document["paths"].values())


def test_the_page_shows_every_operation_and_needs_nothing_from_elsewhere(
    document: dict[str, Any], server: Live, headers: dict[str, str]
) -> None:
    answer = httpx2.get(f"{server.url}/docs", headers=headers)
    assert answer.headers["content-type"].startswith("text/html")
    for path in document["paths"]:
        assert path in answer.text
    assert "<script" not in answer.text and "http" not in answer.text.replace("http-equiv", "")
    assert "style-src 'sha256-" in answer.headers["content-security-policy"]
