"""JAX for tests: no silent broadcasting between ranks; and a server that stands for ``gs://``."""

import pytest

from testing.fake_google_cloud import fake_google_cloud


@pytest.fixture(autouse=True)
def _strict_jax():
    jax = pytest.importorskip("jax", reason="the train extra is not installed")
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def cloud(monkeypatch):
    pytest.importorskip("obstore", reason="needs the extra gcp")
    with fake_google_cloud() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
        yield server
        assert server.refused == []
