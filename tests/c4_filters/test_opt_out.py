"""Opt-out lists: what each kind of entry covers, what is refused, and a slow twin."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c4_filters.opt_out import OptOut, parse_opt_out
from pipelines.text_files import decode_text

COVERED = [
    # A host has its sub-domains, whatever the address looks like.
    ("example.com", "https://example.com/"),
    ("example.com", "http://EXAMPLE.com:8080/a?b#c"),
    ("example.com", "https://user:word@a.b.example.com"),
    ("example.com", "https://example.com./a"),
    ("EXAMPLE.com.", "example.com/without-scheme"),
    ("https://example.com", "http://www.example.com/"),
    ("bücher.example", "https://xn--bcher-kva.example/a"),
    ("xn--bcher-kva.example", "https://shop.BÜCHER.example/a"),
    ("straße.example", "https://xn--strae-oqa.example/"),  # UTS 46, as browsers have it
    ("192.0.2.7", "http://192.0.2.7/a"),
    # Addresses are compared in the form in which url deduplication compares them.
    ("example.com/a", "https://www.example.com/a/"),
    ("https://www.example.com/A", "http://example.com/a?utm_source=x"),
    ("example.com/a", "https://example.com/a#top"),
    ("example.com/caf%C3%A9", "https://example.com/CAFÉ"),
    ("example.com/café", "https://example.com/caf%c3%a9"),
    ("example.com/", "https://example.com"),
    ("example.com/", "https://example.com//"),
    ("example.com/a", "https://example.com/a//"),
    ("example.com/a/", "https://example.com/a"),
    ("example.com/a//", "https://example.com/a/?utm_source=x"),
    ("example.com/*/a/", "https://example.com/b/a"),
    # Stars.
    ("example.com/private/*", "https://example.com/private/"),
    ("example.com/private/*", "https://example.com/private/a/b?c=d"),
    ("example.com/*/photos", "https://example.com/a/b/photos/"),
    ("example.com/*.pdf", "https://example.com/a.b.pdf"),
    ("*.example.com", "https://a.b.example.com/x"),
    ("*.bücher.example/a", "https://x.xn--bcher-kva.example/a"),
    ("example.*/a", "https://example.co.uk/a"),
    ("*/wp-admin/*", "https://anything.example/wp-admin/x"),
    ("example.com/%2A", "https://example.com/*"),
]
NOT_COVERED = [
    ("example.com", "https://notexample.com/"),
    ("example.com", "https://example.com.evil.example/"),
    ("example.com", "https://other.example/example.com/"),
    ("www.example.com", "https://example.com/"),
    ("straße.example", "https://strasse.example/"),
    ("example.com/a", "https://example.com/a/b"),
    ("example.com/a", "https://example.com/ab"),
    ("example.com/a", "https://m.example.com/a"),
    ("example.com/private/*", "https://example.com/private"),
    ("example.com/a?b", "https://example.com/ab"),  # ? is no wildcard
    ("example.com/a[bc]", "https://example.com/ab"),
    ("*.example.com", "https://example.com/"),
    ("*.example.com", "https://other.example/x.example.com/y"),  # a star of a host stays in it
    ("example.com/aa*aa", "https://example.com/aaa"),
]


@pytest.mark.parametrize(("entry", "url"), COVERED)
def test_an_entry_covers_an_address(entry: str, url: str) -> None:
    assert parse_opt_out(f"# a list\nelsewhere.example/x\n{entry}\n").entry_for(url) == entry


@pytest.mark.parametrize(("entry", "url"), NOT_COVERED)
def test_an_entry_does_not_cover_an_address(entry: str, url: str) -> None:
    assert parse_opt_out(entry).entry_for(url) is None


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("*", "every page"),
        ("*/*", "every page"),
        ("https://*.*/", "every page"),
        ("com", "every host below .com"),
        ("two words.example", "one entry a line"),
        ("a\x07b.example", "control character"),
        ("ftp://example.com/a", "ftp://"),
        ("example.com:80", "port"),
        ("me@example.com", "user"),
        ("example..com", "no host"),
        ("-example.com/a", "no host"),
        ("exa mple", "one entry"),
        (f"{'a' * 64}.example", "no host"),
        ("/just/a/path", "no host"),
        ("example.com?q=*", "needs a /"),
        ("example.com?q", "no host"),
        ("ex(a)mple*.com", "no host"),
        ("bü*.example", "outside ASCII"),
        ("example.com/a#b", "fragment"),
        ("example.com/?utm_source=x", "tracking"),
        ("example.com/" + "a" * 4_000, "4,012 characters"),
    ],
)
def test_bad_lines_are_refused_with_their_number(entry: str, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"^line 3: .*{re.escape(reason)}") as raised:
        parse_opt_out(f"good.example\n\n{entry}\n")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 250


def test_comments_blank_lines_and_marks_are_no_entries() -> None:
    text = decode_text(
        b"\xef\xbb\xbfexample.com\r\n# note\r\n\r\n\xef\xbb\xbfexample.org/a # asked\r\n"
    )
    listed = parse_opt_out(text)
    assert len(listed) == 2
    assert listed.entry_for("http://example.org/a") == "example.org/a"
    assert len(parse_opt_out("# nothing\n\n")) == 0
    assert parse_opt_out("").entry_for("http://example.org/") is None


PARTS = st.text("ab/*", max_size=6)


@given(st.lists(PARTS.map(lambda part: f"h.example/{part}"), min_size=1, max_size=6), PARTS)
def test_stars_mean_what_a_regular_expression_says(entries: list[str], path: str) -> None:
    opt_out = parse_opt_out("\n".join(entries))
    decoded = f"h.example/{path}"
    page = decoded.rstrip("/")  # slashes at the end do not tell pages apart
    covered = any(
        re.fullmatch(".*".join(map(re.escape, re.sub("/+$", "/", entry).split("*"))), form)
        for entry in entries
        for form in ([decoded] if entry.endswith("*") else [page, f"{page}/"])
    )
    assert (opt_out.entry_for(f"https://{decoded}") is not None) is covered


@given(st.text(max_size=40))
def test_any_text_is_an_address_that_can_be_asked_for(url: str) -> None:
    parse_opt_out("example.com\nexample.org/*x").entry_for(url)


@pytest.mark.slow
def test_a_hundred_thousand_entries_do_not_slow_an_address_down() -> None:
    lines = [f"h{n}.example\np.example/{n}/x*\n*.w{n}.example/a" for n in range(34_000)]
    started = time.process_time()
    opt_out = parse_opt_out("\n".join(lines))
    parsing = time.process_time() - started
    urls = [f"https://www.site{n}.example/some/long/path/to/{n}.html?a=b" for n in range(2_000)]
    urls += [f"https://p.example/{n}/x/y" for n in range(2_000)]
    started = time.process_time()
    found = sum(opt_out.entry_for(url) is not None for url in urls)
    each = (time.process_time() - started) / len(urls)
    assert found == 2_000
    assert parsing < 10
    assert each < 200e-6  # some 5 µs on a quiet machine


def test_many_stars_take_no_longer_than_one() -> None:
    opt_out = parse_opt_out(f"example.com/{'*a' * 1_000}b")
    started = time.process_time()
    assert opt_out.entry_for(f"https://example.com/{'a' * 100_000}") is None
    assert time.process_time() - started < 2


def test_an_empty_list_is_usable() -> None:
    assert len(OptOut([], [])) == 0
