"""Sums, samples and counts in bounded memory, against the same without a bound."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report.counting import GroupSizes, Item, Repeated, Smallest, SumsByName, mixed

RANKS = st.lists(st.integers(0, 50), max_size=60)


@given(RANKS, st.integers(0, 10))
def test_the_smallest_stay_in_order(ranks: list[int], most: int) -> None:
    chosen: Smallest[tuple[int, int]] = Smallest(most)
    for order, rank in enumerate(ranks):
        if most:
            assert chosen.wants(rank) is (rank < chosen.bound)
        chosen.add(rank, (rank, order))
    expected = sorted((rank, order) for order, rank in enumerate(ranks))[:most]
    assert chosen.values() == expected


@given(st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=9))
def test_group_sizes_are_exact_while_memory_lasts(parts: list[list[int]]) -> None:
    sizes = GroupSizes()
    for part in parts:
        sizes.add(np.array(part, np.uint64))
    members = Counter(key for part in parts for key in part)
    assert sizes.sizes() == Counter(members.values())
    assert sizes.one_in == 1


def test_group_sizes_are_estimated_beyond() -> None:
    sizes = GroupSizes(most=1_000)
    for _ in range(3):
        sizes.add(np.arange(20_000, dtype=np.uint64))
    found = sizes.sizes()
    assert sizes.one_in >= 16
    assert found.keys() == {3}  # all members of a group are counted, or none
    assert found[3] == pytest.approx(20_000, rel=0.2)


@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=9), max_size=9))
def test_the_most_repeated_are_exact_while_memory_lasts(parts: list[list[tuple[int, int]]]) -> None:
    repeated = Repeated()
    for part in parts:
        repeated.add(np.array(part, np.uint64).reshape(-1, 2))
    counts = Counter(key for part in parts for key in part)
    assert repeated.top(5) == sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:5]


def test_the_most_repeated_are_found_among_many() -> None:
    repeated = Repeated(most=2_000)
    for number in range(20):
        once = np.arange(1_000, dtype=np.uint64) + np.uint64(1_000 * number + 100)
        often = np.array([5] * 9 + [6] * 4, np.uint64)
        keys = np.concatenate([once, often])
        repeated.add(np.stack([keys, keys], axis=1))
    assert repeated.top(2) == [((5, 5), 180), ((6, 6), 80)]
    assert 0 < repeated.missing < 80


@given(st.lists(st.tuples(st.sampled_from("abcdefg\n"), st.integers(0, 9))), st.integers(1, 9))
def test_sums_spill_without_a_loss(parts: list[tuple[str, int]], most: int) -> None:
    sums = SumsByName(most)
    expected: dict[str, list[int]] = {}
    for name, n_bytes in parts:
        sums.add(name, n_bytes)
        found = expected.setdefault(name, [0, 0])
        found[0] += 1
        found[1] += n_bytes
    assert [*sums] == [Item(name, *expected[name]) for name in sorted(expected)]
    assert [*sums] == [*sums]
    sums.close()


def test_mixed_ranks_are_no_order_of_the_keys() -> None:
    source = random.Random(1)
    keys = sorted(source.getrandbits(64) for _ in range(1_000))
    ranks = mixed(keys).tolist()
    assert len(set(ranks)) == 1_000
    halves = [sum(rank < 1 << 63 for rank in half) for half in (ranks[:500], ranks[500:])]
    assert all(200 < small < 300 for small in halves)
    assert int(mixed(keys[3])) == ranks[3]
