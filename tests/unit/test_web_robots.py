"""robots.txt (RFC 9309), and the marks on pages."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragline.reading.web.robots import LONGEST_DELAY_S, parse_robots, tags
from ragline.reading.web.urls import parse_url


def allows(text: str, target: str, agent: str = "ragline") -> bool:
    return parse_robots(text, agent).why_not(parse_url(f"http://example.com{target}")) is None


@pytest.mark.parametrize(
    ("rules", "target", "allowed"),
    [
        ("", "/x", True),
        ("Disallow: /", "/x", False),
        ("Disallow:", "/x", True),
        ("Disallow: /a", "/ab", False),
        ("Disallow: /a/", "/a", True),
        ("Disallow: /\nAllow: /docs/", "/docs/x", True),
        ("Allow: /docs/\nDisallow: /docs/private", "/docs/private/x", False),
        ("Allow: /page\nDisallow: /page", "/page", True),
        ("Disallow: /*.pdf$", "/a/b.pdf", False),
        ("Disallow: /*.pdf$", "/a/b.pdf?x", True),
        ("Disallow: /a*b*c", "/axxbxxc", False),
        ("Disallow: /a*b*c", "/axxcxxb", True),
        ("Disallow: /a*a$", "/a", True),
        ("Disallow: /$", "/", False),
        ("Disallow: /$", "/x", True),
        ("Disallow: /caf%c3%a9", "/café", False),
        ("Disallow: /café", "/caf%C3%A9", False),
        ("disallow : /a # why", "/a", False),
        ("Crawl-delay: x\nnonsense\nDisallow: /a", "/a", False),
    ],
)
def test_the_longest_rule_decides(rules: str, target: str, allowed: bool) -> None:
    assert allows(f"User-agent: *\n{rules}", target) is allowed


def test_the_group_of_ones_own_name_goes_before_that_of_all() -> None:
    groups = (
        "\ufeffUser-Agent: *\nDisallow: /\n",
        "User-agent: other\nUser-agent: Ragline/1.0\nDisallow: /mine",
        "User-agent: RAGLINE\nDisallow: /too",
    )
    text = "\n".join(groups)
    assert allows(text, "/x") and not allows(text, "/mine") and not allows(text, "/too")
    assert not allows(text, "/x", agent="third")


def test_rules_before_any_agent_count_for_nobody() -> None:
    assert allows("Disallow: /", "/x")


def test_delay_and_sitemaps_are_read() -> None:
    robots = parse_robots("Sitemap: http://example.com/a.xml\nUser-agent: *\nCrawl-delay: 0.5\nSitemap: /b.xml", "ragline")
    assert robots.delay_s == 0.5 and robots.sitemaps == ("http://example.com/a.xml", "/b.xml")
    assert parse_robots("User-agent: *\nCrawl-delay: 86400", "ragline").delay_s == LONGEST_DELAY_S


def test_a_pattern_made_to_be_slow_is_not() -> None:
    hostile = "User-agent: *\nDisallow: /" + "*a" * 900 + "b$"
    started = time.process_time()
    assert allows(hostile, "/" + "a" * 8000)
    assert time.process_time() - started < 5, "it went back and forth: this pattern takes a regular expression for ever"


@given(st.text(max_size=200), st.text(max_size=30))
def test_any_text_is_a_robots_file(text: str, path: str) -> None:
    allows("User-agent: *\nDisallow: /" + text, "/" + path.translate({ord("\\"): None}) if path.isprintable() else "/")


def test_marks_are_those_for_all_and_for_ones_own_name() -> None:
    assert tags(["noindex, nofollow"], "ragline") == {"noindex", "nofollow"}
    assert tags(["NONE"], "ragline") >= {"noindex", "nofollow"}
    assert tags(["otherbot: noindex", "ragline: nofollow"], "ragline") == {"nofollow"}
    assert "noindex" not in tags(["max-snippet:10, all"], "ragline")


def test_the_time_to_read_a_hostile_file_is_linear() -> None:
    """A pattern that goes back at every blank would take half an hour for the first, and hold up the whole process."""
    blanks = "User-agent: *\nDisallow: /a\nDisallow: x" + " " * 500_000 + "x"
    agents = "".join(f"User-agent: {'abcdefghij'[n % 10]}{'xy' * (n % 97)}\n" for n in range(3_000)) + "User-agent: *\n" * 10_000
    rules = "Allow: /b\n" * 1_500 + "Disallow: /a"
    began = time.process_time()
    assert not allows(blanks, "/a")
    found = parse_robots(agents + rules, "ragline")
    assert len(found.rules) == 1_000
    assert time.process_time() - began < 5
