import dataclasses
import itertools
import random
import re
import struct
import tracemalloc

import mmh3
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from c4_filters import spans

# Sentences that collide heavily, among them pairs that differ by case alone.
SENTENCES = ["A.", "a.", "b c!", "B C!", "É?", "ΟΔΟΣ.", "Οδος."]


# ------------------------------------------------------------------------------ a page's units


@dataclasses.dataclass(frozen=True)
class Line:
    """A line as it was put together, so that a twin need not find its parts again."""

    indent: str
    units: tuple[str, ...]
    gaps: tuple[str, ...]  # one less than units
    trailing: str


def as_identities(joined):
    return np.frombuffer(joined, "<u8").reshape(-1, 2)


def text_of(lines: list[Line]) -> str:
    return "\n".join(
        line.indent
        + "".join(itertools.chain(*itertools.zip_longest(line.units, line.gaps, fillvalue="")))
        + line.trailing
        for line in lines
    )


def starts_of(lines: list[Line]) -> list[int]:
    starts = []
    offset = 0
    for line in lines:
        offset += len(line.indent)
        for unit, gap in itertools.zip_longest(line.units, line.gaps, fillvalue=""):
            starts.append(offset)
            offset += len(unit) + len(gap)
        offset += len(line.trailing) + 1
    return starts


def units_of(lines: list[Line]) -> list[str]:
    return [unit for line in lines for unit in line.units]


def naive_cut(lines: list[Line], removed: list[bool]) -> str:
    """Builds the page anew from the parts that stay."""
    marks = iter(removed)
    out = []
    for line in lines:
        kept = [i for i in range(len(line.units)) if not next(marks)]
        if line.units and not kept:
            continue
        written = line.indent
        for i in kept:
            written += line.units[i]
            if i == len(line.units) - 1:
                written += line.trailing
            elif i != kept[-1]:
                written += line.gaps[i]
        out.append(written + ("" if line.units else line.trailing))
    return "\n".join(out)


def ending(line: str) -> str:
    return line[len(line.rstrip()) :]


GAPS = st.sampled_from([" ", "  ", "\t", "\u00a0", "\u3000 "])


@st.composite
def a_line(draw):
    units = draw(st.lists(st.sampled_from(SENTENCES), max_size=4))
    gaps = [draw(GAPS) for _ in units[1:]]
    return Line(
        draw(st.sampled_from(["", "", "", "  "])),
        tuple(units),
        tuple(gaps),
        draw(st.sampled_from(["", "", "", " ", "\r"])),
    )


# ---------------------------------------------------------------------------------- identities


def naive_identities(text, starts):
    found = b""
    for i, start in enumerate(starts):
        end = starts[i + 1] if i + 1 < len(starts) else len(text)
        unit = text[start:end].rstrip()
        found += mmh3.hash_bytes(unit.lower().strip().encode("utf-8"), 0, x64arch=True)
    return found


TRICKY = "aAbBzZ İIıiẞßΣσςΟΑ\u0301'.\u00ad\u200b\u00a0\u3000\x1c\x85\u2028\n\t\r“É𝔄𐐀Ǆ"


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.text(TRICKY), st.text(st.characters(exclude_categories=["Cs"]))).flatmap(
        lambda text: st.tuples(
            st.just(text), st.lists(st.integers(0, len(text)), unique=True).map(sorted)
        )
    )
)
@example(("ΑΣ Β", [0, 3]))  # a final sigma only if nothing follows
@example(("ΑΣΒ", [0, 2]))
@example(("İx. Y.", [0, 4]))  # longer when lower-cased
@example(("A\x1c\x1f B\x85", [0, 4]))  # whitespace to str, not to bytes
@example(("", []))
@example((" \n", [2]))
def test_unit_identities_equal_the_definition(page):
    text, starts = page
    assert spans.unit_identities(text, starts) == naive_identities(text, starts)


def test_identity_of_hello_is_the_published_one():
    ids = as_identities(spans.unit_identities("  HELLO \n", [0]))
    # MurmurHash3 x64 128 of "hello", seed 0, as other implementations publish it.
    assert ids.tolist() == [[0xCBD8A7B341BD9B02, 0x5B1E906A48AE1D19]]


def test_half_a_surrogate_pair_has_no_identity():
    with pytest.raises(UnicodeEncodeError):
        spans.unit_identities("a\ud800", [0])


def some_units(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, (count, 2), dtype=np.uint64)


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 5))
def test_span_identities_hash_the_joined_identities(units_per_page, window):
    units = some_units(sum(units_per_page))
    got = spans.span_identities(units, units_per_page, window)
    expected = []
    begin = 0
    for page, count in enumerate(units_per_page):
        for first in range(begin, begin + count - window + 1):
            joined = units[first : first + window].astype("<u8").tobytes()
            digest = joined if window == 1 else mmh3.hash_bytes(joined, 0, x64arch=True)
            expected.append((struct.unpack("<QQ", digest), page, first))
        begin += count
    assert [
        (tuple(i), p, f)
        for i, p, f in zip(
            got.ids.tolist(), got.page.tolist(), got.first_unit.tolist(), strict=True
        )
    ] == expected


def test_a_page_of_seventy_thousand_windows():
    units = some_units(70_004)
    got = spans.span_identities(units, [0, 70_002, 2], 3)
    assert len(got.page) == 70_000
    assert set(got.page.tolist()) == {1}
    assert got.first_unit.tolist() == list(range(70_000))
    # Rows around every border that could overflow: blocks and 16 bits.
    for row in (0, 8_191, 8_192, 65_535, 65_536, 65_537, 69_999):
        joined = units[row : row + 3].astype("<u8").tobytes()
        assert got.ids[row].astype("<u8").tobytes() == mmh3.hash_bytes(joined, 0, x64arch=True)


@pytest.mark.parametrize(
    ("counts", "window", "message"),
    [([3], 0, "window must be positive, got 0"), ([2], 3, "got 2 for 3"), ([4, -1], 1, "add up")],
)
def test_spans_that_cannot_be_are_refused(counts, window, message):
    with pytest.raises(ValueError, match=message):
        spans.span_identities(some_units(3), counts, window)


def test_order_and_cut_of_words_change_the_identity():
    def identity(*units):
        ids = b"".join(spans.unit_identities(unit, [0]) for unit in units)
        return spans.span_identities(as_identities(ids), [3], 3).ids.tobytes()

    assert identity("A b.", "c.", "d.") != identity("A.", "b c.", "d.")
    assert len({identity(*order) for order in itertools.permutations(["A.", "B.", "C."])}) == 6
    assert identity("A.", "A.", "A.") != identity("B.", "B.", "B.")
    assert identity("A1.", "b.", "c.") != identity("A2.", "b.", "c.")  # digits are not folded
    assert identity("A b", "c.", "d.") != identity("A, b", "c.", "d.")  # nor punctuation dropped


# -------------------------------------------------------------------------------- deduplication


def naive_span_dedup(pages: dict[int, list[Line]], window: int = 3) -> dict[int, str]:
    """All pairs of spans compared, as the rule is written: one dictionary of strings, no hash."""
    occurrences: dict[str, list[tuple[int, int]]] = {}
    for key, lines in pages.items():
        units = units_of(lines)
        for first in range(len(units) - window + 1):
            span = "\n".join(unit.lower().strip() for unit in units[first : first + window])
            occurrences.setdefault(span, []).append((key, first))
    removed = {key: [False] * len(units_of(lines)) for key, lines in pages.items()}
    for places in occurrences.values():
        for key, first in places:
            if (key, first) != min(places):
                for unit in range(first, first + window):
                    removed[key][unit] = True
    return {key: naive_cut(lines, removed[key]) for key, lines in pages.items()}


def naive_line_dedup(pages: dict[int, list[Line]]) -> dict[int, str]:
    """TFDS's rule: a line stays on the page of the smallest key, there only once."""
    texts = {key: text_of(lines).split("\n") for key, lines in pages.items()}
    keeper: dict[str, int] = {}
    for key in sorted(pages, reverse=True):
        for line in texts[key]:
            keeper[line.strip().lower()] = key
    out = {}
    for key, page in texts.items():
        seen = set()
        kept = []
        for line in page:
            identity = line.strip().lower()
            if keeper[identity] == key and identity not in seen:
                kept.append(line)
            seen.add(identity)
        out[key] = "\n".join(kept)
    return out


def deduplicate(
    files: list[list[tuple[int, list[Line]]]], window: int, buckets: int, line_mode: bool = False
) -> dict[int, str]:
    """The way of the pipeline: ``files`` of (page key, page) to the text left of each page."""
    sent: dict[int, list[tuple[str, bytes]]] = {}
    of_file = {}
    for number, pages in enumerate(files):
        name = f"file-{number}"
        texts = [text_of(lines) for _, lines in pages]
        starts = [line_starts(t) if line_mode else starts_of(p) for t, (_, p) in zip_(texts, pages)]
        units = as_identities(b"".join(map(spans.unit_identities, texts, starts)))
        counts = [len(s) for s in starts]
        found = spans.span_identities(units, counts, window)
        keys = np.array([key for key, _ in pages], np.uint64)[found.page]
        split = spans.span_winners(found.ids, keys)
        winners, losers = split.rows, split.losers
        assert sorted([*winners.tolist(), *losers.tolist()]) == list(range(len(found.page)))
        packed = spans.pack_spans_by_bucket(found.ids[winners], keys[winners], winners, buckets)
        for bucket, buffer in packed.items():
            sent.setdefault(bucket, []).append((name, buffer))
        of_file[name] = (pages, texts, starts, found, [losers])
    for buffers in sent.values():
        random.Random(len(buffers)).shuffle(buffers)
        for name, gone in spans.repeated_spans(buffers).items():
            assert len(gone.indices) == len(gone.keepers) > 0
            of_file[name][-1].append(spans.unpack_losers(spans.pack_losers(gone)).indices)
    out = {}
    for pages, texts, starts, found, removed_spans in of_file.values():
        total = sum(map(len, starts))
        first_units = found.first_unit[np.concatenate(removed_spans)]
        removed = spans.units_removed(first_units, window, total)
        begin = 0
        for (key, _), text, of_page in zip(pages, texts, starts, strict=True):
            out[key] = spans.cut(text, of_page, removed[begin : begin + len(of_page)])
            begin += len(of_page)
    return out


def zip_(*lists):
    return zip(*lists, strict=True)


def line_starts(text: str) -> list[int]:
    return [0, *(i + 1 for i, character in enumerate(text) if character == "\n")]


PAGE_KEYS = st.one_of(st.integers(0, 30), st.integers(0, 2**64 - 1))
CORPORA = st.dictionaries(PAGE_KEYS, st.lists(a_line(), max_size=5), max_size=8)


def one_per_line(sentences: list[str]) -> list[Line]:
    return [Line("", (sentence,), (), "") for sentence in sentences]


def spread(pages: dict[int, list[Line]], files: int, seed: int):
    """The pages in any order, in any files."""
    chance = random.Random(seed)
    order = list(pages.items())
    chance.shuffle(order)
    out = [[] for _ in range(files)]
    for page in order:
        chance.choice(out).append(page)
    return out


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(CORPORA, st.integers(1, 4), st.integers(1, 70_000), st.integers(), st.integers(1, 4))
def test_span_dedup_equals_its_twin_however_pages_are_spread(pages, files, buckets, seed, window):
    got = deduplicate(spread(pages, files, seed), window, buckets)
    assert got == naive_span_dedup(pages, window)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(CORPORA, st.integers(1, 4), st.integers(1, 5), st.integers())
def test_line_dedup_equals_its_twin_however_pages_are_spread(pages, files, buckets, seed):
    got = deduplicate(spread(pages, files, seed), 1, buckets, line_mode=True)
    assert got == naive_line_dedup(pages)


def test_the_smallest_key_stays_and_overlaps_go():
    page = one_per_line(["A.", "B.", "C.", "D."])
    overlap = one_per_line(["X.", "B.", "C.", "D.", "E."])
    got = deduplicate([[(9, page)], [(3, overlap)]], window=3, buckets=2)
    # B, C and D go from page 9 though the span A B C, which holds two of them, stays.
    assert got == {3: "X.\nB.\nC.\nD.\nE.", 9: "A."}


def test_pages_that_are_all_the_same():
    page = one_per_line(["A.", "B.", "C."])
    files = [[(key, page) for key in range(low, low + 50)] for low in (100, 50, 0)]
    got = deduplicate(files, window=3, buckets=7)
    assert got.pop(0) == "A.\nB.\nC."
    assert set(got.values()) == {""}
    assert len(got) == 149


def test_a_page_that_repeats_itself():
    got = deduplicate([[(1, one_per_line(["A."] * 5))]], window=3, buckets=1)
    assert got == {1: "A."}  # the first span stays, yet the others cover all but its first unit
    got = deduplicate([[(1, one_per_line(["A."] * 3 + ["B."] + ["A."] * 3))]], 3, 1)
    assert got == {1: "A.\nA.\nA.\nB."}


def test_a_page_of_seventy_thousand_windows_is_deduplicated():
    sentences = [f"S{i % 60_000}." for i in range(70_002)]
    got = deduplicate([[(5, one_per_line(sentences))]], window=3, buckets=3)
    assert got[5] == "\n".join(sentences[:60_000])


def test_nothing_in_nothing_out():
    assert deduplicate([[], [(1, [])], [(2, one_per_line(["A.", "B."]))]], 3, 4) == {
        1: "",
        2: "A.\nB.",
    }
    assert spans.repeated_spans([]) == {}
    assert spans.outdated_pages([]) == {}
    empty = np.zeros((0, 2), np.uint64), np.zeros(0, np.uint64)
    buffer = spans.pack_spans(*empty, [])
    assert spans.repeated_spans([("a", buffer), ("b", buffer)]) == {}
    assert spans.pack_spans_by_bucket(*empty, [], 3) == {}
    found = spans.span_winners(*empty)
    assert [len(part) for part in (found.rows, found.losers, found.keepers)] == [0, 0, 0]
    assert [len(part) for part in spans.unpack_settled(spans.pack_settled([], []))] == [0, 0]
    assert spans.units_removed([], 3, 0).shape == (0,)
    assert spans.unit_keepers([], empty[1], 3, np.zeros(9, np.bool_)).shape == (0,)


# Lanes that agree in all but their lowest bits, so that sorting by a prefix must be put right.
LANES = st.sampled_from([0, 1, 2, 3, 2**63, 2**64 - 2, 2**64 - 1])
SPAN_ROWS = st.lists(st.tuples(LANES, LANES, st.integers(0, 3)), max_size=40)


def pack_rows(rows):
    ids = np.array([row[:2] for row in rows], np.uint64).reshape(-1, 2)
    return ids, np.array([row[2] for row in rows], np.uint64)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(SPAN_ROWS, max_size=4), st.randoms(use_true_random=False), st.booleans())
def test_ties_and_near_collisions_equal_their_twin(files, chance, reduce_first):
    occurrences = {}
    for number, rows in enumerate(files):
        for index, (first, second, key) in enumerate(rows):
            occurrences.setdefault((first, second), []).append((key, number, index))
    expected = {
        (number, index): min(places)[0]
        for places in occurrences.values()
        for _, number, index in set(places) - {min(places)}
    }

    got = {}
    settled = {}
    buffers = []
    lost = {}
    for number, rows in enumerate(files):
        ids, keys = pack_rows(rows)
        sent = np.arange(len(rows))
        if reduce_first:
            found = spans.span_winners(ids, keys)
            assert found.losers.tolist() == sorted(found.losers.tolist())
            sent = found.rows
            settled[number] = spans.unpack_settled(spans.pack_settled(found.losers, found.keepers))
        else:
            chance.shuffle(sent)
        buffers.append((f"{number}", spans.pack_spans(ids[sent], keys[sent], sent)))
    chance.shuffle(buffers)
    for file, gone in spans.repeated_spans(buffers).items():
        assert gone.indices.dtype == np.uint32
        lost[int(file)] = spans.unpack_losers(spans.pack_losers(gone))
    nothing = spans.Losers(np.empty(0, np.uint32), np.empty(0, np.uint64))
    for number, rows in enumerate(files):
        _, keys = pack_rows(rows)
        indices, keepers = spans.final_keepers(
            settled.get(number, ([], [])), lost.get(number, nothing), keys.__getitem__
        )
        assert indices.tolist() == sorted(set(indices.tolist()))
        for index, keeper in zip(indices.tolist(), keepers.tolist(), strict=True):
            got[number, index] = keeper
    assert got == expected


def test_a_file_may_send_its_spans_in_several_buffers():
    ids, keys = pack_rows([(7, 7, 5)] * 4)
    halves = [
        ("f", spans.pack_spans(ids[:2], keys[:2], [2, 0])),
        ("f", spans.pack_spans(ids[:2], keys[:2], [3, 1])),
    ]
    for order in (halves, halves[::-1]):
        [(file, lost)] = spans.repeated_spans(order).items()
        assert (file, sorted(lost.indices.tolist())) == ("f", [1, 2, 3])
        assert lost.keepers.tolist() == [5, 5, 5]


def test_a_span_sent_twice_is_refused():
    ids, keys = pack_rows([(1, 1, 1), (7, 7, 5)])
    buffer = spans.pack_spans(ids, keys, [3, 4])
    with pytest.raises(ValueError, match="row 3 of file 'f' came twice"):
        spans.repeated_spans([("f", buffer), ("f", buffer)])


def test_winners_come_in_the_order_of_their_buckets():
    ids = np.repeat(some_units(1000), 2, axis=0)
    found = spans.span_winners(ids, np.zeros(2000, np.uint64))
    assert found.losers.tolist() == list(range(1, 2000, 2))
    assert found.keepers.tolist() == list(range(0, 2000, 2))
    for buckets in (1, 7, 70_000, 2**32):
        bucket = spans.bucket_of(ids[found.rows], buckets).tolist()
        assert bucket == sorted(bucket)


def test_a_bucket_takes_less_than_three_times_its_buffers():
    count = 30_000
    pool = some_units(count)
    buffers = []
    for number in range(10):
        chance = np.random.default_rng(number)
        # All files hold the same identities: the case that takes the most memory.
        ids = pool[chance.permutation(count)]
        keys = chance.integers(0, 2**64, count, dtype=np.uint64)
        winners = spans.span_winners(ids, keys).rows
        buffers.append((f"{number}", spans.pack_spans(ids[winners], keys[winners], winners)))
    payload = sum(len(buffer) for _, buffer in buffers)
    tracemalloc.start()
    try:
        gone = spans.repeated_spans(buffers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(len(lost.indices) for lost in gone.values()) == 9 * count
    assert payload + peak < 3 * payload


# -------------------------------------------------------------------------------------- buckets


@settings(deadline=None)
@given(st.integers(1, 2**32), st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_buckets_share_the_first_lane_evenly(buckets, lane):
    ids = np.array([[first, 2**64 - 1 - first] for first in lane], np.uint64)
    expected = [(first >> 32) * buckets >> 32 for first in lane]
    assert spans.bucket_of(ids, buckets).tolist() == expected
    assert 0 <= min(expected) <= max(expected) < buckets


@pytest.mark.parametrize("buckets", [1, 3, 10, 64, 1000])
def test_buckets_are_filled_evenly(buckets):
    sizes = np.bincount(spans.bucket_of(some_units(100_000), buckets), minlength=buckets)
    assert len(sizes) == buckets
    mean = 100_000 / buckets
    assert (abs(sizes - mean) < 6 * mean**0.5 + 1).all()


@pytest.mark.parametrize("buckets", [0, -1, 2**32 + 1])
def test_impossible_numbers_of_buckets_are_refused(buckets):
    with pytest.raises(ValueError, match=f"between 1 and .* got {buckets}"):
        spans.bucket_of(some_units(1), buckets)


@pytest.mark.parametrize("buckets", [1, 7, 65_536, 70_000, 2**32])
def test_each_row_is_packed_once_and_in_its_bucket(buckets):
    ids = some_units(500)
    keys = some_units(500, seed=1)[:, 0]
    seen = {}
    for bucket, buffer in spans.pack_spans_by_bucket(ids, keys, np.arange(500), buckets).items():
        rows = spans.unpack_spans(buffer)
        assert rows.indices.tolist() == sorted(rows.indices.tolist())
        lanes = np.stack([rows.first_lane, rows.second_lane], axis=1)
        assert (spans.bucket_of(lanes, buckets) == bucket).all()
        for row in zip_(*(c.tolist() for c in (rows.indices, lanes, rows.page_keys))):
            assert row[0] not in seen
            seen[row[0]] = row[1:]
    assert [seen[i] for i in range(500)] == list(zip_(ids.tolist(), keys.tolist()))


# -------------------------------------------------------------------------------------- buffers


def test_the_layout_is_fixed():
    ids = np.array([[1, 2], [3, 2**64 - 1]], np.uint64)
    buffer = spans.pack_spans(ids, np.array([5, 6], np.uint64), [7, 2**32 - 1])
    payload = struct.pack("<6Q2I", 1, 3, 2, 2**64 - 1, 5, 6, 7, 2**32 - 1)
    checksum = mmh3.hash_bytes(payload, 0, x64arch=True)[:8]
    assert buffer == b"C4SPANS1" + struct.pack("<Q", 2) + checksum + payload
    assert len(buffer) == 24 + 2 * spans.SPAN_BYTES

    stamps = spans.timestamp_column(["2019-04-18T10:00:00Z"])
    digests = np.arange(16, dtype=np.uint8).reshape(1, 16)
    page = spans.pack_pages_by_bucket(ids[:1], stamps, digests, [9], 1)[0]
    payload = struct.pack("<2Q32s16sI", 1, 2, b"2019-04-18T10:00:00Z", bytes(range(16)), 9)
    checksum = mmh3.hash_bytes(payload, 0, x64arch=True)[:8]
    assert page == b"C4PAGES1" + struct.pack("<Q", 1) + checksum + payload
    assert len(page) == 24 + spans.PAGE_BYTES
    assert spans.unpack_pages(page).timestamps.tobytes() == stamps.tobytes()


BUFFERS = {
    spans.unpack_spans: spans.pack_spans(some_units(3), some_units(3)[:, 0], [0, 1, 2]),
    spans.unpack_pages: spans.pack_pages_by_bucket(
        some_units(2),
        spans.timestamp_column(["2019", "2020"]),
        np.ones((2, 16), np.uint8),
        [0, 1],
        1,
    )[0],
    spans.unpack_settled: spans.pack_settled([1, 2, 3], [0, 0, 9]),
    spans.unpack_losers: spans.pack_losers(
        spans.Losers(np.array([1, 2], np.uint32), np.array([5, 2**64 - 1], np.uint64))
    ),
}


@pytest.mark.parametrize("unpack", BUFFERS)
def test_damaged_buffers_are_refused(unpack):
    buffer = BUFFERS[unpack]
    unpack(buffer)
    for end in range(len(buffer)):
        with pytest.raises(ValueError, match=r"^(buffer is shorter|C4[A-Z]+1 buffer of)"):
            unpack(buffer[:end])
    for position in range(len(buffer)):
        changed = bytearray(buffer)
        changed[position] ^= 0x10
        with pytest.raises(ValueError, match=r"must begin with|must have|checksum"):
            unpack(bytes(changed))
    with pytest.raises(ValueError, match="cut or joined"):
        unpack(buffer + buffer)
    for other in BUFFERS:
        if other is not unpack:
            with pytest.raises(ValueError, match="must begin with"):
                other(buffer)


@pytest.mark.parametrize("index", [-1, 2**32, 2**40, 1.5])
def test_indices_beyond_32_bits_are_refused(index):
    with pytest.raises(ValueError, match="integers from 0 to"):
        spans.pack_spans(some_units(1), some_units(1)[:, 0], [index])
    with pytest.raises(ValueError, match="integers from 0 to"):
        spans.pack_settled([index], [0])
    with pytest.raises(ValueError, match="integers from 0 to"):
        spans.pack_settled([0], [index])


def test_arrays_of_the_wrong_shape_or_type_are_refused():
    ids, keys = some_units(3), some_units(3)[:, 0]
    stamps, digests = np.zeros((3, 32), np.uint8), np.zeros((3, 16), np.uint8)
    for call, message in [
        (lambda: spans.span_winners(ids[:, :1], keys), r"ids must be uint64 \[n, 2\]"),
        (lambda: spans.span_winners(ids.astype(np.int64), keys), "got int64"),
        (lambda: spans.span_winners(ids, keys[:2]), "page_keys must be"),
        (lambda: spans.pack_spans(ids, keys, [0]), r"indices must be \[3\], got \[1\]"),
        (lambda: spans.page_winners(ids, stamps[:, :8], digests), "timestamps must be"),
        (lambda: spans.page_winners(ids, stamps, digests[:1]), "digests must be"),
        (lambda: spans.page_winners(ids[:2], stamps[:2], digests), "digests must be"),
        (lambda: spans.page_winners(ids, stamps.astype(np.int8), digests), "got int8"),
        (lambda: spans.span_winners(ids, keys.astype(np.int64)), r"page_keys .*, got int64 \[3\]"),
        (
            lambda: spans.unit_keepers([0], keys, 1, np.ones(1, np.bool_)),
            r"keepers must be .*\[1\]",
        ),
        (lambda: spans.digest_keys(digests[:, :8]), "digests must be"),
        (lambda: spans.pack_settled([1], [1, 2]), r"indices must be \[1\], got \[2\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(SPAN_ROWS, max_size=3), st.lists(SPAN_ROWS, max_size=3), st.randoms())
def test_older_spans_win_whatever_their_keys(files, older, chance):
    oldest = {}
    for rows in older:
        for first, second, key in rows:
            oldest[first, second] = min(key, oldest.get((first, second), key))
    alone, expected = {}, {}
    buffers, before = [], []
    for number, rows in enumerate(files):
        ids, keys = pack_rows(rows)
        buffers.append((f"{number}", spans.pack_spans(ids, keys, np.arange(len(rows)))))
    for number, rows in enumerate(older):
        ids, keys = pack_rows(rows)
        kept = spans.span_winners(ids, keys).rows
        packed = spans.pack_older_spans_by_bucket(ids, keys, kept, 1)
        assert all(len(buffer) == 24 + 24 * len(kept) for buffer in packed.values())
        before += [(f"older/{number}", buffer) for buffer in packed.values()]
    for file, gone in spans.repeated_spans(buffers).items():
        pairs = zip(gone.indices.tolist(), gone.keepers.tolist(), strict=True)
        alone |= {(int(file), index): keeper for index, keeper in pairs}
    for number, rows in enumerate(files):
        for index, (first, second, _) in enumerate(rows):
            keeper = oldest.get((first, second), alone.get((number, index)))
            if keeper is not None:
                expected[number, index] = keeper
    chance.shuffle(before)
    got = {}
    for file, gone in spans.repeated_spans(buffers, before).items():
        pairs = zip(gone.indices.tolist(), gone.keepers.tolist(), strict=True)
        got |= {(int(file), index): keeper for index, keeper in pairs}
    assert got == expected


# --------------------------------------------------------------------------------- pages by url


# Values that differ in their first and in their last bytes, few enough to tie often.
STAMPS = st.sampled_from(["", "2019-04-18", "2019-04-18T10:00:00Z", "é" * 15 + "a", "é" * 20])
DIGESTS = st.sampled_from([bytes(16), bytes(15) + b"\1", b"\0\xff" + bytes(14), b"\1" + bytes(15)])
URL_ROWS = st.lists(st.tuples(st.sampled_from([0, 1, 2**64 - 1]), st.just(7), STAMPS, DIGESTS))


@settings(max_examples=150, deadline=None)
@given(st.lists(URL_ROWS, max_size=4), st.integers(1, 5), st.booleans())
def test_url_dedup_equals_its_twin(files, buckets, reduce_first):
    versions = {}
    for number, rows in enumerate(files):
        for index, (first, second, stamp, digest) in enumerate(rows):
            stamped = stamp.encode()[:32]
            versions.setdefault((first, second), []).append((stamped, digest, number, index))
    expected = {}
    for pages in versions.values():
        newest = max(stamp for stamp, *_ in pages)
        stays = min(page[1:] for page in pages if page[0] == newest)
        keeper = int.from_bytes(stays[0][:8], "little")
        expected |= {page[2:]: keeper for page in pages if page[2:] != stays[1:]}

    got = {}
    sent = {}
    settled = {}
    lost = {}
    of_file = {}
    for number, rows in enumerate(files):
        ids = np.array([row[:2] for row in rows], np.uint64).reshape(-1, 2)
        stamps = spans.timestamp_column([row[2] for row in rows])
        joined = b"".join(row[3] for row in rows)
        of_file[number] = digests = np.frombuffer(joined, np.uint8).reshape(-1, 16)
        index = np.arange(len(rows))
        if reduce_first:
            found = spans.page_winners(ids, stamps, digests)
            index, settled[number] = found.rows, (found.losers, found.keepers)
        packed = spans.pack_pages_by_bucket(
            ids[index], stamps[index], digests[index], index, buckets
        )
        for bucket, buffer in packed.items():
            sent.setdefault(bucket, []).append((f"{number}", buffer))
    for buffers in sent.values():
        for file, gone in spans.outdated_pages(buffers[::-1]).items():
            lost.setdefault(int(file), []).append(gone)
    for number, digests in of_file.items():
        parts = lost.get(number, [])
        indices = np.array([i for part in parts for i in part.indices.tolist()], np.uint32)
        keepers = np.array([i for part in parts for i in part.keepers.tolist()], np.uint64)
        rows, named = spans.final_keepers(
            settled.get(number, ([], [])),
            spans.Losers(indices, keepers),
            lambda rows, digests=digests: spans.digest_keys(digests[rows]),
        )
        got |= dict(zip(((number, row) for row in rows.tolist()), named.tolist(), strict=True))
    assert got == expected


def test_a_page_goes_though_it_is_newer_than_the_older_one():
    def page(url, day, digest):
        ids = np.array([[url, 1]], np.uint64)
        content = np.array([[digest] + 15 * [0]], np.uint8)
        return spans.pack_pages_by_bucket(ids, spans.timestamp_column([day]), content, [3], 1)[0]

    own = [("a", page(7, "2024", 1)), ("b", page(7, "2023", 2)), ("c", page(8, "2022", 3))]
    older = [("0/a", page(7, "2019", 4)), ("0/b", page(7, "2020", 5)), ("0/c", page(9, "2020", 6))]
    lost = spans.outdated_pages(own, older)
    found = {file: (gone.indices.tolist(), gone.keepers.tolist()) for file, gone in lost.items()}
    assert found == {"a": ([3], [5]), "b": ([3], [5])}
    assert spans.outdated_pages([], older) == {}


def test_a_page_sent_twice_is_refused():
    buffer = BUFFERS[spans.unpack_pages]
    with pytest.raises(ValueError, match=r"row [01] of file 'f' came twice"):
        spans.outdated_pages([("f", buffer), ("f", buffer)])


# -------------------------------------------------------------------------------------- cutting


@settings(max_examples=150, deadline=None)
@given(
    st.lists(a_line(), max_size=5).flatmap(
        lambda lines: st.tuples(
            st.just(lines),
            st.lists(st.booleans(), min_size=len(units_of(lines)), max_size=len(units_of(lines))),
        )
    )
)
def test_cut_equals_its_twin(page):
    lines, removed = page
    text, starts = text_of(lines), starts_of(lines)
    got = spans.cut(text, starts, removed)
    assert got == naive_cut(lines, removed)
    assert got == spans.cut(text, starts, np.array(removed, np.bool_))
    for line in got.split("\n"):
        # A line that ends in whitespace ended in it before.
        assert ending(line) in {"", *map(ending, text.split("\n"))}
    if not any(removed):
        assert got == text


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("ab .\t\r"), st.booleans()), min_size=1))
def test_cutting_lines_is_joining_the_lines_that_stay(lines):
    text = "\n".join(line for line, _ in lines)
    got = spans.cut(text, line_starts(text), [removed for _, removed in lines])
    assert got == "\n".join(line for line, removed in lines if not removed)


@pytest.mark.parametrize(
    ("text", "starts", "removed", "left"),
    [
        ("A. B. C.", [0, 3, 6], [0, 1, 0], "A. C."),
        ("A. B. C.", [0, 3, 6], [0, 0, 1], "A. B."),
        ("A. B. C.", [0, 3, 6], [1, 0, 0], "B. C."),
        ("A.\nB.\nC.", [0, 3, 6], [0, 1, 0], "A.\nC."),
        ("A.\nB.\nC.", [0, 3, 6], [1, 1, 0], "C."),
        ("A.\nB.\nC.", [0, 3, 6], [0, 0, 1], "A.\nB."),
        ("A. B.\nC. D.", [0, 3, 6, 9], [0, 1, 1, 0], "A.\nD."),  # never glued
        ("A.\n\nB.\nC.", [0, 4, 7], [0, 1, 0], "A.\n\nC."),  # an empty line is no unit
        ("  A.\n  B. C.", [2, 7, 10], [0, 1, 0], "  A.\n  C."),
        ("A.\r\nB.\r\n", [0, 4], [1, 0], "B.\r\n"),
        ("A. \nB.", [0, 4], [0, 1], "A. "),  # was there before
        ("A.\u2028B.", [0, 3], [0, 1], "A."),
        ("A.\u2028B.", [0, 3], [1, 0], "B."),
        ("A", [0], [1], ""),
        ("", [], [], ""),
        ("a  b", [0, 2, 3], [0, 0, 1], "a"),  # the unit between them is empty
    ],
)
def test_cut_cases(text, starts, removed, left):
    assert spans.cut(text, starts, removed) == left


def test_cut_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="2 marks for 1 units"):
        spans.cut("A.", [0], [True, False])
    with pytest.raises(ValueError, match="must end on the line"):
        spans.cut("A\nB.", [0], [True])
    with pytest.raises(ValueError, match="must ascend"):
        spans.cut("A. B.", [3, 0], [True, False])
    with pytest.raises(ValueError, match="must ascend from 0 to 2 at most"):
        spans.cut("A.", [3], [True])


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(0, 30), st.data())
def test_units_removed_equals_its_twin(window, total, data):
    possible = range(total - window + 1)
    first = data.draw(st.lists(st.sampled_from(possible)) if possible else st.just([]))
    expected = [any(f <= unit < f + window for f in first) for unit in range(total)]
    assert spans.units_removed(first, window, total).tolist() == expected


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(0, 30), st.data())
def test_unit_keepers_equal_their_twin(window, total, data):
    possible = range(total - window + 1)
    spans_and_keys = st.tuples(st.sampled_from(possible), st.integers(0, 2**64 - 1))
    drawn = data.draw(st.lists(spans_and_keys) if possible else st.just([]))
    first, keys = [span for span, _ in drawn], np.array([key for _, key in drawn], np.uint64)
    removed = spans.units_removed(first, window, total)
    expected = [
        min(key for span, key in drawn if span <= unit < span + window)
        for unit in range(total)
        if removed[unit]
    ]
    assert spans.unit_keepers(first, keys, window, removed).tolist() == expected


@pytest.mark.parametrize(("first", "window"), [([-1], 1), ([8], 3), ([2**40], 3), ([0], 0)])
def test_spans_outside_the_units_are_refused(first, window):
    with pytest.raises(ValueError, match=r"must lie within 10|window must be positive"):
        spans.units_removed(first, window, 10)


def test_starts_that_do_not_fit_are_named_in_full():
    for starts in ([-1, 3], [3, 0], [0, 6]):
        message = f"starts must ascend from 0 to 5 at most, got {starts}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            spans.cut("A. B.", starts, [True, False])


def test_spans_lie_within_the_units_or_are_refused():
    for window, total, first in itertools.product(range(1, 5), range(9), range(9)):
        if first + window <= total:
            assert spans.units_removed([first], window, total).sum() == window
        else:
            with pytest.raises(ValueError, match=rf"from {first} to {first}: are they of this"):
                spans.units_removed([first], window, total)


def test_a_buffer_of_the_wrong_length_is_told_both_lengths():
    buffer = spans.pack_spans(some_units(3), some_units(3)[:, 0], [0, 1, 2])
    message = (
        "C4SPANS1 buffer of 3 rows must have 108 bytes, got 107: it was cut or joined; write its "
        "file again"
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        spans.unpack_spans(buffer[:-1])
    message = "buffer is shorter than the header of a C4SPANS1 buffer: 23 bytes of 24; "
    with pytest.raises(ValueError, match=f"^{message}"):
        spans.unpack_spans(buffer[:23])
