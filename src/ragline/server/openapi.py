"""The OpenAPI document, and a page for people made of it, which needs no script and nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import FastAPI

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key: `Authorization: Bearer rl_...`"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key in a header of its own."},
}
_DONE = {"200": "The answer.", "201": "It is made.", "202": "It is accepted, and done in the background."}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
code, pre { font: 14px/1.45 ui-monospace, monospace; background: #f3f3f3; border-radius: 3px; padding: .1em .3em }
pre { padding: .7em 1em; overflow-x: auto } h2 { margin-top: 2.5rem } summary { cursor: pointer; padding: .3rem 0 }
b { display: inline-block; min-width: 4.5rem } td { padding: 0 1rem .2rem 0; vertical-align: top } .scope { color: #666 }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } code, pre { background: #262626 } .scope { color: #999 } }
"""
PAGE_POLICY = (
    "default-src 'none'; style-src 'sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode() + "'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""The content security policy of the page: its one style sheet, and nothing else."""


class DocumentedApp(FastAPI):
    """An application whose OpenAPI document says how to show a key."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._making = threading.Lock()
        self._document: dict[str, Any] | None = None

    def openapi(self) -> dict[str, Any]:
        """The document, made once. From several threads, too: making it takes the better part of a second."""
        with self._making:
            if self._document is None:
                document = super().openapi()
                document["components"]["securitySchemes"] = _SCHEMES
                # A server without keys wants none.
                document["security"] = [*({name: []} for name in _SCHEMES), {}]
                _correct(document)
                self._document = document
            return self._document


def _correct(document: dict[str, Any]) -> None:
    """Takes out what FastAPI puts in by itself: words that say nothing, and a status that OpenAI's API here does not have."""
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if path.startswith("/v1/"):
                operation["responses"].pop("422", None)
            for status, answer in operation["responses"].items():
                if answer.get("description") == "Successful Response":
                    answer["description"] = _DONE[status]
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)


def page(document: Mapping[str, Any]) -> str:
    """The document as a page of HTML."""
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><h1>{title}</h1>'
        '<p>All that can be asked of this server. Programs read <a href="/openapi.json"><code>/openapi.json</code></a>. Where the server '
        "has keys, send one as <code>Authorization: Bearer rl_...</code> or <code>X-API-Key</code>; the scope it needs stands beside each "
        "operation.</p>" + "".join(_operations(document)) + "</body></html>"
    )


def _operations(document: Mapping[str, Any]) -> Iterator[str]:
    group = None
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["other"])[0]
            if tag != group:
                group = tag
                yield f"<h2>{escape(tag[:1].upper() + tag[1:])}</h2>"
            yield from _operation(document, path, method, operation)


def _operation(document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    scope = operation.get("x-ragline-scope")
    needs = f' <span class="scope">needs {escape(scope)}</span>' if scope else ""
    yield f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code> {escape(operation.get('summary', ''))}{needs}</summary>"
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    if parameters := operation.get("parameters"):
        yield _table((each["name"], each.get("description", "")) for each in parameters)
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        fields = _fields(document, content.get("schema", {}))
        yield f"<p>Body, <code>{escape(kind)}</code>:</p>{_table(fields)}"
        example = content.get("example") or next(iter(_resolved(document, content.get("schema", {})).get("examples", ())), None)
        if example is not None:
            yield f"<pre>{escape(json.dumps(example, indent=2))}</pre>"
    yield _table((status, answer.get("description", "")) for status, answer in operation["responses"].items()) + "</details>"


def _fields(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, field in _resolved(document, schema).get("properties", {}).items():
        yield name, field.get("description", "")


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Mapping[str, Any] = document["components"]["schemas"].get(name, schema)
    return found


def _table(rows: Iterator[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td><code>{escape(name)}</code></td><td>{escape(text)}</td></tr>" for name, text in rows)
    return f"<table>{cells}</table>"
