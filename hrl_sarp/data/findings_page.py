"""The page of a validation: its findings by rule and symbol, and a picture of each kind."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from hrl_sarp.data.quality.validation import ValidationReport, effect_of, summary
from hrl_sarp.data.store import RawData
from hrl_sarp.reporting.figure import BLUE, FADED, GREEN, NARROW, PANEL_HEIGHT, VERMILION, styled
from hrl_sarp.reporting.page import Drawing, Row, Section, page
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
        "Each kind has a picture of its first case: the prices as in the files, and what the "
        "returns of the market make of them. The dotted line is the day that was found.",
    ]
    sections = [Section("By rule and symbol", [summary(report)])]
    for (rule,), rows in report.table.group_by("rule", maintain_order=True):
        dated = rows.drop_nulls("date")
        drawings = _pictures(raw, levels, dated.row(0, named=True)) if dated.height else []
        if drawings:
            sections.append(Section(str(rule), [Row(drawings)]))
    path = folder / PAGE_NAME
    write_text(path, page("Validation", str(folder), lead, sections))
    return path


def _pictures(raw: RawData, levels: pl.DataFrame | None, finding: dict[str, Any]) -> list[Drawing]:
    """Draw what a finding is about; nothing where it is about no price and no series."""
    rule, symbol, day = finding["rule"], finding["symbol"], finding["date"]
    around = timedelta(days=_DAYS)
    near = pl.col("date").is_between(pl.lit(day - around), pl.lit(day + around))
    shown = _series(raw, symbol).filter(near)
    if shown.is_empty():
        return []
    told = f"{rule}: {symbol} around {day}, {effect_of(rule, finding['severity'])}"
    told += f". {finding['detail']}" if finding["detail"] else ""
    in_files = _draw("As in the files", shown, day, BLUE)
    drawings = [Drawing(in_files, f"files-{rule}", f"{told.rstrip('.')}.")]
    if levels is not None:
        kept = levels.filter(near & (pl.col("symbol") == symbol)).sort("date")
        if not kept.is_empty():
            as_read = kept.with_columns(pl.col("value") / pl.col("value").first())
            drawn = _draw("As the market reads it, first bar here = 1", as_read, day, GREEN)
            drawings.append(Drawing(drawn, f"market-{rule}", f"{symbol} by the market's returns."))
    return drawings


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
def _draw(title: str, shown: pl.DataFrame, day: date, colour: str) -> Figure:
    """Draw the values around a day, with the ranges of the bars where there are any."""
    figure = Figure(figsize=(NARROW, PANEL_HEIGHT), layout="constrained")
    axes = figure.subplots()
    dates, values = shown["date"].to_numpy(), shown["value"].cast(pl.Float64).to_numpy()
    if "low" in shown.columns:
        ranges = shown.select(pl.col("low", "high").cast(pl.Float64))
        axes.vlines(dates, *ranges.to_numpy().T, color=FADED, linewidth=2)
    axes.plot(dates, values, color=colour, marker=".", markersize=4, linewidth=1)
    at: Any = np.datetime64(day)  # matplotlib takes days, its types do not
    axes.axvline(at, color=VERMILION, linewidth=1, linestyle=":")
    axes.set_xlim(at - _DAYS, at + _DAYS)
    axes.set_title(title)
    locator = AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]  # matplotlib
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]  # matplotlib
    positive = values[np.isfinite(values)]
    if len(positive) and positive.min() > 0 and np.ptp(np.log(positive)) > np.log(_LOGARITHMIC):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    return figure
