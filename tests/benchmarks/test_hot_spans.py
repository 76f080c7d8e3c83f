"""Short form of benchmarks/hot_spans.py: memory of each step of deduplication, one span everywhere.

The whole build's memory is mostly libraries at a size that CI can afford. So what NumPy and Python
hold is counted (tracemalloc), step by step, on fingerprints of 30,000 pages, once with the same
three sentences on every page and once with three of each page's own in their place.
"""

import pathlib
import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.hot_spans import HOT_SPAN, WithHotSpan
from c4_filters import spans
from c4_filters.pages import PageRules
from c4_filters.recipes import RECIPES
from pipelines.corpus import layout
from pipelines.corpus.fingerprints import FINGERPRINT_SCHEMA, write_fingerprints
from pipelines.stages import dedup, older_files
from pipelines.stages.clean_files import clean_file
from testing.helpers import write_wet

FILES, PAGES, UNITS, BUCKETS = 6, 5_000, 21, 8
BAR = 1.2


def made(output: pathlib.Path, hot: bool) -> list[str]:
    """Fingerprint files; three units of every page are the same on all, or its own."""
    chance = np.random.default_rng(0)
    names = []
    for file in range(FILES):
        units = chance.integers(0, 2**64, (PAGES, UNITS, 2), np.uint64)
        if hot:
            units[:, -3:] = np.arange(6, dtype=np.uint64).reshape(3, 2) << np.uint64(40)
        keys = chance.integers(0, 2**64, PAGES, np.uint64)
        columns = {
            "url_identity": [chance.bytes(16) for _ in range(PAGES)],
            "timestamp": ["2019-04-18T10:00:00Z"] * PAGES,
            "digest": [chance.bytes(16) for _ in range(PAGES)],
            "rank": keys,
            "units": [page.tobytes() for page in units],
        }
        names.append(f"file-{file}")
        table = pa.table(columns, schema=FINGERPRINT_SCHEMA)
        write_fingerprints(layout.fingerprints(str(output), names[-1]), table, PAGES, "x")
    return names


def held(work: Callable[[], Any]) -> tuple[Any, int]:
    """What a function gives, and the most memory it held at once beyond what was there."""
    tracemalloc.start()
    try:
        result = work()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def peaks(output: pathlib.Path, hot: bool) -> dict[str, int]:
    """The most that each step of deduplication holds for one file, or one bucket."""
    names = made(output, hot)
    most: dict[str, int] = defaultdict(int)
    buckets: dict[int, list[tuple[str, bytes]]] = defaultdict(list)
    lost: dict[str, list[bytes]] = defaultdict(list)
    for name in names:
        (own, packed), peak = held(
            lambda name=name: dedup.span_buffers(str(output), name, (), 3, BUCKETS)
        )
        most["file"] = max(most["file"], peak)
        lost[name] += [own] if own is not None else []
        for bucket, buffer in packed.items():
            buckets[bucket].append((name, buffer))
    for group in buckets.values():
        payload = sum(len(buffer) for _, buffer in group)
        found, peak = held(lambda group=group: list(older_files.repeated_spans(group)))
        most["bucket"] = max(most["bucket"], payload + peak)
        for name, rows in found:
            lost[name].append(rows)
    for name in names:
        assert lost_spans(lost[name]) == (PAGES if hot else 0) or name == winner(lost)
        _, peak = held(
            lambda name=name: dedup.write_file_removals(str(output), name, (), lost[name], 3, "")
        )
        most["removals"] = max(most["removals"], peak)
    return dict(most)


def winner(lost: dict[str, list[bytes]]) -> str:
    """The file that keeps the one copy that stays."""
    return min(lost, key=lambda name: lost_spans(lost[name]))


def lost_spans(buffers: list[bytes]) -> int:
    return len(np.unique(dedup._rows(buffers)))


@pytest.mark.slow
def test_no_step_takes_more_memory_for_a_span_on_every_page(tmp_path: pathlib.Path) -> None:
    with_it, without = peaks(tmp_path / "hot", hot=True), peaks(tmp_path / "own", hot=False)
    for step, most in without.items():
        assert with_it[step] <= BAR * most, f"{step}: {with_it[step] / most:.2f} times"


@pytest.mark.slow
def test_the_short_form_sees_a_file_that_settles_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everything(ids: spans.UInt64s, keys: spans.UInt64s) -> spans.Winners:
        rows = np.arange(len(ids))
        return spans.Winners(rows, rows[:0], rows[:0])

    without = peaks(tmp_path / "own", hot=False)
    monkeypatch.setattr(spans, "span_winners", everything)
    with_it = peaks(tmp_path / "hot", hot=True)
    assert with_it["bucket"] > BAR * without["bucket"]


def test_the_hot_span_passes_every_rule(tmp_path: pathlib.Path) -> None:
    pages = [(page.url, page.date, page.text.decode()) for page in WithHotSpan(0).pages(0, 20)]
    assert all(text.endswith(HOT_SPAN.decode()) for _, _, text in pages)
    path, size = write_wet(tmp_path / "hot.warc.wet.gz", pages)
    rules = PageRules(RECIPES["en"])
    file = clean_file(path, size, str(tmp_path / "out"), rules, "x", 1 << 20)
    assert file.pages_kept == 20
    lost, packed = dedup.span_buffers(str(tmp_path / "out"), file.name, (), 3, 1)
    assert lost is not None
    assert lost_spans([lost]) >= 19
    assert len(packed) == 1
