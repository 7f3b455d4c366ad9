"""The report of a backtest: what it says first, then tables and figures, in files and on screen."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console, Group

from hrl_sarp.evaluation import figures, tables
from hrl_sarp.evaluation.analysis import Analysis, MonthlyReturns, analyse
from hrl_sarp.evaluation.attribution import LevelSwaps
from hrl_sarp.evaluation.backtest import BacktestResult
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.ledger import REPORT_NAME, provenance, write_ledgers
from hrl_sarp.evaluation.page import Section, definitions_html, details_html, figure_html, page
from hrl_sarp.evaluation.tables import NONE, Table, number, percent, to_html
from hrl_sarp.run.files import write_text

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MOST_DRAWN = 6
"""Policies whose sectors are drawn; each figure adds 100 kB to the page."""


def write_backtest(
    result: BacktestResult, out_dir: Path, swaps: LevelSwaps | None = None
) -> Analysis:
    """Write `ledger.parquet`, `daily.parquet`, `metrics.json` and `report.html` into a folder.

    Args:
        result: the rollouts.
        out_dir: made if needed, usually `logs/backtest`.
        swaps: names of the four policies of the level swap, if they were run.

    Returns:
        The figures that were written.
    """
    analysis = analyse(result, swaps)
    write_ledgers(result, analysis, out_dir)
    write_text(out_dir / REPORT_NAME, render_page(result, analysis))
    return analysis


def print_summary(result: BacktestResult, analysis: Analysis, console: Console) -> None:
    """Show the main table and the sentences above it on the terminal."""
    table = tables.terminal_table(result, analysis, console.width)
    sentences = [f"  {sentence}" for sentence in headline(result, analysis)]
    console.print(Group(tables.to_rich(table), "", *sentences))


def headline(result: BacktestResult, analysis: Analysis) -> list[str]:
    """Say in a few sentences what the backtest shows and what it cannot show."""
    sentences = [_what_happened(result, analysis), _what_could_be_seen(analysis)]
    sentences.append(
        f"The index is: {result.market.benchmark_name}. No method is expected to beat 1/N net of "
        "costs on real prices; finding no difference is the expected result, not a failure."
    )
    survivorship = result.market.manifest.get("survivorship")
    sentences.append(
        f"Survivorship: {survivorship.rstrip('.')}."
        if survivorship
        else "Survivorship: the data do not say whether stocks that vanished are in them; if they "
        "are not, every figure here is too high, 1/N's included."
    )
    return sentences


def render_page(result: BacktestResult, analysis: Analysis) -> str:
    """Write the whole report as one HTML page."""
    main, facts = result.main, provenance(result)
    title = f"Backtest of {analysis.headline_name} on {result.market.name}"
    subtitle = (
        f"{result.span_name} span, {main.dates[0]} to {main.dates[-1]}, {len(main.dates)} sessions "
        f"({number(analysis.years, 1)} years), {facts['stocks']} stocks, seed {facts['seed']}"
    )
    return page(title, subtitle, headline(result, analysis), list(_sections(result, analysis)))


def monthly_table(monthly: MonthlyReturns, name: str) -> Table:
    """Lay out one policy's months by year, with the year beside that of 1/N."""
    by_month = dict(zip(monthly.months, monthly.returns[name], strict=True))
    base = dict(zip(monthly.months, monthly.returns[EQUAL_WEIGHT], strict=True))
    rows = []
    for year in sorted({month[:4] for month in monthly.months}):
        keys = [f"{year}-{month:02d}" for month in range(1, 13)]
        cells = [number(100 * by_month[key], 1) if key in by_month else NONE for key in keys]
        own, other = (
            float(np.prod([1.0 + values[key] for key in keys if key in values]) - 1.0)
            for values in (by_month, base)
        )
        rows.append((year, *cells, number(100 * own, 1), number(100 * (own - other), 1)))
    header = ("year", *MONTHS, "year", "over 1/N")
    note = f"Net returns of {name} in percent; the first and last month may be incomplete."
    return Table(f"Monthly returns of {name}", header, rows, note)


def _what_happened(result: BacktestResult, analysis: Analysis) -> str:
    own, base = (analysis.performances[name] for name in (analysis.headline_name, EQUAL_WEIGHT))
    grew = f"1/N grew {percent(base.annual_return)} a year net of costs"
    if own is base:
        return f"No policy was handed in: these are the baselines. {grew}."
    excess, level = own.growth_excess, result.config.evaluation.confidence
    if excess.low > 0:
        verdict = "above zero"
    elif excess.high < 0:
        verdict = "below zero"
    else:
        verdict = "zero is in it, so this span shows no difference"
    direction = "more" if excess.value >= 0 else "less"
    return (
        f"{own.name} grew {percent(own.annual_return)} a year net of costs, {grew}. In log growth "
        f"that is {percent(abs(excess.value))} a year {direction}; the "
        f"{level:.0%} interval of the difference is {percent(excess.low)} "
        f"to {percent(excess.high)}: {verdict}. Allowing for {result.n_trials} policies and "
        f"checkpoints looked at, the deflated Sharpe ratio is {number(own.deflated_sharpe)} "
        "(certified above 0.95)."
    )


def _what_could_be_seen(analysis: Analysis) -> str:
    return (
        f"With {number(analysis.years, 1)} years the smallest information ratio that could be told "
        f"from luck (80 % power) is {number(analysis.smallest_information_ratio, 1)} a year."
    )


def _sections(result: BacktestResult, analysis: Analysis) -> Iterator[Section]:
    detail = to_html(tables.detail_table(result, analysis))
    yield Section(
        "All policies",
        to_html(tables.main_table(result, analysis)) + details_html("Risk and shape", detail),
    )
    yield Section("Is it more than luck?", _excess_figure(result, analysis))
    yield Section("Wealth and drawdown", _wealth_figures(result, analysis))
    yield Section("Sectors and regimes", _sector_figures(result, analysis))
    yield Section(f"Month by month: {analysis.headline_name}", _monthly(result, analysis))
    yield Section("Where the difference comes from", _attribution(result, analysis))
    yield Section("Turnover and costs", _costs(result, analysis))
    yield Section("Other frictions", to_html(tables.variants_table(result, analysis)))
    yield Section("Where the numbers come from", _provenance(result))


def _excess_figure(result: BacktestResult, analysis: Analysis) -> str:
    section = result.config.evaluation
    caption = (
        "Net log growth over 1/N. Intervals resample the same dates for all policies in blocks of "
        f"{section.bootstrap_block_days} sessions on average, {section.bootstrap_samples} times. "
        "The bar of the random stocks is their spread over draws, not an interval of dates."
    )
    return figure_html(figures.excess_intervals(result, analysis), "excess", caption)


def _wealth_figures(result: BacktestResult, analysis: Analysis) -> str:
    wealth = (
        "Wealth net of costs and its loss from the running peak. Thin grey lines are the other "
        "baselines, the grey area holds the middle 90 % of the portfolios of random stocks."
    )
    sharpe = "Sharpe ratio of the trailing window, on returns in excess of cash."
    return figure_html(
        figures.wealth_and_drawdown(result, analysis), "wealth", wealth
    ) + figure_html(figures.rolling_sharpe(result, analysis), "sharpe", sharpe)


def _sector_figures(result: BacktestResult, analysis: Analysis) -> str:
    names = list(analysis.own_names) or [EQUAL_WEIGHT]
    drawings = []
    for i, name in enumerate(names[:MOST_DRAWN]):
        caption = f"{name}: share of wealth by sector after each trade"
        if name in analysis.regime_scores:
            caption += ", and the regime probabilities of the goal in force"
        drawing = figures.sectors_and_regimes(result.main, result.market, name)
        shown = figure_html(drawing, f"sectors{i}", caption + ".")
        drawings.append(shown if i == 0 else details_html(f"The same for {name}", shown))
    if analysis.regime_scores:
        drawings.append(to_html(tables.regime_table(analysis)))
    return "".join(drawings)


def _monthly(result: BacktestResult, analysis: Analysis) -> str:
    names = [*analysis.own_names, EQUAL_WEIGHT]
    return to_html(monthly_table(analysis.monthly, names[0])) + "".join(
        details_html(f"The same for {name}", to_html(monthly_table(analysis.monthly, name)))
        for name in names[1:]
    )


def _attribution(result: BacktestResult, analysis: Analysis) -> str:
    caption = "Mean return over 1/N, split into the decisions that earned it."
    drawing = figure_html(figures.attribution_bars(analysis), "attribution", caption)
    return drawing + to_html(tables.attribution_table(result, analysis))


def _costs(result: BacktestResult, analysis: Analysis) -> str:
    caption = (
        "One-sided turnover by calendar month, in shares of wealth; the entry is in the first."
    )
    drawing = figure_html(figures.monthly_turnover(result, analysis), "turnover", caption)
    return drawing + to_html(tables.cost_table(result, analysis))


def _provenance(result: BacktestResult) -> str:
    facts = provenance(result)
    labels = {"trials": "policies and checkpoints looked at"}
    pairs = [
        (labels.get(name, name.replace("_", " ")), facts[name]) for name in facts if name != "spans"
    ]
    pairs += [
        (f"{name} span", f"{first} to {last}") for name, (first, last) in facts["spans"].items()
    ]
    pairs += [(key, result.market.manifest[key]) for key in ("source", "adjustment", "risk_free")
              if key in result.market.manifest]  # fmt: skip
    return definitions_html([(name, NONE if v is None else str(v)) for name, v in pairs])
