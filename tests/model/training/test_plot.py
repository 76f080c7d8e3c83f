"""The picture of a run's losses."""

import os
import struct
import subprocess
import sys

import pytest

from model.training.plot import plot_losses, smoothed, sparkline


def _rows(count):
    rows = [{"step": step, "loss": 10 / step} for step in range(1, count + 1)]
    return [*rows, {"step": count, "validation_loss": 1.0}]


@pytest.mark.parametrize("count", [1, 50, 5000])
def test_a_picture(tmp_path, count):
    plot_losses(_rows(count), tmp_path / "loss.png", "a run")
    head = (tmp_path / "loss.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:]) == (960, 600)


def test_a_step_without_a_loss_is_left_out(tmp_path):
    plot_losses([*_rows(5), {"step": 6, "loss": None}], tmp_path / "loss.png")
    assert (tmp_path / "loss.png").exists()


def test_no_losses_no_picture(tmp_path):
    plot_losses([], tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()


@pytest.mark.parametrize(
    ("losses", "width", "line"),
    [
        ([], 5, ""),
        ([2.0], 5, "▁"),
        ([2.0, 2.0], 5, "▁▁"),
        ([float("nan"), 2.0, 1.0], 5, "█▁"),
        (list(range(80, 0, -1)), 8, "█▇▆▅▄▃▂▁"),
    ],
)
def test_sparklines(losses, width, line):
    assert sparkline(losses, width) == line


def test_smoothing_against_slices():
    values = [float((7 * k) % 13) for k in range(40)]
    for window in (1, 3, 40):
        wanted = [
            sum(values[max(0, k + 1 - window) : k + 1]) / min(k + 1, window) for k in range(40)
        ]
        assert smoothed(values, window) == pytest.approx(wanted)


@pytest.mark.slow
def test_a_home_that_cannot_be_written_to_is_no_matter(tmp_path):
    code = (
        "import sys\n"
        "from model.training.plot import plot_losses\n"
        "plot_losses([{'step': 1, 'loss': 2.0}], sys.argv[1])"
    )
    nowhere = {**os.environ, "HOME": "/proc/nobody", "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""}
    nowhere.pop("MPLCONFIGDIR", None)
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "loss.png"], env=nowhere, text=True,
        capture_output=True, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "loss.png").stat().st_size > 1000
