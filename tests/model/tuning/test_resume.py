"""A fine-tuning killed at random steps, as processes of their own: nothing may show that it was."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time

import pytest

from model.training.checkpoint_layout import newest_step
from model.training.metrics import read_rows
from testing.material import material
from tests.model.tuning.own_task import write_pairs

__all__ = ["material"]

pytestmark = pytest.mark.slow

_COMMAND = "import sys; from pipelines.c4_main import main; sys.exit(main())"
_CLOCKS = ("seconds", "tokens_per_s", "data_wait_fraction")


@pytest.fixture
def start(material, tmp_path):
    """Start a process of ``c4 finetune`` from new parameters, whose scores vary much."""
    pairs = write_pairs(tmp_path / "own.tsv", 300)
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": material.cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

    def run(out):
        command = [
            sys.executable, "-c", _COMMAND,
            "finetune", "--task", pairs, "--out", out, "--vocab", material.vocab, "--size", "tiny",
            "--set", "d_model=32", "--set", "d_ff=64", "--set", "d_kv=8", "--set", "num_layers=1",
            "--steps", "60", "--batch-size", "8", "--input-length", "16", "--dropout", "0.1",
            "--learning-rate", "0.02", "--seed", "3", "--workers", "0",
            "--checkpoint-every", "10", "--eval-every", "6", "--eval-batches", "1",
            "--keep-last", "2", "--report-to", "none",
        ]  # fmt: skip
        return subprocess.Popen(
            list(map(str, command)), env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    return run


def _finish(process):
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    return text


def _kill_after(process, out, step):
    end = time.monotonic() + 240
    while time.monotonic() < end:
        path = out / "metrics.jsonl"
        if path.exists() and path.read_text().count('"loss"') >= step:
            process.kill()
            process.communicate()
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)
    raise TimeoutError


def _rows(out):
    return [
        {name: value for name, value in row.items() if name not in _CLOCKS}
        for row in read_rows(out / "metrics.jsonl")
    ]


def _digests(folder):
    """Checksums of the arrays, and the record: bytes of OCDBT files are not those of arrays."""
    names = ("checksums.json", "score.json", "model.json", "vocabulary.model")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def test_a_killed_fine_tuning_ends_as_one_that_was_not(start, tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    _finish(start(straight))
    draw = random.Random(11)
    _kill_after(start(killed), killed, draw.randint(22, 45))
    text = _finish(start(killed))
    assert "resuming from step" in text
    assert _rows(killed) == _rows(straight)
    record = json.loads((straight / "best.json").read_text())
    assert json.loads((killed / "best.json").read_text()) == record
    assert _digests(killed / "best" / "own") == _digests(straight / "best" / "own")
    scores = [row["validation/own/accuracy"] for row in _rows(straight) if "validation_loss" in row]
    assert record["own"]["value"] == max(scores)
    assert len(set(scores)) > 2, "scores that do not change prove little"
    assert newest_step(killed / "checkpoints") == 60
