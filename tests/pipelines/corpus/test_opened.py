import pathlib

import numpy as np
import pyarrow as pa
import pytest

from pipelines.corpus import opened as opened_files
from pipelines.corpus.cleaned import CLEANED_SCHEMA, CleanedSource, write_cleaned
from pipelines.corpus.opened import OpenedFiles
from pipelines.corpus.removals import write_removals
from testing.fake_google_cloud import FakeGoogleCloud

PAGES = 3000
HALF = 1 << 63


def written(root: str, name: str = "a", seed: int = 0) -> CleanedSource:
    """Cleaned pages of more than 64 kB, in batches of 256."""
    chance = np.random.default_rng(seed)
    rows = [
        {
            "url": f"http://a.example/{row}",
            "text": chance.bytes(40).hex(),
            "timestamp": "2019-04-18T10:00:00Z",
            "content_type": "text/plain",
            "content_length": "80",
            "language": "en",
            "language_probability": 1.0,
            "validation": False,
            "page_key": row * (2**64 // PAGES),
            "digest": chance.bytes(16),
            "lines": 1,
            "unit_starts": [0],
            "offset": row,
            "inner_offset": 0,
            "record_id": None,
        }
        for row in range(PAGES)
    ]
    source = CleanedSource(f"{root}/cleaned/{name}.arrow", f"{root}/removals/{name}.bin")
    write_cleaned(source.cleaned, pa.Table.from_pylist(rows, CLEANED_SCHEMA), {})
    none = np.zeros(0, np.uint64)
    gone = np.zeros(PAGES, bool)
    write_removals(source.removals, gone, gone, none, none, "b")
    return source


def half(files: OpenedFiles, source: CleanedSource, low: int, high: int) -> list[str]:
    with files.open(source, "b") as opened:
        return [
            url
            for rows, _, _ in opened.cleaned.slices(0, low, high)
            for url in rows["url"].to_pylist()
        ]


def test_a_remote_file_is_opened_once_and_a_range_fetched_at_once(
    google_cloud: FakeGoogleCloud,
) -> None:
    source = written("gs://bucket")
    files = OpenedFiles()
    google_cloud.requests.clear()
    urls = half(files, source, 0, HALF)
    assert google_cloud.requests == {"GET object": 3}  # both ends, and six batches together
    urls += half(files, source, HALF, 2 * HALF)
    assert google_cloud.requests == {"GET object": 4}
    assert urls == [f"http://a.example/{row}" for row in range(PAGES)]
    files.close()


def test_a_file_that_changed_while_it_was_open_is_not_mixed(google_cloud: FakeGoogleCloud) -> None:
    source = written("gs://bucket")
    files = OpenedFiles()
    half(files, source, 0, HALF)
    written("gs://bucket", seed=1)
    with pytest.raises(OSError, match="changed while it was read"):
        half(files, source, HALF, 2 * HALF)
    assert len(half(files, source, 0, 2 * HALF)) == PAGES  # it does not stay open
    files.close()


def test_few_files_stay_open_and_no_local_ones(
    google_cloud: FakeGoogleCloud, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_files, "MOST_SOURCES", 1)
    sources = [written("gs://bucket", name) for name in "ab"]
    files = OpenedFiles()
    for expected in (4, 2):  # tables to fetch
        google_cloud.requests.clear()
        for source in sources:
            with files.open(source, "b"):
                pass
        assert google_cloud.requests == {"GET object": expected}
    files.close()
    local = written(str(tmp_path))
    with files.open(local, "b") as opened:
        pass
    with pytest.raises(ValueError, match="closed file"):
        list(opened.cleaned.slices(0, 0, 2 * HALF))
