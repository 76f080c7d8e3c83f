"""Several short examples in one row, so that little of a batch is padding."""

import dataclasses
import operator

import numpy as np
import numpy.typing as npt

__all__ = ["Packing", "first_fit"]


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


def first_fit(sizes: npt.NDArray[np.int64], capacity: tuple[int, ...]) -> Packing:
    """Puts each example into the first row that has room for it, in the examples' order.

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
    row = np.empty(examples, dtype=np.int64)
    segment = np.empty(examples, dtype=np.int64)
    offset = np.empty((examples, features), dtype=np.int64)
    if not examples:
        return Packing(0, row, segment, offset)
    longest = sizes.max(axis=0)
    if bool((longest > capacity).any()):
        raise ValueError(f"an example of {longest} tokens fits no row of {capacity}: cut it first")
    least = sizes.min(axis=0).tolist()
    rows = 0
    open_rows: list[int] = []
    free: list[list[int]] = []  # of each open row, tokens by feature
    held: list[int] = []  # of each open row, examples
    for example, size in enumerate(sizes.tolist()):
        fitting = (place for place, room in enumerate(free) if all(map(operator.ge, room, size)))
        place = next(fitting, len(open_rows))
        if place == len(open_rows):
            open_rows.append(rows)
            free.append(list(capacity))
            held.append(0)
            rows += 1
        held[place] += 1
        row[example], segment[example] = open_rows[place], held[place]
        offset[example] = np.subtract(capacity, free[place])
        free[place] = list(map(operator.sub, free[place], size))
        if not all(map(operator.ge, free[place], least)):
            # Without room for the smallest, it need not be looked at again. Where all examples
            # are long, as with random spans, that is every row at once.
            del open_rows[place], free[place], held[place]
    return Packing(rows, row, segment, offset)
