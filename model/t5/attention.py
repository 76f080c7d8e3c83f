"""Attention of T5: which keys a query sees, how far apart they are, and what comes of it."""

import functools
from typing import Any, Literal

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

Path = Literal["auto", "plain", "fused"]

#: The logit of a key that a query does not see: far below any other, and finite, so that a row of
#: padding, which sees nothing, has even weights and not NaN.
_UNSEEN = -1e10

_ATTENDED = "attended"
_KERNEL = "dot_product_attention_fwd_wrapper"  # as JAX names cuDNN's


def relative_position_bucket(
    relative_position: np.ndarray | jax.Array,
    *,
    bidirectional: bool,
    num_buckets: int = 32,
    max_distance: int = 128,
) -> jax.Array:
    """Return the bucket of each relative position (key - query), int32, in the shape given.

    Near distances have a bucket each; from half of the buckets on they widen by the logarithm, and
    the last holds all from `max_distance` on. Bidirectional, the upper half of the buckets is for
    keys to the right; otherwise these all share bucket 0. (Mesh TensorFlow,
    `transformer_layers.py`.)

    >>> relative_position_bucket(np.array([-3, -1, 0, 1, 3, 20, 200]), bidirectional=True).tolist()
    [3, 1, 0, 17, 19, 26, 31]
    """
    distance = -jnp.asarray(relative_position, jnp.int32)
    offset = jnp.zeros_like(distance)
    if bidirectional:
        num_buckets //= 2
        offset = jnp.where(distance < 0, num_buckets, 0)
        distance = jnp.abs(distance)
    distance = jnp.maximum(distance, 0)
    # The bucket's number is how many thresholds a distance has reached: integers throughout, so
    # no logarithm of some device can put a distance on the other side.
    thresholds = _bucket_thresholds(num_buckets, max_distance)
    reached = distance[..., None] >= thresholds.reshape((1,) * distance.ndim + (-1,))
    return (offset + jnp.sum(reached, axis=-1, dtype=jnp.int32)).astype(jnp.int32)


def _bucket_thresholds(num_buckets: int, max_distance: int) -> np.ndarray:
    """Return the first distance of buckets 1, 2, ...: bucket b ends below the b-th entry."""
    exact = num_buckets // 2
    distances = np.arange(exact, max_distance + 1)
    growth = np.log(distances / exact) / np.log(max_distance / exact) * (num_buckets - exact)
    # A hair above, for the distances whose logarithms divide without rest.
    buckets = np.minimum(num_buckets - 1, exact + np.floor(growth + 1e-6).astype(int))
    wide = [distances[np.argmax(buckets >= bucket)] for bucket in range(exact + 1, num_buckets)]
    return np.array([*range(1, exact + 1), *wide], np.int32)


def relative_bias(
    table: jax.Array,
    query_length: int,
    key_length: int,
    *,
    bidirectional: bool,
    max_distance: int = 128,
) -> jax.Array:
    """Return the bias of every pair of positions, [1, heads, query_length, key_length].

    `table` is [heads, buckets]; positions are indices, also where rows are packed, since only
    differences inside a segment are looked at.
    """
    # Diagonals are constant. One value each is looked up and laid out so that every row starts
    # one further left, by cutting a repeated row into pieces one shorter: the backward pass is
    # then a sum along diagonals, where looking up each pair would scatter a quarter million adds.
    period = query_length + key_length
    offset = np.arange(period)
    offset = np.where(offset < key_length, offset, offset - period)
    diagonals = lookup_bias(table, offset, bidirectional=bidirectional, max_distance=max_distance)
    heads = table.shape[0]
    repeated = jnp.broadcast_to(diagonals[:, None, :], (heads, query_length, period))
    flat = repeated.reshape(heads, query_length * period)[:, : query_length * (period - 1)]
    return flat.reshape(1, heads, query_length, period - 1)[..., :key_length]


def lookup_bias(
    table: jax.Array,
    relative_position: np.ndarray | jax.Array,
    *,
    bidirectional: bool,
    max_distance: int = 128,
) -> jax.Array:
    """Return the bias of given relative positions (key - query): [heads, *their shape]."""
    buckets = relative_position_bucket(
        relative_position,
        bidirectional=bidirectional,
        num_buckets=table.shape[1],
        max_distance=max_distance,
    )
    return jnp.take(table, buckets, axis=1)


def attention_mask(
    query_segments: jax.Array,
    key_segments: jax.Array,
    *,
    causal: bool = False,
    prefix: jax.Array | None = None,
) -> jax.Array:
    """Return which keys each query sees, bool [batch, 1, query_length, key_length].

    Those of its own segment (ids from 1; 0 is padding, which sees and is seen by none), and if
    `causal` only those not after it, but for keys marked in `prefix` [batch, key_length], which
    the whole segment sees.
    """
    query, key = query_segments[:, None, :, None], key_segments[:, None, None, :]
    mask = (query == key) & (query > 0)
    if causal:
        before = np.tri(query_segments.shape[1], key_segments.shape[1], dtype=bool)[None, None]
        if prefix is not None:
            before = before | (prefix > 0)[:, None, None, :]
        mask &= before
    return mask


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None,
    mask: jax.Array,
    *,
    path: Path = "plain",
    weight_factor: jax.Array | None = None,
) -> jax.Array:
    """Return `softmax(query . key + bias)` over the keys in `mask`, times value.

    query [batch, query_length, heads, kv]; key and value [batch, key_length, heads, kv]; bias
    [batch or 1, heads, query_length, key_length]; mask bool [batch, 1, query_length, key_length].
    Logits and softmax are float32. There is no division by the root of kv: T5 has it in the
    query's initialisation. `weight_factor` [batch, heads, query_length or 1, key_length]
    multiplies the weights after the softmax (dropout).

    Path "fused" is cuDNN's kernel, which never keeps the weights: for CUDA and bfloat16, with a
    weight factor that is the same for all queries. "auto" takes it where it can, "plain" never.
    Raises ValueError for "fused" where it cannot.
    """
    fused = path != "plain"
    if fused and (obstacle := _fused_obstacle(query, key, weight_factor)):
        if path == "fused":
            raise ValueError(f"fused attention is {obstacle}: give attention 'auto' or 'plain'")
        fused = False
    if weight_factor is not None and weight_factor.shape[2] == 1:
        # The weights of a key times its factor are the weights times the factor of its value:
        # exact, less to multiply, and no concern of the kernel's.
        value *= weight_factor.transpose(0, 3, 1, 2).astype(value.dtype)
        weight_factor = None
    if fused:
        return _fused_attend(query, key, value, bias, mask)
    # Heads before positions: products of plain matrices, summed in the order of the released
    # models' own library, so that float32 differs from it by no more than it must.
    query, key, value = (x.transpose(0, 2, 1, 3) for x in (query, key, value))
    logits = jnp.matmul(query, key.transpose(0, 1, 3, 2), preferred_element_type=jnp.float32)
    if bias is not None:
        bias = bias.astype(jnp.float32)
        logits += bias if bias.shape[0] == logits.shape[0] else _repeat(bias, logits.shape[0])
    return _softmax_times(logits, mask, weight_factor, value)


def is_attended(primitive: Any, *operands: Any, **settings: Any) -> bool:
    """Return whether an operation makes the result of attention: a policy of `jax.checkpoint`.

    Of the fused kernel its statistics count too: with both, its backward pass needs no other run.
    """
    del operands
    return primitive.name == _KERNEL or settings.get("name") == _ATTENDED


@jax.custom_vjp
def _softmax_times(
    logits: jax.Array, mask: jax.Array, weight_factor: jax.Array | None, value: jax.Array
) -> jax.Array:
    """Return the softmax of the logits [batch, heads, queries, keys] in the mask, times value.

    The result is [batch, queries, heads, kv]. Of all arrays of the size of the logits the backward
    pass keeps the weights alone. Left to itself, JAX keeps them twice (once for the softmax, once
    for the product) and sums over the keys of a query what is a sum over the width of its result.
    """
    return _softmax_times_forward(logits, mask, weight_factor, value)[0]


_Residuals = tuple[jax.Array, jax.Array, jax.Array | None, jax.Array, jax.Array]


def _softmax_times_forward(
    logits: jax.Array, mask: jax.Array, weight_factor: jax.Array | None, value: jax.Array
) -> tuple[jax.Array, _Residuals]:
    weights = jax.nn.softmax(jnp.where(mask, logits, _UNSEEN), axis=-1)
    factored = weights if weight_factor is None else weights * weight_factor
    # In the shape that its caller keeps too.
    result = jnp.matmul(factored.astype(value.dtype), value).transpose(0, 2, 1, 3)
    result = checkpoint_name(result, _ATTENDED)  # type: ignore[no-untyped-call]
    return result, (weights, mask, weight_factor, value, result)


def _softmax_times_backward(
    residuals: _Residuals, gradient: jax.Array
) -> tuple[jax.Array, None, None, jax.Array]:
    weights, mask, weight_factor, value, result = residuals
    gradient, result = (x.transpose(0, 2, 1, 3) for x in (gradient, result))
    of_weights = jnp.matmul(
        gradient, value.transpose(0, 1, 3, 2), preferred_element_type=jnp.float32
    )
    factored = weights
    if weight_factor is not None:
        of_weights *= weight_factor
        factored = weights * weight_factor
    # The mean of a query's gradients under its weights: gradient . sum(weights * values).
    mean = jnp.sum(gradient.astype(jnp.float32) * result.astype(jnp.float32), -1, keepdims=True)
    of_logits = jnp.where(mask, weights * (of_weights - mean), 0)
    of_value = jnp.matmul(factored.astype(gradient.dtype).transpose(0, 1, 3, 2), gradient)
    return of_logits, None, None, of_value


_softmax_times.defvjp(_softmax_times_forward, _softmax_times_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _repeat(bias: jax.Array, batch: int) -> jax.Array:
    """Return one bias [1, heads, queries, keys] for each sequence of a batch."""
    return jnp.broadcast_to(bias, (batch, *bias.shape[1:]))


def _repeat_forward(bias: jax.Array, batch: int) -> tuple[jax.Array, None]:
    return _repeat(bias, batch), None


def _repeat_backward(batch: int, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    # A product with ones is the sum over the batch. As a plain sum, XLA's CPU backend (0.10) takes
    # 50 times as long over it, a tenth of a training step; other backends turn this into the sum.
    ones = jnp.ones((1, batch), gradient.dtype)
    flat = jnp.dot(ones, gradient.reshape(batch, -1), precision=jax.lax.Precision.HIGHEST)
    return (flat.reshape(1, *gradient.shape[1:]),)


_repeat.defvjp(_repeat_forward, _repeat_backward)


def _fused_attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None,
    mask: jax.Array,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    # The kernel wants its bias in the type of the rest. It is cast here, inside a layer, and after
    # it is repeated, so that the gradients of all sequences and layers add up in float32.
    if bias is not None:
        bias = _repeat(bias, query.shape[0]) if bias.shape[0] == 1 else bias
        bias = bias.astype(query.dtype)
    return jax.nn.dot_product_attention(
        query, key, value, bias, mask, scale=1.0, implementation=implementation
    )


def _fused_obstacle(
    query: jax.Array, key: jax.Array, weight_factor: jax.Array | None
) -> str | None:
    """Return why cuDNN's kernel cannot do this, worded to follow "fused attention is"; or None."""
    if not _on_cuda():
        return f"for CUDA, and JAX runs on {jax.default_backend()}"
    if query.dtype != jnp.bfloat16:
        return f"for bfloat16, and activations are {query.dtype}"
    if weight_factor is not None and weight_factor.shape[2] != 1:
        return "for dropout_broadcast=True (or no dropout)"
    if query.shape[-1] % 8 or query.shape[-1] > 128:
        return f"for d_kv a multiple of 8 up to 128, got {query.shape[-1]}"
    if query.shape[1] % 2 or key.shape[1] % 2:
        return f"for even lengths, got {query.shape[1]} and {key.shape[1]}"
    return None


def _on_cuda() -> bool:
    backend = jax.extend.backend.get_backend()
    return backend.platform == "gpu" and "cuda" in backend.platform_version
