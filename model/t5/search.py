"""Choosing the tokens of an output: greedy, by beam search, or by drawing from the distribution."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from model.t5.config import ModelConfig
from model.t5.ensemble import Caches, Members, start, step, step_weights
from model.t5.network import T5, Params
from model.t5.strategies import Beam, How, Sample


def search(
    model: T5,
    params: Params | Members,
    inputs: Mapping[str, jax.Array],
    max_new_tokens: int,
    how: How,
) -> jax.Array:
    """Return the chosen tokens, int32 [rows, max_new_tokens], `pad_id` after a row's end.

    Each row is what it would be alone. Any of the model's `eos_ids` ends one, and no other id is
    special. Under `jax.jit`, `model`, `max_new_tokens` and `how` are static.

    Args:
      model: of any architecture.
      params: its parameters; a tuple of those of several models is an ensemble.
      inputs: see `model.t5.decode.start`. For `Sample`, "numbers" [rows] may give each row another
        number than its place in the batch: what is drawn depends on it.
      max_new_tokens: the longest output; also the length in the bound of beam search.
      how: the way to choose.

    Raises:
      ValueError: `max_new_tokens` is not positive.
    """
    members = params if isinstance(params, tuple) else (params,)
    if isinstance(how, Beam):
        return _beam_search(model, members, inputs, max_new_tokens, how)
    choose: _Choose = _likeliest
    if isinstance(how, Sample):
        rows = next(iter(inputs.values())).shape[0]
        choose = _drawn(how, inputs.get("numbers", jnp.arange(rows)))
    return _one_by_one(model, members, inputs, max_new_tokens, choose)


_Choose = Callable[[jax.Array, jax.Array | int], jax.Array]  # of logits and the token's index


def _one_by_one(
    model: T5,
    members: Members,
    inputs: Mapping[str, jax.Array],
    max_new_tokens: int,
    choose: _Choose,
) -> jax.Array:
    config = model.config
    logits, cache = start(model, members, inputs, max_new_tokens)
    weights = step_weights(model, members)
    tokens = choose(logits, 0)
    outputs = jnp.full((len(tokens), max_new_tokens), config.pad_id, jnp.int32)
    outputs = outputs.at[:, 0].set(tokens)

    def unfinished(state: Any) -> jax.Array:
        index, _, ended, _, _ = state
        going: jax.Array = (index < max_new_tokens) & ~jnp.all(ended)
        return going

    def advance(state: Any) -> Any:
        index, tokens, ended, outputs, cache = state
        logits, cache = step(model, weights, cache, tokens[:, None])
        chosen = choose(logits[:, 0], index)
        tokens = jnp.where(ended, jnp.int32(config.pad_id), chosen)
        outputs = jax.lax.dynamic_update_slice(outputs, tokens[:, None], (0, index))
        return index + 1, tokens, ended | _ends(config, tokens), outputs, cache

    state = (jnp.int32(1), tokens, _ends(config, tokens), outputs, cache)
    result: jax.Array = jax.lax.while_loop(unfinished, advance, state)[3]
    return result


def _likeliest(logits: jax.Array, index: jax.Array | int) -> jax.Array:
    del index
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def _drawn(how: Sample, numbers: jax.Array) -> _Choose:
    of_row = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(how.seed), numbers)

    def choose(logits: jax.Array, index: jax.Array | int, /) -> jax.Array:
        keys = jax.vmap(jax.random.fold_in, (0, None))(of_row, index)
        draw = jax.vmap(jax.random.categorical)
        logits = logits / how.temperature
        if how.top_p == 1:
            return draw(keys, logits).astype(jnp.int32)
        logits, ids = jax.lax.top_k(logits, logits.shape[-1])
        likelihoods = jax.nn.softmax(logits, axis=-1)
        before = jnp.cumsum(likelihoods, axis=-1) - likelihoods
        kept = (before < how.top_p).at[:, 0].set(True)  # whatever rounding does
        place = draw(keys, jnp.where(kept, logits, -jnp.inf))
        return jnp.take_along_axis(ids, place[:, None], axis=1)[:, 0].astype(jnp.int32)

    return choose


class _Beams(NamedTuple):
    """Beam search after some tokens."""

    length: jax.Array  #: tokens chosen in each of the beams
    alive: jax.Array  #: [rows, beams, max_new_tokens] unfinished sequences, the likeliest first
    likelihoods: jax.Array  #: [rows, beams] their log-probabilities
    best: jax.Array  #: [rows, max_new_tokens] the finished sequence with the best score
    score: jax.Array  #: [rows] its score; -inf where no sequence is finished


def _beam_search(
    model: T5,
    members: Members,
    inputs: Mapping[str, jax.Array],
    max_new_tokens: int,
    how: Beam,
) -> jax.Array:
    config = model.config
    logits, caches = start(model, members, inputs, max_new_tokens, how.beams)
    weights = step_weights(model, members)
    rows = logits.shape[0]
    empty = jnp.full((rows, max_new_tokens), config.pad_id, jnp.int32)
    beams = _Beams(
        jnp.int32(0), empty[:, None], jnp.zeros((rows, 1)), empty, jnp.full(rows, -jnp.inf)
    )
    # The first token has one past, the prompt; the others have `how.beams`.
    beams, _ = _grow(config, how, beams, logits[:, None])

    def unsettled(state: tuple[_Beams, Caches]) -> jax.Array:
        # Log-probabilities only fall, and the penalty divides by no more than that of the longest
        # sequence. The reference goes on until the worst of as many finished sequences as there
        # are beams is out of reach: the best one, which alone is returned, is not another then.
        beams, _ = state
        bound = beams.likelihoods[:, 0] / _penalty(max_new_tokens, how)
        going: jax.Array = (beams.length < max_new_tokens) & jnp.any(bound >= beams.score)
        return going

    def advance(state: tuple[_Beams, Caches]) -> tuple[_Beams, Caches]:
        beams, caches = state
        tokens = jax.lax.dynamic_index_in_dim(beams.alive, beams.length - 1, 2, keepdims=False)
        logits, caches = step(model, weights, caches, tokens)
        beams, parents = _grow(config, how, beams, logits)
        return beams, tuple(cache.take(parents) for cache in caches)

    beams, _ = jax.lax.while_loop(unsettled, advance, (beams, caches))
    finished = beams.score > -jnp.inf
    return jnp.where(finished[:, None], beams.best, beams.alive[:, 0])


def _grow(
    config: ModelConfig, how: Beam, beams: _Beams, logits: jax.Array
) -> tuple[_Beams, jax.Array]:
    """Add a token to every sequence; return the parent of each beam [rows, how.beams], too.

    `logits` are [rows, sequences, vocabulary].
    """
    rows, sequences, vocabulary = logits.shape
    # Of the likeliest candidates at least `how.beams` do not end: twice as many with one end id.
    count = how.beams * (1 + len(config.eos_ids))
    logits = logits.astype(jnp.float32)
    top, ids = jax.lax.top_k(logits, min(count, vocabulary))
    top = top - jax.nn.logsumexp(logits, axis=-1, keepdims=True) + beams.likelihoods[..., None]
    each = top.shape[-1]
    likelihoods, places = jax.lax.top_k(top.reshape(rows, -1), min(count, sequences * each))
    parents = places // each
    tokens = jnp.take_along_axis(ids.reshape(rows, -1), places, axis=1).astype(jnp.int32)
    ended = _ends(config, tokens)
    length = beams.length + 1

    def extended(which: jax.Array) -> jax.Array:
        """Return the sequences of these candidates [rows, n]."""
        parent, token = (jnp.take_along_axis(x, which, axis=1) for x in (parents, tokens))
        past = jnp.take_along_axis(beams.alive, parent[:, :, None], axis=1)
        return jax.lax.dynamic_update_slice(past, token[:, :, None], (0, 0, beams.length))

    finished = jnp.where(ended, likelihoods, -jnp.inf)
    first = jnp.argmax(finished, axis=1)[:, None]
    score = jnp.take_along_axis(finished, first, axis=1)[:, 0] / _penalty(length, how)
    better = score > beams.score
    best = jnp.where(better[:, None], extended(first)[:, 0], beams.best)

    unfinished = jnp.where(ended, -jnp.inf, likelihoods)
    missing = max(0, how.beams - unfinished.shape[1])  # of a vocabulary of a few ids
    unfinished = jnp.pad(unfinished, ((0, 0), (0, missing)), constant_values=-jnp.inf)
    likelihoods, which = jax.lax.top_k(unfinished, how.beams)
    which = jnp.minimum(which, ended.shape[1] - 1)
    grown = _Beams(length, extended(which), likelihoods, best, jnp.maximum(score, beams.score))
    return grown, jnp.take_along_axis(parents, which, axis=1)


def _penalty(length: jax.Array | int, how: Beam) -> jax.Array:
    """Return what the log-probability of a sequence is divided by (Wu et al. 2016, section 7)."""
    return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** how.length_penalty


def _ends(config: ModelConfig, tokens: jax.Array) -> jax.Array:
    return jnp.isin(tokens, jnp.array(config.eos_ids, jnp.int32))
