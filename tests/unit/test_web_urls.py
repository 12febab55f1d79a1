"""One spelling for each page; what two programs could read differently is refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragline.reading.web.base import PageError
from ragline.reading.web.urls import is_url, join_url, normal_escapes, parse_url, shown


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("http://example.com", "http://example.com/"),
        ("HTTP://Example.COM:80/", "http://example.com/"),
        ("https://example.com:443/a", "https://example.com/a"),
        ("https://example.com:8443/a", "https://example.com:8443/a"),
        ("http://example.com:/a", "http://example.com/a"),
        ("http://example.com/a#part", "http://example.com/a"),
        ("http://example.com?x=1#y?z", "http://example.com/?x=1"),
        ("http://example.com/a?#", "http://example.com/a"),
        ("http://example.com/%7euser/%2f%e4", "http://example.com/~user/%2F%E4"),
        ("http://example.com/a b/ü", "http://example.com/a%20b/%C3%BC"),
        ("http://example.com/100%", "http://example.com/100%25"),
        ("http://example.com/a/./b/../c", "http://example.com/a/c"),
        ("http://example.com/a/%2e%2E/b", "http://example.com/b"),
        ("http://example.com/../../a/..", "http://example.com/"),
        ("http://example.com//a//b/", "http://example.com//a//b/"),
        ("http://example.com./", "http://example.com/"),
        ("http://Bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://example。com/", "http://example.com/"),
        ("http://[2001:DB8:0::1]:8080/x", "http://[2001:db8::1]:8080/x"),
        ("http://127.0.0.1/", "http://127.0.0.1/"),
        ("http://127.0.0.1./", "http://127.0.0.1/"),
        ("http://my_host/", "http://my_host/"),
    ],
)
def test_a_url_has_one_spelling(given: str, normal: str) -> None:
    assert str(parse_url(given)) == normal
    assert str(parse_url(normal)) == normal


@pytest.mark.parametrize(
    "text",
    [
        "ftp://example.com/", "file:///etc/passwd", "javascript:alert(1)", "http:example.com", "http:///x", "http://", "https://:80/",
        "http://user@example.com/", "http://user:pw@example.com/", "http://example.com@evil.example/", "http://@example.com/",
        "http://example.com\\@evil.example/", "http://example.com\\.evil.example/", "http:\\\\example.com/",
        "http://exa\nmple.com/", "http://example.com/\r\nHost: evil", "http://example.com/\x00", "http://example.com/\ud800",
        "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/", "http://127.0.0.1.1/",
        "http://1.2.3.256/", "http://0/", "http://0x/", "http://example.0x7f/", "http://１２７.１/",
        "http://[::1/", "http://::1/", "http://[::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[1.2.3.4]/", "http://[::1]x/",
        "http://example.com:0/", "http://example.com:65536/", "http://example.com:99999999999/", "http://example.com:-1/",
        "http://example.com:8a/", "http://example.com:22/", "http://example.com:25/", "http://example.com:6667/",
        "http://exa%6dple.com/", "http://exam ple.com/", "http://a..b/", "http://.example.com/", "http://-a.example/",
        "http://" + "a" * 64 + ".example/", "http://" + "a." * 200 + "example/", "http://example.com/" + "a" * 9000, "http://xn--a\u0300.example:bad/",
        "http://\u2028.example/", "http://\u200b/", "http://%/", "http://ex<ample.com/", "http://ex|ample/",
    ],
)  # fmt: skip
def test_what_no_page_has_for_a_url_is_refused_with_a_cure(text: str) -> None:
    with pytest.raises(PageError) as caught:
        parse_url(text)
    assert caught.value.hint and "pw" not in caught.value.message


def test_fullwidth_digits_are_the_address_they_stand_for_or_refused() -> None:
    assert str(parse_url("http://１２７.０.０.１/")) == "http://127.0.0.1/"


def test_a_password_is_never_shown() -> None:
    assert "secret" not in shown("https://me:secret@example.com/x?y")
    assert "secret" not in shown("https://me:sec\nret\\secret@example.com/x?y")


def test_only_strings_of_the_web_are_urls() -> None:
    assert is_url("http://x") and is_url("HTTPS://x")
    assert not is_url("ftp://x") and not is_url("http:/x") and not is_url(" http://x") and not is_url("docs/http://x")


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("b.html", "https://example.com/docs/b.html"),
        ("/b", "https://example.com/b"),
        ("../b", "https://example.com/b"),
        ("?page=2", "https://example.com/docs/a.html?page=2"),
        ("#part", "https://example.com/docs/a.html"),
        ("//other.example/x", "https://other.example/x"),
        (" \n b\n.html\t", "https://example.com/docs/b.html"),
        ("http://example.com/", "http://example.com/"),
    ],
)
def test_links_are_joined_as_browsers_do(link: str, target: str) -> None:
    assert str(join_url(parse_url("https://example.com/docs/a.html"), link)) == target


@pytest.mark.parametrize(
    "link", ["mailto:x@example.com", "javascript:void(0)", "data:text/html,x", "tel:1", "http://[", "a\\b", "x" * 9000]
)
def test_links_that_lead_nowhere_are_refused(link: str) -> None:
    with pytest.raises(PageError):
        join_url(parse_url("https://example.com/docs/a.html"), link)


@given(st.text(max_size=60))
@example("%")
@example("//..//.%2e/\u00fc?%zz")
def test_what_was_accepted_keeps_its_spelling(rest: str) -> None:
    try:
        url = parse_url("http://example.com/" + rest)
    except PageError:
        return
    assert parse_url(str(url)) == url
    assert url.host == "example.com" and url.target.isascii() and not any(char <= " " for char in url.target)


@given(st.text(max_size=40), st.text(max_size=40))
def test_nothing_but_a_page_error_comes_of_any_authority_or_link(authority: str, link: str) -> None:
    for base, text in (("https://example.com/a", f"https://{authority}/"), ("https://example.com/a", link)):
        try:
            url = parse_url(text) if text.startswith("https://") else join_url(parse_url(base), text)
        except PageError:
            continue
        assert url.host and "@" not in url.authority and 0 < url.port < 65536


@given(st.text(alphabet="%aAfF09gG~ -", max_size=30))
def test_escapes_are_normal_after_one_pass(text: str) -> None:
    assert normal_escapes(normal_escapes(text)) == normal_escapes(text)
