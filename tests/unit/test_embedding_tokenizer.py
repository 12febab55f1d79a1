"""Tokens and where they stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from ragline.embedding.tokenizer import ModelTokenizer
from ragline.errors import CorruptionError, InputError
from tests.tiny_bert import VOCABULARY, write_tokenizer


@pytest.fixture
def tokenizer(tmp_path: Path) -> ModelTokenizer:
    write_tokenizer(tmp_path / "tokenizer.json")
    return ModelTokenizer(tmp_path / "tokenizer.json")


def words(tokenizer: ModelTokenizer, text: str) -> list[tuple[str, str]]:
    spans = tokenizer.spans([text])[0]
    assert spans.ids.dtype == np.int32 and spans.starts.dtype == spans.ends.dtype == np.int64
    assert len(spans.ids) == len(spans.starts) == len(spans.ends)
    return [(VOCABULARY[i], text[s:e]) for i, s, e in zip(spans.ids, spans.starts, spans.ends, strict=True)]


def test_offsets_are_code_points_whatever_stands_before(tokenizer: ModelTokenizer) -> None:
    assert words(tokenizer, "😀👨‍👩‍👧 Keys café 中文 rotate") == [
        ("[UNK]", "😀👨‍👩‍👧"),
        ("keys", "Keys"),
        ("cafe", "café"),
        ("中", "中"),
        ("文", "文"),
        ("rotate", "rotate"),
    ]


def test_combining_marks_shift_nothing(tokenizer: ModelTokenizer) -> None:
    text = "cafe\u0301 keys"
    assert words(tokenizer, text)[-1] == ("keys", "keys")
    assert words(tokenizer, text)[0][0] == "cafe"


def test_neither_truncates_nor_pads_though_the_file_asks_for_it(tokenizer: ModelTokenizer) -> None:
    assert len(tokenizer.spans(["keys " * 100])[0].ids) == 100
    assert len(tokenizer.spans(["keys"])[0].ids) == 1
    assert len(tokenizer.spans([""])[0].ids) == 0


def test_a_long_text_has_the_tokens_it_has_in_one_piece(tokenizer: ModelTokenizer, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    parts = ["keys", "rotate, every day.", "\n\n", "  ", "中文", "😀", "cafe\u0301", "x" * 150, "\t", "how-do (we)"]
    text = " ".join(generator.choice(parts, 4000))
    whole = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    whole.no_padding()
    whole.no_truncation()
    expected = whole.encode(text, add_special_tokens=False)
    spans = tokenizer.spans([text])[0]
    assert spans.ids.tolist() == expected.ids
    assert list(zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)) == expected.offsets
    assert tokenizer.ids(text) == expected.ids


@pytest.mark.parametrize("space", [" ", "\n", "\t", "\x0b", "\x0c", "\x1f", "\x85", "\u2003", "\u2028"])
def test_a_piece_cut_at_white_space_has_a_slice_of_the_tokens(tokenizer: ModelTokenizer, space: str) -> None:
    assert tokenizer.sliceable
    left, right = "we rotate", "keys daily"
    assert tokenizer.ids(left + space + right) == tokenizer.ids(left) + tokenizer.ids(right)


def test_tokenizers_that_look_across_white_space_are_not_sliceable(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer.json", bert=False)
    tokenizer = ModelTokenizer(tmp_path / "tokenizer.json")
    assert not tokenizer.sliceable
    assert len(tokenizer.spans(["keys " * 3000])) == 1


def test_special_ids_surround_a_passage_and_hold_its_prompt(tokenizer: ModelTokenizer, tmp_path: Path) -> None:
    cls, sep = VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]")
    assert tokenizer.special_ids == ((cls,), (sep,))
    with_prompt = ModelTokenizer(tmp_path / "tokenizer.json", "passage: ")
    assert with_prompt.special_ids == ((cls, VOCABULARY.index("passage"), VOCABULARY.index(":")), (sep,))


def test_lone_surrogates_are_refused(tokenizer: ModelTokenizer) -> None:
    with pytest.raises(InputError, match="surrogates"):
        tokenizer.spans(["keys \ud800 rotate"])


def test_a_broken_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(CorruptionError, match=r"tokenizer\.json"):
        ModelTokenizer(tmp_path / "tokenizer.json")
