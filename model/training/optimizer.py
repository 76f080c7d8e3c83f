"""Adafactor as the paper trains with it, and learning rate schedules."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from model.t5.config import require_known
from model.t5.partitioning import is_axes

Schedule = Callable[[Array], Array]

#: A matrix keeps one number a row and one a column where both are at least this long, else one
#: for each parameter (mtf ``optimize.py``, ``min_dim_size_to_factor`` of T5X).
FACTORED_FROM = 128
_EPSILON_GRADIENT = 1e-30  # added to squared gradients
_EPSILON_SCALE = 1e-3  # the least scale of a parameter
_CLIP_RMS = 1.0
_DECAY_EXPONENT = 0.8
FINE_TUNING_RATE = 1e-3  # paper, section 3.1.2

_LAYERS = "layers"  # first logical axis of parameters that hold one of each block


class Moment(NamedTuple):
    """Running mean of one parameter's squared gradient: ``row`` and ``column``, or ``full``.

    What is not kept is None. For a parameter [in, out]: row [in], column [out]; for [layers, in,
    out] one of each a layer.
    """

    row: Array | None
    column: Array | None
    full: Array | None


def adafactor(learning_rate: Schedule, param_axes: Any) -> optax.GradientTransformationExtraArgs:
    """Return Adafactor with the paper's settings (section 3.1.2; mtf ``optimize.py``).

    At the global step t, counted from 0, for each matrix or vector:

    - the squared gradient plus 1e-30 goes into a running mean of decay ``1 - (t + 1) ** -0.8``,
      kept as its row and column means where both sides are at least 128;
    - the gradient divided by the root of that mean, then by ``max(1, its own RMS)``, times
      ``learning_rate(t) * max(RMS of the parameter, 1e-3)`` is subtracted.

    No momentum, no weight decay. Parameters under ``scan`` are many matrices stacked along a
    ``layers`` axis: each is treated by itself, so that the network trains as one whose blocks
    were written out.

    The state is a tree like the parameters of :class:`Moment`. ``update`` takes the global step
    as the keyword argument ``step``: the state keeps no count of its own. With the keyword
    argument ``trainable``, a mask as :func:`where_trainable` takes it, the statistics of what is
    frozen stay as they are and its updates are zero.

    Args:
      learning_rate: global step to step size.
      param_axes: tree like the parameters of tuples of logical axis names, as
        ``T5.param_axes()`` gives it.
    """

    def init(params: Any) -> Any:
        def one(axes: tuple[str, ...], param: Array) -> Moment:
            kept = _kept(axes, param.shape, param.shape)
            return Moment(*(None if n is None else jnp.zeros(n, param.dtype) for n in kept))

        return jax.tree.map(one, param_axes, params, is_leaf=is_axes)

    def update(
        gradients: Any,
        state: Any,
        params: Any = None,
        *,
        step: Array,
        trainable: Any = True,
        **_: Any,
    ) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("Adafactor scales its steps by the parameters: pass them to update")
        decay = 1.0 - (jnp.asarray(step, jnp.float32) + 1.0) ** -_DECAY_EXPONENT
        rate = learning_rate(step)

        def one(gradient: Array, moment: Moment, param: Array) -> tuple[Array, Moment]:
            return _update_one(gradient, moment, param, decay, rate)

        def any_rank(axes: tuple[str, ...], *arrays: Any) -> tuple[Array, Moment]:
            return (jax.vmap(one) if axes[0] == _LAYERS else one)(*arrays)

        both = jax.tree.map(any_rank, param_axes, gradients, state, params, is_leaf=is_axes)
        updates = jax.tree.map(lambda _, pair: pair[0], param_axes, both, is_leaf=is_axes)
        moments = jax.tree.map(lambda _, pair: pair[1], param_axes, both, is_leaf=is_axes)
        nothing = jax.tree.map(jnp.zeros_like, updates)
        return (
            where_trainable(trainable, updates, nothing),
            where_trainable(trainable, moments, state),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def apply_updates(params: Any, updates: Any, trainable: Any = True) -> Any:
    """Return the parameters plus their updates; frozen ones are the same bytes.

    Args:
      params: tree of arrays.
      updates: the same tree, as the optimizer gives it.
      trainable: a mask as :func:`where_trainable` takes it.
    """
    # Selected, not added to 0: -0.0 + 0.0 is 0.0, and devices flush denormal sums.
    return where_trainable(trainable, jax.tree.map(jnp.add, params, updates), params)


def where_trainable(trainable: Any, new: Any, old: Any) -> Any:
    """Return a tree with the arrays of ``new`` where the mask is true, else of ``old``.

    Args:
      trainable: for each parameter a boolean, or [layers], one for each of the layers that are
        stacked in it; or one for all parameters. Arrays may be traced; plain ``False`` freezes for
        good, so that nothing is computed for the parameter.
      new: tree like the parameters, of arrays or of :class:`Moment`.
      old: the same tree.
    """

    def one(mask: Any, new: Array, old: Array) -> Array:
        if isinstance(mask, bool):
            return new if mask else old
        return jnp.where(jnp.reshape(mask, mask.shape + (1,) * (new.ndim - mask.ndim)), new, old)

    return jax.tree.map(
        lambda mask, *both: jax.tree.map(functools.partial(one, mask), *both), trainable, new, old
    )


def state_axes(param_axes: Any, param_shapes: Any) -> Any:
    """Return the logical axes of the state of :func:`adafactor`, without those it sums over.

    Args:
      param_axes: tree of tuples of logical axis names.
      param_shapes: the same tree of anything that has ``.shape``.

    >>> state_axes({"query": ("layers", "embed", "heads")},
    ...            {"query": jax.ShapeDtypeStruct((6, 512, 512), "float32")})
    {'query': Moment(row=('layers', 'embed'), column=('layers', 'heads'), full=None)}
    """
    return jax.tree.map(
        lambda axes, param: Moment(*_kept(axes, param.shape, axes)),
        param_axes, param_shapes, is_leaf=is_axes,
    )  # fmt: skip


def _kept(axes: tuple[str, ...], shape: tuple[int, ...], of: Any) -> tuple[Any, Any, Any]:
    """Return which of a parameter's sides ``of`` its row, column and full mean have, or None."""
    if not _is_factored(axes, shape):
        return None, None, of
    return of[:-1], (*of[:-2], of[-1]), None


def _is_factored(axes: tuple[str, ...], shape: tuple[int, ...]) -> bool:
    if len(axes) != len(shape):
        raise ValueError(f"{len(axes)} logical axes {axes} for a parameter of shape {shape}")
    matrix = shape[1:] if axes[0] == _LAYERS else shape
    if len(matrix) > 2:
        # Which two of three sides to factor over is a choice that Mesh TensorFlow and optax make
        # by size; no parameter of ours needs it.
        raise ValueError(f"parameters are vectors and matrices, got {axes} of shape {shape}")
    return len(matrix) == 2 and min(matrix) >= FACTORED_FROM


def _update_one(
    gradient: Array, moment: Moment, param: Array, decay: Array, rate: Array
) -> tuple[Array, Moment]:
    """Return the rule for one vector or matrix [in, out]."""
    squared = jnp.square(gradient) + _EPSILON_GRADIENT
    if moment.full is None:
        assert moment.row is not None
        assert moment.column is not None
        row = decay * moment.row + (1 - decay) * jnp.mean(squared, axis=1)
        column = decay * moment.column + (1 - decay) * jnp.mean(squared, axis=0)
        # The mean is estimated as row * column / mean(row); in this order nothing underflows.
        by_row = jax.lax.rsqrt(row / jnp.mean(row))
        step = gradient * by_row[:, None] * jax.lax.rsqrt(column)[None, :]
        moment = Moment(row, column, None)
    else:
        full = decay * moment.full + (1 - decay) * squared
        step = gradient * jax.lax.rsqrt(full)
        moment = Moment(None, None, full)
    step = step / jnp.maximum(1.0, _rms(step) / _CLIP_RMS)
    return -rate * jnp.maximum(_rms(param), _EPSILON_SCALE) * step, moment


def _rms(values: Array) -> Array:
    return jnp.sqrt(jnp.mean(jnp.square(values)))


def inverse_square_root(warmup: int = 10_000, scale: float = 1.0) -> Schedule:
    """Return ``scale / sqrt(max(step, warmup))``: constant until ``warmup``, no ramp.

    The paper's pre-training (section 3.1.2), with its linear decay at the end switched off as in
    ``learning_rate_schedules`` of the reference's settings.

    >>> float(inverse_square_root()(jnp.int32(0))), float(inverse_square_root(100)(jnp.int32(400)))
    (0.009999999776482582, 0.05000000074505806)
    """
    if warmup < 1:
        raise ValueError(f"warmup must be a positive number of steps, got {warmup} (--warmup)")
    _check_scale(scale)
    return lambda step: scale * jax.lax.rsqrt(jnp.maximum(step, warmup).astype(jnp.float32))


def constant(rate: float = FINE_TUNING_RATE) -> Schedule:
    """Return the same rate at every step: by default the paper's for fine-tuning (3.1.2).

    >>> float(constant(0.5)(jnp.int32(7)))
    0.5
    """
    _check_scale(rate)
    return lambda step: jnp.full((), rate, jnp.float32)


def linear_tail(rate: Schedule, steps: int, end: int) -> Schedule:
    """Return a schedule whose last steps go down linearly, to 0 at the step ``end``.

    Args:
      rate: the schedule before that.
      steps: length of the tail; with 0 it is ``rate``.
      end: the first step that is not trained any more.

    >>> tailed = linear_tail(constant(1.0), 4, 10)
    >>> [float(tailed(jnp.int32(step))) for step in (0, 6, 7, 9)]
    [1.0, 1.0, 0.75, 0.25]
    """
    if steps < 0:
        raise ValueError(f"cooldown must be at least 0 steps, got {steps} (--cooldown)")
    if steps == 0:
        return rate
    return lambda step: rate(step) * jnp.clip((end - step) / steps, 0.0, 1.0)


def _check_scale(scale: float) -> None:
    if not 0 < scale < float("inf"):
        raise ValueError(f"the learning rate must be positive, got {scale} (--learning-rate)")


#: Name to what makes the schedule from --learning-rate (None: the paper's) and --warmup.
SCHEDULES: Mapping[str, Callable[[float | None, int], Schedule]] = {
    "inverse-square-root": lambda scale, warmup: inverse_square_root(
        warmup, 1.0 if scale is None else scale
    ),
    "constant": lambda scale, _: constant(FINE_TUNING_RATE if scale is None else scale),
}


def schedule(
    name: str, scale: float | None = None, warmup: int = 10_000, offset: int = 0
) -> Schedule:
    """Return a schedule by its name, whose rate at a step is that of ``offset`` steps later.

    >>> float(schedule("inverse-square-root", None, 100, offset=300)(jnp.int32(100)))
    0.05000000074505806
    >>> schedule("constnt")
    Traceback (most recent call last):
        ...
    ValueError: no learning rate schedule 'constnt', perhaps 'constant'; known: \
inverse-square-root, constant
    """
    require_known("learning rate schedule", name, tuple(SCHEDULES), "known")
    rate = SCHEDULES[name](scale, warmup)
    return (lambda step: rate(step + offset)) if offset else rate
