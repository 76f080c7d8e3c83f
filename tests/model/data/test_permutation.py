"""An order without a list: all numbers once, each place open to all of them."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.permutation import permuted


@given(st.integers(1, 5000), st.integers(0, 2**32))
def test_every_number_stands_at_one_place(count, seed):
    found = permuted(np.arange(count), count, np.random.default_rng(seed))
    assert np.array_equal(np.sort(found), np.arange(count))


@given(st.integers(1, 2**40), st.data())
def test_a_place_is_the_same_alone_and_among_others(count, data):
    places = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=9))
    found = permuted(np.array(places), count, np.random.default_rng(1))
    alone = [permuted(np.array([p]), count, np.random.default_rng(1))[0] for p in places]
    assert found.tolist() == alone
    assert len(set(found.tolist())) == len(set(places))
    assert found.min() >= 0
    assert found.max() < count


@pytest.mark.parametrize("count", [2, 3, 5])
def test_all_orders_come_about_equally_often(count):
    drawn = 2000
    places = np.arange(count)
    orders = collections.Counter(
        tuple(permuted(places, count, np.random.default_rng(seed)).tolist()[:3])
        for seed in range(drawn)
    )
    possible = np.prod(np.arange(count, max(0, count - 3), -1))
    assert len(orders) == possible
    expected = drawn / possible
    assert max(abs(n - expected) for n in orders.values()) < 6 * np.sqrt(expected)
