"""The benchmark of merging runs, and fails when the two ways differ."""

import pytest

from benchmarks import merging
from pipelines.stages import write_shards
from pipelines.stages.merge_files import MergePlan
from samples.make_samples import WET_DIR

ARGUMENTS = ["--wet", str(WET_DIR / "sample-0000[01]*"), "--files", "60", "--sample", "2"]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(write_shards, "_TEXT_BYTES_PER_SHARD", 1 << 18)


@pytest.mark.slow
def test_it_prints_what_both_ways_cost(capsys):
    assert merging.main(ARGUMENTS) == 0
    told = capsys.readouterr().out
    assert "shards from files" in told
    assert "shards from pieces" in told
    assert "the same shards" in told


def test_shards_that_differ_are_a_failure(capsys, monkeypatch):
    # As if a piece held the pages of half the files.
    monkeypatch.setattr(
        MergePlan,
        "files_of",
        lambda plan, group, names: names[: len(names) // 2],
    )
    assert merging.main(ARGUMENTS) == 1
    assert "DIFFER" in capsys.readouterr().out
