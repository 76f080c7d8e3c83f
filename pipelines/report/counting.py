"""Sums, samples and counts of a stream, each in bounded memory."""

import heapq
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
UInt64s = npt.NDArray[np.uint64]

_MOST_IN_MEMORY = 1 << 21  # of keys or names: some 100 MB


def mixed(keys: npt.ArrayLike) -> UInt64s:
    """Return keys in another order: samples by page key alone would prefer pages that win spans.

    The finalizer of splitmix64 (Steele, Lea, Flood 2014).

    >>> mixed([0, 1]).tolist()
    [16294208416658607535, 10451216379200822465]
    """
    with np.errstate(over="ignore"):
        values = np.asarray(keys, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed_again: UInt64s = values ^ (values >> np.uint64(31))
    return mixed_again


class Smallest(Generic[T]):
    """Keeps the values of the smallest ranks: a sample that depends on nothing but the ranks."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[int, int, T]] = []  # the largest rank first
        self._order = itertools.count()

    def wants(self, rank: int) -> bool:
        """Return whether a value of this rank would be kept now."""
        return rank < self.bound

    @property
    def bound(self) -> int:
        """The rank from which on nothing is kept any more."""
        if len(self._heap) < self._most:
            return 1 << 64
        return -self._heap[0][0] if self._heap else 0

    def add(self, rank: int, value: T) -> None:
        """Keep a value if its rank is among the smallest."""
        if self.wants(rank):
            heapq.heappush(self._heap, (-rank, -next(self._order), value))
            if len(self._heap) > self._most:
                heapq.heappop(self._heap)

    def values(self) -> list[T]:
        """Return the values, in order of their ranks."""
        return [value for _, _, value in sorted(self._heap, key=lambda each: (-each[0], -each[1]))]


_PAIR = np.dtype([("high", "<u8"), ("low", "<u8")])


class _Members:
    """Counts members of groups by the groups' keys, many at a time."""

    def __init__(self, key: npt.DTypeLike, most: int) -> None:
        self._most = most
        self._keys: npt.NDArray[Any] = np.empty(0, key)
        self._counts = np.empty(0, np.int64)
        self._new: list[npt.NDArray[Any]] = []
        self._waiting = 0

    def _add(self, keys: npt.NDArray[Any]) -> None:
        self._new.append(keys)
        self._waiting += len(keys)
        if self._waiting > self._most:
            self._merge()

    def _merge(self) -> None:
        joined = np.concatenate([self._keys, *self._new])
        weights = np.concatenate([self._counts, np.ones(len(joined) - len(self._keys), np.int64)])
        self._new, self._waiting = [], 0
        self._keys, places = np.unique(joined, return_inverse=True)
        self._counts = np.bincount(places, weights, len(self._keys)).astype(np.int64)


class GroupSizes(_Members):
    """Counts how many groups have how many members.

    Beyond some million groups, it goes on with every second of them by their keys, then with every
    fourth, and so on, all members of a group being counted or none.
    """

    def __init__(self, most: int = _MOST_IN_MEMORY) -> None:
        super().__init__(np.uint64, most)
        self.one_in = 1  # groups that are counted

    def add(self, keys: UInt64s) -> None:
        """Count one member of each of these groups; a group may occur more than once."""
        self._add(keys[self._is_counted(keys)])

    def _is_counted(self, keys: UInt64s) -> npt.NDArray[np.bool_]:
        counted: npt.NDArray[np.bool_] = mixed(keys) % np.uint64(self.one_in) == 0
        return counted

    def _merge(self) -> None:
        super()._merge()
        while len(self._keys) > self._most:
            self.one_in *= 2
            stay = self._is_counted(self._keys)
            self._keys, self._counts = self._keys[stay], self._counts[stay]

    def sizes(self) -> dict[int, int]:
        """Return the number of groups by size, ``{members: groups}``."""
        self._merge()
        members, groups = np.unique(self._counts, return_counts=True)
        scaled = groups * self.one_in
        return dict(zip(members.tolist(), scaled.tolist(), strict=True))


class Repeated(_Members):
    """Finds the groups with the most members.

    Beyond some million groups it forgets the smallest ones, so that a count may miss members that
    came before; ``missing`` says how many at most.
    """

    def __init__(self, most: int = _MOST_IN_MEMORY) -> None:
        super().__init__(_PAIR, most)
        self.missing = 0

    def add(self, keys: UInt64s) -> None:
        """Count one member of each of these groups, ``[n, 2]``."""
        self._add(np.ascontiguousarray(keys).view(_PAIR)[:, 0])

    def _merge(self) -> None:
        super()._merge()
        if len(self._keys) > self._most:
            order = self._largest_first()
            self.missing += int(self._counts[order[self._most // 2]])
            stay = np.sort(order[: self._most // 2])
            self._keys, self._counts = self._keys[stay], self._counts[stay]

    def _largest_first(self) -> npt.NDArray[np.int64]:
        return np.lexsort((self._keys["low"], self._keys["high"], -self._counts))

    def top(self, number: int) -> list[tuple[tuple[int, int], int]]:
        """Return the largest groups as key and count; of equal ones, the smaller key first."""
        self._merge()
        order = self._largest_first()[:number]
        return list(zip(self._keys[order].tolist(), self._counts[order].tolist(), strict=True))


class Item(NamedTuple):
    """The sums of one name."""

    name: str
    pages: int
    bytes: int


class SumsByName:
    """Sums pages and bytes by name; names beyond some million wait in temporary files."""

    def __init__(self, most: int = _MOST_IN_MEMORY) -> None:
        self._most = most
        self._sums: dict[str, list[int]] = {}
        self._runs: list[IO[str]] = []

    def add(self, name: str, n_bytes: int) -> None:
        """Count one page of so many bytes."""
        sums = self._sums.get(name)
        if sums is None:
            if len(self._sums) >= self._most:
                self._spill()
            self._sums[name] = [1, n_bytes]
        else:
            sums[0] += 1
            sums[1] += n_bytes

    def _spill(self) -> None:
        run = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        run.writelines(f"{json.dumps(item)}\n" for item in self._sorted())
        self._runs.append(run)
        self._sums = {}

    def _sorted(self) -> Iterator[list[Any]]:
        for name in sorted(self._sums):
            yield [name, *self._sums[name]]

    def __iter__(self) -> Iterator[Item]:
        """Yield the sums in order of names. May be asked for again."""
        for run in self._runs:
            run.seek(0)
        parts: list[Iterable[list[Any]]] = [map(json.loads, run) for run in self._runs]
        merged = heapq.merge(*parts, self._sorted(), key=lambda item: item[0])
        for name, same in itertools.groupby(merged, key=lambda item: item[0]):
            sums = list(same)
            yield Item(name, sum(item[1] for item in sums), sum(item[2] for item in sums))

    def close(self) -> None:
        """Remove the temporary files."""
        for run in self._runs:
            run.close()
