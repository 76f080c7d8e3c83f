"""The reference's functions, and real pages, for the tests that compare with them."""

import gzip
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from c4_filters.pages import RawPage

SHARED = pathlib.Path(__file__).resolve().parents[2] / ".." / "shared"


@pytest.fixture(scope="module")
def c4_utils() -> Iterator[Any]:
    """TensorFlow Datasets' c4_utils as installed, its Beam counters silent."""
    pytest.importorskip("tensorflow_datasets", reason="needs the extra `tfds`")
    pytest.importorskip("nltk", reason="needs the extra `dev`")
    from benchmarks import reference

    module = reference.load_reference()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "get_counter_inc_fn", lambda namespace: lambda name, amount=1: None)
        yield module


@pytest.fixture(scope="session")
def real_pages() -> list[RawPage]:
    """Every page of the shared WET files; the test is skipped where they are absent."""
    warc = pytest.importorskip("fastwarc.warc")
    paths = sorted((SHARED / "wet").glob("*.warc.wet.gz"))
    if not paths:
        pytest.skip("needs the WET files of ../shared/wet")
    pages = []
    for path in paths:
        with gzip.open(path) as file:
            conversions = warc.WarcRecordType.conversion
            for record in warc.ArchiveIterator(file, record_types=conversions):
                headers = record.headers.asdict()
                try:
                    text = record.reader.read().decode("utf-8")
                except UnicodeDecodeError:
                    continue  # what the reader does with these is its own test
                pages.append(
                    RawPage(
                        headers["WARC-Target-URI"],
                        headers["WARC-Date"],
                        headers.get("Content-Type", ""),
                        headers.get("Content-Length", ""),
                        text,
                    )
                )
    assert len(pages) > 5_000
    return pages
