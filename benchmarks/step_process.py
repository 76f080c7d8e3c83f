"""A training step in a process of its own, run once for each request: ours, or a peer's.

Two frameworks in one process would share its memory and, on a GPU, the card. `serve` is the
process's side, `StepProcess` the side of the caller that times it. Imports neither JAX nor PyTorch.
"""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]

_MARK = "STEP "  # begins the lines of the protocol; libraries may print others


class MissingError(SystemExit):
    """The process lacks a package; one line that says how to install it. Ends the program."""


def interpreter(python: str) -> str:
    """Return the path of an interpreter from wherever a process is started."""
    return os.path.abspath(shutil.which(python) or python)


def make_batch(vocab_size: int, rows: int, inputs: int, targets: int) -> dict[str, np.ndarray]:
    """Return a batch [rows, inputs or targets] of random tokens, without padding."""
    random = np.random.default_rng(0)
    encoder = random.integers(2, vocab_size, (rows, inputs), np.int32)
    decoder = random.integers(2, vocab_size, (rows, targets), np.int32)
    return {
        "encoder_tokens": encoder,
        "encoder_segments": np.ones_like(encoder),
        "decoder_input_tokens": np.pad(decoder, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": decoder,
        "decoder_segments": np.ones_like(decoder),
        "loss_weights": np.ones_like(decoder, np.float32),
    }


def send(**message: Any) -> None:
    print(_MARK + json.dumps(message), flush=True)


def serve(run: Callable[[], float], memory: Callable[[], float], **about: Any) -> None:
    """Run one step to compile it, then one for each line of standard input.

    Args:
      run: one whole step; returns its loss.
      memory: returns the most device memory used so far, in GB.
      about: what the first message says about this process.
    """
    send(**about, **_timed(run), peak_gb=memory())
    for _ in sys.stdin:
        send(**_timed(run), peak_gb=memory())


@contextlib.contextmanager
def telling_missing() -> Iterator[None]:
    """Tell the caller's side which package the block cannot import."""
    try:
        yield
    except ModuleNotFoundError as error:
        send(missing=error.name)


def _timed(run: Callable[[], float]) -> dict[str, float]:
    start = time.perf_counter()
    loss = run()
    return {"seconds": time.perf_counter() - start, "loss": loss}


class StepProcess:
    """A process that runs `serve`; a context that ends it.

    Args:
      command: what to run, in the root of the checkout.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.name = command[0]
        self.about: dict[str, Any] = {}  #: what it reported about itself and its first step
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:  # it may be in the middle of a long step
            self._process.kill()
        self.close()

    def close(self) -> None:
        """End the process; safe to call more than once."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate()

    def start(self) -> None:
        """Wait for the first step, which compiles.

        Raises MissingError if the process lacks a package, ValueError if it ends before.
        """
        self.about = self._receive("before its first step")
        if "missing" in self.about:
            raise MissingError(
                f"{self.name} has no {self.about['missing']}: "
                f"{self.name} -m pip install torch transformers"
            )

    def step(self) -> dict[str, float]:
        """Run one step and return its "seconds", "loss" and "peak_gb"."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # _receive finds the end of its output
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return self._receive("during a step")

    def _receive(self, when: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(_MARK):
                message: dict[str, Any] = json.loads(line.removeprefix(_MARK))
                if not np.isfinite(message.get("loss", 0)):
                    raise ValueError(f"{self.name}: the loss is {message['loss']}")
                return message
        raise ValueError(f"{self.name} ended {when}: see its message above")


def fastest(processes: Mapping[str, StepProcess], repeat: int) -> dict[str, float]:
    """Return the seconds of each process's fastest step; they take turns."""
    turns = [
        {name: process.step()["seconds"] for name, process in processes.items()}
        for _ in range(repeat)
    ]
    return {name: min(turn[name] for turn in turns) for name in processes}
