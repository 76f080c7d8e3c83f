"""Raw examples from TensorFlow Datasets and from Hugging Face datasets."""

import importlib
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model.tasks.registry import Task
from model.tasks.values import Raw, plain

_BATCH = 1_000


def read_tfds(task: Task, data_dir: str | None = None) -> Iterator[tuple[str, Raw]]:
    """Yield (split, raw example) from TensorFlow Datasets, which downloads what is not there.

    Raises ValueError if the library is not installed (extra ``tfds``).
    """
    tfds = _library("tensorflow_datasets", "tfds")
    builder = tfds.builder(task.source.tfds, data_dir=data_dir)
    builder.download_and_prepare()
    # A builder without its statistics has no splits listed.
    for split in _in_order(task, builder.info.splits or task.splits):
        for raw in tfds.as_numpy(builder.as_dataset(split=split)):
            yield split, plain(raw)


def read_hugging_face(task: Task) -> Iterator[tuple[str, Raw]]:
    """Yield (split, raw example) from the Hugging Face hub. No code of the hub's is run.

    Raises ValueError if the library is not installed (extra ``tasks``).
    """
    name, config = task.source.hub
    if not name:
        raise ValueError(f"{task.name} is not on the Hugging Face hub: give a folder")
    found = _library("datasets", "tasks").load_dataset(name, config or None)
    for split in _in_order(task, found):
        for row in found[split]:
            yield split, _flat(row)


def holds_hugging_face(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds datasets as ``save_to_disk`` or the hub write them."""
    folder = pathlib.Path(path)
    return folder.is_dir() and any(_tables(folder))


def read_hugging_face_folder(task: Task, path: str | os.PathLike[str]) -> Iterator[tuple[str, Raw]]:
    """Yield (split, raw example) from a folder that ``save_to_disk`` or the hub wrote.

    Only the Arrow and Parquet files are read. Raises ValueError if none is of a split of the task.
    """
    folder = pathlib.Path(path)
    config = task.source.hub[1]
    tables = list(_tables(folder))
    tables = [table for table in tables if config in table.relative_to(folder).parts[:-1]] or tables
    by_split: dict[str, list[pathlib.Path]] = {}
    for table in tables:
        by_split.setdefault(_split_of(table, folder), []).append(table)
    splits = _in_order(task, by_split)
    if not splits:
        raise ValueError(
            f"{path}: no split {' or '.join(task.splits)}; found {', '.join(sorted(by_split))}"
        )
    for split in splits:
        for table in by_split[split]:
            try:
                for row in _rows(table):
                    yield split, _flat(row)
            except pa.ArrowException as error:
                raise ValueError(f"{table}: damaged: {error}") from error


def _library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"reading this needs {name}, which comes with the extra {extra}: "
            f"pip install 'colossal-c4[{extra}]'"
        ) from error


def _in_order(task: Task, found: Iterable[str]) -> list[str]:
    there = set(found)
    return [split for split in task.splits if split in there]


def _tables(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for path in sorted(folder.rglob("*")):
        cached = path.name.startswith("cache-")  # of what a user computed
        if path.suffix in (".arrow", ".parquet") and path.is_file() and not cached:
            yield path


def _split_of(table: pathlib.Path, folder: pathlib.Path) -> str:
    """Return the split: ``SPLIT-00000-of-00001.parquet``, or the folder of ``data-….arrow``."""
    stem = table.stem.partition("-")[0]
    return table.parent.name if stem in ("data", "dataset") and table.parent != folder else stem


def _rows(table: pathlib.Path) -> Iterator[dict[str, Any]]:
    if table.suffix == ".parquet":
        with pq.ParquetFile(table) as parquet:
            for batch in parquet.iter_batches(_BATCH):
                yield from batch.to_pylist()
        return
    with pa.memory_map(os.fspath(table)) as source, pa.ipc.open_stream(source) as stream:
        for batch in stream:
            yield from batch.to_pylist()


def _flat(row: dict[str, Any]) -> Raw:
    """Return a row in the fields of TensorFlow Datasets: translations are not nested there."""
    raw: dict[str, Any] = plain(row)
    translation = raw.pop("translation", None)
    return raw | translation if isinstance(translation, dict) else raw
