"""Several short examples in one row, so that little of a batch is padding."""

import dataclasses
import operator

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True, eq=False)
class Packing:
    """Which row each example stands in, and where.

    Attributes:
        rows: Number of rows.
        row: int64 [examples].
        segment: int64 [examples], the example's number in its row, from 1.
        offset: int64 [examples, features], where it begins in its row.
    """

    rows: int
    row: npt.NDArray[np.int64]
    segment: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]


def one_each(sizes: npt.NDArray[np.int64], capacity: tuple[int, ...]) -> Packing:
    """Give each example a row of its own.

    Arguments and errors are those of `first_fit`.
    """
    examples, _ = sizes.shape
    _require_fitting(sizes, capacity)
    numbers = np.arange(examples, dtype=np.int64)
    return Packing(examples, numbers, np.ones_like(numbers), np.zeros_like(sizes))


def first_fit(sizes: npt.NDArray[np.int64], capacity: tuple[int, ...]) -> Packing:
    """Put each example into the first row that has room for it, in the examples' order.

    Args:
        sizes: [examples, features] tokens; inputs and targets, say. An example goes into one row
            with all its features (as Mesh TensorFlow's ``dataset.py`` packs).
        capacity: Tokens in a row, for each feature.

    Raises:
        ValueError: An example is longer than a row.

    >>> packed = first_fit(np.array([[6], [5], [4], [3]]), (10,))
    >>> packed.row, packed.segment, packed.offset[:, 0]
    (array([0, 1, 0, 1]), array([1, 1, 2, 2]), array([0, 0, 6, 5]))
    """
    examples, features = sizes.shape
    segment = np.ones(examples, dtype=np.int64)
    offset = np.zeros((examples, features), dtype=np.int64)
    if not examples:
        return Packing(0, segment, segment, offset)
    _require_fitting(sizes, capacity)
    least = sizes.min(axis=0)
    # Beside these there is no room for the smallest: each has a row of its own. Where all examples
    # are long, as with random spans, there are hardly any others to find a row for.
    opens = (sizes + least > capacity).any(axis=1)
    opener = np.arange(examples)  # the first example of each one's row
    seekers = np.flatnonzero(~opens)
    rows: dict[int, list[int]] = {}  # with room, by opener: the room of each feature
    held: dict[int, int] = {}  # of the same: examples
    smallest, placed = least.tolist(), []
    for example, size in zip(seekers.tolist(), sizes[seekers].tolist(), strict=True):
        fitting = (first for first, room in rows.items() if all(map(operator.ge, room, size)))
        first = next(fitting, example)
        if first == example:
            rows[first], held[first] = list(capacity), 0
        room = rows[first]
        held[first] += 1
        placed.append((first, held[first], *map(operator.sub, capacity, room)))
        room[:] = map(operator.sub, room, size)
        if any(map(operator.lt, room, smallest)):
            del rows[first], held[first]
    found = np.array(placed, dtype=np.int64).reshape(len(seekers), 2 + features)
    opener[seekers], segment[seekers], offset[seekers] = found[:, 0], found[:, 1], found[:, 2:]
    opens[found[:, 0]] = True
    number = np.cumsum(opens) - 1
    return Packing(int(opens.sum()), number[opener], segment, offset)


def _require_fitting(sizes: npt.NDArray[np.int64], capacity: tuple[int, ...]) -> None:
    longest = sizes.max(axis=0, initial=0)
    if bool((longest > capacity).any()):
        raise ValueError(f"an example of {longest} tokens fits no row of {capacity}: cut it first")
