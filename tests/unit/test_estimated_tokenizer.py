"""Counting without knowing the model."""

from __future__ import annotations

import base64
import random
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragline.chunking.chunker import Chunker
from ragline.embedding.estimated_tokenizer import EstimatedTokenizer
from ragline.errors import InputError

TOKENIZER = EstimatedTokenizer()
BASE64 = base64.b64encode(random.Random(1).randbytes(600)).decode()


@pytest.mark.parametrize(
    ("text", "at_least", "at_most"),
    [
        ("", 0, 0),
        (" ", 0, 0),
        ("word", 1, 1),
        ("word word word", 3, 3),
        ("\n\n", 1, 1),
        ("    indented", 2, 4),
        ("internationalisation", 5, 9),
        ("getUserNameByEmailAddress", 6, 12),
        ("SCREAMING_SNAKE_CASE", 8, 16),
        ("2024-11-21T10:00:00", 15, 19),
        ("数据库每九十天轮换一次密钥", 13, 26),
        ("데이터베이스", 6, 12),
        ("ключи меняются", 6, 14),
        ("😀😀😀", 6, 12),
        ("👩‍👩‍👧", 9, 30),
        (BASE64, 560, 800),
        ("a" * 600, 500, 600),
        ("-" * 80, 80, 80),
    ],
)
def test_it_counts_on_the_long_side_but_not_without_measure(text: str, at_least: int, at_most: int) -> None:
    assert at_least <= TOKENIZER.count(text) <= at_most
    assert len(TOKENIZER.spans([text])[0].ids) == TOKENIZER.count(text)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300) | st.text("aB1 \n\t.中é😀-", max_size=300)


@given(texts)
def test_tokens_stand_in_order_within_the_text_and_hold_all_but_white_space(text: str) -> None:
    spans = TOKENIZER.spans([text])[0]
    starts, ends = spans.starts.tolist(), spans.ends.tolist()
    assert len(spans.ids) == len(starts) == len(ends) == TOKENIZER.count(text)
    assert starts == sorted(starts) and all(0 <= start < end <= len(text) for start, end in zip(starts, ends, strict=True))
    held = {place for start, end in zip(starts, ends, strict=True) for place in range(start, end)}
    assert all(text[place].isspace() for place in set(range(len(text))) - held)


@given(texts, texts)
def test_more_text_is_never_fewer_tokens_by_more_than_the_seam(first: str, second: str) -> None:
    assert TOKENIZER.count(first + "\n" + second) >= TOKENIZER.count(first) + TOKENIZER.count(second) - 2


@given(texts)
def test_chunks_of_any_text_keep_to_the_limit(text: str) -> None:
    before, after = TOKENIZER.special_ids
    for chunk in Chunker(TOKENIZER, max_tokens=32).chunk(text):
        assert len(before) + TOKENIZER.count(chunk.passage) + len(after) <= 32 or len(chunk.text) == 1


def test_every_character_there_is_can_be_counted() -> None:
    every = "".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    spans = TOKENIZER.spans([every])[0]
    assert len(spans.ids) == TOKENIZER.count(every) > 1_000_000
    assert unicodedata.unidata_version  # the count does not depend on it


def test_a_prompt_before_passages_counts_among_the_special_tokens() -> None:
    before, after = EstimatedTokenizer("passage: ").special_ids
    assert len(before) == 1 + 3 and len(after) == 1
    assert TOKENIZER.special_ids == ((0,), (0,))


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(InputError, match="surrogates"):
        TOKENIZER.count("\udcff")
    with pytest.raises(InputError, match="surrogates"):
        TOKENIZER.spans(["fine", "\ud800"])


def test_a_megabyte_is_counted_whole() -> None:
    line = "Node keys rotate every 90 days; see section 4.2.\n"
    assert TOKENIZER.count(line * 20_000) == 20_000 * TOKENIZER.count(line)
