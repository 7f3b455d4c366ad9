"""The figure of a walk-forward as a picture, and its charts for the page."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hrl_sarp import metrics
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.reporting import charts
from hrl_sarp.reporting.charts import PERCENT, Chart, Line, Panel
from hrl_sarp.reporting.figure import BLUE, INK, PALETTE, VERMILION, WIDTH, styled
from hrl_sarp.studies.walk_forward.cells import PRIOR, SAME_EXPOSURE
from hrl_sarp.studies.walk_forward.chain import Chain, Series
from hrl_sarp.studies.walk_forward.verdicts import Verdicts

AGENT = "agent (ensemble)"
PANEL_HEIGHT = 2.8
DIFFERENCES = {
    "log_volatility": ("Volatility over 1/N at the same exposure", "100 ln"),
    "growth": ("Growth over 1/N at the same exposure", "% a year"),
}
"""Measure -> what is drawn fold by fold, and its unit."""


def growth_chart(variant: str, market: str, chain: Chain, agent: str) -> Chart:
    """Draw wealth, drawdown and exposure of all policies over the folds of a market."""
    series = policies_of(chain, agent)
    net = {name: each.net[:, 0] for name, each in series.items()}
    panels = [
        Panel(
            "wealth, log scale",
            {name: np.cumprod(1.0 + values) for name, values in net.items()},
            is_log=True,
            height=1.8,
        ),
        Panel("drawdown", {n: -metrics.drawdowns(values) for n, values in net.items()}, PERCENT),
        Panel("exposure", {n: each.invested[:, 0] for n, each in series.items()}, PERCENT),
    ]
    first = series[AGENT]
    begins = list(first.dates[1:][np.diff(first.fold) > 0])
    caption = (
        f"{market}: the tests of all folds, one after the other, net of costs. Dotted lines are "
        "where a fold begins, with agents that were trained anew."
    )
    return charts.timeline(
        f"growth-{variant}-{market}",
        caption,
        first.dates,
        panels,
        _lines(series),
        begins,
    )


def plane_chart(market: str, verdicts: Verdicts) -> Chart:
    """Draw the volatility and the growth of all policies of a market."""
    rows = dict(verdicts.policies[market])
    rows[AGENT] = rows.pop(f"{verdicts.agent}, ensemble")
    points = {
        name: (values["volatility"] / 100, values["growth"] / 100) for name, values in rows.items()
    }
    caption = f"{market}: volatility and log growth, a year, of every row of the table."
    titles = ("volatility a year", "log growth a year")
    return charts.plane(
        f"plane-{verdicts.variant}-{market}", caption, points, titles, _lines(points)
    )


def fold_chart(verdicts: Verdicts, measure: str) -> Chart:
    """Draw one of `DIFFERENCES` fold by fold, with its intervals."""
    groups = {
        market: {
            _years(market, fold): ((each := found[market][measure]).value, each.low, each.high)
            for fold, found in folds.items()
        }
        for market, folds in verdicts.folds.items()
    }
    what, unit = DIFFERENCES[measure]
    caption = f"{what}, {unit}, of the agent, fold by fold, with intervals."
    return charts.intervals(f"folds-{verdicts.variant}-{measure}", caption, groups, unit, PALETTE)


def _years(market: str, fold: str) -> str:
    """Name a fold by its years alone, one where it has one."""
    first, _, last = fold.removeprefix(f"{market}-").partition("-")
    return first if first == last else f"{first}-{last}"


def policies_of(chain: Chain, agent: str) -> dict[str, Series]:
    """Return the chained series of the agent, of what it is compared with, and of all baselines."""
    return {
        AGENT: chain.ensemble(agent),
        PRIOR: chain.ensemble(PRIOR),
        SAME_EXPOSURE: chain.ensemble(SAME_EXPOSURE),
        **{name: chain.baseline(name) for name in chain.baselines[0].names},
    }


def _lines(names: Mapping[str, Any]) -> dict[str, Line]:
    """Say how policies are drawn: the agent last and thick, most baselines pale."""
    main = {
        SAME_EXPOSURE: Line(charts.INK, 1.2, "dot"),
        PRIOR: Line(VERMILION),
        EQUAL_WEIGHT: Line(charts.INK, 2.2),
        AGENT: Line(BLUE, 2.6),
    }
    return {name: Line(charts.FADED, 0.8) for name in names if name not in main} | main


@styled
def drawn(chains: Mapping[str, Chain], verdicts: Verdicts) -> Figure:
    """Draw both differences fold by fold, and the growth of wealth in each market."""
    figure = Figure(figsize=(WIDTH, PANEL_HEIGHT * (1 + len(chains))), layout="constrained")
    grid = figure.add_gridspec(1 + len(chains), 2)
    for place, (name, (what, unit)) in enumerate(DIFFERENCES.items()):
        axes = figure.add_subplot(grid[0, place])
        axes.set_title(f"{what}, {unit}", fontsize=9)
        _draw_folds(axes, verdicts, name)
    for row, (market, chain) in enumerate(chains.items()):
        axes = figure.add_subplot(grid[row + 1, :])
        axes.set_title(f"{market}: growth of 1, folds one after the other")
        _draw_wealth(axes, chain, verdicts.agent)
    return figure


def _draw_folds(axes: Axes, verdicts: Verdicts, name: str) -> None:
    labels, place = [], 0
    for colour, (market, folds) in zip(cycle(PALETTE), verdicts.folds.items(), strict=False):
        for position, (fold, differences) in enumerate(folds.items()):
            each = differences[market][name]
            around = [[each.value - each.low], [each.high - each.value]]
            label = market if position == 0 else None
            axes.errorbar([place], [each.value], around, fmt="o", color=colour, label=label)
            labels.append(_years(market, fold))
            place += 1
    axes.axhline(0.0, color=INK, linewidth=1)
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
    axes.legend()


def _draw_wealth(axes: Axes, chain: Chain, agent: str) -> None:
    styles: dict[str, dict[str, Any]] = {
        AGENT: {"color": BLUE, "linewidth": 2},
        PRIOR: {"color": VERMILION},
        EQUAL_WEIGHT: {"color": INK},
        SAME_EXPOSURE: {"color": INK, "linestyle": ":"},
    }
    series = policies_of(chain, agent)
    for label, style in styles.items():
        wealth = np.cumprod(1.0 + series[label].net[:, 0])
        axes.plot(series[label].dates, wealth, label=label, **style)
    axes.set_yscale("log")
    axes.legend(ncols=2)
