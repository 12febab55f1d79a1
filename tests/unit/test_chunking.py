"""How texts are cut: along headings, paragraphs and sentences, within the tokens of the model."""

from __future__ import annotations

import itertools

import pytest

from ragline.chunking.chunker import Chunker
from ragline.embedding.models import DEFAULT_MODEL, locate_model
from ragline.embedding.tokenizer import ModelTokenizer
from ragline.errors import InputError
from ragline.reading.documents import read_text
from ragline.settings import load_settings
from ragline.types import Chunk, Heading, Layout
from tests.embedders import WordTokenizer


def chunked(text: str, *, max_tokens: int = 32, overlap_tokens: int = 0) -> list[Chunk]:
    return Chunker(WordTokenizer(), max_tokens=max_tokens, overlap_tokens=overlap_tokens).chunk(text, read_text(text).layout)


def sentence(number: int, words: int = 9) -> str:
    return f"Sentence{number} " + "word " * (words - 2) + "end."


def test_a_short_text_is_one_chunk() -> None:
    assert [chunk.text for chunk in chunked("  Keys rotate.\n")] == ["Keys rotate."]


def test_a_text_of_white_space_has_no_chunks() -> None:
    assert Chunker(WordTokenizer()).chunk(" \n\t ") == []
    assert Chunker(WordTokenizer()).chunk("") == []


def test_a_chunk_keeps_to_one_section_and_knows_its_path() -> None:
    text = "# Keys\n\n" + sentence(1) + "\n\n## Rotation\n\n" + sentence(2) + "\n\n# Doors\n\n" + sentence(3)
    assert [(chunk.heading, chunk.text.splitlines()[0]) for chunk in chunked(text)] == [
        ("Keys", "# Keys"),
        ("Keys > Rotation", "## Rotation"),
        ("Doors", "# Doors"),
    ]


def test_a_heading_without_a_body_goes_with_the_section_below_it() -> None:
    text = "# Keys\n\n## Rotation\n\n" + sentence(1)
    (chunk,) = chunked(text)
    assert chunk.heading == "Keys > Rotation"
    assert chunk.text == text


def test_sections_of_a_few_words_share_a_chunk_under_what_is_true_of_both() -> None:
    text = "# Keys\n\n" + sentence(1, 30) + "\n\n## A\n\nOne.\n\n## B\n\nTwo.\n\n## C\n\n" + sentence(2, 30)
    chunks = chunked(text, max_tokens=128)
    assert [chunk.heading for chunk in chunks] == ["Keys", "Keys", "Keys > C"]
    assert chunks[1].text == "## A\n\nOne.\n\n## B\n\nTwo."


def test_cuts_fall_between_paragraphs_before_sentences_before_words() -> None:
    first, second, third = sentence(1, 10), sentence(2, 8), sentence(3, 14)
    assert [chunk.text for chunk in chunked(f"{first} {second}\n\n{third}")] == [f"{first} {second}", third]
    assert [chunk.text for chunk in chunked(f"{first} {second} {third}")] == [f"{first} {second}", third]
    assert [len(chunk.text.split()) for chunk in chunked("word " * 40)] == [20, 20]


def test_no_crumb_is_left_over_at_the_end() -> None:
    lengths = [len(chunk.text.split()) for chunk in chunked("word " * 64)]
    assert lengths == [30, 17, 17]


def test_an_overlap_repeats_whole_sentences() -> None:
    text = " ".join(sentence(i) for i in range(8))
    chunks = chunked(text, max_tokens=42, overlap_tokens=12)
    for before, after in itertools.pairwise(chunks):
        shared = text[after.start : before.end]
        assert shared.startswith("Sentence") and shared.endswith("end.") and len(shared.split()) <= 12


def test_an_overlap_of_a_whole_chunk_is_refused() -> None:
    with pytest.raises(InputError, match="overlap of 32 tokens does not fit chunks of 32"):
        Chunker(WordTokenizer(), max_tokens=32, overlap_tokens=32)


def test_a_limit_without_room_for_text_is_refused() -> None:
    with pytest.raises(InputError, match="leave no room"):
        Chunker(WordTokenizer(), max_tokens=5)


def test_a_long_heading_path_loses_its_outermost_titles_first() -> None:
    text = "# " + "outer " * 10 + "\n\n## inner title\n\nbody text here"
    assert chunked(text)[-1].heading == "inner title"


def test_a_title_that_does_not_fit_is_cut() -> None:
    chunk = chunked("# " + "long " * 50 + "\n\nbody")[0]
    assert chunk.heading == " ".join(["long"] * 8)


def test_an_endless_word_is_cut_by_characters() -> None:
    chunks = chunked("x" * 100_000)
    assert "".join(chunk.text for chunk in chunks) == "x" * 100_000
    assert max(len(chunk.text) for chunk in chunks) <= 16 * 32


def test_a_chunk_knows_the_page_it_starts_on() -> None:
    text = f"{sentence(1, 20)}\n\n{sentence(2, 20)}"
    layout = Layout(pages=(0, text.index("Sentence2")))
    assert [chunk.page for chunk in Chunker(WordTokenizer(), max_tokens=24).chunk(text, layout)] == [1, 2]


def test_a_heading_is_not_parted_from_its_text() -> None:
    title = "A title of some words"
    text = f"{title}\n\n" + "word " * 100
    for max_tokens in range(24, 60):
        chunk = Chunker(WordTokenizer(), max_tokens=max_tokens).chunk(text, Layout((Heading(0, len(title), 1, title),)))[0]
        assert len(chunk.text) > len(title)


def test_the_default_model_gets_the_ids_that_it_would_make_itself() -> None:
    cache_dir = load_settings().settings.model_cache_dir()
    tokenizer = ModelTokenizer(locate_model(DEFAULT_MODEL, cache_dir=cache_dir, announce=print).path / "tokenizer.json")
    text = "# Schlüssel\n\n" + "Über 90 Tage: naïve café, don't—stop. 中文。 e\u0301 \U0001f600 " * 200 + "x" * 5000
    chunks = Chunker(tokenizer, overlap_tokens=20).chunk(text, read_text(text).layout)
    before, after = tokenizer.special_ids
    assert len(chunks) > 10
    for chunk in chunks:
        assert chunk.token_ids is not None and tuple(chunk.token_ids) == (*before, *tokenizer.ids(chunk.passage), *after)
        assert len(chunk.token_ids) <= 256
