"""Source code by its declarations: headings that are right in many languages, and a text that stays as it is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragline.chunking.chunker import Chunker
from ragline.reading.documents import read_plain
from ragline.reading.parsing import formats
from ragline.reading.parsing.code import code_headings
from ragline.reading.parsing.notebook import read_notebook
from ragline.reading.parsing.packages import UnreadableError
from ragline.types import Heading, Layout
from tests.embedders import WordTokenizer

PYTHON = '''"""A module."""
import os

LIMIT = 3

# About engines.
@dataclass(
    frozen=True,
)
class Engine(Base):
    """An engine.

def not_a_function():
    """

    name = "def also_not"

    @property
    async def state(
        self,
    ) -> str:
        def inner():
            pass
        return inner()

    other = 1


def main() -> None:
    Engine()


if __name__ == "__main__":
    main()
'''


def outline(text: str, suffix: str) -> list[tuple[int, str, str]]:
    """Level, title, and the first word of where each heading begins."""
    return [(level, title, text[start:end].split(None, 1)[0] if title else "") for start, end, level, title in code_headings(text, suffix)]


def test_python_has_its_classes_and_functions_with_their_decorators_and_comments() -> None:
    assert outline(PYTHON, "py") == [
        (1, "class Engine", "#"),
        (2, "def state", "@property"),
        (2, "", ""),
        (1, "def main", "def"),
        (1, "", ""),
    ]


SAMPLES = {
    "js": (
        r"""
export const go = async (a) => {
  b();
};
class A extends B {
  run(x) {
    go(x);
  }
}
""",
        ["go", ">run"],
    ),
    "tsx": (
        r"""
export default function App({ a }: P) {
  const f = () => 1;
}
interface P { a: string }
""",
        ["function App", "interface P"],
    ),
    "go": (
        r"""
// Runs.
func (e *Engine[T]) Run(x int) error {
	return call(x)
}

type X struct {
}
""",
        ["func (e *Engine[T]) Run", "type X"],
    ),
    "rs": (
        r"""
impl<'a> Foo<'a> {
    #[test]
    pub(crate) fn new(x: &'a str) -> Self {
        Self { x }
    }
}
""",
        ["impl", ">fn new"],
    ),
    "java": (
        r"""
public class A {
  @Override
  public int get(int a)
      throws E {
    return call(a);
  }
}
""",
        ["class A", ">public int get"],
    ),
    "kt": (
        r"""
class A {
  companion object {
    fun of() = A()
  }
}
suspend fun go() {}
""",
        ["class A", ">companion object", ">>fun of", "fun go"],
    ),
    "c": (
        r"""
static int
find(char *a)
{
  return call(a);
}

int main(void) { }
struct x y = { 1 };
""",
        ["find", "int main"],
    ),
    "hpp": (
        r"""
namespace a {
template <class T>
class B : public C<T> {
 public:
  B(int a);
  ~B() { }
};
}
""",
        ["namespace a", "class B", ">~B"],
    ),
    "cs": (
        r"""
namespace N
{
    [Serializable]
    public class A
    {
        public A(int b)
            : base(b)
        {
        }
    }
}
""",
        ["namespace N", ">class A", ">>public A"],
    ),
    "rb": (
        r"""
module A
  # Keeps.
  class B < C
    def go(x)
      x
    end
  end
end
""",
        ["module A", ">class B", ">>def go"],
    ),
    "php": (
        r"""
<?php
final class A {
    public function go(int $a): int {
        return f($a);
    }
}
""",
        ["class A", ">function go"],
    ),
    "swift": (
        r"""
extension A: B {
    public init(x: Int) {
    }
    static func make() -> A { A() }
}
""",
        ["extension A", ">init", ">func make"],
    ),
    "scala": (
        r"""
object Main extends App {
  def run(x: Int): Int = {
    x
  }
}
""",
        ["object Main", ">def run"],
    ),
    "sh": (
        r"""
#!/bin/sh
# Goes.
go() {
  call "$1"
}
go a
""",
        ["go()"],
    ),
    "sql": (
        r"""
-- Keys.
CREATE TABLE keys (
  id int
);
SELECT 1;
CREATE OR REPLACE FUNCTION f(a int) RETURNS int AS $$
""",
        ["CREATE TABLE keys", "CREATE OR REPLACE FUNCTION f"],
    ),
    "lua": (
        r"""
local function go(a)
  return a
end
""",
        ["function go"],
    ),
    "r": (
        r"""
add <- function(a, b) {
  a + b
}
""",
        ["add <- function"],
    ),
    "jl": (
        r"""
module A
function f(x)
    x
end
end
""",
        ["module A", "function f"],
    ),
    "yaml": (
        r"""
a: 1
services:
  web:
    image: x
  db:
    image: y
""",
        ["a", "services", ">web", ">db"],
    ),
    "toml": (
        r"""
[project]
name = 'x'

[tool.ruff]
line = 1
""",
        ["[project]", "[tool.ruff]"],
    ),
}


@pytest.mark.parametrize("suffix", SAMPLES)
def test_many_languages_have_their_declarations(suffix: str) -> None:
    text, titles = SAMPLES[suffix]
    found = [">" * (level - 1) + title for _, _, level, title in code_headings(text, suffix) if title]
    assert [title for title in titles if not any(one.startswith(title) for one in found)] == []
    assert not any("call" in title for title in found)


def test_the_text_of_code_stays_as_it_is() -> None:
    read = read_plain(PYTHON.encode(), formats.SOURCE_CODE, "py")
    assert read.text == PYTHON
    assert [heading.title for heading in read.layout.headings if heading.title] == ["class Engine", "def state", "def main"]


def test_an_unknown_language_has_no_headings() -> None:
    assert code_headings(PYTHON, "xyz") == [] and code_headings("", "py") == []


def test_functions_of_some_size_get_chunks_of_their_own_with_their_path() -> None:
    body = "".join(f"        value{n} = compute(value{n - 1}, limit)\n" for n in range(4))
    text = f"class Engine:\n    def ingest(self):\n{body}\n    def search(self):\n{body}\n\nLAST = 1  # and so on, in a line of its own\n"
    layout = Layout(tuple(Heading(*mark) for mark in code_headings(text, "py")))
    chunks = Chunker(WordTokenizer(), max_tokens=128).chunk(text, layout)
    assert [chunk.heading for chunk in chunks] == ["class Engine > def ingest", "class Engine > def search", ""]
    assert chunks[2].text.startswith("LAST")
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)


@pytest.mark.parametrize("suffix", ["py", "js", "c", "sql", "yaml", "go"])
def test_minified_and_endless_code_is_read_to_its_end(suffix: str) -> None:
    code_headings("function a(){return 1};" * 100_000, suffix)
    code_headings("class a:\n def b():\n" * 50_000, suffix)
    code_headings("class a<" * 45 + "\n" + " (" * 100_000, suffix)


SNIPPETS = [
    "def f():", "class A", " ", "    ", "\n", "{", "}", "(", ")", ";", "@x", "# c", "// c", "/*", "*/", '"""', "`", "=", "=>",
    "static int f(", "a:", "- ", "\t",
]  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(
    text=st.lists(st.sampled_from(SNIPPETS), max_size=60).map("".join),
    suffix=st.sampled_from(["py", "js", "c", "rb", "sql", "yaml", "sh", "cs", "go"]),
)
def test_headings_of_any_code_are_places_in_it(text: str, suffix: str) -> None:
    before = 0
    for start, end, level, title in code_headings(text, suffix):
        assert before <= start <= end <= len(text) and level >= 1
        assert title == title.strip() and "\n" not in title
        before = start


def test_a_notebook_gives_its_cells_in_order_with_what_they_printed() -> None:
    book = {
        "metadata": {"language_info": {"name": "python"}},
        "cells": [
            {"cell_type": "markdown", "source": ["# Keys\n", "They rotate."]},
            {"cell_type": "code", "source": "rotate(90)", "outputs": [{"output_type": "stream", "text": ["done\n"]}]},
            {"cell_type": "code", "source": "x", "outputs": [
                {"output_type": "execute_result", "data": {"text/plain": "9" * 5000, "image/png": "AAAA"}},
                {"output_type": "error", "ename": "KeyError", "evalue": "'k'"},
            ]},
            {"cell_type": "raw", "source": ""}, "nonsense",
        ],
    }  # fmt: skip
    read = read_notebook(json.dumps(book))
    text = read["text"]
    assert text.startswith("# Keys\nThey rotate.\n\nrotate(90)\n\ndone\n\nx\n\n999")
    assert "9" * 2000 + " [...]" in text and "9" * 2001 not in text and "AAAA" not in text
    assert text.endswith("KeyError: 'k'")
    assert [(text[start:end], level) for start, end, level, _ in read["headings"]] == [("Keys", 1)]
    assert read["metadata"] == {"code_language": "python"}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"cells": 3}', "[" * 100_000])
def test_what_is_no_notebook_says_so(text: str) -> None:
    with pytest.raises(UnreadableError, match="no notebook"):
        read_notebook(text)
