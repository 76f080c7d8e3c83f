"""The arrays of a batch: one table, for those who make batches and those who train on them.

All are row-major, [batch, length]. ``segments`` number the examples packed into a row from 1, 0
being padding; attention stays inside a segment. A decoder reads its targets shifted right by one,
with 0 before the first of each segment. ``loss_weights`` are 1 where a prediction counts.

========================  =======  ==================  ==================================
name                      dtype    length              in batches for
========================  =======  ==================  ==================================
``encoder_tokens``        int32    ``encoder_length``  models with an encoder
``encoder_segments``      int32    ``encoder_length``  models with an encoder
``decoder_input_tokens``  int32    ``decoder_length``  all
``decoder_target_tokens``  int32   ``decoder_length``  all
``decoder_segments``      int32    ``decoder_length``  all
``loss_weights``          float32  ``decoder_length``  all
``prefix``                int32    ``decoder_length``  models without: 1 where all of the
                                                       segment may look, 0 elsewhere
========================  =======  ==================  ==================================
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model.data.packing import Packing, first_fit, one_each
from model.data.sequences import Sequences

HostBatch = dict[str, npt.NDArray[Any]]

_ENCODER = {"encoder_tokens": np.int32, "encoder_segments": np.int32}
_DECODER = {
    "decoder_input_tokens": np.int32,
    "decoder_target_tokens": np.int32,
    "decoder_segments": np.int32,
    "loss_weights": np.float32,
}
_PREFIX = {"prefix": np.int32}


@dataclasses.dataclass(frozen=True)
class BatchSpec:
    """What a batch holds.

    Attributes:
        batch_size: Rows.
        decoder_length: Tokens in a decoder's row.
        encoder_length: Tokens in an encoder's row; None for models without one.

    >>> BatchSpec(8, 114, encoder_length=512).arrays["loss_weights"]
    ((8, 114), dtype('float32'))
    """

    batch_size: int
    decoder_length: int
    encoder_length: int | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and value < 1:
                raise ValueError(f"{field.name} must be positive, got {value}")

    @property
    def arrays(self) -> dict[str, tuple[tuple[int, int], np.dtype[Any]]]:
        """Name to shape and dtype, in a fixed order."""
        decoder = (self.batch_size, self.decoder_length)
        if self.encoder_length is None:
            return {name: (decoder, np.dtype(kind)) for name, kind in (_DECODER | _PREFIX).items()}
        encoder = (self.batch_size, self.encoder_length)
        table = {name: (encoder, np.dtype(kind)) for name, kind in _ENCODER.items()}
        return table | {name: (decoder, np.dtype(kind)) for name, kind in _DECODER.items()}

    @property
    def tokens(self) -> int:
        """Tokens that encoder and decoder read, with padding.

        The paper counts an encoder-decoder's inputs alone: 2**16 for 128 rows of 512.
        """
        return self.batch_size * ((self.encoder_length or 0) + self.decoder_length)

    def check(self, batch: Mapping[str, Any]) -> None:
        """Raise ValueError, naming the array, unless these are the table's arrays.

        Looks at names, shapes and dtypes, so that arrays on devices may be checked too.
        """
        table = self.arrays
        if batch.keys() != table.keys():
            lacking, foreign = sorted(table.keys() - batch), sorted(batch.keys() - table)
            raise ValueError(
                "a batch has other arrays than its model reads: "
                f"lacking {', '.join(lacking) or 'none'}; not asked for "
                f"{', '.join(foreign) or 'none'}"
            )
        for name, (shape, kind) in table.items():
            array = batch[name]
            if tuple(array.shape) != shape or array.dtype != kind:
                raise ValueError(
                    f"batch array {name} must be {kind} {list(shape)}, got {array.dtype} "
                    f"{list(array.shape)}"
                )


def shift_right(
    tokens: npt.NDArray[np.int32], segments: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Return what a decoder reads to predict ``tokens``, [rows, length]: 0 starts each segment.

    (Mesh TensorFlow ``autoregressive_inputs``; seqio ``feature_converters.py``.)

    >>> shift_right(np.array([[5, 6, 7, 8, 0]], np.int32), np.array([[1, 1, 2, 2, 0]], np.int32))
    array([[0, 5, 0, 7, 0]], dtype=int32)
    """
    shifted = np.zeros_like(tokens)
    shifted[:, 1:] = tokens[:, :-1] * (segments[:, 1:] == segments[:, :-1])
    return shifted


def pack_pairs(
    inputs: Sequences,
    targets: Sequences,
    encoder_length: int,
    decoder_length: int,
    *,
    order: npt.NDArray[np.int64] | None = None,
    ending: Sequence[int] = (),
    packed: bool = True,
) -> HostBatch:
    """Return rows for a model with an encoder.

    Pairs are taken as they come, or in ``order``. Inputs and targets are cut so that each fits a
    row with the ids ``ending`` after it. Several examples share a row, unless ``packed`` is False.
    """
    order = np.arange(len(inputs)) if order is None else order
    capacity = (encoder_length, decoder_length)
    most = [length - len(ending) for length in capacity]
    lengths = np.stack([inputs.lengths[order], targets.lengths[order]], axis=1)
    sizes = np.minimum(lengths, most) + len(ending)
    packing = (first_fit if packed else one_each)(sizes, capacity)
    encoder, decoder = (
        _Rows(packing, feature, length, sizes[:, feature])
        for feature, length in enumerate(capacity)
    )
    encoder_tokens, tokens = encoder.empty(), decoder.empty()
    inputs.put(encoder_tokens.ravel(), encoder.begins, order, sizes[:, 0] - len(ending), ending)
    targets.put(tokens.ravel(), decoder.begins, order, sizes[:, 1] - len(ending), ending)
    segments = decoder.segments
    return {
        "encoder_tokens": encoder_tokens,
        "encoder_segments": encoder.segments,
        **_decoder_arrays(tokens, segments, segments > 0),
    }


def pack_joined(
    inputs: Sequences,
    targets: Sequences,
    decoder_length: int,
    *,
    prefix: bool,
    loss_on_inputs: bool,
    packed: bool = True,
) -> HostBatch:
    """Rows for a model without an encoder: each example is its inputs, then its targets.

    Args:
        inputs: With the separator that ends them; an example without inputs has none either.
        targets: With their end-of-sequence ids.
        decoder_length: Tokens in a row.
        prefix: Whether the inputs are fully visible. What a decoder reads stands one to the right
            of what it predicts, so that the prefix is one longer than the inputs: the place where
            the separator is read belongs to it (Mesh TensorFlow ``unitransformer``; seqio
            ``PrefixLMFeatureConverter``).
        loss_on_inputs: Whether predicting the inputs counts too.
        packed: Whether several examples share a row.

    Raises:
        ValueError: An example is longer than a row.
    """
    sizes = (inputs.lengths + targets.lengths)[:, np.newaxis]
    packing = (first_fit if packed else one_each)(sizes, (decoder_length,))
    rows = _Rows(packing, 0, decoder_length, sizes[:, 0])
    before, after, tokens = inputs.lengths, targets.lengths, rows.empty()
    each = np.arange(len(inputs))
    inputs.put(tokens.ravel(), rows.begins, each, before)
    targets.put(tokens.ravel(), rows.begins + before, each, after)
    segments = rows.segments
    weights = rows.spread((int(loss_on_inputs), before), (1, after))
    # The place where a separator is read is one to the right of the inputs.
    seen = before + (before > 0) if prefix else np.zeros_like(before)
    visible = rows.spread((1, seen), (0, before + after - seen))
    return {**_decoder_arrays(tokens, segments, weights), "prefix": visible}


def _decoder_arrays(
    tokens: npt.NDArray[np.int32], segments: npt.NDArray[np.int32], weights: npt.NDArray[Any]
) -> HostBatch:
    return {
        "decoder_input_tokens": shift_right(tokens, segments),
        "decoder_target_tokens": tokens,
        "decoder_segments": segments,
        "loss_weights": weights.astype(np.float32),
    }


def concatenated(batches: Sequence[HostBatch]) -> HostBatch:
    """Batches of the same arrays as one, their rows in order."""
    if len(batches) == 1:
        return batches[0]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


class _Rows:
    """The rows of one feature, and where its examples stand in their memory.

    Attributes:
        begins: int64 [examples], the place of each example's first token.
    """

    def __init__(
        self, packing: Packing, feature: int, length: int, sizes: npt.NDArray[np.int64]
    ) -> None:
        """Take rows of ``length`` tokens, and the size of each example, int64 [examples]."""
        self._shape = packing.rows, length
        self._segment, self._sizes = packing.segment, sizes
        self.begins = packing.row * length + packing.offset[:, feature]
        self._order = np.argsort(self.begins, kind="stable")
        ends = np.append(self.begins[self._order][1:], packing.rows * length)
        self._free = ends - self.begins[self._order] - sizes[self._order]  # behind each

    def empty(self) -> npt.NDArray[np.int32]:
        """Return rows of padding."""
        return np.zeros(self._shape, dtype=np.int32)

    @property
    def segments(self) -> npt.NDArray[np.int32]:
        """Numbers of the examples, [rows, length]."""
        return self.spread((self._segment, self._sizes))

    def spread(
        self, *runs: tuple[int | npt.NDArray[np.int64], npt.NDArray[np.int64]]
    ) -> npt.NDArray[np.int32]:
        """Return rows in which each example has its runs of equal values: int32 [rows, length].

        A run is its value, one for all examples or int64 [examples], and its length, int64
        [examples]. Where no example is, rows have 0.
        """
        values, places = np.zeros((2, len(self._order), len(runs) + 1), dtype=np.int64)
        for number, (value, count) in enumerate(runs):
            values[:, number], places[:, number] = value, count
        values, places = values[self._order], places[self._order]
        places[:, -1] = self._free
        return np.repeat(values.astype(np.int32).ravel(), places.ravel()).reshape(self._shape)
