"""Every error that ragline raises on purpose.

    RaglineError
    ├── InputError              the caller can mend it: bad argument, bad file, bad setting
    │   ├── FilterError         a filter that cannot be understood
    │   ├── ReadError           one source that gives no text
    │   ├── SettingsError       an unknown setting, or a value out of range
    │   └── MissingExtraError   a feature whose extra is not installed
    ├── NotFoundError           no such document, collection or path
    ├── ConflictError           the store is in a state that forbids this
    │   ├── ModelMismatchError  the collection was embedded with another model
    │   ├── MissingVectorsError a vector that was there a moment ago is gone
    │   └── SchemaTooNewError   the store was written by a newer ragline
    ├── OverloadedError         try again later
    ├── DeadlineError           it took longer than it was allowed to
    ├── BackendError            a service or device below us failed (disk full, locked database)
    └── CorruptionError         a file does not hold what it should

The class says whose fault it is and whether trying again can help; `code` is stable and meant for
programs; `hint` names the cure and is meant for people.
"""

from __future__ import annotations


class RaglineError(Exception):
    """The root of every error that ragline raises on purpose.

    Attributes:
        message: What happened, in one sentence.
        hint: What to do about it, or an empty string.
        code: A stable name for programs, the same on the command line, in JSON and over HTTP.
    """

    code = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message

    def to_dict(self) -> dict[str, dict[str, str]]:
        """The JSON form shared by the command line and HTTP: `{"error": {code, message, hint}}`."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint}}


class InputError(RaglineError):
    """The caller can mend it: a bad argument, file or setting."""

    code = "invalid_input"


class FilterError(InputError):
    """A filter that cannot be understood; the message names the key or operator."""

    code = "invalid_filter"


class ReadError(InputError):
    """One source that gives no text. Other sources go on."""

    code = "unreadable_source"


class SettingsError(InputError):
    """An unknown setting, or a value out of range; the message names key and value."""

    code = "invalid_setting"


class MissingExtraError(InputError):
    """A feature whose extra is not installed; the hint is its install line."""

    code = "missing_extra"


class NotFoundError(RaglineError):
    """No such document, collection or path."""

    code = "not_found"


class ConflictError(RaglineError):
    """The store is in a state that forbids this."""

    code = "conflict"


class ModelMismatchError(ConflictError):
    """The collection was embedded with another model than the one asked for."""

    code = "model_mismatch"


class MissingVectorsError(ConflictError):
    """A passage's vector is not stored (any more): embed the passage and put its vector along."""

    code = "missing_vectors"


class SchemaTooNewError(ConflictError):
    """The store was written by a newer ragline than this one."""

    code = "schema_too_new"


class OverloadedError(RaglineError):
    """Refused at the door; trying again later can help.

    Attributes:
        retry_after_s: When that is, where it is known.
    """

    code = "overloaded"

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class DeadlineError(RaglineError):
    """It took longer than it was allowed to."""

    code = "deadline_exceeded"


class BackendError(RaglineError):
    """A service or device below us failed: full disk, locked database, unreachable model."""

    code = "backend_failed"


class CorruptionError(RaglineError):
    """A file does not hold what it should; index files are rebuilt, the store is not guessed at."""

    code = "corrupt"
