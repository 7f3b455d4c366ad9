"""The charts of an evaluation: fans of single series, levels, coverage, tests by step."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from hrl_sarp.forecasters.evaluation.comparison import SIGN
from hrl_sarp.forecasters.evaluation.plan import INTERVALS, RollingPlan
from hrl_sarp.forecasters.evaluation.summary import BINS, NAIVE, Group, share_name
from hrl_sarp.reporting import charts
from hrl_sarp.reporting.charts import Chart, Line, Panel
from hrl_sarp.reporting.figure import BLUE, PALETTE
from hrl_sarp.reporting.table import percent

FANS = 24
"""Newest origins that a fan chart shows."""
EDGES = ("0.1", "0.5", "0.9", "y")
"""Columns of a fan: the ends of its band, its median, and what came."""
MOST_STEPS = 16
"""Steps that a chart has room for, first and last included."""
CAME = "what came"
TWO_SIDED = 1.96
"""Statistic beyond which a difference is shown, of many origins."""


def lines_of(names: Sequence[str]) -> dict[str, Line]:
    """Give each name a colour; when they are used up, names are pale."""
    colours = [*PALETTE, *[charts.FADED] * len(names)]
    return {name: Line(colour) for name, colour in zip(names, colours, strict=False)}


def fan_chart(name: str, title: str, rows: pl.DataFrame, plan: RollingPlan) -> Chart:
    """Draw the newest forecasts of one series beside what came.

    Args:
        name: unique on the page.
        title: begins the caption.
        rows: of one model and series.
        plan: of the forecasts.
    """
    apart = -(-plan.horizon // plan.every)  # so that fans do not overlap
    origins = rows["origin"].unique().sort(descending=True)[::apart][:FANS]
    shown = rows.filter(pl.col("origin").is_in(origins.to_list())).select(
        "origin", "step", "time", "last", *EDGES
    )
    first = shown.filter(pl.col("step") == 1).with_columns(
        pl.lit(0, pl.Int32).alias("step"),
        pl.col("origin").alias("time"),
        *(pl.col("last").alias(edge) for edge in EDGES),
    )
    gap = shown.filter(pl.col("step") == plan.horizon).with_columns(
        pl.col("step") + 1, *(pl.lit(np.nan).alias(edge) for edge in EDGES)
    )
    fans = pl.concat([shown, first, gap]).sort("origin", "step")
    low, point, high, came = (fans[edge].to_numpy() for edge in EDGES)
    symbol, model = rows["symbol"][0], rows["model"][0]
    caption = (
        f"{title}: {symbol}. Each fan begins at the last value that {model} knew; the band holds "
        "80 % by its forecast."
    )
    panel = Panel(
        symbol,
        {"median": point, CAME: came},
        charts.PRICE,
        band=("80 %", low, high),
        height=1.4,
    )
    lines = {CAME: Line(charts.INK, 1.2), "median": Line(BLUE, 2.2)}
    return charts.timeline(name, caption, fans["time"].to_numpy(), [panel], lines)


def pit_chart(name: str, groups: Sequence[Group], titles: Mapping[str, str]) -> Chart:
    """Draw at which levels of their forecasts the values fell."""
    shares = {titles[group.model]: np.array(group.pit) for group in groups if group.pit}
    bins = [f"{i / BINS:.1f} to {(i + 1) / BINS:.1f}" for i in range(BINS)]
    caption = (
        "At which level of its forecast each value fell. True densities have the same share in "
        "every bin (dotted): a valley means that forecasts are too narrow, a hill too wide, a "
        "slope that they lean to one side."
    )
    axes = ("level", "share of values")
    return charts.grouped(name, caption, bins, shares, axes, lines_of(list(shares)), (1 / BINS,))


def coverage_chart(name: str, groups: Sequence[Group], titles: Mapping[str, str]) -> Chart:
    """Draw by how much the share of values inside the intervals differs from the asked one."""
    found = {
        titles[group.model]: np.array(
            [100.0 * (group.mean(f"coverage_{share_name(share)}") - share) for share in INTERVALS]
        )
        for group in groups
        if group.pit
    }
    caption = (
        "Share of values inside the central intervals less the asked share, mean over series, in "
        "points of percent: above 0 intervals are too wide, below 0 too narrow."
    )
    labels = [percent(share, 0) for share in INTERVALS]
    axes = ("interval", "points of percent")
    return charts.grouped(name, caption, labels, found, axes, lines_of(list(found)))


def step_chart(name: str, groups: Sequence[Group], titles: Mapping[str, str]) -> Chart:
    """Draw the statistic of Diebold and Mariano against the last value for each step ahead."""
    others = [group for group in groups if group.model != NAIVE]
    n_steps = len(others[0].by_step)
    shown = np.unique(np.linspace(0, n_steps - 1, min(n_steps, MOST_STEPS)).astype(int))
    found = {
        titles[group.model]: np.array([group.by_step[step].statistic for step in shown])
        for group in others
    }
    labels = [str(step + 1) for step in shown]
    caption = (
        "Diebold-Mariano statistic of absolute errors against the last value, step by step: "
        f"{SIGN}. Beyond the dotted lines a difference is shown. No bar: the errors are the same."
    )
    axes = ("step ahead", "statistic")
    lines = lines_of(list(found))
    return charts.grouped(name, caption, labels, found, axes, lines, (-TWO_SIDED, TWO_SIDED))
