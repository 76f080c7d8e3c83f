"""A corpus from the shipped command, opened by other people's libraries as docs/reading.md says."""

import os
import pathlib
import re
from typing import Any

import pytest

from testing.helpers import read_corpus, run_c4

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

# tensorflow-datasets 4.9.10 asks protobuf in a way that protobuf 6 deprecates.
pytestmark = pytest.mark.filterwarnings(r"ignore:label\(\) is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with a ``corpus`` in it, of TFRecord and of Parquet."""
    folder = tmp_path_factory.mktemp("readers")
    samples = REPOSITORY / "samples" / "wet" / "*"
    arguments = ("--format", "tfrecord,parquet", "--shards", "3", "--quiet")
    outcome = run_c4("build", "--input", samples, "--output", folder / "corpus", *arguments)
    assert outcome.status == 0, outcome.err
    return folder


def _lines_of_the_page(library: str) -> list[str]:
    """The lines with which the example of docs/reading.md opens a corpus by one library."""
    text = (REPOSITORY / "docs" / "reading.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in str(block).splitlines()]
    found = [line for line in lines if line.startswith(f"pages = {library}.")]
    assert found
    return found


def _line_of_the_page(library: str) -> str:
    [line] = _lines_of_the_page(library)
    return line


@pytest.fixture(autouse=True)
def _beside_the_corpus(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # the page's paths are relative


def _run(line: str, names: dict[str, object]) -> object:
    exec(line, names)
    return names["pages"]


@pytest.mark.slow
def test_tensorflow_datasets_reads_it(folder: pathlib.Path) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed (extra tfds)")
    tfds = pytest.importorskip("tensorflow_datasets", reason="extra tfds is not installed")
    pages = _run(_line_of_the_page("tfds"), {"tfds": tfds})
    found = {page["url"].decode(): page["text"].decode() for page in tfds.as_numpy(pages)}
    expected = {page["url"]: page["text"] for page in read_corpus(folder / "corpus")["train"]}
    assert found == expected
    assert len(found) > 50


def test_hugging_face_reads_it(
    folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    datasets = pytest.importorskip("datasets", reason="extra dev is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    pages = _run(_line_of_the_page("datasets"), {"datasets": datasets})
    expected = read_corpus(folder / "corpus")["train"]
    assert pages["train"]["text"][:] == [page["text"] for page in expected]  # type: ignore[index]


def _texts(folder: pathlib.Path, *splits: str) -> list[str]:
    corpus = read_corpus(folder / "corpus")
    return sorted(page["text"] for split in splits for page in corpus[split])


def test_pyarrow_reads_it(folder: pathlib.Path) -> None:
    import glob

    import pyarrow.dataset

    names: dict[str, Any] = {"pyarrow": pyarrow, "glob": glob}
    by_pattern, by_folder = _lines_of_the_page("pyarrow")
    for line, splits in ((by_pattern, ["train"]), (by_folder, ["train", "validation"])):
        pages: Any = _run(line, names)
        assert sorted(pages.to_table()["text"].to_pylist()) == _texts(folder, *splits)


def test_pandas_reads_it(folder: pathlib.Path) -> None:
    import glob

    pandas = pytest.importorskip("pandas", reason="pandas is not installed (extra dev)")
    pages: Any = _run(_line_of_the_page("pandas"), {"pandas": pandas, "glob": glob})
    assert sorted(pages["text"]) == _texts(folder, "train")


def test_polars_reads_it(folder: pathlib.Path) -> None:
    polars = pytest.importorskip("polars", reason="Polars is not installed")
    pages: Any = _run(_line_of_the_page("polars"), {"polars": polars})
    assert sorted(pages.collect()["text"].to_list()) == _texts(folder, "train")


def test_duckdb_reads_it(folder: pathlib.Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    pages: Any = _run(_line_of_the_page("duckdb"), {"duckdb": duckdb})
    assert sorted(text for (text,) in pages.project("text").fetchall()) == _texts(folder, "train")


def test_spark_reads_it(folder: pathlib.Path) -> None:
    sql = pytest.importorskip("pyspark.sql", reason="PySpark is not installed")
    spark = sql.SparkSession.builder.master("local[1]").getOrCreate()
    try:
        pages: Any = _run(_line_of_the_page("spark"), {"spark": spark})
        assert sorted(row.text for row in pages.collect()) == _texts(folder, "train")
    finally:
        spark.stop()
