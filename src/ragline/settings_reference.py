"""The settings reference, made from the code: `python -m ragline.settings_reference > docs/reference/settings.md`."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic.fields import FieldInfo

from ragline.settings import PROFILES, Settings, section_of, setting_keys, variable_of
from ragline.settings.descriptions import UNSET, default_text, type_text

_HEAD = """\
# Settings

<!-- Made by `python -m ragline.settings_reference > docs/reference/settings.md`. Do not edit. -->

A flag of the command line wins over the environment, the environment over `.env`, `.env` over the settings file, that over
a profile. The settings file is `ragline.toml`, `ragline.yaml` or `ragline.yml` of the working folder; `--config FILE` or
`RAGLINE_CONFIG` names another. In it, `chunking.max_tokens` is the key `max_tokens` of the table `[chunking]` (in YAML,
`max_tokens:` under `chunking:`). `ragline config init` writes one, with every setting and its description as a comment.

Every command takes `--set chunking.max_tokens=128`, for any setting, and `--profile NAME`. A variable that is set to
nothing counts as not set. Where a setting may be unset, the word `unset` takes back what a file or a profile says. A key
that is not a setting is an error. Relative folders start at the working folder. `ragline config show` prints the values
in force and where each came from, keys masked.
"""
_PROFILES = """\
## Profiles

Settings that belong together, chosen by `profile`. Whatever else is set wins over them.
"""


def reference() -> str:
    """The whole page, in Markdown."""
    fields = Settings.model_fields
    parts = [_HEAD, _table({name: field for name, field in fields.items() if section_of(field) is None})]
    for name, field in fields.items():
        section = section_of(field)
        if section is not None:
            keys = {f"{name}.{key}": leaf for key, leaf in setting_keys(section).items()}
            parts.append(f"## {name}\n\n{(section.__doc__ or '').strip()}\n\n{_table(keys)}")
    return "\n".join([*parts, _PROFILES, _profiles()])


def _table(fields: Mapping[str, FieldInfo]) -> str:
    rows = [
        f"| `{key}` | {type_text(field, '`')} | {_default(field)} | `{variable_of(key)}` | {field.description} |"
        for key, field in fields.items()
    ]
    return "\n".join(["| setting | type | default | variable | what it does |", "|---|---|---|---|---|", *rows, ""])


def _profiles() -> str:
    rows = []
    for name, profile in PROFILES.items():
        values = ", ".join(f"`{key} = {value}`" for key, value in profile.values.items())
        rows.append(f"| `{name}` | {profile.purpose} | {values} |")
    return "\n".join(["| profile | for | sets |", "|---|---|---|", *rows, ""])


def _default(field: FieldInfo) -> str:
    return UNSET if field.default is None else f"`{default_text(field)}`"


if __name__ == "__main__":
    print(reference(), end="")
