"""What a question is about that goes on with a conversation: measured on a small harbour, and rule by rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import ragline
from ragline.conversation import MAX_TURNS, conversation, standalone
from ragline.errors import InputError
from ragline.types import Document, Turn
from tests.embedders import HashEmbedder
from tests.engines import engine

HARBOUR = {
    "yard": "The Larkholm shipyard was founded by Ada Mercer in 1923. It stands on the east bank of the river Tarn.",
    "mercer": "Ada Mercer was born in Oslo and studied naval engineering in Delft. She died in 1961.",
    "keys": "The keys of the vault rotate every ninety days. The night warden rotates them by hand.",
    "lamp": "The harbour lamp is lit at dusk by the lamp keeper and burns whale oil until dawn.",
    "blue": "The blue boat Heron carries twelve passengers and sails to Grim Island on Sundays.",
    "red": "The red boat Robin carries forty passengers and sails to Holm every hour.",
    "fee25": "In 2025 the mooring fee for a sailing boat was nine crowns a night.",
    "fee24": "In 2024 the mooring fee for a sailing boat was seven crowns a night.",
    "dogs": "Dogs travel free on the lower deck of the ferry, cats need a basket.",
    "ferry": "The ferry to the mainland leaves the pier at noon and at six in the evening.",
    "pier": "The pier was rebuilt in oak after the storm of 1987, which destroyed the old iron one.",
    "backup": "Backups of the ledger are written to tape each midnight and kept for seven years in the chapel.",
    "ledger": "The ledger lists every cargo with its owner, weight and customs mark.",
    "warden": "The night warden lives in the tower and is appointed by the town council for five years.",
}

YARD = ("Who founded the Larkholm shipyard?", "It was founded by Ada Mercer [1].")
KEYS = ("How often do the vault keys rotate?", "Every ninety days [1].")
RED = ("How many passengers does the red boat carry?", "Forty [1].")
DOGS = ("May dogs travel on the ferry?", "Dogs travel free on the lower deck [1].")
PIER = ("What is the pier built of?", "Oak [1].")
BACKUP = ("Where are backups of the ledger kept?", "In the chapel [1].")
WARDEN = ("Who rotates the vault keys?", "The night warden rotates them [1].")
FEE = ("How much was the mooring fee in 2025?", "Nine crowns [1].")

GO_ON = [
    (YARD, "Where was she born?", "mercer"),
    (YARD, "When did she die?", "mercer"),
    (YARD, "Where does it stand?", "yard"),
    ((*YARD, "Where was she born?", "In Oslo [1]."), "And where did she study?", "mercer"),
    (KEYS, "Who does that?", "keys"),
    (KEYS, "Who rotates them?", "keys"),
    (RED, "What about the blue one?", "blue"),
    (RED, "and the blue one?", "blue"),
    (RED, "Where does it sail?", "red"),
    (FEE, "And in 2024?", "fee24"),
    (FEE, "What was it the year before, in 2024?", "fee24"),
    (DOGS, "And cats?", "dogs"),
    (DOGS, "When does it leave?", "ferry"),
    (PIER, "Since when?", "pier"),
    (BACKUP, "For how long?", "backup"),
    (BACKUP, "How long are they kept?", "backup"),
    (WARDEN, "Where does he live?", "warden"),
    (WARDEN, "Who appoints him?", "warden"),
]
STAND_ALONE = [
    (YARD, "How often do the vault keys rotate?", "keys"),
    (KEYS, "When does the ferry leave the pier?", "ferry"),
    (KEYS, "Is there a basket needed for cats on the ferry?", "dogs"),
    (KEYS, "What oil does the harbour lamp burn and when is it lit?", "lamp"),
    (RED, "What does the ledger list of each cargo?", "ledger"),
    (DOGS, "Who appoints the night warden?", "warden"),
    (DOGS, "How much was the mooring fee in 2024?", "fee24"),
    (DOGS, "Which storm destroyed the iron pier?", "pier"),
    (BACKUP, "Where was Ada Mercer born?", "mercer"),
    (BACKUP, "Is it possible to sail to Grim Island on Sundays?", "blue"),
]


def turns(*said: str) -> list[Turn]:
    return [Turn("assistant" if place % 2 else "user", text) for place, text in enumerate(said)]


def as_asked(question: str, history: Sequence[Turn]) -> str:
    return question


def after_the_last(question: str, history: Sequence[Turn]) -> str:
    return f"{[turn.text for turn in history if turn.role == 'user'][-1]} {question}"


async def test_a_follow_up_finds_what_it_refers_to(tmp_path: Path) -> None:
    answered = {}
    async with engine(tmp_path, embedder=HashEmbedder(256)) as opened:
        await opened.ingest([Document(text, id=id) for id, text in HARBOUR.items()])
        rules: list[Callable[[str, Sequence[Turn]], str]] = [as_asked, after_the_last, standalone]
        for rule in rules:
            answers = [(await opened.ask(rule(question, turns(*said))), wanted) for said, question, wanted in (*GO_ON, *STAND_ALONE)]
            answered[rule] = sum([cited.document_id for cited in answer.citations[:1]] == [wanted] for answer, wanted in answers)
    # Of 28, the right document is cited first for 15 as asked, for 9 with the last question put before each; with the default
    # model 17, 8 and 23.
    assert answered[standalone] >= 23, answered
    assert answered[as_asked] <= 15 and answered[after_the_last] <= 9, answered


@pytest.mark.parametrize(("said", "question", "_"), GO_ON)
def test_what_goes_on_is_searched_with_what_it_refers_to(said: Sequence[str], question: str, _: str) -> None:
    searched = standalone(question, turns(*said))
    assert searched != question and searched.endswith(f": {question}")


@pytest.mark.parametrize(("said", "question", "_"), STAND_ALONE)
def test_what_stands_alone_is_searched_as_it_is(said: Sequence[str], question: str, _: str) -> None:
    assert standalone(question, turns(*said)) == question


def test_a_chain_of_follow_ups_goes_back_to_a_question_that_stands_alone() -> None:
    said = turns("Who keeps the harbour lamp?", "The keeper.", *KEYS, "And on the island?", "Thirty.", "And on Sundays?", "None.")
    assert standalone("Why?", said) == "vault keys rotate island Sundays: Why?"


def test_a_number_is_not_carried_into_a_question_with_one_of_its_own() -> None:
    assert standalone("and in 2024?", turns(*FEE)) == "mooring fee: and in 2024?"
    assert standalone("and why?", turns(*FEE)) == "mooring fee 2025: and why?"


def test_without_an_earlier_question_nothing_is_added() -> None:
    assert standalone("And why?", []) == "And why?"
    assert standalone("And why?", [Turn("assistant", "Hello."), Turn("system", "Be brief.")]) == "And why?"


def test_what_is_added_is_bounded() -> None:
    said = turns(" ".join(f"word{number}" for number in range(5000)), "x" * 100_000)
    assert len(standalone("And why?", said)) < 400


def test_very_short_questions_go_on_in_any_language_and_longer_ones_stand_alone() -> None:
    said = turns("Wie oft wechseln die Schlüssel des Gewölbes?", "Alle 90 Tage.")
    assert standalone("Warum?", said).endswith("Gewölbes: Warum?")
    assert standalone("Wann verlässt die Fähre den Hafen?", said) == "Wann verlässt die Fähre den Hafen?"
    assert standalone("鍵はどのくらいの頻度で交換されますか", said) == "鍵はどのくらいの頻度で交換されますか"


def test_the_conversation_is_cleaned_and_its_newest_turns_count() -> None:
    said = [Turn("user", "\0 cafe\u0301 \ud800"), Turn("assistant", " \n"), *turns("one", "two")]
    assert [turn.text for turn in conversation(said)] == ["café", "one", "two"]
    many = conversation([Turn("system", "Be brief."), *(Turn("user", str(number)) for number in range(MAX_TURNS + 50))])
    assert len(many) == MAX_TURNS + 1
    assert (many[0].text, many[1].text, many[-1].text) == ("Be brief.", "50", str(MAX_TURNS + 49))


@pytest.mark.parametrize("history", ["How often?", [("user", "How often?")], [{"role": "user", "content": "How often?"}]])
def test_a_history_of_anything_else_is_refused(history: list[Turn]) -> None:
    with pytest.raises(InputError) as caught:
        conversation(history)
    assert "Turn(" in caught.value.hint


@pytest.mark.parametrize(("role", "text"), [("tool", "x"), ("", "x"), ("user", None), ("user", b"x")])
def test_a_turn_has_a_known_role_and_a_text(role: str, text: str) -> None:
    with pytest.raises(InputError):
        ragline.Turn(role, text)  # type: ignore[arg-type]
