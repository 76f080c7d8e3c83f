"""Runs that are stopped and go on, as processes of their own: nothing may show that they were."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from model.training.checkpoints import load_params, newest_step
from model.training.metrics import read_rows

_ROOT = pathlib.Path(__file__).resolve().parents[3]
_STEPS = 120
# The shipped command, and at its end what it has imported that it should not.
_COMMAND = """
import sys
from pipelines.c4_main import main
status = main(sys.argv[1:])
print("imported:", *sorted({"tensorflow", "apache_beam", "torch"} & set(sys.modules)))
sys.exit(status)
"""


@pytest.fixture(scope="module")
def command(material):
    """Makes the command of a run; the environment goes with it."""

    def make(out, *more):
        return [
            sys.executable, "-c", _COMMAND, "pretrain",
            "--corpus", material.corpus, "--vocab", material.vocab, "--out", str(out),
            "--size", "tiny", "--set", "d_model=32", "--set", "d_ff=64", "--set", "d_kv=8",
            "--set", "num_layers=1", "--input-length", "32", "--batch-size", "4",
            "--steps", str(_STEPS), "--checkpoint-every", "10", "--eval-every", "25",
            "--eval-batches", "1", "--keep-last", "2", "--workers", "0", *more,
        ]  # fmt: skip

    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": material.cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

    def start(out, *more):
        return subprocess.Popen(
            make(out, *more), cwd=_ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    return start


@pytest.fixture(scope="module")
def uninterrupted(command, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "straight"
    run = command(out)
    text, _ = run.communicate(timeout=300)
    assert run.returncode == 0, text
    assert text.endswith("\nimported:\n")
    return out


def _wait_for_step(out, step, run):
    """Until metrics of that step are in the file."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        path = out / "metrics.jsonl"
        if path.exists() and path.read_text().count('"loss"') >= step:
            return
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.002)
    raise TimeoutError


def _losses(out):
    """All that must not change: not how long a step took."""
    clocks = ("seconds", "tokens_per_s", "data_wait_fraction")
    return [
        {name: value for name, value in row.items() if name not in clocks}
        for row in read_rows(out / "metrics.jsonl")
    ]


def _same_params(one, other):
    import jax

    for a, b in zip(
        jax.tree.leaves(load_params(one).params),
        jax.tree.leaves(load_params(other).params),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_stopped_and_killed_runs_go_on_bit_for_bit(command, uninterrupted, tmp_path):
    out = tmp_path / "stopped"
    draw = random.Random(7)
    run = command(out)
    _wait_for_step(out, draw.randint(5, 40), run)
    run.send_signal(signal.SIGTERM)
    text, _ = run.communicate(timeout=120)
    assert run.returncode == 130, text
    assert "run the same command again" in text
    stopped_at = newest_step(out / "checkpoints")
    assert read_rows(out / "metrics.jsonl")[-1]["step"] == stopped_at  # where it was, not before

    run = command(out)
    _wait_for_step(out, stopped_at + draw.randint(5, 40), run)
    run.kill()
    run.communicate()

    run = command(out)
    text, _ = run.communicate(timeout=300)
    assert run.returncode == 0, text
    assert "going on from step" in text
    assert _losses(out) == _losses(uninterrupted)
    _same_params(out, uninterrupted)
    assert (out / "loss.png").stat().st_size > 1000
    left = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert left == ["110", "120"]  # nothing half-written


def test_the_straight_run_told_every_step(uninterrupted):
    rows = read_rows(uninterrupted / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, _STEPS + 1))
    assert [row["step"] for row in rows if "validation_loss" in row] == [25, 50, 75, 100, 120]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
