"""Draws the matplotlib figures of a backtest from its trajectories."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from hrl_sarp import metrics
from hrl_sarp.contracts import REGIME_NAMES, Regime
from hrl_sarp.envs.rollout import INDEX
from hrl_sarp.evaluation.backtest import BacktestResult
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.performance import column, market_rows, sector_weights
from hrl_sarp.evaluation.report.analysis import Analysis
from hrl_sarp.reporting.figure import (
    BLUE,
    FADED,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    WIDTH,
    styled,
)

OWN_COLOURS = (BLUE, VERMILION, GREEN, PURPLE)
REGIME_COLOURS = {Regime.BEAR: VERMILION, Regime.BULL: BLUE, Regime.SIDEWAYS: "#999999"}
MAX_POINTS = 1000
"""Largest number of points of a line. More would enlarge the page without a visible difference."""


@styled
def wealth_and_drawdown(result: BacktestResult, analysis: Analysis) -> Figure:
    """Draw wealth on a log scale, with the random portfolios as a band, and drawdown below."""
    main = result.main
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
    days = _thinned(len(main.dates))
    if result.random is not None:
        rows = [i for i, name in enumerate(result.random.names) if name != INDEX]
        low, high = np.quantile(result.random.wealth[days][:, rows], [0.05, 0.95], axis=1)
        upper.fill_between(
            main.dates[days], low, high, color=FADED, alpha=0.35, linewidth=0,
            label="random stocks, 5 to 95 %",
        )  # fmt: skip
    for name, style in _line_styles(result, analysis).items():
        i = column(main, name)
        upper.plot(main.dates[days], main.wealth[days, i], **style)
        if style["label"]:
            fall = -metrics.drawdowns(main.net_return[:, i])
            lower.plot(main.dates[days], fall[days], **{**style, "label": None})
    upper.set_yscale("log")
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    upper.yaxis.set_major_formatter(plain)
    # minor ticks have room for labels where wealth spans less than a decade and a half
    spans_decades = main.wealth.max() / max(main.wealth.min(), 1e-9) > 30
    upper.yaxis.set_minor_formatter(NullFormatter() if spans_decades else plain)
    upper.set_ylabel("wealth (start = 1, log scale)")
    lower.set_ylabel("drawdown")
    lower.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    upper.legend(loc="upper left", ncols=2)
    _date_axis(lower)
    return figure


@styled
def exposure_and_drawdown(result: BacktestResult, analysis: Analysis) -> Figure:
    """Draw the share of wealth in stocks of the given policies above the drawdown of 1/N."""
    main = result.main
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.6, 1])
    days = _thinned(len(main.dates))
    for name, style in _line_styles(result, analysis).items():
        if style["label"] and name != INDEX:
            held = main.weights_after[:, column(main, name)].sum(axis=1)
            upper.plot(main.dates[days], held[days], **style)
    fall = -metrics.drawdowns(main.net_return[:, column(main, EQUAL_WEIGHT)])
    lower.fill_between(main.dates[days], fall[days], 0, color=FADED, linewidth=0)
    upper.set_ylim(0, 1.02)
    upper.set_ylabel("exposure")
    lower.set_ylabel("drawdown of 1/N")
    for axes in (upper, lower):
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    upper.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    _date_axis(lower)
    return figure


@styled
def excess_intervals(result: BacktestResult, analysis: Analysis) -> Figure:
    """Draw every policy's log growth over 1/N with its interval."""
    shown = [name for name in analysis.performances if name != EQUAL_WEIGHT][::-1]
    figure = Figure(figsize=(WIDTH, 1.1 + 0.3 * (len(shown) + 1)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=INK, linewidth=1)
    for row, name in enumerate(shown, start=1):
        excess = analysis.performances[name]["growth_excess"]
        colour = BLUE if name in result.policy_names else INK
        axes.plot([100 * excess.low, 100 * excess.high], [row, row], color=colour, linewidth=2)
        axes.plot(100 * excess.value, row, "o", color=colour, markersize=6)
    if analysis.luck:
        luck = analysis.luck["growth_excess"]
        axes.plot([100 * luck.low, 100 * luck.high], [0, 0], color=FADED, linewidth=6)
        axes.plot(100 * luck.mean, 0, "o", color=INK, markersize=6)
    names = ["random stocks, 5 to 95 %" if analysis.luck else ""]
    axes.set_yticks(range(len(shown) + 1), [*names, *shown])
    axes.set_ylim(-0.7 if analysis.luck else 0.3, len(shown) + 0.7)
    axes.grid(axis="y", visible=False)
    level = f"{result.config.evaluation.confidence:.0%}"
    axes.set_xlabel(f"net log growth over 1/N, % a year, with {level} interval")
    return figure


@styled
def sectors_and_regimes(result: BacktestResult, name: str) -> Figure:
    """Draw sector weights after the trade over time, and the regime probabilities if it has any."""
    trajectory, market = result.main, result.market
    i = column(trajectory, name)
    held = sector_weights(trajectory.weights_after[:, i], market)
    table = np.concatenate([held, 1.0 - held.sum(axis=1, keepdims=True)], axis=1)
    regimes = trajectory.goal[:, i, -len(Regime) :]
    has_goal = bool(np.isfinite(regimes).any())
    days = _thinned(len(trajectory.dates))
    height = 1.2 + 0.27 * table.shape[1] + (1.6 if has_goal else 0)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    ratios = [0.27 * table.shape[1], 1.5] if has_goal else [1]
    panels = np.atleast_1d(figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios))
    rows = [*market.sector_names, "cash"]
    _draw_heatmap(figure, panels[0], trajectory.dates[days], table[days], rows)
    if has_goal:
        names = REGIME_NAMES[result.config.objective.kind]
        _draw_regimes(panels[1], trajectory.dates[days], regimes[days], names)
    _date_axis(panels[-1])
    return figure


@styled
def rolling_sharpe(result: BacktestResult, analysis: Analysis) -> Figure:
    """Draw the Sharpe ratio over a trailing window."""
    main, window = result.main, result.config.evaluation.rolling_days
    window = min(window, max(2, len(main.dates) // 2))
    excess = main.net_return - result.market.risk_free[market_rows(result.market, main)][:, None]
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color=INK, linewidth=1)
    windows = np.lib.stride_tricks.sliding_window_view(excess, window, axis=0)
    deviation = windows.std(axis=2, ddof=1)
    moves = deviation > metrics.ROUNDING
    ratio = (
        windows.mean(axis=2)
        / np.where(moves, deviation, np.inf)
        * np.sqrt(result.market.sessions.year)
    )
    days = _thinned(len(ratio))
    for name, style in _line_styles(result, analysis).items():
        if style["label"]:
            axes.plot(main.dates[window - 1 :][days], ratio[days, column(main, name)], **style)
    axes.set_ylabel(f"Sharpe ratio, trailing {window} sessions")
    axes.legend(loc="best", ncols=2)
    _date_axis(axes)
    return figure


@styled
def monthly_turnover(result: BacktestResult, analysis: Analysis) -> Figure:
    """Draw one-sided turnover by month, the entry included."""
    main = result.main
    months = main.dates.astype("datetime64[M]")
    starts = np.flatnonzero(np.concatenate([[True], months[1:] != months[:-1]]))
    total = np.add.reduceat(main.turnover, starts, axis=0)
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.subplots()
    for name, style in _line_styles(result, analysis).items():
        if style["label"] and name != INDEX:
            axes.step(main.dates[starts], total[:, column(main, name)], where="post", **style)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("turnover a month (one-sided)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5)
    _date_axis(axes)
    return figure


@styled
def attribution_bars(analysis: Analysis) -> Figure:
    """Draw the excess over 1/N of each policy as a sum of its parts."""
    splits = list(analysis.attributions.values())[::-1]
    parts = {"sectors": BLUE, "stocks": ORANGE, "cash": SKY, "costs": VERMILION}
    figure = Figure(figsize=(WIDTH, 1.3 + 0.3 * len(splits)), layout="constrained")
    axes = figure.subplots()
    above, below = np.zeros(len(splits)), np.zeros(len(splits))
    for part, colour in parts.items():
        values = np.array([100 * getattr(split, part) for split in splits])
        left = np.where(values >= 0, above, below)
        axes.barh(range(len(splits)), values, 0.62, left=left, color=colour, label=part)
        above += values.clip(min=0.0)
        below += values.clip(max=0.0)
    total = [100 * split.total for split in splits]
    axes.plot(total, range(len(splits)), "D", color=INK, markersize=5, label="sum")
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(splits)), [split.name for split in splits])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("mean return over 1/N, % a year")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5)
    return figure


def _line_styles(result: BacktestResult, analysis: Analysis) -> dict[str, dict[str, Any]]:
    """Draw each given policy in a colour, 1/N and the index as dark lines, other baselines pale."""
    styles: dict[str, dict[str, Any]] = {}
    for name in result.main.names:
        if name not in (EQUAL_WEIGHT, INDEX, *analysis.own_names[: len(OWN_COLOURS)]):
            styles[name] = {"color": FADED, "linewidth": 0.8, "label": None, "zorder": 1.5}
    styles[INDEX] = {"color": INK, "linewidth": 1.2, "linestyle": "--", "label": INDEX}
    styles[EQUAL_WEIGHT] = {"color": INK, "linewidth": 1.6, "label": EQUAL_WEIGHT}
    own: Sequence[str] = analysis.own_names[: len(OWN_COLOURS)]
    for name, colour in zip(own, OWN_COLOURS, strict=False):
        styles[name] = {"color": colour, "linewidth": 1.9, "label": name, "zorder": 3}
    return styles


def _thinned(n_points: int) -> np.ndarray:
    """Choose rows evenly, first and last included."""
    return np.unique(np.linspace(0, n_points - 1, min(n_points, MAX_POINTS)).astype(int))


def _draw_heatmap(
    figure: Figure, axes: Axes, dates: np.ndarray, table: Float[np.ndarray, "D R"], rows: list[str]
) -> None:
    """Draw weights as opacity of one hue, which is readable on light and dark pages."""
    shades = LinearSegmentedColormap.from_list(
        "weights", [(0.0, 0.45, 0.7, 0.0), (0.0, 0.45, 0.7, 1.0)]
    )
    top = max(0.2, float(np.quantile(table, 0.995)))  # even weights should look pale
    ends = np.append(dates, dates[-1] + np.timedelta64(1, "D"))
    mesh = axes.pcolormesh(
        ends, np.arange(len(rows) + 1), table.T, cmap=shades, vmin=0, vmax=top, rasterized=True
    )
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.invert_yaxis()
    axes.grid(visible=False)
    bar = figure.colorbar(mesh, ax=axes, pad=0.01, fraction=0.03, format=PercentFormatter(1, 0))
    bar.set_label("share of wealth")
    bar.outline.set_visible(False)


def _draw_regimes(
    axes: Axes, dates: np.ndarray, regimes: Float[np.ndarray, "D R"], names: Sequence[str]
) -> None:
    order = (Regime.BEAR, Regime.SIDEWAYS, Regime.BULL)
    stacked = [np.nan_to_num(regimes[:, regime]) for regime in order]
    colours = [REGIME_COLOURS[regime] for regime in order]
    labels = [names[regime] for regime in order]
    axes.stackplot(dates, *stacked, colors=colours, labels=labels, alpha=0.85, linewidth=0)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("predicted regime")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 0.98), ncols=3)


def _date_axis(axes: Axes) -> None:
    locator = AutoDateLocator(minticks=3, maxticks=9)  # type: ignore[no-untyped-call]  # no types
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]  # no types
    axes.xaxis.set_major_formatter(formatter)
    axes.margins(x=0.01)
