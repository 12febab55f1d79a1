"""The command line."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

from ragline.errors import BackendError, InputError, MissingExtraError, RaglineError, ReadError

GOOD, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


def main() -> NoReturn:
    """The `ragline` command."""
    code = run(sys.argv[1:])
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # one more Ctrl-C ends it at once, without a traceback of how Python ends
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code: 0 good, 1 failed, 2 wrong usage, 130 interrupted.

    Wrong usage is what the caller typed or configured wrong, down to an empty question or an unknown setting.
    Messages go to standard error; with `--json` an error is a JSON document on standard output instead.
    Nothing that is expected to go wrong ends in a traceback.
    """
    _open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every locale can show every document
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    try:
        code = _run(arguments, as_json="--json" in options, debug="--debug" in options)
        sys.stdout.flush()
        return code
    except OSError as failure:
        if not isinstance(failure, BrokenPipeError):  # `| head` has seen enough: no need to say so
            print(f"Error: standard output cannot be written: {failure.strerror}", file=sys.stderr)
        # What is left in the buffer would fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _run(arguments: Sequence[str], *, as_json: bool, debug: bool) -> int:
    import typer

    from ragline.cli.app import app

    error: RaglineError
    try:
        code: int | None = app(list(arguments), prog_name="ragline", standalone_mode=False)
        if code != INTERRUPTED:
            return GOOD if code is None else code
        error = _coded("interrupted", "interrupted", "what was committed stays; the same command goes on from there")
    except typer.TyperException as failure:
        context = getattr(failure, "ctx", None)
        usage = f"`{context.command_path if context else 'ragline'} --help` shows how it is used"
        code, error = failure.exit_code, _coded("wrong_usage", failure.format_message().replace("Value error, ", ""), usage)
    except RaglineError as failure:
        if debug:
            raise
        code, error = exit_code(failure), failure
    except OSError as failure:
        if debug or failure.filename is None:  # that of writing to standard output names no file
            raise
        hint = "see that there is room on the disk and that the file may be read and written; --debug shows where it happened"
        code, error = FAILED, _coded(BackendError.code, f"the system refused {failure.filename!r}: {failure.strerror}", hint)
    except Exception as failure:
        if debug:
            raise
        what = f"{type(failure).__name__}: {failure}".strip().splitlines()[0]
        code, error = FAILED, _coded("internal", f"unexpected {what}", "run it again with --debug and report what that shows")
    _report(error, as_json=as_json)
    return code


def _open_missing_streams() -> None:
    """Stands in for standard streams that were closed (`>&-`): the next file opened must not become one of them."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def exit_code(error: RaglineError) -> int:
    """2 where the caller asked for something wrong, 1 where something went wrong."""
    return WRONG_USAGE if isinstance(error, InputError) and not isinstance(error, ReadError | MissingExtraError) else FAILED


def _coded(code: str, message: str, hint: str) -> RaglineError:
    error = RaglineError(message, hint=hint)
    error.code = code
    return error


def _report(error: RaglineError, *, as_json: bool) -> None:
    from ragline.cli.screen import Screen, print_json

    if as_json:
        print_json(error.to_dict())
        return
    screen = Screen(sys.stderr)
    screen.line(("Error: ", "bold red"), error.message)
    if error.hint:
        screen.line(("Hint: ", "bold"), error.hint)
