"""Shows a paper account beside the backtest of its policy over the same sessions, and 1/N."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from hrl_sarp import metrics
from hrl_sarp.contracts import DayRange
from hrl_sarp.daily.paper.account import PaperAccount, PaperDay, Terms
from hrl_sarp.daily.paper.known import KnownMarkets
from hrl_sarp.envs.rollout import INDEX
from hrl_sarp.errors import DataError
from hrl_sarp.evaluation.backtest import backtest
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT, make_baselines
from hrl_sarp.evaluation.performance import PERCENT, PERCENT_2, RATIO, column
from hrl_sarp.reporting import charts
from hrl_sarp.reporting.charts import FADED, INK, Chart, Line, Panel, timeline
from hrl_sarp.reporting.figure import BLUE, VERMILION
from hrl_sarp.reporting.page import Fold, Section, page
from hrl_sarp.reporting.table import NONE, Form, Table, counted, number, percent
from hrl_sarp.run.files import write_json, write_text

PAGE_NAME, JSON_NAME = "paper.html", "paper.json"
ACCOUNT, BACKTEST = "account", "backtest"
LINES = {
    INDEX: Line(FADED),
    EQUAL_WEIGHT: Line(INK),
    BACKTEST: Line(VERMILION, 1.6, "dash"),
    ACCOUNT: Line(BLUE, 1.8),
}
"""How each row is drawn, the foremost last."""
SHOWN_SESSIONS = 10
"""Sessions whose fills the page lists; the JSON has all."""
SHOWN_EVENTS = 40
"""Events that the page lists; the JSON has all."""
AMOUNT = Form(2)
EXACT_WEALTH, SAME_WEALTH = 1e-9, 1e-6
"""Relative difference of two wealths that are the same: with one number of threads, and with
another one, by which networks round."""


@dataclass(frozen=True)
class Row:
    """What one portfolio earned in each session of the account after its start.

    Examples:
        >>> Row(np.array([0.01]), np.array([0.0]), np.array([0.1])).net
        array([0.01])
    """

    net: Float[np.ndarray, " D"]
    """Simple returns after costs."""
    cost: Float[np.ndarray, " D"]
    """Shares of the wealth before the trade."""
    turnover: Float[np.ndarray, " D"]


@dataclass(frozen=True)
class PaperReport:
    """An account and what it is compared with.

    Examples:
        >>> [field for field in PaperReport.__dataclass_fields__]
        ['path', 'terms', 'days', 'rows', 'policy', 'index_name', 'risk_free', 'year']
    """

    path: Path
    """Of the account."""
    terms: Terms
    days: Sequence[PaperDay]
    """The start first."""
    rows: Mapping[str, Row]
    """`account`, `backtest`, 1/N and the index."""
    policy: str
    index_name: str
    risk_free: Float[np.ndarray, " D"]
    year: int
    """Sessions of a year."""

    @property
    def dates(self) -> Shaped[np.ndarray, " D"]:
        """Sessions with the start in front."""
        return np.array([day.day for day in self.days], dtype="datetime64[D]")

    @property
    def tracking(self) -> dict[str, float]:
        """By how much the account differs from the backtest, as fractions."""
        own, other = self.rows[ACCOUNT].net, self.rows[BACKTEST].net
        return {
            "wealth_difference": float(np.prod(1 + own) / np.prod(1 + other) - 1),
            "largest_session": float(np.abs(own - other).max()),
        }

    @property
    def tracking_error(self) -> float | None:
        """Volatility of the difference to the backtest; None after a single session."""
        return _volatility(self.rows[ACCOUNT].net - self.rows[BACKTEST].net, self.year)


def _volatility(net: Float[np.ndarray, " D"], year: int) -> float | None:
    return metrics.annual_volatility(net, year) if len(net) > 1 else None


def _sharpe(excess: Float[np.ndarray, " D"], year: int) -> float | None:
    return metrics.sharpe_ratio(excess, year) if len(excess) > 1 else None


Measure = Callable[[Row, Float[np.ndarray, " D"], int], float | None]
MEASURES: Mapping[str, tuple[Form, Measure]] = {
    "growth": (PERCENT_2, lambda row, _, __: metrics.total_return(row.net)),
    "volatility": (PERCENT, lambda row, _, year: _volatility(row.net, year)),
    "max drawdown": (PERCENT_2, lambda row, _, __: metrics.max_drawdown(row.net)),
    "Sharpe": (RATIO, lambda row, free, year: _sharpe(row.net - free, year)),
    "costs": (PERCENT_2, lambda row, _, __: float(row.cost.sum())),
    "turnover": (PERCENT, lambda row, _, __: float(row.turnover.sum())),
}
"""Heading -> form, measure of a row with the interest of cash and the sessions of a year.

A measure is None where a single session does not have it."""


def compare(account: PaperAccount, markets: KnownMarkets) -> PaperReport:
    """Backtest the policy of an account and 1/N over its sessions, at the same costs.

    Args:
        account: open.
        markets: of the account; may have later sessions.

    Returns:
        What the page and the JSON show.

    Raises:
        DataError: if no session has been booked after the start, or the data lack one.
    """
    days = account.days
    if len(days) < 2:
        raise DataError(
            f"{account.path} begins on {days[0].day} and has no session yet: run `hrl-sarp paper "
            "step` when the data have the next one"
        )
    view = markets.view
    market, config = view.market, view.todays[0].run.config
    span = DayRange(view.row(days[0].day), view.row(days[-1].day) + 1)
    costs = config.market_profile.costs.model_copy(update={"capital": account.terms.capital})
    profile = config.market_profile.model_copy(update={"costs": costs})
    config = config.model_copy(update={"market_profile": profile})
    equal = next(p for p in make_baselines(market, config) if p.name == EQUAL_WEIGHT)
    found = backtest(market, [equal, view.policy], span, config)
    names = {INDEX: INDEX, EQUAL_WEIGHT: EQUAL_WEIGHT, BACKTEST: view.policy.name}
    rows = {
        name: Row(found.net_return[:, place], found.cost[:, place], found.turnover[:, place])
        for name, place in ((name, column(found, own)) for name, own in names.items())
    }
    rows[ACCOUNT] = Row(
        *(
            np.array([getattr(day, name) for day in days[1:]])
            for name in ("net_return", "cost", "turnover")
        )
    )
    return PaperReport(
        path=account.path,
        terms=account.terms,
        days=days,
        rows=rows,
        policy=view.policy.name,
        index_name=market.benchmark_name,
        risk_free=market.risk_free[span.start + 1 : span.stop].astype(np.float64),
        year=market.sessions.year,
    )


def write_report(report: PaperReport, folder: Path) -> Path:
    """Write `paper.html` and `paper.json`.

    Args:
        report: as `compare` returns it.
        folder: made if needed.

    Returns:
        The path of the page.
    """
    write_json(folder / JSON_NAME, report_json(report))
    last = report.days[-1]
    sections = [
        Section("Against its backtest", [measures_table(report), _wealth(report)]),
        Section("Orders", [Fold(f"For the open after {last.day}", [_orders(last)])]),
        Section("Holdings", [Fold(f"{len(last.holdings)} stocks at the close", [_holdings(last)])]),
        Section("What happened", [_events(report), Fold("Fills", [_fills(report)]),
                                  Fold("Sessions", [_sessions(report)]),
                                  *_warnings(report)]),
    ]  # fmt: skip
    kind = "fractions of a share" if report.terms.lot_size is None else "whole shares"
    subtitle = (
        f"{report.path.name}: {report.terms.market}, {kind}, {report.terms.start} to {last.day}, "
        f"decided by {report.policy}"
    )
    there = folder / PAGE_NAME
    write_text(there, page("Paper account", subtitle, sentences(report), sections))
    return there


def sentences(report: PaperReport) -> list[str]:
    """Say what the account is, what it is worth, and how near it is to its backtest.

    Args:
        report: as `compare` returns it.

    Returns:
        Sentences for the head of the page.
    """
    last, tracking = report.days[-1], report.tracking
    n_sessions, growth = len(report.days) - 1, last.wealth / report.terms.capital - 1
    differs = tracking["wealth_difference"]
    digits = "nine" if abs(differs) < EXACT_WEALTH else "six"
    near = f"Its wealth is that of the backtest to {digits} digits."
    if not _is_backtest(report):
        near = (
            f"Its wealth is {percent(abs(differs), 3)} {'above' if differs > 0 else 'below'} that "
            "of the backtest, its return of a session differs by at most "
            f"{percent(tracking['largest_session'], 3)}"
        )
        error = report.tracking_error
        near += "." if error is None else f", its tracking error is {percent(error, 2)} a year."
    causes = (
        "Whole shares differ from weights by rounding, and their dividends wait as cash until the "
        "next decision; each of them pays the sell cost once."
    )
    return [
        "This is no advice, no broker and no promise: nobody traded, and the account moved no "
        "price. Orders fill at the next open of the data with the costs of the market.",
        f"{report.terms.capital:,.0f} became {last.wealth:,.2f} in "
        f"{counted(n_sessions, 'session')}, that is {percent(growth, 2)}; {last.cash:,.2f} of "
        "it is cash.",
        near,
        *([causes] if report.terms.lot_size is not None else []),
        *(f"Warning: {warning}." for warning in last.warnings),
    ]


def measures_table(report: PaperReport) -> Table:
    """Lay out the account beside its backtest, 1/N and the index.

    Args:
        report: as `compare` returns it.

    Returns:
        A row each; growth, costs and turnover are those of the whole time.
    """
    rows = []
    for name, values in measures(report).items():
        hidden = {"costs", "turnover"} if name == INDEX else set()
        cells = (NONE if key in hidden else MEASURES[key][0](v) for key, v in values.items())
        rows.append((name, *cells))
    return Table(
        "Account, backtest and 1/N",
        ("portfolio", *MEASURES),
        rows,
        note="Growth, costs and turnover are those of all sessions together; volatility and Sharpe "
        "ratio are a year's, and say little after a few sessions. The backtest is the same policy "
        f"from the same close at the same costs. The index is: {report.index_name}.",
        emphasised=frozenset({ACCOUNT}),
    )


def measures(report: PaperReport) -> dict[str, dict[str, float | None]]:
    """Compute the measures of each row, the account first.

    Args:
        report: as `compare` returns it.

    Returns:
        Row -> measure -> value, as fractions; None where a single session has no such value.
    """
    return {
        name: {
            key: compute(report.rows[name], report.risk_free, report.year)
            for key, (_, compute) in MEASURES.items()
        }
        for name in reversed(LINES)
    }


def report_json(report: PaperReport) -> dict[str, Any]:
    """Return everything that the page shows, and what it leaves out for want of room.

    Args:
        report: as `compare` returns it.

    Returns:
        Plain values; amounts in currency, returns and costs as fractions.
    """
    wealth = {name: _wealth_of(row) for name, row in report.rows.items()}
    return {
        "terms": report.terms.to_json(),
        "policy": report.policy,
        "measures": measures(report),
        "tracking": {**report.tracking, "tracking_error": report.tracking_error},
        "days": [
            {
                **{name: getattr(day, name) for name in ("day", "net_return", "cost", "turnover")},
                "wealth": day.wealth,
                "cash": day.cash,
                "wealth_of": {name: values[place] for name, values in wealth.items()},
                "fills": list(day.fills),
                "events": list(day.events),
                "warnings": list(day.warnings),
            }
            for place, day in enumerate(report.days)
        ],
        "holdings": dict(report.days[-1].holdings),
        "orders": report.days[-1].decision["orders"],
    }


def _wealth_of(row: Row) -> Float[np.ndarray, " D"]:
    return np.concatenate([[1.0], np.cumprod(1.0 + row.net)])


def _is_backtest(report: PaperReport) -> bool:
    """Say whether account and backtest differ by rounding alone."""
    return abs(report.tracking["wealth_difference"]) < SAME_WEALTH


def _wealth(report: PaperReport) -> Chart:
    wealth = {name: _wealth_of(row) for name, row in report.rows.items()}
    falls = {
        name: np.concatenate([[0.0], -metrics.drawdowns(row.net)])
        for name, row in report.rows.items()
    }
    panels = [Panel("wealth", wealth, height=1.8), Panel("drawdown", falls, charts.PERCENT)]
    shown = "wealth from 1, and its loss from the running peak"
    if not _is_backtest(report):
        gap = {ACCOUNT: wealth[ACCOUNT] / wealth[BACKTEST] - 1}
        panels.append(Panel("over the backtest", gap, ".2e"))
        shown = (
            "wealth from 1, its loss from the running peak, and the account's wealth over that of "
            "the backtest, less 1"
        )
    caption = (
        f"Net of costs: {shown}. Point at a line for its date and value; a click hides a name."
    )
    return timeline("wealth", caption, report.dates, panels, LINES)


def _orders(day: PaperDay) -> Table:
    rows = [
        (o["symbol"], o["side"], _shares(o["shares"]), *map(AMOUNT, (o["close"], o["value"])),
         AMOUNT(o["cost"]))
        for o in day.decision["orders"]
    ]  # fmt: skip
    goal = "The goal of the week was set at this close." if day.decision["is_new_goal"] else ""
    note = (
        f"Decided at the close of {day.day}; at most {percent(day.decision['exposure'])} may be "
        f"invested. Values and costs are estimated at that close. {goal}"
    )
    heads = ("stock", "side", "shares", "close", "value", "estimated cost")
    return Table("Pending orders", heads, rows, note.strip(), text_columns=frozenset({0, 1}))


def _holdings(day: PaperDay) -> Table:
    found = sorted(day.holdings.items(), key=lambda item: -item[1]["value"])
    rows = [
        (symbol, _shares(h["shares"]), AMOUNT(h["close"]), AMOUNT(h["value"]),
         PERCENT(h["value"] / day.wealth))
        for symbol, h in found
    ]  # fmt: skip
    return Table("Holdings", ("stock", "shares", "close", "value", "share of wealth"), rows)


def _events(report: PaperReport) -> Table:
    found = [(day.day, event) for day in reversed(report.days) for event in day.events]
    rows = [
        (str(day), event["kind"], event["symbol"] or NONE, event["text"])
        for day, event in found[:SHOWN_EVENTS]
    ]
    note = "Splits, dividends, halts, delistings, and orders that were not or not wholly filled."
    if not found:
        note += " None so far."
    if len(found) > SHOWN_EVENTS:
        note += f" The last {SHOWN_EVENTS} of {len(found):,}; {JSON_NAME} has all."
    heads = ("session", "event", "stock", "what happened")
    return Table("Events", heads, rows, note, text_columns=frozenset(range(4)))


def _warnings(report: PaperReport) -> list[Fold]:
    found = [(str(day.day), text) for day in reversed(report.days) for text in day.warnings]
    if not found:
        return []
    note = f"Of the last sessions; {JSON_NAME} has all." if len(found) > SHOWN_EVENTS else ""
    heads, columns = ("session", "warning"), frozenset({0, 1})
    table = Table("Warnings", heads, found[:SHOWN_EVENTS], note, text_columns=columns)
    return [Fold("Warnings of the decisions", [table])]


def _fills(report: PaperReport) -> Table:
    rows = [
        (str(day.day), f["symbol"], f["side"], _shares(f["shares"]), AMOUNT(f["price"]),
         AMOUNT(f["value"]))
        for day in report.days[:-SHOWN_SESSIONS - 1 : -1]
        for f in day.fills
    ]  # fmt: skip
    note = f"Of the last {SHOWN_SESSIONS} sessions; {JSON_NAME} has all."
    heads = ("session", "stock", "side", "shares", "open", "value")
    return Table("Fills", heads, rows, note, text_columns=frozenset({0, 1, 2}))


def _sessions(report: PaperReport) -> Table:
    rows = [
        (str(day.day), AMOUNT(day.wealth), AMOUNT(day.cash), PERCENT_2(day.net_return),
         PERCENT_2(day.cost), PERCENT_2(day.turnover), str(len(day.fills)),
         PERCENT(day.decision["exposure"]), "new" if day.decision["is_new_goal"] else "kept")
        for day in reversed(report.days)
    ]  # fmt: skip
    heads = ("session", "wealth", "cash", "return", "cost", "turnover", "fills",
             "may be invested", "goal")  # fmt: skip
    return Table("Sessions", heads, rows, text_columns=frozenset({0, 8}))


def _shares(n: float) -> str:
    return number(n, 0 if float(n).is_integer() else 4)
