"""Rows of a run, packed of pairs from any source."""

import numpy as np
import numpy.typing as npt

from model.data.batches import HostBatch, pack_joined, pack_pairs
from model.data.input_config import InputConfig
from model.data.sequences import Sequences


class RowPacker:
    """Packs pairs into rows as a configuration says."""

    def __init__(self, config: InputConfig) -> None:
        self._lengths, self._packed = config.lengths, config.packed
        self._separator = config.separator_ids
        self._eos = [config.vocabulary.eos_id]
        self._prefix = config.architecture == "prefix-language-model"
        self._loss_on_inputs = (
            not self._prefix if config.loss_on_inputs is None else config.loss_on_inputs
        )

    def __call__(
        self,
        inputs: Sequences,
        targets: Sequences,
        with_inputs: npt.NDArray[np.bool_],
        order: npt.NDArray[np.int64],
    ) -> HostBatch:
        """Return the rows of pairs that have no end-of-sequence ids yet.

        Inputs and targets are cut to their lengths, less the end of sequence. ``with_inputs``,
        bool [pairs], is False for pairs that are targets only. ``order``, int64, has the numbers of
        the pairs in the order in which they are packed.
        """
        lengths = self._lengths
        if lengths.joined is None:
            return pack_pairs(
                inputs,
                targets,
                lengths.inputs,
                lengths.targets,
                order=order,
                ending=self._eos,
                packed=self._packed,
            )
        return pack_joined(
            inputs.take(order, max(0, lengths.inputs - 1), self._separator, with_inputs[order]),
            targets.take(order, lengths.targets - 1, self._eos),
            lengths.joined,
            prefix=self._prefix,
            loss_on_inputs=self._loss_on_inputs,
            packed=self._packed,
        )
