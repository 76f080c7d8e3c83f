"""Ways of choosing the tokens of an output, as data. Imports no JAX.

>>> Beam(beams=4).length_penalty
0.6
>>> Sample(top_p=0.0)
Traceback (most recent call last):
    ...
ValueError: top_p must be above 0 and at most 1, got 0.0 (--top-p)
"""

import dataclasses
import math

from model.t5.config import is_number, is_whole


@dataclasses.dataclass(frozen=True)
class Greedy:
    """The likeliest token of each position."""


@dataclasses.dataclass(frozen=True)
class Beam:
    """The likeliest of the sequences that beam search finds, as Mesh TensorFlow's does.

    The `beams` likeliest unfinished sequences are followed. One that ends is set aside, and its
    place goes to the next likeliest. Finished sequences are compared by the sum of their
    log-probabilities divided by ((5 + n) / 6) ** length_penalty, n being their length with the
    end; a finished one is always preferred to an unfinished one. One beam is not greedy search:
    it goes on after an end, and may find a sequence with a better score.

    Raises ValueError for fewer than one beam and for a negative penalty.
    """

    beams: int = 4
    length_penalty: float = 0.6  #: the exponent (paper, section 3.7)

    def __post_init__(self) -> None:
        if not is_whole(self.beams) or self.beams < 1:
            raise ValueError(f"beams must be a positive integer, got {self.beams!r} (--beams)")
        # With a negative one, longer sequences could only lose, and no bound would hold.
        if not (is_number(self.length_penalty) and 0 <= self.length_penalty < math.inf):
            raise ValueError(
                f"length_penalty must be a number from 0, got {self.length_penalty!r} "
                "(--length-penalty)"
            )


@dataclasses.dataclass(frozen=True)
class Sample:
    """Tokens drawn from the model's distribution.

    Logits are divided by `temperature`; then only the likeliest tokens whose probabilities add up
    to `top_p` are kept (Holtzman et al. 2020), the one that reaches it included. Equal seeds give
    equal outputs.

    Raises ValueError for a value out of its range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (is_number(self.temperature) and 0 < self.temperature < math.inf):
            raise ValueError(
                f"temperature must be a number above 0, got {self.temperature!r} (--temperature)"
            )
        if not (is_number(self.top_p) and 0 < self.top_p <= 1):
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p!r} (--top-p)")
        if not (is_whole(self.seed) and 0 <= self.seed < 2**32):
            raise ValueError(
                f"seed must be an integer from 0 to 2**32 - 1, got {self.seed!r} (--seed)"
            )


How = Greedy | Beam | Sample
