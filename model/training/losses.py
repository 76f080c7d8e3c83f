"""Cross-entropy with its z-loss, as sums: parts of a batch add up to the whole.

Logits are computed here, a chunk of positions at a time, so that [batch, length, vocabulary] in
float32 (the largest array of a step by far) never exists whole.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from model.t5.network import product_with_head
from model.t5.partitioning import constrain, local_size
from model.training.train_config import LossDivisor


class LossSums(NamedTuple):
    """Sums over target tokens; float32 scalars, in nats where they are losses."""

    loss: Array  #: cross-entropy (with label smoothing where asked for), without the z-loss
    z_loss: Array
    correct: Array  #: tokens whose target has the largest logit
    tokens: Array  #: sum of the weights


#: Float32 logits that one device makes at once, in bytes. Smaller chunks read and write the head's
#: gradient more often (100 MB each time in base), larger ones need more memory.
_CHUNK_BYTES = 256 << 20


def loss_sums(
    features: Array,
    head: Array,
    targets: Array,
    weights: Array,
    *,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> LossSums:
    """Return the losses of a batch or of any part of it.

    Logits are ``features @ head.T``, in float32. Per token: ``log Z - logit[target]``, and
    ``z_loss * (log Z)²`` beside it, which keeps ``log Z`` near zero (1e-4 in the paper's training,
    0 when evaluating). ``label_smoothing`` s puts ``1 - s + s / vocab`` on the target and
    ``s / vocab`` on all others, as Mesh TensorFlow does.

    The products of the backward pass take the gradient of the logits in the type of the features;
    the head's gradient is summed in float32.

    Args:
      features: [batch, length, d_model], of ``T5.features``.
      head: float32 [vocab, d_model], of ``T5.head``.
      targets: int32 [batch, length], in [0, vocab).
      weights: float32 [batch, length], 0 on padding; have no gradient.
      z_loss: factor, not negative.
      label_smoothing: in [0, 1).

    >>> head = jnp.zeros((4, 8))
    >>> sums = loss_sums(jnp.ones((1, 1, 8)), head, jnp.array([[2]]), jnp.ones((1, 1)))
    >>> round(float(sums.loss), 6)  # log 4
    1.386294
    """
    both, z_sum, correct = _weighted(features, head, targets, weights, z_loss, label_smoothing)
    return LossSums(both - z_sum, z_sum, correct, jnp.sum(weights))


def divisor_of(name: LossDivisor, targets_shape: tuple[int, ...], tokens: Array) -> Array:
    """Return what the losses of a whole batch are divided by; see `model.training.train_config`.

    Args:
      name: of the rule.
      targets_shape: of the batch's targets, all hosts and microbatches together.
      tokens: sum of their weights; a batch of padding alone divides by 1.
    """
    if name == "batch-length":
        return jnp.asarray(math.prod(targets_shape), jnp.float32)
    if name == "tokens":
        return jnp.maximum(tokens, 1.0)
    return jnp.asarray(1, jnp.float32)  # "sum"


_Sums = tuple[Array, Array, Array]  # of both losses, of the z-loss alone, of correct tokens


# Written out for three reasons. The losses are linear in what comes after them, so the gradient is
# made with the logits at hand and nothing of their size is kept. JAX's own gradient would gather
# from and scatter into the vocabulary axis, which may be divided over devices. And the z-loss alone
# carries no gradient.
@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _weighted(
    features: Array, head: Array, targets: Array, weights: Array, z_loss: float, smoothing: float
) -> _Sums:
    low = _gathered(features, head)

    def add(total: _Sums, chunk: tuple[Array, ...]) -> tuple[_Sums, None]:
        part, targets, weights = chunk
        logits = product_with_head(part, low)
        sums = _sums(logits, targets, weights, z_loss, smoothing)[0]
        return jax.tree.map(jnp.add, total, sums), None

    chunks = _chunks(head.shape[0], features, targets, weights)
    sums: _Sums = jax.lax.scan(add, _nothing(), chunks)[0]
    return sums


def _forward(
    features: Array, head: Array, targets: Array, weights: Array, z_loss: float, smoothing: float
) -> tuple[_Sums, tuple[Array, Array]]:
    low = _gathered(features, head)

    def add(
        total: tuple[_Sums, Array], chunk: tuple[Array, ...]
    ) -> tuple[tuple[_Sums, Array], Array]:
        part, targets, weights = chunk
        logits = product_with_head(part, low)
        sums, log_z = _sums(logits, targets, weights, z_loss, smoothing)
        gradient = _gradient(logits, targets, weights, log_z, z_loss, smoothing)
        gradient = gradient.astype(low.dtype)
        of_chunk = jnp.einsum(
            "blv,vd->bld", gradient, low, preferred_element_type=jnp.float32
        ).astype(low.dtype)
        # In this order of axes XLA turns the features round, not the far larger gradient.
        of_head = jnp.einsum("bld,blv->dv", part, gradient, preferred_element_type=jnp.float32)
        return jax.tree.map(jnp.add, total, (sums, of_head)), of_chunk

    (sums, of_head), parts = jax.lax.scan(
        add,
        (_nothing(), jnp.zeros(head.shape[::-1], jnp.float32)),
        _chunks(head.shape[0], features, targets, weights),
    )
    of_features = jnp.moveaxis(parts, 0, 1).reshape(features.shape[0], -1, features.shape[2])
    of_head = jax.lax.platform_dependent(of_head, cpu=_transposed_apart, default=jnp.transpose)
    return sums, (of_features[:, : features.shape[1]], of_head)


def _backward(
    z_loss: float, smoothing: float, residuals: tuple[Array, Array], cotangents: _Sums
) -> tuple[Array, Array, None, None]:
    of_features, of_head = residuals
    scale = cotangents[0]
    return of_features * scale.astype(of_features.dtype), of_head * scale, None, None


_weighted.defvjp(_forward, _backward)


def _transposed_apart(matrix: Array) -> Array:
    # XLA's CPU backend (jaxlib 0.10.2) would fold the transposition into the product before it, and
    # in bfloat16 it cannot run what it then has.
    apart: Array = jax.lax.optimization_barrier(matrix)  # type: ignore[no-untyped-call]
    return apart.T


def _nothing() -> _Sums:
    return (jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))


def _gathered(features: Array, head: Array) -> Array:
    """Return the head in the type of the features, once for all chunks."""
    return constrain(head.astype(features.dtype), "vocab", "embed_act")


def _chunks(vocab: int, *arrays: Array) -> tuple[Array, ...]:
    """Cut [batch, length, ...] into [chunks, batch, positions, ...], padded with zeros.

    Along the length: rows may be divided over devices, and each device takes its own.
    """
    batch, length = arrays[0].shape[:2]
    local = 4 * local_size((batch, length, vocab), "batch", "length", "vocab")
    chunks = min(length, -(-local // _CHUNK_BYTES))
    positions = -(-length // chunks)
    rest = -length % positions

    def cut(array: Array) -> Array:
        padded = jnp.pad(array, ((0, 0), (0, rest)) + ((0, 0),) * (array.ndim - 2))
        parts = padded.reshape(batch, -1, positions, *array.shape[2:])
        return jnp.moveaxis(parts, 1, 0)

    return tuple(cut(array) for array in arrays)


def _sums(
    logits: Array, targets: Array, weights: Array, z_loss: float, smoothing: float
) -> tuple[_Sums, Array]:
    """Return the sums over a chunk, and log Z of each of its tokens."""
    largest = jnp.max(logits, axis=-1)
    log_z = largest + jnp.log(jnp.sum(jnp.exp(logits - largest[..., None]), axis=-1))
    of_target = jnp.sum(jnp.where(_is_target(logits, targets), logits, 0.0), axis=-1)
    losses = log_z - of_target
    if smoothing:
        others = log_z - jnp.mean(logits, axis=-1)
        losses = (1 - smoothing) * losses + smoothing * others
    z_sum = z_loss * jnp.sum(weights * jnp.square(log_z))
    correct = jnp.sum(weights * (of_target == largest))
    return (jnp.sum(weights * losses) + z_sum, z_sum, correct), log_z


def _gradient(
    logits: Array, targets: Array, weights: Array, log_z: Array, z_loss: float, smoothing: float
) -> Array:
    """Return the gradient of both losses' sum in the logits, one elementwise pass over them."""
    probability = jnp.exp(logits - log_z[..., None])
    wanted = jnp.where(_is_target(logits, targets), 1 - smoothing, 0.0)
    wanted = wanted + smoothing / logits.shape[-1]
    return weights[..., None] * (probability * (1 + 2 * z_loss * log_z)[..., None] - wanted)


def _is_target(logits: Array, targets: Array) -> Array:
    """Return a mask of each target's place: compare instead of gathering."""
    vocabulary = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1)
    return vocabulary == targets[..., None]
