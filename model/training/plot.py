"""A run's losses as a picture, and as one line of text."""

import itertools
import logging
import math
import os
from collections.abc import Sequence

from model.small_files import naming
from model.training.metrics import Row

_BARS = "▁▂▃▄▅▆▇█"
_POINTS = 2000  # more than the picture has columns


def plot_losses(rows: Sequence[Row], path: str | os.PathLike[str], title: str = "") -> None:
    """Write training and validation losses over steps as a PNG.

    Args:
      rows: of ``metrics.jsonl``; without a loss among them nothing is written.
      path: of the picture.
      title: above it.
    """
    # It warns of a home that it cannot write to, and that its first picture takes longer.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Without pyplot: no window system, no state of a process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    train = _points(rows, "loss")
    validation = _points(rows, "validation_loss")
    if not train:
        return
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    window = max(1, len(train) // 100)
    means = smoothed([loss for _, loss in train], window)
    every = max(1, len(train) // _POINTS)
    steps = [step for step, _ in train][::every]
    axes.plot(steps, [loss for _, loss in train][::every], color="C0", alpha=0.3, linewidth=1)
    label = "training" if window == 1 else f"training, mean of {window} steps"
    axes.plot(steps, means[::every], color="C0", label=label)
    if validation:
        axes.plot(
            *zip(*validation, strict=True), "o-", color="C1", label="validation", markersize=4
        )
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats a target token")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    with naming(path):
        figure.savefig(os.fspath(path), dpi=120, format="png")


def sparkline(losses: Sequence[float], width: int = 40) -> str:
    """Return losses as a row of bars, each the mean of its share of the steps.

    >>> sparkline([4.0, 4.0, 3.0, 2.0, 1.0, 1.0], width=6)
    '██▆▃▁▁'
    """
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not finite:
        return ""
    width = min(width, len(finite))
    bounds = [column * len(finite) // width for column in range(width + 1)]
    means = [sum(finite[begin:end]) / (end - begin) for begin, end in itertools.pairwise(bounds)]
    least, span = min(means), max(means) - min(means)
    if not span:
        return _BARS[0] * width
    top = len(_BARS) - 1
    return "".join(_BARS[math.floor((mean - least) / span * top + 0.5)] for mean in means)


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of each value and up to ``window - 1`` values before it.

    >>> smoothed([4.0, 2.0, 6.0, 4.0], 2)
    [4.0, 3.0, 4.0, 5.0]
    """
    means, total = [], 0.0
    for place, value in enumerate(values):
        total += value
        if place >= window:
            total -= values[place - window]
        means.append(total / min(place + 1, window))
    return means


def _points(rows: Sequence[Row], name: str) -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in rows if row.get(name) is not None]
