"""Cross-entropy with its z-loss, as sums: parts of a batch add up to the whole.

Axes: ``...`` any leading ones (batch, length), ``vocab`` the last.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["LOSS_DIVISORS", "LossDivisor", "LossSums", "divisor_of", "loss_sums"]

LossDivisor = Literal["batch-length", "tokens", "sum"]

#: Name to what the sum of the losses is divided by before its gradient is taken. Mesh TensorFlow
#: counts padding in (``transformer.py``, ``_compute_loss``); T5X leaves the sum as it is. Adafactor
#: does not see the difference until another loss continues from its statistics.
LOSS_DIVISORS = {
    "batch-length": "sequences * target length, padding included (Mesh TensorFlow)",
    "tokens": "target tokens that are not padding",
    "sum": "nothing (T5X)",
}


class LossSums(NamedTuple):
    """Sums over target tokens; float32 scalars, in nats where they are losses."""

    loss: Array  #: cross-entropy (with label smoothing where asked for), without the z-loss
    z_loss: Array
    correct: Array  #: tokens whose target has the largest logit
    tokens: Array  #: sum of the weights


def loss_sums(
    logits: Array,
    targets: Array,
    weights: Array,
    *,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> LossSums:
    """Losses of a batch or of any part of it.

    Per token: ``log Z - logit[target]``, and ``z_loss * (log Z)²`` beside it, which keeps ``log Z``
    near zero (1e-4 in the paper's training, 0 when evaluating). ``label_smoothing`` s puts
    ``1 - s + s / vocab`` on the target and ``s / vocab`` on all others, as Mesh TensorFlow does.

    Args:
      logits: float32 [..., vocab].
      targets: int32 [...], in [0, vocab).
      weights: float32 [...], 0 on padding. Losses are differentiable in the logits alone.
      z_loss: factor, not negative.
      label_smoothing: in [0, 1).

    >>> sums = loss_sums(jnp.zeros((1, 4)), jnp.array([2]), jnp.ones(1))
    >>> round(float(sums.loss), 6)  # log 4
    1.386294
    """
    if logits.dtype != jnp.float32:
        raise TypeError(f"losses are computed in float32, got logits of {logits.dtype}")
    both, z_sum, correct = _weighted(logits, targets, weights, z_loss, label_smoothing)
    return LossSums(both - z_sum, z_sum, correct, jnp.sum(weights))


def divisor_of(name: LossDivisor, targets_shape: tuple[int, ...], tokens: Array) -> Array:
    """By what a sum of losses over a whole batch is divided; see :data:`LOSS_DIVISORS`.

    Args:
      name: of the rule.
      targets_shape: of the batch's targets, all hosts and microbatches together.
      tokens: sum of their weights; a batch of padding alone divides by 1.
    """
    if name == "batch-length":
        size = 1
        for dimension in targets_shape:
            size *= dimension
        return jnp.asarray(size, jnp.float32)
    if name == "tokens":
        return jnp.maximum(tokens, 1.0)
    if name == "sum":
        return jnp.asarray(1, jnp.float32)
    raise ValueError(f"no loss divisor {name!r}; known: {', '.join(LOSS_DIVISORS)}")


# The gradient is written out: JAX's own would keep another array of the logits' size, gather from
# and scatter into the vocabulary axis, which may be divided over devices. So it is one elementwise
# pass over logits, from log Z computed once.
@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _weighted(
    logits: Array, targets: Array, weights: Array, z_loss: float, label_smoothing: float
) -> tuple[Array, Array, Array]:
    """Sum of both losses, of the z-loss alone (carries no gradient), of correct tokens."""
    return _forward(logits, targets, weights, z_loss, label_smoothing)[0]


_Residuals = tuple[Array, Array, Array, Array]


def _forward(
    logits: Array, targets: Array, weights: Array, z_loss: float, label_smoothing: float
) -> tuple[tuple[Array, Array, Array], _Residuals]:
    largest = jnp.max(logits, axis=-1)
    log_z = largest + jnp.log(jnp.sum(jnp.exp(logits - largest[..., None]), axis=-1))
    of_target = jnp.sum(jnp.where(_is_target(logits, targets), logits, 0.0), axis=-1)
    losses = log_z - of_target
    if label_smoothing:
        others = log_z - jnp.mean(logits, axis=-1)
        losses = (1 - label_smoothing) * losses + label_smoothing * others
    z_sum = z_loss * jnp.sum(weights * jnp.square(log_z))
    correct = jnp.sum(weights * (of_target == largest))
    both = jnp.sum(weights * losses) + z_sum
    return (both, z_sum, correct), (logits, targets, weights, log_z)


def _backward(
    z_loss: float,
    label_smoothing: float,
    residuals: _Residuals,
    cotangents: tuple[Array, Array, Array],
) -> tuple[Array, None, None]:
    logits, targets, weights, log_z = residuals
    scale = (cotangents[0] * weights)[..., None]
    probability = jnp.exp(logits - log_z[..., None])
    wanted = jnp.where(_is_target(logits, targets), 1 - label_smoothing, 0.0)
    wanted = wanted + label_smoothing / logits.shape[-1]
    gradient = probability * (1 + 2 * z_loss * log_z)[..., None] - wanted
    return scale * gradient, None, None


def _is_target(logits: Array, targets: Array) -> Array:
    """True at each target's place: compares instead of gathering."""
    vocabulary = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1)
    return vocabulary == targets[..., None]


_weighted.defvjp(_forward, _backward)
