"""Draws the figures and charts of a backtest from its trajectories."""

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
from hrl_sarp.reporting import charts
from hrl_sarp.reporting.charts import (
    PERCENT,
    PLAIN,
    Band,
    Chart,
    Line,
    Panel,
    plane,
    thinned,
    timeline,
)
from hrl_sarp.reporting.figure import (
    BLUE,
    FADED,
    GREEN,
    INK,
    NARROW,
    ORANGE,
    PURPLE,
    READABLE,
    SKY,
    VERMILION,
    WIDTH,
    styled,
)

OWN_COLOURS = (BLUE, VERMILION, GREEN, PURPLE)
REGIME_COLOURS = {Regime.BEAR: VERMILION, Regime.BULL: BLUE, Regime.SIDEWAYS: "#999999"}


@styled
def wealth_and_drawdown(result: BacktestResult, analysis: Analysis) -> Figure:
    """Draw wealth on a log scale, with the random portfolios as a band, and drawdown below."""
    main = result.main
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
    days = thinned(len(main.dates))
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
    upper.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    _date_axis(lower)
    return figure


def wealth_chart(result: BacktestResult, analysis: Analysis) -> Chart:
    """Draw wealth, drawdown, exposure and turnover of all policies over time."""
    main, risk_free = result.main, result.market.risk_free[market_rows(result.market, result.main)]
    window = min(result.config.evaluation.rolling_days, max(2, len(main.dates) // 2))
    wealth, drawdown, exposure, turnover, sharpe = {}, {}, {}, {}, {}
    months = main.dates.astype("datetime64[M]")
    starts = np.flatnonzero(np.concatenate([[True], months[1:] != months[:-1]]))
    by_month = np.add.reduceat(main.turnover, starts, axis=0)
    lengths = np.diff(np.append(starts, len(months)))
    for i, name in enumerate(main.names):
        net = main.net_return[:, i]
        wealth[name], drawdown[name] = main.wealth[:, i], -metrics.drawdowns(net)
        sharpe[name] = _trailing_sharpe(net - risk_free, window, result.market.sessions.year)
        if name != INDEX:
            exposure[name] = main.weights_after[:, i].sum(axis=1)
            turnover[name] = np.repeat(by_month[:, i], lengths)
    panels = [
        Panel("wealth, log scale", wealth, is_log=True, height=1.8, band=_random_band(result)),
        Panel("drawdown", drawdown, PERCENT),
        Panel("exposure", exposure, PERCENT),
        Panel("turnover a month", turnover, PERCENT, is_step=True),
        Panel(f"Sharpe, {window} sessions", sharpe, PLAIN),
    ]
    caption = (
        "Net of costs: wealth from 1, its loss from the running peak, the share of it in stocks "
        "after each trade, one-sided turnover by calendar month (the entry is in the first), and "
        f"the Sharpe ratio of the trailing {window} sessions in excess of cash. Point at a line "
        "for its date and value; a click on a name hides it; drag to look closer, double-click to "
        "go back."
    )
    if result.random is not None:
        caption += " The grey area holds the middle 90 % of the portfolios of random stocks."
    return timeline("wealth", caption, main.dates, panels, _lines(result, analysis))


def risk_return_chart(result: BacktestResult, analysis: Analysis) -> Chart:
    """Draw the volatility and the growth of every policy."""
    points = {
        name: (found["volatility"], found["annual_return"])
        for name, found in analysis.performances.items()
    }
    caption = (
        "Volatility and net return, a year, of every row of the table. Higher is more growth, "
        "further left is less risk."
    )
    titles = ("volatility a year", "net return a year")
    return plane("plane", caption, points, titles, _lines(result, analysis))


def _random_band(result: BacktestResult) -> Band | None:
    """Return the middle 90 % of the portfolios of random stocks."""
    if result.random is None:
        return None
    rows = [i for i, name in enumerate(result.random.names) if name != INDEX]
    low, high = np.quantile(result.random.wealth[:, rows], [0.05, 0.95], axis=1)
    return "random stocks, 5 to 95 %", low, high


def _trailing_sharpe(
    excess: Float[np.ndarray, " D"], window: int, per_year: int
) -> Float[np.ndarray, " D"]:
    """Return the ratio of the last `window` sessions, NaN before there are as many."""
    windows = np.lib.stride_tricks.sliding_window_view(excess, window)
    deviation = windows.std(axis=1, ddof=1)
    moves = deviation > metrics.ROUNDING
    ratio = windows.mean(axis=1) / np.where(moves, deviation, np.inf) * np.sqrt(per_year)
    return np.concatenate([np.full(window - 1, np.nan), ratio])


def _lines(result: BacktestResult, analysis: Analysis) -> dict[str, Line]:
    """Say how each policy is drawn on the page."""
    return {
        name: Line(
            {INK: charts.INK, FADED: charts.FADED}.get(style["color"], style["color"]),
            style["linewidth"],
            "dash" if style.get("linestyle") else "solid",
        )
        for name, style in _line_styles(result, analysis).items()
    }


@styled
def intervals(result: BacktestResult, analysis: Analysis, measure: str) -> Figure:
    """Draw an interval of every policy over the line where it equals 1/N, its name above it.

    Measures are `growth_excess`, with the range of the random portfolios, and
    `relative_volatility`.
    """
    scale, equal = (100, 0) if measure == "growth_excess" else (1, 1)
    found = {
        name: performance[measure]
        for name, performance in analysis.performances.items()
        if name != EQUAL_WEIGHT and performance[measure] is not None
    }
    rows = list(found)[::-1]
    figure = Figure(figsize=(NARROW, 1.0 + 0.36 * (len(rows) + 1)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(equal, color=INK, linewidth=1)
    for row, name in enumerate(rows, start=1):
        interval, is_own = found[name], name in result.policy_names
        colour = BLUE if is_own else INK
        ends = [scale * interval.low, scale * interval.high]
        axes.plot(ends, [row, row], color=colour, linewidth=2.4 if is_own else 1.6)
        axes.plot(scale * interval.value, row, "o", color=colour, markersize=5.5)
        weight = "bold" if name == analysis.headline_name else "normal"
        _name_row(axes, row, name, colour, weight)
    luck = analysis.luck.get(measure)
    if luck is not None:
        axes.plot([scale * luck.low, scale * luck.high], [0, 0], color=FADED, linewidth=6)
        axes.plot(scale * luck.mean, 0, "o", color=INK, markersize=5.5)
        _name_row(axes, 0, "random stocks, 5 to 95 %", INK, "normal")
    axes.set_yticks([])
    axes.set_ylim(0.2 if luck is None else -0.8, len(rows) + 0.9)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.03)
    return figure


def _name_row(axes: Axes, row: int, name: str, colour: str, weight: str) -> None:
    """Write a name above its interval, at the left edge, where there is always room."""
    axes.text(
        0.0, row + 0.13, name, transform=axes.get_yaxis_transform(), color=colour, fontsize=9,
        fontweight=weight, va="bottom",
    )  # fmt: skip


@styled
def sectors_and_regimes(result: BacktestResult, name: str) -> Figure:
    """Draw sector weights after the trade over time, and the regime probabilities if it has any."""
    trajectory, market = result.main, result.market
    i = column(trajectory, name)
    held = sector_weights(trajectory.weights_after[:, i], market)
    has_stocks = market.eligible[market_rows(market, trajectory)] @ market.sector_member() > 0
    shown = has_stocks.any(axis=0)
    table = np.concatenate([held[:, shown], 1.0 - held.sum(axis=1, keepdims=True)], axis=1)
    regimes = trajectory.goal[:, i, -len(Regime) :]
    has_goal = bool(np.isfinite(regimes).any())
    days = thinned(len(trajectory.dates))
    height = 1.2 + 0.27 * table.shape[1] + (1.6 if has_goal else 0)
    figure = Figure(figsize=(READABLE, height), layout="constrained")
    ratios = [0.27 * table.shape[1], 1.5] if has_goal else [1]
    panels = np.atleast_1d(figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios))
    rows = [*np.asarray(market.sector_names)[shown].tolist(), "cash"]
    top = max(0.2, float(np.quantile(table, 0.995)))  # even weights should look pale
    _draw_heatmap(figure, panels[0], trajectory.dates[days], table[days], rows, top)
    if has_goal:
        names = REGIME_NAMES[result.config.objective.kind]
        _draw_regimes(panels[1], trajectory.dates[days], regimes[days], names)
    _date_axis(panels[-1])
    return figure


@styled
def largest_holdings(result: BacktestResult, analysis: Analysis, name: str) -> Figure:
    """Draw the weights of a policy's largest holdings over time, and of all others together."""
    trajectory, market = result.main, result.market
    held = trajectory.weights_after[:, column(trajectory, name)]
    symbols = analysis.holdings[name].largest
    chosen = held[:, [market.symbols.index(symbol) for symbol in symbols]]
    others = held.sum(axis=1, keepdims=True) - chosen.sum(axis=1, keepdims=True)
    days = thinned(len(trajectory.dates))
    figure = Figure(figsize=(READABLE, 1.2 + 0.27 * (len(symbols) + 1)), layout="constrained")
    axes = figure.subplots()
    table = np.concatenate([chosen, others], axis=1)
    top = max(0.1, float(chosen.max()))
    _draw_heatmap(figure, axes, trajectory.dates[days], table[days], [*symbols, "all others"], top)
    _date_axis(axes)
    return figure


@styled
def monthly_trades(analysis: Analysis) -> Figure:
    """Draw the purchases and sales a month of the policy that the page is about, and of 1/N."""
    figure = Figure(figsize=(READABLE, 2.4), layout="constrained")
    axes = figure.subplots()
    colours = {EQUAL_WEIGHT: INK, analysis.headline_name: BLUE}
    for name, colour in colours.items():
        trades = analysis.holdings[name].trades
        months = np.array(list(trades), "datetime64[M]").astype("datetime64[D]")
        axes.step(months, list(trades.values()), where="post", color=colour, label=name)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("trades a month")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    _date_axis(axes)
    return figure


@styled
def attribution_bars(analysis: Analysis) -> Figure:
    """Draw the excess over 1/N of each policy as a sum of its parts."""
    splits = list(analysis.attributions.values())[::-1]
    parts = {"sectors": BLUE, "stocks": ORANGE, "cash": SKY, "costs": VERMILION}
    figure = Figure(figsize=(READABLE, 1.3 + 0.3 * len(splits)), layout="constrained")
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
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def _line_styles(result: BacktestResult, analysis: Analysis) -> dict[str, dict[str, Any]]:
    """Draw the policy that the page is about and 1/N last and thick, other baselines pale."""
    own: Sequence[str] = analysis.own_names[: len(OWN_COLOURS)]
    styles: dict[str, dict[str, Any]] = {
        name: {"color": FADED, "linewidth": 0.8, "label": None, "zorder": 1.5}
        for name in result.main.names
        if name not in (EQUAL_WEIGHT, INDEX, *own)
    }
    styles[INDEX] = {"color": INK, "linewidth": 1.1, "linestyle": "--", "label": INDEX}
    for name, colour in list(zip(own, OWN_COLOURS, strict=False))[::-1]:
        styles[name] = {"color": colour, "linewidth": 1.2, "label": name, "zorder": 3}
    styles[EQUAL_WEIGHT] = {"color": INK, "linewidth": 2.2, "label": EQUAL_WEIGHT, "zorder": 4}
    if own:
        first = styles.pop(own[0])
        styles[own[0]] = {**first, "linewidth": 2.6, "zorder": 5}
    return styles


def _draw_heatmap(
    figure: Figure,
    axes: Axes,
    dates: np.ndarray,
    table: Float[np.ndarray, "D R"],
    rows: list[str],
    top: float,
) -> None:
    """Draw weights as opacity of one hue, which is readable on light and dark pages.

    Weights from `top` on have the full hue.
    """
    shades = LinearSegmentedColormap.from_list(
        "weights", [(0.0, 0.45, 0.7, 0.0), (0.0, 0.45, 0.7, 1.0)]
    )
    ends = np.append(dates, dates[-1] + np.timedelta64(1, "D"))
    mesh = axes.pcolormesh(
        ends, np.arange(len(rows) + 1), table.T, cmap=shades, vmin=0, vmax=top, rasterized=True
    )
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.invert_yaxis()
    axes.grid(visible=False)
    bar = figure.colorbar(
        mesh,
        ax=axes,
        pad=0.01,
        fraction=0.03,
        format=PercentFormatter(1, 0),
        extend="max" if table.max() > top else "neither",
    )
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
