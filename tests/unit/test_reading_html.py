"""Web pages: what is content and what is furniture, on pages built as blogs, documentation, news, wikis, forums and shops are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragline.reading.parsing.markup import MarkupText, read_markup
from ragline.reading.parsing.tags import TagStream

PROSE = "Keys rotate every ninety days, and each rotation is written down in the register that the keeper of the doors holds. "
MENU = "".join(f'<li><a href="/{n}">Menu entry {n}</a></li>' for n in range(8))


def text_of(markup: str) -> str:
    return str(read_markup(markup)["text"])


def headings_of(markup: str) -> list[tuple[int, str]]:
    result = read_markup(markup)
    for start, end, _, title in result["headings"]:
        assert result["text"][start:end] == title
    return [(level, title) for _, _, level, title in result["headings"]]


BLOG = f"""<html><body class="single has-sidebar"><a class="skip-link" href="#c">Skip to content</a>
<div id="header"><h1><a href="/">My site</a></h1></div><div class="menu-wrap"><ul class="menu">{MENU}</ul></div>
<div id="content"><div class="hentry post-17"><h1 class="entry-title">Rotating keys</h1>
<div class="entry-content"><p>{PROSE}</p><p>{PROSE * 3}</p>
<div class="sharedaddy"><h3>Share this</h3><ul><li><a href="x">Twitter</a></li></ul></div>
<div class="related-posts"><h3>You may also like</h3><ul>{MENU}</ul></div></div></div>
<div id="respond" class="comment-respond"><h3>Leave a reply</h3><form><p>Your address stays secret.</p></form></div></div>
<div id="sidebar" class="widget-area"><h3>About me</h3><p>I write about doors.</p></div>
<div id="footer"><p>Powered by something</p></div></body></html>"""

SPHINX = f"""<html lang="en"><body><div class="related" role="navigation"><ul>{MENU}</ul></div>
<div class="document"><div class="documentwrapper"><div class="bodywrapper"><div class="body" role="main">
<section id="keys"><h1>Keys<a class="headerlink" href="#keys">¶</a></h1><p>{PROSE}</p>
<dl class="py function"><dt class="sig">keys.rotate(days)</dt><dd><p>Rotates them.</p></dd></dl>
<div class="highlight"><pre><span class="linenos">1</span>import keys
<span class="linenos">2</span>keys.rotate(90)</pre></div>
<aside class="topic"><p>Note the register.</p></aside></section></div></div></div>
<div class="sphinxsidebar" role="navigation"><h3>Table of Contents</h3><ul>{MENU}</ul></div></div>
<div class="footer">Created using Sphinx</div></body></html>"""

MKDOCS = f"""<body><header class="md-header"><nav>{MENU}</nav></header><div class="md-container"><main class="md-main">
<div class="md-sidebar md-sidebar--primary"><nav class="md-nav"><ul>{MENU}</ul></nav></div>
<div class="md-content"><article class="md-content__inner"><a class="md-content__button" title="Edit" href="x"></a>
<h1 id="keys">Keys</h1><p>{PROSE}</p><details><summary>More</summary><p>Hidden at first.</p></details>
<div class="tabbed-content"><div role="tabpanel" hidden><p>In the second tab.</p></div></div></article></div></main>
<footer class="md-footer"><p>Made with Material</p></footer></div></body>"""

DOCUSAURUS = f"""<body><div id="__docusaurus"><div class="announcementBar_x" role="banner">Version 9 is out</div>
<nav class="navbar">{MENU}</nav><div class="main-wrapper"><aside class="theme-doc-sidebar-container"><ul>{MENU}</ul></aside>
<main><div class="container"><nav class="theme-doc-breadcrumbs"><ul>{MENU}</ul></nav>
<article><div class="theme-doc-markdown markdown"><header><h1>Keys</h1></header><p>{PROSE}</p>
<h2>How<a class="hash-link" href="#how">#</a></h2><pre><code>keys.rotate(90)</code></pre></div>
<footer><a class="theme-edit-this-page" href="x">Edit this page</a></footer></article>
<nav class="pagination-nav"><a href="a">Next: Doors</a></nav></div></main></div></div></body>"""

NEWS = f"""<body><div id="cookie-banner" class="cookie-consent"><p>We and our 812 partners value your privacy.</p></div>
<header><a href="/">The Daily Key</a></header><main><article><h1>Doors open</h1><p class="byline">By Ada</p>
<figure><img src="a.jpg" alt="A door that stands open"><figcaption>The door on Monday</figcaption></figure>
<p>{PROSE}</p><aside class="newsletter-signup"><p>Subscribe to our newsletter today</p></aside><p>{PROSE * 2}</p></article>
<section class="recommended"><h2>More stories</h2><article><h3><a href="x">Windows close</a></h3></article></section></main>
<footer><p>© The Daily Key</p></footer></body>"""

WIKI = f"""<body class="mediawiki"><div id="mw-navigation"><ul>{MENU}</ul></div>
<div id="content" class="mw-body" role="main"><h1 id="firstHeading">Key</h1><div id="mw-content-text">
<div class="mw-parser-output">
<table class="infobox"><tr><th colspan="2">Key</th></tr><tr><th scope="row">Made of</th><td>Brass</td></tr>
<tr><th scope="row">Age</th><td>6000 years</td></tr></table>
<p>{PROSE}</p><div id="toc" class="toc"><h2>Contents</h2><ul>{MENU}</ul></div>
<h2><span>History</span><span class="mw-editsection">[<a href="e">edit</a>]</span></h2><p>{PROSE}</p>
<div class="navbox"><ul>{MENU}</ul></div></div></div><div id="catlinks" class="catlinks"><ul>{MENU}</ul></div></div></body>"""

FORUM = f"""<body><div class="navbar"><ul>{MENU}</ul></div><div class="wrap"><h2>Which key?</h2>
<div class="post"><div class="author">ada</div><div class="content"><p>{PROSE}</p></div></div>
<div class="post"><div class="author">alan</div><div class="content"><p>Use the brass one. {PROSE}</p></div></div>
<div class="pagination"><a href="2">2</a></div></div><div class="copyright">Powered by a forum</div></body>"""

SHOP = f"""<body><div class="site-header"><ul>{MENU}</ul></div><main>
<div class="breadcrumbs"><a href="a">Home</a> / <a href="b">Keys</a></div>
<h1>Brass key</h1><p class="price">12.50 €</p><div class="description"><p>{PROSE}</p></div>
<table><thead><tr><th>Property</th><th>Value</th></tr></thead><tbody><tr><td>Weight</td><td>30 g</td></tr></tbody></table>
<div class="related products"><h2>Related products</h2><ul>{MENU}</ul></div></main></body>"""


@pytest.mark.parametrize(
    ("page", "kept", "left_out"),
    [
        (BLOG, ["Rotating keys", PROSE.strip()], ["Skip", "Menu", "Share", "also like", "Leave a reply", "About me", "Powered"]),
        (
            SPHINX,
            ["Keys", "keys.rotate(days)\nRotates them.", "import keys\nkeys.rotate(90)", "Note the register."],
            ["Menu", "¶", "Sphinx"],
        ),
        (MKDOCS, ["More", "Hidden at first.", "In the second tab."], ["Menu", "Material"]),
        (DOCUSAURUS, ["keys.rotate(90)"], ["Version 9", "Menu", "Next: Doors", "#"]),
        (NEWS, ["By Ada", "[image: A door that stands open]", "The door on Monday"], ["partners", "Daily", "Subscribe", "More stories"]),
        (WIKI, ["Made of: Brass", "Age: 6000 years"], ["Menu", "Contents", "edit"]),
        (FORUM, ["Which key?", "ada", "alan", "Use the brass one"], ["Menu", "Powered", "2"]),
        (SHOP, ["12.50 €", "Property: Weight; Value: 30 g"], ["Menu", "Home", "Related"]),
    ],
    ids=["blog", "sphinx", "mkdocs", "docusaurus", "news", "wiki", "forum", "shop"],
)
def test_a_page_keeps_its_content_and_loses_its_furniture(page: str, kept: list[str], left_out: list[str]) -> None:
    text = text_of(page)
    assert PROSE.strip() in text
    assert [words for words in kept if words not in text] == []
    assert [words for words in left_out if words in text] == []


def test_headings_keep_their_levels_and_lose_their_permalinks() -> None:
    assert headings_of(DOCUSAURUS) == [(1, "Keys"), (2, "How")]
    assert headings_of(WIKI) == [(1, "Key"), (2, "History")]


def test_a_title_above_the_content_is_kept() -> None:
    page = f"<header><h1>Rotating keys</h1></header><article><p>{PROSE * 3}</p></article><footer>us</footer>"
    assert headings_of(page) == [(1, "Rotating keys")]
    assert "us" not in text_of(page).split()


@pytest.mark.parametrize(
    "page",
    [
        "<p>Short.</p>",
        "<html><body>Just text<br>in a body</body></html>",
        f"<ul>{MENU}</ul>",
        f"<nav><p>{PROSE * 5}</p></nav><p>Short.</p>",
        f"<div class='sidebar'><p>{PROSE * 5}</p></div>",
        f"<nav><h1>Title</h1><p>{PROSE * 9}</p>",
        f"<form><h2>Terms</h2><p>{PROSE * 9}</p></form>",
        f"<h2>Links</h2><ul>{MENU}</ul>",
    ],
)
def test_a_plain_page_is_never_thinned_to_nothing(page: str) -> None:
    words = MarkupText()
    words.feed(page.replace("<nav>", "<div>").replace("</nav>", "</div>"))
    assert text_of(page).split() == words.finish()["text"].split()


# -- ids ---------------------------------------------------------------------------------------------------------------


def documentation(body: str) -> str:
    return f"<body><ul>{MENU}</ul><div role=main><h1>Keys</h1><p>{PROSE * 6}</p>{body}</div></body>"


@pytest.mark.parametrize("tag", ["h2", "dt", "li", "figcaption"])
def test_an_element_keeps_its_text_whatever_its_anchor_is_called(tag: str) -> None:
    for name in ("pagination", "menu", "search", "skip-link", "line-numbers"):
        assert "Turning pages" in text_of(f"<h1>Keys</h1><p>{PROSE * 3}</p><{tag} id={name}>Turning pages</{tag}><p>{PROSE}</p>")


def test_an_anchor_is_no_article_for_which_the_rest_is_left_out() -> None:
    page = f"<h1>Keys</h1><p>{PROSE}</p><dl><dt>rotate<dd id=post>{PROSE * 5}</dl>"
    assert text_of(page).count("rotate") == 7


@pytest.mark.parametrize(
    ("section", "heading"),
    [
        ("<section id=cookies><h2>Cookies<a class=headerlink href=#cookies>¶</a></h2>{}</section>", "Cookies"),
        ("<div class=section id=cookies><h2>Cookies</h2>{}</div>", "Cookies"),
        ("<section id=related-projects><h2><span>1.2. </span>Related projects</h2>{}</section>", "1.2. Related projects"),
        ("<section id=share-1><h2>Share</h2>{}</section>", "Share"),
        ("<section id=prets-cookies><h2>Prêts &amp; cookies</h2>{}</section>", "Prêts & cookies"),
        ("<section id=gutter><h2>Gutter</h2>{}</section>", "Gutter"),
    ],
)
def test_a_section_whose_id_is_the_slug_of_its_heading_is_content(section: str, heading: str) -> None:
    text = text_of(f"<h1>Keys</h1><p>{PROSE * 3}</p>{section.format('<p>They last for a day.</p>')}")
    assert text.endswith(f"{heading}\n\nThey last for a day.")


@pytest.mark.parametrize(
    "part",
    [
        "<div id=search><h2>Search</h2>{}</div>",
        "<section id=module-requests.cookies><h2>requests.cookies module</h2>{}</section>",
        "<p id=tags>{}</p>",
    ],
)
def test_inside_the_content_more_ids_are_anchors(part: str) -> None:
    words = "They last for a day."
    assert words in text_of(documentation(part.format(words)))
    assert words not in text_of(f"<h1>Keys</h1><p>{PROSE * 3}</p>{part.format(words)}")


@pytest.mark.parametrize(
    "part",
    [
        "<div id=cookie-banner><h2>We use cookies</h2><p>And 812 partners.</p></div>",
        "<div id=sidebar><h2>About me</h2><p>I write about doors.</p></div>",
        "<section id=newsletter><h2>Stay informed</h2><p>Give us your address.</p></section>",
        "<div id=related-posts><h3>Related posts</h3><p><a href=a>Windows close</a> <a href=b>Doors open</a></p></div>",
        "<section id=toc><h2>Toc</h2><ol><li><a href=#a>The first of all</a><li><a href=#b>The second</a></ol></section>",
        "<p id=breadcrumbs><a href=/>Home</a> » <a href=/keys>All of the keys</a> » Keys</p>",
        "<div id=footer class=section><p>Yours</p></div>",
        "<a id=skip-link href=#content>Skip to content</a>",
    ],
)
def test_ids_still_tell_furniture(part: str) -> None:
    assert text_of(documentation(part)) == text_of(documentation(""))
    assert text_of(f"<h1>Keys</h1><p>{PROSE * 6}</p>{part}") == text_of(f"<h1>Keys</h1><p>{PROSE * 6}</p>")


def test_furniture_outside_the_content_may_have_the_heading_that_its_id_says() -> None:
    page = f"<h1>Keys</h1><p>{PROSE * 3}</p><div id=cookies><h2>Cookies</h2><p>We use some.</p></div>"
    assert "We use some" not in text_of(page)


def test_what_is_hidden_is_left_out_unless_it_is_all() -> None:
    page = (
        "<p>Seen.</p><div hidden>a</div><div style='display : none'>b</div><div aria-hidden=true>c</div><script>d</script>"
        "<p hidden=until-found>e"
    )
    assert text_of(page) == "Seen.\n\ne"
    assert text_of("<body style='display:none'><p>All of it.</p></body>") == "All of it."


def test_what_a_page_says_of_itself_becomes_metadata() -> None:
    page = (
        '<html lang="de"><head><title>Keys &amp; doors</title><meta name="Description" content=" About keys "><meta property="og:title"'
        ' content="Other"><meta property="article:published_time" content="2024-05-01"><meta name="author" content="Ada">'
        '<link rel="canonical" href="https://example.org/keys"></head><body><p>Text</p></body></html>'
    )
    assert read_markup(page)["metadata"] == {
        "language": "de", "title": "Keys & doors", "description": "About keys", "date": "2024-05-01", "author": "Ada",
        "canonical": "https://example.org/keys",
    }  # fmt: skip
    assert read_markup("<meta property='og:title' content='Only this'><p>x")["metadata"] == {"title": "Only this"}


def test_a_mail_or_book_is_read_whole() -> None:
    page = MarkupText()
    page.feed("<header>Dear all</header><aside>A footnote</aside><div class='footer'>Yours</div>")
    assert page.finish()["text"] == "Dear all\n\nA footnote\n\nYours"


def test_cells_that_span_rows_and_columns_are_repeated_so_that_rows_stand_alone() -> None:
    page = "<table><tr><th>City<th>Year<th>Keys<tr><td rowspan=2>Oslo<td>2023<td>4<tr><td>2024<td>5<tr><td>Rome<td colspan=2>none</table>"
    assert text_of(page) == "City: Oslo; Year: 2023; Keys: 4\nCity: Oslo; Year: 2024; Keys: 5\nCity: Rome; Year: none"


def test_two_columns_without_names_are_properties() -> None:
    assert text_of("<table><tr><td>Founded<td>1998<tr><td>Founder<td>Ada</table>") == "Founded: 1998\nFounder: Ada"


def test_code_in_a_table_keeps_its_lines() -> None:
    page = "<table><tr><td class=linenos><pre>1\n2</pre></td><td class=code><pre>def f():\n    return 1</pre></td></tr></table>"
    assert text_of(page) == "def f():\n    return 1"


@pytest.mark.parametrize(
    "piece",
    ["<div>", "<b>", "<ul><li>", "<table><tr><td>", "<a ", "<a href='", "<", "<!--", "<![CDATA[", "<?", "&#", "</p>", "<p '", "<title>",
     "<header><nav>", "<td colspan=99 rowspan=99>x", "<a href=x>y</a>", "<script>"],
)  # fmt: skip
def test_a_page_of_one_broken_thing_is_read_to_its_end(piece: str) -> None:
    # 20,000 of each: what recursed would fail, what took quadratic time would take minutes.
    read_markup("<p>begin</p>" + piece * 20_000)


def test_many_elements_that_begin_with_one_endless_heading_are_read() -> None:
    # As above: comparing all of the heading with each id would take hours.
    read_markup("<section id=menu>" * 20_000 + "<h2>" + "menu " * 100_000)


def test_markup_inside_attributes_scripts_and_comments_is_no_markup() -> None:
    page = (
        """<p title="a > b <i>" data-x='</p>'>one<!-- <p>no</p> --> two<script>"</p><p>no"</script><style>p > b {}</style>three<br/>four"""
    )
    assert text_of(page) == "one twothree\nfour"


class Recorded(TagStream):
    def __init__(self) -> None:
        self.seen: list[object] = []

    def handle_starttag(self, tag: str, attributes: dict[str, str]) -> None:
        self.seen.append((tag, attributes))

    def handle_endtag(self, tag: str) -> None:
        self.seen.append(tag)

    def handle_data(self, data: str) -> None:
        self.seen.append(f"={data}")


def recorded(markup: str) -> list[object]:
    stream = Recorded()
    stream.feed(markup)
    return stream.seen


def test_tags_and_attributes_are_told_as_browsers_tell_them() -> None:
    markup = "<A HREF=x a=1 A=2 checked title='&lt;b&gt;'>a &amp; b < c</A><br/>"
    attributes = {"href": "x", "a": "1", "checked": "", "title": "<b>"}
    assert recorded(markup) == [("a", attributes), "=a & b < c", "a", ("br", {}), "br"]
    assert recorded("<title><b>&amp;</title>") == [("title", {}), "=<b>&", "title"]
    assert recorded("<!doctype html><?xml?><p>") == [("p", {})]
    assert recorded('<p a="unclosed>x</p>') == [("p", {"a": '"unclosed'}), "=x", "p"]


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.sampled_from(["<", ">", "/", "p", "a", " ", "=", '"', "'", "!--", "-->", "&amp;", "x y", "table", "td", "nav", "h1", "\n"]))
)
def test_no_markup_makes_it_fail(pieces: list[str]) -> None:
    markup = "".join(pieces)
    result = read_markup(markup)
    assert "<p>" not in result["text"] or "&" in markup
    for start, end, _, title in result["headings"]:
        assert result["text"][start:end] == title
