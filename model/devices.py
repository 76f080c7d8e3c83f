"""Which accelerators this machine has, before JAX looks for them."""

import importlib.util
import os
from pathlib import Path

import jax

_GOOGLE_PCI_VENDOR = "0x1ae0"
_GPU_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin")


def has_tpu() -> bool:
    """Whether there is a TPU and the library that drives it (the extra ``tpu``)."""
    if importlib.util.find_spec("libtpu") is None:
        return False
    return any(
        path.read_text().strip() == _GOOGLE_PCI_VENDOR
        for path in Path("/sys/bus/pci/devices").glob("*/vendor")
    )


def pass_over_absent_tpus() -> None:
    """Make JAX run on the CPU where libtpu is installed for ``--compile-only`` alone.

    JAX would ask libtpu for TPUs first, which prints a screen of warnings before it gives up. Call
    this before anything asks JAX for devices. Changes nothing where JAX_PLATFORMS or
    ``jax_platforms`` says what to use, or where there may be a GPU.
    """
    if os.environ.get("JAX_PLATFORMS") or getattr(jax.config, "jax_platforms", None) or has_tpu():
        return
    if importlib.util.find_spec("libtpu") is None:
        return
    if any(importlib.util.find_spec(plugin) for plugin in _GPU_PLUGINS):
        return
    jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]
