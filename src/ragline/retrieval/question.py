"""What a question looks like before anything is done with it."""

from __future__ import annotations

import re
import unicodedata

from ragline.errors import InputError

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def normalise_question(question: str, *, max_chars: int) -> str:
    """The question in Unicode's NFC, with white space collapsed; NUL and lone surrogates become spaces.

    Two spellings of one question that differ in these alone search, and are cached, as one.

    Raises:
        InputError: Nothing is left, or it is longer than `max_chars`.
    """
    if not isinstance(question, str):
        raise InputError(f"a question is a string, not {type(question).__name__}", hint="pass the text of the question")
    if len(question) > max_chars:
        raise InputError(
            f"the question has {len(question):,} characters; at most {max_chars:,} are taken",
            hint="ask something shorter, ingest long texts as documents, or raise retrieval.max_question_chars",
        )
    normal = " ".join(unicodedata.normalize("NFC", _UNSTORABLE.sub(" ", question)).split())
    if not normal:
        raise InputError("the question is empty", hint="ask in words")
    return normal
