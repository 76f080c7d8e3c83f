"""Progress of a run on a terminal or in a log."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from tqdm import tqdm

from model.training.metrics import Row
from pipelines.printing import columns_of, duration, fitted, print_note

_WIDTH = 80  # columns that a line of the log fits
_BAR = 10  # cells of the bar, at least


class Terminal:
    """Shows a bar on a terminal or lines in a log, and nothing if quiet.

    A closed terminal, or a log on a full disk, does not stop the training: a line on standard error
    says so, and nothing more is written.
    """

    def __init__(
        self, done: int, steps: int, *, stream: TextIO | None = None, quiet: bool = False
    ) -> None:
        self._done, self._steps, self._quiet = done, steps, quiet
        self._stream = sys.stdout if stream is None else stream
        self._on_terminal = self._stream.isatty()
        self._bar: Any = None
        self._first: tuple[int, float] | None = None  # step, and when it was done

    def step(self, row: Row) -> None:
        """Move the bar, which appears with the first step."""
        if self._first is None:
            self._first = row["step"], time.monotonic()
        if self._quiet or not self._on_terminal:
            return
        with self._while_it_lasts():
            room = (columns_of(self._stream) or _WIDTH) - len("100%|| ") - _BAR
            said = _what_fits(self._counted(row), self._parts(row), room)
            shape = f"{{percentage:3.0f}}%|{{bar}}| {said}"
            if self._bar is None:
                self._bar = tqdm(
                    total=self._steps,
                    initial=self._done,
                    file=self._stream,
                    dynamic_ncols=True,
                    bar_format=shape,
                )
            self._bar.bar_format = shape
            self._bar.update()

    def line(self, row: Row) -> None:
        """Write a row to a log; a bar says it already."""
        if not self._on_terminal:
            self.say(_what_fits(f"step {self._counted(row)}", self._parts(row), _WIDTH))

    def _counted(self, row: Row) -> str:
        return f"{row['step']:{len(str(self._steps))}}/{self._steps}"

    def _parts(self, row: Row) -> list[tuple[int, str]]:
        """Return what to say of a row, each part with its rank: the first to go has the largest."""
        parts = [
            (0, f"loss {row['loss']:.3f}"),
            (4, f"lr {row['learning_rate']:.3g}"),
            (3, f"epoch {_passes(row['epoch'])}"),
            (2, f"{tqdm.format_sizeof(row['tokens_per_s'])} tok/s"),
            (1, f"eta {duration(self._seconds_left(row))}"),
        ]
        if row["data_wait_fraction"] >= 0.01:
            parts.append((5, f"wait {row['data_wait_fraction']:.0%}"))
        if "mfu" in row:
            parts.append((6, f"mfu {row['mfu']:.0%}"))
        return parts

    def _seconds_left(self, row: Row) -> float:
        first, began = self._first or (row["step"], 0.0)
        steps = row["step"] - first
        each = (time.monotonic() - began) / steps if steps else row["seconds"]
        return float(each * (self._steps - row["step"]))

    def say(self, line: str) -> None:
        """Write any line, above the bar where there is one."""
        if self._quiet:
            return
        with self._while_it_lasts():
            if self._bar is not None:
                tqdm.write(fitted(line, stream=self._stream), file=self._stream)
            else:
                print(fitted(line, stream=self._stream), file=self._stream, flush=True)

    def close(self) -> None:
        """Close the bar and leave it on the screen."""
        if self._bar is not None:
            with self._while_it_lasts():
                self._bar.close()

    @contextlib.contextmanager
    def _while_it_lasts(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._quiet = True
            if self._bar is not None:
                self._bar.disable = True
            # tqdm keeps its lock when a write fails: other threads' bars would wait for ever.
            tqdm.set_lock(threading.RLock())
            with contextlib.suppress(OSError):  # it holds what could not be written, and would try
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)
            with contextlib.suppress(OSError):
                print_note(
                    f"c4: note: standard output cannot be written ({error.strerror}): training "
                    "goes on, metrics.jsonl has every step"
                )


def _what_fits(head: str, parts: Sequence[tuple[int, str]], width: int) -> str:
    """Return a line of at most ``width`` characters: the parts of the largest ranks go first.

    Parts count as ten characters if they are shorter, so that the choice seldom changes.

    >>> _what_fits("1/9", [(0, "loss 2.000"), (2, "lr 0.01"), (1, "eta 5s")], 36)
    '1/9  loss 2.000  eta 5s'
    """
    kept = list(parts)
    while kept and len(head) + sum(2 + max(10, len(text)) for _, text in kept) > width:
        kept.remove(max(kept))
    return "  ".join([head, *(text for _, text in kept)])


def _passes(epoch: float) -> str:
    return f"{epoch:.2f}" if epoch < 100 else tqdm.format_sizeof(epoch)
