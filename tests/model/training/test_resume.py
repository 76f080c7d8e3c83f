"""Runs that are stopped and go on, as processes of their own: nothing may show that they were."""

import os
import random
import signal
import subprocess
import time

import numpy as np
import psutil
import pytest

from model.tasks.prepared import prepare
from model.training.checkpoint_layout import newest_step
from model.training.metrics import read_rows
from model.training.model_folders import load_params

pytestmark = pytest.mark.slow

_STEPS = 120


def _wait_for_step(out, step, run):
    """Until metrics of that step are in the file."""
    path = out / "metrics.jsonl"
    _wait_until(lambda: path.exists() and path.read_text().count('"loss"') >= step, run)


def _wait_until(true, run):
    end = time.monotonic() + 240
    while time.monotonic() < end:
        if true():
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


def test_stopped_and_killed_runs_go_on_bit_for_bit(start_run, uninterrupted, tmp_path):
    out = tmp_path / "stopped"
    draw = random.Random(7)
    run = start_run(out)
    _wait_for_step(out, draw.randint(5, 40), run)
    run.send_signal(signal.SIGTERM)
    text, _ = run.communicate(timeout=120)
    assert run.returncode == 130, text
    assert "run the same command again" in text
    stopped_at = newest_step(out / "checkpoints")
    assert read_rows(out / "metrics.jsonl")[-1]["step"] == stopped_at  # where it was, not before

    run = start_run(out)
    _wait_for_step(out, stopped_at + draw.randint(5, 40), run)
    run.kill()
    run.communicate()

    run = start_run(out)
    text, _ = run.communicate(timeout=300)
    assert run.returncode == 0, text
    assert "resuming from step" in text
    assert _losses(out) == _losses(uninterrupted)
    _same_params(out, uninterrupted)
    assert (out / "loss.png").stat().st_size > 1000
    left = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert left == ["110", "120"]  # nothing half-written


def test_a_mixture_that_is_killed_goes_on_bit_for_bit(start_run, tmp_path):
    rows = [
        (split, {"sentence": f"the {who} sees the {what}", "label": len(what) % 2, "idx": 0})
        for split in ("train", "validation")
        for who in ("fox", "cat", "miller", "town")
        for what in ("clock", "boat", "letter")
    ]
    prepare("glue_cola", rows, tmp_path / "tasks", "x")
    mixture = [
        "--data",
        tmp_path / "tasks",
        "--tasks",
        "glue_cola",
        "--equal",
        "--eval-every",
        "60",
    ]

    def finished(out, *more):
        run = start_run(out, *map(str, mixture), *more)
        text, _ = run.communicate(timeout=300)
        assert run.returncode == 0, text
        return text

    assert "mixture: c4 0.5, glue_cola 0.5" in finished(tmp_path / "straight")
    run = start_run(tmp_path / "killed", *map(str, mixture))
    _wait_until((tmp_path / "killed" / "checkpoints" / "20").is_dir, run)
    run.kill()
    run.communicate()
    assert "resuming from step" in finished(tmp_path / "killed", "--workers", "1")
    assert _losses(tmp_path / "killed") == _losses(tmp_path / "straight")
    _same_params(tmp_path / "killed", tmp_path / "straight")
    rows = _losses(tmp_path / "killed")
    assert [row["step"] for row in rows if "validation/glue_cola/loss" in row] == [60, 120]


def test_the_straight_run_told_every_step(uninterrupted):
    rows = read_rows(uninterrupted / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, _STEPS + 1))
    assert [row["step"] for row in rows if "validation_loss" in row] == [25, 50, 75, 100, 120]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_a_log_that_nobody_reads_any_more_ends_no_training(start_run, tmp_path):
    reading, writing = os.pipe()
    run = start_run(
        tmp_path / "run", "--steps", "12", "--log-every", "1", stdout=writing,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(reading)
    os.close(writing)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 0, said
    assert said == (
        "c4: note: standard output cannot be written (Broken pipe): training goes on, "
        "metrics.jsonl has every step\n"
    )
    assert newest_step(tmp_path / "run" / "checkpoints") == 12


def test_a_disk_that_is_full_is_one_line(start_run, tmp_path):
    out = tmp_path / "run"
    run = start_run(out, stderr=subprocess.PIPE)
    _wait_for_step(out, 1, run)
    psutil.Process(run.pid).rlimit(psutil.RLIMIT_FSIZE, (50_000, 50_000))  # bytes of one file
    _, said = run.communicate(timeout=120)
    assert run.returncode == 1, said
    assert said.count("\n") == 1, said
    assert said.startswith(f"c4: error: {out / 'checkpoints'}: a checkpoint could not be written")
