"""The account of a build's CPU: every part is there, and they add up."""

import pathlib
import time

import pytest

from benchmarks import account, clocks
from samples.make_samples import WET_DIR


@pytest.mark.slow
def test_parts_of_a_build_add_up_to_the_whole(tmp_path: pathlib.Path) -> None:
    paths = sorted(map(str, WET_DIR.glob("*.warc.wet.gz")))
    found, pages = account.account(paths, tmp_path, batch=1)
    assert pages > 100
    whole, of_clocks = found.pop(clocks.WHOLE), found.pop(clocks.CLOCKS)
    assert found.keys() == {*account._PARTS, account._PYTHON, clocks.REST}
    assert sum(found.values()) == pytest.approx(whole)
    assert 0 < of_clocks < clocks.MOST * whole


def test_a_part_is_without_what_it_calls() -> None:
    def spin() -> None:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass

    inner = clocks.timed("inner", spin)
    clocks.timed("outer", lambda: (inner(), spin()))()
    assert 0.015 < clocks.OWN.pop("inner") / 1e9 < 0.05
    assert 0.015 < clocks.OWN.pop("outer") / 1e9 < 0.035
