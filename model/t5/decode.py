"""Decoding one token at a time, with the keys and values of the tokens before kept in a cache.

`start` runs the encoder or the prompt once and gives the logits of the first new token; `step`
reads the tokens chosen and gives the logits of the next. Both are pure and know nothing of how
tokens are chosen: see `model.t5.search`.

A row may follow several sequences, its beams. They share its prompt and what cross-attention looks
at, and every beam may read what any beam wrote: `DecoderCache.take` moves no keys and values, only
the note of which beam wrote the past of which.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp

from model.t5.attention import attention_mask, lookup_bias
from model.t5.layers import Block, KeysValues
from model.t5.network import T5, Params


class StepWeights(NamedTuple):
    """Parameters as steps read them: each step reads all, so none is cut out of an array anew."""

    params: Params
    layers: tuple[Params, ...]  #: of the decoder's blocks; matrices in the type of activations
    head: jax.Array  #: [d_model, vocabulary], in that type


@flax.struct.dataclass
class DecoderCache:
    """What decoding remembers of its rows.

    `layers` holds keys and values of self-attention for each layer, [rows, heads, positions, kv].
    First come the positions of the prompts, `prompt_mask` [rows, prompt length] being True where
    there is a token; then those of new tokens, `beams` for each of them, of which `read` were read
    so far. `writers` [rows, beams, new tokens] is the beam that wrote each token of a beam's past.
    `memory` holds keys and values of cross-attention for each layer, in the same layout, and
    `memory_mask` [rows, 1, 1, encoder length] which of them are seen; without an encoder there is
    none.
    """

    layers: tuple[KeysValues, ...]
    prompt_mask: jax.Array
    read: jax.Array
    writers: jax.Array
    memory: tuple[KeysValues, ...]
    memory_mask: jax.Array | None

    def take(self, beams: jax.Array) -> "DecoderCache":
        """Return the cache of other beams: `beams` [rows, beams] has the old number of each."""
        return dataclasses.replace(
            self, writers=jnp.take_along_axis(self.writers, beams[:, :, None], axis=1)
        )


def step_weights(model: T5, params: Params) -> StepWeights:
    """Return parameters as `step` reads them; make them once, before a loop of steps."""
    kind = model.config.dtype
    stack = model.decoder_stack(params)["layers"]

    def layer(number: int) -> Params:
        cut = jax.tree.map(lambda array: array[number], stack)
        # Scales of norms stay float32, as their products are.
        cast: Params = jax.tree.map(lambda x: x.astype(kind) if x.ndim > 1 else x, cut)
        return cast

    layers = tuple(layer(number) for number in range(model.config.decoder_layers))
    return StepWeights(params, layers, model.head(params).astype(kind).T)


def start(
    model: T5,
    params: Params,
    inputs: Mapping[str, jax.Array],
    max_new_tokens: int,
    beams: int = 1,
) -> tuple[jax.Array, DecoderCache]:
    """Return logits [rows, vocabulary] of each first new token, and the cache after the prompts.

    With an encoder `inputs` holds "encoder_tokens" and "encoder_segments", one segment a row.
    Without, "decoder_input_tokens" and "decoder_segments" [rows, length]: the prompts as training
    reads them (0, inputs, EOS), 1 as their segment and 0 after their end; all of a prompt is a
    prefix language model's prefix unless "prefix" says otherwise. The cache has room for all new
    tokens but the last, which nothing comes after, of `beams` sequences for each row.
    Raises ValueError if `max_new_tokens` is not positive.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be positive, got {max_new_tokens}")
    config, block = model.config, model.decoder_block
    stack = model.decoder_stack(params)
    memory = memory_mask = None
    if config.has_encoder:
        segments = inputs["encoder_segments"]
        encoded = model.encode(params, inputs["encoder_tokens"], segments)
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
    prefix = inputs.get("prefix", prompt_segments) if model.bidirectional_decoder else None
    mask = attention_mask(prompt_segments, prompt_segments, causal=True, prefix=prefix)
    place = jnp.arange(length)
    bias = _bias(model, params, (place[None, :] - place[:, None])[None])

    def read(hidden: jax.Array, layer: Any) -> tuple[jax.Array, KeysValues]:
        layer_params, seen = layer
        kept: list[KeysValues] = []

        def keep(new: KeysValues) -> KeysValues:
            kept.append(new)
            return new

        result: Any = block.apply(
            {"params": layer_params}, hidden, bias, mask, seen, memory_mask, keep
        )
        return result, kept[0]

    hidden, own = jax.lax.scan(read, model.embed(params, prompt), (stack["layers"], memory))
    steps = max_new_tokens - 1
    cache = DecoderCache(
        _by_layer(config.decoder_layers, own, steps * beams),
        prompt_segments > 0,
        jnp.int32(0),
        jnp.zeros((rows, beams, steps), jnp.int32),
        () if memory is None else _by_layer(config.decoder_layers, memory, 0),
        memory_mask,
    )
    last = jnp.sum(prompt_segments > 0, axis=1) - 1
    hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)
    return model.unembed(params, model.finish(stack, hidden))[:, 0], cache


def _by_layer(layers: int, stacked: KeysValues, room: int) -> tuple[KeysValues, ...]:
    """Return keys and values of each layer as the cache has them, with more positions behind.

    `stacked` are [layers, rows, positions, heads, kv].
    """
    keys, values = (
        jnp.pad(x.transpose(0, 1, 3, 2, 4), ((0, 0), (0, 0), (0, 0), (0, room), (0, 0)))
        for x in stacked
    )
    return tuple((keys[number], values[number]) for number in range(layers))


def _bias(model: T5, params: Params, distance: jax.Array) -> jax.Array:
    """Return the bias [rows or 1, heads, n, positions] of distances [rows or 1, n, positions]."""
    return lookup_bias(
        model.decoder_stack(params)["relative_bias"], distance,
        bidirectional=model.bidirectional_decoder,
        max_distance=model.config.relative_max_distance,
    ).transpose(1, 0, 2, 3)  # fmt: skip


def step(
    model: T5, weights: StepWeights, cache: DecoderCache, tokens: jax.Array
) -> tuple[jax.Array, DecoderCache]:
    """Read a token of each beam [rows, beams]: logits [rows, beams, vocabulary] of the next.

    Returns the cache, too. Reading more tokens than `start` made room for is undefined.
    """
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
    bias = _bias(model, weights.params, distance)
    # A few queries at a time are a matter of reading the cache: nothing to fuse.
    block = Block(model.config.replace(attention="plain"), cross=model.config.has_encoder)
    hidden: Any = model.embed(weights.params, tokens)
    layers: list[KeysValues] = []

    def extend(new: KeysValues) -> KeysValues:
        """Write what the next layer makes of the tokens; return all that it has made."""
        at = (0, 0, prompt + cache.read * beams, 0)
        keys, values = (
            jax.lax.dynamic_update_slice(kept, _heads_first(fresh).astype(kept.dtype), at)
            for kept, fresh in zip(cache.layers[len(layers)], new, strict=True)
        )
        layers.append((keys, values))
        return _heads_first(keys), _heads_first(values)

    for number, layer in enumerate(weights.layers):
        memory = None
        if cache.memory:
            memory = tuple(_heads_first(x) for x in cache.memory[number])
        hidden = block.apply(
            {"params": layer}, hidden, bias, mask, memory, cache.memory_mask, extend
        )
    hidden = model.finish(model.decoder_stack(weights.params), hidden)
    cache = dataclasses.replace(cache, layers=tuple(layers), read=cache.read + 1, writers=writers)
    return model.unembed(weights.params, hidden, head=weights.head), cache


def _heads_first(x: jax.Array) -> jax.Array:
    """Swap positions and heads, of [rows, positions, heads, kv] or back."""
    return x.transpose(0, 2, 1, 3)
