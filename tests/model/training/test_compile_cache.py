"""Programs that a run's next start takes from its folder."""

import types

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from model.training import compile_cache
from testing.helpers import run_c4


@pytest.fixture
def hits(monkeypatch):
    """Count the programs that were found. Every program is kept, however fast it compiles."""
    settings = {**compile_cache._SETTINGS, "jax_persistent_cache_min_compile_time_secs": 0}
    monkeypatch.setattr(compile_cache, "_SETTINGS", settings)
    seen = []

    def see(event, **_):
        if event == "/jax/compilation_cache/cache_hits":
            seen.append(event)

    jax.monitoring.register_event_listener(see)
    yield seen
    jax.monitoring.unregister_event_listener(see)


def compiled(run, number):
    with compile_cache.compile_cache(run):
        jax.clear_caches()
        jax.jit(lambda x: x * number).lower(1.0).compile()


def test_a_program_is_compiled_once_in_a_folder(hits, tmp_path):
    before = dict(jax.config.values)
    compiled(tmp_path, 3.0)
    assert len(hits) == 0
    compiled(tmp_path, 3.0)
    assert len(hits) == 1
    compiled(tmp_path, 4.0)
    compiled(tmp_path / "other", 3.0)
    assert len(hits) == 1
    assert dict(jax.config.values) == before


def test_programs_for_another_cpu_are_not_taken(hits, tmp_path, monkeypatch):
    compiled(tmp_path, 3.0)
    monkeypatch.setattr(compile_cache, "_cpu", lambda: "other")
    compiled(tmp_path, 3.0)
    assert len(hits) == 0


def test_a_cache_of_the_users_own_is_left_alone(tmp_path, quick_xla):
    compiled(tmp_path / "run", 3.0)
    assert not (tmp_path / "run").exists()


def test_a_damaged_program_is_compiled_again(hits, tmp_path):
    compiled(tmp_path, 3.0)
    for path in tmp_path.rglob("*-cache"):
        path.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="persistent compilation cache"):
        compiled(tmp_path, 3.0)


@pytest.mark.slow
def test_a_second_start_does_not_compile(material, quick_xla, hits, tmp_path):
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    found = types.SimpleNamespace(first=0, second=0)
    for name, steps in (("first", 1), ("second", 2)):
        jax.clear_caches()
        hits.clear()
        done = run_c4(
            "pretrain", "--corpus", material.corpus, "--vocab", material.vocab, "--out",
            tmp_path / "run", "--size", "tiny", "--set", "d_model=32", "--set", "num_layers=1",
            "--input-length", "32", "--batch-size", "8", "--workers", "0", "--quiet",
            "--eval-every", "0", "--steps", str(steps),
        )  # fmt: skip
        assert done.status == 0, done.err
        setattr(found, name, len(hits))
    assert found.first == 0
    assert found.second == 1
