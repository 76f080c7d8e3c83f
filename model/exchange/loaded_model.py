"""A published T5 as three functions on NumPy arrays: what other tools need of this package."""

import functools
import os
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from model.devices import pass_over_absent_tpus
from model.exchange.hugging_face import import_model
from model.t5.config import ModelConfig, is_whole
from model.t5.network import T5
from model.t5.search import search
from model.t5.strategies import Beam, Greedy, How


class LoadedModel:
    """An encoder-decoder with its parameters on a device.

    Arrays go in and come out as NumPy's; what comes out is float32, or int32 for ids. Each method
    is compiled once for each combination of shapes: pad to a few lengths where many differ.

    Ids of inputs are ``input_ids`` [batch, length], and ``input_mask`` of the same shape is 1 where
    there is a token and 0 on padding, as tokenizers return them.
    """

    def __init__(self, config: ModelConfig, params: Mapping[str, Any]) -> None:
        if config.architecture != "encoder-decoder":
            raise ValueError(
                f"a {config.architecture} is not supported here: give an encoder-decoder"
            )
        self.config = config
        self._network = T5(config)
        self._params = jax.tree.map(jnp.asarray, dict(params))
        # float32 means float32: left alone, GPUs and TPUs multiply it in fewer bits.
        self._precision = "float32" if config.dtype == "float32" else None
        self._encode = jax.jit(self._network.encode)
        self._logits = jax.jit(self._network.logits)
        self._search = jax.jit(
            functools.partial(search, self._network), static_argnames=("max_new_tokens", "how")
        )

    def encode(
        self, input_ids: npt.ArrayLike, input_mask: npt.ArrayLike
    ) -> npt.NDArray[np.float32]:
        """Return the encoder's output [batch, length, d_model], normed; undefined on padding.

        Raises ValueError for arrays that are not as the class says.
        """
        tokens, mask = self._inputs(input_ids, input_mask)
        with jax.default_matmul_precision(self._precision):
            return np.asarray(self._encode(self._params, tokens, mask), np.float32)

    def logits(
        self,
        input_ids: npt.ArrayLike,
        input_mask: npt.ArrayLike,
        target_ids: npt.ArrayLike,
    ) -> npt.NDArray[np.float32]:
        """Logits [batch, target length, vocabulary] of each target, all before it being given.

        ``target_ids`` [batch, target length] begin with the first token that is to be predicted:
        the start token is put before them here. Where they are padded (0) the logits mean nothing.
        Raises ValueError for arrays that are not as the class says.
        """
        tokens, mask = self._inputs(input_ids, input_mask)
        targets = self._ids("target_ids", target_ids)
        if len(targets) != len(tokens):
            raise ValueError(
                f"target_ids must have as many rows as input_ids, got {len(targets)} and "
                f"{len(tokens)}"
            )
        shifted = np.full_like(targets, self.config.start_id)
        shifted[:, 1:] = targets[:, :-1]
        batch = {
            "encoder_tokens": tokens,
            "encoder_segments": mask,
            "decoder_input_tokens": shifted,
            "decoder_segments": np.ones_like(shifted),
        }
        with jax.default_matmul_precision(self._precision):
            return np.asarray(self._logits(self._params, batch), np.float32)

    def generate(
        self,
        input_ids: npt.ArrayLike,
        input_mask: npt.ArrayLike,
        max_new_tokens: int = 128,
        beams: int | None = None,
        length_penalty: float = 0.6,
    ) -> npt.NDArray[np.int32]:
        """Decode: ids [batch, max_new_tokens], padding after each row's end of sequence.

        Without ``beams`` this is greedy; with them, even with one, it is the beam search of
        :class:`model.t5.strategies.Beam`, whose exponent is ``length_penalty``.

        Start, end and padding are the ids that the folder's files name; other settings of
        ``generation_config.json``, such as ``num_beams``, are not applied. The start token is not
        in the result. Raises ValueError for arrays that are not as the class says, unless
        ``max_new_tokens`` and ``beams`` are positive, and for a negative ``length_penalty``.
        """
        tokens, mask = self._inputs(input_ids, input_mask)
        length = _positive("max_new_tokens", max_new_tokens)
        beam = Beam(1 if beams is None else _positive("beams", beams), length_penalty)
        how: How = Greedy() if beams is None else beam
        inputs = {"encoder_tokens": tokens, "encoder_segments": mask}
        with jax.default_matmul_precision(self._precision):
            found = self._search(self._params, inputs, max_new_tokens=length, how=how)
        return np.asarray(found, np.int32)

    def _inputs(
        self, input_ids: npt.ArrayLike, input_mask: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        tokens = self._ids("input_ids", input_ids)
        mask = _array("input_mask", input_mask)
        if mask.shape != tokens.shape:
            raise ValueError(
                f"input_mask must have the shape of input_ids, {list(tokens.shape)}, got "
                f"{list(mask.shape)}"
            )
        if not np.isin(mask, (0, 1)).all():
            strange = mask[~np.isin(mask, (0, 1))][0]
            raise ValueError(f"input_mask must be 1 on tokens and 0 on padding, got {strange}")
        return tokens, mask.astype(np.int32)

    def _ids(self, name: str, ids: npt.ArrayLike) -> npt.NDArray[np.int32]:
        array = _array(name, ids)
        if array.ndim != 2 or not array.size:
            raise ValueError(f"{name} must be [batch, length], got the shape {list(array.shape)}")
        if array.dtype.kind not in "iu":
            raise ValueError(f"{name} must be integers, got {array.dtype}")
        least, most = int(array.min()), int(array.max())
        if least < 0 or most >= self.config.vocab_size:
            raise ValueError(
                f"{name} must be ids from 0 to {self.config.vocab_size - 1}, got "
                f"{least if least < 0 else most}"
            )
        return array.astype(np.int32)


def _positive(name: str, value: Any) -> int:
    if not (is_whole(value) or isinstance(value, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


def _array(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} must be [batch, length], got rows of several lengths") from None


def load_hf(
    folder: str | os.PathLike[str], dtype: Literal["float32", "bfloat16"] = "float32"
) -> LoadedModel:
    """Open a T5 in Hugging Face's layout: ``config.json`` and ``model.safetensors``.

    ``dtype`` is that of activations; parameters are float32 either way. Raises ValueError for a
    folder that holds no such model.
    """
    pass_over_absent_tpus()
    model = import_model(folder)
    return LoadedModel(model.config.replace(dtype=dtype), model.params)
