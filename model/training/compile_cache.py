"""Compiled programs that a run keeps in its folder, so that its next start need not compile."""

import contextlib
import hashlib
import os
import pathlib
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

FOLDER = "compiled"
_SETTINGS: Mapping[str, Any] = {
    "jax_persistent_cache_min_compile_time_secs": 0.5,
    "jax_persistent_cache_min_entry_size_bytes": 0,
}


@contextlib.contextmanager
def compile_cache(run: pathlib.Path) -> Iterator[None]:
    """Keep what is compiled in the block in the folder of a run, and take from there what fits.

    JAX compares everything that a program depends on, apart from the instructions that a CPU has:
    programs for CPUs are kept apart by those. A cache that the user has set up (the variable
    JAX_COMPILATION_CACHE_DIR) is used instead.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        yield
        return
    folder = run / FOLDER
    if jax.default_backend() == "cpu":
        folder /= _cpu()
    wanted = {"jax_compilation_cache_dir": os.fspath(folder), **_SETTINGS}
    before = {name: getattr(jax.config, name) for name in wanted}
    _set(wanted)
    try:
        yield
    finally:
        _set(before)


def _set(settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)  # type: ignore[no-untyped-call]
    compilation_cache.reset_cache()  # JAX looks at its settings once


def _cpu() -> str:
    """Return a name for this machine's kind of CPU: same name, same instructions."""
    lines = {platform.machine()}
    with contextlib.suppress(OSError):
        text = pathlib.Path("/proc/cpuinfo").read_text("ascii", "replace")
        names = ("model name", "flags", "Features", "CPU part")
        lines |= {line for line in text.splitlines() if line.startswith(names)}
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
