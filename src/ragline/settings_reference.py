"""The settings reference, made from the code: `python -m ragline.settings_reference > docs/reference/settings.md`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from ragline.settings import Settings, section_of, setting_keys, variable_of

_HEAD = """\
# Settings

<!-- Made by `python -m ragline.settings_reference > docs/reference/settings.md`. Do not edit. -->

A flag of the command line wins over the environment, the environment over `.env`, `.env` over `ragline.toml`. Both files
are those of the working folder; `--config FILE` or `RAGLINE_CONFIG` names another settings file. In a settings file,
`chunking.max_tokens` is the key `max_tokens` of the table `[chunking]`. A variable that is set to nothing counts as not
set. A key that is not a setting is an error. Relative folders start at the working folder. `ragline config show` prints
the values in force and where each came from.
"""
_TYPE_NAMES: Mapping[Any, str] = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "folder"}
_BOUNDS = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}"}


def reference() -> str:
    """The whole page, in Markdown."""
    fields = Settings.model_fields
    parts = [_HEAD, _table({name: field for name, field in fields.items() if section_of(field) is None})]
    for name, field in fields.items():
        section = section_of(field)
        if section is not None:
            keys = {f"{name}.{key}": leaf for key, leaf in setting_keys(section).items()}
            parts.append(f"## {name}\n\n{(section.__doc__ or '').strip()}\n\n{_table(keys)}")
    return "\n".join(parts)


def _table(fields: Mapping[str, FieldInfo]) -> str:
    rows = [
        f"| `{key}` | {_type(field)} | {_default(field)} | `{variable_of(key)}` | {field.description} |" for key, field in fields.items()
    ]
    return "\n".join(["| setting | type | default | variable | what it does |", "|---|---|---|---|---|", *rows, ""])


def _default(field: FieldInfo) -> str:
    if field.default is None:
        return "unset"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _type(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    bounds = [words.format(getattr(rule, name)) for rule in field.metadata for name, words in _BOUNDS.items() if hasattr(rule, name)]
    return " ".join([_TYPE_NAMES[_plain(field.annotation)], *bounds])


def _plain(annotation: Any) -> Any:
    # `Annotated[Path, ...] | None` is a Path.
    return annotation if annotation in _TYPE_NAMES else _plain(get_args(annotation)[0])


if __name__ == "__main__":
    print(reference(), end="")
