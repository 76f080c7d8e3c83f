"""JAX for tests: eight devices of the CPU, and no silent broadcasting between ranks."""

import os

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
_FLAG = "--xla_force_host_platform_device_count=8"
if "jax" not in __import__("sys").modules:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}".strip()


@pytest.fixture(autouse=True)
def _strict_jax():
    jax = pytest.importorskip("jax", reason="the train extra is not installed")
    with jax.numpy_rank_promotion("raise"):
        yield
