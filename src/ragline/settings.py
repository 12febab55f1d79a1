"""Every setting, and the only reader of the environment.

A setting has one name everywhere: `chunking.max_tokens` in code and in `ragline.toml` (a key of the table
`[chunking]`), `RAGLINE_CHUNKING__MAX_TOKENS` in the environment and in `.env`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from ragline.errors import SettingsError


def _not_empty(value: object) -> object:
    if value == "":
        raise ValueError("it is empty; `.` is the working folder")
    return value


def _expand_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{error}") from error


def _whole(value: object) -> object:
    if isinstance(value, bool):  # pydantic would take true for 1
        raise ValueError("it must be a number")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_whole), Field(allow_inf_nan=False)]
Positive = Annotated[Whole, Field(gt=0)]
Seconds = Annotated[Number, Field(gt=0, le=86_400)]  # the system's clocks and locks do not take every number
Threads = Annotated[Whole, Field(ge=0, le=1024)]
Folder = Annotated[Path, BeforeValidator(_not_empty), AfterValidator(_expand_home)]


class Section(BaseModel):
    """A frozen group of settings; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class ReadingSettings(Section):
    """How files become text."""

    workers: Threads = Field(0, description="Parser processes; 0 takes one for each core. More read faster and hold more memory.")
    timeout_s: Seconds = Field(30.0, description="A file that takes longer to parse is given up and reported.")
    max_memory_bytes: Whole = Field(
        512 * 1024**2, ge=64 * 1024**2, description="Memory one parser process may take before its file is given up and reported."
    )
    max_file_bytes: Positive = Field(256 * 1024**2, description="Larger files are reported, not read.")
    max_text_chars: Positive = Field(
        50_000_000, description="A file that gives more text than this is reported, not stored: it is likely a bomb."
    )
    hidden: bool = Field(False, description="Whether to read files and folders whose name starts with a dot when walking a folder.")


class ChunkingSettings(Section):
    """Where texts are cut."""

    max_tokens: Whole = Field(
        256,
        ge=16,
        le=8192,
        description=(
            "The longest chunk, in tokens of the embedding model, special tokens and heading prefix included. "
            "Longer chunks give the reader more at once; shorter ones point more exactly."
        ),
    )
    overlap_tokens: Whole = Field(
        0,
        ge=0,
        description="Tokens of a chunk repeated at the start of the next. More finds sentences cut apart, and costs more to embed.",
    )


class EmbeddingSettings(Section):
    """Which model turns text into vectors, and how it runs."""

    model: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2", min_length=1, description="A model's name on the Hugging Face hub, or a folder with one."
    )
    precision: Literal["auto", "int8", "fp32"] = Field(
        "auto",
        description="int8: twice as fast, as good on labelled data; auto takes it where the processor has the instructions, else fp32.",
    )
    threads: Threads = Field(0, description="Threads that embed while ingesting; 0 takes one for each core.")


class RetrievalSettings(Section):
    """How a question finds chunks."""

    mode: Literal["hybrid", "dense", "lexical"] = Field(
        "hybrid", description="Which legs search: meaning (dense), words (lexical) or both."
    )
    fusion: Literal["convex", "rrf"] = Field(
        "convex", description="How both legs are joined: by normalised scores (convex), or by ranks alone (rrf: reciprocal rank fusion)."
    )
    dense_weight: Number = Field(
        0.5, ge=0, le=1, description="The share of the dense leg in a convex fusion; the rest is the lexical leg's."
    )
    rrf_k: Positive = Field(60, description="The constant of reciprocal rank fusion: larger flattens the ranks' differences.")
    candidates: Whole = Field(100, ge=1, le=10_000, description="How many chunks each leg hands to the fusion.")
    top_k: Whole = Field(10, ge=1, le=1000, description="How many hits a search returns unless told.")
    evidence: Whole = Field(8, ge=1, le=1000, description="How many hits an answer is made from.")
    max_question_chars: Positive = Field(32_768, description="Longer questions are refused.")


class IndexSettings(Section):
    """Views over the store."""

    exact_below: Positive = Field(
        10_000, description="Collections with fewer chunks are searched exactly; larger ones through compressed codes and an exact rerank."
    )
    rerank: Positive = Field(160, description="How many compressed candidates are rescored exactly: more is nearer to exact and slower.")
    language: str = Field(
        "english",
        description='Language of stop words and stemming in the lexical view (such as "english", "german"), or "none" for neither.',
    )
    wait_s: Number = Field(
        10.0,
        ge=0,
        le=86_400,
        description="How long ingest waits for its documents to be searchable before it returns with the lag in its report.",
    )
    resident_scopes: Positive = Field(64, description="How many collections' views stay in memory; the least recently used is let go.")


class StorageSettings(Section):
    """The store."""

    busy_timeout_s: Seconds = Field(30.0, description="How long a write waits for another process's write before it fails.")


class GenerationSettings(Section):
    """How chunks become an answer."""

    generator: Literal["extractive"] = Field("extractive", description="extractive quotes the sentences that answer best.")
    max_sentences: Whole = Field(4, ge=1, le=50, description="The most sentences an extractive answer quotes.")


class Settings(Section):
    """All settings, frozen, built at the edge and passed in."""

    data_dir: Folder = Field(Path(".ragline"), description="Where the store and its views live.")
    cache_dir: Folder | None = Field(None, description="Where models are kept; unset takes the platform's cache folder.")
    tenant: str = Field("default", description="Whose documents.")
    collection: str = Field("default", description="Which collection.")
    reading: ReadingSettings = ReadingSettings()
    chunking: ChunkingSettings = ChunkingSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    index: IndexSettings = IndexSettings()
    storage: StorageSettings = StorageSettings()
    generation: GenerationSettings = GenerationSettings()

    def model_cache_dir(self) -> Path:
        """The folder that models are kept in: `cache_dir`, else the platform's (`$XDG_CACHE_HOME/ragline`)."""
        if self.cache_dir is not None:
            return self.cache_dir
        from platformdirs import user_cache_path  # here, because an engine with a folder of its own needs none

        return user_cache_path("ragline", appauthor=False)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from, as the user knows it.

    Examples:
        Origin("flag", "--top-k")
        Origin("environment", "RAGLINE_RETRIEVAL__TOP_K")
        Origin("file", "ragline.toml")
        Origin("default")
    """

    kind: Literal["flag", "environment", ".env", "file", "default"]
    name: str = ""

    def __str__(self) -> str:
        match self.kind:
            case "environment":
                return f"{self.name} in the environment"
            case ".env":
                return f"{self.name} in .env"
            case "default":
                return "default"
            case _:
                return self.name


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings, and where each value came from, by dotted key."""

    settings: Settings
    origins: Mapping[str, Origin]


def load_settings(
    *, config_file: Path | None = None, overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> LoadedSettings:
    """Reads the settings: overrides over the environment over `.env` over the settings file over the defaults.

    `.env` and `ragline.toml` are those of the working folder; `config_file`, else `RAGLINE_CONFIG`, names
    another settings file. A variable that is set to nothing counts as not set.

    Args:
        config_file: A settings file that must exist.
        overrides: Values by dotted key (`{"retrieval.top_k": 5}`), named in errors as flags (`--top-k`).
        environ: The environment, `os.environ` unless given.

    Raises:
        SettingsError: A key that is not a setting, wherever it stands, or a value that a setting cannot take; a
            settings file that cannot be read.
    """
    environment = dict(os.environ if environ is None else environ)
    dotenv = _read_dotenv(Path(".env"))
    named_file = config_file or _non_empty_path(environment.get(_CONFIG_VARIABLE)) or _non_empty_path(dotenv.get(_CONFIG_VARIABLE))
    file = named_file or Path("ragline.toml")
    table = _read_toml(file) if named_file or file.is_file() else {}

    given: dict[str, tuple[Any, Origin]] = {}
    problems: list[str] = []
    for key, value, origin in [
        *_from_table(table, Settings, Origin("file", str(file)), problems),
        *_from_variables(dotenv, ".env", problems),
        *_from_variables(environment, "environment", problems),
        *_from_overrides(overrides or {}, problems),
    ]:
        given[key] = (value, origin)
    if problems:
        raise SettingsError("; ".join(problems), hint="`ragline config show` lists every setting")
    return LoadedSettings(_validated(given), {key: given[key][1] if key in given else Origin("default") for key in setting_keys()})


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


def variable_of(key: str) -> str:
    """The environment variable of a setting: `RAGLINE_RETRIEVAL__TOP_K` for `retrieval.top_k`."""
    return _PREFIX + key.upper().replace(".", "__")


def plain_values(section: BaseModel) -> dict[str, Any]:
    """The values of settings as JSON values, by dotted key, secrets masked."""
    values: dict[str, Any] = {}
    for key in setting_keys(type(section)):
        value: Any = section
        for name in key.split("."):
            value = getattr(value, name)
        # The text of a `SecretStr` is a mask; that of a `Path` is the path.
        values[key] = value if value is None or isinstance(value, bool | int | float | str) else str(value)
    return values


_PREFIX = "RAGLINE_"
_CONFIG_VARIABLE = "RAGLINE_CONFIG"


def _non_empty_path(value: str | None) -> Path | None:
    return Path(value).expanduser() if value else None


def _read_toml(file: Path) -> dict[str, Any]:
    import tomllib  # here, because most folders have no settings file

    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(
            f"the settings file {str(file)!r} cannot be read: {error.strerror or error}", hint="name a file that exists and may be read"
        ) from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise SettingsError(f"the settings file {str(file)!r} is not valid TOML: {error}", hint="mend that place in the file") from error


def _read_dotenv(file: Path) -> dict[str, str]:
    if not file.is_file():  # a folder of that name is some people's virtual environment
        return {}
    from dotenv import dotenv_values

    try:
        # Other programs' lines stand there too: an odd byte in one of them must not stop ragline.
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise SettingsError(
            f".env cannot be read: {error.strerror or error}", hint="make it readable, or work in another folder"
        ) from error
    return {name: value for name, value in dotenv_values(stream=io.StringIO(text)).items() if value is not None}


_Given = Iterator[tuple[str, Any, Origin]]


def _from_table(table: Mapping[str, Any], model: type[BaseModel], origin: Origin, problems: list[str], prefix: str = "") -> _Given:
    for name, value in table.items():
        key = prefix + name
        field = model.model_fields.get(name)
        section = field and section_of(field)
        if field is None:
            problems.append(_unknown(key, setting_keys(), origin))
        elif section is None:
            yield key, value, origin
        elif isinstance(value, Mapping):
            yield from _from_table(value, section, origin, problems, f"{key}.")
        else:
            problems.append(f"{key!r} in {origin} is a group of settings, not one: write a table [{key}]")


def _from_variables(variables: Mapping[str, str], kind: Literal["environment", ".env"], problems: list[str]) -> _Given:
    known = {variable_of(key): key for key in setting_keys()}
    for name, value in variables.items():
        if not name.startswith(_PREFIX) or name == _CONFIG_VARIABLE:
            continue
        if name not in known:
            problems.append(_unknown(name, [*known, _CONFIG_VARIABLE], kind if kind == ".env" else "the environment"))
        elif value:
            yield known[name], value, Origin(kind, name)


def _from_overrides(overrides: Mapping[str, Any], problems: list[str]) -> _Given:
    for key, value in overrides.items():
        origin = Origin("flag", "--" + key.rpartition(".")[2].replace("_", "-"))
        if key in setting_keys():
            yield key, value, origin
        else:
            problems.append(_unknown(key, setting_keys(), origin))


def _unknown(name: str, known: Iterable[str], where: object) -> str:
    import difflib

    # The last part is compared too, so that a setting in the wrong group is found.
    close = difflib.get_close_matches(name, list(known), n=1) or [key for key in known if key.rpartition(".")[2] == name.rpartition(".")[2]]
    return f"{name!r} in {where} is not a setting" + (f" (did you mean {close[0]!r}?)" if close else "")


def _validated(given: Mapping[str, tuple[Any, Origin]]) -> Settings:
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


def _refused(error: ValidationError, given: Mapping[str, tuple[Any, Origin]]) -> SettingsError:
    problems = []
    hint = ""
    for fault in error.errors(include_url=False):
        key = ".".join(str(part) for part in fault["loc"])
        reason = fault["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
        if key in given:
            value, origin = given[key]
            problems.append(f"{key} has the value {_short(value)} (from {origin}): {reason[0].lower()}{reason[1:]}")
            hint = f"correct {origin}, or leave it out for the default, {setting_keys()[key].default}"
        else:  # values that do not go together
            problems.append(f"{key}: {reason}")
    return SettingsError("; ".join(problems), hint=hint)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
