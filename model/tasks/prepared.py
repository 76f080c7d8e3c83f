"""Prepared data: each split of a task as JSONL of raw examples, checked, with random access.

A folder holds a folder for each task: ``task.json`` and ``SPLIT.jsonl``.
"""

import abc
import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

import numpy as np

from model.small_files import naming, new_folder, read_json_object
from model.tasks.registry import TASKS, Task, own_task, task
from model.tasks.values import Pair, Raw, plain

_DESCRIPTION = "task.json"
_CHUNK = 1 << 24
_Item = TypeVar("_Item", covariant=True)
#: The name of a user's own pairs.
OWN = "own"


def prepare(
    name: str,
    rows: Iterable[tuple[str, Raw]],
    folder: str | os.PathLike[str],
    source: str,
    limit: int | None = None,
) -> "Prepared":
    """Write (split, raw example) of a task to ``folder``/``name`` and return what was written.

    At most ``limit`` examples of each split are written. Nothing is left behind if it fails.

    Raises ValueError for an example that is not in the task's fields, naming its split and number,
    if there are no examples, or if the folder has the task already.
    """
    found = own_task(name) if name == OWN else task(name)
    target = pathlib.Path(folder, name)
    if target.exists():
        raise ValueError(f"{target} exists already: remove it, or give another folder (--to)")
    with naming(target), new_folder(os.fspath(target), _DESCRIPTION) as work:
        splits = _write_splits(found, rows, work, limit)
        if not splits:
            raise ValueError(f"{source}: no examples of {name}")
        description = {**_origin(name, source, limit), "splits": splits}
        text = json.dumps(description, indent=1, ensure_ascii=False) + "\n"
        (work / _DESCRIPTION).write_text(text, "utf-8")
    return Prepared(folder, name)


def is_prepared(
    name: str, folder: str | os.PathLike[str], source: str, limit: int | None = None
) -> bool:
    """Return whether `prepare` wrote the task to the folder from a source of the same name.

    Raises ValueError for a damaged ``task.json``.
    """
    path = pathlib.Path(folder, name, _DESCRIPTION)
    if not path.is_file():
        return False
    found = read_json_object(path)
    return {key: value for key, value in found.items() if key != "splits"} == _origin(
        name, source, limit
    )


def _origin(name: str, source: str, limit: int | None) -> dict[str, Any]:
    limited = {} if limit is None else {"limit": limit}
    return {"task": name, "source": source, **limited}


def _write_splits(
    found: Task, rows: Iterable[tuple[str, Raw]], work: pathlib.Path, limit: int | None
) -> dict[str, dict[str, Any]]:
    counts: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as open_files:
        files, digests = {}, {}
        for split, row in rows:
            if split not in counts:
                counts[split] = {"examples": 0, "pairs": 0}
                files[split] = open_files.enter_context((work / f"{split}.jsonl").open("wb"))
                digests[split] = hashlib.sha256()
            count = counts[split]
            if limit is not None and count["examples"] >= limit:
                continue
            raw = plain(row)
            try:
                pairs = found.examples(raw, split)
                line = json.dumps(raw, ensure_ascii=False).encode("utf-8") + b"\n"
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"{split} example {count['examples']:,}: half of a surrogate pair, which is no "
                    "text: repair the example or leave it out"
                ) from error
            except ValueError as error:
                raise ValueError(f"{split} example {count['examples']:,}: {error}") from error
            files[split].write(line)
            digests[split].update(line)
            count["examples"] += 1
            count["pairs"] += len(pairs)
    for split, count in counts.items():
        count["sha256"] = digests[split].hexdigest()
    return counts


def prepared_tasks(folder: str | os.PathLike[str]) -> list[str]:
    """Return the names of the tasks that a folder holds, in the order of the paper's tables."""
    there = {path.parent.name for path in pathlib.Path(folder).glob(f"*/{_DESCRIPTION}")}
    return [name for name in (*TASKS, OWN) if name in there]


def no_data(folder: str | os.PathLike[str], names: Sequence[str]) -> str:
    """Return that a folder has no data of tasks, and the command that writes those of the first.

    >>> no_data(".", ["own"])
    '. has no data of own: c4 tasks prepare own --from validation=FILE --to .'
    """
    source = "validation=FILE" if names[0] == OWN else "DIR"
    where = f"{os.fspath(folder)}{'' if pathlib.Path(folder).is_dir() else ' (no such folder)'}"
    return (
        f"{where} has no data of {', '.join(names)}: c4 tasks prepare {names[0]} --from {source} "
        f"--to {os.fspath(folder)}"
    )


class Prepared:
    """A task's data in a folder that ``prepare`` wrote.

    Attributes:
        task: the task, in the form asked for.
        splits: the number of raw examples of each split.
        pair_counts: the number of pairs of each split.
        digests: the SHA-256 of each split's file, when it was written.

    Raises ValueError if the folder has no such task, or is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str, form: str = "code") -> None:
        self.task = own_task(name) if name == OWN else task(name, form)
        self._folder = pathlib.Path(folder, name)
        path = self._folder / _DESCRIPTION
        if not path.is_file():
            raise ValueError(no_data(folder, [name]))
        try:
            found = {str(k): dict(v) for k, v in read_json_object(path)["splits"].items()}
            self.splits = {split: int(count["examples"]) for split, count in found.items()}
            self.pair_counts = {split: int(count["pairs"]) for split, count in found.items()}
            self.digests = {split: str(count["sha256"]) for split, count in found.items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path}: damaged: no splits in it") from error

    @property
    def validation_splits(self) -> tuple[str, ...]:
        """The splits that validation scores come from, of those that are prepared.

        MNLI has two, most tasks one; tasks with test sets only have none.
        """
        return tuple(split for split in self.task.evaluated if split in self.splits)

    def unlike_published(self, *splits: str) -> str:
        """Return how many examples of these splits the task was published with, where they differ.

        Empty where none does, and for one's own pairs.
        """
        published = self.task.splits
        differing = [
            f"{split} {published[split]:,}, not {self.splits[split]:,}"
            for split in splits
            if split in published and published[split] != self.splits[split]
        ]
        return f"{self.task.name} is published with {'; '.join(differing)}" if differing else ""

    def raws(self, split: str) -> "RawExamples":
        """Return the raw examples of a split. Raises ValueError if there is no such split."""
        if split not in self.splits:
            raise ValueError(f"{self._folder} has no split {split!r}: {', '.join(self.splits)}")
        examples = RawExamples(self._folder / f"{split}.jsonl")
        if len(examples) != self.splits[split]:
            raise ValueError(
                f"{self._folder / split}.jsonl has {len(examples):,} lines instead of "
                f"{self.splits[split]:,}: prepare the task again"
            )
        return examples

    def pairs(self, split: str) -> "Pairs":
        """Return the (inputs, targets) of a split. Raises ValueError if there is no such split."""
        raws = self.raws(split)
        one_each = self.splits[split] == self.pair_counts[split]
        return Pairs(self.task, split, raws, one_each)


class _Lazy(Sequence[_Item]):
    """A sequence whose items are read when asked for, by `_at`."""

    @abc.abstractmethod
    def _at(self, place: int) -> _Item:
        """Read one item."""

    @overload
    def __getitem__(self, index: int) -> _Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[_Item]: ...

    def __getitem__(self, index: int | slice) -> _Item | list[_Item]:
        places = range(len(self))[index]
        return self._at(places) if isinstance(places, int) else [self._at(each) for each in places]


class RawExamples(_Lazy[Raw]):
    """The lines of a JSONL file, each read when asked for. It can be pickled."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._ends = _line_ends(path)
        self._file: Any = None

    def __len__(self) -> int:
        return len(self._ends)

    def _at(self, place: int) -> Raw:
        start = int(self._ends[place - 1]) if place else 0
        if self._file is None:
            self._file = self._path.open("rb")
        line = os.pread(self._file.fileno(), int(self._ends[place]) - start, start)
        try:
            raw = json.loads(line.decode("utf-8"))
        except ValueError as error:
            raise ValueError(f"{self._path}: line {place + 1:,} is damaged") from error
        if not isinstance(raw, dict):
            raise ValueError(f"{self._path}: line {place + 1:,} is no object")
        return raw

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self._file.close()


def _line_ends(path: pathlib.Path) -> "np.ndarray[Any, np.dtype[np.int64]]":
    ends, offset = [np.zeros(0, np.int64)], 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            places = np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n"))
            ends.append(places.astype(np.int64) + offset + 1)
            offset += len(chunk)
    return np.concatenate(ends)


class Pairs(_Lazy[Pair]):
    """The (inputs, targets) of a split, in order. It can be pickled."""

    def __init__(self, found: Task, split: str, raws: Sequence[Raw], one_each: bool) -> None:
        self._task, self._split, self._raws = found, split, raws
        self._places: Any = None  # of each pair: its example, and its place among that one's pairs
        if not one_each:
            counts = [len(found.checked_examples(raw, split)) for raw in raws]
            owners = np.repeat(np.arange(len(counts)), counts)
            starts = np.cumsum([0, *counts])[owners]
            self._places = np.stack([owners, np.arange(len(owners)) - starts], axis=1)

    def __len__(self) -> int:
        return len(self._raws if self._places is None else self._places)

    def _at(self, place: int) -> Pair:
        owner, among = (place, 0) if self._places is None else self._places[place]
        return self._task.checked_examples(self._raws[int(owner)], self._split)[int(among)]

    def __iter__(self) -> Iterator[Pair]:
        for raw in self._raws:
            yield from self._task.checked_examples(raw, self._split)
