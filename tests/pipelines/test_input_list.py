import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from c4_filters.recipes import load_recipe
from pipelines.builders import Claim
from pipelines.config import BuildConfig
from pipelines.input_list import build_id, known_inputs, read_input_list, write_input_list
from pipelines.quiet_beam import beam
from pipelines.stages.graph import BuildCorpus
from pipelines.storage import FileInfo
from testing.helpers import run_c4, write_wet

FILES = [
    FileInfo("gs://b/[1] a.gz", 3, "etag:1"),
    FileInfo("/data/new\nline", 0),
    FileInfo("earlier", 5, "mtime:7"),
    FileInfo("/data/not utf-8 \udcff", 2**40),
]
PAGE = ("http://a.example/", "2019-04-18T10:00:00Z", "One.")


def test_a_list_comes_back_as_it_was(tmp_path: pathlib.Path) -> None:
    out = str(tmp_path)
    write_input_list(out, FILES, "run", "build")
    assert read_input_list(out) == FILES
    assert read_input_list(out, "run") == FILES


def test_the_list_of_another_run_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    write_input_list(str(tmp_path), FILES, "first")
    with pytest.raises(ValueError, match=r"inputs\.jsonl is the list of another build \(run first"):
        read_input_list(str(tmp_path), "second")


def test_inputs_of_earlier_builds_stay_known(tmp_path: pathlib.Path) -> None:
    out = str(tmp_path)
    (tmp_path / "inputs.jsonl").write_text('["/of/0.1", 7]\nnot JSON\n3\n[]\n{"a": 1}\n')
    assert known_inputs(out) == {"/of/0.1"}
    write_input_list(out, FILES[:2])
    write_input_list(out, FILES[1:])
    assert read_input_list(out) == FILES[1:]
    assert known_inputs(out) == {"/of/0.1", *(file.path for file in FILES)}


def test_the_id_of_a_build_is_that_of_its_settings_and_inputs() -> None:
    first = build_id({"a": 1}, FILES)
    assert build_id({"a": 1}, FILES[::-1]) == first
    assert build_id({"a": 2}, FILES) != first
    assert build_id({"a": 1}, FILES[1:]) != first
    for change in ({"path": "/x"}, {"size": 4}, {"identity": "etag:2"}):
        assert build_id({"a": 1}, [FILES[0]._replace(**change), *FILES[1:]]) != first


HEAD = b'{"run": "", "build": ""}\n'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"7",
        b"\xff",
        b"[]",
        b"{}",
        HEAD + b'["a"]',
        HEAD + b'["a", "b", ""]',
        HEAD + b"3",
    ],
)
def test_a_damaged_list_is_named(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "inputs.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=r"inputs\.jsonl is damaged .*run the same c4 build again"):
        read_input_list(str(tmp_path))


@pytest.mark.slow
def test_a_build_reads_what_was_listed_last(tmp_path: pathlib.Path) -> None:
    first, _ = write_wet(tmp_path / "a.warc.wet", [PAGE])
    second, _ = write_wet(tmp_path / "b.warc.wet", [PAGE])
    out = str(tmp_path / "out")
    for inputs in ([first, second], [second]):
        done = run_c4("build", "--input", *inputs, "--output", out, "--workers", "1")
        assert done.status == 0, done.err
        assert [file.path for file in read_input_list(out)] == inputs


def graph_of(names: Sequence[str], **more: Any) -> bytes:
    """The job graph of a build of these files, as every engine but the local one gets it."""
    recipe = load_recipe("en")
    config = BuildConfig(inputs=tuple(names), output="gs://bucket/out", recipe=recipe, **more)
    claim = Claim(config.output, 1, "run", build_id="build")
    pipeline = beam.Pipeline(runner="FnApiRunner")
    _ = pipeline | "BuildCorpus" >> BuildCorpus(config, claim=claim)
    return pipeline.to_runner_api().SerializeToString(deterministic=True)


def crawl_names(count: int) -> Iterator[str]:
    for number in range(count):
        yield f"gs://crawl/CC-MAIN-2019-18/segments/{number % 100}/wet/{number:05}.warc.wet.gz"


@pytest.mark.slow
def test_the_graph_does_not_grow_with_the_number_of_files() -> None:
    sizes = {count: len(graph_of(list(crawl_names(count)))) for count in (1, 1_000, 90_000)}
    assert max(sizes.values()) < 1_000_000
    lists = [f"CC-MAIN-2019-{week}" for week in range(10, 50)]
    sizes[0] = len(graph_of(["@gs://crawl/a.paths"], crawl=lists, base_url="gs://crawl"))
    # Pickles of one value differ by some bytes.
    assert max(sizes.values()) - min(sizes.values()) < 500, sizes
