"""The build as a transform in somebody else's pipeline, and as a function."""

import json
import pathlib
from typing import Any

import pytest

from pipelines import BuildConfig, BuildCorpus, build, builders, open_corpus
from pipelines.corpus.manifest import Manifest
from pipelines.quiet_beam import beam
from pipelines.stages import graph
from pipelines.stages.write_shards import plan_shards
from samples.make_samples import WET_DIR
from testing.helpers import wet_bytes

WET = str(WET_DIR / "sample-00000.warc.wet.gz")


def config_for(folder: pathlib.Path, **changes: Any) -> BuildConfig:
    values = {"inputs": WET, "output": str(folder / "out"), **changes}
    return BuildConfig(**values)


def run(config: BuildConfig) -> list[Any]:
    """What the transform has yielded so far in pipelines that know nothing of c4."""
    found = pathlib.Path(config.output).parent / "found"
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        made = pipeline | BuildCorpus(config)
        _ = made | beam.Map(_write, str(found))
    return [json.loads(line) for line in found.read_text().splitlines()]


def _write(made: Manifest, path: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{json.dumps([made.counts.pages_written, made.checksum])}\n")


@pytest.mark.slow
def test_the_transform_builds_what_the_function_builds(tmp_path: pathlib.Path) -> None:
    for name in ("graph", "function"):
        (tmp_path / name).mkdir()
    config = config_for(tmp_path / "graph")
    [[pages, checksum]] = run(config)
    made = build(config_for(tmp_path / "function"), show_progress=False)
    assert pages == made.counts.pages_written
    whole = open_corpus(config.output).manifest
    assert isinstance(whole, Manifest)
    assert (whole.shards, whole.checksum) == (made.shards, checksum)
    # The folder is free again, and the corpus is not built twice.
    assert run(config) == [[pages, checksum]] * 2
    assert build(config, show_progress=False) == open_corpus(config.output).manifest


@pytest.mark.slow
def test_a_transform_that_is_applied_but_never_run_leaves_the_folder_free(
    tmp_path: pathlib.Path,
) -> None:
    config = config_for(tmp_path)
    for _ in range(2):
        _ = beam.Pipeline(runner="FnApiRunner") | BuildCorpus(config)
    assert len(run(config)) == 1


@pytest.mark.slow
def test_a_pipeline_that_failed_may_run_again_at_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(tmp_path)
    write_shard = graph.write_shard

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(graph, "write_shard", fails)
    with pytest.raises(Exception, match="No space left"):
        run(config)
    monkeypatch.setattr(graph, "write_shard", write_shard)
    assert len(run(config)) == 1  # in the same process: nobody waits for a heartbeat


def test_a_transform_does_not_take_the_folder_of_a_running_build(tmp_path: pathlib.Path) -> None:
    config = config_for(tmp_path)
    with (
        builders.hold(config.output),
        pytest.raises(OSError, match="another build is running in "),
    ):
        _ = beam.Pipeline(runner="FnApiRunner") | BuildCorpus(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": "none-*.gz"}, r"no input file matches"),
        ({"badwords": (("en", "none.txt"),)}, r"cannot read the list \S+none\.txt"),
    ],
)
def test_what_cannot_be_built_is_refused_where_the_transform_is_applied(
    changes: dict[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
    config = config_for(tmp_path, **changes)
    with pytest.raises((ValueError, OSError), match=message):
        _ = beam.Pipeline(runner="FnApiRunner") | BuildCorpus(config)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_build_of_which_too_much_is_unreadable_is_an_error(tmp_path: pathlib.Path) -> None:
    page = ("http://a.example/", "2019-04-18T10:00:00Z", "The river rose during the night. " * 9)
    (tmp_path / "a.warc.wet.gz").write_bytes(wet_bytes([page]))
    (tmp_path / "b.warc.wet.gz").write_bytes(b"")
    config = config_for(tmp_path, inputs=[str(tmp_path / "*.gz")])
    with pytest.raises(OSError, match=r"1 of 2 files could not be read, such as \S+b\.warc\.wet"):
        build(config, show_progress=False)
    made = build(
        config_for(tmp_path, inputs=config.inputs, allow_unreadable_files=1), show_progress=False
    )
    assert [file.path for file in made.unreadable_inputs] == [str(tmp_path / "b.warc.wet.gz")]


@pytest.mark.slow
def test_relative_paths_mean_the_folder_that_the_build_starts_in(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = build(BuildConfig(inputs=WET, output="out"), show_progress=False)
    assert made == open_corpus(str(tmp_path / "out")).manifest


def test_a_job_that_nobody_waits_for_has_no_manifest_to_return(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="waits for the end of the job: leave out the option"):
        build(config_for(tmp_path), options=["--no_wait_until_finish"], show_progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text_bytes", "asked"), [(0, None), (0, 2), (0, 129), (10**18, None)])
def test_what_is_written_together_is_one_train_shard(text_bytes: int, asked: int | None) -> None:
    shards = plan_shards(text_bytes, asked)
    written: dict[int, list[str]] = {}
    for number, shard in enumerate(shards):
        written.setdefault(graph._writer_of(number, shards), []).append(shard.split)
    assert set(map(tuple, written.values())) <= {("train",), ("train", "validation")}
    assert len(written) == shards[0].count
