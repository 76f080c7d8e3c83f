"""Short forms of benchmarks/build.py: they run, and what they compare is equal."""

import pathlib
import re

import pytest

from benchmarks import build
from samples.make_samples import WET_DIR

# The reference stops at a damaged file.
WHOLE = sorted(str(path) for path in WET_DIR.glob("sample-0*"))


@pytest.mark.slow
def test_samples_are_what_the_reference_makes_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorflow_datasets", reason="extra tfds is not installed")
    assert build.parity(WHOLE)
    [pages] = re.findall(r"reference (\d+) pages", capsys.readouterr().out)
    assert int(pages) > 20


@pytest.mark.slow
def test_growth_counts_pages_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    build.growth([300], seed=1, workers=1)
    out = capsys.readouterr().out
    # So few pages can cost less than two starts of a build differ by: the sign is noise.
    assert re.search(r" 300 pages in 2 files: -?\d\.\d+ CPU ms a page .* GiB at most", out)
    assert pathlib.Path.cwd().exists()
