"""Which parts of a web page are its content, and which its furniture: navigation, bars, banners, lists of links?

Told by elements, roles and class names, and taken back wherever it would cost real text: a region that holds the page's
heading or much of its prose is content whatever it is called, and a page that shows no furniture is kept whole.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["content", "article", "body", "navigation", "furniture", "links"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ROLES: dict[str, Kind] = {
    "main": "content", "article": "article", "navigation": "navigation", "banner": "furniture", "contentinfo": "furniture",
    "complementary": "furniture", "search": "furniture", "dialog": "furniture", "alertdialog": "furniture", "menu": "navigation",
    "menubar": "navigation", "toolbar": "furniture", "doc-toc": "navigation",
}  # fmt: skip
_TAGS: dict[str, Kind] = {
    "main": "content", "article": "article", "nav": "navigation", "aside": "furniture", "header": "furniture", "footer": "furniture",
    "dialog": "furniture", "menu": "navigation", "form": "furniture", "search": "furniture", "noscript": "furniture",
}  # fmt: skip
_INSIDE_CONTENT = _words("aside header footer")
"""What belongs to an article or section when it stands in one: its title, its byline, its notes."""
_BODY_NAMES = _words(
    "post-content entry-content article-content article-body articlebody story-body storybody markdown-body mw-parser-output"
    " theme-doc-markdown post-body blog-post-content td-content e-content td-post-content article__body article-text articletext"
    " post__content entry_content post_content article__content content-body text-content single-content entry blog-content"
)
_ARTICLE_NAMES = _words("article hentry h-entry news-single single-post main-content maincontent mw-content-text post")
_FURNITURE_WORDS = _words(
    "sidebar sidenav breadcrumb breadcrumbs cookie cookies consent gdpr newsletter subscribe share sharing sharebar social related"
    " recommended recommendations recirc promo advert advertisement advertising ads sponsor sponsored popup modal pagination pager"
    " paginator navbar navigation nav navbox toolbar toc tableofcontents masthead topbar offcanvas skiplink upsell outbrain taboola"
    " catlinks printfooter sphinxsidebar sphinxsidebarwrapper relatedposts sharedaddy addtoany addthis authorbox searchform login colophon"
    " copyright commentform respond teasers crosslinks sharebuttons socialmedia impressum servicelinks footer prefooter subfooter"
    " recirculation linklist shariff werbung anzeige publicidad recentcomments voting donate spenden metanav subnav"
)
_FURNITURE_NAMES = _words(
    "footer site-footer page-footer global-footer main-footer footer-container footer-wrapper site-header global-header main-header"
    " header top-bar ad ad-container ad-slot ad-banner advert-container widget-area table-of-contents read-next read-more-posts"
    " more-stories also-like you-may-like post-navigation edit-this-page back-to-top related-posts menu main-menu nav-menu"
    " announcement-bar announcementbar site-nav mw-navigation p-search sitesub jump-to-nav comment-respond comment-form reply-form"
    " author-box author-bio about-author author-info post-tags tag-list tags tagcloud right-column rightcolumn rightcol left-column"
    " leftcolumn leftcol secondary footer-widgets bottom-bar foot credits powered-by lang-switcher language-switcher search-form search"
    " nav-links nav-below nav-above comments-link reply reply-title also-read read-also more-articles print-link tools meta-nav"
    " skip-link skip-to-content"
)
_UNSEEN_NAMES = _words(
    "headerlink header-anchor anchor-link hash-link heading-anchor anchorjs-link mw-editsection sr-only visually-hidden screen-reader-text"
    " visuallyhidden assistive-text lineno linenos line-numbers linenumber gutter skip-link skip-to-content skiplink copybtn copy-button"
    " clipboard-copy md-clipboard navbar-toggler katex-html noprint linenodiv"
)
_UNSEEN_IDS = _words("skip-link skip-to-content skiplink")
_LINK_TARGETS = _words("h1 h2 h3 h4 h5 h6 dt dd li tr th caption figure figcaption pre blockquote details summary")
"""Elements that have an id to be linked to: the slug of a heading, the name of a term or a footnote. It never says what they are."""
_AUTHOR_BOX = re.compile(r"author\W?_?(?:box|bio|desc|info|about|profile|card)|about\W?_?(?:the\W?_?)?author", re.IGNORECASE)
_PARAGRAPH_CHARS = 80
_MANY_LINKS = 5
_MODIFIERS = _words("has no with without is not js show hide layout wp body main")
_NAME = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")
_WORD = re.compile(r"[^\W_]+")
_NUMBER_BEFORE = re.compile(r"[\d.]+\s")
_MAX_SLUG_CHARS = 150
_COUNT_BEHIND = re.compile(r"[-_]\d+$")


@dataclass(slots=True)
class Part:
    """A paragraph, heading, list item or row of a page.

    Attributes:
        heading: Its level; 0 for no heading.
        tight: Whether it follows the part before it on the next line.
        linked: How many of its characters stand in links.
    """

    text: str
    heading: int = 0
    tight: bool = False
    linked: int = 0

    @property
    def prose(self) -> int:
        """How many of its characters stand in no link."""
        return max(0, len(self.text) - self.linked)


@dataclass(frozen=True, slots=True)
class Region:
    """The parts `first:last` of a page, which one element holds.

    Attributes:
        named: Whether only a class name says so.
        has_title: Whether it holds the page's heading or its content.
    """

    kind: Kind
    first: int
    last: int
    named: bool = False
    has_title: bool = False


def kind_of(tag: str, attributes: Mapping[str, str], *, in_content: bool, by_id: bool = True) -> tuple[Kind | None, bool]:
    """What an element is by its role, its tag or its names, and whether only the names say so.

    Args:
        by_id: Whether its id is such a name, as its class names are.
    """
    role = attributes.get("role", "").strip().lower()
    if role in _ROLES:
        return _ROLES[role], False
    if attributes.get("itemprop") == "articleBody":
        return "body", False
    names = attributes.get("class", "")[:500].split()
    if by_id and tag not in _LINK_TARGETS:
        names += attributes.get("id", "")[:100].split()
    if tag not in ("html", "body", "main", "article") and any(map(_is_furniture, names)):
        return "furniture", True
    if any(name.lower() in _BODY_NAMES for name in names):
        return "body", True
    if tag != "body" and any(name.lower() in _ARTICLE_NAMES for name in names):
        return "article", True
    if tag in _TAGS and not (in_content and tag in _INSIDE_CONTENT):
        return _TAGS[tag], False
    return None, False


def is_for_links(tag: str, attributes: Mapping[str, str], title: str, *, in_content: bool, prose: int, linked: int) -> bool:
    """Whether an element's id is there to be linked to, and says nothing of what the element is.

    docutils, Sphinx and pandoc give sections the slugs of their headings: "cookies", "search", "related-projects". Sites
    call their furniture so too, and some of it has that very heading, but that is made of links, or stands outside the content.

    Args:
        title: The heading that it begins with; "" for none.
        in_content: Whether it stands in an element that holds content.
        prose: How many of its characters stand in no link.
        linked: How many do.
    """
    if tag in ("p", "td"):
        return in_content and (not linked or prose >= max(linked, _PARAGRAPH_CHARS))  # a trail of links ends with a title
    if not title or linked > prose:
        return False
    is_section = tag == "section" or "section" in attributes.get("class", "").split()
    name, title = attributes.get("id", "")[:100], title[:_MAX_SLUG_CHARS]  # many elements may begin with one endless heading
    if _is_slug(name, title):
        return in_content or is_section
    return in_content and is_section and set(_folded_words(name)) <= set(_folded_words(title))


def _is_slug(name: str, title: str) -> bool:
    """Whether an id was made from a heading: of its words, however they are joined, perhaps without its number or with a count."""
    names = {"".join(_folded_words(text)) for text in (name, _COUNT_BEHIND.sub("", name))}
    titles = {"".join(_folded_words(text)) for text in (title, _NUMBER_BEFORE.sub("", title, count=1))}
    return not names.isdisjoint(titles)


def _folded_words(text: str) -> list[str]:
    """The words of a text in small letters without their accents, which slugs leave out."""
    text = text.casefold()
    if not text.isascii():
        text = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    return _WORD.findall(text)


def is_unseen(tag: str, attributes: Mapping[str, str]) -> bool:
    """Whether its names say that an element is a mark for readers' devices: a permalink, a line number."""
    names = attributes.get("class", "")[:500].lower().split()
    return not _UNSEEN_NAMES.isdisjoint(names) or (tag == "a" and attributes.get("id", "").strip().lower() in _UNSEEN_IDS)


def _is_furniture(name: str) -> bool:
    if name.lower() in _FURNITURE_NAMES or _AUTHOR_BOX.search(name):
        return True
    words = [word.lower() for word in _NAME.findall(name)]
    return not _MODIFIERS.intersection(words) and not _FURNITURE_WORDS.isdisjoint(words)


# -- the choice --------------------------------------------------------------------------------------------------------


def chosen(parts: Sequence[Part], regions: Sequence[Region]) -> list[Part]:
    """The parts that are content, in order.

    With a `<main>` it is what that holds; else the articles, where most of the prose is theirs; else all but the
    furniture. Where too little would be kept, all is.
    """
    total = list(itertools.accumulate((part.prose for part in parts), initial=0))
    dropped = _covered(len(parts), [region for region in regions if _is_dropped(region, total)])
    everything = total[-1]
    kept = [not drop for drop in dropped]
    articles: Kind = "article" if any(region.kind == "article" for region in regions) else "body"
    largest = max((total[region.last] - total[region.first] for region in regions if region.kind == articles), default=0)
    least_of_articles = 0.5 if largest * 5 > 2 * _prose(parts, kept) else 0.7
    for kind, least, least_prose in (("content", 0.25, 1), (articles, least_of_articles, 100)):
        inside = _covered(len(parts), [region for region in regions if region.kind == kind])
        both = [is_inside and keep for is_inside, keep in zip(inside, kept, strict=True)]
        prose = _prose(parts, both)
        if prose >= least_prose and prose >= least * _prose(parts, kept):
            kept = both
    kept = _without_last_links(parts, _with_title(parts, kept, dropped))
    if _prose(parts, kept) < 0.1 * everything or not any(kept):
        return list(parts)
    return list(_without_orphans(parts, kept))


def _is_dropped(region: Region, total: Sequence[int]) -> bool:
    prose = total[region.last] - total[region.first]
    if region.kind in ("content", "article", "body"):
        return False
    if region.kind == "navigation":
        return prose * 2 <= total[-1]
    if region.has_title or prose * 2 > total[-1]:
        return False
    return not region.named or prose <= 2000


def _covered(count: int, regions: Sequence[Region]) -> list[bool]:
    changes = [0] * (count + 1)
    for region in regions:
        changes[region.first] += 1
        changes[region.last] -= 1
    return [depth > 0 for depth in itertools.islice(itertools.accumulate(changes), count)]


def _prose(parts: Sequence[Part], kept: Sequence[bool]) -> int:
    return sum(part.prose for part, keep in zip(parts, kept, strict=True) if keep)


def _with_title(parts: Sequence[Part], kept: list[bool], dropped: Sequence[bool]) -> list[bool]:
    """With the page's heading, where it stands above the content and the content has none: of the first level, or one of
    the second that is no furniture.
    """
    if any(keep and part.heading == 1 for part, keep in zip(parts, kept, strict=True)):
        return kept
    begin = kept.index(True) if True in kept else 0
    above = [i for i in range(begin - 1, -1, -1) if parts[i].heading and parts[i].prose > 0]
    titles = [i for i in above if parts[i].heading == 1] + [i for i in above if parts[i].heading == 2 and not dropped[i]]
    for title in titles[:1]:
        kept[title] = True
    return kept


def _without_last_links(parts: Sequence[Part], kept: list[bool]) -> list[bool]:
    """Without the links to other pages that stand below the last paragraph, where they are many."""
    last = max((i for i, part in enumerate(parts) if kept[i] and part.prose >= _PARAGRAPH_CHARS), default=None)
    if last is not None:
        links = [i for i in range(last + 1, len(parts)) if kept[i] and parts[i].linked >= 0.9 * (len(parts[i].text) - 2)]
        if len(links) >= _MANY_LINKS:
            for i in links:
                kept[i] = False
    return kept


def _without_orphans(parts: Sequence[Part], kept: Sequence[bool]) -> Iterator[Part]:
    """Without headings below which nothing is left ("Related", whose links are gone)."""
    waiting: list[tuple[Part, bool]] = []  # headings without text yet, and whether something below them was dropped
    previous = True
    for part, keep in zip(parts, kept, strict=True):
        if not keep:
            waiting = [*waiting[:-1], (waiting[-1][0], True)] if waiting else []
        elif part.heading:
            while waiting and waiting[-1][1] and waiting[-1][0].heading >= part.heading:
                waiting.pop()
            waiting.append((part, False))
        else:
            yield from (heading for heading, _ in waiting)
            waiting = []
            part.tight = part.tight and previous
            yield part
        previous = keep
    yield from (heading for heading, is_orphan in waiting if not is_orphan)
