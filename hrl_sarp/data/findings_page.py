"""The page of a validation: its findings by rule and symbol, and a picture of each kind."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure

from hrl_sarp.data.quality.validation import ValidationReport, summary
from hrl_sarp.data.store import RawData
from hrl_sarp.reporting.figure import BLUE, FADED, GREEN, PANEL_HEIGHT, VERMILION, WIDTH, styled
from hrl_sarp.reporting.page import Block, Drawing, Section, page
from hrl_sarp.run.files import write_text

PAGE_NAME = "validation.html"
_DAYS = 45
"""Calendar days that a picture shows on either side of its finding."""
_LOGARITHMIC = 3.0
"""Ratio of the largest to the smallest price from which on a picture has a logarithmic axis."""


def write_page(
    folder: Path, raw: RawData, report: ValidationReport, levels: pl.DataFrame | None = None
) -> Path:
    """Write `validation.html` into the folder.

    Args:
        folder: where `validation.json` lies.
        raw: the data.
        report: what was found in them.
        levels: `date, symbol, value`, the price that the market's returns make of each stock; None
            where no market can be made of the data.

    Returns:
        The path of the page.
    """
    verdict = "The data cannot be used." if report.has_failed else "The data can be used."
    lead = [
        f"{verdict} {report.table.height:,} findings in {report.n_bars:,} bars of "
        f"{report.n_symbols} symbols.",
        "Each kind has a picture of its first case. On the left are the prices as in the files, on "
        "the right what the returns of the market make of them.",
    ]
    sections = [Section("By rule and symbol", [summary(report)])]
    for (rule,), rows in report.table.group_by("rule", maintain_order=True):
        dated = rows.drop_nulls("date")
        if dated.height:
            first = dated.row(0, named=True)
            drawing = _picture(raw, levels, str(rule), first["symbol"], first["date"])
            if drawing is not None:
                sections.append(Section(str(rule), [drawing]))
    path = folder / PAGE_NAME
    write_text(path, page("Validation", str(folder), lead, sections))
    return path


def _picture(
    raw: RawData, levels: pl.DataFrame | None, rule: str, symbol: str, day: object
) -> Block | None:
    """Draw what the finding is about; None where it is about no price and no series."""
    before = _series(raw, symbol)
    after = None if levels is None else levels.filter(pl.col("symbol") == symbol)
    near = pl.col("date").is_between(
        pl.lit(day).cast(pl.Date) - timedelta(days=_DAYS),
        pl.lit(day).cast(pl.Date) + timedelta(days=_DAYS),
    )
    shown = before.filter(near)
    if shown.is_empty():
        return None
    kept = None if after is None else after.filter(near)
    figure = _draw(shown, kept, day)
    return Drawing(figure, f"finding-{rule}", f"{rule}: {symbol} around {day}")


def _series(raw: RawData, symbol: str) -> pl.DataFrame:
    """Return `date, value` and, for a stock, `low, high` of the table that the symbol is of."""
    bars = raw.bars.filter(pl.col("symbol") == symbol)
    if bars.height:
        return bars.select("date", "low", "high", value="close").sort("date")
    series = raw.macro.filter(pl.col("series") == symbol).select("date", "value")
    if symbol == "index":
        series = raw.index.select("date", value="close")
    nothing = pl.lit(None, dtype=pl.Float64)
    return series.with_columns(low=nothing, high=nothing).sort("date")


@styled
def _draw(shown: pl.DataFrame, kept: pl.DataFrame | None, day: object) -> Figure:
    n_panels = 1 if kept is None or kept.is_empty() else 2
    figure = Figure(figsize=(WIDTH, PANEL_HEIGHT), layout="constrained")
    axes = figure.subplots(1, n_panels, squeeze=False)[0]
    dates, value = shown["date"].to_numpy(), shown["value"].to_numpy()
    ranges = shown.select(pl.col("low").cast(pl.Float64), pl.col("high").cast(pl.Float64))
    axes[0].vlines(dates, *ranges.to_numpy().T, color=FADED, linewidth=2)
    axes[0].plot(dates, value, color=BLUE, marker=".", markersize=4, linewidth=1)
    axes[0].set_title("As in the files")
    if n_panels == 2 and kept is not None:
        axes[1].plot(
            kept["date"].to_numpy(), kept["value"].to_numpy(), color=GREEN, marker=".", linewidth=1
        )
        axes[1].set_title("As the market reads it, first bar = 1")
    for panel, numbers in zip(
        axes, (value, value if kept is None else kept["value"]), strict=False
    ):
        panel.axvline(np.datetime64(str(day)), color=VERMILION, linewidth=1, linestyle=":")
        locator = panel.xaxis.get_major_locator()
        panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]  # matplotlib
        positive = np.asarray(numbers, dtype=np.float64)
        positive = positive[np.isfinite(positive)]
        if len(positive) and positive.min() > 0 and np.ptp(np.log(positive)) > np.log(_LOGARITHMIC):
            panel.set_yscale("log")
    return figure
