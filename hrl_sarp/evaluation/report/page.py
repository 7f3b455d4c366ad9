"""Writes the report of a backtest: a summary, then tables and figures, in files and on screen."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from hrl_sarp.evaluation.attribution import LevelSwaps
from hrl_sarp.evaluation.backtest import BacktestResult
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.performance import MEASURES, Performance
from hrl_sarp.evaluation.report import figures, tables
from hrl_sarp.evaluation.report.analysis import Analysis, analyse
from hrl_sarp.evaluation.report.files import REPORT_NAME, provenance, write_ledgers
from hrl_sarp.evaluation.statistics import CERTIFIED
from hrl_sarp.reporting.page import Block, Drawing, Facts, Fold, Section, page
from hrl_sarp.reporting.table import NONE, number, paragraphs, percent
from hrl_sarp.run.files import write_text

MOST_DRAWN = 6
"""Number of policies whose sectors are drawn. Each figure adds 100 kB to the page."""


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
    """Show the main table and the sentences below it on the terminal.

    Args:
        result: the rollouts.
        analysis: of them.
        console: as wide as the terminal; the table keeps the columns that fit.
    """
    console.print(tables.main_table(result, analysis), paragraphs(headline(result, analysis)))


def headline(result: BacktestResult, analysis: Analysis) -> list[str]:
    """Say in a few sentences what the backtest shows and what it cannot show."""
    own, base = (analysis.performances[name] for name in (analysis.headline_name, EQUAL_WEIGHT))
    grew = f"1/N grew {percent(base['annual_return'])} a year net of costs"
    happened = f"No policy was handed in: these are the baselines. {grew}."
    if own is not base:
        excess, level = own["growth_excess"], result.config.evaluation.confidence
        if excess.low > 0:
            verdict = "above zero"
        elif excess.high < 0:
            verdict = "below zero"
        else:
            verdict = "zero is in it, so this span shows no difference"
        happened = (
            f"{analysis.headline_name} grew {percent(own['annual_return'])} a year net of costs, "
            f"{grew}. In log growth that is {percent(abs(excess.value))} a year "
            f"{'more' if excess.value >= 0 else 'less'}; the {level:.0%} interval of the "
            f"difference is {percent(excess.low)} to {percent(excess.high)}: {verdict}. "
            f"{_verdict(result, own)}"
        )
    survivorship = result.market.manifest.get("survivorship")
    return [
        happened,
        _seen_before(result),
        f"With {number(analysis.years, 1)} years the smallest information ratio that could be told "
        f"from luck (80 % power) is {number(analysis.smallest_information_ratio, 1)} a year.",
        f"The index is: {result.market.benchmark_name}. No method is expected to beat 1/N net of "
        "costs on real prices; finding no difference is the expected result, not a failure.",
        f"Survivorship: {survivorship.rstrip('.')}."
        if survivorship
        else "Survivorship: the data do not say whether stocks that vanished are in them; if they "
        "are not, every figure here is too high, 1/N's included.",
    ]


def _verdict(result: BacktestResult, own: Performance) -> str:
    """Say whether the policy earns more than 1/N mixed with cash, beyond the luck of all trials."""
    probability = own["deflated_sharpe"]
    is_certified = probability > CERTIFIED
    return (
        f"Against 1/N mixed with cash to the same beta its appraisal ratio is "
        f"{number(own['appraisal_ratio'])} a year; {number(own['needed_appraisal_ratio'])} is "
        f"needed, corrected for {tables.configurations(result.trials.count)} evaluated on the "
        f"span. So it is {'' if is_certified else 'not '}certified: its deflated Sharpe ratio is "
        f"{number(probability)}, and above {number(CERTIFIED)} certifies."
    )


def _seen_before(result: BacktestResult) -> str:
    """Say how fresh the span is."""
    history = result.history
    if history is None:
        return f"Without a trial log, earlier looks at the {result.span_name} span are unknown."
    if history.openings == 0:
        return f"The {result.span_name} span was opened for the first time, says the trial log."
    times = "once" if history.openings == 1 else f"{history.openings} times"
    return (
        f"The {result.span_name} span was opened {times} before, by "
        f"{tables.configurations(history.configurations)}. What was chosen after a look at it is "
        "no longer tested by it."
    )


def render_page(result: BacktestResult, analysis: Analysis) -> str:
    """Write the whole report as one HTML page; the same result gives the same text."""
    main, facts = result.main, provenance(result)
    title = f"Backtest of {analysis.headline_name} on {result.market.name}"
    subtitle = (
        f"{result.span_name} span, {main.dates[0]} to {main.dates[-1]}, {len(main.dates)} sessions "
        f"({number(analysis.years, 1)} years), {facts['stocks']} stocks, seed {facts['seed']}"
    )
    return page(title, subtitle, headline(result, analysis), list(_sections(result, analysis)))


def _sections(result: BacktestResult, analysis: Analysis) -> Iterator[Section]:
    section, headline_name = result.config.evaluation, analysis.headline_name
    meanings = [(m.heading.split(" [")[0], m.meaning) for m in MEASURES if m.meaning]
    detail = Fold("Risk and shape", [tables.detail_table(result, analysis)])
    about = Fold("What the columns mean", [Facts(meanings)])
    yield Section("All policies", [tables.main_table(result, analysis), detail, about])
    caption = (
        "Net log growth over 1/N. Intervals resample the same dates for all policies in blocks of "
        f"{section.bootstrap_block_days} sessions on average, {section.bootstrap_samples} times. "
        "The bar of the random stocks is their spread over draws, not an interval of dates."
    )
    drawing = Drawing(figures.excess_intervals(result, analysis), "excess", caption)
    yield Section("Is it more than luck?", [drawing])
    caption = (
        "Wealth net of costs and its loss from the running peak. Thin grey lines are the other "
        "baselines, the grey area holds the middle 90 % of the portfolios of random stocks."
    )
    wealth = Drawing(figures.wealth_and_drawdown(result, analysis), "wealth", caption)
    caption = "Sharpe ratio of the trailing window, on returns in excess of cash."
    sharpe = Drawing(figures.rolling_sharpe(result, analysis), "sharpe", caption)
    yield Section("Wealth and drawdown", [wealth, sharpe])
    yield Section("Sectors and regimes", list(_sector_blocks(result, analysis)))
    others = [*analysis.own_names, EQUAL_WEIGHT][1:] if analysis.own_names else []
    months: list[Block] = [
        tables.monthly_table(analysis, headline_name),
        *(Fold(f"The same for {name}", [tables.monthly_table(analysis, name)]) for name in others),
    ]
    yield Section(f"Month by month: {headline_name}", months)
    caption = "Mean return over 1/N, split into the decisions that earned it."
    bars = Drawing(figures.attribution_bars(analysis), "attribution", caption)
    split = tables.attribution_table(result, analysis)
    yield Section("Where the difference comes from", [bars, split])
    caption = (
        "One-sided turnover by calendar month, in shares of wealth; the entry is in the first."
    )
    turnover = Drawing(figures.monthly_turnover(result, analysis), "turnover", caption)
    yield Section("Turnover and costs", [turnover, tables.cost_table(result, analysis)])
    yield Section("Other frictions", [tables.variants_table(result, analysis)])
    yield Section("Where the numbers come from", [_provenance(result)])


def _sector_blocks(result: BacktestResult, analysis: Analysis) -> Iterator[Block]:
    names = list(analysis.own_names) or [EQUAL_WEIGHT]
    for i, name in enumerate(names[:MOST_DRAWN]):
        caption = f"{name}: share of wealth by sector after each trade"
        if name in analysis.regime_scores:
            caption += ", and the regime probabilities of the goal in force"
        figure = figures.sectors_and_regimes(result.main, result.market, name)
        drawing = Drawing(figure, f"sectors{i}", caption + ".")
        yield drawing if i == 0 else Fold(f"The same for {name}", [drawing])
    if analysis.regime_scores:
        yield tables.regime_table(analysis)


def _provenance(result: BacktestResult) -> Facts:
    facts = provenance(result)
    labels = {"trials": "configurations evaluated on the span"}
    pairs = [
        (labels.get(name, name.replace("_", " ")), facts[name])
        for name in facts
        if name not in {"spans", "seen_before"}
    ]
    pairs += [
        (f"{name} span", f"{first} to {last}") for name, (first, last) in facts["spans"].items()
    ]
    pairs += [(key, result.market.manifest[key]) for key in ("source", "adjustment", "risk_free")
              if key in result.market.manifest]  # fmt: skip
    return Facts([(name, NONE if value is None else str(value)) for name, value in pairs])
