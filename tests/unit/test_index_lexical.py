from __future__ import annotations

import math
import random
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from pyroaring import BitMap64

from ragline.errors import BackendError, SettingsError
from ragline.index.lexical import MAX_TERMS, LexicalIndex
from ragline.index.lexical_analysis import LANGUAGES, PADDING_TERM, PADDING_TERMS, normalised, text_analyzer

WORDS = [f"w{number}" for number in range(60)]


def opened(folder: Path, *, writable: bool = True, incarnation: str = "store-1", language: str = "none") -> LexicalIndex:
    index = LexicalIndex.open(folder, incarnation=incarnation, language=language, writable=writable)
    assert index is not None
    return index


def change(index: LexicalIndex, lsn: int, *, remove: Iterable[int] = (), add: Iterable[tuple[int, str]] = ()) -> None:
    added = list(add)
    rows = np.array([row for row, _ in added], np.int64)
    index.apply(np.array(list(remove), np.int64), rows, [passage for _, passage in added])
    index.commit(lsn)


def filled(folder: Path, passages: Sequence[str], *, language: str = "none") -> LexicalIndex:
    index = opened(folder, language=language)
    change(index, 1, add=enumerate(passages))
    index.reload()
    return index


def found(index: LexicalIndex, question: str, top_k: int = 10, allowed: BitMap64 | None = None) -> list[int]:
    rows, scores = index.search(question, top_k, allowed)
    assert rows.dtype == np.int64 and scores.dtype == np.float32 and len(rows) == len(scores)
    return [int(row) for row in rows]


def random_passages(count: int, seed: int, words: Sequence[str] = WORDS) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, weights=range(1, len(words) + 1), k=draw.randint(1, 30))) for _ in range(count)]


KEPT_LENGTHS = (56, 60, 64, 68, 72, 76, 80, 84, 88, 96)
"""The lengths from 56 to 100 that a byte can tell apart: four bits of mantissa, as in Lucene's SmallFloat."""


def bm25(passages: dict[int, str], question: str) -> list[tuple[float, int]]:
    """Scores and rows, best first, ties by row; k1 1.2, b 0.75, as Robertson and Zaragoza write it, with Lucene's idf.

    Lengths are padded; of the length of one passage, though not of the mean, one byte is kept.
    """
    k1, b = 1.2, 0.75
    counts = {row: Counter(passage.split()) for row, passage in passages.items()}
    padded = {row: sum(count.values()) + PADDING_TERMS for row, count in counts.items()}
    average = sum(padded.values()) / len(padded)
    lengths = {row: max(kept for kept in KEPT_LENGTHS if kept <= length) for row, length in padded.items()}
    scores: defaultdict[int, float] = defaultdict(float)
    for term, times in Counter(question.split()).items():
        holders = [row for row in counts if counts[row][term]]
        idf = times * math.log(1 + (len(counts) - len(holders) + 0.5) / (len(holders) + 0.5))
        for row in holders:
            frequency = counts[row][term]
            scores[row] += idf * frequency * (k1 + 1) / (frequency + k1 * (1 - b + b * lengths[row] / average))
    return sorted(((score, row) for row, score in scores.items()), key=lambda pair: (-round(pair[0], 4), pair[1]))


# Scores and order


def test_scores_and_order_are_those_of_bm25(tmp_path: Path) -> None:
    passages = random_passages(400, seed=1)
    index = filled(tmp_path, passages)
    draw = random.Random(2)
    for _ in range(40):
        question = " ".join(draw.choices(WORDS, k=draw.randint(1, 6)))
        expected = bm25(dict(enumerate(passages)), question)[:50]
        rows, scores = index.search(question, 50)
        np.testing.assert_allclose(scores, [score for score, _ in expected], rtol=1e-4)
        assert rows.tolist() == [row for _, row in expected]


def test_the_padding_cannot_be_searched_for(tmp_path: Path) -> None:
    index = filled(tmp_path, ["alpha", "beta"])
    assert found(index, PADDING_TERM) == []
    assert found(index, f"{PADDING_TERM} beta") == [1]


def test_the_same_passages_score_alike_however_many_commits_they_came_in(tmp_path: Path) -> None:
    passages = random_passages(300, seed=3)
    whole = filled(tmp_path / "whole", passages)
    pieces = opened(tmp_path / "pieces")
    for at in range(0, 300, 20):
        change(pieces, at + 1, add=list(enumerate(passages))[at : at + 20])
    pieces.reload()
    for question in random_passages(20, seed=4):
        rows, scores = whole.search(question, 30)
        again, rescored = pieces.search(question, 30)
        assert rows.tolist() == again.tolist()
        np.testing.assert_allclose(scores, rescored, rtol=1e-6)


def test_ties_are_in_row_order_also_where_top_k_cuts_them(tmp_path: Path) -> None:
    index = opened(tmp_path)
    rows = list(range(200))
    random.Random(5).shuffle(rows)
    for lsn, at in enumerate(range(0, 200, 10), start=1):  # segments whose rows lie in each other's midst, later merged
        change(
            index, lsn, add=[(row, "alpha beta" if row % 2 else "alpha gamma delta beta gamma delta") for row in sorted(rows[at : at + 10])]
        )
        index.reload()
        held = sorted(rows[: at + 10])
        odd, even = [row for row in held if row % 2], [row for row in held if not row % 2]
        for top_k in (1, 7, len(odd), len(held) - 1, len(held), 1_000):
            assert found(index, "alpha", top_k) == (odd + even)[:top_k]


def test_a_word_counts_as_often_as_it_is_asked(tmp_path: Path) -> None:
    index = filled(tmp_path, ["alpha", "beta", "gamma", "delta"])
    assert found(index, "alpha beta") == [0, 1]
    assert found(index, "alpha beta BETA") == [1, 0]


@pytest.mark.parametrize("top_k", [0, -1])
def test_asking_for_nothing_finds_nothing(tmp_path: Path, top_k: int) -> None:
    assert found(filled(tmp_path, ["alpha"]), "alpha", top_k) == []


def test_asking_for_more_than_there_is_finds_all(tmp_path: Path) -> None:
    assert found(filled(tmp_path, ["alpha", "beta", "alpha"]), "alpha", 10**6) == [0, 2]


# Questions


@pytest.mark.parametrize("question", ["", " ", "!?", "the of and", "\x00", "\ud800", "ܫ", "unheard-of"])
def test_a_question_without_known_words_finds_nothing(tmp_path: Path, question: str) -> None:
    assert found(filled(tmp_path, ["the cat", "a dog"], language="english"), question) == []


@pytest.mark.parametrize(
    "question", ["+cat -dog", "passage:cat", 'row:1 OR "cat"', "cat*", "(cat", "cat AND", "cat\x00", "/cat/", "[cat TO dog]"]
)
def test_every_character_of_a_question_is_data(tmp_path: Path, question: str) -> None:
    index = filled(tmp_path, ["a cat", "a bird", "some fish"], language="english")
    assert found(index, question) == [0]


def test_a_huge_question_is_searched_by_its_rarest_words(tmp_path: Path) -> None:
    common = [f"common{number}" for number in range(MAX_TERMS)]
    index = filled(tmp_path, [" ".join(common)] * 5 + ["needle"])
    assert 5 in found(index, " ".join([*(f"unknown{n}" for n in range(5_000)), *common, "needle"]))


def test_searches_run_side_by_side(tmp_path: Path) -> None:
    index = filled(tmp_path, random_passages(500, seed=7))
    questions = random_passages(100, seed=8)
    expected = [found(index, question) for question in questions]
    wrong: list[str] = []

    def search() -> None:
        wrong.extend(question for question, rows in zip(questions, expected, strict=True) if found(index, question) != rows)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Words


@pytest.mark.parametrize(
    ("question", "passage"),
    [
        ("E1234", "the pump reported E1234 and stopped"),
        ("e1234", "the pump reported (E1234)."),
        ("max_batch_tokens", "set `max_batch_tokens` to 32"),
        ("3.11", "runs on Python 3.11."),
        ("CVE-2024-3094", "affected by CVE-2024-3094"),
        ("cafe", "le café"),
        ("résumé", "re\u0301sume\u0301"),
        ("example", "an exam\u00adple"),
        ("file", "a ﬁle"),
        ("ABC", "\uff21\uff22\uff23"),
        ("rotation", "rotating keys"),
        ("東京", "東京都は日本の首都です。"),
        ("都", "東京都は日本の首都です。"),
        ("首都", "北京是中华人民共和国的首都"),
        ("서울", "서울에서 만나요"),
        ("ภาษา", "ฉันพูดภาษาไทย"),
        ("हिन्दी", "मैं हिन्दी बोलता हूँ"),
        ("привет", "Привет, мир"),
        ("a" * 128, f"digest {'a' * 128}"),
    ],
)
def test_a_passage_is_found_by_its_words_in_any_script(tmp_path: Path, question: str, passage: str) -> None:
    assert found(filled(tmp_path, ["something else", passage], language="english"), question) == [1]


@pytest.mark.parametrize(
    ("question", "exact", "scattered"),
    [
        ("3.11", "version 3.11 is out", "11 of the 3 versions"),
        ("max_batch_tokens", "see max_batch_tokens here", "tokens batch max here"),
        ("os.path", "from os.path take it", "the path of an os take it"),
        ("大学", "我在大学学习汉语", "他学会了大声读书呢"),
    ],
)
def test_the_exact_word_ranks_above_its_scattered_parts(tmp_path: Path, question: str, exact: str, scattered: str) -> None:
    assert found(filled(tmp_path, [scattered, exact]), question)[0] == 1


def test_texts_that_need_no_rewriting_are_left_alone() -> None:
    text = "Plain prose. It ends here, e-mail and U.S. and all!"
    assert normalised(text) is text


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_that_is_offered_can_be_analysed(language: str) -> None:
    assert text_analyzer(language).analyze("Paris 2024")[-1] == "2024"


def test_an_unknown_language_is_refused_with_the_possible_ones(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="klingon") as refused:
        LexicalIndex.open(tmp_path, incarnation="i", language="klingon", writable=True)
    assert "english" in refused.value.hint and "none" in refused.value.hint


def test_stop_words_and_stems_are_the_language_s_own(tmp_path: Path) -> None:
    german = filled(tmp_path / "de", ["Häuser für alle", "for the house"], language="german")
    assert found(german, "für") == []
    assert found(german, "Haus") == [0]
    assert found(german, "the") == [1]
    assert found(filled(tmp_path / "none", ["the houses"]), "house") == []


# Filters


@pytest.mark.parametrize("share", [0.002, 0.02, 0.2, 0.6, 1.0])
@pytest.mark.parametrize("top_k", [1, 10, 100, 10_000])
def test_a_filter_keeps_scores_and_order_and_finds_all_that_match(tmp_path: Path, share: float, top_k: int) -> None:
    passages = random_passages(1_500, seed=9)
    index = filled(tmp_path, passages)
    draw = random.Random(10)
    for question in ("w59", "w3 w40 w17", "w0"):
        allowed = BitMap64(sorted(draw.sample(range(1_500), max(1, int(1_500 * share)))))
        rows, scores = index.search(question, 10_000)
        inside = np.array([int(row) in allowed for row in rows], bool)
        got, rescored = index.search(question, top_k, allowed)
        assert got.tolist() == rows[inside][:top_k].tolist()
        np.testing.assert_allclose(rescored, scores[inside][:top_k], rtol=1e-6)


def test_a_filter_on_the_worst_rows_still_finds_top_k(tmp_path: Path) -> None:
    passages = ["alpha"] * 2_000 + [f"alpha {'filler ' * 30}"] * 1_000
    index = filled(tmp_path, passages)
    allowed = BitMap64(range(2_000, 3_000))
    assert found(index, "alpha", 20, allowed) == list(range(2_000, 2_020))
    assert found(index, "filler alpha", 1_500, allowed) == list(range(2_000, 3_000))


@pytest.mark.parametrize("allowed", [BitMap64(), BitMap64([77]), BitMap64([2**40]), BitMap64(range(500, 900))])
def test_a_filter_on_rows_not_held_finds_nothing(tmp_path: Path, allowed: BitMap64) -> None:
    assert found(filled(tmp_path, ["alpha"] * 50), "alpha", 5, allowed) == []


# Following


def test_searches_see_a_commit_only_after_reload(tmp_path: Path) -> None:
    writer = filled(tmp_path, ["alpha"])
    reader = opened(tmp_path, writable=False)
    change(writer, 2, add=[(1, "alpha")])
    assert (found(writer, "alpha"), found(reader, "alpha")) == ([0], [0])
    assert (writer.lsn, reader.lsn) == (2, 1)
    assert reader.prepare() and found(reader, "alpha") == [0]
    assert reader.reload() and writer.reload()
    assert (found(writer, "alpha"), found(reader, "alpha")) == ([0, 1], [0, 1])
    assert (reader.lsn, reader.count) == (2, 2)
    assert not reader.reload() and not writer.reload()


def test_a_log_position_without_changes_is_kept_too(tmp_path: Path) -> None:
    writer = filled(tmp_path, ["alpha"])
    reader = opened(tmp_path, writable=False)
    writer.commit(9)
    assert reader.reload() and (reader.lsn, found(reader, "alpha")) == (9, [0])
    writer.close()
    assert opened(tmp_path).lsn == 9


def test_removing_and_replacing_are_as_in_a_dict_however_they_are_replayed(tmp_path: Path) -> None:
    index = opened(tmp_path)
    model: dict[int, str] = {}
    draw = random.Random(11)
    row = 0
    for lsn in range(1, 40):
        remove = [*draw.sample(sorted(model), min(len(model), draw.randint(0, 4))), draw.randint(10_000, 20_000)]
        add = {row + number: passage for number, passage in enumerate(random_passages(draw.randint(0, 6), seed=lsn))}
        add |= {old: "replaced" for old in draw.sample(sorted(set(model) - set(remove)), min(1, len(model) // 5))}
        row += 6
        for _ in range(draw.randint(1, 3)):
            index.apply(np.array(remove, np.int64), np.array(sorted(add), np.int64), [add[key] for key in sorted(add)])
        if draw.random() < 0.3:
            index.close_writer()  # drops what was not committed
            index.apply(np.array(remove, np.int64), np.array(sorted(add), np.int64), [add[key] for key in sorted(add)])
        index.commit(lsn)
        index.reload()
        for gone in remove:
            model.pop(gone, None)
        model |= add
        assert index.count == len(model)
        assert sorted(found(index, " ".join(WORDS) + " replaced", 10_000)) == sorted(model)
    assert LexicalIndex.verify(tmp_path) == []
    assert 0 < index.deleted_fraction < 1


def test_uncommitted_changes_are_gone_after_reopening(tmp_path: Path) -> None:
    index = filled(tmp_path, ["alpha"])
    index.apply(np.array([0]), np.array([1]), ["alpha"])
    index.close()
    again = opened(tmp_path)
    assert (again.lsn, found(again, "alpha")) == (1, [0])


def test_what_was_applied_is_searched_after_many_merges(tmp_path: Path) -> None:
    index = opened(tmp_path)
    reader = None
    for lsn in range(1, 121):
        change(index, lsn, add=[(lsn, f"alpha n{lsn}")], remove=[lsn - 2] if lsn % 3 == 0 else [])
        if lsn == 1:
            reader = opened(tmp_path, writable=False)
    index.close()
    assert reader is not None and reader.reload()
    expected = [row for row in range(1, 121) if not (row % 3 == 1 and row + 2 <= 120)]
    assert found(reader, "alpha", 1_000) == expected
    assert len(list(next(tmp_path.glob("g*")).glob("*.idx"))) < 30  # merging works: not one segment for each commit
    assert LexicalIndex.verify(tmp_path) == []


def test_close_is_idempotent_and_searches_go_on(tmp_path: Path) -> None:
    index = filled(tmp_path, ["alpha"])
    index.close()
    index.close()
    assert found(index, "alpha") == [0]


# Generations


def test_a_new_generation_takes_over_and_readers_keep_the_old_until_they_reload(tmp_path: Path) -> None:
    old = filled(tmp_path, ["alpha old"] * 20)
    change(old, 2, remove=range(5))
    reader = opened(tmp_path, writable=False)
    assert reader.deleted_fraction == 0.25
    new = old.begin_generation()
    for lsn, row in enumerate(range(5, 20), start=1):  # filled in steps, none of which shows
        change(new, lsn, add=[(row, "alpha new")])
        assert not reader.reload()
    new.commit(16)
    old.publish_generation(new)
    new.reload()
    assert found(new, "new", 50) == list(range(5, 20)) and new.deleted_fraction == 0
    assert [path.name for path in tmp_path.glob("g*")] == ["g000002"]
    assert found(reader, "old", 50) == list(range(5, 20)) and found(old, "old", 50) != []
    assert reader.reload() and reader.lsn == 16
    assert (found(reader, "old"), found(reader, "new", 50)) == ([], list(range(5, 20)))
    change(new, 17, add=[(20, "alpha new")])
    assert reader.reload() and found(reader, "new", 50) == list(range(5, 21))


def test_an_abandoned_generation_is_cleared_away(tmp_path: Path) -> None:
    index = filled(tmp_path, ["alpha"])
    change(index.begin_generation(), 1, add=[(0, "beta")])
    index.close()
    again = opened(tmp_path)
    assert found(again, "alpha") == [0] and [path.name for path in tmp_path.glob("g*")] == ["g000001"]


def test_an_index_of_another_store_or_language_is_not_used(tmp_path: Path) -> None:
    filled(tmp_path, ["alpha"]).close()
    for incarnation, language in (("store-2", "none"), ("store-1", "english")):
        assert LexicalIndex.open(tmp_path, incarnation=incarnation, language=language, writable=False) is None
    fresh = opened(tmp_path, incarnation="store-2")
    assert (fresh.lsn, fresh.count) == (0, 0)
    assert found(opened(tmp_path, writable=False), "alpha") == [0], "the old one stands until the first commit"
    fresh.commit(3)
    assert opened(tmp_path, writable=False, incarnation="store-2").lsn == 3
    assert LexicalIndex.open(tmp_path, incarnation="store-1", language="none", writable=False) is None


def test_a_reader_gets_none_before_the_first_commit(tmp_path: Path) -> None:
    def reader() -> LexicalIndex | None:
        return LexicalIndex.open(tmp_path / "new", incarnation="store-1", language="none", writable=False)

    assert reader() is None
    writer = opened(tmp_path / "new")
    assert reader() is None
    writer.commit(0)
    index = reader()
    assert index is not None and index.lsn == 0 and found(index, "alpha") == []


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    first = filled(tmp_path, ["alpha"])
    second = opened(tmp_path)
    with pytest.raises(BackendError, match=re.escape(str(tmp_path))):
        change(second, 2, add=[(1, "beta")])
    first.close()
    change(second, 2, add=[(1, "beta")])
    second.reload()
    assert found(second, "alpha beta") == [0, 1]


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BackendError, match="file"):
        opened(tmp_path / "file" / "lexical")
