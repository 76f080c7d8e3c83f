"""What a source is: pairs of inputs and targets before they are packed."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from model.data.objectives import Ids
from model.data.sequences import Sequences

#: Inputs and targets, without end-of-sequence ids, not yet cut.
Pairs = tuple[Sequences, Sequences]


class TextIds(Ids, Protocol):
    """What the pipeline needs of a vocabulary. Goes to worker processes by pickling."""

    @property
    def eos_id(self) -> int:
        """The id that ends inputs and targets."""

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without an end."""

    def encode_batch(self, texts: Sequence[bytes]) -> Sequence[npt.NDArray[np.int32]]:
        """Ids of UTF-8 texts, on one thread."""


class Source(Protocol):
    """Pairs of one kind. An input shard has all of its own once an epoch, in elements.

    An element is a function of the seed, the input shard, the epoch and its number there; and of
    nothing else: not of workers, hosts, or what was read before.
    """

    name: str
    #: Whether pairs have inputs. Without an encoder, one without has no separator either.
    has_inputs: bool

    def elements(self, shard: int) -> int:
        """Return the elements of one epoch of an input shard."""

    def lane(self, shard: int, element: int) -> int:
        """Return a number; elements with the same one are best made by the same process."""

    def pairs(self, shard: int, *elements: tuple[int, int]) -> list[Pairs]:
        """Return the pairs of elements, each an epoch and a number: several take less time each.

        An element has none where there is nothing to train on.
        """

    def identity(self) -> dict[str, Any]:
        """Return what the pairs depend on besides the seed, as JSON values by setting."""
