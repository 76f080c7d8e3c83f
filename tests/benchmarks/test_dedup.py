"""Short form of benchmarks/dedup.py: every graph finds the same, one element a span costs more."""

import pathlib
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_graphs_agree_and_packing_pays() -> None:
    # Beam's fixed cost still weighs here: the bar of 12 times holds at 2,000,000 spans.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.dedup", "--spans", "100000"),
            *("--large", "0", "--files", "4", "--repeats", "1"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "the same by every graph" in done.stdout, done.stderr
    [ratio] = re.findall(r"naive / packed: (\d+\.\d)", done.stdout)
    assert float(ratio) > 1.5
