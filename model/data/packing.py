"""Several short examples in one row, so that little of a batch is padding."""

import dataclasses

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
    segment = np.ones(examples, dtype=np.int64)
    offset = np.zeros((examples, features), dtype=np.int64)
    if not examples:
        return Packing(0, row, segment, offset)
    longest = sizes.max(axis=0)
    if bool((longest > capacity).any()):
        raise ValueError(f"an example of {longest} tokens fits no row of {capacity}: cut it first")
    least = sizes.min(axis=0)
    if bool((sizes + least > capacity).any(axis=1).all()):
        # No two fit into one row, as with random spans of full length.
        return Packing(examples, np.arange(examples), segment, offset)
    # Rows that are not begun have room for anything: taking the first with room begins the next.
    used = np.zeros((examples, features), dtype=np.int64)
    count = [0] * examples
    rows = 0
    for example in range(examples):
        room = (used[: rows + 1] + sizes[example] <= capacity).all(axis=1)
        at = int(room.argmax())
        row[example] = at
        offset[example] = used[at]
        count[at] += 1
        segment[example] = count[at]
        used[at] += sizes[example]
        rows = max(rows, at + 1)
    return Packing(rows, row, segment, offset)
