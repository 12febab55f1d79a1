"""The words around question and documents, which users can replace. Filled in once, from left to right: no template engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from ragline.errors import SettingsError

BUILT_IN = """\
{documents}

Answer the question from the documents above and from nothing else.
- Be brief and exact, in the language of the question.
- After each statement give the number of the document that it is taken from in square brackets, such as [1] or [1][3].
- Where the documents do not answer the question, reply with this sentence alone: {not_found}

Question: {question}
"""

_PLACEHOLDERS = ("question", "documents", "not_found")
_REQUIRED = ("question", "documents")
_LONGEST_BYTES = 1024**2


@dataclass(frozen=True, slots=True)
class Template:
    """A text with the placeholders `{question}` and `{documents}`, and `{not_found}` where wanted.

    Examples:
        Template.parse("{documents} Reply with JSON such as {{'keys': 1}}. {question}")     # {{ and }} are braces

    Attributes:
        parts: Texts and the placeholders after them; None after the last.
    """

    text: str
    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str, name: str = "the prompt template") -> Template:
        """A template of this text.

        Raises:
            SettingsError: A placeholder is missing, unknown or more than a name, or a brace stands alone.
        """
        hint = f"use {_listed(_REQUIRED)}, {{not_found}} if you like, and {{{{ and }}}} for braces that are meant as such"
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise SettingsError(f"{name} has a brace that stands alone: {error}", hint=hint) from error
        for _, field, form, conversion in parsed:
            if field is not None and (field not in _PLACEHOLDERS or form or conversion):
                written = "{" + field + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "") + "}"
                raise SettingsError(f"{name} has the unknown placeholder {written!r}", hint=hint)
        fields = [field for _, field, _, _ in parsed]
        missing = [field for field in _REQUIRED if field not in fields]
        if missing:
            raise SettingsError(f"{name} lacks the placeholder {_listed(missing)}", hint=hint)
        if fields.count("documents") > 1:
            raise SettingsError(f"{name} has the placeholder {{documents}} more than once", hint="the documents are sent once: leave one")
        return cls(text, tuple((literal, field) for literal, field, _, _ in parsed))

    @classmethod
    def load(cls, path: Path) -> Template:
        """The template in a UTF-8 file.

        Raises:
            SettingsError: It cannot be read, or is no template.
        """
        named = f"the prompt template {str(path)!r}"
        try:
            with path.expanduser().open("rb") as file:
                content = file.read(_LONGEST_BYTES + 1)
            text = content.decode("utf-8-sig")
        except (OSError, RuntimeError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise SettingsError(f"{named} cannot be read: {reason}", hint="put generation.prompt_file right, or unset it") from error
        if len(content) > _LONGEST_BYTES:
            raise SettingsError(f"{named} is longer than {_LONGEST_BYTES // 1024**2} MB", hint="name a file with a prompt template")
        return cls.parse(text, named)

    def render(self, values: Mapping[str, str]) -> str:
        """The text with its placeholders replaced; braces in the values mean nothing."""
        return "".join(literal + (values[field] if field is not None else "") for literal, field in self.parts)


def _listed(fields: tuple[str, ...] | list[str]) -> str:
    return " and ".join(f"{{{field}}}" for field in fields)
