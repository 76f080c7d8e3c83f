"""JAX for tests: no silent broadcasting between ranks."""

import pytest


@pytest.fixture(autouse=True)
def _strict_jax():
    jax = pytest.importorskip("jax", reason="the train extra is not installed")
    with jax.numpy_rank_promotion("raise"):
        yield
