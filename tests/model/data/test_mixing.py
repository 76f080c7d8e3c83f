"""Draws come at their rates, in every block and over all of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.mixing import BLOCK_DRAWS, draw_block
from model.tasks import mixture


@given(
    st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=25),
    st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(0, 2**40),
)  # fmt: skip
def test_a_block_has_every_rate_rounded_up_or_down(rates, seed, shard, block):
    drawn = draw_block(rates, seed, shard, block)
    assert drawn.counts.sum() == BLOCK_DRAWS
    assert sorted(drawn.order.tolist()) == list(range(BLOCK_DRAWS))
    expected = np.array(rates) / sum(rates) * BLOCK_DRAWS
    assert np.all(abs(drawn.counts - expected) < 1 + 1e-6)


@pytest.mark.parametrize(
    "mixed",
    [mixture("all"), mixture("glue"), mixture("all", temperature=2.0), mixture("all", equal=True)],
)
@pytest.mark.parametrize("shard", [0, 5])
def test_a_hundred_thousand_draws_have_the_rates(mixed, shard):
    rates = np.array(list(mixed.rates().values()))
    blocks = 100_000 // BLOCK_DRAWS
    counts = sum(draw_block(rates, 11, shard, block).counts for block in range(blocks))
    expected = rates * blocks * BLOCK_DRAWS
    # Within one in a hundred; of rare tasks, a few draws.
    assert np.all(abs(counts - expected) <= np.maximum(3.0, 0.01 * expected))


def test_draws_of_shards_and_seeds_differ():
    counts = {
        tuple(tuple(draw_block([0.3, 0.7], seed, shard, b).counts) for b in range(40))
        for seed in range(3)
        for shard in range(3)
    }
    assert len(counts) == 9
