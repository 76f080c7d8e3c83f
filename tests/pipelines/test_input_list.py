import pathlib
from collections.abc import Iterator

import pytest

from c4_filters.recipes import load_recipe
from pipelines.build import BuildCorpus
from pipelines.config import BuildConfig
from pipelines.input_list import read_input_list, write_input_list
from pipelines.quiet_beam import beam
from tests.helpers import run_c4, write_wet

PAGE = ("http://a.example/", "2019-04-18T10:00:00Z", "One.")


def test_a_list_comes_back_as_it_was(tmp_path: pathlib.Path) -> None:
    files = [("gs://b/[1] a.gz", 3), ("/data/new\nline", 0), ("/data/not utf-8 \udcff", 2**40)]
    write_input_list(str(tmp_path), files)
    assert read_input_list(str(tmp_path)) == files


@pytest.mark.parametrize("content", [b"{", b'["a"]', b'["a", "b"]', b"7", b"\xff"])
def test_a_damaged_list_is_named(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "inputs.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=r"inputs\.jsonl: damaged: .*run the same c4 build again"):
        read_input_list(str(tmp_path))


def test_a_build_reads_what_was_listed_last(tmp_path: pathlib.Path) -> None:
    first, _ = write_wet(tmp_path / "a.warc.wet", [PAGE])
    second, _ = write_wet(tmp_path / "b.warc.wet", [PAGE])
    out = str(tmp_path / "out")
    for inputs in ([first, second], [second]):
        done = run_c4("build", "--input", *inputs, "--output", out, "--workers", "1")
        assert done.status == 0, done.err
        assert [path for path, _ in read_input_list(out)] == inputs


def graph_of(names: list[str]) -> bytes:
    """The job graph of a build of these files, as every engine but the local one gets it."""
    config = BuildConfig(inputs=tuple(names), output="gs://bucket/out", recipe=load_recipe("en"))
    pipeline = beam.Pipeline(runner="FnApiRunner")
    _ = pipeline | "BuildCorpus" >> BuildCorpus(config)
    return pipeline.to_runner_api().SerializeToString(deterministic=True)


def crawl_names(count: int) -> Iterator[str]:
    for number in range(count):
        yield f"gs://crawl/CC-MAIN-2019-18/segments/{number % 100}/wet/{number:05}.warc.wet.gz"


def test_the_graph_does_not_grow_with_the_number_of_files() -> None:
    sizes = {count: len(graph_of(list(crawl_names(count)))) for count in (1, 1_000, 90_000)}
    assert max(sizes.values()) < 1_000_000
    # Pickles of one value differ by some bytes.
    assert max(sizes.values()) - min(sizes.values()) < 500, sizes
