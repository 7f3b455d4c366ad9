"""The tables of a backtest, which terminal, page and Markdown share."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hrl_sarp.contracts import REGIME_NAMES
from hrl_sarp.evaluation.attribution import LARGEST
from hrl_sarp.evaluation.backtest import BacktestResult
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.performance import BY_NAME, MEASURES, Measure, column
from hrl_sarp.evaluation.report.analysis import Analysis, LuckRange
from hrl_sarp.reporting.table import NONE, Table, number, percent, signed
from hrl_sarp.training.acceptance import PRIOR

NOTHING = ("nothing", NONE)
"""What was asked for or granted, and its gain, where the policy of the beginning stays."""
RANDOM_RANGE = "random, 5 % to 95 %"
FIRST_SHOWN = ("annual_return", "volatility", "max_drawdown", "sharpe")
"""Measures that a narrow terminal shows first."""
EXPLAINED = {
    "certainty_equivalent_5": "CE: certainty equivalent, mean return less gamma / 2 x variance.",
    "certainty_equivalent_10": "CE: certainty equivalent, mean return less gamma / 2 x variance.",
    "turnover": "Turnover is one-sided, in multiples of wealth.",
}
"""Explanations of measures in the main table."""
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def luck_cells(luck: Mapping[str, LuckRange], measures: Sequence[str]) -> list[tuple[str, ...]]:
    """Write two rows of the random portfolios: mean ± standard deviation, then 5 % to 95 %.

    A measure without a range is written as a dash.
    """
    means, ranges = [], []
    for name in measures:
        found = luck.get(name)
        if found is None:
            means.append(NONE)
            ranges.append(NONE)
            continue
        form = BY_NAME[name].form
        means.append(f"{form(found.mean)} ± {form.bare(found.deviation)}")
        ranges.append(f"{form.bare(found.low)} to {form(found.high)}")
    return [tuple(means), tuple(ranges)]


def main_table(result: BacktestResult, analysis: Analysis) -> Table:
    """Lay out the ranked measures of all policies, risk first, net of costs, with intervals."""
    measures = [measure for measure in MEASURES if measure.rank is not None]
    header, rows = _measured(measures, result, analysis)
    places = {measure.name: place for place, measure in enumerate(measures, start=1)}
    ranks = {place: measure.rank or 0 for place, measure in enumerate(measures, start=1)}
    first = [places[name] for name in FIRST_SHOWN]
    others = [place for place in sorted(ranks, key=ranks.__getitem__) if place not in first]
    notes = {places[name]: text for name, text in EXPLAINED.items()}
    note = "A year, net of costs."
    table = Table("All policies", header, rows, note, _emphasised(result), (0, *first, *others))
    return replace(table, column_notes=notes)


def luck_table(result: BacktestResult, analysis: Analysis) -> Table:
    """Lay out what random portfolios reached, one row a measure."""
    means, ranges = luck_cells(analysis.luck, list(analysis.luck))
    level = f"{result.config.evaluation.confidence:.0%}"
    names = [BY_NAME[name].heading.format(level=level).split(" [")[0] for name in analysis.luck]
    rows = list(zip(names, means, ranges, strict=True))
    title = f"{result.config.evaluation.random_portfolios} random portfolios"
    return Table(title, ("measure", "mean ± sd", "5 % to 95 %"), rows, "The spread over draws.")


def grants_table(analysis: Analysis) -> Table:
    """Lay out what each phase asked for and what the evidence granted."""
    header = ("what", "asked for", "its mean gain, % a year", "granted", "at least")
    rows = []
    for name, found in analysis.grants.items():
        at = {row.candidate: row for row in found.evidence}
        asked, granted = at[found.asked], at[found.granted]
        pairs = ((asked.candidate, asked.mean_pct), (granted.candidate, granted.lower_pct))
        cells = [(f"{each:g}", signed(gain)) if each != PRIOR else NOTHING for each, gain in pairs]
        rows.append((name, *cells[0], *cells[1]))
    note = (
        "Gain of the objective over the policy that the phase began with, on days it was not "
        "trained on; of a share, over the classical prior. Granted is what the lower confidence "
        "bound of the gain supports. Nothing: that policy stays."
    )
    return Table("Asked for and granted", header, rows, note)


def detail_table(result: BacktestResult, analysis: Analysis) -> Table:
    """Lay out the measures without a rank: risk and shape of every policy."""
    measures = [measure for measure in MEASURES if measure.rank is None]
    header, rows = _measured(measures, result, analysis)
    note = (
        "Deflated Sharpe is about the appraisal ratio over 1/N. For policies it allows for "
        f"{configurations(result.trials.count)} evaluated on the span or by tuning. A baseline was "
        "fixed before, so its own allows for no other."
    )
    return Table("Risk and shape", header, rows, note, _emphasised(result))


def monthly_table(analysis: Analysis, name: str) -> Table:
    """Lay out one policy's months by year, in percent, with the year beside that of 1/N."""
    monthly = analysis.monthly
    by_month, base = (
        dict(zip(monthly.months, monthly.returns[each], strict=True))
        for each in (name, EQUAL_WEIGHT)
    )
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


def variants_table(result: BacktestResult, analysis: Analysis) -> Table:
    """Lay out net return and excess under other frictions."""
    header = ["policy", "as configured"]
    header += [f"{name}{tail}" for name in analysis.variants for tail in ("", ": over 1/N")]
    rows = []
    for name, performance in analysis.performances.items():
        row = [name, percent(performance["annual_return"])]
        for figures in analysis.variants.values():
            row += [percent(figures[name][key]) for key in ("annual_return", "growth_excess")]
        rows.append(tuple(row))
    note = (
        "Net return a year, and log growth over 1/N under the same frictions. A method that "
        "collapses when its orders are one session late has probably seen future data."
    )
    return Table("Other frictions", tuple(header), rows, note, _emphasised(result))


def attribution_table(result: BacktestResult, analysis: Analysis) -> Table:
    """Lay out the excess over 1/N by decision, in percent a year."""
    parts = ("sectors", "stocks", "cash", "costs", "residual", "total")
    rows = [
        (name, *(percent(getattr(split, part)) for part in parts))
        for name, split in analysis.attributions.items()
    ]
    note = (
        "Mean daily excess times the sessions of a year (arithmetic), split after Brinson and "
        "Fachler. Sectors are the macro agent's decision, stocks inside them the micro agent's."
    )
    gains = analysis.level_gains
    if gains is not None:
        note += (
            f" Swapping one level at a time for its rule: macro {percent(gains.macro)}, micro "
            f"{percent(gains.micro)} of log growth a year (interaction {percent(gains.interaction)}"
            ", half in each)."
        )
    header = ("policy", *parts[:-1], "excess over 1/N")
    return Table("Attribution", header, rows, note, _emphasised(result))


def cost_table(result: BacktestResult, analysis: Analysis) -> Table:
    """Lay out the costs by kind, in basis points of wealth a year."""
    header = ("policy", "all costs, bps a year", "purchases", "sales", "slippage", "impact")
    rows = [
        (name, *(number(value, 1) for value in parts)) for name, parts in analysis.cost_bps.items()
    ]
    costs = result.config.market_profile.costs
    note = (
        f"Rates: purchases {costs.buy_bps:g} bps, sales {costs.sell_bps:g} bps, slippage "
        f"{costs.slippage_bps:g} bps a side; impact coefficient {costs.impact_coefficient:g}."
    )
    return Table("Costs", header, rows, note, _emphasised(result))


def last_weights_table(result: BacktestResult, analysis: Analysis, name: str) -> Table:
    """Lay out what a policy held after its last trade, the largest holdings first."""
    last = analysis.holdings[name].last
    shown = list(last)[:LARGEST]
    rows = [(symbol, _sector(result, symbol), percent(last[symbol])) for symbol in shown]
    if len(last) > len(shown):
        rest = sum(last.values()) - sum(last[symbol] for symbol in shown)
        rows.append((f"{len(last) - len(shown)} others", NONE, percent(rest)))
    rows.append(("cash", NONE, percent(1.0 - sum(last.values()))))
    note = f"{name} after the trade of {result.main.dates[-1]}, as shares of wealth."
    header = ("stock", "sector", "weight")
    return Table("Last weights", header, rows, note, text_columns=frozenset({0, 1}))


def contributions_table(result: BacktestResult, analysis: Analysis, name: str) -> Table:
    """Lay out the stocks that earned most for a policy, and those that cost it most."""
    found = analysis.holdings[name].contributions
    symbols = list(found)
    half = LARGEST // 2
    shown = [*symbols[:half], *symbols[half:][-half:]]
    held = result.main.weights_after[:, column(result.main, name)].mean(axis=0)
    rows = [
        (
            symbol,
            _sector(result, symbol),
            percent(float(held[result.market.symbols.index(symbol)])),
            percent(found[symbol], 2),
        )
        for symbol in shown
    ]
    note = (
        f"The {half} stocks that earned {name} most and the {half} that earned it least or cost it "
        "most, of "
        f"{len(found)} that it held: their part of the mean return a year, before costs."
    )
    header = ("stock", "sector", "mean weight", "contribution a year")
    return Table("Contributions", header, rows, note, text_columns=frozenset({0, 1}))


def _sector(result: BacktestResult, symbol: str) -> str:
    market = result.market
    return market.sector_names[market.sector_of[market.symbols.index(symbol)]]


def regime_table(result: BacktestResult, analysis: Analysis) -> Table:
    """Lay out the log loss of the regime probabilities beside the prior's."""
    kind = result.config.objective.kind
    header = ("policy", "log loss", "prior's log loss", "gain", "sessions")
    rows = [
        (
            name,
            number(score.log_loss, 3),
            number(score.prior_log_loss, 3),
            number(score.prior_log_loss - score.log_loss, 3),
            str(score.sessions),
        )
        for name, score in analysis.regime_scores.items()
    ]
    note = (
        "Nats per session, lower is better. The prior is the class shares of the training span. "
        f"The classes are {', '.join(REGIME_NAMES[kind])}. "
    )
    note += (
        "They are the terciles of the market's later volatility, which real prices do foretell."
        if kind == "risk"
        else "On real data no gain is the expected result."
    )
    return Table("Regime predictions", header, rows, note)


def _measured(
    measures: Sequence[Measure], result: BacktestResult, analysis: Analysis
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    level = f"{result.config.evaluation.confidence:.0%}"
    header = ("policy", *(measure.heading.format(level=level) for measure in measures))
    rows = [
        (name, *(measure.cell(name, performance) for measure in measures))
        for name, performance in analysis.performances.items()
    ]
    return header, rows


def configurations(count: int) -> str:
    """Write a number of configurations."""
    return f"{count} configuration{'' if count == 1 else 's'}"


def _emphasised(result: BacktestResult) -> frozenset[str]:
    return frozenset({*result.policy_names, EQUAL_WEIGHT})
