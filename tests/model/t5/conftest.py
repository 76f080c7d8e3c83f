"""Shared by the tests of the network."""

import pytest

from model.t5 import attention
from testing.material import material, quick_xla

__all__ = ["cuda", "material", "quick_xla"]


@pytest.fixture
def cuda(monkeypatch):
    """Lower attention as on a GPU, where cuDNN's kernel is."""
    import jax._src.cudnn.fused_attention_stablehlo as cudnn

    monkeypatch.setattr(attention, "_on_cuda", lambda: True)
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
