"""The extractive generator: what it quotes, how it says that nothing was found, how it streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ragline.concurrency.workers import Workers
from ragline.embedding.base import Embedder
from ragline.embedding.onnx_runtime import OnnxEmbedder
from ragline.generation.base import Generated
from ragline.generation.extractive import NOT_FOUND, ExtractiveGenerator
from ragline.generation.passages import KeptPieces
from ragline.generation.selection import FIRST_LOOK
from ragline.settings import EmbeddingSettings, Settings
from ragline.types import Citation, Float32, ScoredChunk
from tests.embedders import HashEmbedder

KEYS = (
    "Each buoy signs its records with a key of its own. Keys rotate every ninety days. "
    "A lost key is revoked within one hour. The harbour office keeps no copy."
)
FERRY = "The ferry leaves at noon on Sundays. Dogs travel free on the lower deck."


def evidence(*texts: str, heading: str = "", start: int = 0) -> list[ScoredChunk]:
    return [
        ScoredChunk(
            chunk_id=100 + place,
            document_id=f"doc-{place}",
            document_version=3,
            score=1.0 / (place + 1),
            dense_score=None,
            lexical_score=None,
            text=text,
            source=f"docs/{place}.md",
            metadata={},
            start=start,
            end=start + len(text),
            heading=heading,
            page=place + 1,
        )
        for place, text in enumerate(texts)
    ]


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers("generate", 2)
    yield pool
    pool.close()


@pytest.fixture
def generator(workers: Workers) -> ExtractiveGenerator:
    return ExtractiveGenerator(HashEmbedder(256), max_sentences=4, workers=workers)


async def answer(generator: ExtractiveGenerator, question: str, hits: Sequence[ScoredChunk]) -> Generated:
    pieces = [piece async for piece in generator.generate(question, hits)]
    assert isinstance(pieces[-1], Generated)
    return pieces[-1]


def quotes(generated: Generated) -> list[str]:
    return [citation.quote for citation in generated.citations]


async def test_the_sentence_that_answers_is_quoted_and_cited(generator: ExtractiveGenerator) -> None:
    generated = await answer(generator, "How often do keys rotate?", evidence(FERRY, KEYS, start=500))
    assert generated.found
    assert generated.text == "Keys rotate every ninety days. [1]"
    at = 500 + KEYS.index("Keys rotate")
    assert generated.citations == (
        Citation(101, "doc-1", 3, at, at + len("Keys rotate every ninety days."), "Keys rotate every ninety days.", "docs/1.md", "", 2),
    )


async def test_a_question_that_the_evidence_does_not_answer_is_not_found(generator: ExtractiveGenerator) -> None:
    generated = await answer(generator, "Which orchestra performed the symphony yesterday?", evidence(KEYS, FERRY))
    assert generated == Generated(NOT_FOUND, (), found=False)


@pytest.mark.parametrize("text", ["", " \n ", "---", "| --- | --- |", "## Keys rotate", "How often do keys rotate?"])
async def test_evidence_with_nothing_to_quote_gives_no_answer(generator: ExtractiveGenerator, text: str) -> None:
    assert not (await answer(generator, "How often do keys rotate?", evidence(text))).found


@pytest.mark.parametrize(
    "comment",
    ["# Keys rotate every ninety days.", "#keys rotate every ninety days", "# Keys rotate, as agreed,\n# every ninety days\nkeys = 90"],
)
async def test_a_comment_is_no_heading_and_can_be_quoted(generator: ExtractiveGenerator, comment: str) -> None:
    assert (await answer(generator, "How often do keys rotate?", evidence(comment))).found


async def test_no_evidence_gives_no_answer(generator: ExtractiveGenerator) -> None:
    assert not (await answer(generator, "How often do keys rotate?", [])).found


@pytest.mark.parametrize("question", ["???", "…", "-"])
async def test_a_question_without_words_gives_no_answer(generator: ExtractiveGenerator, question: str) -> None:
    assert not (await answer(generator, question, evidence(KEYS))).found


async def test_a_number_that_stands_nowhere_raises_the_bar(generator: ExtractiveGenerator) -> None:
    hits = evidence("The mooring fee for visiting boats was raised to forty euros in 2024.")
    assert (await answer(generator, "Which mooring fee was agreed for yachts in 2024?", hits)).found
    assert not (await answer(generator, "Which mooring fee was agreed for yachts in 2031?", hits)).found


async def test_scores_of_chunks_have_no_part_in_the_answer(generator: ExtractiveGenerator) -> None:
    hits = evidence(KEYS, FERRY)
    other = [ScoredChunk(**{name: getattr(hit, name) for name in hit.__slots__} | {"score": -7.0, "dense_score": 0.1}) for hit in hits]
    question = "How often do keys rotate?"
    assert await answer(generator, question, hits) == await answer(generator, question, other)


async def test_the_stream_is_the_answer_in_pieces_with_each_citation_after_its_marker(generator: ExtractiveGenerator) -> None:
    hits = evidence(KEYS, FERRY)
    pieces = [piece async for piece in generator.generate("How often do keys rotate? When does the ferry leave?", hits)]
    texts = [piece for piece in pieces if isinstance(piece, str)]
    generated = pieces[-1]
    assert isinstance(generated, Generated)
    assert "".join(texts) == generated.text
    assert tuple(piece for piece in pieces if isinstance(piece, Citation)) == generated.citations
    for number, citation in enumerate(generated.citations, start=1):
        assert pieces[pieces.index(citation) - 1] == f" [{number}]"


async def test_each_sentence_of_a_question_is_answered(generator: ExtractiveGenerator) -> None:
    generated = await answer(generator, "When does the ferry leave? How often do keys rotate?", evidence(KEYS, FERRY))
    assert quotes(generated) == ["The ferry leaves at noon on Sundays.", "Keys rotate every ninety days."]


async def test_the_rest_of_a_question_is_answered_by_a_further_sentence(generator: ExtractiveGenerator) -> None:
    text = "Keys rotate every ninety days. The weather was fine. Lost cards are revoked within one hour."
    generated = await answer(generator, "When do keys rotate and when are lost cards revoked?", evidence(text))
    assert sorted(quotes(generated)) == ["Keys rotate every ninety days.", "Lost cards are revoked within one hour."]


async def test_neighbouring_sentences_are_one_quotation_in_the_order_of_the_document(generator: ExtractiveGenerator) -> None:
    text = "Lost keys are revoked within one hour. Keys rotate every ninety days. Dogs travel free."
    generated = await answer(generator, "When do keys rotate? When are lost keys revoked?", evidence(text))
    assert quotes(generated) == ["Lost keys are revoked within one hour. Keys rotate every ninety days."]
    assert generated.text == f"{quotes(generated)[0]} [1]"


async def test_max_sentences_is_kept(workers: Workers) -> None:
    text = "\n".join(f"- The ferry leaves pier {pier} at noon." for pier in range(9))
    for most in (1, 3):
        generator = ExtractiveGenerator(HashEmbedder(256), max_sentences=most, workers=workers)
        generated = await answer(generator, "When does the ferry leave the pier? At noon?", evidence(f"The ferry leaves at noon:\n{text}"))
        assert generated.found
        assert sum(len(quote.splitlines()) for quote in quotes(generated)) == most


async def test_the_same_sentence_in_two_documents_is_quoted_once(generator: ExtractiveGenerator) -> None:
    generated = await answer(generator, "How often do keys rotate?", evidence(KEYS, KEYS.upper(), KEYS.replace(" rotate", "  rotate")))
    assert len(generated.citations) == 1


async def test_a_list_follows_the_sentence_that_announces_it(generator: ExtractiveGenerator) -> None:
    text = "Visitors to the tower need:\n\n- sturdy shoes;\n- a warm coat;\n- patience.\n\nDogs stay outside."
    generated = await answer(generator, "What do visitors to the tower need?", evidence(text))
    assert quotes(generated) == [text[: text.index("\n\nDogs")]]
    assert generated.text == "Visitors to the tower need:\n- sturdy shoes;\n- a warm coat;\n- patience. [1]"


async def test_a_row_of_a_table_is_quoted_whole(generator: ExtractiveGenerator) -> None:
    text = "station: T1; level: 3.60; flag: good\nstation: T2; level: 3.62; flag: good\nstation: T3; level: 3.58; flag: bad"
    generated = await answer(generator, "What level did station T2 have?", evidence(text))
    assert quotes(generated)[0].splitlines()[0] == text.splitlines()[1]
    assert {row for quote in quotes(generated) for row in quote.splitlines()} <= set(text.splitlines())


async def test_the_question_of_a_faq_lends_its_words_to_its_answer(generator: ExtractiveGenerator) -> None:
    text = "May children climb the tower?\n\nYes, if they are tall enough.\n\nWhere is the ticket office?\n\nBehind the kiosk."
    generated = await answer(generator, "Where is the ticket office?", evidence(text))
    assert quotes(generated) == ["Behind the kiosk."]


async def test_the_heading_lends_its_words_and_is_not_quoted(generator: ExtractiveGenerator) -> None:
    text = "## Node keys\n\nRotated every ninety days."
    generated = await answer(generator, "How often are node keys rotated?", evidence(text, heading="Security > Node keys"))
    assert quotes(generated) == ["Rotated every ninety days."]


async def test_quotes_stay_exact_while_the_text_has_its_white_space_collapsed(generator: ExtractiveGenerator) -> None:
    text = "Keys rotate\n   every\u00a0 ninety\x1b[31m days."
    generated = await answer(generator, "How often do keys rotate?", evidence(text))
    assert quotes(generated) == [text]
    assert generated.text == "Keys rotate every ninety\x1b[31m days. [1]"


@pytest.mark.parametrize(
    ("question", "text", "quote"),
    [
        (
            "Wann wird der Schlüssel gewechselt?",
            "Die Fähre fährt mittags. Der Schlüssel wird alle neunzig Tage gewechselt.",
            "Der Schlüssel wird alle neunzig Tage gewechselt.",
        ),
        ("密钥每几十天轮换一次？", "渡轮中午出发。密钥每九十天轮换一次。", "密钥每九十天轮换一次。"),
        ("Как часто меняют ключи?", "Паром отходит в полдень. Ключи меняют каждые девяносто дней.", "Ключи меняют каждые девяносто дней."),
    ],
)
async def test_other_languages_are_answered(generator: ExtractiveGenerator, question: str, text: str, quote: str) -> None:
    assert quotes(await answer(generator, question, evidence(text))) == [quote]


async def test_the_fingerprint_tells_settings_and_models_apart(workers: Workers) -> None:
    made = [
        ExtractiveGenerator(HashEmbedder(dimension), max_sentences=most, workers=workers).fingerprint
        for dimension in (64, 128)
        for most in (1, 4)
    ]
    assert len(set(made)) == 4
    assert made[0] == ExtractiveGenerator(HashEmbedder(64), max_sentences=1, workers=workers).fingerprint


async def test_closing_the_stream_early_and_closing_twice_are_harmless(generator: ExtractiveGenerator) -> None:
    stream = generator.generate("How often do keys rotate?", evidence(KEYS))
    assert await anext(stream) == "Keys rotate every ninety days."
    await stream.aclose()  # type: ignore[attr-defined]
    await generator.close()
    await generator.close()


@pytest.fixture(scope="module")
def model() -> Iterator[Embedder]:
    questions = Workers("questions", 2)
    cache: Path = Settings().model_cache_dir()
    try:
        yield OnnxEmbedder.open(EmbeddingSettings(), cache, lambda _: None, question_workers=questions, bulk_workers=questions)
    finally:
        questions.close()


ANSWERED = [
    ("How frequently must the secret keys be changed?", "Keys rotate every ninety days."),
    ("At what time does the boat sail on Sunday?", "The ferry leaves at noon on Sundays."),
    ("Do dogs pay on the ferry?", "Dogs travel free on the lower deck."),
    ("What happens when a key is stolen or lost?", "A lost key is revoked within one hour."),
]
UNANSWERED = [
    "Who composed the opera Fidelio?",
    "How many moons does Jupiter have?",
    "What is the price of a first-class ticket to Madrid?",
]


@pytest.mark.parametrize(("question", "quote"), ANSWERED)
async def test_the_real_model_finds_answers_in_other_words(model: Embedder, workers: Workers, question: str, quote: str) -> None:
    generator = ExtractiveGenerator(model, max_sentences=4, workers=workers)
    assert quote in " ".join(quotes(await answer(generator, question, evidence(FERRY, KEYS))))


@pytest.mark.parametrize("question", UNANSWERED)
async def test_the_real_model_admits_what_the_documents_do_not_say(model: Embedder, workers: Workers, question: str) -> None:
    generator = ExtractiveGenerator(model, max_sentences=4, workers=workers)
    assert not (await answer(generator, question, evidence(FERRY, KEYS))).found


class Counting(HashEmbedder):
    """Tells what it embedded."""

    def __init__(self) -> None:
        super().__init__(256)
        self.asked: list[str] = []

    async def embed_questions(self, questions: Sequence[str]) -> Float32:
        self.asked += questions
        return await super().embed_questions(questions)


def fillers(count: int) -> str:
    return " ".join(f"Pier {word} was painted in a dull colour." for word in ("alder", "birch", "cedar", "elm", "fir", "hazel")[:count])


async def test_only_the_likeliest_sentences_are_compared_where_one_of_them_answers(workers: Workers) -> None:
    embedder = Counting()
    generator = ExtractiveGenerator(embedder, max_sentences=2, workers=workers)
    generated = await answer(generator, "How often do keys rotate?", evidence(KEYS, fillers(6)))
    assert quotes(generated)[0] == "Keys rotate every ninety days."
    compared = [text for text in embedder.asked if text in KEYS or "Pier" in text]
    assert len(compared) == FIRST_LOOK and len(set(embedder.asked)) == len(embedder.asked)


async def test_where_the_likeliest_do_not_answer_the_others_are_compared_too(workers: Workers) -> None:
    embedder = Counting()
    generator = ExtractiveGenerator(embedder, max_sentences=2, workers=workers)
    generated = await answer(generator, "Which bananas does Zanzibar export?", evidence(KEYS, fillers(6)))
    assert not generated.found
    compared = [text for text in embedder.asked if text in KEYS or "Pier" in text]
    assert len(compared) == 10 and len(set(embedder.asked)) == len(embedder.asked)


async def test_a_question_of_several_parts_is_compared_with_all_at_once(workers: Workers) -> None:
    embedder = Counting()
    generator = ExtractiveGenerator(embedder, max_sentences=4, workers=workers)
    generated = await answer(generator, "How often do keys rotate? When does the ferry leave?", evidence(KEYS, fillers(4), FERRY))
    assert {"Keys rotate every ninety days.", "The ferry leaves at noon on Sundays."} <= set(quotes(generated))
    compared = [text for text in embedder.asked if any(text in known for known in (KEYS, FERRY, fillers(4)))]
    assert len(compared) == 10, "not only the first four"


async def test_a_chunk_that_was_quoted_before_is_quoted_again_from_where_it_stands_now(workers: Workers) -> None:
    """What a chunk was taken apart into is kept; its place among the evidence is not part of that, and its heading is."""
    generator = ExtractiveGenerator(HashEmbedder(256), max_sentences=4, workers=workers, take_apart=KeptPieces().of("a"))
    question = "How often do keys rotate?"
    for texts, place in (((KEYS, FERRY), 0), ((FERRY, KEYS), 1), ((KEYS, FERRY), 0)):
        told = await answer(generator, question, evidence(*texts))
        assert told.found and told.citations[0].document_id == f"doc-{place}"
    heading = "Keys rotate every ninety days."
    told = await answer(generator, question, evidence(KEYS, FERRY, heading=heading))
    assert heading not in told.text, "a heading is no sentence to quote"


def test_each_tenant_has_chunks_taken_apart_for_itself_and_what_is_forgotten_is_gone() -> None:
    (chunk,), kept = evidence(KEYS), KeptPieces()
    mine = kept.of("a")(chunk)
    assert kept.of("a")(chunk) is mine
    assert kept.of("b")(chunk) is not mine and kept.of("b")(chunk) == mine
    theirs = kept.of("b")(chunk)
    kept.forget("a", chunk.collection)
    assert kept.of("a")(chunk) is not mine and kept.of("b")(chunk) is theirs
