"""The fuzzing targets: each takes any bytes and raises AssertionError if a property fails.

Any other exception is a finding too, except those that the code under test declares, which the
targets catch. If a slow and plain implementation is cheap enough, both results are compared.
"""

import functools
import hashlib
import io
import random
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable
from unittest import mock

from c4_filters.badwords import BadWords
from c4_filters.dates import is_date
from c4_filters.explain import explain_page
from c4_filters.language import detect_language
from c4_filters.lines import PAGE_DROPPING, clean_text, judge_line, split_lines
from c4_filters.pages import PageRules, RawPage, tf_pages
from c4_filters.recipes import RECIPES, Recipe
from c4_filters.sentences import sentence_splitter
from c4_filters.spans import cut, unit_identities
from c4_filters.urls import (
    DomainList,
    hash_fraction,
    md5_key,
    normalize_url,
    page_key,
    split_of,
    url_identity,
)
from c4_filters.verdicts import LineVerdict, PageVerdict
from pipelines.corpus import layout
from pipelines.printing import printable
from pipelines.stages.clean_files import page_digest
from pipelines.wet import records as reader
from pipelines.wet import results
from pipelines.wet.results import ReadStats, Reject, UnreadableWetError, WetRecord
from testing.warc import gzip_member

Check = Callable[[bytes], None]

# Far above what any input of this length costs, far below the cost of an input that is read
# again for each of its bytes. A busy machine may be slow once: the input is tried again then.
_MOST_S = 0.1
_MOST_S_PER_BYTE = 20e-6


def timed(check: Check) -> Check:
    """Run the same check, and fail if an input costs more CPU than its length explains."""

    @functools.wraps(check)
    def within(data: bytes) -> None:
        spent = 0.0
        for _ in range(3):
            started = time.process_time()
            check(data)
            spent = time.process_time() - started
            if spent < _MOST_S + _MOST_S_PER_BYTE * len(data):
                return
        raise AssertionError(f"{spent:.2f} s for {len(data)} bytes")

    return within


# The record reader --------------------------------------------------------------------------


@timed
def check_reader(data: bytes) -> None:
    """Check a WET file. The first bytes say how the rest is packed, and which bounds hold."""
    if len(data) < 3:
        return
    how, more, spot = data[:3]
    stored = _packed(data[3:], how & 7, more, spot)
    limits = {
        "max_record_bytes": (results.MAX_RECORD_BYTES, 300)[how >> 3 & 1],
        "max_file_bytes": (results.MAX_FILE_BYTES, 1000)[how >> 4 & 1],
    }
    found = _read_checked(stored, limits)
    with mock.patch.object(reader, "_plain_record", _never_plain):
        tolerant = _read_checked(stored, limits)
    assert tolerant == found, "the fast path and the tolerant path disagree"


def _never_plain(*_: object) -> None:
    """Send every record to the tolerant path."""


def _packed(text: bytes, how: int, more: int, spot: int) -> bytes:
    """Pack a text: 0 not at all, 1 as one gzip member, 2 to 7 one per record, with damage."""
    if how == 0:
        return text
    parts = [text] if how == 1 else [part for part in re.split(rb"(?=WARC/1)", text) if part]
    stored = [gzip_member(part, more & 1) for part in parts]
    if how == 3 and stored:
        at = spot % len(stored)
        hit = bytearray(stored[at])
        hit[more * len(hit) >> 8] ^= spot or 1
        stored[at] = bytes(hit)
    elif how == 4:
        stored.insert(spot % (len(stored) + 1), text[: more + 1])
    elif how == 5:
        return b"".join(stored)[: -spot or None]
    elif how == 6:  # members cut anywhere
        size = more + 1
        stored = [gzip_member(text[i : i + size], 0) for i in range(0, min(len(text), 4096), size)]
    return b"".join(stored)


def _read_checked(stored: bytes, limits: dict[str, int]) -> list[WetRecord | Reject | str]:
    stats = ReadStats()
    found: list[WetRecord | Reject | str] = []
    unreadable = ""
    try:
        found += reader.read_wet(io.BytesIO(stored), stats, **limits)
    except UnreadableWetError as error:
        unreadable = str(error)
    if unreadable:
        assert not any(isinstance(item, WetRecord) for item in found)
        assert stats.rejected_pages == 0
        assert stats.records or not found
        assert unreadable.isprintable()
        found.append(unreadable)
    assert stats.bytes_read == len(stored)
    assert stats.sha256 == hashlib.sha256(stored).hexdigest()
    records = [item for item in found if isinstance(item, WetRecord)]
    rejects = [item for item in found if isinstance(item, Reject)]
    assert stats.rejected_records == sum(reject.is_record for reject in rejects)
    assert stats.records == len(records) + stats.rejected_records + stats.other_records.total()
    places = [(item.offset, item.inner_offset) for item in (*records, *rejects)]
    assert all(0 <= offset <= len(stored) and inner >= 0 for offset, inner in places)
    in_order = [(i.offset, i.inner_offset) for i in found if not isinstance(i, str)]
    assert in_order == sorted(in_order)
    for record in records:
        assert record.url
        assert is_date(record.timestamp)
        assert len(record.text.encode()) <= limits["max_record_bytes"]
    assert sum(len(record.text.encode()) for record in records) <= limits["max_file_bytes"]
    for reject in rejects:
        assert reject.detail.isprintable()
        assert 0 < len(reject.detail) <= results.MAX_DETAIL_CHARS
    return found


# The rules --------------------------------------------------------------------------


@timed
def check_lines(data: bytes) -> None:
    """Check the line rules of a recipe on a page, line by line and at once."""
    recipe = _LINE_RECIPES[data[0] % len(_LINE_RECIPES)] if data else _LINE_RECIPES[0]
    text = data[1:].decode("utf-8", "replace")
    counts: Counter[str] = Counter()
    result = clean_text(text, recipe, counts)
    kept: list[str] = []
    expected: Counter[str] = Counter()
    page = PageVerdict.KEPT
    lines = split_lines(text)
    for position, line in enumerate(lines):
        verdict, left = judge_line(line, recipe)
        if verdict is LineVerdict.KEPT:
            kept.append(left)
            continue
        expected[verdict] += 1
        if verdict in PAGE_DROPPING:
            page = PAGE_DROPPING[verdict]
            expected[LineVerdict.ON_DROPPED_PAGE] += len(kept) + len(lines) - position - 1
            kept = []
            break
    expected["lines_read"] = len(lines)
    assert result == ("\n".join(kept), len(kept), page)
    assert +counts == +expected


_TINY = Recipe(
    name="tiny",
    max_word_chars=3,
    min_words_per_line=1,
    min_sentences=1,
    min_sentences_after_dedup=1,
)
_ANY = Recipe(name="any", max_word_chars=9, min_words_per_line=0)
_LINE_RECIPES = (RECIPES["en"], RECIPES["en.paper_v3"], _TINY, _ANY)
_PAGE_RECIPES = (*RECIPES.values(), _TINY)


@functools.cache
def _rules(number: int) -> PageRules:
    recipe = _PAGE_RECIPES[number]
    words = {"en": ["heck", "darn it", "ümlaut"], "zh": ["坏"], "de": ["mist"]}
    domains = DomainList({"example.org": True, "example.com": ["news"]})
    listed = frozenset({url_identity("example.org/listed")})
    return PageRules(recipe, words, domains, listed)


@timed
def check_pages(data: bytes) -> None:
    """Check all rules of a recipe, and deduplication, on a page (first line: its address)."""
    if not data:
        return
    rules = _rules(data[0] % len(_PAGE_RECIPES))
    recipe = rules.recipe
    text = data[1:].decode("utf-8", "replace")
    url, _, text = text.partition("\n")
    page = RawPage(url, "2019-04-18T10:00:00Z", "text/plain", str(len(text)), text)
    parts = tf_pages(page, Counter()) if recipe.drop_parser_accidents else [page]
    counts: Counter[str] = Counter()
    results = rules.clean_all(parts, counts)
    read = counts.pop("lines_read")
    assert read == counts.total() + sum(result.lines for result in results)
    for part, result in zip(parts, results, strict=True):
        explained = explain_page(part, rules)
        assert len(page_digest(part, result.text)) == 16
        if result.verdict is not PageVerdict.KEPT:
            assert (result.text, result.lines) == ("", 0)
            assert explained.result.verdict is result.verdict
            continue
        if recipe.verbatim:
            assert result.text == part.text
        else:
            assert result.text == result.text.strip() != ""
            _check_units(result.text, rules, data)
        finished = rules.finish(result.text, None, part.url)
        if recipe.order == "dedup_first":
            assert explained.result.verdict is finished.verdict


def _check_units(text: str, rules: PageRules, data: bytes) -> None:
    starts = rules.splitter.line_starts(text)
    assert starts == sorted(set(starts))
    assert all(0 <= start < len(text) and not text[start].isspace() for start in starts[:1])
    assert len(unit_identities(text, starts)) == 16 * len(starts)
    chance = random.Random(zlib.crc32(data))
    gone = [chance.random() < 0.5 for _ in starts]
    left = cut(text, starts, gone)
    assert len(left) <= len(text)
    if not any(gone):
        assert left == text
    assert cut(text, starts, [False] * len(starts)) == text


@timed
def check_sentences(data: bytes) -> None:
    """Check our sentence splitter against NLTK's on a text."""
    from benchmarks.sentences import nltk_line_starts, nltk_spans

    text = data[:600].decode("utf-8", "replace")
    splitter = sentence_splitter()
    spans = nltk_spans("english", text)
    assert splitter.spans(text) == spans
    assert splitter.count(text) == len(spans)
    assert splitter.line_starts(text) == nltk_line_starts("english", text)


# Addresses --------------------------------------------------------------------------

_PARTS = re.compile(r"[/\\\0]")
_DOMAINS = DomainList({"example.org": True, "co.uk": True, "example.com": ["news"]})
_LONGEST_NAME = 255  # bytes, on most file systems


@timed
def check_urls(data: bytes) -> None:
    """Check an address: its normal form, its keys, and the file names made from it."""
    url = data.decode("utf-8", "replace")
    normalized = normalize_url(url)
    assert len(normalized) <= len(url)
    assert not normalized.endswith("/")
    assert re.search(r"https?://", normalized) is None or "http" in url[1:]
    key, identity = page_key(normalized), url_identity(normalized)
    assert 0 <= key < 1 << 64
    assert key.to_bytes(8, "little") == identity[:8]
    assert len(identity) == 16
    assert 0 <= md5_key(url) < 1 << 64
    assert 0 <= hash_fraction(normalized, 7) < 7
    assert split_of(normalized) in ("train", "validation")
    assert isinstance(BadWords({}, 0.5).kept_by_chance(normalized), bool)
    assert _DOMAINS.allows(normalized) in (True, False)
    assert printable(url).isprintable()
    # A path holds no zero byte; this one comes from the user, and may hold anything else.
    name = layout.file_name(data.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
    assert _PARTS.search(name) is None
    assert name not in ("", ".", "..")
    longest = f".{name}.arrow.tmp-{'0' * 32}"
    assert len(longest.encode("utf-8", "surrogateescape")) <= _LONGEST_NAME


# Growth --------------------------------------------------------------------------


@functools.cache
def _growing() -> tuple[Callable[[str], object], ...]:
    """Return what is done to a text many times longer than it was."""
    return (
        *(functools.partial(_whole_way, _rules(number)) for number in range(len(_PAGE_RECIPES))),
        detect_language,
        lambda text: sentence_splitter().spans(text),
        lambda text: _DOMAINS.allows(normalize_url(text[:65_536])),
        lambda text: _read_some(text.encode()),
        lambda text: _read_some(_packed(text.encode(), 2, 1, 0)),
    )


def _whole_way(rules: PageRules, text: str) -> None:
    url, _, text = text.partition("\n")
    page = RawPage(url[:65_536], "2019", "", "", text)
    for part in tf_pages(page, Counter()) if rules.recipe.drop_parser_accidents else [page]:
        result = rules.clean(part, Counter())
        if result.text:
            starts = rules.splitter.line_starts(result.text)
            cut(result.text, starts, [i % 2 == 0 for i in range(len(starts))])
            rules.finish(result.text, None, part.url)


def _read_some(stored: bytes) -> None:
    try:
        for _ in reader.read_wet(io.BytesIO(stored), ReadStats()):
            pass
    except UnreadableWetError:
        pass


_SHORT, _LONG = 24_000, 96_000  # characters
_SLOW_S = 0.15  # less than that may be anything


def check_growth(data: bytes) -> None:
    """Check that text four times as long costs at most eight times as much.

    The text is a head, a middle that is repeated often, and a tail.
    """
    if len(data) < 4:
        return
    which, first, second = data[0], data[1], data[2]
    text = data[3:].decode("utf-8", "replace")
    one, two = sorted((first * len(text) >> 8, second * len(text) >> 8))
    head, middle, tail = text[:one], text[one : two + 1], text[two + 1 :]
    if not middle:
        return
    of = _growing()[which % len(_growing())]
    texts = [head + middle * (size // len(middle)) + tail for size in (_SHORT, _LONG)]
    costs = []
    for _ in range(3):
        costs = []
        for grown in texts:
            started = time.process_time()
            of(grown)
            costs.append(time.process_time() - started)
        if costs[1] < _SLOW_S or costs[1] < 8 * costs[0]:
            return
    raise AssertionError(f"{costs[0]:.2f} s, and {costs[1]:.2f} s for four times as much")
