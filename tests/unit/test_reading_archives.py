"""Archives as sources: what becomes of the files in them, and of those who set traps."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from ragline.errors import ReadError
from ragline.reading.base import ReadText
from ragline.reading.reader import FileReader
from ragline.settings import ReadingSettings
from tests.documents import paragraph, write_docx, write_pdf, write_zip

ENCRYPTED = Path(__file__).parent.parent / "files" / "encrypted.pdf"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reader() -> AsyncIterator[FileReader]:
    # 50 MB for all that an archive unpacks to, 25 MB for one file in it.
    reader = FileReader(ReadingSettings(workers=1, max_file_bytes=12_500_000, max_memory_bytes=200_000_000, max_text_chars=2 * 10**6))
    yield reader
    await reader.close()


pytestmark = pytest.mark.asyncio(loop_scope="module")

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "tgz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress,
}  # fmt: skip


def tar(files: Mapping[str, bytes], *more: tarfile.TarInfo) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return content.getvalue()


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def headings(read: ReadText) -> list[tuple[int, str]]:
    for heading in read.layout.headings:
        assert read.text[heading.start : heading.end] == heading.title
    return [(heading.level, heading.title) for heading in read.layout.headings]


async def refusal(reader: FileReader, path: Path) -> tuple[str, str]:
    with pytest.raises(ReadError) as caught:
        await reader.read(str(path))
    assert caught.value.hint, "an error without a cure"
    return caught.value.message, caught.value.hint


FILES = {
    "b/notes.md": b"# Keys\n\nThey rotate.\n\n## Doors\n\nThey open.",
    "a.csv": b"name,born\nAda,1815\nAlan,1912\n",
    "c.txt": b"The end.",
}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
async def test_each_file_of_an_archive_is_a_section_under_its_path(reader: FileReader, tmp_path: Path, kind: str) -> None:
    pack = PACKERS.get(kind.rpartition(".")[2], bytes)
    read = await reader.read(str(write(tmp_path / f"a.{kind}", zipped(FILES) if kind == "zip" else pack(tar(FILES)))))
    assert read.text == (
        "a.csv\n\nname: Ada; born: 1815\nname: Alan; born: 1912\n\nb/notes.md\n\n# Keys\n\nThey rotate.\n\n## Doors\n\nThey open."
        "\n\nc.txt\n\nThe end."
    )
    assert headings(read) == [(1, "a.csv"), (1, "b/notes.md"), (2, "Keys"), (3, "Doors"), (1, "c.txt")]
    assert read.metadata == {} and read.layout.pages == ()


async def test_every_format_is_read_in_an_archive_too(reader: FileReader, tmp_path: Path) -> None:
    files = {
        "1.pdf": write_pdf(tmp_path / "x.pdf", [[(10, "A portable file.")]]).read_bytes(),
        "2.docx": write_docx(tmp_path / "x.docx", paragraph("Word", "Heading1") + paragraph("A Word file.")).read_bytes(),
        "3.html": b"<h1>Page</h1><p>A page.",
        "4.eml": b"Subject: Mail\r\n\r\nA message.",
        "5": b"No extension.",
    }
    read = await reader.read(str(write_zip(tmp_path / "a.zip", files)))
    assert headings(read) == [(1, "1.pdf"), (1, "2.docx"), (2, "Word"), (1, "3.html"), (2, "Page"), (1, "4.eml"), (1, "5")]
    for text in ("A portable file.", "A Word file.", "A page.", "Subject: Mail\n\nA message.", "No extension."):
        assert text in read.text


@pytest.mark.parametrize(("kind", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
async def test_a_single_compressed_file_is_read_as_if_it_were_not(
    reader: FileReader, tmp_path: Path, kind: str, pack: Callable[[bytes], bytes]
) -> None:
    read = await reader.read(str(write(tmp_path / f"a.md.{kind}", pack(b"# Keys\n\nThey rotate."))))
    assert (read.text, read.media_type, headings(read)) == ("# Keys\n\nThey rotate.", "text/markdown", [(1, "Keys")])
    pdf = write_pdf(tmp_path / "a.pdf", [[(10, "One.")], [(10, "Two.")]]).read_bytes()
    read = await reader.read(str(write(tmp_path / f"a.pdf.{kind}", pack(pdf))))
    assert read.media_type == "application/pdf" and len(read.layout.pages) == 2


async def test_what_gives_no_text_is_named_and_the_rest_is_read(reader: FileReader, tmp_path: Path) -> None:
    files = {
        "good.txt": b"Good.",
        "locked.pdf": ENCRYPTED.read_bytes(),
        "broken.docx": b"PK\3\4garbage",
        "program.exe": b"MZ" + bytes(100),
        ".hidden.txt": b"hidden",
        "__MACOSX/._good.txt": b"\0\5\x16\7",
        ".git/config.txt": b"[core]",
        "node_modules/x.md": b"a tool's",
    }
    read = await reader.read(str(write_zip(tmp_path / "a.zip", files)))
    assert read.text == "good.txt\n\nGood."
    (broken, locked) = read.metadata["unread"]
    assert broken.startswith("broken.docx: it is damaged") and locked == "locked.pdf: it is encrypted"


async def test_an_archive_without_text_says_why(reader: FileReader, tmp_path: Path) -> None:
    assert await refusal(reader, write_zip(tmp_path / "a.zip", {})) == ("there is no file in it", "there is nothing to ingest")
    message, hint = await refusal(reader, write_zip(tmp_path / "b.zip", {"a.exe": b"MZ"}))
    assert message == "no file in it is of a format that ragline reads" and "ragline reads" in hint
    locked = {name: ENCRYPTED.read_bytes() for name in ("a.pdf", "b.pdf")}
    assert await refusal(reader, write_zip(tmp_path / "c.zip", locked)) == (
        "no file in it gives text: it is encrypted",
        "save it without a password",
    )
    message, _ = await refusal(reader, write_zip(tmp_path / "d.zip", {**locked, "c.txt": " "}))
    assert message == "no file in it gives text (a.pdf: it is encrypted; b.pdf: it is encrypted; c.txt: it holds no text)"
    assert await refusal(reader, write(tmp_path / "e.txt.gz", gzip.compress(b""))) == ("it is empty", "there is nothing to ingest")


async def test_an_encrypted_zip_is_refused(reader: FileReader, tmp_path: Path) -> None:
    data = bytearray(zipped({"a.txt": "text"}))
    for offset in (6, data.index(b"PK\1\2") + 8):
        data[offset] |= 1  # what a password sets
    message, hint = await refusal(reader, write(tmp_path / "a.zip", bytes(data)))
    assert message == "no file in it gives text: it is encrypted" and "password" in hint


@pytest.mark.parametrize(
    ("magic", "name"),
    [(b"7z\xbc\xaf\x27\x1c", "a 7z archive"), (b"Rar!\x1a\x07\x01\0", "a RAR archive"), (b"\x28\xb5\x2f\xfd", "a Zstandard file")],
)
async def test_archives_that_are_not_read_are_called_by_their_names(reader: FileReader, tmp_path: Path, magic: bytes, name: str) -> None:
    message, hint = await refusal(reader, write(tmp_path / "a.zip", magic + bytes(100)))
    assert message == f"it is {name}, which ragline does not read" and hint.startswith("unpack it")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "txt.gz", "txt.bz2", "txt.xz"])
async def test_a_truncated_or_damaged_archive_says_so(reader: FileReader, tmp_path: Path, kind: str) -> None:
    noise = random.Random(3).randbytes(30_000).hex().encode()
    pack = PACKERS.get(kind.rpartition(".")[2], bytes)
    plain = noise if kind.startswith("txt") else zipped({"a.txt": noise}) if kind == "zip" else tar({"a.txt": noise, "b.txt": noise})
    message, _ = await refusal(reader, write(tmp_path / f"a.{kind}", pack(plain)[: len(pack(plain)) * 3 // 4]))
    assert message.startswith("it is damaged, or no ")


async def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(reader: FileReader, tmp_path: Path) -> None:
    data = bytearray(tar(FILES))
    data[1024 + 100] ^= 0xFF
    message, _ = await refusal(reader, write(tmp_path / "a.tar", bytes(data)))
    assert message.startswith("it is damaged, or no tar archive")


# -- names -------------------------------------------------------------------------------------------------------------


async def test_names_that_want_out_are_only_names(reader: FileReader, tmp_path: Path) -> None:
    names = ["../../up.txt", "/abs.txt", "C:\\win.txt", "x\\..\\y.txt", "a//./b.txt", "bell\a.txt", "n" * 300 + ".txt", "nul.txt\0.exe"]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            archive.writestr(info, "text")
    read = await reader.read(str(write(tmp_path / "a.zip", content.getvalue())))
    titles = [title for _, title in headings(read)]
    assert sorted(titles) == sorted(["up.txt", "abs.txt", "win.txt", "x/y.txt", "a/b.txt", "bell.txt", "…" + "n" * 195 + ".txt", "nul.txt"])
    assert os.listdir(tmp_path) == ["a.zip"]


async def test_names_in_other_encodings_are_shown_as_well_as_can_be(reader: FileReader, tmp_path: Path) -> None:
    data = zipped({"Xbxx.txt": "text"}).replace(b"Xbxx", "Schlüssel"[3:6].encode())  # UTF-8, but not marked as such
    assert headings(await reader.read(str(write(tmp_path / "a.zip", data)))) == [(1, "lüs.txt")]
    data = tar({"cafX.txt": b"text"}).replace(b"cafX", b"caf\xe9")
    data = data[:148] + b"%06o\0 " % sum(data[:148] + b" " * 8 + data[156:512]) + data[156:]
    assert headings(await reader.read(str(write(tmp_path / "a.tar", data)))) == [(1, "caf\\xe9.txt".replace("\\", "/"))]


async def test_two_files_of_one_name_are_both_read(reader: FileReader, tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a.txt", "one")
        archive.writestr("a.txt", "two")
    read = await reader.read(str(write(tmp_path / "a.zip", content.getvalue())))
    assert read.text == "a.txt\n\none\n\na.txt\n\ntwo"


async def test_links_and_devices_in_an_archive_are_not_followed(reader: FileReader, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    odd = []
    for kind, name in (
        (tarfile.SYMTYPE, "link.txt"),
        (tarfile.LNKTYPE, "hard.txt"),
        (tarfile.CHRTYPE, "dev.txt"),
        (tarfile.FIFOTYPE, "p.txt"),
    ):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, str(tmp_path / "secret.txt")
        odd.append(info)
    assert (await reader.read(str(write(tmp_path / "a.tar", tar({"a.txt": b"text"}, *odd))))).text == "a.txt\n\ntext"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        link = zipfile.ZipInfo("link.txt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, str(tmp_path / "secret.txt"))
        archive.writestr("a.txt", "text")
    assert (await reader.read(str(write(tmp_path / "a.zip", content.getvalue())))).text == "a.txt\n\ntext"


# -- bounds ------------------------------------------------------------------------------------------------------------


async def test_archives_in_archives_are_read_to_a_depth_of_three(reader: FileReader, tmp_path: Path) -> None:
    third = zipped({"deep.txt": "Deep.", "fourth.zip": zipped({"too.txt": "Too deep."})})
    outer = zipped({"second.tar.gz": gzip.compress(tar({"third.zip": third})), "top.txt": "Top."})
    read = await reader.read(str(write(tmp_path / "a.zip", outer)))
    assert headings(read) == [(1, "second.tar.gz"), (2, "third.zip"), (3, "deep.txt"), (1, "top.txt")]
    assert "Too deep" not in read.text
    (unread,) = read.metadata["unread"]
    assert unread.startswith("second.tar.gz/third.zip/fourth.zip: archives are unpacked to a depth of 3")


async def test_what_lies_too_deep_is_named(reader: FileReader, tmp_path: Path) -> None:
    data = zipped({"deep.txt": "Deep."})
    for _ in range(3):
        data = zipped({"inner.zip": data})
    message, _ = await refusal(reader, write(tmp_path / "a.zip", data))
    assert "archives are unpacked to a depth of 3" in message


async def test_a_member_that_is_too_large_is_left_out(reader: FileReader, tmp_path: Path) -> None:
    files = {"big.txt": b"a" * 26_000_000, "small.txt": b"Small."}
    for path in (write(tmp_path / "a.zip", zipped(files)), write(tmp_path / "a.tgz", gzip.compress(tar(files), 1))):
        read = await reader.read(str(path))
        assert read.text == "small.txt\n\nSmall."
        assert read.metadata["unread"] == ["big.txt: it holds 26,000,000 bytes, more than the 25,000,000 allowed in an archive"]


@pytest.mark.parametrize("kind", ["zip", "tgz", "nested", "gz"])
async def test_bombs_stop_at_the_bytes_allowed(reader: FileReader, tmp_path: Path, kind: str) -> None:
    zeros = b" " * 10_000_000
    if kind == "gz":
        data = gzip.compress(gzip.compress(b" " * 200_000_000, 1), 1)
        message, _ = await refusal(reader, write(tmp_path / "a.txt.gz.gz", data))
        assert "bytes" in message
        return
    files = {f"{n}.txt": zeros for n in range(6)}
    data = {"zip": lambda: zipped(files), "tgz": lambda: gzip.compress(tar(files), 1)}.get(
        kind, lambda: zipped({f"{n}.zip": zipped({"a.txt": zeros}) for n in range(6)})
    )()
    message, hint = await refusal(reader, write(tmp_path / f"a.{'zip' if kind == 'nested' else kind}", data))
    assert message == "it unpacks to too many bytes: it may be a bomb" and "unpack it" in hint


async def test_too_many_files_are_refused(reader: FileReader, tmp_path: Path) -> None:
    files = {f"{n}.bin": b"" for n in range(10_001)}
    assert (await refusal(reader, write(tmp_path / "a.zip", zipped(files))))[0] == "it holds more than 10,000 files or messages"
    assert (await refusal(reader, write(tmp_path / "a.tar", tar(files))))[0] == "it holds more than 10,000 files or messages"


async def test_too_much_text_is_refused(reader: FileReader, tmp_path: Path) -> None:
    files = {f"{n}.txt": b"word " * 100_000 for n in range(5)}
    assert "more text than is allowed" in (await refusal(reader, write_zip(tmp_path / "a.zip", files)))[0]


async def test_a_member_that_crashes_the_parser_is_named(tmp_path: Path) -> None:
    reader = FileReader(ReadingSettings(workers=1, timeout_s=200, max_memory_bytes=100 * 2**20))
    try:
        write_zip(tmp_path / "a.zip", {"a.txt": "text", "b.html": b"<p>ab" * 1_000_000})
        message, hint = await refusal(reader, tmp_path / "a.zip")
        assert message == "parsing took more than 100 MB of memory, at 'b.html' in it" and "unpack it" in hint
    finally:
        await reader.close()


def truncated_spreadsheet() -> bytes:
    """An .xls whose directory ends in its first entry: the library that reads it panics."""
    free, last = 0xFFFFFFFF, 0xFFFFFFFE
    head = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(16) + struct.pack("<5H6x", 0x3E, 3, 0xFFFE, 9, 6)
    head += struct.pack("<10I", 0, 1, 1, 0, 4096, last, 0, last, 0, 0) + struct.pack("<108I", *[free] * 108)
    return head + struct.pack("<128I", 0xFFFFFFFD, last, *[free] * 126) + b"R\0o\0"


async def test_a_parser_that_panics_costs_its_file_only_and_goes_on(reader: FileReader, tmp_path: Path) -> None:
    await reader.read(str(write_docx(tmp_path / "a.docx", paragraph("Keys rotate."))))
    before = reader.pids
    read = await reader.read(str(write_zip(tmp_path / "a.zip", {"a.xls": truncated_spreadsheet(), "good.txt": b"Good."})))
    assert read.text == "good.txt\n\nGood."
    assert read.metadata["unread"] == ["a.xls: it cannot be parsed as application/vnd.ms-excel: it is damaged, or no such file"]
    assert reader.pids == before


# -- anything ----------------------------------------------------------------------------------------------------------


async def test_archives_with_any_bytes_changed_give_text_or_one_clear_error(reader: FileReader, tmp_path: Path) -> None:
    chance = random.Random(20)
    inner = zipped({"in.txt": "Inside.", "d.docx": write_docx(tmp_path / "x.docx", paragraph("Word")).read_bytes()})
    files = {**FILES, "i.zip": inner, "m.eml": b"Subject: x\r\n\r\ntext", "h.html": b"<h1>x</h1>"}
    seeds = {"zip": zipped(files), "tar": tar(files), "tar.gz": gzip.compress(tar(files)), "tar.xz": lzma.compress(tar(files))}
    texts = errors = 0
    for number in range(300):
        kind, seed = chance.choice(list(seeds.items()))
        data = bytearray(seed)
        for _ in range(chance.choice((1, 1, 3, 30))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        path = write(tmp_path / f"{number}.{kind}", bytes(data))
        try:
            read = await reader.read(str(path))
            headings(read)
            assert read.text.strip()
            texts += 1
        except ReadError as failure:
            assert failure.hint or failure.message == "it is empty", failure.message
            assert len(failure.message) < 1500 and "Traceback" not in failure.message
            assert "crashed" not in failure.message and "longer" not in failure.message
            errors += 1
    assert texts > 30 and errors > 30
