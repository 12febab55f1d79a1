"""A settings file to begin with: every setting, what it does and what it is, all of it commented out but what was asked for."""

from __future__ import annotations

import json
import os
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from ragline.errors import ConflictError, SettingsError
from ragline.settings.descriptions import UNSET, type_text
from ragline.settings.files import FILE_NAMES, Form
from ragline.settings.loading import LoadedSettings, Origin, section_of
from ragline.settings.sections import Settings

_COLUMNS = 120
_HEAD = "Settings of ragline. Those that are commented out have the values shown: remove the `#` and change them."
# JSON's strings are TOML's and YAML's, but for characters that these do not take or would fold.
_ESCAPED = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA1), 0x2028, 0x2029, 0xFEFF)}


def settings_text(loaded: LoadedSettings, form: Form) -> str:
    """A settings file that gives these settings: values of flags are set, all others stand as comments."""
    lines = [*_comment(_HEAD), ""]
    groups: list[str] = []
    for name, field in Settings.model_fields.items():
        value = getattr(loaded.settings, name)
        section = section_of(field)
        if section is None:
            lines += _setting(name, field, value, loaded.origins[name], form)
        else:
            groups += _group(name, section, value, loaded.origins, form)
    return "\n".join([*lines, *groups])


def _group(name: str, section: type[BaseModel], values: BaseModel, origins: Mapping[str, Origin], form: Form) -> Iterator[str]:
    yield from _comment((section.__doc__ or "").strip())
    yield f"[{name}]" if form == "toml" else f"{name}:"
    yield ""
    indent = "" if form == "toml" else "  "
    for key, field in section.model_fields.items():
        for line in _setting(key, field, getattr(values, key), origins[f"{name}.{key}"], form):
            yield f"{indent}{line}" if line else ""


def _setting(name: str, field: FieldInfo, value: Any, origin: Origin, form: Form) -> Iterator[str]:
    yield from _comment(f"{field.description} ({type_text(field)}{f'; {origin}' if origin.kind == 'profile' else ''})")
    mark = "" if origin.kind == "flag" else "#"
    yield f"{mark}{name}{' = ' if form == 'toml' else ': '}{_literal(value)}"
    yield ""


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _COLUMNS, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False)


def _literal(value: Any) -> str:
    if value is None:
        value = UNSET
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return json.dumps(text, ensure_ascii=False).translate(_ESCAPED)


def write_settings_file(file: Path, loaded: LoadedSettings, form: Form, *, replace: bool) -> None:
    """Writes a settings file that only its owner can read, whole or not at all.

    Raises:
        ConflictError: There is one, and it is not to be replaced; or there is one of another form beside it, which
            could not be told from it.
    """
    folder = file.parent
    others = [name for name in FILE_NAMES if name != file.name and file.name in FILE_NAMES and (folder / name).is_file()]
    if others:
        raise ConflictError(f"there is a settings file {str(folder / others[0])!r} already", hint="remove it first: one folder has one")
    try:
        content = settings_text(loaded, form).encode("utf-8")
    except UnicodeEncodeError as error:
        raise SettingsError(f"a value is not text: {error.reason}", hint="settings are written in UTF-8") from error
    if not replace:
        try:
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # ours now; an empty file holds no settings
        except FileExistsError as error:
            raise ConflictError(f"there is a settings file {str(file)!r} already", hint="--force replaces it") from error
    try:
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{file.name}.")  # for its owner only
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, file)
        except BaseException:
            os.unlink(temporary)
            raise
    except BaseException:
        if not replace:
            os.unlink(file)
        raise
