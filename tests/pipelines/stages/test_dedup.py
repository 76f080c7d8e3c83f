"""Deduplication of a whole corpus, stage by stage as the graph calls them, against the rules."""

import dataclasses
import hashlib
import itertools
import pathlib
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable

import mmh3
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from c4_filters.opt_out import parse_opt_out
from c4_filters.pages import PageRules
from c4_filters.recipes import Recipe
from c4_filters.spans import PAGE_BYTES, SPAN_BYTES, pack_settled, unpack_settled
from c4_filters.urls import md5_key, normalize_url
from c4_filters.verdicts import LineVerdict, PageVerdict
from pipelines import storage
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CleanedFile
from pipelines.corpus.removals import Removals
from pipelines.stages import dedup, older_files
from pipelines.stages.clean_files import FileSummary, clean_file
from pipelines.stages.merge_files import cleaned_sources
from pipelines.stages.write_shards import ShardSummary, plan_shards, write_shard
from testing.helpers import read_corpus, write_wet

# Nothing but deduplication decides: every page of enough sentences passes the rules.
SPANS = Recipe(name="spans", languages=(), min_language_probability=0.0, bad_words=False)
LINES = dataclasses.replace(
    SPANS, name="lines", dedup_unit="lines", dedup_window=1, order="dedup_first"
)

SENTENCES = [
    "The river runs down to the old mill.",
    "Nobody has seen the miller since spring.",
    "the river runs down to the OLD mill.",  # the first, but for case
    "We walked home along the muddy towpath.",
    "Was the bridge closed for the whole winter?",
]
FATAL = "This line has a curly { bracket in it."
# The first and last of these fall into validation.
URLS = [
    "http://v.example/933",
    "http://www.a.example/1",
    "https://a.example/1/?utm_source=x",  # the same page as the one before
    "http://b.example/2",
    "http://c.example/3",
    "http://d.example/4",
    "http://e.example/5",
    "http://v.example/8161",
]
DATES = ["2019-04-18T10:00:00Z", "2019-04-18T10:00:01Z", "2019-04-26T00:00:00Z"]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A page before it is written: its lines as lists of sentences."""

    url: str
    date: str
    lines: tuple[tuple[str, ...], ...]

    @property
    def text(self) -> str:
        return "\n".join(" ".join(line) for line in self.lines)

    @property
    def sentences(self) -> list[str]:
        return [sentence for line in self.lines for sentence in line]

    @property
    def md5(self) -> int:
        normalized = normalize_url(self.url).encode()
        return int(hashlib.md5(normalized, usedforsecurity=False).hexdigest(), 16)

    @property
    def split(self) -> str:
        return "validation" if self.md5 % 1000 == 0 else "train"

    @property
    def key(self) -> int:
        digest = mmh3.mmh3_x64_128_digest(normalize_url(self.url).encode())
        return int.from_bytes(digest[:8], "little")

    @property
    def content_hash(self) -> bytes:
        length = str(len(self.text.encode()))
        fields = (self.url, self.date, "text/plain", length, self.text)
        return mmh3.mmh3_x64_128_digest("\0".join(fields).encode())


def drawn_pages(min_lines: int = 1) -> st.SearchStrategy[Drawn]:
    lines = st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=3).map(tuple)
    return st.builds(
        Drawn,
        url=st.sampled_from(URLS),
        date=st.sampled_from(DATES),
        lines=st.lists(lines, min_size=min_lines, max_size=5).map(tuple),
    )


# ------------------------------------------------------------------------------------- the twin


@dataclasses.dataclass
class Expected:
    """What the rules, written out naively, make of a corpus."""

    texts: dict[str, list[tuple[str, str]]]  # split -> (url, text) by page key
    dropped: Counter[str]


def newest_of_each_url(pages: Iterable[Drawn]) -> list[Drawn]:
    groups = defaultdict(list)
    for page in pages:
        groups[normalize_url(page.url)].append(page)
    kept = []
    for group in groups.values():
        newest = max(page.date for page in group)
        kept.append(min((p for p in group if p.date == newest), key=lambda p: p.content_hash))
    return kept


def without(page: Drawn, gone: set[int]) -> str:
    """The page's text without the sentences of these numbers; emptied lines vanish."""
    numbers = itertools.count()
    lines = ([(next(numbers), sentence) for sentence in line] for line in page.lines)
    left = (" ".join(text for number, text in line if number not in gone) for line in lines)
    return "\n".join(line for line in left if line)


def expected_of_spans(pages: list[Drawn], window: int, min_sentences: int) -> Expected:
    """Spec: rules, then urls, then spans; the smallest by (page key, position) stays."""
    dropped: Counter[str] = Counter()
    passed = []
    for page in pages:
        if FATAL in page.sentences:
            dropped[PageVerdict.CURLY_BRACKET] += 1
        elif len(page.sentences) < 3:
            dropped[PageVerdict.FEW_SENTENCES] += 1
        else:
            passed.append(page)
    remaining = newest_of_each_url(passed)
    dropped[PageVerdict.DUPLICATE_URL] = len(passed) - len(remaining)
    occurrences = defaultdict(list)
    for page in remaining:
        words = [sentence.lower().strip() for sentence in page.sentences]
        for at in range(len(words) - window + 1):
            occurrences["\n".join(words[at : at + window])].append((page.key, at))
    gone: dict[int, set[int]] = defaultdict(set)
    for places in occurrences.values():
        for key, at in set(places) - {min(places)}:
            gone[key] |= set(range(at, at + window))
    texts: dict[str, list[tuple[str, str]]] = {"train": [], "validation": []}
    for page in sorted(remaining, key=lambda page: page.key):
        left = len(page.sentences) - len(gone[page.key])
        if gone[page.key] and not left:
            dropped[PageVerdict.EMPTY_AFTER_DEDUP] += 1
        elif gone[page.key] and left < min_sentences:
            dropped[PageVerdict.FEW_SENTENCES_AFTER_DEDUP] += 1
        else:
            texts[page.split].append((page.url, without(page, gone[page.key])))
    return Expected(texts, +dropped)


def expected_of_lines(pages: list[Drawn], min_sentences: int) -> Expected:
    """Spec, line dedup: urls over all pages, rules, then lines; the smallest md5(url) keeps it."""
    dropped: Counter[str] = Counter()
    remaining = newest_of_each_url(pages)
    passed = []
    for page in pages:
        if FATAL in page.sentences:
            dropped[PageVerdict.CURLY_BRACKET] += 1
        elif len(page.sentences) < 3:
            dropped[PageVerdict.FEW_SENTENCES] += 1
        elif any(page is other for other in remaining):
            passed.append(page)
        else:
            dropped[PageVerdict.DUPLICATE_URL] += 1
    seen: set[str] = set()
    texts: dict[str, list[tuple[str, str]]] = {"train": [], "validation": []}
    kept: list[tuple[Drawn, str]] = []
    for page in sorted(
        passed, key=lambda p: hashlib.md5(p.url.encode(), usedforsecurity=False).digest()
    ):
        lines, sentences = [], 0
        for line in page.lines:
            text = " ".join(line)
            if text.lower() not in seen:
                seen.add(text.lower())
                lines.append(text)
                sentences += len(line)
        if not lines:
            dropped[PageVerdict.EMPTY_AFTER_DEDUP] += 1
        elif sentences < min_sentences:
            dropped[PageVerdict.FEW_SENTENCES_AFTER_DEDUP] += 1
        else:
            kept.append((page, "\n".join(lines)))
    for page, text in sorted(kept, key=lambda item: item[0].key):
        texts[page.split].append((page.url, text))
    return Expected(texts, +dropped)


# ---------------------------------------------------------------------- the stages, without Beam


def settle_duplicates(
    folder: str, names: list[str], recipe: Recipe, buckets: int, opt_out: str = ""
) -> None:
    """What the graph does between cleaning and writing, groups gathered in dictionaries."""
    listed = parse_opt_out(opt_out)
    out = {name: dedup.opted_out_pages(folder, name, listed) for name in names}
    lost_pages: dict[str, list[bytes]] = defaultdict(list)
    lost_spans: dict[str, list[bytes]] = defaultdict(list)
    by_bucket: dict[int, list[tuple[str, bytes]]] = defaultdict(list)
    for name in names if recipe.dedup_urls else []:
        lost, packed = dedup.url_buffers(folder, name, buckets, out[name])
        lost_pages[name] += [lost] if lost is not None else []
        assert all(0 <= bucket < buckets for bucket in packed)
        for bucket, buffer in packed.items():
            by_bucket[bucket].append((name, buffer))
    for rows in by_bucket.values():
        for name, pages in older_files.outdated_pages(rows, ()):
            lost_pages[name].append(pages)
    by_bucket.clear()
    for name in names:
        lost, packed = dedup.span_buffers(
            folder, name, lost_pages[name], recipe.dedup_window, buckets, out[name]
        )
        lost_spans[name] += [lost] if lost is not None else []
        for bucket, buffer in packed.items():
            by_bucket[bucket].append((name, buffer))
    for rows in by_bucket.values():
        for name, spans in older_files.repeated_spans(rows):
            lost_spans[name].append(spans)
    for name in names:
        dedup.write_file_removals(
            *(folder, name, lost_pages[name], lost_spans[name], recipe.dedup_window, "build"),
            out[name],
        )


@dataclasses.dataclass
class Keepers:
    """Who keeps what is removed."""

    units: dict[tuple[int, int], int]  # (page key, number of the unit on its page) -> rank
    pages: Counter[tuple[int, bytes, int]]  # (page key, digest, digest key of the one that stays)


def named_keepers(folder: str, names: list[str]) -> Keepers:
    found = Keepers({}, Counter())
    for name in names:
        with (
            CleanedFile(layout.cleaned(folder, name)) as cleaned,
            Removals(layout.removals(folder, name), "build") as removals,
        ):
            for split in (0, 1):
                for rows, first_page, unit in cleaned.slices(split, 0, 2**64):
                    for number, row in enumerate(rows.to_pylist(), first_page):
                        keeper = removals.keeper_of_page(number)
                        if keeper is not None:
                            found.pages[row["page_key"], row["digest"], keeper] += 1
                        for place in range(len(row["unit_starts"])):
                            rank = removals.keeper_of_unit(unit)
                            unit += 1
                            if rank is not None:
                                assert keeper is None, "units of a removed page stay with it"
                                assert (row["page_key"], place) not in found.units
                                found.units[row["page_key"], place] = rank
    return found


def expected_page_keepers(pages: list[Drawn]) -> Counter[tuple[int, bytes, int]]:
    """``pages``: those that passed the rules."""
    remaining = newest_of_each_url(pages)
    stays = {page.key: page for page in remaining}
    return Counter(
        (page.key, page.content_hash, int.from_bytes(stays[page.key].content_hash[:8], "little"))
        for page in pages
        if not any(page is other for other in remaining)
    )


def expected_unit_keepers(
    units: dict[tuple[int, int], list[str]], window: int
) -> dict[tuple[int, int], int]:
    """``units``: (rank, page key) -> the units of a page that remains."""
    occurrences = defaultdict(list)
    for (rank, key), texts in units.items():
        for at in range(len(texts) - window + 1):
            span = "\n".join(texts[at : at + window]).lower()
            occurrences[span].append((rank, at, key))
    keepers: dict[tuple[int, int], int] = {}
    for places in occurrences.values():
        stays = min(places)
        for _, at, key in set(places) - {stays}:
            for unit in range(at, at + window):
                keepers[key, unit] = min(stays[0], keepers.get((key, unit), 2**64))
    return keepers


@dataclasses.dataclass
class Built:
    keepers: Keepers
    texts: dict[str, list[tuple[str, str]]]
    rows: dict[str, list[dict[str, object]]]
    files: list[FileSummary]
    shards: list[ShardSummary]

    def dropped(self, what: str) -> Counter[str]:
        total: Counter[str] = Counter()
        for part in [*self.files, *self.shards]:
            total.update(getattr(part, what))
        return total


def build(
    pages: list[Drawn],
    spread: list[int],
    recipe: Recipe,
    buckets: int,
    shards: int,
    opt_out: str = "",
) -> Built:
    """Page i goes into file ``spread[i]``; a fresh folder each time."""
    rules = PageRules(recipe)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage.os, "fsync", lambda descriptor: None)
        folder = pathlib.Path(name)
        files = []
        for number in sorted(set(spread)):
            chosen = [page for page, file in zip(pages, spread, strict=True) if file == number]
            path, size = write_wet(
                folder / f"{number}.warc.wet.gz", [(p.url, p.date, p.text) for p in chosen]
            )
            files.append(clean_file(path, size, str(folder / "out"), rules, "id", 1 << 20))
        out = str(folder / "out")
        names = [file.name for file in files]
        settle_duplicates(out, names, recipe, buckets, opt_out)
        tasks = plan_shards(sum(file.text_bytes for file in files), shards)
        written = [
            write_shard(task, cleaned_sources(out, names), out, ["parquet"], rules, "build")
            for task in tasks
        ]
        rows = read_corpus(out)
        keepers = named_keepers(out, names)
    texts = {split: [(row["url"], row["text"]) for row in rows[split]] for split in rows}
    return Built(keepers, texts, rows, files, written)


def check(built: Built, expected: Expected, pages: list[Drawn]) -> None:
    assert built.texts == expected.texts
    dropped = built.dropped("pages_dropped")
    assert dropped == expected.dropped
    assert sum(file.pages_read for file in built.files) == len(pages)
    assert len(pages) == sum(shard.pages for shard in built.shards) + dropped.total()
    lines_written = sum(shard.lines for shard in built.shards)
    assert lines_written == sum(
        text.count("\n") + 1 for split in built.texts.values() for _, text in split
    )
    lines_read = sum(len(page.lines) for page in pages)
    assert sum(file.lines_read for file in built.files) == lines_read
    assert lines_read == lines_written + built.dropped("lines_dropped").total()


CORPORA = st.lists(drawn_pages(), min_size=1, max_size=10).flatmap(
    lambda pages: st.tuples(
        st.just(pages), st.lists(st.integers(0, 3), min_size=len(pages), max_size=len(pages))
    )
)
SLOW = [HealthCheck.too_slow]  # each example is a corpus on disk
FEW = settings(max_examples=35, deadline=None, suppress_health_check=SLOW)


@pytest.mark.slow
@given(corpus=CORPORA, buckets=st.sampled_from([1, 3, 16]), shards=st.sampled_from([1, 2, 7]))
@FEW
def test_spans_of_a_corpus_are_deduplicated_by_the_rules(
    corpus: tuple[list[Drawn], list[int]], buckets: int, shards: int
) -> None:
    pages, spread = corpus
    built = build(pages, spread, SPANS, buckets, shards)
    check(built, expected_of_spans(pages, 3, 3), pages)
    passed = [page for page in pages if len(page.sentences) >= 3]
    units = {(page.key, page.key): page.sentences for page in newest_of_each_url(passed)}
    assert built.keepers == Keepers(expected_unit_keepers(units, 3), expected_page_keepers(passed))
    assert all(row["language"] for rows in built.rows.values() for row in rows)


@pytest.mark.slow
@given(
    corpus=CORPORA,
    fatal=st.sets(st.integers(0, 9), max_size=3),
    buckets=st.sampled_from([1, 3, 16]),
    shards=st.sampled_from([1, 2, 7]),
)
@FEW
def test_lines_of_a_corpus_are_deduplicated_by_the_rules(
    corpus: tuple[list[Drawn], list[int]], fatal: set[int], buckets: int, shards: int
) -> None:
    pages, spread = corpus
    for number in fatal & set(range(len(pages))):
        page = pages[number]
        pages[number] = dataclasses.replace(page, lines=(*page.lines, (FATAL,)))
    built = build(pages, spread, LINES, buckets, shards)
    check(built, expected_of_lines(pages, 3), pages)
    units = {
        (md5_key(page.url), page.key): [" ".join(line) for line in page.lines]
        for page in newest_of_each_url(pages)
        if FATAL not in page.sentences and len(page.sentences) >= 3
    }
    assert built.keepers.units == expected_unit_keepers(units, 1)
    for row in itertools.chain(*built.rows.values()):
        assert isinstance(row["language"], str)
        assert 0.0 < row["language-probability"] <= 1.0  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [SPANS, LINES], ids=lambda recipe: recipe.name)
@given(corpus=CORPORA, hosts=st.sets(st.sampled_from(["a", "b", "c", "d", "v"]), min_size=1))
@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
def test_opted_out_pages_take_part_in_no_deduplication(
    recipe: Recipe, corpus: tuple[list[Drawn], list[int]], hosts: set[str]
) -> None:
    pages, spread = corpus
    listed = [f"{host}.example" if host in "abc" else f"{host}.example/*" for host in hosts]

    def is_covered(page: Drawn) -> bool:
        host = normalize_url(page.url).partition("/")[0]
        return len(page.sentences) >= 3 and host.removesuffix(".example") in hosts

    others = [page for page in pages if not is_covered(page)]
    expected = expected_of_spans(others, 3, 3) if recipe is SPANS else expected_of_lines(others, 3)
    expected.dropped += Counter({PageVerdict.OPTED_OUT: len(pages) - len(others)})
    built = build(pages, spread, recipe, 3, 2, "\n".join(listed))
    check(built, expected, pages)
    covered = Counter((page.key, page.content_hash, 0) for page in pages if is_covered(page))
    named = built.keepers.pages
    assert Counter({row: named[row] for row in named if row[2] == 0}) == covered


@pytest.mark.slow
@given(
    corpus=CORPORA,
    window=st.integers(1, 4),
    min_left=st.integers(0, 3),
    buckets=st.sampled_from([1, 3]),
)
@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
def test_any_window_and_any_bound_on_what_is_left(
    corpus: tuple[list[Drawn], list[int]], window: int, min_left: int, buckets: int
) -> None:
    pages, spread = corpus
    recipe = dataclasses.replace(SPANS, dedup_window=window, min_sentences_after_dedup=min_left)
    check(
        build(pages, spread, recipe, buckets, 2), expected_of_spans(pages, window, min_left), pages
    )


# -------------------------------------------------------------------------------- single cases


def page(url: str, date: str, *numbers: int) -> Drawn:
    return Drawn(url, date, (tuple(SENTENCES[number] for number in numbers),))


OLD, NEW = DATES[0], DATES[2]
SMALL, LARGE = sorted(["http://b.example/2", "http://c.example/3"], key=lambda u: page(u, OLD).key)


@pytest.mark.parametrize("spread", [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 1, 2]])
def test_a_span_survives_when_its_smallest_copy_is_on_a_page_that_loses_its_url(
    spread: list[int],
) -> None:
    pages = [
        page(SMALL, OLD, 0, 1, 3),  # the smallest copy, but outdated
        page(SMALL, NEW, 4, 3, 1),
        page(LARGE, OLD, 0, 1, 3),
    ]
    built = build(pages, spread, SPANS, 3, 1)
    assert sorted(built.texts["train"]) == sorted((p.url, p.text) for p in pages[1:])


def test_a_dropped_page_takes_its_url_along_where_urls_come_first() -> None:
    pages = [page(SMALL, OLD, 0, 1, 3), page(SMALL, NEW, 0)]
    assert build(pages, [0, 1], LINES, 3, 1).texts["train"] == []
    [(url, text)] = build(pages, [0, 1], SPANS, 3, 1).texts["train"]
    assert (url, text) == (SMALL, pages[0].text)


def test_without_deduplication_every_copy_stays() -> None:
    recipe = dataclasses.replace(SPANS, dedup_unit="none")
    pages = [page(SMALL, OLD, 0, 1, 3), page(LARGE, OLD, 0, 1, 3)]
    with tempfile.TemporaryDirectory() as name:
        path, size = write_wet(
            pathlib.Path(name) / "a.wet.gz", [(p.url, p.date, p.text) for p in pages]
        )
        rules = PageRules(recipe)
        file = clean_file(path, size, name, rules, "id", 1 << 20)
        assert file.units == 0
        dedup.write_file_removals(name, file.name, (), (), recipe.dedup_window, "")
        [train, _] = plan_shards(0, 1)
        sources = cleaned_sources(name, [file.name])
        assert write_shard(train, sources, name, ["parquet"], rules).pages == 2


def test_copies_of_one_url_are_told_apart_by_content_where_urls_stay() -> None:
    recipe = dataclasses.replace(SPANS, dedup_urls=False, min_sentences_after_dedup=0)
    pages = [page(SMALL, OLD, 0, 1, 3, 3), page(SMALL, OLD, 0, 1, 3, 4)]
    built = [build(pages, spread, recipe, 1, 1).texts for spread in ([0, 1], [1, 0], [0, 0])]
    assert built[0] == built[1] == built[2]
    assert sorted(text.count(".") + text.count("?") for _, text in built[0]["train"]) == [1, 4]


def test_what_a_file_settles_by_itself_is_not_sent() -> None:
    pages = [(f"http://{i}.example/", OLD, " ".join(SENTENCES[:3] * 4)) for i in range(50)]
    with tempfile.TemporaryDirectory() as name:
        path, size = write_wet(pathlib.Path(name) / "a.wet.gz", pages)
        file = clean_file(path, size, name, PageRules(SPANS), "id", 1 << 20)
        lost, packed = dedup.span_buffers(name, file.name, (), 3, 16)
        assert lost is not None
        assert len(unpack_settled(lost)[0]) == 50 * 10 - 3  # three different spans on every page
        assert sum(map(len, packed.values())) <= 3 * (28 + 24)


@example(rows=0, row_bytes=SPAN_BYTES)
@example(rows=10**15, row_bytes=PAGE_BYTES)
@given(rows=st.integers(0, 10**13), row_bytes=st.sampled_from([SPAN_BYTES, PAGE_BYTES]))
@settings(deadline=None)
def test_buckets_are_neither_too_few_nor_too_large(rows: int, row_bytes: int) -> None:
    buckets = dedup.bucket_count(rows, row_bytes)
    few, most = dedup._FEWEST_BUCKETS, dedup._MOST_BUCKETS
    assert few <= buckets <= most
    # As few as keep a bucket within what a worker can sort.
    bound = dedup._BYTES_PER_BUCKET
    assert buckets == most or rows * row_bytes <= buckets * bound
    assert buckets == few or rows * row_bytes > (buckets - 1) * bound
    assert bound <= 128 << 20


def test_removals_of_dropped_pages_are_not_written(tmp_path: pathlib.Path) -> None:
    # A page that the rules dropped takes part in url deduplication, but is in no cleaned file.
    path, size = write_wet(
        tmp_path / "a.wet.gz",
        [(SMALL, OLD, "Too short to stay."), (LARGE, OLD, " ".join(SENTENCES[:3]))],
    )
    file = clean_file(path, size, str(tmp_path), PageRules(LINES), "id", 1 << 20)
    assert (file.fingerprint_pages, file.pages_kept, file.units) == (2, 1, 1)
    dedup.write_file_removals(str(tmp_path), file.name, [pack_settled([1], [0])], (), 1, "")
    with Removals(layout.removals(str(tmp_path), file.name)) as removals:
        assert (removals.page_count, removals.unit_count) == (1, 1)
        assert not removals.pages(0, 1).any()
        assert not removals.units(0, 1).any()


def test_line_verdicts_of_removed_lines() -> None:
    lines = tuple((sentence,) for sentence in (*SENTENCES[:2], *SENTENCES[3:]))
    pages = [
        Drawn(SMALL, OLD, lines),
        Drawn(LARGE, OLD, (*lines[:3], ("Only this page tells of the heron.",) * 3)),
        Drawn("http://d.example/4", OLD, (lines[0], ("It is rather short now, is it?",), lines[1])),
        Drawn(SMALL, DATES[0].replace("2019", "2018"), lines),
    ]
    built = build(pages, [0, 1, 0, 1], SPANS, 3, 1)
    check(built, expected_of_spans(pages, 3, 3), pages)
    # The later of the two long pages loses three lines; the outdated page loses its four at once.
    assert built.dropped("lines_dropped") == {
        LineVerdict.DUPLICATE: 3,
        LineVerdict.ON_DROPPED_PAGE: 4,
    }
