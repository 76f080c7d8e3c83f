"""Where the network says what its activations' axes mean, for whoever lays them over devices."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax

__all__ = ["ACTIVATION_AXES", "Constraint", "constrain", "use_constraint"]

#: Names that `constrain` is called with: of activations, where those of parameters (see
#: `model.t5.network.T5.param_axes`) name weights. "embed_act" is the residual stream's width.
ACTIVATION_AXES = ("batch", "length", "embed_act", "heads", "kv", "mlp", "vocab")

#: Takes an activation and one name for each of its axes, None where an axis is never divided.
Constraint = Callable[[jax.Array, tuple[str | None, ...]], jax.Array]

_constraint: contextvars.ContextVar[Constraint | None] = contextvars.ContextVar(
    "constraint", default=None
)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Hands an activation to the constraint in use; the same array where there is none.

    Raises ValueError unless there is one name for each axis, all of them known.

    >>> import jax.numpy as jnp
    >>> constrain(jnp.zeros((2, 3)), "batch", "length").shape
    (2, 3)
    """
    if len(axes) != x.ndim or any(name not in (*ACTIVATION_AXES, None) for name in axes):
        raise ValueError(
            f"constrain needs one of {', '.join(ACTIVATION_AXES)} or None for each axis of an "
            f"array of shape {x.shape}, got {axes}"
        )
    constraint = _constraint.get()
    return x if constraint is None else constraint(x, axes)


@contextlib.contextmanager
def use_constraint(constraint: Constraint) -> Iterator[None]:
    """Apply a constraint to every activation of networks *traced* inside the block.

    What `jax.jit` has traced before keeps what it was traced with: trace (call, or lower) the
    step inside the block.
    """
    token = _constraint.set(constraint)
    try:
        yield
    finally:
        _constraint.reset(token)
