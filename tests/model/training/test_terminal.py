"""Progress on a terminal and in a log."""

import contextlib
import io
import os
import pty
import termios

import pytest

from model.training import terminal as module
from model.training.terminal import Terminal


def _row(step, loss=2.0):
    return {
        "step": step, "loss": loss, "accuracy": 0.5, "seconds": 2.0, "tokens_per_s": 1234.0,
        "data_wait_fraction": 0.0, "learning_rate": 0.01, "epoch": 0.25,
    }  # fmt: skip


#: As long as a line gets: the paper's steps, a loss of five digits, a run of days.
_WIDE = {
    **_row(424_288, 10.123), "learning_rate": 0.00138, "epoch": 12.34, "tokens_per_s": 123_456.0,
    "seconds": 10.0, "mfu": 0.5, "data_wait_fraction": 0.5,
}  # fmt: skip


def test_a_log_gets_lines():
    stream = io.StringIO()
    terminal = Terminal(0, 10, stream=stream)
    terminal.line(_row(5))
    terminal.line({**_row(6), "mfu": 0.41, "data_wait_fraction": 0.25})
    terminal.close()
    first = "loss 2.000  lr 0.01  epoch 0.25  1.23k tok/s"
    assert stream.getvalue().splitlines() == [
        f"step  5/10  {first}  eta 10s",
        f"step  6/10  {first}  eta 8s",
    ]


def test_a_line_has_all_that_matters_within_80_columns():
    stream = io.StringIO()
    Terminal(0, 524_288, stream=stream).line(_WIDE)
    line = stream.getvalue().rstrip("\n")
    assert line == (
        "step 424288/524288  loss 10.123  lr 0.00138  epoch 12.34  123k tok/s  eta 11d13h"
    )
    assert len(line) == 80


def test_the_time_left_is_by_the_clock_evaluations_included(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    terminal = Terminal(0, 10, stream=stream)
    terminal.step(_row(1))
    now[0] += 30.0
    terminal.step(_row(4))
    terminal.line(_row(4))
    assert stream.getvalue().endswith("eta 1m00s\n")


@pytest.mark.parametrize(("columns", "shown"), [(60, "eta"), (80, "epoch"), (120, "mfu")])
def test_a_bar_fits_its_terminal_and_has_ten_cells(columns, shown):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    with open(theirs, "w") as stream:
        terminal = Terminal(0, 524_288, stream=stream)
        terminal.step(_WIDE)
        terminal.line(_WIDE)  # says nothing more
        terminal.say("a line")
        terminal.close()
    written = b""
    with contextlib.suppress(OSError):  # all is read, which comes in pieces
        while data := os.read(ours, 65536):
            written += data
    os.close(ours)
    said = written.decode()
    drawn = [part for part in said.replace("\n", "\r").split("\r") if "%|" in part]
    assert drawn
    assert "a line" in said
    assert "step 4" not in said
    for bar in drawn:
        assert len(bar) <= columns
        cells = bar.partition("|")[2].partition("|")[0]
        assert len(cells) >= 9  # tqdm leaves the last column free
        assert "424288/524288  loss 10.123" in bar
        assert shown in bar


def test_quiet_is_quiet():
    stream = io.StringIO()
    terminal = Terminal(0, 10, stream=stream, quiet=True)
    terminal.step(_row(1))
    terminal.line(_row(1))
    terminal.say("a line")
    terminal.close()
    assert stream.getvalue() == ""


def test_a_terminal_that_is_full_is_left_alone(capsys):
    with open("/dev/full", "w") as stream:
        terminal = Terminal(0, 10, stream=stream)
        terminal.say("a line")
        terminal.line(_row(1))
        terminal.close()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "standard output cannot be written (No space left on device): training goes on" in said


def test_a_bar_on_a_terminal_that_is_closed(capsys):
    class Closed(io.StringIO):
        def isatty(self):
            return True

        def write(self, text):
            raise OSError(32, "Broken pipe")

        def fileno(self):
            raise OSError("no file")

    terminal = Terminal(0, 10, stream=Closed())
    for step in range(1, 4):
        terminal.step(_row(step))
        terminal.say("a line")
    terminal.close()
    assert capsys.readouterr().err.count("\n") == 1
