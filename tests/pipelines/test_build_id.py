"""Removals and merged files belong to one build, from the graph down to each file."""

import dataclasses
import pathlib

import pytest

from pipelines.corpus.removals import OtherBuildError, Removals
from pipelines.stages import graph as graphs
from pipelines.stages import merge_files
from testing.helpers import run_c4, write_wet

pytestmark = pytest.mark.slow

TEXT = "The old harbour was rebuilt by the people. They worked for two winters. Nobody was paid."


@pytest.mark.parametrize("merged", [False, True])
def test_every_stage_asks_for_the_build_id(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, merged: bool
) -> None:
    for name in ("a", "b"):
        pages = [(f"http://{name}.example/{i}", "2019-04-18T10:00:00Z", TEXT) for i in range(3)]
        write_wet(tmp_path / f"{name}.warc.wet.gz", pages)
    monkeypatch.setattr(merge_files, "_WORTH", 0 if merged else 10**9)
    out = tmp_path / "out"

    def run(build_id: str) -> None:
        def identify(graph: graphs.BuildCorpus) -> None:
            super(graphs.BuildCorpus, graph).__init__()
            assert graph.claim is not None
            graph.claim = dataclasses.replace(graph.claim, build_id=build_id)

        monkeypatch.setattr(graphs.BuildCorpus, "__post_init__", identify)
        inputs = ("--input", tmp_path / "*.wet.gz", "--workers", "1")
        outcome = run_c4("build", *inputs, "--output", out)
        assert outcome.status == 0, outcome.err

    for build_id in ("one", "two"):  # the second build meets what the first has left
        run(build_id)
        assert (out / "merged").exists() == merged
        for path in (out / "removals").iterdir():
            with Removals(str(path), build_id):
                pass
            with pytest.raises(OtherBuildError):
                Removals(str(path), "")
        (out / "manifest.json").unlink()
