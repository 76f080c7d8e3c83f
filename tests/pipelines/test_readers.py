"""A corpus from the shipped command, opened by other people's libraries as the README says."""

import os
import pathlib
import re

import pytest

from tests.helpers import read_corpus, run_c4

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


def _line_of_the_readme(library: str) -> str:
    """The line with which the README's example opens a corpus by one library."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in str(block).splitlines()]
    [line] = [line for line in lines if line.startswith(f"pages = {library}.")]
    return line


@pytest.fixture(autouse=True)
def _beside_the_corpus(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # the README's paths are relative


def _run(line: str, names: dict[str, object]) -> object:
    exec(line, names)
    return names["pages"]


def test_tensorflow_datasets_reads_it(folder: pathlib.Path) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed (extra tfds)")
    tfds = pytest.importorskip("tensorflow_datasets", reason="extra tfds is not installed")
    pages = _run(_line_of_the_readme("tfds"), {"tfds": tfds})
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
    pages = _run(_line_of_the_readme("datasets"), {"datasets": datasets})
    expected = read_corpus(folder / "corpus")["train"]
    assert pages["train"]["text"][:] == [page["text"] for page in expected]  # type: ignore[index]


def test_pyarrow_reads_it(folder: pathlib.Path) -> None:
    import glob

    import pyarrow.dataset

    names = {"pyarrow": pyarrow, "glob": glob}
    pages = _run(_line_of_the_readme("pyarrow"), names)
    rows = pages.count_rows()  # type: ignore[attr-defined]
    assert rows == len(read_corpus(folder / "corpus")["train"])
