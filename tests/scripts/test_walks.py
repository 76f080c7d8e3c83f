"""No option passes through many files on its way from the parser to its use."""

import pytest

from scripts import walks


@pytest.mark.slow  # imports every command
def test_every_walk_is_short(capsys):
    found = dict(walks.walks())
    assert found["build --max-record-mb"] == [  # in a whole configuration as far as the graph
        "pipelines.commands.build", "pipelines.builds", "pipelines.stages.graph",
        "pipelines.stages.clean_files", "pipelines.wet.records", "pipelines.wet.extents",
    ]  # fmt: skip
    assert found["explain --max-file-mb"][-1] == "pipelines.wet.records"
    assert found["pretrain --keep-last"][-1] == "model.training.checkpoints"
    assert walks.main() == 0
    assert len(capsys.readouterr().out.splitlines()) == len(found) > 80


def test_a_long_walk_fails(monkeypatch, capsys):
    monkeypatch.setattr(walks, "walks", lambda: [("build --x", list("abcdefg"))])
    assert walks.main() == 1
    assert capsys.readouterr().out == "  7  build --x: a > b > c > d > e > f > g\n"
