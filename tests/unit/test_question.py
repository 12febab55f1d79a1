"""What happens to a question before it is searched."""

from __future__ import annotations

import pytest

from ragline.errors import InputError
from ragline.retrieval.question import normalise_question


@pytest.mark.parametrize(
    ("question", "normal"),
    [
        ("  how   do\n I\trotate keys? ", "how do I rotate keys?"),
        ("caf\u0065\u0301", "caf\u00e9"),
        ("a\0b", "a b"),
        ("a\ud800b", "a b"),
        ("日本語の質問", "日本語の質問"),
    ],
)
def test_spelling_differences_that_mean_nothing_are_removed(question: str, normal: str) -> None:
    assert normalise_question(question, max_chars=100) == normal


@pytest.mark.parametrize("question", ["", "   ", "\n\t", "\0\0", "\ud800"])
def test_an_empty_question_is_refused(question: str) -> None:
    with pytest.raises(InputError, match="empty"):
        normalise_question(question, max_chars=100)


def test_an_endless_question_is_refused_with_the_setting_that_allows_it() -> None:
    with pytest.raises(InputError) as caught:
        normalise_question("x" * 1_000_000, max_chars=32_768)
    assert "32,768" in caught.value.message and "max_question_chars" in caught.value.hint


def test_a_question_that_is_no_string_is_refused() -> None:
    with pytest.raises(InputError, match="not int"):
        normalise_question(3, max_chars=100)  # type: ignore[arg-type]
