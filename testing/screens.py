"""What commands show on a terminal of 80 × 24."""

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from unittest import mock

from pipelines import c4_main, printing

COLUMNS, ROWS = 80, 24


def on_a_screen(*command: str) -> list[str]:
    """What a command leaves on an empty screen of 80 × 24."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    written = b""
    with subprocess.Popen(
        [sys.executable, "-m", "pipelines.c4_main", *command],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(theirs)
        while True:
            try:
                data = os.read(ours, 1 << 16)
            except OSError:  # the other end is closed
                break
            written += data
    os.close(ours)
    assert process.returncode == 0, written
    text = re.sub(r"\x1b\[[\dA-Za-z;]*m", "", written.decode())
    return [line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n")]


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_on_a_screen(*command: str | os.PathLike[str]) -> list[str]:
    """What a command of this process prints on standard output, with all lines that are fitted."""
    with (
        contextlib.redirect_stdout(_Screen()) as out,
        contextlib.redirect_stderr(_Screen()),
        mock.patch.dict(os.environ, {"COLUMNS": str(COLUMNS), "NO_COLOR": "1"}),
    ):
        assert c4_main.main([os.fspath(word) for word in command]) == 0
    return out.getvalue().splitlines()


def wide(lines: list[str]) -> list[str]:
    """Lines beyond the screen, but for those that end in a word which fits no line."""
    return [
        line
        for line in lines
        if printing.cells(line) > COLUMNS > 30 + printing.cells(line.rpartition(" ")[2])
    ]
