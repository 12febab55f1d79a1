"""Source code by its declarations: which class, function or section does a line belong to?

No grammar is read. A line declares something where it matches a small table for its language, and belongs to what
stands above it with less indentation: the way people see it, and git's `funcname` lines. Time is linear in the length
of the text. What does not match costs headings, never text.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

from .lines import lines

Mark = tuple[int, int, int, str]
"""A heading: start, end, level, title. It begins at the comments and decorators above the declaration. One without
a title says that what follows belongs to none of the declarations above it at its level.
"""

_MAX_LINE = 400
_MAX_TITLE = 80
_MAX_DEPTH = 12


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ENDS = _words(
    "end end. end; else elif elseif elsif except finally catch rescue ensure private public protected default done fi esac begin then as"
    " is in where with loop while until const throws implements extends returns language private: public: protected: signals: slots:"
)
_NO_TYPES = _words(
    "if for while switch return else do case goto throw throws new delete catch try using import package await yield typeof sizeof assert"
    " elif except foreach lock fixed unless until when match print echo raise in of not and or super this"
)
_TYPE_WORDS = frozenset({"struct", "union", "enum"})
_SPACES = re.compile(r"\s+")
_TYPE_LINE = re.compile(r"(?:[A-Za-z_]\w*[\s*&]*){1,5}+$")
_NAME_END = re.compile(r"(?<!:):(?!:)|[({;=]")
_SIGNATURE = re.compile(r"(?P<head>[A-Za-z_~$#](?:[^(;={}\"'\\/o]|o(?!perator\b))*+(?:operator\s*(?:\(\)|[^\s\w(]{1,3}|[\w ]{1,40}))?)\(")
_ARROW = re.compile(
    r"(?:export\s+)?(?:default\s+)?(?:(?:const|let|var|public|private|protected|static|readonly)\s+)*+([\w$.]+)(?:\s*:[^=]*+)?\s*="
    r"\s*(?:async\s*)?(?:function\b|\([^()]*+\)[^=]*+=>|[\w$]+\s*=>|\($)"
)
_SUITE = re.compile(r"(describe|it|test|suite|context)(?:\.\w+)*\(\s*([\"'`])(.+?)\2\s*,")


@dataclass(frozen=True, slots=True)
class _Language:
    """How a family of languages declares things.

    Attributes:
        declarations: Matches a line without its indentation; group `kind` is its keyword.
        containers: Keywords of what holds declarations; in all else, lines are only code.
        leads: What a comment or decorator begins with: it belongs to the declaration below it.
        quotes: Marks that open and close strings over several lines.
        signatures: Whether functions have no keyword, but a type or a name before "(".
        flat: Whether a declaration goes on to the next one, whatever the indentation.
    """

    declarations: re.Pattern[str]
    containers: frozenset[str]
    leads: tuple[str, ...] = ("//", "/*", "*")
    quotes: tuple[str, ...] = ()
    signatures: bool = False
    flat: bool = False


def _language(
    words: str, *, mods: str = "", leads: str = "// /* *", quotes: str = "", signatures: bool = False, flat: bool = False, pattern: str = ""
) -> _Language:
    """A language from its keywords, or from a pattern; keywords with "+" are of containers, spaces in them are written "_"."""
    kinds = [word.rstrip("+").replace("_", r"\s+") for word in words.split()]
    before = rf"(?:(?:{'|'.join(mods.split())})\s+)*+" if mods else ""
    name = r"(?:\s+(?=[\w$@\"'`(<*&:.~!?{-])|(?<=init)(?=[(?! {])|(?<=constructor)(?=[( ]))"
    names = rf"{before}(?P<kind>{'|'.join(kinds)})(?:\s*<[^<>(){{}}]*+>)?{name}"
    containers = frozenset(word.rstrip("+").replace("_", " ") for word in words.split() if word.endswith("+"))
    flags = re.IGNORECASE if flat else 0
    return _Language(re.compile(pattern or names, flags), containers, tuple(leads.split()), tuple(quotes.split()), signatures, flat)


_ACCESS = (
    "public private protected internal static final abstract override virtual sealed partial readonly open inline async export default"
)
_C = _language(
    "namespace+ class+ struct+ union+ enum_class+ enum_struct+ enum+ interface+ record+ concept+ extension+ mixin+ trait+ @interface+",
    mods=f"{_ACCESS} data inner extern typedef strictfp file template<[^<>]*> export",
    leads="// /* * @ [ template #[",
    signatures=True,
)
_TABLE = {
    "py pyi pyx": _language("class+ def", mods="async cdef cpdef", leads="# @", quotes="\"\"\" '''"),
    "c h cc cpp cxx hh hpp java cs dart m mm d": _C,
    "js mjs cjs jsx ts tsx vue svelte": _language(
        r"class+ interface+ enum+ namespace+ module+ function\*? type",
        mods=f"{_ACCESS} declare const", leads="// /* * @", quotes="`", signatures=True,
    ),
    "go": _language("func type", quotes="`"),
    "rs": _language(
        "impl+ trait+ mod+ fn struct enum union type macro_rules!",
        mods=r"pub pub\([^()]*\) default async unsafe const extern extern\s+\"C\"",
        leads="// /* * #[",
    ),
    "kt kts": _language(
        "companion_object+ object+ class+ interface+ fun init constructor",
        mods=f"{_ACCESS} data enum annotation inner suspend operator infix tailrec value lateinit", leads="// /* * @", quotes='"""',
    ),
    "swift": _language(
        "class_func extension+ class+ struct+ enum+ protocol+ actor+ func init deinit",
        mods=f"{_ACCESS} fileprivate mutating indirect convenience required", leads="// /* * @", quotes='"""',
    ),
    "scala": _language(
        "package_object+ object+ class+ trait+ enum+ def given", mods=f"{_ACCESS} case implicit lazy", leads="// /* * @", quotes='"""'
    ),
    "php": _language("namespace+ class+ interface+ trait+ enum+ function", mods=f"{_ACCESS}", leads="// /* * # #["),
    "rb": _language("module+ class+ def", leads="#"),
    "lua": _language("function", mods="local", leads="--"),
    "sh bash zsh": _language("function", leads="#", signatures=True),
    "fish": _language("function", leads="#"),
    "pl pm": _language("package sub", leads="#"),
    "jl": _language("module+ baremodule+ struct function macro abstract_type", mods="mutable", leads="# @", quotes='"""'),
    "ex exs": _language("defmodule+ defprotocol+ defimpl+ def defp defmacro defmacrop", leads="# @", quotes='"""'),
    "groovy gradle": _language("class+ interface+ trait+ enum+ def task", mods=_ACCESS, leads="// /* * @", quotes="\"\"\" '''"),
    "ps1 psm1": _language("function filter class+ enum", leads="#"),
    "hs": _language("class instance data newtype module type", leads="--"),
    "clj cljs": _language("", leads=";", pattern=r"\((?P<kind>def[\w!*-]*|ns)\s+", flat=True),
    "erl": _language("", leads="%", pattern=r"(?P<kind>)[a-z]\w*\([^()]*\)\s*(?:when\b.*)?->", flat=True),
    "r": _language("", leads="#", pattern=r"(?P<kind>)[\w.]+\s*(?:<-|=)\s*function\b"),
    "sql": _language(
        "", leads="-- /* *", flat=True,
        pattern=r"(?P<kind>create|alter)\s+(?:or\s+replace\s+)?(?:(?:temp|temporary|unique|materialized|global|external)\s+)*+"
        r"(?:table|view|function|procedure|trigger|index|type|schema|package|sequence)\s+\S",
    ),
    "f90 f95 for": _language(
        "", leads="!", flat=True,
        pattern=r"(?:(?:pure|elemental|recursive|integer|real|logical)\s+)*+(?P<kind>subroutine|function|module|program)\s+\w",
    ),
    "pas": _language(
        "", leads="// {", flat=True, pattern=r"(?P<kind>procedure|function|constructor|destructor|unit|program)\s+\w"
    ),
    "vb bas": _language(
        "", leads="'", flat=True,
        pattern=r"(?:(?:public|private|friend|protected|shared|overrides)\s+)*+(?P<kind>sub|function|property|class|module|structure)\s+\w",
    ),
    "proto": _language("message+ service+ enum rpc oneof", leads="// /* *"),
    "graphql": _language(
        "type input interface enum union scalar directive query mutation fragment subscription", mods="extend", leads="#", quotes='"""'
    ),
    "tf": _language("resource module variable data output provider locals terraform", leads="# //"),
    "cmake": _language("", leads="#", pattern=r"(?P<kind>function|macro)\s*\(", flat=True),
    "toml ini cfg conf properties": _language("", leads="# ;", flat=True, pattern=r"\[{1,2}(?P<kind>)[^\[\]\n]+\]{1,2}\s*(?:[#;].*)?$"),
}  # fmt: skip
_KEYED = frozenset({"yaml", "yml"})
_BY_SUFFIX = {suffix: language for suffixes, language in _TABLE.items() for suffix in suffixes.split()}


@dataclass
class _Scan:
    """Where a reading of the lines stands."""

    language: _Language
    marks: list[Mark] = field(default_factory=list)
    scopes: list[tuple[int, bool]] = field(default_factory=list)
    lead: tuple[int, int, bool] | None = None
    inside: str = ""
    closed: bool = False

    def line(self, start: int, line: str, following: str) -> None:
        """Reads one line; `following` is the one below it."""
        stripped = line.strip()
        if self.inside:
            self.closed = self.inside == "*/" and self.inside in line and self.lead is not None
            self.inside = "" if self.inside in line else self.inside
            return
        if not stripped:
            # A documenting comment may stand one blank line above what it documents.
            self.lead = self.lead if self.closed else None
            self.closed = False
            return
        indent = len(line[: len(line) - len(line.lstrip())].expandtabs(4))
        if self._leads(start, indent, stripped):
            return
        opens = stripped.endswith("{") or following.lstrip().startswith("{")
        title, container = self._declared(stripped, indent, opens=opens) if len(line) <= _MAX_LINE else ("", False)
        if title:
            self._leave(indent)
            self._mark(start, start + len(line.rstrip()), title)
            self.scopes.append((indent, container))
        elif self._is_outside(indent, stripped):
            self._leave(indent)
            self._mark(start, start, "")
        self.lead = None
        self._open_string(stripped)

    def _leads(self, start: int, indent: int, stripped: str) -> bool:
        """Whether the line is a comment or decorator, or goes on with one: it belongs to what comes next."""
        language = self.language
        if language is _C and not indent and _TYPE_LINE.match(stripped[:_MAX_LINE]) and not language.declarations.match(stripped):
            # The type of a function whose name begins the next line.
            self.lead = self.lead or (start, indent, False)
            return True
        if stripped[0] == "@" and stripped[-1] == ";":
            return False
        if stripped.startswith(language.leads) and not _is_preprocessor(stripped, language):
            if self.lead is None or self.lead[1] != indent:
                self.lead = (start, indent, False)
            self.lead = (*self.lead[:2], stripped[0] in "@[" or self.lead[2])
            if stripped.startswith("/*") and "*/" not in stripped:
                self.inside = "*/"
            # "@Override public void run() {" is a declaration with its decorator.
            return stripped[0] not in "@[" or not self._declared(_after_decorator(stripped), indent)[0]
        if self.lead is None or not self.lead[2]:
            return _is_preprocessor(stripped, language)
        return indent > self.lead[1] or stripped[0] in ")]}"

    def _declared(self, stripped: str, indent: int, *, opens: bool = True) -> tuple[str, bool]:
        """The title of what a line declares, and whether it holds declarations; "" where it declares nothing."""
        if stripped.startswith("@"):
            stripped = _after_decorator(stripped)
        parent = next((container for depth, container in reversed(self.scopes) if depth < indent), None)
        if parent is False and not self.language.flat:
            return "", False
        if stripped.endswith(";") and self.language.signatures:
            return "", False
        if match := self.language.declarations.match(stripped):
            kind = _SPACES.sub(" ", match["kind"])
            if self.language.signatures and kind in _TYPE_WORDS and re.search(r"[=(]", stripped):
                return self._function(stripped, in_container=bool(parent), opens=opens)
            title = stripped[match.start("kind") :] if kind else stripped
            return _title(title, is_function=kind in ("func", "fn")), kind in self.language.containers
        if self.language.signatures:
            return self._function(stripped, in_container=bool(parent), opens=opens)
        return "", False

    def _function(self, stripped: str, *, in_container: bool, opens: bool) -> tuple[str, bool]:
        if "`" in self.language.quotes:
            if suite := _SUITE.match(stripped):
                return _title(f"{suite[1]} {suite[3]}"), suite[1] in ("describe", "suite", "context")
            if arrow := _ARROW.match(stripped):
                return _title(arrow[1]), False
            if not in_container:
                return "", False
        match = _SIGNATURE.match(stripped)
        if match is None:
            return "", False
        words = match["head"].split()
        is_shell = "#" in self.language.leads
        if not words or words[0] in _NO_TYPES or words[-1] in _NO_TYPES or match["head"][-1] in ".,<":
            return "", False
        if is_shell:
            return (words[0] + "()", False) if len(words) == 1 and stripped[match.end() :].startswith(")") else ("", False)
        if not in_container and (stripped.endswith(");") or (len(words) == 1 and not opens and "::" not in words[0])):
            return "", False
        return _title(match["head"]), False

    def _is_outside(self, indent: int, stripped: str) -> bool:
        """Whether an ordinary line leaves the declaration above it."""
        if not self.scopes or self.language.flat or indent > self.scopes[-1][0]:
            return False
        return stripped[0] not in "{}()[]<>|&.,:?+-" and stripped.split(None, 1)[0].split("(")[0].lower() not in _ENDS

    def _leave(self, indent: int) -> None:
        while self.scopes and (self.language.flat or self.scopes[-1][0] >= indent):
            self.scopes.pop()

    def _mark(self, start: int, end: int, title: str) -> None:
        begin = start if self.lead is None else self.lead[0]
        end = end if title else begin
        if len(self.scopes) < _MAX_DEPTH:
            self.marks.append((begin, end, len(self.scopes) + 1, title))

    def _open_string(self, stripped: str) -> None:
        for quote in self.language.quotes:
            if stripped.count(quote) % 2:
                self.inside = quote
                return
        if "/*" in self.language.leads and (at := stripped.find("/*")) >= 0 and stripped[:at].rstrip()[-1:] in ("", "{", "}", ";", ","):
            self.inside = "" if "*/" in stripped[at:] else "*/"


def declares(suffix: str) -> bool:
    """Whether files of this extension have declarations that `code_headings` finds."""
    return suffix in _BY_SUFFIX or suffix in _KEYED


def code_headings(text: str, suffix: str) -> list[Mark]:
    """The declarations of a source file as headings: "class Engine", below it "def ingest".

    Args:
        text: The file's text.
        suffix: Its extension, in lower case, without the dot; unknown ones have no headings.
    """
    if suffix in _KEYED:
        return _key_headings(text)
    language = _BY_SUFFIX.get(suffix)
    if language is None:
        return []
    scan = _Scan(language)
    for (start, line), (_, following) in itertools.pairwise(itertools.chain(lines(text), [(len(text), "")])):
        scan.line(start, line, following)
    return scan.marks


_KEY = re.compile(r"( *)(?:- )?([\w./\"'{}<>@$-]+(?: [\w./-]+){0,4}):(?=\s|$)")


def _key_headings(text: str) -> list[Mark]:
    """The keys of a YAML file that hold others, to a depth of two."""
    marks: list[Mark] = []
    outer = -1  # the indentation of keys below the first level; -1: not known yet
    for start, line in lines(text):
        match = _KEY.match(line[:200])
        if match is None or line.lstrip().startswith(("- ", "#")):
            continue
        indent = len(match[1])
        if indent and outer < 0 and marks:
            outer = indent
        if indent == 0 or indent == outer:
            outer = -1 if indent == 0 else outer
            marks.append((start + indent, start + match.end(2), 1 if indent == 0 else 2, match[2].strip("\"'")))
    return marks


def _is_preprocessor(stripped: str, language: _Language) -> bool:
    return stripped[0] == "#" and "[" in language.leads and "template" in language.leads


def _after_decorator(stripped: str) -> str:
    """The line after the annotations that it begins with."""
    while match := _DECORATOR.match(stripped):
        stripped = stripped[match.end() :]
    return stripped


_DECORATOR = re.compile(r"(?:@(?!interface\b)[\w.]+(?:\((?:[^()\"']|\"[^\"]*\"|'[^']*')*+\))?|\[[^\[\]]*+\])\s+")


def _title(declaration: str, *, is_function: bool = False) -> str:
    """What a declaration is called: up to its parameters, its body or its value."""
    begin = 0
    if is_function and (receiver := re.match(r"func\s*\([^()]*+\)", declaration)):
        begin = receiver.end()
    end = _NAME_END.search(declaration, begin)
    title = _SPACES.sub(" ", declaration[: end.start()] if end else declaration).strip(" ,&*)")
    return title.removesuffix(" do")[:_MAX_TITLE].rstrip()
