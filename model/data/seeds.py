"""Random generators of the input, each a function of the run's seed and of what it is for."""

import enum
import zlib

import numpy as np


class Purpose(enum.IntEnum):
    """What a generator is for, so that no two share a stream."""

    ROTATION = 1  #: where a lane of a corpus begins in an epoch
    ELEMENT = 2  #: the order of an element's pages, their parts, and noise
    ORDER = 3  #: the order of a task's examples in an epoch
    PHASE = 4  #: of the draws from a mixture
    BLOCK = 5  #: the order of a block's examples


def generator(seed: int, purpose: Purpose, *numbers: int) -> np.random.Generator:
    """Return the generator of one thing: a source, an input shard, an epoch, an element.

    >>> generator(0, Purpose.BLOCK, 3).integers(100) == generator(0, Purpose.BLOCK, 3).integers(100)
    np.True_
    """
    return np.random.default_rng((seed, int(purpose), *numbers))


def number_of(name: str) -> int:
    """Return a source's number for `generator`: of its name, whatever it is mixed with."""
    return zlib.crc32(name.encode())
