"""The benchmark of merging runs."""

import re

import pytest

from benchmarks import merging
from pipelines.stages import write_shards
from samples.make_samples import WET_DIR

ARGUMENTS = ["--wet", str(WET_DIR / "sample-0000[01]*"), "--sample", "1", "--files"]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(write_shards, "_TEXT_BYTES_PER_SHARD", 1 << 18)


def test_it_prints_what_a_task_costs(capsys):
    assert merging.main([*ARGUMENTS, "60"]) == 0
    [_, _, task] = capsys.readouterr().out.splitlines()
    assert re.search(r"a piece of \d+ MB of text, .* MB of text a CPU s; \d+ MB of memory", task)


def test_files_that_a_build_leaves_apart_are_refused(capsys):
    with pytest.raises(SystemExit):
        merging.main([*ARGUMENTS, "2"])
    assert "not merged (--files)" in capsys.readouterr().err
