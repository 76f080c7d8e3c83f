"""Decoding one token at a time, with the keys and values of the tokens before kept in a cache.

`start` runs the encoder or the prompt once and gives the logits of the first new token; `step`
reads the tokens chosen and gives the logits of the next. Both are pure and know nothing of how
tokens are chosen: see `model.t5.search`.

A row may follow several sequences, its beams. They share its prompt and what cross-attention looks
at, and every beam may read what any beam wrote: `DecoderCache.take` moves no keys and values, only
the note of which beam wrote the past of which.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp

from model.t5.attention import attention_mask, lookup_bias
from model.t5.layers import Block, KeysValues
from model.t5.network import T5, Params

__all__ = ["Cache", "DecoderCache", "EnsembleCache", "Members", "start", "step"]

#: Parameters of several models of one configuration: an ensemble, which averages logits.
Members = tuple[Params, ...]


@flax.struct.dataclass
class DecoderCache:
    """What decoding remembers of its rows.

    `keys` and `values` are [layers, rows, positions, heads, kv] of self-attention. First come the
    positions of the prompts, `prompt_mask` [rows, prompt length] being True where there is a
    token; then those of new tokens, `beams` for each of them, of which `read` were read so far.
    `writers` [rows, beams, new tokens] is the beam that wrote each token of a beam's past.
    `memory` holds keys and values of cross-attention, and `memory_mask` [rows, 1, 1, encoder
    length] which of them are seen; both are None without an encoder.
    """

    keys: jax.Array
    values: jax.Array
    prompt_mask: jax.Array
    read: jax.Array
    writers: jax.Array
    memory: KeysValues | None
    memory_mask: jax.Array | None

    def take(self, beams: jax.Array) -> "DecoderCache":
        """Return the cache of other beams: `beams` [rows, beams] has the old number of each."""
        return dataclasses.replace(
            self, writers=jnp.take_along_axis(self.writers, beams[:, :, None], axis=1)
        )


@flax.struct.dataclass
class EnsembleCache:
    """What decoding remembers of each member of an ensemble."""

    members: tuple[DecoderCache, ...]

    def take(self, beams: jax.Array) -> "EnsembleCache":
        """Return the cache of other beams; see `DecoderCache.take`."""
        return EnsembleCache(tuple(member.take(beams) for member in self.members))


Cache = DecoderCache | EnsembleCache


def start(
    model: T5,
    params: Params | Members,
    inputs: Mapping[str, jax.Array],
    max_new_tokens: int,
    beams: int = 1,
) -> tuple[jax.Array, Cache]:
    """Return logits [rows, vocabulary] of each first new token, and the cache after the prompts.

    With an encoder `inputs` holds "encoder_tokens" and "encoder_segments", one segment a row.
    Without, "decoder_input_tokens" and "decoder_segments" [rows, length]: the prompts as training
    reads them (0, inputs, EOS), 1 as their segment and 0 after their end; all of a prompt is a
    prefix language model's prefix unless "prefix" says otherwise. The cache has room for all new
    tokens but the last, which nothing comes after, of `beams` sequences for each row.

    `params` may be a tuple of the parameters of several models, whose logits are averaged: the
    paper's ensembles (section 3.6).
    Raises ValueError if `max_new_tokens` is not positive.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be positive, got {max_new_tokens}")
    if isinstance(params, tuple):
        return _averaged([_start(model, each, inputs, max_new_tokens, beams) for each in params])
    return _start(model, params, inputs, max_new_tokens, beams)


def _averaged(
    members: Sequence[tuple[jax.Array, DecoderCache]],
) -> tuple[jax.Array, EnsembleCache]:
    logits = jnp.mean(jnp.stack([logits for logits, _ in members]), axis=0)
    return logits, EnsembleCache(tuple(cache for _, cache in members))


def _start(
    model: T5,
    params: Params,
    inputs: Mapping[str, jax.Array],
    max_new_tokens: int,
    beams: int,
) -> tuple[jax.Array, DecoderCache]:
    config = model.config
    stack = model.decoder_stack(params)
    memory = memory_mask = None
    if config.has_encoder:
        segments = inputs["encoder_segments"]
        encoded = model.encode(params, inputs["encoder_tokens"], segments)
        block = model.decoder_block
        memory = jax.lax.map(
            lambda layer: block.apply({"params": layer}, encoded, method="memory_keys_values"),
            stack["layers"],
        )
        memory_mask = (segments > 0)[:, None, None, :]
        prompt = jnp.full((segments.shape[0], 1), config.start_id, jnp.int32)
        prompt_segments = jnp.ones_like(prompt)
    else:
        prompt, prompt_segments = inputs["decoder_input_tokens"], inputs["decoder_segments"]
    rows, length = prompt.shape
    steps = max_new_tokens - 1
    positions = length + steps * beams
    shape = (config.decoder_layers, rows, positions, config.num_heads, config.d_kv)
    cache = DecoderCache(
        jnp.zeros(shape, config.dtype),
        jnp.zeros(shape, config.dtype),
        prompt_segments > 0,
        jnp.int32(0),
        jnp.zeros((rows, beams, steps), jnp.int32),
        memory,
        memory_mask,
    )
    prefix = inputs.get("prefix", prompt_segments) if model.bidirectional_decoder else None
    mask = attention_mask(prompt_segments, prompt_segments, causal=True, prefix=prefix)
    mask = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (0, positions - length)))
    distance = jnp.arange(positions)[None, None, :] - jnp.arange(length)[None, :, None]
    hidden, cache = _extend(model, params, cache, prompt, jnp.int32(0), distance, mask)
    last = jnp.sum(prompt_segments > 0, axis=1) - 1
    hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)
    return model.unembed(params, hidden)[:, 0], cache


def step(
    model: T5, params: Params | Members, cache: Cache, tokens: jax.Array
) -> tuple[jax.Array, Cache]:
    """Read a token of each beam [rows, beams]: logits [rows, beams, vocabulary] of the next.

    Returns the cache, too. Reading more tokens than `start` made room for is undefined.
    """
    if isinstance(params, tuple):
        assert isinstance(cache, EnsembleCache)
        pairs = zip(params, cache.members, strict=True)
        return _averaged([_step(model, each, kept, tokens) for each, kept in pairs])
    assert isinstance(cache, DecoderCache)
    return _step(model, params, cache, tokens)


def _step(
    model: T5, params: Params, cache: DecoderCache, tokens: jax.Array
) -> tuple[jax.Array, DecoderCache]:
    rows, beams = tokens.shape
    prompt, steps = cache.prompt_mask.shape[1], cache.writers.shape[2]
    time, beam = jnp.arange(steps), jnp.arange(beams)
    # [rows, beams, steps, writers]
    writers = jnp.where((time == cache.read)[None, None, :], beam[None, :, None], cache.writers)
    wrote = writers[..., None] == beam[None, None, None, :]
    seen = wrote & (time <= cache.read)[None, None, :, None]
    mask = jnp.concatenate(
        [
            jnp.broadcast_to(cache.prompt_mask[:, None, :], (rows, beams, prompt)),
            seen.reshape(rows, beams, steps * beams),
        ],
        axis=2,
    )[:, None]
    # Without an encoder, new tokens of a row come after its own prompt, whatever its padding.
    lengths = jnp.sum(cache.prompt_mask, axis=1) if prompt > 1 else jnp.ones(1, jnp.int32)
    past = jnp.arange(prompt)[None, :] - lengths[:, None] - cache.read
    new = jnp.broadcast_to(jnp.repeat(time, beams) - cache.read, (len(lengths), steps * beams))
    distance = jnp.concatenate([past, new], axis=1)[:, None, :]
    at = prompt + cache.read * beams
    hidden, cache = _extend(model, params, cache, tokens, at, distance, mask)
    cache = dataclasses.replace(cache, read=cache.read + 1, writers=writers)
    return model.unembed(params, hidden), cache


def _extend(
    model: T5,
    params: Params,
    cache: DecoderCache,
    tokens: jax.Array,
    at: jax.Array,
    distance: jax.Array,
    mask: jax.Array,
) -> tuple[jax.Array, DecoderCache]:
    """Read `tokens` [rows, n] into the positions from `at`: the decoder's output, and the cache.

    `distance` [rows or 1, n or 1, positions] is how far each position of the cache is to the
    right, and `mask` [rows, 1, n, positions] says what they see of it, themselves included.
    """
    stack = model.decoder_stack(params)
    bias = lookup_bias(
        stack["relative_bias"], distance,
        bidirectional=model.bidirectional_decoder,
        max_distance=model.config.relative_max_distance,
    ).transpose(1, 0, 2, 3)  # fmt: skip
    block: Block = model.decoder_block

    # The caches of all layers are carried along rather than cut up and put together again: each
    # layer then writes its few new positions in place.
    def body(carry: Any, layer: Any) -> tuple[Any, None]:
        hidden, keys, values = carry
        index, layer_params, memory = layer
        written: list[jax.Array] = []

        def extend(new: KeysValues) -> KeysValues:
            written.extend(
                jax.lax.dynamic_update_slice(
                    kept, fresh[None].astype(kept.dtype), (index, 0, at, 0, 0)
                )
                for kept, fresh in zip((keys, values), new, strict=True)
            )
            return written[0][index], written[1][index]

        hidden = block.apply(
            {"params": layer_params}, hidden, bias, mask, memory, cache.memory_mask, extend
        )
        return (hidden, *written), None

    layers = (jnp.arange(cache.keys.shape[0]), stack["layers"], cache.memory)
    carry = (model.embed(params, tokens), cache.keys, cache.values)
    (hidden, keys, values), _ = jax.lax.scan(body, carry, layers)
    return model.finish(stack, hidden), dataclasses.replace(cache, keys=keys, values=values)
