import base64
import hashlib
import io
import re
import unicodedata
import zlib
from collections import Counter

import pytest
import warcio

from c4_filters.verdicts import PageVerdict, RejectReason
from samples import make_samples
from samples.make_samples import SamplePage
from testing.warc import gzip_member

# No page of recipe en can get these: they belong to rules of other recipes.
OTHER_RECIPES = {
    PageVerdict.DOMAIN,
    PageVerdict.URL_NOT_LISTED,
    PageVerdict.FEW_PARAGRAPHS,
    PageVerdict.OPTED_OUT,
    PageVerdict.NEAR_DUPLICATE,
}
# Would need a record larger than any bound that a reader is likely to have, or other sources.
NOT_SHOWN = {
    RejectReason.TOO_LARGE,
    RejectReason.BAD_JSON,
    RejectReason.BAD_TEXT,
    RejectReason.BAD_MARKUP,
    RejectReason.DAMAGED,
}
REJECTS = set(map(str, RejectReason))


@pytest.fixture(scope="module")
def pages():
    return make_samples.read_pages()


@pytest.fixture(scope="module")
def files(pages):
    return make_samples.wet_files(pages)


def normalized(url):
    return re.sub(r"\?(utm_|ref|feed).*", "", re.sub(r"https?://(www\.)?", "", url)).rstrip("/")


def fault_record(pages, fault):
    (page,) = (page for page in pages if page.fault == fault)
    return page, make_samples.record_bytes(page)


def members(content):
    """Uncompressed content of each gzip member, found by decompressing, not by counting."""
    found = []
    while content:
        inflate = zlib.decompressobj(31)
        found.append(inflate.decompress(content))
        content = inflate.unused_data
        assert inflate.eof or not content
    return found


# --- the committed files ---------------------------------------------------------------------


def test_committed_files_are_those_that_the_sources_give(files):
    committed = {path.name: path.read_bytes() for path in make_samples.WET_DIR.iterdir()}
    assert committed.keys() == files.keys()
    if "ng" in zlib.ZLIB_RUNTIME_VERSION:
        # zlib-ng compresses to other bytes; what they decompress to is what must not drift.
        whole = [n for n in files if n.endswith(".gz") and "truncated" not in n]
        whole = [n for n in whole if "broken" not in n]
        assert {n: members(committed[n]) for n in whole} == {n: members(files[n]) for n in whole}
    else:
        stale = [name for name in files if files[name] != committed[name]]
        assert not stale, f"run python -m samples.make_samples, these files drifted: {stale}"


def test_committed_files_stay_small(files):
    assert sum(map(len, files.values())) < 400_000


def test_sources_give_the_same_bytes_twice(files):
    assert make_samples.wet_files(make_samples.read_pages()) == files


# --- the records -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["00000", "00001", "00002"])
def test_each_record_of_a_whole_file_is_a_gzip_member_of_its_own(pages, files, number):
    records = members(files[f"sample-{number}.warc.wet.gz"])
    assert [record.count(b"WARC/1.0\r\nWARC-Type: ") for record in records] == [1] * len(records)
    assert len(records) == 1 + sum(page.wet == number for page in pages)


@pytest.mark.parametrize("number", ["00000", "00001", "00002"])
def test_an_independent_reader_finds_the_pages_and_confirms_their_digests(pages, files, number):
    name = next(name for name in files if number in name)
    reader = warcio.ArchiveIterator(io.BytesIO(files[name]), check_digests="raise")
    records = [(record, record.content_stream().read()) for record in reader]
    assert records[0][0].rec_type == "warcinfo"
    assert records[0][0].rec_headers.get_header("WARC-Filename") == name
    found = [
        (
            record.rec_headers.get_header("WARC-Target-URI"),
            record.rec_headers.get_header("WARC-Date"),
            record.rec_headers.get_header("WARC-Identified-Content-Language"),
            record.rec_headers.get_header("Content-Length"),
            record.content_type,
            payload.decode(),
        )
        for record, payload in records[1:]
    ]
    assert found == [
        (p.url, p.date, p.language, str(len(p.text.encode())), "text/plain", p.text)
        for p in pages
        if p.wet == number
    ]


def test_an_independent_reader_finds_the_uncompressed_pages(pages):
    whole = [page for page in pages if page.wet == "uncompressed" and page.fault is None]
    content = make_samples.wet_files(whole)["sample-uncompressed.warc.wet"]
    reader = warcio.ArchiveIterator(io.BytesIO(content), check_digests="raise")
    payloads = [record.content_stream().read().decode() for record in reader]
    assert payloads[1:] == [page.text for page in whole]
    (page, cut) = fault_record(pages, "end_unknown")
    committed = make_samples.WET_DIR / "sample-uncompressed.warc.wet"
    assert committed.read_bytes() == content + cut
    assert page.wet == "uncompressed"


def test_record_bytes_by_hand():
    page = SamplePage(
        name="x",
        shows="",
        wet="0",
        expect="kept",
        text="é.\n",
        url="https://x.example/",
        date="2019-04-18T00:00:00Z",
        language="fra",
    )
    digest = base64.b32encode(hashlib.sha1("é.\n".encode()).digest()).decode()
    head, _, body = make_samples.record_bytes(page).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert body == "é.\n".encode() + b"\r\n\r\n"
    assert lines[:4] == [
        "WARC/1.0",
        "WARC-Type: conversion",
        "WARC-Target-URI: https://x.example/",
        "WARC-Date: 2019-04-18T00:00:00Z",
    ]
    assert lines[6:] == [
        f"WARC-Block-Digest: sha1:{digest}",
        "WARC-Identified-Content-Language: fra",
        "Content-Type: text/plain",
        "Content-Length: 4",
    ]


def test_record_ids_differ(pages):
    ids = re.findall(rb"WARC-Record-ID:? (\S+)", b"".join(map(make_samples.record_bytes, pages)))
    assert len(set(ids)) == len(ids) == len(pages) - sum(p.fault == "not_warc" for p in pages)


# --- the faults ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "header"), [("no_url", b"WARC-Target-URI"), ("no_date", b"WARC-Date")]
)
def test_missing_header(pages, fault, header):
    assert header not in fault_record(pages, fault)[1]


def test_latin_1_payload_is_not_utf8_but_its_length_is_right(pages):
    _, record = fault_record(pages, "latin_1")
    head, _, body = record.partition(b"\r\n\r\n")
    with pytest.raises(UnicodeDecodeError):
        body.decode()
    assert int(re.search(rb"Content-Length: (\d+)", head)[1]) == len(body) - len(b"\r\n\r\n")


def test_bad_header_has_no_readable_field(pages):
    _, record = fault_record(pages, "bad_header")
    head = record.partition(b"\r\n\r\n")[0]
    assert head.startswith(b"WARC/1.0\r\nWARC-Type conversion\r\n")
    assert b": " not in head


def test_length_that_is_no_number(pages):
    page, record = fault_record(pages, "length_no_number")
    assert b"\r\nContent-Length: about a page\r\n" in record
    assert record.endswith(page.text.encode() + b"\r\n\r\n")


def test_record_whose_end_nobody_knows(pages, files):
    page, record = fault_record(pages, "end_unknown")
    body = record.partition(b"\r\n\r\n")[2]
    assert page.text.encode().startswith(body)
    assert body.endswith(b"are gone.")
    assert b"\r\nContent-Length: about a page\r\n" in record
    assert files["sample-uncompressed.warc.wet"].endswith(record)


def test_stray_member_is_no_record(pages, files):
    page, record = fault_record(pages, "not_warc")
    assert record == page.text.encode()
    assert gzip_member(record) in files["sample-broken-records.warc.wet.gz"]


def test_corrupt_member_fails_and_its_neighbours_do_not(pages, files):
    content = files["sample-broken-records.warc.wet.gz"]
    broken = [page for page in pages if page.wet == "broken-records"]
    page, record = fault_record(pages, "corrupt_gzip")
    before = broken[: broken.index(page)]
    after = broken[broken.index(page) + 1 :]
    start = content.index(gzip_member(make_samples.record_bytes(before[-1])))
    start += len(gzip_member(make_samples.record_bytes(before[-1])))
    assert content[start : start + 3] == b"\x1f\x8b\x08"
    inflate = zlib.decompressobj(31)
    with pytest.raises(zlib.error):
        inflate.decompress(content[start:])
    tail = content[start + len(gzip_member(record)) :]
    assert members(tail) == [make_samples.record_bytes(page) for page in after]


def test_truncated_file_ends_inside_its_last_record(pages, files):
    page, record = fault_record(pages, "truncated")
    last = members(files["sample-truncated.warc.wet.gz"])[-1]
    assert 0 < len(last) < len(record)
    assert record.startswith(last)
    assert page.url.encode() in last


def test_broken_records_stand_between_good_pages(pages):
    broken = [page for page in pages if page.wet == "broken-records"]
    assert broken[0].fault is None
    assert broken[-1].fault is None
    assert sum(page.fault is None for page in broken) >= 3


# --- what the samples cover ------------------------------------------------------------------


def test_every_verdict_of_the_default_recipe_is_shown(pages):
    shown = {page.expect for page in pages}
    assert shown >= set(map(str, set(PageVerdict) - OTHER_RECIPES))
    assert shown >= set(map(str, set(RejectReason) - NOT_SHOWN))


def test_counts_by_kind(pages):
    verdicts = Counter(page.expect for page in pages)
    assert len(pages) >= 100
    assert verdicts["kept"] >= 50
    languages = Counter(page.language.partition(",")[0] for page in pages if page.language)
    assert languages.most_common(1)[0][0] == "eng"
    assert languages.keys() >= {"deu", "fra", "ron", "spa", "rus", "jpn", "zho", "ara"}


def test_a_page_is_rejected_exactly_when_its_record_is_broken(pages):
    fatal = make_samples.FAULTS - {"length_no_number"}
    assert all((page.expect in REJECTS) == (page.fault in fatal) for page in pages)
    assert {page.fault for page in pages} == make_samples.FAULTS | {None}


@pytest.mark.parametrize(
    "phrase",
    [
        "terms of use",
        "privacy policy",
        "cookie policy",
        "uses cookies",
        "use of cookies",
        "use cookies",
    ],
)
def test_each_policy_phrase_stands_on_a_line_that_would_pass_otherwise(pages, phrase):
    (page,) = (page for page in pages if page.name == "policy-phrases")
    lines = [line for line in page.text.split("\n") if phrase in line.lower()]
    assert len(lines) == 1
    assert lines[0].endswith(".")
    assert len(lines[0].split()) >= 5


def test_word_lengths_stand_on_both_sides_of_the_limit(pages):
    (page,) = (page for page in pages if page.name == "long-word")
    longest = sorted(map(len, page.text.split()))[-2:]
    assert longest == [1000, 1001]


def test_page_lengths_stand_on_both_sides_of_the_limit(pages):
    lengths = {p.name: len(p.text) for p in pages if len(p.text) > 10_000}
    assert lengths == {"just-short-enough": 190_000, "too-long": 190_001}


def test_filler_repeats_no_line(pages):
    (page,) = (page for page in pages if page.name == "just-short-enough")
    lines = page.text.split("\n")
    assert len(set(lines)) == len(lines)


def test_splits(pages):
    for page in pages:
        if page.url is not None:
            digest = hashlib.md5(normalized(page.url).encode()).hexdigest()
            split = "train" if int(digest, 16) % 1000 else "validation"
            assert (page.name, page.split) == (page.name, split)
    assert {page.split for page in pages} == {"train", "validation"}


def test_duplicate_urls_have_a_newer_kept_page_with_another_spelling(pages):
    older = [page for page in pages if page.expect == "duplicate_url"]
    assert len(older) == 3
    (newest,) = (page for page in pages if page.name == "url-newest")
    assert {normalized(page.url) for page in older} == {normalized(newest.url)}
    assert all(page.date < newest.date for page in older)
    assert len({page.url for page in [*older, newest]}) == 4
    assert len({page.wet for page in [*older, newest]}) == 3


def test_no_other_pages_share_a_url(pages):
    counts = Counter(normalized(page.url) for page in pages if page.url)
    twice = {url for url, n in counts.items() if n > 1}
    assert twice == {"harbourcam.example/today", "bandstand.example.org/programme"}


def test_copies_span_files_and_agree_on_what_is_expected(pages):
    sets = {}
    for page in pages:
        if page.copies:
            sets.setdefault(page.copies, []).append(page)
    assert sets.keys() == {"twin", "layout", "franchise"}
    for group in sets.values():
        assert len(group) >= 2
        assert len({page.expect for page in group}) == 1
        assert len({page.wet for page in group}) >= 2
    assert len({page.text for page in sets["twin"]}) == 1


def test_kept_and_lost_pieces_stand_in_the_source(pages):
    cut = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
    for page in pages:
        assert all(piece in cut.sub("", page.text) for piece in page.keeps), page.name
        assert all(piece in page.text for piece in page.loses), page.name
        if page.keeps or page.loses:
            assert page.expect == "kept", page.name


def test_only_reserved_hosts(pages):
    # RFC 2606: example.com, .net and .org, and everything under .example
    reserved = re.compile(r"https?://([\w-]+\.)*(example(\.(com|net|org))?)/")
    assert [page.url for page in pages if page.url and not reserved.match(page.url)] == []
    assert len({page.url.split("/")[2] for page in pages if page.url}) >= 60


def test_odd_white_space_is_there(pages):
    (page,) = (page for page in pages if page.name == "odd-white-space")
    assert {"\u00a0", "\u2028", "\u3000", "\u200b", "\ufeff", "\t", "\r"} <= set(page.text)


def test_right_to_left_text_is_there(pages):
    (page,) = (page for page in pages if page.language == "ara")
    assert sum(unicodedata.bidirectional(letter) == "AL" for letter in page.text) > 300


def test_every_page_says_what_it_shows(pages):
    assert all(len(page.shows) > 20 and "\n" not in page.shows for page in pages)


# --- checks of the sources -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expect": "keept"}, "expect must be a PageVerdict"),
        ({"also": {"de": "dropped"}}, "expect must be a PageVerdict"),
        ({"fault": "no_text"}, "fault must be one of"),
        ({"url": None}, "url must be given unless"),
        ({"fault": "no_date"}, "date must be given unless"),
    ],
)
def test_a_wrong_source_is_refused(change, message):
    good = {
        "name": "x",
        "shows": "",
        "wet": "0",
        "expect": "kept",
        "text": "",
        "url": "https://x.example/",
        "date": "2019-04-18T00:00:00Z",
    }
    SamplePage(**good)
    with pytest.raises(ValueError, match=message):
        SamplePage(**{**good, **change})


def write_group(folder, *names):
    tables = [
        f'[[page]]\nname = "{name}"\nshows = ""\nurl = "https://x.example/"\n'
        f'date = "2019-04-18T00:00:00Z"\nexpect = "kept"\ntext = "a"\n'
        for name in names
    ]
    (folder / "group.toml").write_text('wet = "0"\n' + "".join(tables), encoding="utf-8")


def test_names_must_differ(tmp_path):
    write_group(tmp_path, "a", "b")
    assert [page.name for page in make_samples.read_pages(tmp_path)] == ["a", "b"]
    write_group(tmp_path, "a", "a")
    with pytest.raises(ValueError, match="sample names must differ, got 'a' twice"):
        make_samples.read_pages(tmp_path)


def test_a_page_after_a_truncated_one_is_refused(pages):
    page, _ = fault_record(pages, "truncated")
    with pytest.raises(ValueError, match="only the last page"):
        make_samples.wet_files([page, page])
