"""Settings files and `.env`, read as they stand: nothing is checked here but their form."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ragline.errors import SettingsError

if TYPE_CHECKING:
    import yaml

Form: TypeAlias = Literal["toml", "yaml"]

FILE_NAMES = ("ragline.toml", "ragline.yaml", "ragline.yml")
"""A settings file of the working folder has one of these names."""

MAX_FILE_BYTES, MAX_LINE_BYTES, MAX_DEPTH = 64 * 1024, 4096, 16
"""Settings are written by hand; the parsers of TOML and YAML take minutes over a few odd kilobytes that are not."""

PREFIX = "RAGLINE_"


def find_settings_file() -> Path | None:
    """The settings file of the working folder; None where there is none.

    Raises:
        SettingsError: There are several.
    """
    found = [Path(name) for name in FILE_NAMES if Path(name).is_file()]
    if len(found) > 1:
        raise SettingsError(
            f"there are {len(found)} settings files here: {', '.join(str(file) for file in found)}",
            hint="keep one of them, or name one with --config",
        )
    return found[0] if found else None


def read_settings_file(file: Path) -> Mapping[str, Any]:
    """The tables of a settings file, in the form that its suffix names.

    Raises:
        SettingsError: It cannot be read or understood; the message names the line, and never quotes it: it may hold a key.
    """
    form = form_of(file)
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(
            f"the settings file {str(file)!r} cannot be read: {reason}", hint="name a file that exists and may be read"
        ) from error
    if len(content) > MAX_FILE_BYTES:
        raise SettingsError(
            f"the settings file {str(file)!r} is larger than {MAX_FILE_BYTES:,} bytes", hint="name a file that holds settings"
        )
    if long := next((number for number, line in enumerate(content.splitlines(), start=1) if len(line) > MAX_LINE_BYTES), None):
        raise _not_valid(file, form, f"line {long} is longer than {MAX_LINE_BYTES:,} bytes")
    try:
        return {"toml": _parse_toml, "yaml": _parse_yaml}[form](content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _not_valid(file, form, f"line {line} is not UTF-8") from None
    except RecursionError:
        raise _not_valid(file, form, "it is nested too deeply") from None
    except ValueError as error:
        raise _not_valid(file, form, str(error)) from None


def form_of(file: Path) -> Form:
    """The form that a settings file's suffix names.

    Raises:
        SettingsError: It names none.
    """
    if file.suffix.lower() == ".toml":
        return "toml"
    if file.suffix.lower() in (".yaml", ".yml"):
        return "yaml"
    raise SettingsError(f"the name of the settings file {str(file)!r} does not tell its form", hint="name it .toml, .yaml or .yml")


def _not_valid(file: Path, form: Form, reason: str) -> SettingsError:
    return SettingsError(f"the settings file {str(file)!r} is not valid {form.upper()}: {reason}", hint="mend that place in the file")


def _parse_toml(text: str) -> Mapping[str, Any]:
    import tomllib  # here, because most folders have no settings file

    return tomllib.loads(text)


def _parse_yaml(text: str) -> Mapping[str, Any]:
    """What `yaml.safe_load` gives, but for aliases (a few lines of them can stand for gigabytes) and keys given twice."""
    import yaml

    try:
        _must_be_flat(yaml.parse(text, yaml.SafeLoader))
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        return {} if node is None or node.tag == "tag:yaml.org,2002:null" else _mapping(loader, node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        tab = "; indent with spaces, not with tabs" if "'\\t'" in (error.problem or "") else ""
        raise ValueError(f"{where}{error.problem or error.context}{tab}") from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise ValueError(f"line {line}: it has a control character") from None


def _must_be_flat(events: Iterator[yaml.Event]) -> None:
    import yaml

    depth = 0
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark else 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"line {line}: it is nested too deeply")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {line}: settings take no aliases (`*name`)")


def _mapping(loader: yaml.SafeLoader, node: yaml.Node) -> dict[str, Any]:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"line {node.start_mark.line + 1}: there must be `name: value`")
    table: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if key_node.tag != "tag:yaml.org,2002:str" or not isinstance(key_node, yaml.ScalarNode):
            shown = f" {key_node.value}" if isinstance(key_node, yaml.ScalarNode) else ""
            raise ValueError(f"line {line}: the key{shown} is not a text")
        key = key_node.value
        if key in table:
            raise ValueError(f"line {line}: the key {key!r} is given twice")
        table[key] = _mapping(loader, value_node) if isinstance(value_node, yaml.MappingNode) else _value(loader, value_node)
    return table


def _value(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    try:
        return loader.construct_object(node, deep=True)
    except ValueError:  # such as the 45th of a month
        raise ValueError(f"line {node.start_mark.line + 1}: the value is no {node.tag.rpartition(':')[2]}") from None


def read_dotenv(file: Path) -> dict[str, str]:
    """The variables of `.env`; none where there is no such file. Other programs' lines may stand there in any form.

    Nothing is filled in for `${NAME}`: an address in a downloaded folder could carry a key out of the environment away.

    Raises:
        SettingsError: It cannot be read, or a line of ours cannot be understood.
    """
    if not file.is_file():  # a folder of that name is some people's virtual environment
        return {}
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    try:
        # An odd byte in somebody else's line must not stop ragline.
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise SettingsError(
            f".env cannot be read: {error.strerror or error}", hint="make it readable, or work in another folder"
        ) from error
    sound = []
    for line in parse_stream(io.StringIO(text)):
        if not line.error:
            sound.append(line.original.string)  # the others would be logged
        elif line.original.string.strip().removeprefix("export").strip().startswith(PREFIX):
            raise SettingsError(
                f"line {line.original.line} of .env cannot be understood", hint="write NAME=value, a value with spaces between quotes"
            )
    values = dotenv_values(stream=io.StringIO("".join(sound)), interpolate=False)
    for name, value in values.items():
        if name.startswith(PREFIX) and value and "${" in value:
            raise SettingsError(f"{name} in .env refers to another variable, which is not filled in", hint="write the value itself")
    return {name: value for name, value in values.items() if value is not None}
