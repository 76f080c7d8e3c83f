"""A random order of any number of things, place by place, without a list of them."""

import math

import numpy as np
import numpy.typing as npt

_ROUNDS = 8


def permuted(
    places: npt.NDArray[np.int64], count: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return what stands at some places of a random order of ``0 .. count - 1``.

    A Feistel network on pairs (high, low), one of the two being shifted in each round by a hash of
    the other, is a permutation of all pairs; a pair that stands for no number is mapped again until
    it does (cycle walking: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).

    Args:
        places: int64 [places], each in ``0 .. count - 1``.
        count: Length of the order.
        rng: Decides the order: the same state gives the same one.

    >>> order = permuted(np.arange(7), 7, np.random.default_rng(1))
    >>> sorted(order.tolist())
    [0, 1, 2, 3, 4, 5, 6]
    """
    low = math.isqrt(count - 1) + 1 if count > 1 else 1
    high = -(-count // low)  # high * low is below count + low
    keys = rng.integers(0, 2**64, size=_ROUNDS, dtype=np.uint64)
    found = _mapped(places.astype(np.uint64), high, low, keys)
    while bool((outside := found >= count).any()):
        found[outside] = _mapped(found[outside], high, low, keys)
    return found.astype(np.int64)


def _mapped(
    numbers: npt.NDArray[np.uint64], high: int, low: int, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    left, right = np.divmod(numbers, np.uint64(low))
    for turn, key in enumerate(keys):
        if turn % 2:
            right = (right + _hash(left, key) % np.uint64(low)) % np.uint64(low)
        else:
            left = (left + _hash(right, key) % np.uint64(high)) % np.uint64(high)
    return left * np.uint64(low) + right


def _hash(numbers: npt.NDArray[np.uint64], key: np.uint64) -> npt.NDArray[np.uint64]:
    """Mix the bits of each (the end of SplitMix64: Steele, Lea and Flood, 2014)."""
    mixed = numbers ^ key
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
