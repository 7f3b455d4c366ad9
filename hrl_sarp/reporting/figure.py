"""Style and files of all figures, and the figure of a training run.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart. Text, grid and faded
lines have the colours of a light page. On an HTML page they follow its theme (`svg`).
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hrl_sarp.run.files import atomic_path

INK, GRID, FADED = "#1c1f23", "#dcdfe3", "#b4bac1"
"""Colours of text and axes, of grid lines, and of lines in the background."""
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = PALETTE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
)
SPAN_COLOURS = {"training": BLUE, "validation": VERMILION, "test": GREEN}
WIDTH, PANEL_WIDTH, PANEL_HEIGHT = 8.2, 3.7, 3.4
"""Sizes in inches: of a figure, and of one of several panels side by side."""
DPI = 150
NARROW = 4.4
"""Width in inches of a figure that a telephone shows at its natural size."""
READABLE = 5.9
"""Width in inches of the widest figure whose words a telephone shows large enough to read."""
COUNTED = ("epoch", "evaluation")
"""Labels of axes that hold whole numbers."""
LEVEL_STYLES = ("--", ":", "-.")
THEME = {INK: "currentColor", GRID: "var(--rule, #d5d9dd)", FADED: "var(--faded, #b4bac1)"}
"""Colours on an HTML page in place of these, so that a figure suits light and dark screens."""
STYLE: dict[Any, Any] = {  # matplotlib types each key as a literal
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "path",
    "svg.hashsalt": "hrl-sarp",
}
styled = mpl.rc_context(STYLE)
"""Decorator of functions that draw: `@styled`."""

Values = Sequence[int | float] | Float[np.ndarray, " n"]
Curve = tuple[Values, Values]
"""x and y; NaN leaves a gap."""


@dataclass(frozen=True)
class Panel:
    """One quantity of a training run over its epochs, or one curve of its result."""

    title: str
    curves: Mapping[str, Curve]
    """Curves by name. Training, validation and test have the same colours everywhere."""
    levels: Mapping[str, float] = field(default_factory=dict)
    """Baselines and base rates, drawn as horizontal lines."""
    best: int | float | None = None
    """The epoch that was kept, drawn as a vertical line."""
    x_label: str = "epoch"
    y_label: str = ""


@styled
def convergence_figure(panels: Sequence[Panel]) -> Figure:
    """Draw the curves of a training run, one panel for each quantity."""
    width = max(WIDTH, PANEL_WIDTH * len(panels))
    figure = Figure(figsize=(width, PANEL_HEIGHT), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_panel(axes, panel)
    return figure


@styled
def panel_figure(panel: Panel) -> Figure:
    """Draw one panel alone, as narrow as a telephone."""
    figure = Figure(figsize=(NARROW, PANEL_HEIGHT), layout="constrained")
    _draw_panel(figure.subplots(), panel)
    return figure


def save_png(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, atomically; the same figure gives the same bytes."""
    with mpl.rc_context(STYLE), atomic_path(path) as temporary:
        figure.savefig(
            temporary, format="png", dpi=DPI, facecolor="white", metadata={"Software": None}
        )


def svg(figure: Figure, name: str, label: str) -> str:
    """Return a figure as an SVG element that follows the theme of the page around it.

    `name` must be unique on the page: it keeps the ids of two figures apart. Screen readers read
    `label` out.
    """
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", dpi=110, metadata={"Date": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", drawing)
    for colour, themed in THEME.items():
        drawing = drawing.replace(colour, themed)
    return drawing.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    others = cycle(colour for colour in PALETTE if colour not in SPAN_COLOURS.values())
    for name, (x, y) in panel.curves.items():
        colour = SPAN_COLOURS.get(name) or next(others)
        axes.plot(x, y, color=colour, label=name, marker="o" if len(x) == 1 else None)
    for (name, height), style in zip(panel.levels.items(), cycle(LEVEL_STYLES), strict=False):
        axes.axhline(height, color=INK, linewidth=1, linestyle=style, label=name)
    if panel.best is not None:
        axes.axvline(panel.best, color=FADED, linewidth=1, zorder=0, label=f"best {panel.x_label}")
    if panel.x_label in COUNTED:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend()
