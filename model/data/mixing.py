"""Which source each draw from a mixture takes.

Draws come in blocks. In a block, every source gets its rate of the draws, rounded up or down:
systematic sampling, the draws being equidistant points on the line of cumulative rates. Where they
begin moves by the golden ratio from block to block, so that the rounding evens out sooner than
independent draws would: over N blocks a source is off by few draws, whatever its rate.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model.data.seeds import Purpose, generator

#: Examples of a block. They are packed together: the more, the less padding the last rows cost.
BLOCK_DRAWS = 512
_GOLDEN = 0x9E3779B97F4A7C15  # of 2**64


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """What a block of an input shard is made of.

    Attributes:
        counts: int64 [sources], examples of each source.
        order: int64 [BLOCK_DRAWS], which example comes next, of those of the first source, then of
            the second, and so on.
    """

    counts: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]


def draw_block(rates: Sequence[float], seed: int, shard: int, block: int) -> Block:
    """Return the draws of block ``block`` of an input shard, at rates of any sum above 0.

    >>> draw_block([3.0, 1.0], seed=0, shard=0, block=7).counts
    array([384, 128])
    """
    begin = (_phase(seed, shard) + block * _GOLDEN) % 2**64 / 2**64
    bounds = np.cumsum(rates)
    points = (np.arange(BLOCK_DRAWS) + begin) / BLOCK_DRAWS * bounds[-1]
    # Rounding may put the last point on the last bound.
    taken = np.minimum(np.searchsorted(bounds, points, side="right"), len(bounds) - 1)
    return Block(
        counts=np.bincount(taken, minlength=len(bounds)),
        order=generator(seed, Purpose.BLOCK, shard, block).permutation(BLOCK_DRAWS),
    )


@functools.lru_cache
def _phase(seed: int, shard: int) -> int:
    return int(generator(seed, Purpose.PHASE, shard).integers(2**64, dtype=np.uint64))
