"""What a setting can be: numbers within bounds, folders, addresses, secrets. Each says in plain words what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr


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


def _http_address(address: str) -> str:
    parts = urlsplit(address)
    if parts.port == 0 or parts.scheme not in ("http", "https") or not parts.hostname or not address.isprintable() or " " in address:
        raise ValueError("it must be an address such as http://localhost:8000")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it must not hold a name or password: keys have settings of their own")
    return address.rstrip("/")


def _header_text(secret: SecretStr) -> SecretStr:
    # It travels in a header. What cannot stand there would come back in the HTTP client's error, key and all.
    text = secret.get_secret_value().strip()
    if not text or not text.isascii() or not text.isprintable():
        raise ValueError("it must be one line of plain ASCII characters")
    return SecretStr(text)


Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_whole), Field(allow_inf_nan=False)]
Positive = Annotated[Whole, Field(gt=0)]
Seconds = Annotated[Number, Field(gt=0, le=86_400)]  # the system's clocks and locks do not take every number
Threads = Annotated[Whole, Field(ge=0, le=1024)]
# The last word is what the settings reference calls the type.
Folder = Annotated[Path, BeforeValidator(_not_empty), AfterValidator(_expand_home), "folder"]
File = Annotated[Path, BeforeValidator(_not_empty), AfterValidator(_expand_home), "file"]
Address = Annotated[str, AfterValidator(_http_address), "address"]
Secret = Annotated[SecretStr, AfterValidator(_header_text), "secret"]
