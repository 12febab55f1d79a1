"""What holds of the chunks of any text, under any layout, with any tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragline.chunking.base import Tokenizer, TokenSpans
from ragline.chunking.chunker import Chunker
from ragline.embedding.tokenizer import ModelTokenizer
from ragline.reading.documents import markdown_headings
from ragline.types import Chunk, Heading, Layout
from tests.embedders import WordTokenizer
from tests.tiny_bert import write_tokenizer


class CharacterTokenizer:
    """Two characters are a token, counted from the start of the text: nothing can be sliced."""

    special_ids = ((1,), (2,))
    sliceable = False

    def spans(self, texts: Sequence[str]) -> Sequence[TokenSpans]:
        return [self._spans(text) for text in texts]

    def _spans(self, text: str) -> TokenSpans:
        starts = np.arange(0, len(text), 2, dtype=np.int64)
        return TokenSpans(np.zeros(len(starts), np.int32), starts, np.minimum(starts + 2, len(text)))


@pytest.fixture(scope="module", params=["words", "bert", "characters"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path: Path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer(path)
    makers: dict[str, Callable[[], Tokenizer]] = {
        "words": WordTokenizer,
        "bert": lambda: ModelTokenizer(path),
        "characters": CharacterTokenizer,
    }
    return makers[request.param]()


pieces = st.one_of(
    st.sampled_from(
        [
            "keys rotate every day. ",
            "How? ",
            "\n\n",
            "\n",
            "\r\n",
            "\t",
            "# Keys\n",
            "## Days\n\n",
            "- item\n",
            "    code()\n",
            "中文。",
            "中",
        ]
    ),
    st.sampled_from(
        ["x" * 150, "ab" * 20, "\u200b" * 40, " " * 70, "e\u0301", "👨\u200d👩\u200d👧", "\x1c", "\x85", "\u3000", "\u2028", ".", "a-b/c"]
    ),
    st.text(max_size=8),
)
texts = st.lists(pieces, max_size=60).map("".join)


@st.composite
def texts_with_layouts(draw: st.DrawFn) -> tuple[str, Layout]:
    text = draw(texts)
    if draw(st.booleans()):
        return text, Layout(markdown_headings(text))
    places = st.integers(0, len(text) + 5)
    headings = draw(st.lists(st.builds(Heading, places, places, st.integers(1, 4), st.text(max_size=300)), max_size=6))
    return text, Layout(tuple(headings), tuple(sorted(draw(st.lists(places, max_size=4)))))


limits = st.tuples(st.integers(16, 64), st.integers(0, 15))


def check_spans(text: str, chunks: list[Chunk], *, overlaps: bool) -> None:
    covered = np.zeros(len(text) + 1, np.int64)
    before = (-1, -1)
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end] == chunk.text.strip() != ""
        assert chunk.start > before[0] and chunk.end > before[1]
        assert overlaps or chunk.start >= before[1]
        before = (chunk.start, chunk.end)
        covered[chunk.start : chunk.end] += 1
    assert all(covered[i] for i, char in enumerate(text) if not char.isspace())


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(document=texts_with_layouts(), limit=limits)
def test_chunks_are_bounded_quotes_that_hold_the_whole_text(
    tokenizer: Tokenizer, document: tuple[str, Layout], limit: tuple[int, int]
) -> None:
    text, layout = document
    text = text.encode("utf-8", "replace").decode()  # lone surrogates never get past reading
    max_tokens, overlap = limit
    chunks = Chunker(tokenizer, max_tokens=max_tokens, overlap_tokens=overlap).chunk(text, layout)
    check_spans(text, chunks, overlaps=overlap > 0)
    before, after = tokenizer.special_ids
    for chunk in chunks:
        alone = (*before, *tokenizer.spans([chunk.passage])[0].ids.tolist(), *after)
        assert len(alone) <= max_tokens
        assert len(chunk.text) <= 16 * max_tokens
        assert (None if chunk.token_ids is None else tuple(chunk.token_ids)) == (alone if tokenizer.sliceable else None)
        assert (chunk.page is None) == (not layout.pages)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(text=texts.map(lambda text: text.encode("utf-8", "replace").decode()), copies=st.integers(1, 400), overlap=st.sampled_from([0, 5]))
def test_long_texts_are_cut_window_by_window_without_a_seam(text: str, copies: int, overlap: int) -> None:
    text = text * copies
    chunker = Chunker(WordTokenizer(), max_tokens=16, overlap_tokens=overlap)
    chunks = chunker.chunk(text, Layout(markdown_headings(text)))
    check_spans(text, chunks, overlaps=overlap > 0)
    assert all(chunk.token_ids is not None and len(chunk.token_ids) <= 16 for chunk in chunks)
