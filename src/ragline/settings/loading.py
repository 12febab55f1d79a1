"""Where settings come from: flags, the environment, `.env`, a settings file, a profile, the defaults."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from ragline.errors import SettingsError
from ragline.settings.descriptions import UNSET, default_text
from ragline.settings.files import PREFIX, find_settings_file, read_dotenv, read_settings_file
from ragline.settings.profiles import profile_values
from ragline.settings.sections import Settings
from ragline.settings.variables import is_service_link, ollama_address, openai_values


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from, as the user knows it.

    Examples:
        Origin("flag", "--top-k")
        Origin("override", "retrieval.top_k")     # of `load_settings(overrides=...)`
        Origin("environment", "RAGLINE_RETRIEVAL__TOP_K")
        Origin("file", "ragline.toml")
        Origin("profile", "server")
        Origin("default")
    """

    kind: Literal["flag", "override", "environment", ".env", "file", "profile", "default"]
    name: str = ""

    def __str__(self) -> str:
        match self.kind:
            case "environment":
                return f"{self.name} in the environment"
            case ".env":
                return f"{self.name} in .env"
            case "override":
                return "overrides"
            case "profile":
                return f"profile {self.name}"
            case "default":
                return "default"
            case _:
                return self.name


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings, and where each value came from, by dotted key."""

    settings: Settings
    origins: Mapping[str, Origin]


_Given: TypeAlias = tuple[str, Any, Origin]
_Values: TypeAlias = dict[str, tuple[Any, Origin]]


def load_settings(
    *,
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """Reads the settings: flags and overrides over the environment over `.env` over the settings file over a profile over the defaults.

    `.env` and `ragline.toml` (or `.yaml`, `.yml`) are those of the working folder; `config_file`, else
    `RAGLINE_CONFIG`, names another settings file. A variable that is set to nothing counts as not set. The word
    "unset" takes back a value, where a setting may be without one.

    What is left unset of a language model's or an embedding server's address and key comes from `OPENAI_BASE_URL`,
    `OPENAI_API_KEY` and `OLLAMA_HOST` (see `ragline.settings.variables` for where a key may go), and the folder of
    tesseract's data from `TESSDATA_PREFIX`.

    Args:
        config_file: A settings file that must exist.
        overrides: Values by dotted key (`{"retrieval.top_k": 5}`), named in errors by their keys.
        flags: The same from a command line, named in errors as flags (`--top-k`).
        assignments: Texts by dotted key, below both, named in errors as `--set retrieval.top_k`.
        environ: The environment, `os.environ` unless given.

    Raises:
        SettingsError: A key that is not a setting, wherever it stands, or a value that a setting cannot take; a
            settings file that cannot be read, or several where one is looked for.
    """
    environment = dict(os.environ if environ is None else environ)
    dotenv = read_dotenv(Path(".env"))
    named_file = config_file or _non_empty_path(environment.get(_CONFIG_VARIABLE)) or _non_empty_path(dotenv.get(_CONFIG_VARIABLE))
    file = named_file or find_settings_file()
    table = read_settings_file(file) if file else {}
    services = {name for name, value in environment.items() if is_service_link(name, value)}

    problems: list[str] = []
    given = _by_key(
        [
            *_from_table(table, Settings, Origin("file", str(file)), problems),
            *_from_variables(dotenv, ".env", problems),
            *_from_variables({name: value for name, value in environment.items() if name not in services}, "environment", problems),
            *_from_flags({}, assignments or {}, problems),
            *_known(((key, value, Origin("override", key)) for key, value in (overrides or {}).items()), problems),
            *_from_flags(flags or {}, {}, problems),
        ],
        problems,
    )
    return _loaded(given | _of_other_programs(given, environment, dotenv))


def load_flags(*, flags: Mapping[str, Any], assignments: Mapping[str, str]) -> LoadedSettings:
    """As `load_settings`, of the flags alone: over the profile that they name, over the defaults."""
    problems: list[str] = []
    return _loaded(_by_key([*_from_flags(flags, assignments, problems)], problems))


def _by_key(given: Iterable[_Given], problems: Sequence[str]) -> _Values:
    """Of each setting the last value given."""
    if problems:
        raise SettingsError("; ".join(problems), hint="`ragline config show` lists every setting")
    return {
        key: (None if isinstance(value, str) and value == UNSET and may_be_unset(key) else value, origin) for key, value, origin in given
    }


def _loaded(given: _Values) -> LoadedSettings:
    settings = _validated(given)
    origins = {key: Origin("default") for key in setting_keys()}
    origins |= {key: Origin("profile", str(settings.profile)) for key in profile_values(settings.profile)}
    return LoadedSettings(settings, origins | {key: origin for key, (_, origin) in given.items()})


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The class of a group of settings, or None where the field is one setting."""
    return field.annotation if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) else None


def setting_keys(section: type[BaseModel] = Settings) -> dict[str, FieldInfo]:
    """Every setting by its dotted key, in the order of the code."""
    keys: dict[str, FieldInfo] = {}
    for name, field in section.model_fields.items():
        inner = section_of(field)
        keys |= {f"{name}.{key}": leaf for key, leaf in setting_keys(inner).items()} if inner else {name: field}
    return keys


def setting_groups() -> tuple[str, ...]:
    """The names of the groups of settings, which are the tables of a settings file."""
    return tuple(name for name, field in Settings.model_fields.items() if section_of(field))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name that was probably meant; None where none is near."""
    import difflib

    # The last part is compared too, so that a setting in the wrong group is found.
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1) or [key for key in known if key.rpartition(".")[2] == name.rpartition(".")[2]]
    return close[0] if close else None


def is_secret(key: str) -> bool:
    """Whether a setting is a key or password, whose value is never shown."""
    return any(SecretStr in (kind, *get_args(kind)) for kind in _kinds(key))


def may_be_unset(key: str) -> bool:
    """Whether a setting may be without a value."""
    return type(None) in _kinds(key)


def _kinds(key: str) -> tuple[Any, ...]:
    """`(str, NoneType)` for `str | None`."""
    annotation = setting_keys()[key].annotation
    return get_args(annotation) or (annotation,)


def variable_of(key: str) -> str:
    """The environment variable of a setting: `RAGLINE_RETRIEVAL__TOP_K` for `retrieval.top_k`."""
    return PREFIX + key.upper().replace(".", "__")


def plain_values(section: BaseModel) -> dict[str, Any]:
    """The values of settings as JSON values, by dotted key, secrets masked."""
    values: dict[str, Any] = {}
    for key in setting_keys(type(section)):
        value: Any = section
        for name in key.split("."):
            value = getattr(value, name)
        # The text of a `SecretStr` is a mask; that of a `Path` is the path. Some servers take a key in their address.
        value = re.sub(r"\?.*", "?...", value) if key.endswith("base_url") and value else value
        values[key] = value if value is None or isinstance(value, bool | int | float | str) else str(value)
    return values


_CONFIG_VARIABLE = "RAGLINE_CONFIG"


def _non_empty_path(value: str | None) -> Path | None:
    return Path(value).expanduser() if value else None


def _from_table(
    table: Mapping[str, Any], model: type[BaseModel], origin: Origin, problems: list[str], prefix: str = ""
) -> Iterator[_Given]:
    for name, value in table.items():
        key = prefix + name
        field = model.model_fields.get(name)
        section = field and section_of(field)
        if field is None:
            tables = setting_groups() if isinstance(value, Mapping) else ()
            problems.append(_unknown(key, (*tables, *setting_keys()), origin))
        elif section is None:
            yield key, value, origin
        elif value is None:  # in YAML, a group all of whose settings are commented out
            continue
        elif isinstance(value, Mapping):
            yield from _from_table(value, section, origin, problems, f"{key}.")
        else:
            problems.append(f"{key!r} in {origin} is a group of settings, not one: write a table [{key}]")


def _from_variables(variables: Mapping[str, str], kind: Literal["environment", ".env"], problems: list[str]) -> Iterator[_Given]:
    known = {variable_of(key): key for key in setting_keys()}
    for name, value in variables.items():
        if not name.startswith(PREFIX) or name == _CONFIG_VARIABLE:
            continue
        if name not in known:
            problems.append(_unknown(name, [*known, _CONFIG_VARIABLE], kind if kind == ".env" else "the environment"))
        elif value:
            yield known[name], value, Origin(kind, name)


def _from_flags(flags: Mapping[str, Any], assignments: Mapping[str, str], problems: list[str]) -> Iterator[_Given]:
    named = [(key, value, f"--set {key}") for key, value in assignments.items()]
    named += [(key, value, "--" + key.rpartition(".")[2].replace("_", "-")) for key, value in flags.items()]
    yield from _known(((key, value, Origin("flag", flag)) for key, value, flag in named), problems)


def _known(given: Iterable[_Given], problems: list[str]) -> Iterator[_Given]:
    """Those whose key is a setting; the others are problems."""
    for key, value, origin in given:
        if key in setting_keys():
            yield key, value, origin
        else:
            problems.append(_unknown(key, setting_keys(), origin))


def _of_other_programs(given: _Values, environment: Mapping[str, str], dotenv: Mapping[str, str]) -> _Values:
    """What variables that OpenAI's clients, Ollama and tesseract read say about settings that are left unset.

    An embedding runtime that nobody named may turn out to be that of the collection, and so OpenAI's: it gets the key.
    Its server it must be told, for other runtimes refuse one.
    """

    def value_of(key: str) -> Any:
        return given[key][0] if key in given else None

    found: _Values = {}
    for section, choice, speaking in (("generation", "generator", ("openai",)), ("embedding", "runtime", ("openai", None))):
        if value_of(f"{section}.{choice}") not in speaking:
            continue
        address, secret = value_of(f"{section}.base_url"), value_of(f"{section}.api_key")
        if address is None or isinstance(address, str):  # else it is refused later
            for key, value, name, here in openai_values(section, address, secret, environment, dotenv):
                if key.endswith("api_key") or value_of(f"{section}.{choice}") == "openai":
                    found[key] = (value, Origin(".env" if here else "environment", name))
    if value_of("generation.generator") == "ollama" and value_of("generation.base_url") is None:
        spelling = environment.get("OLLAMA_HOST") or dotenv.get("OLLAMA_HOST")
        if spelling:
            origin = Origin("environment" if environment.get("OLLAMA_HOST") else ".env", "OLLAMA_HOST")
            found["generation.base_url"] = (ollama_address(spelling) or spelling, origin)
    if value_of("reading.ocr_data_dir") is None and (folder := environment.get("TESSDATA_PREFIX")):
        found["reading.ocr_data_dir"] = (folder, Origin("environment", "TESSDATA_PREFIX"))
    return found


def _unknown(name: str, known: Iterable[str], where: object) -> str:
    close = nearest(name, known)
    if close in setting_groups():
        return f"{name!r} in {where} is not a group of settings (did you mean [{close}]?)"
    return f"{name!r} in {where} is not a setting" + (f" (did you mean {close!r}?)" if close else "")


def _validated(given: _Values) -> Settings:
    tree: dict[str, Any] = {}
    for key, (value, _) in given.items():
        *groups, name = key.split(".")
        table = tree
        for group in groups:
            table = table.setdefault(group, {})
        table[name] = value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise _refused(error, given) from error


_TEXT_WANTED = ("string_type", "literal_error", "path_type")


def _refused(error: ValidationError, given: _Values) -> SettingsError:
    problems = []
    hint = ""
    for fault in error.errors(include_url=False, include_input=False):
        parts = [str(part) for part in fault["loc"]]
        key = next((key for end in range(len(parts), 0, -1) if (key := ".".join(parts[:end])) in given), ".".join(parts))
        reason = fault["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
        reason = f"{reason[0].lower()}{reason[1:]}"
        if key not in given:  # values that do not go together
            problems.append(f"{key}: {reason}")
            continue
        value, origin = given[key]
        shown = "a value that it cannot take" if is_secret(key) else f"the value {_short(value)}"
        problems.append(f"{key} has {shown} (from {origin}): {reason}")
        hint = (
            f"correct {key if origin.kind == 'override' else origin}, or leave it out for the default, {default_text(setting_keys()[key])}"
        )
        if origin.kind == "file" and fault["type"] in _TEXT_WANTED and isinstance(value, bool | date | time | int | float):
            hint += "; what is a text stands between quotes (YAML takes on, off, yes, no and dates for something else)"
    return SettingsError("; ".join(dict.fromkeys(problems)), hint=hint)


def _short(value: object) -> str:
    if isinstance(value, date | time):
        return str(value)
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested without end, or a number of too many digits
        return f"(a {type(value).__name__} too large to show)"
    if "://" in text:  # an address can hold a password, and a key
        text = re.sub(r"\?.*", "?...", re.sub(r"//[^/@\s]*@", "//...@", text))
    return text if len(text) <= 80 else text[:77] + "..."
