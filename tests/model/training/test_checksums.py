"""Checksums against a loop over the words, on devices and in NumPy."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.training.checksums import array_checksums, first_difference

_FLOATS = arrays.arrays(np.float32, arrays.array_shapes(min_side=0, max_dims=3, max_side=5))


@given(_FLOATS)
def test_the_sum_of_all_words(array):
    total = 0
    for word in np.frombuffer(array.tobytes(), "<u4"):
        total = (total + int(word)) % 2**32
    assert array_checksums([array]) == {"0": total}
    assert array_checksums([array.T]) == {"0": total}


@given(_FLOATS.filter(lambda array: array.size > 0), st.data())
def test_any_bit(array, data):
    flipped = array.copy()
    flipped.view(np.uint32).flat[data.draw(st.integers(0, array.size - 1))] ^= np.uint32(
        1 << data.draw(st.integers(0, 31))
    )
    assert array_checksums(flipped[None]) != array_checksums(array[None])


@pytest.mark.parametrize("kind", [np.float32, ml_dtypes.bfloat16])
def test_devices_and_numpy_agree_however_arrays_are_divided(kind):
    array = np.random.default_rng(0).normal(size=(16, 24)).astype(kind)
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))
    wanted = array_checksums({"x": {"y": array}})
    assert list(wanted) == ["x/y"]
    for spec in (PartitionSpec(), PartitionSpec("a", "b"), PartitionSpec(None, ("b", "a"))):
        placed = jax.device_put(jnp.asarray(array), NamedSharding(mesh, spec))
        assert array_checksums({"x": {"y": placed}}) == wanted


def test_the_first_that_differs():
    assert first_difference({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}) is None
    assert first_difference({"a": 1, "b": 2}, {"a": 1}) == "b"
    assert first_difference({"a": 1}, []) == "all"
