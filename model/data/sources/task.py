"""A split of a prepared task, as a source.

Each epoch puts all examples of the split into another random order; an input shard has a contiguous
part of that order. A split with fewer examples than input shards gives all of them to each, in an
order of its own.
"""

import dataclasses
import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from model.data.permutation import permuted
from model.data.seeds import Purpose, generator, number_of
from model.data.sequences import Sequences
from model.data.sources.source import Pairs, TextIds
from model.tasks import prepared

_ELEMENT_PAIRS = 128
#: Ids that a process keeps of all tasks: 250,000 pairs of 70 tokens.
KEEP_BYTES = 128 << 20
_PAIR_BYTES = 250  # of the objects that hold two texts' ids
#: Pairs in which the longest target of a task is looked for; of more, so many random ones.
_MEASURED_PAIRS = 50_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskInput:
    """A task to draw examples from. Raises ValueError for a rate that is negative or not finite.

    Attributes:
        data: Folder of prepared tasks (``c4 tasks prepare``).
        name: Of the task.
        form: Of the task, "code" or "paper".
        split: Of the prepared data.
        rate: How often it is drawn, relative to other sources; 0: never.
    """

    data: str
    name: str
    form: str = "code"
    split: str = "train"
    rate: float = 1.0

    def __post_init__(self) -> None:
        if not (self.rate >= 0 and math.isfinite(self.rate)):
            raise ValueError(f"the rate of {self.name} must be at least 0, got {self.rate}")

    def open(self) -> prepared.Prepared:
        """Open the task's data. Raises ValueError where there is none, or not this split."""
        data = prepared.Prepared(self.data, self.name, self.form)
        if not data.pair_counts.get(self.split):
            raise ValueError(
                f"{self.data}/{self.name} has no examples in its split {self.split!r}: "
                f"{', '.join(data.splits)}"
            )
        return data


class TaskSource:
    """Pairs of a task's split. Raises ValueError as `TaskInput.open` does."""

    has_inputs = True

    def __init__(
        self,
        task: TaskInput,
        vocabulary: TextIds,
        seed: int,
        shards: int,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        """Make pairs of a task, and keep the ids of the first ``keep_bytes`` of them."""
        self.name = task.name
        self._task, self._vocabulary = task, vocabulary
        self._seed, self._shards, self._number = seed, shards, number_of(task.name)
        self._data = task.open()
        self.examples = self._data.pair_counts[task.split]
        self._pairs: prepared.Pairs | None = None  # opened by those who read them
        # A run reads most tasks many times. Ids of inputs and targets, int32, by place of the pair:
        self._ids: dict[int, tuple[bytes, bytes]] = {}
        self._keep_bytes, self._kept_bytes = keep_bytes, 0

    def elements(self, shard: int) -> int:
        """Return the elements of one epoch of an input shard."""
        begin, end = self._part(shard)
        return -(-(end - begin) // _ELEMENT_PAIRS)

    def lane(self, shard: int, element: int) -> int:
        """Return the element's own number: any process may make it."""
        del shard
        return element

    def _places(
        self, shard: int, epoch: int, elements: Sequence[int]
    ) -> list["np.ndarray[Any, Any]"]:
        """Return which pairs of the split each of these elements has: int64 [pairs]."""
        begin, end = self._part(shard)
        parts = self.elements(shard)
        ranges = [
            np.arange(*(begin + part * (end - begin) // parts for part in (element, element + 1)))
            for element in elements
        ]
        own = (shard,) if self.examples < self._shards else ()
        rng = generator(self._seed, Purpose.ORDER, self._number, epoch, *own)
        found = permuted(np.concatenate(ranges), self.examples, rng)
        return np.split(found, np.cumsum([len(each) for each in ranges])[:-1])

    def pairs(self, shard: int, *elements: tuple[int, int]) -> list[Pairs]:
        """Return the pairs of elements. Raises ValueError for damaged data."""
        places = [
            found.tolist()
            for epoch, each in itertools.groupby(elements, key=operator.itemgetter(0))
            for found in self._places(shard, epoch, [element for _, element in each])
        ]
        self._encode([p for p in dict.fromkeys(itertools.chain(*places)) if p not in self._ids])
        pairs = [[self._ids[place] for place in each] for each in places]
        while self._kept_bytes > self._keep_bytes:
            self._kept_bytes -= _bytes_of(self._ids.popitem()[1])
        return [
            (_unpacked(inputs), _unpacked(targets))
            for inputs, targets in (zip(*each, strict=True) for each in pairs)
        ]

    def _encode(self, places: Sequence[int]) -> None:
        """Add ids of pairs to those kept."""
        if not places:
            return
        if self._pairs is None:
            self._pairs = self._data.pairs(self._task.split)
        texts = itertools.chain(*(self._pairs[place] for place in places))
        ids = iter(_encoded(self._vocabulary, texts))
        for place, inputs, targets in zip(places, ids, ids, strict=True):
            pair = self._ids[place] = inputs.tobytes(), targets.tobytes()
            self._kept_bytes += _bytes_of(pair)

    def identity(self) -> dict[str, Any]:
        """Return the digest of the split, and the form that it is read in."""
        task = self._task
        return {
            f"data of {task.name}": [task.split, task.form, self._data.digests[task.split]],
        }

    def _part(self, shard: int) -> tuple[int, int]:
        if self.examples < self._shards:
            return 0, self.examples
        return (
            shard * self.examples // self._shards,
            (shard + 1) * self.examples // self._shards,
        )


def longest_target(tasks: Iterable[TaskInput], vocabulary: TextIds, enough: int) -> int:
    """Return the tokens of the longest target, or ``enough`` if one has as many; at least 1.

    Labels are known. Of other tasks the split's targets are read, a random sample of large splits.
    """
    longest = 1
    for task in tasks:
        data = task.open()
        labels = data.task.labels
        targets: Iterable[str] = labels
        if not labels:
            pairs = data.pairs(task.split)
            count = len(pairs)
            places = np.arange(min(count, _MEASURED_PAIRS))
            if count > _MEASURED_PAIRS:
                places = permuted(places, count, np.random.default_rng(0))
            targets = (pairs[place][1] for place in places.tolist())
        distinct = iter(dict.fromkeys(targets))
        while part := list(itertools.islice(distinct, 1024)):
            longest = max(longest, *map(len, _encoded(vocabulary, part)))
            if longest >= enough:
                return enough
    return longest


def _encoded(vocabulary: TextIds, texts: Iterable[str]) -> Any:
    return vocabulary.encode_batch([text.encode("utf-8") for text in texts])


def _bytes_of(pair: tuple[bytes, bytes]) -> int:
    return sum(map(len, pair)) + _PAIR_BYTES


def _unpacked(ids: Sequence[bytes]) -> Sequences:
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    return Sequences(np.frombuffer(b"".join(ids), dtype=np.int32), lengths // 4)
