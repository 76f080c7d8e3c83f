"""The layers of T5: RMS norm, dropout, attention, feed-forward, and the block they make."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from model.t5.attention import attend
from model.t5.config import ModelConfig
from model.t5.partitioning import constrain

Initializer = Callable[..., jax.Array]
KeysValues = tuple[jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(x: jax.Array, scale: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """Divide `x` by the root of its mean square along the last axis, and multiply by `scale`.

    Statistics are float32, whatever `x` is; the result has the type of `x`. The backward pass keeps
    `x` and one number per vector, where JAX's own would keep three float32 arrays of that size.

    Args:
      x: [..., width].
      scale: [width].
      epsilon: added to the mean square.
    """
    return _rms_norm_forward(x, scale, epsilon)[0]


def _rms_norm_forward(
    x: jax.Array, scale: jax.Array, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    x32 = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + epsilon)
    return (x32 * inverse * _as_last_axis(scale, x)).astype(x.dtype), (x, scale, inverse)


def _rms_norm_backward(
    epsilon: float, residuals: tuple[jax.Array, jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, scale, inverse = residuals
    normed, of_result = x.astype(jnp.float32) * inverse, gradient.astype(jnp.float32)
    of_normed = of_result * _as_last_axis(scale, x)
    along = jnp.mean(of_normed * normed, axis=-1, keepdims=True)
    of_scale = jnp.sum(of_result * normed, axis=range(x.ndim - 1))
    return (inverse * (of_normed - normed * along)).astype(x.dtype), of_scale


def _as_last_axis(scale: jax.Array, x: jax.Array) -> jax.Array:
    return scale.reshape((1,) * (x.ndim - 1) + (-1,))


rms_norm.defvjp(_rms_norm_forward, _rms_norm_backward)


def draw_keep(
    rng: jax.Array, rate: float, batch: int, shapes: Sequence[tuple[int, ...]]
) -> list[jax.Array]:
    """Return masks of what dropout keeps, bool [batch, *shape] for each of the shapes.

    All come from one draw: a generator's rounds are most of what dropout costs, in the compiler
    and on a device, and small draws cost as much as larger ones.
    """
    sizes = [math.prod(shape) for shape in shapes]
    keep = jax.random.bernoulli(rng, 1 - rate, (batch, sum(sizes)))
    # Undivided but by sequences: where a mask of one site is divided over "tensor", XLA's
    # partitioner (jaxlib 0.10.2) would divide the draw as well, and cut other bits out of it than
    # one device does.
    keep = constrain(keep, "batch", None)
    parts = jnp.split(keep, np.cumsum(sizes)[:-1], axis=1)
    return [part.reshape(batch, *shape) for part, shape in zip(parts, shapes, strict=True)]


def dropout(x: jax.Array, keep: jax.Array | None, rate: float) -> jax.Array:
    """Zero what is not kept and scale up the rest; return `x` itself where `keep` is None.

    `keep` has the axes of `x`; one of length 1 is shared: Mesh TensorFlow and T5X use one mask
    for all positions of a sequence.

    >>> dropout(jnp.ones((1, 2, 2)), jnp.array([[[True, False]]]), 0.5).tolist()
    [[[2.0, 0.0], [2.0, 0.0]]]
    """
    if keep is None:
        return x
    # A product with a factor in the shape of the mask: of a `jnp.where` the backward pass would
    # keep the mask broadcast to every position.
    return x * (keep.astype(x.dtype) * jnp.asarray(1 / (1 - rate), x.dtype))


@jax.custom_vjp
def _relu_dropout(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Return `relu(x) * factor` of [batch, length, d_ff], for a factor that is not negative.

    The backward pass keeps the result, which the product after it keeps anyway, and the small
    factor; `factor` has no gradient.
    """
    return constrain(jax.nn.relu(x) * factor, "batch", "length", "mlp")


def _relu_dropout_forward(
    x: jax.Array, factor: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    result = _relu_dropout(x, factor)
    return result, (result, factor)


def _relu_dropout_backward(
    residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, None]:
    result, factor = residuals
    return jnp.where(result > 0, gradient * factor, 0), None


_relu_dropout.defvjp(_relu_dropout_forward, _relu_dropout_backward)


@functools.partial(jax.checkpoint, prevent_cse=False)
def _gated_gelu(x: jax.Array, gate: jax.Array) -> jax.Array:
    # Computed again in the backward pass, which would keep five arrays of that size otherwise.
    return jax.nn.gelu(x, approximate=True) * gate


class _Layer(nn.Module):
    """What the layers share: their configuration, kernels, norm and dropout."""

    config: ModelConfig

    def kernel(
        self, name: str, std: float, shape: tuple[int, int], axes: tuple[str, str],
        normal: Callable[[float], Initializer] = initializers.normal,
    ) -> jax.Array:  # fmt: skip
        return self._parameter(name, normal(std), shape, axes)

    def norm_scale(self) -> jax.Array:
        return self._parameter("norm", initializers.ones, (self.config.d_model,), ("norm",))

    def _parameter(
        self, name: str, init: Initializer, shape: tuple[int, ...], axes: tuple[str, ...]
    ) -> jax.Array:
        return cast(jax.Array, self.param(name, nn.with_partitioning(init, axes), shape))

    def normed(self, hidden: jax.Array) -> jax.Array:
        return rms_norm(hidden, self.norm, self.config.norm_epsilon)

    def drop(self, x: jax.Array, keep: jax.Array | None) -> jax.Array:
        return dropout(x, keep, self.config.dropout_rate)


class Attention(_Layer):
    """Attention with the norm before it, without the residual around it.

    Standard deviations: query `(d_model * d_kv) ** -0.5` (it holds the division that other
    transformers make at run time), key and value `d_model ** -0.5`, output
    `(heads * d_kv) ** -0.5`; normal (Mesh TensorFlow, `transformer/attention.py`).
    """

    def setup(self) -> None:
        """Declare the parameters."""
        config = self.config
        width, inner = config.d_model, config.inner_dim
        inward, outward = ((width, inner), ("embed", "heads")), ((inner, width), ("heads", "embed"))
        self.norm = self.norm_scale()
        self.query = self.kernel("query", (width * config.d_kv) ** -0.5, *inward)
        self.key = self.kernel("key", width**-0.5, *inward)
        self.value = self.kernel("value", width**-0.5, *inward)
        self.output = self.kernel("output", inner**-0.5, *outward)

    def keys_values(self, source: jax.Array) -> KeysValues:
        """Return keys, values [batch, length, heads, kv] of `source` [batch, length, d_model]."""
        return self._heads(source, self.key), self._heads(source, self.value)

    def __call__(
        self,
        hidden: jax.Array,
        bias: jax.Array | None,
        mask: jax.Array,
        keys_values: Callable[[jax.Array], KeysValues] | None = None,
        keep: jax.Array | None = None,
    ) -> jax.Array:
        """Return the attention of `hidden` [batch, length, d_model] to itself, or to what is given.

        `keys_values` makes keys and values from the normed `hidden`; by default these are its
        own. `keep` [batch, heads, length or 1, key length] is dropout's mask of the weights. See
        `model.t5.attention.attend` for bias and mask.
        """
        normed = self.normed(hidden)
        query = self._heads(normed, self.query)
        key, value = (keys_values or self.keys_values)(normed)
        factor = None if keep is None else self.drop(jnp.ones((1, 1, 1, 1)), keep)
        attended = attend(
            query, key, value, bias, mask,
            # One query at a time is a matter of reading the cache: nothing to fuse.
            path="plain" if query.shape[1] == 1 else self.config.attention,
            weight_factor=factor,
        )  # fmt: skip
        # A product over two axes, not over a reshaped copy: so the backward pass of both keeps the
        # same array.
        output = self.output.reshape(*attended.shape[2:], self.config.d_model)
        return jnp.einsum("blhk,hkd->bld", attended, output.astype(attended.dtype))

    def _heads(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        projected = jnp.dot(x, kernel.astype(x.dtype))
        heads = projected.reshape(*x.shape[:2], self.config.num_heads, self.config.d_kv)
        return constrain(heads, "batch", "length", "heads", "kv")


class FeedForward(_Layer):
    """Two dense layers with the norm before them, without the residual around them.

    Version 1.0 has a relu between; 1.1 multiplies the gelu of `wi_0` with `wi_1`. Normal, cut at
    two standard deviations of `d_model ** -0.5` and `output_scale * inner ** -0.5` without scaling
    up again what the cut takes off, as Mesh TensorFlow initialises.

    Attributes:
      inner: the width between the two layers.
      kind: what is between them.
      output_scale: factor of the second layer's standard deviation.
    """

    inner: int
    kind: Literal["relu", "gated-gelu"]
    output_scale: float = 1.0

    def setup(self) -> None:
        """Declare the parameters."""
        width, inner = self.config.d_model, self.inner
        names = ["wi"] if self.kind == "relu" else ["wi_0", "wi_1"]
        self.norm = self.norm_scale()
        self.inward = [
            self.kernel(
                name, width**-0.5, (width, inner), ("embed", "mlp"), initializers.truncated_normal
            )
            for name in names
        ]
        self.outward = self.kernel(
            "wo", self.output_scale * inner**-0.5, (inner, width), ("mlp", "embed"),
            initializers.truncated_normal,
        )  # fmt: skip

    def __call__(self, hidden: jax.Array, keep: jax.Array | None = None) -> jax.Array:
        """Return the layer's result for `hidden` [batch, length, d_model], in the same shape.

        `keep` [batch, length or 1, inner] is dropout's mask.
        """
        normed = self.normed(hidden)
        inner = [jnp.dot(normed, kernel.astype(normed.dtype)) for kernel in self.inward]
        if self.kind == "relu":
            factor = self.drop(jnp.ones((1, 1, 1), normed.dtype), keep)
            activated = _relu_dropout(inner[0], factor)
        else:
            activated = self.drop(_gated_gelu(*inner), keep)
            activated = constrain(activated, "batch", "length", "mlp")
        return jnp.dot(activated, self.outward.astype(activated.dtype))


#: Scale of a new adapter layer's output. Small, so that the model starts close to what it was:
#: the output's RMS is below 0.1, an embedding's is 1. Not 0: Adafactor's steps are relative to the
#: RMS of a parameter, 0.001 at least, so that a layer of zeros would need thousands of steps to
#: grow; for each width of the paper (32 to 2,048) the initial RMS is above that bound.
_ADAPTER_SCALE = 0.1


class Block(_Layer):
    """One block of a stack: self-attention, perhaps cross-attention, feed-forward.

    With `config.adapter`, an adapter layer follows: a narrow relu feed-forward layer with a norm
    and a residual of its own (paper, section 3.5.1).
    """

    cross: bool = False

    def setup(self) -> None:
        """Declare the layers."""
        self.self_attention = Attention(self.config)
        if self.cross:
            self.cross_attention = Attention(self.config)
        self.feed_forward = FeedForward(self.config, self.config.d_ff, self.config.feed_forward)
        if self.config.adapter is not None:
            self.adapter = FeedForward(self.config, self.config.adapter, "relu", _ADAPTER_SCALE)

    def __call__(
        self,
        hidden: jax.Array,
        bias: jax.Array,
        mask: jax.Array,
        memory: jax.Array | KeysValues | None = None,
        memory_mask: jax.Array | None = None,
        extend: Callable[[KeysValues], KeysValues] | None = None,
        dropout_rng: jax.Array | None = None,
    ) -> jax.Array:
        """Return the block's result for `hidden` [batch, length, d_model], in the same shape.

        `memory` is what cross-attention looks at: the encoder's output, or its keys and values.
        `extend` is given the keys and values of `hidden` and returns those to look at in
        self-attention: with it, a cache holds the positions before. With `dropout_rng` dropout is
        applied.
        """
        keep = iter(self._keep(dropout_rng, mask, memory_mask))
        own: Callable[[jax.Array], KeysValues] | None = None
        if extend is not None:
            own = lambda normed: extend(self.self_attention.keys_values(normed))  # noqa: E731
        attended = self.self_attention(hidden, bias, mask, own, next(keep))
        hidden = self._add(hidden, attended, next(keep))
        if memory is not None and memory_mask is not None:
            seen = memory if isinstance(memory, tuple) else self.memory_keys_values(memory)
            attended = self.cross_attention(hidden, None, memory_mask, lambda _: seen, next(keep))
            hidden = self._add(hidden, attended, next(keep))
        hidden = self._add(hidden, self.feed_forward(hidden, next(keep)), next(keep))
        if self.config.adapter is not None:
            hidden = self._add(hidden, self.adapter(hidden, next(keep)), next(keep))
        return hidden

    def memory_keys_values(self, memory: jax.Array) -> KeysValues:
        """Return what cross-attention looks at in the encoder's output [batch, length, d_model]."""
        keys_values: KeysValues = self.cross_attention.keys_values(memory)
        return keys_values

    def _keep(
        self, rng: jax.Array | None, mask: jax.Array, memory_mask: jax.Array | None
    ) -> Sequence[jax.Array | None]:
        """Yield dropout's masks in the order of their sites."""
        config = self.config
        masks = [mask] if memory_mask is None else [mask, memory_mask]
        widths = [config.d_ff] if config.adapter is None else [config.d_ff, config.adapter]
        if rng is None or not config.dropout_rate:
            return [None] * 2 * (len(masks) + len(widths))
        length = 1 if config.dropout_broadcast else mask.shape[2]
        result = (length, config.d_model)
        shapes: list[tuple[int, ...]] = []
        for each in masks:
            shapes += [(config.num_heads, length, each.shape[3]), result]
        for width in widths:
            shapes += [(length, width), result]
        return draw_keep(rng, config.dropout_rate, mask.shape[0], shapes)

    def _add(self, hidden: jax.Array, result: jax.Array, keep: jax.Array | None) -> jax.Array:
        return constrain(hidden + self.drop(result, keep), "batch", "length", "embed_act")
