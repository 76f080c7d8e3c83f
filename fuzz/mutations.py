"""Random mutations, for machines without atheris and for the tests."""

import random
from collections.abc import Iterator, Sequence

from fuzz.seeds import WORDS

_MOST_BYTES = 16_384  # a whole file of a small corpus


def mutated(seeds: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Yield endless inputs made of ``seeds``, the same ones for the same ``seed``."""
    chance = random.Random(seed)
    while True:
        data = bytearray(chance.choice(seeds))
        for _ in range(1 << chance.randrange(5)):
            _mutate(data, seeds, chance)
        yield bytes(data[:_MOST_BYTES])


def _mutate(data: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.randrange(1, 1 << chance.randrange(1, 9)))
    match chance.randrange(8):
        case 0:
            data[at:end] = b""
        case 1:
            data[at:at] = chance.choice(WORDS)
        case 2:
            data[at:end] = chance.choice(WORDS)
        case 3:
            data[at:at] = data[at:end] * chance.randrange(1, 6)
        case 4 if data:
            data[at - 1] ^= 1 << chance.randrange(8)
        case 5 if data:
            data[at - 1] = chance.choice((0, 1, 10, 13, 32, 46, 127, 128, 255))
        case 6:
            other = chance.choice(seeds)
            begin = chance.randrange(len(other) + 1)
            data[at:end] = other[begin : begin + chance.randrange(64)]
        case _:
            data[at:at] = chance.randbytes(chance.randrange(1, 9))
