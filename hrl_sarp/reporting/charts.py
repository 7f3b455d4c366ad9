"""Charts that answer when one points at them: plotly draws them in the browser, without a network.

A `Chart` is a block of a page. Its curves have roles (`Line`) instead of colours of one theme, so
that the same chart suits light and dark screens. The script that draws is `templates/charts.js`.
"""

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from itertools import cycle
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

INK, FADED, BAND = "var(--ink)", "var(--faded)", "var(--band)"
"""Colours of the page's theme, which the script looks up when it draws."""
MAX_POINTS = 1000
"""Largest number of points of a line. More would enlarge the page without a visible difference."""
DIGITS = 5
"""Significant digits of a point."""
PANEL_PIXELS, GAP_PIXELS, EDGE_PIXELS = 150, 26, 52
"""Height of a panel of relative height 1, between two panels, and above and below all of them."""
PERCENT, PLAIN, PRICE = ".1%", ".5~g", ",.6~r"
"""Formats of shares, of values and of prices at which one points, as d3 writes them."""
TICK_FORMATS = {PERCENT: ".3~%", PLAIN: ""}
"""Formats of ticks, where they differ. Empty: plotly takes as many digits as tell ticks apart."""
FEW_DAYS = 5
"""Up to so many days a time axis has a tick for each. More ticks would be hours."""
FLAT_MARGIN = 0.01
"""Above and below values that are all one."""

Band = tuple[str, Float[np.ndarray, " D"], Float[np.ndarray, " D"]]
"""Name, lower and upper edge of an area."""


@dataclass(frozen=True)
class Line:
    """How a name is drawn in all charts of a page."""

    colour: str
    width: float = 1.2
    dash: str = "solid"


@dataclass(frozen=True)
class Panel:
    """One quantity over time, in a panel of its own."""

    title: str
    curves: Mapping[str, Float[np.ndarray, " D"]]
    """By name, a value for each date of the chart; NaN leaves a gap."""
    form: str = PLAIN
    """How values are written."""
    is_log: bool = False
    height: float = 1.0
    """Relative to the other panels of the chart."""
    band: Band | None = None
    """An area behind the curves."""
    is_step: bool = False
    """Values hold until the next date."""


@dataclass(frozen=True)
class Chart:
    """What plotly draws, and what is said below it."""

    name: str
    """Unique on the page, where a link ends on the chart by it."""
    caption: str
    spec: Mapping[str, Any]
    """`data` and `layout` as plotly reads them; a trace without `x` takes the shared `x`."""
    height: int
    """Pixels."""
    lines: Mapping[str, Line]
    """Names that the reader can switch off and on."""

    @property
    def in_front(self) -> list[str]:
        """The names that are not pale, the foremost first."""
        return [name for name, line in self.lines.items() if line.colour != FADED][::-1]


def timeline(
    name: str,
    caption: str,
    dates: Shaped[np.ndarray, " D"],
    panels: Sequence[Panel],
    lines: Mapping[str, Line],
    marks: Sequence[np.datetime64] = (),
) -> Chart:
    """Draw quantities over the same dates below each other.

    Args:
        name: unique on the page.
        caption: below the chart.
        dates: of the values.
        panels: from top to bottom.
        lines: how each name is drawn, the ones in front last. Curves of other names are left out.
        marks: dates that vertical lines mark, as the beginnings of folds.

    Returns:
        The chart. Long series keep evenly chosen dates, first and last included.
    """
    days = thinned(len(dates))
    data: list[dict[str, Any]] = []
    x_axis = {"type": "date", "anchor": f"y{len(panels)}", **_daily_ticks(dates)}
    layout: dict[str, Any] = {"xaxis": x_axis}
    heights = [panel.height for panel in panels]
    inside = PANEL_PIXELS * sum(heights) + GAP_PIXELS * (len(panels) - 1)
    top = 1.0
    for number, panel in enumerate(panels, start=1):
        axis = "y" if number == 1 else f"y{number}"
        bottom = max(top - PANEL_PIXELS * panel.height / inside, 0.0)
        layout[axis.replace("y", "yaxis")] = {
            "title": {"text": escape(panel.title)},
            "domain": [round(bottom, 4), round(top, 4)],
            "type": "log" if panel.is_log else "linear",
            "tickformat": TICK_FORMATS.get(panel.form, panel.form),
            **_flat_range(panel),
        }
        top = bottom - GAP_PIXELS / inside
        if panel.band is not None:
            data += _filled(panel.band, dates[days], days, axis)
        data += [_curve(key, line, panel, days, axis) for key, line in lines.items()
                 if key in panel.curves]  # fmt: skip
    layout["shapes"] = [
        {"type": "line", "xref": "x", "yref": "paper", "x0": str(day), "x1": str(day), "y0": 0,
         "y1": 1, "line": {"color": FADED, "width": 1, "dash": "dot"}} for day in marks
    ]  # fmt: skip
    spec = {"x": [str(day) for day in dates[days]], "data": data, "layout": layout}
    shown = {key: line for key, line in lines.items() if any(key in p.curves for p in panels)}
    return Chart(name, caption, spec, round(inside) + EDGE_PIXELS, shown)


def plane(
    name: str,
    caption: str,
    points: Mapping[str, tuple[float, float]],
    titles: tuple[str, str],
    lines: Mapping[str, Line],
) -> Chart:
    """Draw each name as a point, such as its risk and its growth.

    Args:
        name: unique on the page.
        caption: below the chart.
        points: name -> shares to the right and upwards.
        titles: of the two axes.
        lines: how each name is drawn; other names are left out.

    Returns:
        The chart. Names of thick lines are written beside their points.
    """
    data = []
    for key, line in lines.items():
        if key not in points:
            continue
        right, up = map(_rounded, points[key])
        is_named = line.width > Line.width
        data.append(
            {
                "name": key, "x": [right], "y": [up], "text": [key],
                "mode": "markers+text" if is_named else "markers", "textposition": "top center",
                "marker": {"color": line.colour, "size": 11 if is_named else 7},
                "hovertemplate": f"{titles[0]} %{{x:{PERCENT}}}<br>{titles[1]} %{{y:{PERCENT}}}",
            }
        )  # fmt: skip
    axes = ({"title": {"text": title}, "tickformat": TICK_FORMATS[PERCENT]} for title in titles)
    layout = dict(zip(("xaxis", "yaxis"), axes, strict=True))
    shown = {key: line for key, line in lines.items() if key in points}
    return Chart(name, caption, {"data": data, "layout": layout}, 430, shown)


def intervals(
    name: str,
    caption: str,
    groups: Mapping[str, Mapping[str, tuple[float, float, float]]],
    title: str,
    colours: Sequence[str],
) -> Chart:
    """Draw estimates with their intervals, side by side in groups.

    Args:
        name: unique on the page.
        caption: below the chart.
        groups: group -> label -> estimate, lower and upper end; labels stand in their alphabetical
            order.
        title: of the values.
        colours: of the groups; they begin again where there are more groups.

    Returns:
        The chart, with a line at 0.
    """
    data = []
    lines = {group: Line(colour) for group, colour in zip(groups, cycle(colours), strict=False)}
    for group, found in groups.items():
        colour = lines[group].colour
        value, low, high = np.array(list(found.values())).T
        data.append(
            {
                "name": group, "x": [escape(label) for label in found],
                "y": _points(value), "mode": "markers", "marker": {"color": colour, "size": 8},
                "error_y": {"type": "data", "symmetric": False, "array": _points(high - value),
                            "arrayminus": _points(value - low), "color": colour},
                "customdata": [[_rounded(a), _rounded(b)] for a, b in zip(low, high, strict=True)],
                "hovertemplate": "%{x}: %{y:.3~g} [%{customdata[0]:.3~g}, %{customdata[1]:.3~g}]",
            }
        )  # fmt: skip
    layout = {
        "scattermode": "group",  # groups with the same label stand beside each other
        # labels of all groups in one order, also where a group lacks some
        "xaxis": {"type": "category", "categoryorder": "category ascending", "tickangle": -60},
        "yaxis": {"title": {"text": title}, "zeroline": True, "zerolinecolor": INK},
    }
    return Chart(name, caption, {"data": data, "layout": layout}, 340, lines)


def grouped(
    name: str,
    caption: str,
    labels: Sequence[str],
    groups: Mapping[str, Float[np.ndarray, " D"]],
    titles: tuple[str, str],
    lines: Mapping[str, Line],
    levels: Sequence[float] = (),
) -> Chart:
    """Draw bars, a group side by side at each label.

    Args:
        name: unique on the page.
        caption: below the chart.
        labels: of the horizontal axis, from left to right.
        groups: by name, a value for each label; NaN leaves a bar out.
        titles: of the two axes.
        lines: how each name is drawn; groups of other names are left out.
        levels: heights that horizontal lines mark.

    Returns:
        The chart, with a line at 0.
    """
    data = [
        {
            "name": key, "type": "bar", "x": list(labels), "y": _points(groups[key]),
            "marker": {"color": line.colour}, "hovertemplate": f"%{{x}}: %{{y:{PLAIN}}}",
        }
        for key, line in lines.items() if key in groups
    ]  # fmt: skip
    across = {"type": "line", "xref": "paper", "yref": "y", "x0": 0, "x1": 1,
              "line": {"color": INK, "width": 1, "dash": "dot"}}  # fmt: skip
    layout = {
        "barmode": "group",
        "xaxis": {"type": "category", "title": {"text": titles[0]}},
        "yaxis": {"title": {"text": titles[1]}, "zeroline": True, "zerolinecolor": INK},
        "shapes": [across | {"y0": level, "y1": level} for level in levels],
    }
    shown = {key: line for key, line in lines.items() if key in groups}
    return Chart(name, caption, {"data": data, "layout": layout}, 300, shown)


@lru_cache(maxsize=1)
def packed_plotly() -> str:
    """Return plotly's own script, compressed, as text that a page can carry."""
    from plotly.offline import get_plotlyjs  # large, and only pages with charts need it

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def thinned(n_points: int) -> np.ndarray:
    """Choose rows evenly, first and last included."""
    return np.unique(np.linspace(0, n_points - 1, min(n_points, MAX_POINTS)).astype(int))


def _daily_ticks(dates: Shaped[np.ndarray, " D"]) -> dict[str, Any]:
    """Return ticks at whole days where the axis is short: plotly would write hours of the day."""
    if not len(dates) or (dates[-1] - dates[0]).astype("timedelta64[D]").astype(int) > FEW_DAYS:
        return {}
    return {"tickmode": "array", "tickvals": [str(day) for day in dates], "tickformat": "%d %b\n%Y"}


def _flat_range(panel: Panel) -> dict[str, Any]:
    """Return a narrow range where all values are one: else the axis reaches 1 to both sides."""
    values = np.concatenate([*panel.curves.values(), *(panel.band[1:] if panel.band else ())])
    values = values[np.isfinite(values)]
    if panel.is_log or not len(values) or np.ptp(values) > 0:
        return {}
    margin = FLAT_MARGIN * max(1.0, abs(float(values[0])))
    return {"range": [float(values[0]) - margin, float(values[0]) + margin]}


def _curve(key: str, line: Line, panel: Panel, days: np.ndarray, axis: str) -> dict[str, Any]:
    return {
        "name": key,
        "y": _points(panel.curves[key][days]),
        "yaxis": axis,
        "mode": "lines",
        "line": {"color": line.colour, "width": line.width, "dash": line.dash,
                 "shape": "hv" if panel.is_step else "linear"},
        "hovertemplate": f"%{{x|%Y-%m-%d}}: %{{y:{panel.form}}}",
    }  # fmt: skip


def _filled(
    band: Band, dates: Shaped[np.ndarray, " D"], days: np.ndarray, axis: str
) -> list[dict[str, Any]]:
    """Return the edges of the area, of which the second is filled down to the first.

    An area with gaps becomes polygons, because plotly would fill across the gaps.
    """
    name, low, high = band[0], band[1][days], band[2][days]
    edge = {"name": name, "yaxis": axis, "mode": "lines", "hoverinfo": "skip",
            "line": {"width": 0, "color": FADED}}  # fmt: skip
    known = np.isfinite(low) & np.isfinite(high)
    if known.all():
        upper = {"y": _points(high), "fill": "tonexty", "fillcolor": BAND}
        return [edge | {"y": _points(low)}, edge | upper]
    x: list[str | None] = []
    y: list[float | None] = []
    for run in np.split(np.arange(len(known)), np.flatnonzero(~known)):
        rows = run[known[run]]
        there_and_back = [str(day) for day in dates[rows]]
        x += [*there_and_back, *there_and_back[::-1], None]
        y += [*_points(low[rows]), *_points(high[rows])[::-1], None]
    return [edge | {"x": x, "y": y, "fill": "toself", "fillcolor": BAND}]


def _points(values: Float[np.ndarray, " n"]) -> list[float | None]:
    return [_rounded(value) for value in values]


def _rounded(value: float) -> float | None:
    """Keep `DIGITS`; what is not finite becomes null, because JSON has no other word for it."""
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
