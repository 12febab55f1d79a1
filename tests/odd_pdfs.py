"""PDFs that no sound program writes: built to loop, to grow, to nest, and sound ones with bytes changed."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Mapping

Objects = Mapping[int, bytes]

_FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


def pdf(objects: Objects, *, trailer: bytes = b"", head: bytes = b"%PDF-1.7\n") -> bytes:
    """A file of numbered objects with a sound cross-reference table; object 1 is the catalogue."""
    body, offsets = bytearray(head), {}
    for number, content in sorted(objects.items()):
        offsets[number] = len(body)
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    size = max(objects) + 1
    table = b"".join(b"%010d 00000 n \n" % offsets[n] if n in offsets else b"0000000000 65535 f \n" for n in range(size))
    start = len(body)
    body += b"xref\n0 %d\n%strailer\n<< /Size %d /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF\n" % (size, table, size, trailer, start)
    return bytes(body)


def stream(data: bytes, entries: bytes = b"") -> bytes:
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(data), entries, data)


def page(contents: bytes, entries: bytes = b"", resources: bytes = b"") -> dict[int, bytes]:
    """The objects of a file with one page; its contents are object 4, its font is 5."""
    return {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> %s >> %s >>"
        % (resources, entries),
        4: contents,
        5: _FONT,
    }


def show(text: bytes) -> bytes:
    return b"BT /F1 10 Tf 72 700 Td (%s) Tj ET" % text


def many_pages(count: int) -> bytes:
    kids = b" ".join(b"%d 0 R" % number for number in range(10, 10 + count))
    shared = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>"
    objects = {**page(stream(show(b"Keys rotate."))), **dict.fromkeys(range(10, 10 + count), shared)}
    return pdf({**objects, 2: b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, count)})


def flate_bomb(megabytes: int, *, layers: int = 1) -> bytes:
    """A content stream of `megabytes` of spaces, deflated so many times over."""
    squeeze = zlib.compressobj(9)
    piece = b" " * 2**20
    data = b"".join(squeeze.compress(piece) for _ in range(megabytes)) + squeeze.compress(show(b"Keys rotate.")) + squeeze.flush()
    for _ in range(layers - 1):
        data = zlib.compress(data, 9)
    return pdf(page(stream(data, b"/Filter [%s]" % (b" /FlateDecode" * layers))))


def _image(width: int, height: int, filter: bytes, data: bytes, entries: bytes = b"") -> bytes:
    image = b"/Type /XObject /Subtype /Image /Width %d /Height %d /BitsPerComponent 1 /ColorSpace /DeviceGray /Filter /%s %s"
    objects = page(stream(b"q 600 0 0 700 0 0 cm /I Do Q"), resources=b"/XObject << /I 6 0 R >>")
    return pdf({**objects, 6: stream(data, image % (width, height, filter, entries))})


def _jbig2(width: int, height: int) -> bytes:
    information = width.to_bytes(4) + height.to_bytes(4) + bytes(8) + b"\0\0\0"
    return b"\0\0\0\0\x30\0\1" + len(information).to_bytes(4) + information


def _jpx(size: int) -> bytes:
    marker = b"\0\0" + size.to_bytes(4) * 2 + bytes(8) + size.to_bytes(4) * 2 + bytes(8) + b"\0\3" + b"\7\1\1" * 3
    return b"\xff\x4f\xff\x51" + (len(marker) + 2).to_bytes(2) + marker + b"\xff\xd9"


def _to_unicode() -> bytes:
    ranges = b"".join(b"<%04x> <%04x> <%s>\n" % (n, 0xFFFF, b"0041" * 120) for n in range(2000))
    cmap = b"/CIDInit /ProcSet findresource begin begincmap 1 begincodespacerange <0000> <ffff> endcodespacerange\n"
    cmap += b"2000 beginbfrange\n" + ranges + b"endbfrange endcmap end"
    objects = page(stream(b"BT /F1 10 Tf 72 700 Td <0041004200430044> Tj ET"))
    objects[5] = b"<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H /DescendantFonts [7 0 R] /ToUnicode 6 0 R >>"
    font = b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /X /CIDSystemInfo << /Registry (A) /Ordering (I) /Supplement 0 >> >>"
    return pdf({**objects, 6: stream(cmap), 7: font})


def _deep_tree(depth: int) -> bytes:
    objects = page(stream(show(b"Keys rotate.")))
    for number in range(10, 10 + depth):
        objects[number] = b"<< /Type /Pages /Parent %d 0 R /Kids [%d 0 R] /Count 1 >>" % (number - 1, number + 1)
    objects[2] = b"<< /Type /Pages /Kids [10 0 R] /Count 1 >>"
    objects[10 + depth] = objects[3]
    return pdf(objects)


def _with(changes: Mapping[int, bytes], contents: bytes = b"", entries: bytes = b"", resources: bytes = b"") -> bytes:
    return pdf({**page(stream(contents or show(b"Keys rotate.")), entries, resources), **changes})


BUILT: dict[str, Callable[[], bytes]] = {
    "one page": lambda: _with({}),
    "10,000 pages": lambda: many_pages(10_000),
    "two billion pages": lambda: _with({2: b"<< /Type /Pages /Kids [3 0 R] /Count 2147483647 >>"}),
    "minus one page": lambda: _with({2: b"<< /Type /Pages /Kids [3 0 R] /Count -1 >>"}),
    "page tree in a circle": lambda: _with({2: b"<< /Type /Pages /Kids [2 0 R 3 0 R] /Count 2 >>"}),
    "page tree is its own parent": lambda: _with({2: b"<< /Type /Pages /Parent 2 0 R /Kids [3 0 R] /Count 1 >>"}),
    "page tree 5,000 deep": lambda: _deep_tree(5000),
    "no pages": lambda: _with({2: b"<< /Type /Pages /Kids [] /Count 0 >>"}),
    "catalogue points to itself": lambda: _with({1: b"<< /Type /Catalog /Pages 1 0 R >>"}),
    "object that is itself": lambda: _with({4: b"4 0 R"}),
    "length that is itself": lambda: _with({4: b"<< /Length 4 0 R >>\nstream\nBT ET\nendstream"}),
    "arrays 100,000 deep": lambda: _with({6: b"[" * 100_000 + b"]" * 100_000}, resources=b"/X 6 0 R"),
    "dictionaries 50,000 deep": lambda: _with({6: b"<</A " * 50_000 + b"1" + b">>" * 50_000}, resources=b"/X 6 0 R"),
    "operands 100,000 deep": lambda: _with({}, b"[" * 100_000 + b"]" * 100_000 + b" TJ " + show(b"Keys rotate.")),
    "states 200,000 deep": lambda: _with({}, b"q " * 200_000 + show(b"Keys rotate.")),
    "form that draws itself": lambda: _with(
        {
            6: stream(
                b"/X Do /X Do " + show(b"x"), b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 6 0 R >> >>"
            )
        },
        b"/X Do",
        resources=b"/XObject << /X 6 0 R >>",
    ),
    "forms that double": lambda: _with(
        {
            n: stream(
                b"/X Do /X Do" if n < 40 else show(b"x"),
                b"/Type /XObject /Subtype /Form /BBox [0 0 612 792] /Resources << /Font << /F1 5 0 R >> /XObject << /X %d 0 R >> >>"
                % (n + 1),
            )
            for n in range(10, 41)
        },
        b"/X Do",
        resources=b"/XObject << /X 10 0 R >>",
    ),
    "glyph that shows itself": lambda: _with(
        {
            5: b"<< /Type /Font /Subtype /Type3 /FontBBox [0 0 9 9] /FontMatrix [1 0 0 1 0 0] /FirstChar 65 /LastChar 65 /Widths [9]"
            b" /Encoding << /Differences [65 /A] >> /CharProcs << /A 6 0 R >> /Resources << /Font << /F1 5 0 R >> >> >>",
            6: stream(b"9 0 d0 " + show(b"A")),
        }
    ),
    "outlines in a circle": lambda: _with(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R /Outlines 6 0 R >>",
            6: b"<< /Type /Outlines /First 7 0 R /Last 7 0 R /Count 9 >>",
            7: b"<< /Title (x) /Parent 6 0 R /Next 7 0 R /First 7 0 R /Last 7 0 R /Count 9 >>",
        }
    ),
    "names in a circle": lambda: _with(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R /Names << /EmbeddedFiles 6 0 R /Dests 6 0 R >> >>",
            6: b"<< /Kids [6 0 R 6 0 R] /Limits [(a) (z)] >>",
        }
    ),
    "structure in a circle": lambda: _with(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R /MarkInfo << /Marked true >> /StructTreeRoot 6 0 R >>",
            6: b"<< /Type /StructTreeRoot /K 7 0 R /ParentTree << /Nums [0 [7 0 R]] >> >>",
            7: b"<< /Type /StructElem /S /P /P 7 0 R /K [7 0 R 0] /Pg 3 0 R >>",
        },
        b"/P << /MCID 0 >> BDC " + show(b"Keys rotate.") + b" EMC",
        b"/StructParents 0",
    ),
    "annotations in a circle": lambda: _with(
        {6: b"<< /Type /Annot /Subtype /Popup /Rect [0 0 9 9] /Parent 6 0 R /Popup 6 0 R /AP << /N 6 0 R >> >>"},
        entries=b"/Annots [6 0 R 6 0 R]",
    ),
    "form fields in a circle": lambda: _with(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [6 0 R] >> >>",
            6: b"<< /FT /Tx /T (x) /V (y) /Kids [6 0 R] /Parent 6 0 R /Type /Annot /Subtype /Widget /Rect [0 0 9 9] >>",
        },
        entries=b"/Annots [6 0 R]",
    ),
    "cross-references in a circle": lambda: (
        re.sub(rb"/Size (\d+)", rb"/Prev 9 /Size \1", _with({}).replace(b"startxref", b"%%startxref")) + b"startxref\n9\n%%EOF"
    ),
    "object stream in itself": lambda: _with(
        {6: stream(b"7 0 8 3 1 2", b"/Type /ObjStm /N 2 /First 8 /Extends 6 0 R")}, resources=b"/X 7 0 R"
    ),
    "a bomb of 200 MB in its contents": lambda: flate_bomb(200, layers=2),
    "run lengths of 200 MB": lambda: _with({4: stream(b"\x81 " * 1_600_000 + b"\x80", b"/Filter /RunLengthDecode")}),
    "filters 200 deep": lambda: _with({4: stream(b"4142>", b"/Filter [%s]" % (b"/ASCIIHexDecode " * 200))}),
    "predictor of endless columns": lambda: _with(
        {4: stream(zlib.compress(b"x" * 1000), b"/Filter /FlateDecode /DecodeParms << /Predictor 15 /Columns 2147483647 /Colors 32 >>")}
    ),
    "image of ten thousand million points": lambda: _image(100_000, 100_000, b"FlateDecode", zlib.compress(bytes(10**6))),
    "fax of ten thousand million points": lambda: _image(
        100_000, 100_000, b"CCITTFaxDecode", bytes(1000), b"/DecodeParms << /K -1 /Columns 100000 /Rows 100000 >>"
    ),
    "JBIG2 of four thousand million lines": lambda: _image(4_000_000_000, 4_000_000_000, b"JBIG2Decode", _jbig2(2**32 - 1, 2**32 - 1)),
    "JPX of sixteen thousand million points": lambda: _image(125_000, 125_000, b"JPXDecode", _jpx(125_000)),
    "endless page": lambda: _with({}, entries=b"/MediaBox [0 0 1e38 1e38] /UserUnit 1e30"),
    "page of no size": lambda: _with({}, entries=b"/MediaBox [0 0 0 0]"),
    "characters mapped to a thousand each": _to_unicode,
    "words without end in one place": lambda: _with({}, b"BT /F1 10 Tf " + b"(word ) Tj " * 300_000 + b"ET"),
    "words strewn over the page": lambda: _with(
        {}, b"BT /F1 8 Tf " + b"".join(b"1 0 0 1 %d %d Tm (w%d) Tj " % (n * 37 % 600, n * 91 % 780, n) for n in range(3000)) + b"ET"
    ),
    "a line of ten million characters": lambda: _with({}, show(b"a" * 10_000_000)),
    "a name of a million characters": lambda: _with({}, resources=b"/" + b"N" * 1_000_000 + b" 1"),
    "a number of a million digits": lambda: _with({}, b"9" * 1_000_000 + b" 0 Td " + show(b"Keys rotate.")),
    "inline image without end": lambda: _with({}, b"BI /W 99999 /H 99999 /BPC 8 /CS /RGB ID " + b"x" * 1000),
    "only a head": lambda: b"%PDF-1.7\n",
    "a head after junk": lambda: b"junk \0" * 100 + _with({}),
    "an archive behind it": lambda: _with({}) + b"PK\3\4" + bytes(100),
}


def mutated(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """A file with something wrong in it: bytes, numbers, references, names, order, length."""
    kind = chance.randrange(10)
    changed = bytearray(data)
    if kind == 0:
        return bytes(changed[: chance.randrange(1, len(changed))])
    if kind in (1, 2):
        for _ in range(chance.choice((1, 5, 50))):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        return bytes(changed)
    if kind == 3:
        return _numbers(data, chance, rb"\d+", [b"0", b"-1", b"4294967295", b"99999999999999999999", b"1", b"65536"])
    if kind == 4:
        total = data.count(b" obj") + 1
        return _numbers(data, chance, rb"\d+(?= 0 R)", [b"%d" % chance.randrange(total) for _ in range(5)])
    if kind == 5:
        return _numbers(data, chance, rb"/[A-Z]\w+", [b"/Kids", b"/Length", b"/FlateDecode", b"/Type", b"/JBIG2Decode", b"/Prev", b"/X"])
    start = chance.randrange(len(changed))
    length = chance.choice((1, 16, 256, 4096))
    if kind == 6:
        del changed[start : start + length]
    elif kind == 7:
        changed[start:start] = changed[start : start + length] * chance.choice((1, 10, 100))
    elif kind == 8:
        other = chance.choice(others)
        begin = chance.randrange(len(other))
        changed[start : start + length] = other[begin : begin + length]
    else:
        changed[start : start + length] = chance.randbytes(min(length, len(changed) - start))
    return bytes(changed)


def _numbers(data: bytes, chance: random.Random, pattern: bytes, values: list[bytes]) -> bytes:
    """Some of the places that match are given other values."""
    share = chance.choice((0.005, 0.05, 0.5))
    return re.sub(pattern, lambda found: chance.choice(values) if chance.random() < share else found[0], data)
