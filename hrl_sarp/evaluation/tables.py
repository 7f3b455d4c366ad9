"""The tables of a backtest as plain text cells; terminal, page and Markdown show the same ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

import rich.table
from rich.markup import escape as escape_markup

from hrl_sarp.evaluation.analysis import Analysis, LuckRange
from hrl_sarp.evaluation.backtest import BacktestResult
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.performance import Performance
from hrl_sarp.evaluation.rollout import INDEX
from hrl_sarp.evaluation.statistics import Interval

NONE = "–"  # noqa: RUF001 -- an en dash for what does not exist
RANDOM_RANGE = "random, 5 % to 95 %"

CELL_BORDER = 3
"""Characters of a terminal's table beside each cell."""


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""
    emphasised: frozenset[str] = frozenset()
    """Names of rows that are set in bold."""


def percent(value: float | None, digits: int = 1) -> str:
    """Write a fraction in percent, with a real minus sign."""
    return NONE if value is None else number(100 * value, digits) + " %"


def number(value: float | None, digits: int = 2) -> str:
    """Write a number with a real minus sign, and zero without one."""
    if value is None:
        return NONE
    text = f"{value:.{digits}f}"
    return text.replace("-", "" if float(text) == 0 else "\N{MINUS SIGN}")


def spread(interval: Interval, digits: int, scale: float = 1.0) -> str:
    """Write an estimate with its interval in brackets."""
    value, low, high = (
        number(scale * bound, digits) for bound in (interval.value, interval.low, interval.high)
    )
    return f"{value} [{low}, {high}]"


class LuckCells(NamedTuple):
    """What the random portfolios say under the columns that other rows fill too."""

    annual: str
    sharpe: str
    excess: str
    drawdown: str


def luck_cells(luck: Mapping[str, LuckRange]) -> tuple[LuckCells, LuckCells]:
    """Write the mean ± deviation over the random portfolios, and their 5 % to 95 % range."""
    annual, sharpe = luck["annual_return"], luck["sharpe"]
    excess, drawdown = luck["growth_excess"], luck["max_drawdown"]
    means = LuckCells(
        f"{percent(annual.mean)} ± {number(100 * annual.deviation, 1)}",
        f"{number(sharpe.mean)} ± {number(sharpe.deviation)}",
        f"{number(100 * excess.mean, 1)} ± {number(100 * excess.deviation, 1)}",
        f"{percent(drawdown.mean)} ± {number(100 * drawdown.deviation, 1)}",
    )
    ranges = LuckCells(
        f"{number(100 * annual.low, 1)} to {percent(annual.high)}",
        f"{number(sharpe.low)} to {number(sharpe.high)}",
        f"{number(100 * excess.low, 1)} to {number(100 * excess.high, 1)}",
        f"{number(100 * drawdown.low, 1)} to {percent(drawdown.high)}",
    )
    return means, ranges


def main_table(result: BacktestResult, analysis: Analysis) -> Table:
    """All policies, net of costs, with intervals."""
    level = f"{result.config.evaluation.confidence:.0%}"
    header = (
        "policy",
        "net return",
        "gross",
        "volatility",
        f"Sharpe [{level}]",
        f"log growth over 1/N, % a year [{level}]",
        "P(beats 1/N)",
        "max drawdown",
        "turnover",
        "cost drag",
    )
    rows = [_main_row(performance) for performance in analysis.performances.values()]
    rows += _luck_rows(result, analysis)
    note = (
        "A year, net of costs. Gross: the same trades for free. Turnover is "
        " one-sided, in multiples of wealth."
    )
    return Table("All policies", header, rows, note, _emphasised(result))


def terminal_table(result: BacktestResult, analysis: Analysis, width: int) -> Table:
    """The main table with as many of its columns as a terminal of `width` characters shows."""
    full = main_table(result, analysis)
    level = f"{result.config.evaluation.confidence:.0%}"
    headings = {
        0: "policy",
        5: f"over 1/N, % [{level}]",
        1: "net/year",
        4: f"Sharpe [{level}]",
        7: "drawdown",
        8: "turnover",
        9: "costs",
        2: "gross",
    }  # columns of the full table, the most telling first
    left, kept = width - 1, []
    for column, heading in headings.items():
        left -= CELL_BORDER + max(len(heading), *(len(row[column]) for row in full.rows))
        if left < 0:
            break
        kept.append(column)
    kept.sort()
    header = tuple(headings[column] for column in kept)
    rows = [tuple(row[column] for column in kept) for row in full.rows]
    return Table(full.title, header, rows, full.note, full.emphasised)


def detail_table(result: BacktestResult, analysis: Analysis) -> Table:
    """Risk and shape of every policy."""
    header = (
        "policy",
        "total return",
        "Sortino",
        "Calmar",
        "average drawdown",
        "longest drawdown, sessions",
        "VaR 95, a session",
        "CVaR 95",
        "VaR 99",
        "CVaR 99",
        "skewness",
        "kurtosis",
        "winning sessions",
        "profit factor",
        "information ratio",
        "tracking error",
        "alpha",
        "beta",
        "alpha over diluted 1/N",
        "deflated Sharpe",
        "cash",
        "effective positions",
        "goal alignment",
        "delistings",
    )
    rows = [_detail_row(performance) for performance in analysis.performances.values()]
    note = (
        "Information ratio, tracking error and deflated Sharpe ratio are those of the return over "
        f"1/N; the last allows for {result.n_trials} policies and checkpoints looked at. Alpha and "
        "beta are against the index; alpha over diluted 1/N is over 1/N mixed with cash to the "
        "same beta."
    )
    return Table("Risk and shape", header, rows, note, _emphasised(result))


def variants_table(result: BacktestResult, analysis: Analysis) -> Table:
    """Net return and excess under other frictions."""
    header = ["policy", "as configured"]
    header += [f"{name}{tail}" for name in analysis.variants for tail in ("", ": over 1/N")]
    rows = []
    for name, performance in analysis.performances.items():
        row = [name, percent(performance.annual_return)]
        for figures in analysis.variants.values():
            row += [percent(figures[name].annual_return), percent(figures[name].growth_excess)]
        rows.append(tuple(row))
    note = (
        "Net return a year, and log growth over 1/N under the same frictions. A method that "
        "collapses when its orders are one session late read something it should not have."
    )
    return Table("Other frictions", tuple(header), rows, note, _emphasised(result))


def attribution_table(result: BacktestResult, analysis: Analysis) -> Table:
    """Excess over 1/N by decision."""
    header = ("policy", "sectors", "stocks", "cash", "costs", "residual", "excess over 1/N")
    rows = [
        (
            name,
            *(
                percent(value)
                for value in (
                    split.sectors,
                    split.stocks,
                    split.cash,
                    split.costs,
                    split.residual,
                    split.total,
                )
            ),
        )
        for name, split in analysis.attributions.items()
    ]
    note = (
        "Mean daily excess times 252 (arithmetic), split after Brinson and Fachler. Sectors are "
        "the macro agent's decision, stocks inside them the micro agent's."
    )
    gains = analysis.level_gains
    if gains is not None:
        note += (
            f" Swapping one level at a time for its rule: macro {percent(gains.macro)}, micro "
            f"{percent(gains.micro)} of log growth a year (interaction {percent(gains.interaction)}"
            ", half in each)."
        )
    return Table("Attribution", header, rows, note, _emphasised(result))


def cost_table(result: BacktestResult, analysis: Analysis) -> Table:
    """What was paid for what, in basis points of wealth a year."""
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


def regime_table(analysis: Analysis) -> Table:
    """Log loss of the regime probabilities beside the prior's."""
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
        "Nats per session, lower is better; the prior says the class shares of the training span "
        "every day. On real data no gain is the expected result."
    )
    return Table("Regime predictions", header, rows, note)


def to_rich(table: Table) -> rich.table.Table:
    """Draw for the terminal."""
    drawn = rich.table.Table(title=table.title, caption=table.note, title_justify="left")
    for i, title in enumerate(table.header):
        drawn.add_column(title, justify="left" if i == 0 else "right", no_wrap=True)
    for row in table.rows:
        style = "bold" if row[0] in table.emphasised else None
        drawn.add_row(*(escape_markup(cell) for cell in row), style=style)
    return drawn


def to_html(table: Table) -> str:
    """Draw for the page: the first column stays while the others scroll."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in table.header)
    body = "".join(_html_row(row, row[0] in table.emphasised) for row in table.rows)
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"
    )


def to_markdown(table: Table) -> str:
    """Draw for a README."""
    lines = [table.header, ("---", *("---:" for _ in table.header[1:])), *table.rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in x) + " |" for x in lines
    )


def _html_row(row: Sequence[str], is_emphasised: bool) -> str:  # noqa: FBT001 -- private
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
    mark = ' class="own"' if is_emphasised else ""
    return f'<tr{mark}><th scope="row">{escape(row[0])}</th>{cells}</tr>'


def _emphasised(result: BacktestResult) -> frozenset[str]:
    return frozenset({*result.policy_names, EQUAL_WEIGHT})


def _main_row(performance: Performance) -> tuple[str, ...]:
    own = performance.name
    return (
        own,
        percent(performance.annual_return),
        percent(performance.gross_annual_return),
        percent(performance.volatility),
        spread(performance.sharpe, 2),
        NONE if own == EQUAL_WEIGHT else spread(performance.growth_excess, 1, 100.0),
        NONE if own == EQUAL_WEIGHT else percent(performance.probability_of_beating, 0),
        percent(performance.max_drawdown),
        NONE if own == INDEX else number(performance.turnover, 1),
        NONE if own == INDEX else percent(performance.cost_drag, 2),
    )


def _luck_rows(result: BacktestResult, analysis: Analysis) -> list[tuple[str, ...]]:
    if not analysis.luck:
        return []
    count = result.config.evaluation.random_portfolios
    names = (f"{count} random portfolios ± sd", RANDOM_RANGE)
    return [
        (name, c.annual, NONE, NONE, c.sharpe, c.excess, NONE, c.drawdown, NONE, NONE)
        for name, c in zip(names, luck_cells(analysis.luck), strict=True)
    ]


def _detail_row(performance: Performance) -> tuple[str, ...]:
    is_base, is_index = performance.name == EQUAL_WEIGHT, performance.name == INDEX
    return (
        performance.name,
        percent(performance.total_return),
        number(performance.sortino),
        number(performance.calmar),
        percent(performance.average_drawdown),
        str(performance.max_drawdown_days),
        percent(performance.var_95, 2),
        percent(performance.cvar_95, 2),
        percent(performance.var_99, 2),
        percent(performance.cvar_99, 2),
        number(performance.skewness),
        number(performance.kurtosis, 1),
        percent(performance.win_rate),
        number(performance.profit_factor),
        NONE if is_base else number(performance.information_ratio),
        NONE if is_base else percent(performance.tracking_error),
        NONE if is_index else percent(performance.alpha),
        NONE if is_index else number(performance.beta),
        NONE if is_base else percent(performance.alpha_over_equal_weight),
        NONE if is_base else number(performance.deflated_sharpe),
        percent(performance.cash),
        number(performance.effective_positions, 1),
        number(performance.goal_alignment),
        NONE if performance.delistings is None else str(performance.delistings),
    )
