"""First fit against a twin that tries every row from the first."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.packing import first_fit

CAPACITY = (10, 7)
SIZES = st.lists(st.tuples(st.integers(0, 10), st.integers(0, 7)), max_size=30)


def naive(sizes, capacity):
    rows, placed = [], []
    for size in sizes:
        used = [[sum(each[i] for each in row) for i in range(len(capacity))] for row in rows]
        fitting = [
            number
            for number, taken in enumerate(used)
            if all(u + s <= c for u, s, c in zip(taken, size, capacity, strict=True))
        ]
        if not fitting:
            fitting = [len(rows)]
            rows.append([])
            used.append([0] * len(capacity))
        rows[fitting[0]].append(size)
        placed.append((fitting[0], len(rows[fitting[0]]), used[fitting[0]]))
    return len(rows), placed


def array(sizes, features=2):
    return np.array(sizes, np.int64).reshape(-1, features)


@given(SIZES)
def test_against_a_naive_packer(sizes):
    packing = first_fit(array(sizes), CAPACITY)
    rows, placed = naive(sizes, CAPACITY)
    assert packing.rows == rows
    found = zip(
        packing.row.tolist(), packing.segment.tolist(), packing.offset.tolist(), strict=True
    )
    assert list(found) == placed


@given(st.lists(st.integers(4, 10), max_size=30))
def test_one_feature_and_rows_that_nothing_fits_into(sizes):
    packing = first_fit(array(sizes, 1), (10,))
    rows, placed = naive([(size,) for size in sizes], (10,))
    assert (packing.rows, packing.row.tolist()) == (rows, [number for number, _, _ in placed])


def test_an_example_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match=r"fits no row of .*: cut it first"):
        first_fit(array([(3, 3), (3, 8)]), CAPACITY)
