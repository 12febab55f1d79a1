"""Which files are found, which are skipped, which are refused."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ragline.reading.base import FoundFile
from ragline.reading.walk import Found, find_files
from ragline.types import FailedSource, SkippedSource


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    docs = tmp_path / "docs"
    (docs / "sub").mkdir(parents=True)
    for name in ("b.md", "a.txt", "sub/c.html"):
        (docs / name).write_text("text")
    monkeypatch.chdir(tmp_path)
    return docs


def sources(found: list[Found]) -> list[str]:
    return [entry.source for entry in found if isinstance(entry, FoundFile)]


def skipped(found: list[Found]) -> dict[str, str]:
    return {entry.source: entry.reason for entry in found if isinstance(entry, SkippedSource)}


def failed(found: list[Found]) -> dict[str, str]:
    return {entry.source: entry.error for entry in found if isinstance(entry, FailedSource)}


def test_a_folder_is_walked_in_the_order_of_names_and_sources_are_as_given(folder: Path) -> None:
    assert sources(list(find_files(["docs"]))) == ["docs/a.txt", "docs/b.md", "docs/sub/c.html"]
    assert sources(list(find_files([folder]))) == [str(folder / name) for name in ("a.txt", "b.md", "sub/c.html")]


def test_a_file_met_twice_is_given_once() -> None:
    assert sources(list(find_files(["docs/b.md", "docs", "./docs/../docs/a.txt"]))) == ["docs/b.md", "docs/a.txt", "docs/sub/c.html"]


def test_the_identity_is_the_absolute_uri_whatever_the_path(folder: Path) -> None:
    (folder / "space and ü.txt").write_text("text")
    (folder / "link.txt").symlink_to("a.txt")
    uris = {entry.uri for path in ("docs/link.txt", "docs/a.txt") for entry in find_files([path]) if isinstance(entry, FoundFile)}
    assert uris == {folder.resolve().as_uri() + "/a.txt"}
    (entry,) = find_files(["docs/space and ü.txt"])
    assert isinstance(entry, FoundFile) and entry.uri.endswith("/space%20and%20%C3%BC.txt")
    (again,) = find_files([entry.uri])
    assert isinstance(again, FoundFile) and again.uri == entry.uri


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("docs/*.md", ["docs/b.md"]),
        ("docs/**/*.html", ["docs/sub/c.html"]),
        ("**/*.txt", ["docs/a.txt"]),
        ("docs/**", ["docs/a.txt", "docs/b.md", "docs/sub/c.html"]),
        ("docs/*", ["docs/a.txt", "docs/b.md", "docs/sub/c.html"]),
        ("d?cs/[ab].*", ["docs/a.txt", "docs/b.md"]),
        ("docs/[!a]*", ["docs/b.md", "docs/sub/c.html"]),
    ],
)
def test_patterns_name_what_a_shell_would(pattern: str, expected: list[str]) -> None:
    assert sources(list(find_files([pattern]))) == expected


def test_a_file_that_looks_like_a_pattern_is_that_file(folder: Path) -> None:
    (folder / "[ab].txt").write_text("text")
    assert sources(list(find_files(["docs/[ab].txt"]))) == ["docs/[ab].txt"]


def test_what_does_not_exist_fails_with_its_name() -> None:
    found = list(find_files(["docs/none.md", "docs/*.none", "", "nul\0byte", "https://example.org/a.md", "file://far.example/a.md"]))
    errors = failed(found)
    assert len(errors) == len(found) == 6
    assert errors["docs/none.md"] == "No such file or directory"
    assert "nothing matches it as a pattern" in errors["docs/*.none"]
    assert errors[""] == "the path is empty"
    assert errors["https://example.org/a.md"] == "https:// addresses are not read"
    assert "another machine" in errors["file://far.example/a.md"]
    assert all(entry.hint for entry in found if isinstance(entry, FailedSource))


def test_hidden_and_tool_folders_are_skipped_whole(folder: Path) -> None:
    for name in (".git/config.txt", ".hidden.md", "node_modules/x.md", "env/pyvenv.cfg", "__pycache__/y.txt", ".notes/z.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("text")
    found = list(find_files(["docs"]))
    assert sources(found) == ["docs/a.txt", "docs/b.md", "docs/sub/c.html"]
    assert skipped(found) == {
        "docs/.git": "hidden",
        "docs/.hidden.md": "hidden",
        "docs/.notes": "hidden",
        "docs/__pycache__": "a folder of tools, not of documents",
        "docs/env": "a Python environment",
        "docs/node_modules": "a folder of tools, not of documents",
    }
    assert sources(list(find_files(["docs"], hidden=True)))[:2] == ["docs/.hidden.md", "docs/.notes/z.md"]


def test_excluded_folders_are_not_entered(folder: Path) -> None:
    found = list(find_files(["docs"], exclude=[folder / "sub"]))
    assert sources(found) == ["docs/a.txt", "docs/b.md"]
    assert skipped(found) == {"docs/sub": "the store's own folder"}


def test_what_lies_in_the_store_is_refused_when_it_is_named(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / ".ragline"
    (store / "views" / "1").mkdir(parents=True)
    (store / "views" / "1" / "meta.json").write_text("{}")
    (tmp_path / "link").symlink_to(store / "views")
    exclude = [store, store / "views"]
    for path in (".ragline/views", ".ragline/views/1/meta.json", "link/1/meta.json", "link", str(store / "views" / "1")):
        assert failed(list(find_files([path], exclude=exclude))) == {path: "it is the store's own folder, or in it"}
    assert failed(list(find_files(["docs/sub/c.html"], exclude=[folder / "sub"])))
    # Documents may stand beside the store: its views alone are not for reading.
    (store / "notes.md").write_text("text")
    found = list(find_files([".ragline", ".ragline/notes.md"], exclude=exclude))
    assert sources(found) == [".ragline/notes.md"] and skipped(found) == {".ragline/views": "the store's own folder"}


def test_an_unknown_type_is_skipped_when_met_and_refused_when_named(folder: Path) -> None:
    (folder / "x.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(100))
    (folder / "y.bin").write_bytes(bytes(range(256)))
    assert skipped(list(find_files(["docs"]))) == {
        "docs/x.7z": "of a type that ragline does not read (.7z)",
        "docs/y.bin": "of a type that ragline does not read (.bin)",
    }
    assert failed(list(find_files(["docs/y.bin"]))) == {"docs/y.bin": "it is of a type that ragline does not read (.bin)"}
    assert sources(list(find_files(["docs/x.7z"]))) == ["docs/x.7z"]  # reading it says which archive it is, and what to do


def test_archives_and_mailboxes_are_found(folder: Path) -> None:
    for name in ("x.zip", "y.tar.gz", "z.tgz", "m.mbox"):
        (folder / name).write_bytes(b"x")
    assert sources(list(find_files(["docs"])))[2:] == ["docs/m.mbox", "docs/sub/c.html", "docs/x.zip", "docs/y.tar.gz", "docs/z.tgz"]


def test_a_file_without_an_extension_is_read_if_it_is_text(folder: Path) -> None:
    (folder / "README").write_text("Read me.")
    (folder / "program").write_bytes(b"\x7fELF" + bytes(100))
    found = list(find_files(["docs"]))
    assert "docs/README" in sources(found)
    assert skipped(found) == {"docs/program": "binary, and of no type that ragline reads"}


def test_links_out_of_the_folder_and_in_circles_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "out.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "up").symlink_to(tmp_path)
    (folder / "round").symlink_to(folder)
    (folder / "broken.txt").symlink_to("nowhere")
    (folder / "same.txt").symlink_to("b.md")
    found = list(find_files(["docs"]))
    assert sources(found) == ["docs/a.txt", "docs/b.md", "docs/sub/c.html"]
    assert skipped(found) == {
        "docs/broken.txt": "a link that leads nowhere",
        "docs/out.txt": "a link that leads out of the folder",
        "docs/round": "a link to a folder that is read by its own name",
        "docs/up": "a link that leads out of the folder",
    }
    assert sources(list(find_files(["docs/out.txt"]))) == ["docs/out.txt"]  # named, it is meant


def test_pipes_sockets_and_devices_are_never_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe.txt")  # opening it would wait for ever
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("docs/socket.txt")
        assert set(skipped(list(find_files(["docs"])))) == {"docs/pipe.txt", "docs/socket.txt"}
    assert "never opened" in failed(list(find_files(["docs/pipe.txt"])))["docs/pipe.txt"]
    assert "never opened" in failed(list(find_files(["/dev/zero"])))["/dev/zero"]


def test_a_name_that_is_not_utf8_survives(folder: Path) -> None:
    path = os.fsencode(folder) + b"/caf\xe9.txt"
    Path(os.fsdecode(path)).write_text("text")
    (entry,) = (entry for entry in find_files(["docs"]) if "caf" in entry.source)
    assert isinstance(entry, FoundFile)
    assert entry.source == "docs/caf\\xe9.txt"
    assert entry.uri.endswith("/caf%E9.txt")
    (again,) = find_files([entry.uri])
    assert isinstance(again, FoundFile) and Path(again.path).read_text() == "text"


def signature(path: str) -> str:
    (entry,) = find_files([path])
    assert isinstance(entry, FoundFile)
    return entry.signature


def test_a_file_at_rest_keeps_its_signature_and_a_changed_one_does_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = os.stat("docs/a.txt").st_ctime_ns
    monkeypatch.setattr("time.time_ns", lambda: now + 10_000_000_000)
    before = signature("docs/a.txt")
    assert signature("docs/a.txt") == before
    (folder / "a.txt").write_text("other")
    monkeypatch.setattr("time.time_ns", lambda: os.stat("docs/a.txt").st_ctime_ns + 10_000_000_000)
    assert signature("docs/a.txt") != before


def test_a_file_changed_just_now_never_equals_itself() -> None:
    # Within one tick of the file system's clock it could change again without a trace.
    (Path("docs") / "a.txt").write_text("new")
    assert signature("docs/a.txt") != signature("docs/a.txt")
