"""Decoding one token at a time, with the keys and values of the tokens before kept in a cache.

`start` runs the encoder or the prompt once and gives the logits of the first new token; `step`
takes the token chosen in each row and gives the logits of the next. Both are pure and know nothing
of how tokens are chosen: greedy decoding is here, and other searches reorder rows with
`DecoderCache.take`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp

from model.t5.attention import attention_mask, lookup_bias
from model.t5.layers import Block, KeysValues
from model.t5.network import T5, Params

__all__ = ["DecoderCache", "greedy", "start", "step"]


@flax.struct.dataclass
class DecoderCache:
    """What decoding remembers of its rows.

    `keys` and `values` are [layers, rows, positions, heads, kv] of self-attention; `length`
    [rows] counts the positions read so far, and the next token goes there. `memory` holds those
    of cross-attention, and `memory_mask` [rows, 1, 1, encoder length] which of them are seen; both
    are None without an encoder.
    """

    keys: jax.Array
    values: jax.Array
    length: jax.Array
    memory: KeysValues | None
    memory_mask: jax.Array | None

    def take(self, rows: jax.Array) -> "DecoderCache":
        """Return the cache of other rows: `rows` has, for each new row, the old number."""
        by_layer: tuple[Any, ...] = (self.keys, self.values, self.memory)
        by_row = (self.length, self.memory_mask)
        keys, values, memory = jax.tree.map(lambda x: jnp.take(x, rows, axis=1), by_layer)
        length, mask = jax.tree.map(lambda x: jnp.take(x, rows, axis=0), by_row)
        return DecoderCache(keys, values, length, memory, mask)


def start(
    model: T5, params: Params, inputs: Mapping[str, jax.Array], max_new_tokens: int
) -> tuple[jax.Array, DecoderCache]:
    """Return logits [rows, vocabulary] of each first new token, and the cache after the prompts.

    With an encoder `inputs` holds "encoder_tokens" and "encoder_segments", one segment a row.
    Without, "decoder_input_tokens" and "decoder_segments" [rows, length]: the prompts as training
    reads them (0, inputs, EOS), 1 as their segment and 0 after their end; all of a prompt is a
    prefix language model's prefix unless "prefix" says otherwise. The cache has room for
    `max_new_tokens` more.
    Raises ValueError if that is not positive.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be positive, got {max_new_tokens}")
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
        positions = 1 + max_new_tokens
    else:
        prompt, prompt_segments = inputs["decoder_input_tokens"], inputs["decoder_segments"]
        positions = prompt.shape[1] + max_new_tokens
    rows, length = prompt.shape
    shape = (config.decoder_layers, rows, positions, config.num_heads, config.d_kv)
    cache = DecoderCache(
        jnp.zeros(shape, config.dtype),
        jnp.zeros(shape, config.dtype),
        jnp.zeros(rows, jnp.int32),
        memory,
        memory_mask,
    )
    prefix = inputs.get("prefix", prompt_segments) if model.bidirectional_decoder else None
    mask = attention_mask(prompt_segments, prompt_segments, causal=True, prefix=prefix)
    mask = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (0, positions - length)))
    hidden, cache = _extend(model, params, cache, prompt, mask)
    lengths = jnp.sum(prompt_segments > 0, axis=1)
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)
    return model.unembed(params, last)[:, 0], dataclasses.replace(cache, length=lengths)


def step(
    model: T5, params: Params, cache: DecoderCache, tokens: jax.Array
) -> tuple[jax.Array, DecoderCache]:
    """Read one token [rows] in each row: logits [rows, vocabulary] of the next, and the cache."""
    positions = jnp.arange(cache.keys.shape[2])
    mask = (positions[None, :] <= cache.length[:, None])[:, None, None, :]
    hidden, cache = _extend(model, params, cache, tokens[:, None], mask)
    return model.unembed(params, hidden)[:, 0], cache


def greedy(
    model: T5,
    params: Params,
    inputs: Mapping[str, jax.Array],
    max_new_tokens: int,
) -> jax.Array:
    """Decode greedily: int32 [rows, max_new_tokens], `pad_id` after a row's first end id.

    For `inputs` see `start`. Stops when every row has one of the model's `eos_ids`. Under
    `jax.jit`, `model` and `max_new_tokens` are static.
    """
    config = model.config
    logits, cache = start(model, params, inputs, max_new_tokens)
    rows = logits.shape[0]
    outputs = jnp.full((rows, max_new_tokens), config.pad_id, jnp.int32)
    ends = jnp.array(config.eos_ids, jnp.int32)

    def unfinished(state: Any) -> jax.Array:
        index, _, _, ended, _ = state
        going: jax.Array = (index < max_new_tokens) & ~jnp.all(ended)
        return going

    def choose(state: Any) -> Any:
        index, logits, cache, ended, outputs = state
        likeliest = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        tokens = jnp.where(ended, jnp.int32(config.pad_id), likeliest)
        outputs = jax.lax.dynamic_update_slice(outputs, tokens[:, None], (0, index))
        logits, cache = step(model, params, cache, tokens)
        return index + 1, logits, cache, ended | jnp.isin(tokens, ends), outputs

    state = (jnp.int32(0), logits, cache, jnp.zeros(rows, bool), outputs)
    result: jax.Array = jax.lax.while_loop(unfinished, choose, state)[-1]
    return result


def _extend(
    model: T5, params: Params, cache: DecoderCache, tokens: jax.Array, mask: jax.Array
) -> tuple[jax.Array, DecoderCache]:
    """Read `tokens` [rows, n] after what the cache holds: the decoder's output, and the cache.

    `mask` [rows, 1, n, positions] says what they see of the cache, themselves included.
    """
    stack = model.decoder_stack(params)
    positions = cache.length[:, None] + jnp.arange(tokens.shape[1])[None, :]
    distance = jnp.arange(cache.keys.shape[2])[None, None, :] - positions[:, :, None]
    bias = lookup_bias(
        stack["relative_bias"], distance,
        bidirectional=model.bidirectional_decoder,
        max_distance=model.config.relative_max_distance,
    ).transpose(1, 0, 2, 3)  # fmt: skip
    row = jnp.arange(tokens.shape[0])[:, None]
    block: Block = model.decoder_block

    # The caches of all layers are carried along rather than cut up and put together again: each
    # layer then writes its few new positions in place.
    def body(carry: Any, layer: Any) -> tuple[Any, None]:
        hidden, keys, values = carry
        index, layer_params, memory = layer
        written: list[jax.Array] = []

        def extend(new: KeysValues) -> KeysValues:
            written.extend(
                kept.at[index, row, positions].set(fresh.astype(kept.dtype))
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
    length = cache.length + tokens.shape[1]
    cache = dataclasses.replace(cache, keys=keys, values=values, length=length)
    return model.finish(stack, hidden), cache
