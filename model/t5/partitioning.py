"""Where the network says what its activations' axes mean, for whoever lays them over devices."""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator

import jax

#: Names that `constrain` is called with: of activations, where those of parameters (see
#: `model.t5.network.T5.param_axes`) name weights. "embed_act" is the residual stream's width.
ACTIVATION_AXES = ("batch", "length", "embed_act", "heads", "kv", "mlp", "vocab")

#: Takes an activation and one name for each of its axes, None where an axis is never divided.
Constraint = Callable[[jax.Array, tuple[str | None, ...]], jax.Array]
#: Takes a shape and its axes' names; returns the shape of the part that one device has.
LocalShape = Callable[[tuple[int, ...], tuple[str | None, ...]], tuple[int, ...]]

_constraint: contextvars.ContextVar[tuple[Constraint, LocalShape] | None] = contextvars.ContextVar(
    "constraint", default=None
)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Apply the constraint in use to an activation; return the same array if there is none.

    Raises ValueError unless there is one name for each axis, all of them known.

    >>> import jax.numpy as jnp
    >>> constrain(jnp.zeros((2, 3)), "batch", "length").shape
    (2, 3)
    """
    _check_axes(x.shape, axes)
    used = _constraint.get()
    return x if used is None else used[0](x, axes)


def local_size(shape: tuple[int, ...], *axes: str | None) -> int:
    """Return how many numbers of an activation one device has under the constraint in use.

    Raises ValueError as `constrain` does.

    >>> local_size((2, 3), "batch", "length")
    6
    """
    _check_axes(shape, axes)
    used = _constraint.get()
    return math.prod(shape if used is None else used[1](shape, axes))


def is_axes(node: object) -> bool:
    """Return whether a node of a tree names the axes of an array; optimizer states do not."""
    return isinstance(node, tuple) and not hasattr(node, "_fields")


def _check_axes(shape: tuple[int, ...], axes: tuple[str | None, ...]) -> None:
    if len(axes) != len(shape) or any(name not in (*ACTIVATION_AXES, None) for name in axes):
        raise ValueError(
            f"constrain needs one of {', '.join(ACTIVATION_AXES)} or None for each axis of an "
            f"array of shape {shape}, got {axes}"
        )


@contextlib.contextmanager
def use_constraint(
    constraint: Constraint, local_shape: LocalShape = lambda shape, axes: shape
) -> Iterator[None]:
    """Apply a constraint to every activation of networks *traced* inside the block.

    `local_shape` tells how it divides an array; by default not at all.

    What `jax.jit` has traced before keeps what it was traced with: trace (call, or lower) the
    step inside the block.
    """
    token = _constraint.set((constraint, local_shape))
    try:
        yield
    finally:
        _constraint.reset(token)
