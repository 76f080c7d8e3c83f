"""An interrupt before the first step ends a run at once, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from model.training.run_folder import RunFolder
from model.training.stop_signal import interruptible
from testing.material import _ROOT

#: The shipped command, whose compiler takes a minute.
_SLOW_COMPILER = """
import signal, sys, time
import jax
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs begin without
from pipelines.c4_main import main
jax.stages.Lowered.compile = lambda *_: time.sleep(60)
sys.exit(main())
"""


def test_a_call_gives_what_it_returns_or_raises():
    assert interruptible(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 / 0)


def _interrupted_while_compiling(material, out, number):
    run = subprocess.Popen(
        [
            sys.executable, "-c", _SLOW_COMPILER, "pretrain", "--corpus", material.corpus,
            "--vocab", material.vocab, "--out", str(out), "--size", "tiny", "--set", "d_model=32",
            "--set", "d_ff=64", "--set", "d_kv=8", "--set", "num_layers=1", "--batch-size", "4",
            "--input-length", "32", "--checkpoint-every", "10", "--steps", "240", "--workers", "2",
        ],
        cwd=_ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
    )  # fmt: skip
    for line in run.stdout:
        if line.startswith("compiling "):
            break
    time.sleep(1)  # well into it
    children = psutil.Process(run.pid).children(recursive=True)
    began = time.monotonic()
    run.send_signal(number)
    said, _ = run.communicate(timeout=50)
    assert time.monotonic() - began < 5  # 0.8 s are asked for; the machine may be busy
    assert run.returncode == 130
    assert not [child for child in children if child.is_running() and child.status() != "zombie"]
    with RunFolder(out).locked():  # raises where somebody has the lock
        pass
    return said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_compilation_saves_nothing_and_says_so(material, tmp_path, number):
    said = _interrupted_while_compiling(material, tmp_path / "run", number)
    assert said == "\nc4: interrupted before the first step: nothing was saved\n"


@pytest.mark.slow
def test_an_interrupt_before_going_on_names_the_checkpoint(material, tmp_path):
    _interrupted_while_compiling(material, tmp_path / "run", signal.SIGINT)
    for item in ("params", "optimizer", "progress", "checksums"):  # nobody comes to read them
        (tmp_path / "run" / "checkpoints" / "10" / item).mkdir(parents=True)
    said = _interrupted_while_compiling(material, tmp_path / "run", signal.SIGINT)
    assert said == (
        "\nc4: interrupted before the first step: the checkpoint of step 10 is still good\n"
    )
