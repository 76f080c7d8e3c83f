"""Checksums of arrays, the same however they are divided over devices, or in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt


def array_checksums(tree: Any) -> dict[str, int]:
    """Return the sum of the bits of each array, read as unsigned integers, modulo 2**32.

    Integers sum to the same in every order, and any one bit that flips changes the sum. Takes a
    tree of NumPy arrays or of jax arrays (then computed where they are), of 2 or 4 bytes an
    element; keys are their paths. On several processes all call this.

    >>> array_checksums({"a": np.float32([1.0, -0.0]), "b": {"c": np.float32([])}})
    {'a': 3212836864, 'b/c': 0}
    """
    leaves = named_leaves(tree)
    on_devices = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, jax.Array)}
    sums = jax.device_get(_sums(on_devices)) if on_devices else {}
    return {
        name: int(sums[name]) if name in sums else _numpy_sum(leaf) for name, leaf in leaves.items()
    }


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by their paths, joined by slashes."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def first_difference(found: dict[str, int], stored: Any) -> str | None:
    """Return the first array whose checksum differs, or None. ``stored`` comes from a file."""
    if not isinstance(stored, dict):
        return "all"
    return next((name for name in found if found[name] != stored.get(name)), None)


@jax.jit
def _sums(leaves: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {
        name: jnp.sum(
            jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{leaf.dtype.itemsize * 8}")),
            dtype=jnp.uint32,
        )
        for name, leaf in leaves.items()
    }


def _numpy_sum(leaf: npt.NDArray[Any]) -> int:
    bits = np.ascontiguousarray(leaf).view(f"u{leaf.dtype.itemsize}")
    return int(np.sum(bits, dtype=np.uint64)) % 2**32
