"""Which encoding does a label mean, and what do bytes say that are declared to be in it?

A label names what browsers read, which is more than its own standard: "iso-8859-1" is Windows-1252, with its euro sign and
quotation marks; "gb2312" is all of GB 18030. Source: the labels of the WHATWG Encoding standard, and names that Windows has.
"""

from __future__ import annotations

import re

_WESTERN = "windows-1252"
_LABELS = {
    "utf-8": "utf8 unicode11utf8 unicode20utf8 xunicode20utf8",
    "utf-16": "utf16 unicode ucs2 csunicode iso10646ucs2 unicodefeff",
    "utf-16-le": "utf16le",
    "utf-16-be": "utf16be unicodefffe",
    _WESTERN: "windows1252 cp1252 xcp1252 ascii usascii ansix341968 iso88591 iso885911987 isoir100 latin1 l1 csisolatin1 cp819 ibm819",
    "iso-8859-2": "iso88592 iso885921987 isoir101 latin2 l2 csisolatin2",
    "iso-8859-3": "iso88593 iso885931988 isoir109 latin3 l3 csisolatin3",
    "iso-8859-4": "iso88594 iso885941988 isoir110 latin4 l4 csisolatin4",
    "iso-8859-5": "iso88595 iso885951988 isoir144 cyrillic csisolatincyrillic",
    "iso-8859-6": "iso88596 iso88596e iso88596i iso885961987 isoir127 arabic asmo708 ecma114 csisolatinarabic csiso88596e csiso88596i",
    "iso-8859-7": "iso88597 iso885971987 isoir126 greek greek8 ecma118 elot928 suneugreek csisolatingreek",
    "iso-8859-8": "iso88598 iso88598e iso88598i iso885981988 isoir138 hebrew visual logical csisolatinhebrew csiso88598e csiso88598i",
    "iso-8859-10": "iso885910 isoir157 latin6 l6 csisolatin6",
    "iso-8859-13": "iso885913",
    "iso-8859-14": "iso885914",
    "iso-8859-15": "iso885915 latin9 l9 csisolatin9",
    "iso-8859-16": "iso885916",
    "windows-1250": "windows1250 cp1250 xcp1250",
    "windows-1251": "windows1251 cp1251 xcp1251",
    "windows-1253": "windows1253 cp1253 xcp1253",
    "windows-1254": "windows1254 cp1254 xcp1254 iso88599 iso885991989 isoir148 latin5 l5 csisolatin5",
    "windows-1255": "windows1255 cp1255 xcp1255",
    "windows-1256": "windows1256 cp1256 xcp1256",
    "windows-1257": "windows1257 cp1257 xcp1257",
    "windows-1258": "windows1258 cp1258 xcp1258",
    "cp874": "windows874 dos874 cp874 iso885911 tis620",
    "cp866": "ibm866 866 cp866 csibm866",
    "koi8-r": "koi8r koi8 koi cskoi8r",
    "koi8-u": "koi8u koi8ru",
    "mac_roman": "macintosh mac xmacroman macroman csmacintosh",
    "mac_cyrillic": "xmaccyrillic maccyrillic xmacukrainian",
    "gb18030": "gb18030 gbk xgbk gb2312 csgb2312 gb231280 chinese isoir58 csiso58gb231280 euccn cp936 ms936 windows936",
    "big5hkscs": "big5 big5hkscs bigfive cnbig5 csbig5 xxbig5 cp950",
    "euc-jp": "eucjp xeucjp cseucpkdfmtjapanese",
    "iso-2022-jp": "iso2022jp csiso2022jp",
    "cp932": "shiftjis sjis xsjis csshiftjis mskanji ms932 windows31j cp932",
    "cp949": "euckr cseuckr ksc56011987 ksc56011989 ksc5601 csksc56011987 korean isoir149 windows949 cp949 uhc",
}
_CODECS = {label: codec for codec, labels in _LABELS.items() for label in labels.split()}
_SEPARATORS = re.compile(r"[-_:. ]")
_NOT_WESTERN = b"\x81\x8d\x8f\x90\x9d"
_DAMAGED = re.compile("\ufffd+")
_CHARS_FOR_ONE_DAMAGED = 1000


def codec_of(label: str) -> str | None:
    """The codec for the label of an encoding, in any spelling; None for a label that the web does not have.

    codec_of("ISO_8859-1")  # "windows-1252"
    codec_of("x-sjis")      # "cp932"
    codec_of("utf-7")       # None
    """
    return _CODECS.get(_SEPARATORS.sub("", label.strip().lower()))


def decoded(data: bytes, label: str) -> tuple[str, str] | None:
    """What bytes say that are declared to be in the encoding of this label, and the codec they were read with.

    Few sequences that the encoding does not have (one, or one in a thousand characters) become U+FFFD: a page with a broken
    character is in its encoding all the same. None where the label means nothing or the bytes are something else.
    """
    codec = codec_of(label) or label.lower()
    unicode = _as(data, "utf-8") if b"\x1b" not in data else None  # with which ISO-2022 changes its alphabet
    # Any bytes are Western European, and many are of the wider of two encodings: the narrower one, which is declared, tells.
    if unicode is not None and (codec in ("utf-8", _WESTERN) or _as(data, label) is None):
        return unicode, "utf-8"
    if codec == _WESTERN:
        data = data.translate(None, _NOT_WESTERN)  # browsers take these for control characters, which no text keeps
    if (text := _as(data, codec)) is not None:
        return text, codec
    if codec_of(label) in (None, "utf-8"):
        return None  # whether it is damaged UTF-8 or another encoding, those find out who guess
    text = data.decode(codec, "replace")
    return (text, codec) if len(_DAMAGED.findall(text)) <= max(1, len(text) // _CHARS_FOR_ONE_DAMAGED) else None


def _as(data: bytes, codec: str) -> str | None:
    try:
        return data.decode(codec)
    except (LookupError, ValueError):  # programs declare "undefined", which Python has a codec for
        return None
