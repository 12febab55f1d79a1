"""PDF, office files and images become text through kreuzberg."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from typing import Any

import kreuzberg

from .blocks import Blocks, clean, table_lines
from .packages import EncryptedError
from .running import Edges, repeated_edges

_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"[.,;:!?\u3002]$|^[-\u2022*] |^[a-z]")
_NUMBERED = re.compile(r"(\d{1,2}(?:\.\d{1,2}){1,4})\.?\s")
_KEPT_METADATA = {
    "title": "title", "authors": "author", "subject": "subject", "keywords": "keywords", "language": "language", "created_at": "created",
    "modified_at": "modified", "from_email": "from", "to_emails": "to", "cc_emails": "cc", "attachments": "attachments",
}  # fmt: skip
_TESSDATA = (
    "/usr/share/tesseract-ocr/5/tessdata", "/usr/share/tesseract-ocr/4.00/tessdata", "/usr/share/tessdata", "/usr/local/share/tessdata",
    "/opt/homebrew/share/tessdata",
)  # fmt: skip


def tessdata(language: str, folder: str | None) -> str | None:
    """The folder with tesseract's data for a language (or several: `eng+deu`), or None where it is not installed.

    Args:
        folder: Looked into before the usual places.
    """
    names = [f"{name}.traineddata" for name in language.split("+")]
    places = (folder, *_TESSDATA) if folder else _TESSDATA
    return next((place for place in places if all(os.path.exists(os.path.join(place, name)) for name in names)), None)


def read_document(file: str | bytes, media_type: str, config: kreuzberg.ExtractionConfig) -> dict[str, Any]:
    """The text of a file (its path or its bytes), its headings, its pages (PDF) and what it says of itself.

    Raises:
        EncryptedError: It opens, but its content is encrypted.
        Exception: What kreuzberg raises; `worker` turns it into a sentence.
    """
    if isinstance(file, str):
        result = kreuzberg.extract_file_sync(file, media_type, config=config)
    else:
        result = kreuzberg.extract_bytes_sync(file, media_type, config=config)
    nodes = result.document["nodes"] if result.document else []
    blocks = Blocks()
    if media_type == "application/pdf" and result.pages:
        _add_pages(blocks, nodes, result.pages)
    elif nodes:
        _add_nodes(blocks, nodes, demoted=_false_levels(nodes))
    else:
        blocks.add(result.content)
    if not blocks.parts and result.metadata.get("is_encrypted"):
        raise EncryptedError("it is encrypted")
    return {**blocks.result(), "metadata": _metadata(result.metadata)}


def configuration(language: str | None) -> kreuzberg.ExtractionConfig:
    """The settings that kreuzberg runs with: one thread, no network, nothing written.

    Args:
        language: What the text in images is recognised in, where there is data for it.
    """
    ocr = kreuzberg.OcrConfig(backend="tesseract", language=language) if language else None
    return kreuzberg.ExtractionConfig(
        use_cache=False,  # it would write into the user's folders
        output_format="markdown",
        include_document_structure=True,
        pages=kreuzberg.PageConfig(extract_pages=True),
        ocr=ocr,
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
        tree_sitter=kreuzberg.TreeSitterConfig(enabled=False),  # it would download grammars
    )


def _metadata(found: Any) -> dict[str, Any]:
    metadata = {}
    for theirs, ours in _KEPT_METADATA.items():
        value = found.get(theirs)
        if isinstance(value, list):
            value = [clean(str(item)) for item in value]
            value = value[0] if len(value) == 1 else value
        if isinstance(value, str):
            value = clean(value).strip()
        if value:
            metadata[ours] = value
    if found.get("format_type") == "ocr":
        metadata.pop("language", None)  # what it was looked at in, not what it is in
    if "title" not in metadata and found.get("format_type") == "email" and "subject" in metadata:
        metadata["title"] = metadata["subject"]
    return metadata


# -- structure ---------------------------------------------------------------------------------------------------------


def _add_nodes(blocks: Blocks, nodes: list[Any], *, demoted: frozenset[int] = frozenset(), unwrap: bool = False) -> None:
    items: list[int | None] = []
    last = ""
    for node in nodes:
        content = node["content"]
        kind, text = content["node_type"], content.get("text") or ""
        if node.get("content_layer") in ("header", "footer"):
            continue
        if kind in ("heading", "title") and (content.get("level") or 1) not in demoted and _is_title(text):
            blocks.heading(text, content.get("level") or 1)
        elif kind == "list":
            items = [1 if content.get("ordered") else None]
        elif kind == "table":
            _add_table(blocks, content["grid"])
        elif kind == "metadata_block":
            for number, (name, value) in enumerate(content.get("entries", ())):
                blocks.add(f"{name}: {value}", tight=number > 0)
        elif text and not _is_undecodable(text):
            marker = _marker(items) if kind == "list_item" else ""
            blocks.add(marker + (_joined_lines(text) if unwrap else text), tight=kind == last == "list_item")
        last = kind


def _marker(items: list[int | None]) -> str:
    number = items[-1] if items else None
    if number is None:
        return "- "
    items[-1] = number + 1
    return f"{number}. "


def _add_table(blocks: Blocks, grid: Any) -> None:
    rows = [["" for _ in range(grid["cols"])] for _ in range(grid["rows"])]
    for cell in grid["cells"]:
        if cell["row"] < len(rows) and cell["col"] < len(rows[cell["row"]]):
            rows[cell["row"]][cell["col"]] = cell["content"].replace("**", "")  # bold, in Markdown
    for number, line in enumerate(table_lines(rows)):
        blocks.add(line, tight=number > 0)


def _is_title(text: str) -> bool:
    """Whether a heading that a parser inferred from type sizes can be one: short, and no sentence."""
    stripped = text.strip()
    lines = stripped.count("\n") + 1
    return 0 < len(stripped) <= 150 and lines <= 2 and not _SENTENCE_END.search(stripped) and any(map(str.isalpha, stripped))


def _false_levels(nodes: list[Any]) -> frozenset[int]:
    """Heading levels that are body text in disguise: most of them are followed by another of their own."""
    contents = [node["content"] for node in nodes if node["content"]["node_type"] not in ("group", "page_break")]
    kinds = [(content["node_type"], content.get("level")) for content in contents]
    total: Counter[int] = Counter()
    bare: Counter[int] = Counter()
    for (kind, level), following in itertools.pairwise([*kinds, ("end", None)]):
        if kind == "heading" and level:
            total[level] += 1
            bare[level] += following in ((kind, level), ("end", None))
    return frozenset(level for level, count in total.items() if count >= 5 and bare[level] > 0.6 * count)


# -- pages of a PDF ----------------------------------------------------------------------------------------------------


def _add_pages(blocks: Blocks, nodes: list[Any], pages: list[Any]) -> None:
    """Adds page by page: as paragraphs, headings and tables where the structure found holds the page's words, else
    as the lines that stand on it. The structure is inferred and at times loses part of a page.
    """
    by_page: dict[int, list[Any]] = {}
    current = 1
    for node in nodes:
        if node["content"]["node_type"] == "page_break":
            current += 1
            continue
        current = node.get("page") or current
        by_page.setdefault(current, []).append(node)
    demoted = _false_levels(nodes)
    pages = sorted(pages, key=lambda page: page["page_number"])
    edges = repeated_edges([page["content"] for page in pages])
    for page in pages:
        blocks.page()
        structured = Blocks()
        own = _mended(by_page.get(page["page_number"], []), page["content"])
        content = edges.without(page["content"])
        own = _without_edges(own, edges)
        _add_nodes(structured, own, demoted=demoted, unwrap=True)
        if _holds_words(structured.result()["text"], content):
            _add_nodes(blocks, own, demoted=demoted, unwrap=True)
        elif not _is_undecodable(content):
            blocks.add(_joined_lines(content))


def _without_edges(nodes: list[Any], edges: Edges) -> list[Any]:
    """The nodes of a page without the lines at its top and bottom that all pages repeat."""
    for from_end in (False, True):
        for node in nodes[::-1] if from_end else list(nodes):
            content = node["content"]
            text = content.get("text") or ""
            if content["node_type"] == "table":
                break
            rest = edges.without(text, top=not from_end, bottom=from_end)
            if text and rest == text:
                break
            content["text"] = rest
            if rest.strip():
                break
    return nodes


def _mended(nodes: list[Any], plain: str) -> list[Any]:
    """The nodes of a page with two faults of the inference made good.

    A line that begins with a short word and a full stop ("base. Wikis are ...") is taken for a list item: it goes
    on with the paragraph before it. Numbered headings ("2", "2.1") are all given one level: the number tells theirs.
    """
    lines = plain.replace("\r\n", "\n")
    mended: list[Any] = []
    for node in nodes:
        content = dict(node["content"])
        text = content.get("text") or ""
        if content["node_type"] == "list_item" and f"\n{text.partition(chr(10))[0][:30]}" in lines:
            content["node_type"] = "paragraph"
            while mended and mended[-1]["content"]["node_type"] in ("list", "group"):
                mended.pop()
            if mended and mended[-1]["content"]["node_type"] in ("paragraph", "list_item"):
                before = mended.pop()["content"]
                content = {**before, "text": f"{before.get('text') or ''}\n{text}"}
        elif content["node_type"] == "heading" and (number := _NUMBERED.match(text)):
            content["level"] = (content.get("level") or 1) + number[1].count(".")
        mended.append({"content": content})
    return mended


def _holds_words(structured: str, plain: str) -> bool:
    words = set(_WORD.findall(_joined_lines(plain).lower()))
    found = set(_WORD.findall(structured.lower()))
    return len(words - found) <= 0.15 * len(words)


def _is_undecodable(text: str) -> bool:
    """Whether a font without a map to Unicode gave glyph numbers in place of characters."""
    strange = sum(1 for char in text if (char < " " and char not in "\t\n\r\x02") or "\ue000" <= char <= "\uf8ff")
    return strange > 0.05 * len(text)


def _is_row(line: str) -> bool:
    """Whether a line is the row of a table rather than prose: many of its words are figures."""
    words = line.split()
    figures = sum(1 for word in words if not any(map(str.isalpha, word)))
    return figures >= 2 and figures > 0.3 * len(words)


def _ends_paragraph(before: str, line: str, width: int) -> bool:
    """Whether a line that was joined already, or a short one, ends a sentence and the next begins one."""
    return (len(before) > 1.5 * width or len(before) < 0.9 * width) and before[-1:] in ".!?:" and not line[:1].islower()


def _joined_lines(text: str) -> str:
    """Paragraph lines joined where the page's width broke them; words that a hyphen parted are whole again.

    pdfium writes U+0002 for a hyphen at the end of a line. Short lines (addresses, rows) are left as they are.
    """
    text = re.sub(r"(\w)[\x02\ufffe]\s*(?=\w)", r"\1", text.replace("\r\n", "\n"))
    lines = [line.strip() for line in text.split("\n")]
    lengths = sorted(len(line) for line in lines if line)
    # Not the longest: a paragraph that the parser joined already stands on one line.
    width = lengths[len(lengths) * 3 // 4] if lengths else 0
    if width < 40:
        return "\n".join(lines)
    joined = [lines[0]]
    for before, line in itertools.pairwise(lines):
        if len(before) < 0.7 * width or not line or _is_row(before) or _is_row(line) or _ends_paragraph(before, line, width):
            joined.append("\n" + line)
        elif re.search(r"[^\W\d_]-$", before) and line[0].islower():
            joined[-1] = joined[-1][:-1] if before.rsplit(None, 1)[-1].count("-") == 1 else joined[-1]
            joined.append(line)
        else:
            joined.append(" " + line)
    return "".join(joined)
