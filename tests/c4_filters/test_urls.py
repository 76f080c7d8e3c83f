"""Addresses: TF's normal form and split, domain and url lists, and no network."""

import hashlib
import os
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c4_filters import urls
from c4_filters.urls import (
    DomainList,
    md5_key,
    normalize_url,
    page_key,
    parse_domain_list,
    parse_url_list,
    split_of,
    url_identity,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("http://example.org/a", "example.org/a"),
        ("https://www.example.org/a/", "example.org/a"),
        ("https://www.www.example.org", "www.example.org"),
        ("www.example.org", "www.example.org"),  # only after a scheme
        ("HTTP://example.org", "HTTP://example.org"),
        ("ftp://www.example.org", "ftp://www.example.org"),
        ("http://example.org/a?utm_source=x&page=2", "example.org/a"),
        ("http://example.org/a/?ref=home", "example.org/a"),
        ("http://example.org/?feed=rss", "example.org"),
        ("http://example.org/?page=2&utm_source=x", "example.org/?page=2&utm_source=x"),
        ("http://example.org/?referrer=x", "example.org"),
        ("http://example.org/?q=a///", "example.org/?q=a"),
        ("http://archive.example/http://www.example.org/", "archive.example/example.org"),
        ("http://", ""),
        ("", ""),
    ],
)
def test_the_normal_form(url, normal):
    assert normalize_url(url) == normal


URL_PIECES = ["http://", "https://", "www.", "example.org", "/", "?utm_", "?ref", "?feed", "?", "&"]
URLS = st.lists(st.sampled_from([*URL_PIECES, "a", "=", "é", "\n", "HTTP://", "#"])).map("".join)


@given(URLS | st.text(st.characters(codec="utf-8")))
def test_the_normal_form_is_that_of_the_reference(c4_utils, url):
    assert normalize_url(url) == c4_utils.normalize_url(url)


@given(URLS)
def test_the_split_is_that_of_the_reference(c4_utils, url):
    page = c4_utils.PageFeatures(normalized_url=url)
    is_validation = c4_utils.get_hashed_url_filter_fn(lambda number: number % 1000 == 0)(page)
    assert split_of(url) == ("validation" if is_validation else "train")
    assert md5_key(url) == int(hashlib.md5(url.encode()).hexdigest()[:16], 16)


def test_one_page_in_a_thousand_is_validation():
    pages = [f"example.org/{number}" for number in range(20_000)]
    expected = [
        page for page in pages if int(hashlib.md5(page.encode()).hexdigest(), 16) % 1000 == 0
    ]
    assert [page for page in pages if split_of(page) == "validation"] == expected
    assert 10 < len(expected) < 30


def test_identities_are_equal_for_equal_addresses_only():
    same = {url_identity(normalize_url(u)) for u in ("http://a.example/", "https://www.a.example")}
    assert len(same) == 1
    many = {f"example.org/{number}" for number in range(5_000)}
    assert len({url_identity(url) for url in many}) == len({page_key(url) for url in many}) == 5_000
    assert all(0 <= page_key(url) < 2**64 for url in many)
    # Shards and surviving copies hang on it: a change would break every resumed build.
    assert page_key("example.org/a") == 0x5AE7A218E05FB20B
    assert md5_key("example.org/a") == int(hashlib.md5(b"example.org/a").hexdigest()[:16], 16)


DOMAINS = {"example.org": True, "example.com": ["news", "en.sport", ""], "example.co.uk": True}


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://example.org/a", True),
        ("https://deep.sub.example.org/a", True),
        ("http://example.org:8080/a", True),
        ("http://notexample.org/a", False),
        ("http://example.org.evil.net/a", False),
        ("http://other.net/example.org", False),
        ("http://news.example.com/a", True),
        ("http://www.example.com/a", True),  # the normal form has no www: the empty subdomain
        ("http://en.sport.example.com/", True),
        ("http://sport.example.com/", False),
        ("http://old.news.example.com/", False),
        ("http://example.co.uk/", True),  # co.uk is a public suffix
        ("http://shop.example.co.uk/", True),
        ("http://example.uk/", False),
        ("http://co.uk/", False),
        ("http://127.0.0.1/", False),
        ("http://[::1]/", False),
        ("http://localhost/", False),
        ("", False),
    ],
)
def test_domains_and_subdomains(url, allowed):
    assert DomainList(DOMAINS).allows(normalize_url(url)) is allowed


HOSTS = st.lists(
    st.sampled_from(["example", "news", "org", "com", "co", "uk", "www", "EXAMPLE", "é", ""]),
    max_size=5,
).map(".".join)


@given(HOSTS, st.sampled_from(["", "/a", ":80/a", "?b", "@example.org"]))
def test_domains_are_allowed_as_by_the_reference(c4_utils, host, rest):
    tldextract = pytest.importorskip("tldextract")
    normalized = normalize_url(f"http://{host}{rest}")
    page = c4_utils.PageFeatures(normalized_url=normalized)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tldextract, "extract", urls._extract())  # the reference's would download
        expected = c4_utils.is_realnews_domain(page, DOMAINS)
    assert DomainList(DOMAINS).allows(normalized) == expected


def test_the_published_form_of_a_domain_list_is_read():
    news = parse_domain_list('{"example.org": true, "example.com": ["news"]}')
    assert news.allows("example.org")
    assert news.allows("news.example.com")
    assert not news.allows("shop.example.com")
    assert not parse_domain_list("{}").allows("example.org")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "domain list: not valid JSON: Expecting value"),
        ('{"example.org": true,\n"b"}', "domain list: not valid JSON: .*line 2"),
        ('["example.org"]', "domain list: must be a JSON object from domain to true or subdomains"),
        ('{"example.org": false}', "domain list: 'example.org' must map to true .*got False"),
        ('{"example.org": "news"}', "domain list: 'example.org' must map to true .*got 'news'"),
        ('{"example.org": [1]}', r"domain list: 'example.org' must map to true .*got \[1\]"),
        ('{"example.org": 1}', "domain list: 'example.org' must map to true .*got 1"),
    ],
)
def test_a_bad_domain_list_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_domain_list(text)
    assert "\n" not in str(caught.value)


def test_url_lists_skip_blank_lines_and_are_normalised():
    listed = parse_url_list(
        ["http://www.example.org/a/\n", "\n", "  ", "https://example.org/b\r\n"]
    )
    assert listed == {url_identity("example.org/a"), url_identity("example.org/b")}
    assert url_identity("") not in listed


WITHOUT_NETWORK = """
import socket

def refuse(*args, **kwargs):
    raise SystemExit(f"network used: {args}")

socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
from c4_filters.urls import DomainList
print(DomainList({"example.co.uk": True}).allows("shop.example.co.uk/a"))
"""


def test_domains_are_told_without_network_and_without_a_cache_on_disk(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment |= {"TLDEXTRACT_CACHE": str(tmp_path / "suffixes"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert list(tmp_path.iterdir()) == []
