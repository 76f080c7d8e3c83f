"""Models of one configuration that decode as one: the mean of their logits chooses each token.

A single model is an ensemble of one. The paper averages logits, not probabilities (section 3.6).
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from model.t5 import decode
from model.t5.decode import DecoderCache, StepWeights
from model.t5.network import T5, Params

#: Parameters of each member.
Members = tuple[Params, ...]
#: What decoding remembers of each.
Caches = tuple[DecoderCache, ...]


def start(
    model: T5,
    members: Members,
    inputs: Mapping[str, jax.Array],
    max_new_tokens: int,
    beams: int = 1,
) -> tuple[jax.Array, Caches]:
    """Return the logits of each first new token, and the caches; see `model.t5.decode.start`."""
    return _averaged(
        [decode.start(model, params, inputs, max_new_tokens, beams) for params in members]
    )


def step_weights(model: T5, members: Members) -> tuple[StepWeights, ...]:
    """Return the weights of each member as `step` reads them."""
    return tuple(decode.step_weights(model, params) for params in members)


def step(
    model: T5, weights: Sequence[StepWeights], caches: Caches, tokens: jax.Array
) -> tuple[jax.Array, Caches]:
    """Read a token of each beam; see `model.t5.decode.step`."""
    pairs = zip(weights, caches, strict=True)
    return _averaged([decode.step(model, each, kept, tokens) for each, kept in pairs])


def _averaged(members: Sequence[tuple[jax.Array, DecoderCache]]) -> tuple[jax.Array, Caches]:
    logits, caches = zip(*members, strict=True)
    mean = logits[0] if len(logits) == 1 else jnp.mean(jnp.stack(logits), axis=0)
    return mean, caches
