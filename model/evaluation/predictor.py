"""Predicts texts from texts with a trained model."""

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from model.data.vocabulary import Vocabulary
from model.t5.config import ModelConfig
from model.t5.ensemble import Members
from model.t5.network import T5, Params
from model.t5.search import search
from model.t5.strategies import Beam, Greedy, How
from model.training import distributed, sharding
from model.training.memory import device_limit, one_line_of_memory
from model.training.programs import Placement, place
from model.training.train_step import TrainState

#: Tokens, unless told otherwise: the released code's (eval.gin) for quick evaluations.
LONGEST_OUTPUT = 128

_SHORTEST_BUCKET = 16
_NEEDS_LESS = "a smaller --batch-size, --input-length or --max-new-tokens needs less"

Ids = npt.NDArray[np.int32]


class Predictor:
    """Gives a text for each text, as a model does that was trained on such pairs.

    Inputs are batched with others of about their length, and every batch is padded to one of a few
    lengths (:func:`bucket_of`), for each of which the search is compiled once. A prediction depends
    on its own input alone, but for rounding, and in sampling on the input's number in the call.

    Activations are bfloat16 on accelerators and float32 on CPUs. Without an encoder the decoder
    reads 0, the input and an end of sequence before it goes on, as in training.

    ``truncated`` counts the inputs so far that were longer than ``input_length``.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: Vocabulary,
        *,
        how: How = Greedy(),  # noqa: B008  # frozen
        batch_size: int = 32,
        input_length: int = 512,
        max_new_tokens: int | None = None,
        placement: Placement | None = None,
        parse_sentinels: bool = False,
    ) -> None:
        """Prepare to predict; nothing is compiled yet.

        Args:
          config: the model, of any architecture.
          vocabulary: the one that it was trained with.
          how: the way to choose tokens.
          batch_size: inputs at a time, of all processes together.
          input_length: longest input in tokens, its end of sequence included. What is longer is cut
            to one less, and ends with it.
          max_new_tokens: longest output in tokens; None for 128. See :func:`output_length`.
          placement: who holds what, where there are several devices.
          parse_sentinels: whether ``<extra_id_0>`` in an input is the sentinel, and not text.

        Raises:
          ValueError: a number is out of range, the vocabulary has ids beyond the model's, or the
            batch does not divide over the placement's devices.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size} (--batch-size)")
        if input_length < 2:
            raise ValueError(
                f"input_length must be at least 2, got {input_length} (--input-length)"
            )
        if max_new_tokens is not None and max_new_tokens < 1:
            raise ValueError(
                f"max_new_tokens must be positive, got {max_new_tokens} (--max-new-tokens)"
            )
        if vocabulary.id_count > config.vocab_size:
            raise ValueError(
                f"{vocabulary.path} has {vocabulary.id_count:,} ids, and the model knows "
                f"{config.vocab_size:,}: give the vocabulary it was trained with"
            )
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        self.truncated = 0
        self._config = config.replace(dtype=dtype, remat="none")
        self._vocabulary = vocabulary
        self._how = how
        self._batch_size = batch_size
        self._input_length = input_length
        self._max_new_tokens = max_new_tokens or LONGEST_OUTPUT
        self._placement = placement
        self._parse_sentinels = parse_sentinels
        self._part = 0, 1
        if placement is not None:
            self._part = distributed.input_part(placement.batch, batch_size)
        self._search = self._jitted()

    def __call__(
        self, params: Params | Members, inputs: Sequence[str], *, first: int = 0
    ) -> list[str]:
        """Return a prediction for each input, in order.

        With several processes each calls this with the same inputs, and gets all predictions.

        Args:
          params: nested, NumPy's or JAX's arrays; a tuple of several models' averages logits.
          inputs: texts.
          first: number of the first input, which sampling depends on: for calls with parts of what
            might be one.

        Raises:
          ValueError: an input is not Unicode text, processes have different inputs, or memory ran
            out.
        """
        with one_line_of_memory(lambda: _NEEDS_LESS):
            return self._predict(params, inputs, first)

    def _predict(self, params: Params | Members, inputs: Sequence[str], first: int) -> list[str]:
        if jax.process_count() > 1:
            digest = hashlib.sha256("\0".join(inputs).encode(errors="surrogatepass")).hexdigest()
            distributed.require_agreement("the inputs to predict", digest)
        ids = self._ids(inputs)
        params = self.placed(params)
        outputs: list[Ids | None] = [None] * len(inputs)
        for length, numbers in self._batches([len(each) for each in ids]):
            batch = self._batch(ids, numbers, length)
            batch["numbers"] += first
            for number, row in zip(*self._run(params, batch, length), strict=True):
                outputs[number - first] = row
        return [self._text(row) for row in outputs if row is not None]

    def _ids(self, inputs: Sequence[str]) -> list[list[int]]:
        """Return ids of each input with an end of sequence, cut to the longest length."""
        if self._parse_sentinels:
            encoded = [self._vocabulary.encode(text, parse_sentinels=True) for text in inputs]
        else:
            encoded = [each.tolist() for each in self._vocabulary.encode_batch(list(inputs))]
        most = self._input_length - 1
        self.truncated += sum(len(each) > most for each in encoded)
        return [[*each[:most], self._vocabulary.eos_id] for each in encoded]

    def _batches(self, lengths: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
        """Yield the length of each batch and the inputs in it, the shortest first."""
        of_bucket: dict[int, list[int]] = {}
        for number in sorted(range(len(lengths)), key=lambda number: lengths[number]):
            bucket = bucket_of(lengths[number], self._input_length)
            of_bucket.setdefault(bucket, []).append(number)
        for bucket, numbers in of_bucket.items():
            for start in range(0, len(numbers), self._batch_size):
                yield bucket, numbers[start : start + self._batch_size]

    def _batch(self, ids: list[list[int]], numbers: Sequence[int], length: int) -> dict[str, Ids]:
        """Return the arrays of one batch, all of its rows filled."""
        # A copy of a real input ends when that does, and its result is the same.
        rows = [*numbers, *[numbers[-1]] * (self._batch_size - len(numbers))]
        tokens = np.zeros((len(rows), length), np.int32)
        for row, number in enumerate(rows):
            tokens[row, : len(ids[number])] = ids[number]
        counts = np.array([len(ids[number]) for number in rows])
        batch = {"numbers": np.array(rows, np.int32)}
        if self._config.has_encoder:
            segments = np.arange(length) < counts[:, None]
            return batch | {"encoder_tokens": tokens, "encoder_segments": segments.astype(np.int32)}
        start = np.full((len(rows), 1), self._config.start_id, np.int32)
        segments = np.arange(length + 1) < counts[:, None] + 1
        return batch | {
            "decoder_input_tokens": np.concatenate([start, tokens], axis=1),
            "decoder_segments": segments.astype(np.int32),
        }

    def placed(self, params: Params | Members) -> Params | Members:
        """Return parameters on the devices, so that later calls need not copy them.

        Raises ValueError if they do not fit.
        """
        with one_line_of_memory(lambda: "use a device with more memory, or more devices"):
            if isinstance(params, tuple):
                return tuple(self._placed(member) for member in params)
            return self._placed(params)

    def _placed(self, params: Params) -> Params:
        if self._placement is None:
            placed: Params = jax.tree.map(jax.numpy.asarray, params)
            return placed
        where = jax.tree.map(lambda leaf: leaf.sharding, self._placement.state.params)
        placed = jax.device_put(params, where)
        return placed

    def _run(self, params: Params | Members, batch: dict[str, Ids], length: int) -> tuple[Ids, Ids]:
        """Return the numbers of inputs and their outputs [rows, length of outputs]."""
        steps = output_length(self._how, length, self._max_new_tokens)
        arrays: Any = batch
        if self._placement is not None:
            part, parts = self._part
            each = self._batch_size // parts
            local = {name: x[part * each : (part + 1) * each] for name, x in batch.items()}
            arrays = distributed.global_batch(self._placement.batch, local, self._batch_size)
        numbers, found = self._search(params, arrays, max_new_tokens=steps)
        return np.asarray(numbers), np.asarray(found)

    def _jitted(self) -> Callable[..., tuple[jax.Array, jax.Array]]:
        model, how = T5(self._config), self._how

        def run(
            params: Params | Members, batch: Any, max_new_tokens: int
        ) -> tuple[jax.Array, jax.Array]:
            return batch["numbers"], search(model, params, batch, max_new_tokens, how)

        if self._placement is None:
            return jax.jit(run, static_argnames="max_new_tokens")
        placement = self._placement

        @functools.wraps(run)
        def on_mesh(params: Params | Members, batch: Any, max_new_tokens: int) -> Any:
            with sharding.use_rules(placement.mesh):
                return run(params, batch, max_new_tokens)

        return jax.jit(
            on_mesh, static_argnames="max_new_tokens", out_shardings=placement.everywhere
        )

    def _text(self, row: Ids) -> str:
        ends = np.flatnonzero(np.isin(row, self._config.eos_ids))
        return self._vocabulary.decode(row[: ends[0]] if ends.size else row)


def place_on_all_devices(config: ModelConfig) -> Placement | None:
    """Return who holds what where there are several accelerators, None where there is one device.

    Each has all parameters, and its part of the batch; parameters that take more than half of a
    device are divided as well. The devices of a CPU, which only tests have, count as one.
    """
    devices = jax.devices()
    if len(devices) == 1 or devices[0].platform == "cpu":
        return None
    limit = device_limit(jax.local_devices()[0])
    whole = limit is None or 4 * config.parameter_count() <= limit / 2
    shape = sharding.MeshShape(**{"data" if whole else "fsdp": len(devices)})
    return place_params(config, shape, devices)


def place_params(
    config: ModelConfig, shape: sharding.MeshShape, devices: Sequence[Any]
) -> Placement:
    """Place the parameters of a model on a mesh of devices; there is no optimizer."""
    model = T5(config)
    axes = TrainState(model.param_axes(), {}, None)  # type: ignore[arg-type]
    state = TrainState(model.param_shapes(), {}, None)  # type: ignore[arg-type]
    return place(axes, state, shape, devices)


def bucket_of(length: int, longest: int) -> int:
    """Return what an input of so many tokens is padded to: a power of two, or the longest length.

    >>> [bucket_of(length, 500) for length in (1, 16, 17, 300)]
    [16, 16, 32, 500]
    """
    return min(longest, max(_SHORTEST_BUCKET, 1 << (length - 1).bit_length()))


def output_length(how: How, input_length: int, max_new_tokens: int) -> int:
    """Return the longest output, in tokens, for inputs padded to ``input_length``.

    In beam search alone it is at most 1.5 times the inputs' length and 10 more (Mesh TensorFlow,
    ``transformer.py``).

    >>> output_length(Beam(4), 16, 128), output_length(Greedy(), 16, 128)
    (34, 128)
    """
    if not isinstance(how, Beam):
        return max_new_tokens
    return min(max_new_tokens, math.floor(1.5 * input_length) + 10)
