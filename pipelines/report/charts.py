"""Bar charts as small SVG images that follow the reader's light or dark mode.

Matplotlib draws them: the best kept of Python's plotting libraries, already part of the extra
``train``. Its SVG needs no script, so that a report stays small and a browser shows it at once; as
an image it can run none either, whatever the labels are. The table beside a chart has its numbers.
"""

import base64
import io
import re
from collections.abc import Sequence
from typing import Any

from pipelines.printing import scaled

# Matplotlib writes these colours; the style sheet puts in those of the mode. Contrast with the
# background: text 12 and more, bars 3 and more (WCAG 2.1, 1.4.3 and 1.4.11).
_TEXT, _FAINT = "#010101", "#020202"
_SERIES = ("#030303", "#040404")
_LIGHT = {_TEXT: "#1a1a1a", _FAINT: "#767676", _SERIES[0]: "#1f5fa8", _SERIES[1]: "#b35309"}
_DARK = {_TEXT: "#ececec", _FAINT: "#9a9a9a", _SERIES[0]: "#7db4f0", _SERIES[1]: "#f0a35c"}
_WIDTH, _ROW, _AROUND = 4.2, 0.21, 0.75  # inches; a phone shows them at about their size
_LABEL_CHARS = 26
_MOST_BARS = 30


def bars(labels: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], log: bool) -> str:
    """Return a chart of horizontal bars as an address that an ``img`` shows.

    Args:
        labels: Of the rows, from the top.
        series: One or two: name, and a value for each label.
        log: Whether the scale is logarithmic.

    Raises:
        ModuleNotFoundError: Matplotlib is not installed.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, MaxNLocator

    labels, series = labels[:_MOST_BARS], [(name, list(v)[:_MOST_BARS]) for name, v in series]
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "c4",  # ids that do not change from run to run
        "font.family": "sans-serif",
        "font.size": 8.5,
        "text.parse_math": False,
        "text.usetex": False,
        "axes.unicode_minus": False,
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _TEXT),
        **dict.fromkeys(("axes.edgecolor", "grid.color"), _FAINT),
    }
    with matplotlib.rc_context(settings):
        height = _AROUND + _ROW * max(1, len(labels)) * (1.5 if len(series) > 1 else 1)
        figure = Figure(figsize=(_WIDTH, height), facecolor="none", layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot(facecolor="none")
        thickness = 0.8 / len(series)
        for number, (name, values) in enumerate(series):
            places = [
                row + (number - (len(series) - 1) / 2) * thickness for row in range(len(labels))
            ]
            axes.barh(
                places, values, height=thickness * 0.92,
                color=_SERIES[number], label=_short(name),
            )  # fmt: skip
        axes.set_yticks(range(len(labels)), [_short(label) for label in labels])
        axes.set_ylim(len(labels) - 0.4, -0.6)
        most = max((value for _, values in series for value in values), default=0)
        if log and most > 0:
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(lambda value, _: scaled(value).replace(".0 ", " "))
        axes.xaxis.set_major_locator(
            FixedLocator([0, *(10**power for power in range(0, 16, 1 if most < 10_000 else 2))])
            if log
            else MaxNLocator(4, integer=True)
        )
        axes.grid(axis="x", linewidth=0.4)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if len(series) > 1:
            figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
        written = io.BytesIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return _address(written.getvalue().decode())


def _short(label: str) -> str:
    return label if len(label) <= _LABEL_CHARS else f"{label[: _LABEL_CHARS - 1]}…"


def _address(svg: str) -> str:
    def rules(colours: dict[str, str]) -> str:
        return "".join(f"--c{of[1:]}:{colour};" for of, colour in colours.items())

    for colour in _LIGHT:
        svg = svg.replace(colour, f"var(--c{colour[1:]})")
    style = (
        f"<style>:root{{{rules(_LIGHT)}}}"
        f"@media(prefers-color-scheme:dark){{:root{{{rules(_DARK)}}}}}</style>"
    )
    svg = re.sub(r"\A.*?(<svg[^>]*>)", lambda found: found[1] + style, svg, flags=re.DOTALL)
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
