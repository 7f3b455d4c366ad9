"""The page of a decision: what to hold, why, the orders, and who decided."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hrl_sarp.contracts import REGIME_NAMES, Market, Regime
from hrl_sarp.daily.decision.reasons import Effect, Reasons, sector_sums
from hrl_sarp.daily.decision.run import DayDecision
from hrl_sarp.daily.drift import drift_table
from hrl_sarp.reporting.figure import (
    BLUE,
    FADED,
    INK,
    NARROW,
    PANEL_HEIGHT,
    VERMILION,
    styled,
)
from hrl_sarp.reporting.page import Block, Drawing, Facts, Fold, Row, Section, page
from hrl_sarp.reporting.table import NONE, Table, percent
from hrl_sarp.risk.priors import equal_weight_return

WARNING = (
    "This page is no advice, no broker and no promise. A program computed it from past prices. It "
    "places no order. Returns cannot be forecast; what it steers is risk."
)
PAST_YEARS = 3
"""Years of the chart of volatility."""
SMALL = 0.0005
"""Shares of wealth below this are not shown as moved."""
NO_VIEW = "none: a rule decided on the sectors, not a macro agent"
MOVED_SECTORS = 3
"""Sectors that a row of the table of effects names."""
DRIFT_TITLE = "The inputs farthest from their training span"
SHOWN_ORDERS = 15
"""Orders that a terminal shows."""
ORDERS_FILE = "orders.csv"
"""Has all of them."""


def decision_page(decision: DayDecision) -> str:
    """Return the page as HTML, without files of its own.

    Args:
        decision: of the day.

    Returns:
        Text of the page.
    """
    decided, today = decision.decided, decision.today
    reasons = decision.reasons
    sections = [
        Section("Orders for the next open", _orders(decision)),
        Section("Sectors", _sectors(decision)),
        Section("Why so much in stocks", _exposure(today.market, reasons)),
        Section("Why these sectors and stocks", _effects(decision)),
        Section("All positions", _positions(decision)),
        Section("What the agents saw", [Fold(DRIFT_TITLE, [drift_table(decision.checked.drift)])]),
        Section("Who decided", [Facts(decision.card.pairs())]),
    ]
    title = f"Portfolio for the session after {today.day}"
    subtitle = f"market {today.market.name}, decided by: {decided.policy}"
    warnings = [f"Warning: {warning}." for warning in decision.checked.warnings]
    missing = decision.checked.missing
    if missing:
        warnings.append(f"Without a bar, so not traded: {', '.join(missing)}.")
    return page(title, subtitle, [WARNING, *lead(decision), *warnings], sections)


def summary(decision: DayDecision) -> list[Table]:
    """Return what a terminal shows: the sectors, and the largest orders."""
    orders = _orders_table(decision)
    hidden = len(orders.rows) - SHOWN_ORDERS
    note = f"{hidden} smaller orders: {ORDERS_FILE}. {orders.note}" if hidden > 0 else orders.note
    return [_sector_table(decision), replace(orders, rows=orders.rows[:SHOWN_ORDERS], note=note)]


def goal_sentence(day: date | None, *, is_new: bool, is_week_end: bool) -> str:
    """Say when the goal in force was set, and why on a day within the week.

    Args:
        day: at whose close it was set.
        is_new: that is the day of the decision.
        is_week_end: the day of the decision is the last session of its week.

    Returns:
        One sentence.

    Examples:
        >>> goal_sentence(date(2019, 1, 4), is_new=True, is_week_end=True)
        'Today sets the goal of the week.'
    """
    if not is_new:
        return f"The goal of the week was set at the close of {day}."
    if is_week_end:
        return "Today sets the goal of the week."
    return (
        "Today sets the goal of the week, because no decision of these agents for this account at "
        "the close of the week before was found."
    )


def lead(decision: DayDecision) -> list[str]:
    """Say in sentences what was decided, and how far it is from the classical portfolio."""
    orders, decided, reasons = decision.orders, decision.decided, decision.reasons
    invested = sum(decided.targets.values())
    # lots, and stocks that cannot be traded, may keep the orders from what is wanted
    reached = 1.0 - orders.cash / (orders.wealth - orders.cost)
    goal = goal_sentence(
        decided.memory.goal_day,
        is_new=decided.is_new_goal,
        is_week_end=bool(decision.today.market.is_week_end[-1]),
    )
    return [
        f"{percent(invested)} of {_money(orders.wealth)} is wanted in {len(decided.targets)} "
        f"stocks, the rest in cash. {len(orders.orders)} orders lead to {percent(reached)} in "
        f"{sum(n > 0 for n in orders.shares.values())} and cost about {_money(orders.cost)}.",
        f"{goal} The decision holds {percent(reasons.distance)} of wealth elsewhere than the "
        "classical portfolio of low risk.",
    ]


def _orders_table(decision: DayDecision) -> Table:
    orders = decision.orders
    rows = [
        (o.symbol, o.side, _shares(o.shares), _money(o.close), _money(o.value), _money(o.cost))
        for o in orders.orders
    ]
    note = "Values and costs are estimated at the last close; the fill is at the next open."
    return Table(
        "Orders",
        ("stock", "side", "shares", "last close", "value", "cost"),
        rows,
        note=note,
        text_columns=frozenset({0, 1}),
    )


def _orders(decision: DayDecision) -> list[Block]:
    orders, table = decision.orders, _orders_table(decision)
    facts = [
        ("wealth at the close", _money(orders.wealth)),
        ("cash before", _money(decision.held.cash)),
        ("cash after all fills", _money(orders.cash)),
        ("estimated costs", f"{_money(orders.cost)} ({percent(orders.cost / orders.wealth, 3)})"),
        ("moved by whole lots", percent(orders.rounding, 2)),
    ]
    return [Facts(facts), Fold(f"{len(table.rows)} orders, the largest first", [table])]


def _by_sector(decision: DayDecision) -> list[dict[str, float]]:
    """Return the shares of the sectors that are held, wanted, and of the classical portfolio."""
    decided = decision.decided
    weights = (decided.standing.weights, decided.targets, decision.reasons.prior)
    return [sector_sums(decision.today.market, each) for each in weights]


def _sector_table(decision: DayDecision) -> Table:
    columns = [{**by, "cash": 1.0 - sum(by.values())} for by in _by_sector(decision)]
    rows = [(name, *(percent(by[name]) for by in columns)) for name in columns[0]]
    return Table("Shares of wealth", ("sector", "now", "target", "classical"), rows)


def _sectors(decision: DayDecision) -> list[Block]:
    market, decided = decision.today.market, decision.decided
    regimes = decision.reasons.filtered_regime
    goal = decided.memory.goal or ()
    views = goal[len(market.sector_names) + 1 :] if decided.has_view else ()
    names = [regime.name.lower() for regime in Regime]
    # under the objective `risk` the agent forecasts how much the market moves, not where
    asked = REGIME_NAMES[decision.today.run.config.objective.kind]
    table = _sector_table(decision)
    figure = Drawing(
        _sector_figure(*_by_sector(decision)),
        "sectors",
        "Shares of wealth by sector, now and wanted",
    )
    facts = [
        ("regime now, filtered", _probabilities(names, regimes)),
        (
            "regime to come, the macro agent's view",
            _probabilities(asked, views) if views else NO_VIEW,
        ),
    ]
    return [Row([figure]), table, Facts(facts)]


def _probabilities(names: Sequence[str], values: tuple[float, ...]) -> str:
    return ", ".join(f"{name} {percent(v, 0)}" for name, v in zip(names, values, strict=True))


def _exposure(market: Market, reasons: Reasons) -> list[Block]:
    exposure = reasons.exposure
    facts = [
        ("largest share in stocks, the decision's", percent(exposure.agent)),
        ("the classical portfolio's", percent(exposure.prior)),
    ]
    blocks: list[Block] = []
    if exposure.forecast_volatility is not None:
        facts += [
            (
                "the classical portfolio's forecast volatility",
                _a_year(exposure.forecast_volatility),
            ),
            ("normal volatility, from the past of 1/N", _a_year(exposure.normal_volatility)),
        ]
        caption = "Neutral exposure, and the volatility that counts as normal, of the last years"
        blocks.append(Row([Drawing(_exposure_figure(market), "exposure", caption)]))
    limits = "; ".join(reasons.limits) or "none"
    return [Facts([*facts, ("limits that bind", limits)]), *blocks]


def _a_year(value: float | None) -> str:
    return f"{percent(value)} a year"


def _effects(decision: DayDecision) -> list[Block]:
    reasons, decided = decision.reasons, decision.decided
    rows = [(e.group, percent(e.size), _most_moved(e)) for e in reasons.effects]
    note = (
        "Without a group, its inputs of the day are those of an average day of the training span. "
        "What the decision holds elsewhere because of the group is its effect. Effects do not add "
        "up."
    )
    if not decided.is_new_goal:
        note += (
            f" The sectors were chosen at the close of {decided.memory.goal_day}; the page of that "
            "day tells why."
        )
    table = Table(
        "What moved the decision",
        ("inputs", "share of wealth moved", "most in these sectors"),
        rows,
        note=note,
        text_columns=frozenset({0, 2}),
    )
    return [table, Fold("The ten largest positions, by group", [_largest(decision)])]


def _most_moved(effect: Effect) -> str:
    moved = sorted(effect.sectors.items(), key=lambda item: -abs(item[1]))[:MOVED_SECTORS]
    told = [f"{name} {_points(value)}" for name, value in moved if abs(value) >= SMALL]
    return ", ".join(told) or NONE


def _points(value: float) -> str:
    return ("+" if value > 0 else "") + percent(value)


def _largest(decision: DayDecision) -> Table:
    effects = [e for e in decision.reasons.effects if e.size >= SMALL]
    targets = decision.decided.targets
    stocks = list(decision.reasons.effects[0].stocks) if decision.reasons.effects else []
    rows = [
        (stock, percent(targets[stock]), *(_points(e.stocks[stock]) for e in effects))
        for stock in stocks
    ]
    return Table(
        "What each group adds to a position, in shares of wealth",
        ("stock", "target", *(e.group for e in effects)),
        rows,
    )


def _positions(decision: DayDecision) -> list[Block]:
    decided, orders = decision.decided, decision.orders
    market, prior = decision.today.market, decision.reasons.prior
    closes, held = decision.today.last_closes, decision.held.shares
    sector = dict(zip(market.symbols, market.sector_of.tolist(), strict=True))
    symbols = sorted({*decided.targets, *held}, key=lambda s: (-decided.targets.get(s, 0.0), s))
    rows = [
        (
            s, market.sector_names[sector[s]], percent(decided.targets.get(s, 0.0)),
            percent(prior.get(s, 0.0)), _shares(held.get(s, 0.0)),
            _shares(orders.shares.get(s, 0.0)), _money(closes[s]),
        )
        for s in symbols
    ]  # fmt: skip
    table = Table(
        "Positions",
        ("stock", "sector", "target", "classical", "shares now", "shares after", "last close"),
        rows,
        text_columns=frozenset({0, 1}),
    )
    return [Fold(f"{len(rows)} stocks, the largest target first", [table])]


def _money(value: float) -> str:
    return f"{value:,.2f}"


def _shares(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.4f}"


@styled
def _sector_figure(
    now: Mapping[str, float], target: Mapping[str, float], prior: Mapping[str, float]
) -> Figure:
    """Draw the shares of the sectors, narrow enough for a telephone."""
    names = list(target)[::-1]
    figure = Figure(figsize=(NARROW, 0.36 * len(names) + 0.9), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(names))
    axes.barh(place, [target[name] for name in names], 0.6, color=BLUE, label="target")
    marks = (("classical", prior, VERMILION, "|"), ("now", now, INK, "x"))
    for label, weights, colour, marker in marks:
        axes.plot(
            [weights[name] for name in names], place, marker, color=colour, label=label,
            markersize=9 if marker == "|" else 5, markeredgewidth=2 if marker == "|" else 1,
        )  # fmt: skip
    axes.set_yticks(place, names)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside upper center", ncols=3, handletextpad=0.4, columnspacing=1.2)
    return figure


@styled
def _exposure_figure(market: Market) -> Figure:
    """Draw neutral exposure and normal volatility of the last years."""
    assert market.risk is not None  # noqa: S101 -- the caller has asked
    rows = slice(max(0, market.n_days - PAST_YEARS * market.sessions.year), None)
    days = market.dates[rows]
    figure = Figure(figsize=(NARROW, PANEL_HEIGHT), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(days, market.risk.prior_exposure[rows], color=BLUE, linewidth=1.2)
    upper.set_title("neutral share in stocks")
    normal = np.sqrt(market.risk.normal_variance[rows])
    realised = _realised(market)[rows]
    lower.plot(days, realised, color=FADED, linewidth=1, label="1/N, one month")
    lower.plot(days, normal, color=VERMILION, linewidth=1.2, label="normal")
    lower.set_title("volatility a year")
    lower.legend(loc="upper left")
    for axes in (upper, lower):
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    lower.xaxis.set_major_locator(locator)
    lower.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    return figure


def _realised(market: Market) -> np.ndarray:
    """Return the annual volatility of 1/N over the last month at each row."""
    month = market.sessions.month
    squares = np.concatenate([[0.0], np.cumsum(equal_weight_return(market) ** 2)])
    first = np.maximum(np.arange(market.n_days) + 1 - month, 0)
    mean = (squares[1:] - squares[first]) / np.arange(1, market.n_days + 1).clip(max=month)
    return np.sqrt(market.sessions.year * mean)
