"""Makes the market again from data with another future, and names what moved in the past.

The windows that encoders read are made again as well.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market, RiskTables
from hrl_sarp.data.bars import Bars
from hrl_sarp.data.quality import hindsight, rules
from hrl_sarp.data.quality.validation import ValidationReport, validate
from hrl_sarp.data.session_counts import session_counts
from hrl_sarp.data.store import RawData, is_same
from hrl_sarp.encoders.stock_embeddings import OBSERVED
from hrl_sarp.encoders.windows.panel import panel_bars, panel_features, window_table
from hrl_sarp.errors import HrlSarpError
from hrl_sarp.features.prices import LAST_BARS, build_panel
from hrl_sarp.market.assemble import assemble_market
from hrl_sarp.market.own.profile import dated_spans
from hrl_sarp.observed.forecasts import ForecastPlan
from hrl_sarp.observed.stocks import NO
from hrl_sarp.studies.audit.checks import Check
from hrl_sarp.studies.audit.futures import Future, corrupt

LEAST_ROWS = 21
"""Bars of the histories whose days are compared; all forecasters need about as many or more."""
BY_STOCK = (
    "stock_features",
    "overnight_return",
    "intraday_return",
    "eligible",
    "tradable",
    "dollar_volume",
    "range_variance",
)
"""Tables of a market by day and stock."""
BY_DAY = (
    "implied_volatility",
    "macro_features",
    "filtered_regime",
    "is_week_end",
    "risk_free",
    "benchmark_return",
)
OF_RISK = (
    "inputs",
    "sector_inputs",
    "sector_prior",
    "stock_prior",
    "prior_exposure",
    "normal_variance",
)
COLUMNS = {"stock_features": "feature_names", "macro_features": "macro_names"}
OF_RISK_COLUMNS = {"inputs": "input_names", "sector_inputs": "sector_input_names"}
"""Tables whose columns have names, and the field that holds these."""
NEAR: Mapping[str, Any] = {"rtol": 1e-6, "atol": 1e-9, "equal_nan": True}
"""Products of matrices of another length may differ in their last bits."""
IN_TEST = (0.35, 0.7)
"""Where the later days t lie, as shares of the test span; the first one ends the training span."""
SEARCHED = 40
"""Sessions in which a better day than the wanted one is looked for."""


@dataclass(frozen=True)
class Subject:
    """The data and the market that the audit is about."""

    raw: RawData
    config: RunConfig
    """With spans by their days, so that other data have the same ones."""
    market: Market
    report: ValidationReport

    rows: tuple[int, ...]
    """Of the days t: the end of the training span, then some of the test span. All that is fitted
    is fitted before them."""

    @classmethod
    def of(cls, raw: RawData, config: RunConfig, report: ValidationReport) -> "Subject":
        """Assemble the market of the data.

        Args:
            raw: as collected.
            config: of the user.
            report: of the validation.

        Returns:
            The subject.

        Raises:
            HrlSarpError: as `assemble_market`.
        """
        market = assemble_market(raw, config, report=report)
        profile, data = config.market_profile, config.data
        spans = dated_spans(profile.spans, market.dates, data.purge_days + data.embargo_days)
        dated = profile.model_copy(update={"spans": spans})
        test, reach = market.split.test, max(data.validation.taken_back_bars, LAST_BARS) + 1
        wanted = [market.split.train.stop - 1]
        wanted += [test.start + int(share * len(test)) for share in IN_TEST]
        rows = sorted({quiet_row(market, report, row, reach) for row in wanted})
        config = config.model_copy(update={"market_profile": dated})
        return cls(raw, config, market, report, tuple(rows))


def quiet_row(market: Market, report: ValidationReport, wanted: int, reach: int) -> int:
    """Find a row with no halted stock and no finding near it that later bars decide.

    Args:
        market: assembled.
        report: of the validation of its data.
        wanted: row.
        reach: rows that a finding may be away and still depend on what comes after the row.

    Returns:
        The first such row of `SEARCHED`, else one that comes near.
    """
    late = pl.col("rule").is_in(sorted(hindsight.RULES | rules.BREAKING))
    days = report.table.filter(late)["date"].drop_nulls().to_numpy()
    found = np.searchsorted(market.dates, days.astype(market.dates.dtype))
    last = market.n_days - 1  # something must come after the row
    candidates = np.arange(min(wanted, last - 1), min(wanted + SEARCHED, last))
    lost = candidates - np.array([whole_until(market, row) for row in candidates.tolist()])
    near = np.abs(candidates[:, None] - found[None, :]).min(axis=1, initial=reach + 1) <= reach
    return int(candidates[np.lexsort((candidates, lost, near))[0]])


def whole_until(market: Market, row: int) -> int:
    """Return the last row that knows of every stock whether it has left.

    Args:
        market: assembled.
        row: of the last day that is known.

    Returns:
        The row itself, or an earlier one where a stock is halted on it.
    """
    halted: Int[np.ndarray, " n"] = np.flatnonzero(market.listed[row] & ~market.tradable[row])
    bars: Bool[np.ndarray, "T n"] = market.tradable[: row + 1][:, halted]
    last = row - np.argmax(bars[::-1], axis=0)
    return int(min([row, *last]))


def assemble_again(raw: RawData, config: RunConfig) -> Market:
    """Assemble a market of changed data: what validation finds in them refuses nothing."""
    data, profile = config.data, config.market_profile
    report = validate(raw, data.validation, profile.calendar, data.calendar_changes, profile)
    lenient = report.table.with_columns(severity=pl.lit("warn"))
    with warnings.catch_warnings():
        # numbers after t mean nothing, and some of them overflow
        warnings.simplefilter("ignore", RuntimeWarning)
        return assemble_market(raw, config, report=dataclasses.replace(report, table=lenient))


def try_future(subject: Subject, future: Future) -> Check:
    """Give the data another future after each day t, and compare the market's rows up to it.

    Args:
        subject: the data and their market.
        future: what happens after t.

    Returns:
        A leak for each feature and table that moved, with its first day.
    """
    market, rows = subject.market, subject.rows
    if future.is_shorter:
        rows = tuple(row for row in rows if row > market.split.test.start)
    bars = subject.raw.bars
    if future.needs_raw_closes and bars["close"].equals(bars["adj_close"], null_equal=True):
        return Check(future.name, future.tried, "not applicable", ("closes are adjusted already",))
    moved, untried, still = dict[str, str](), list[str](), list[str]()
    for row in rows:
        day = market.dates[row]
        changed = future.change(subject.raw, day)
        if is_same(changed, subject.raw):
            still.append(str(day))
            continue
        try:
            other = assemble_again(changed, subject.config)
        except HrlSarpError as error:
            untried.append(f"no market could be made for t = {day}: {' '.join(str(error).split())}")
            continue
        until = whole_until(market, row) if future.ends_stocks else row
        for name, first in moved_until(market, other, until).items():
            if name not in future.unseen:
                moved.setdefault(name, f"{name} of {first} (t = {day})")
    is_tried = len(untried) + len(still) < len(rows)
    if still:
        untried.append(f"there is nothing to change after {', '.join(still)}")
    if not is_tried:
        reasons = tuple(untried) or ("no day t lies inside the test span",)
        return Check(future.name, future.tried, "not applicable", reasons)
    fine = "; ".join(["no row up to t moved", *untried])
    return Check.of(future.name, future.tried, list(moved.values()), fine)


def moved_until(expected: Market, found: Market, until: int) -> dict[str, np.datetime64]:
    """Name the features and tables of which a row up to `until` differs, with its first day."""
    n_rows = until + 1
    dates = expected.dates
    if not np.array_equal(found.dates[:n_rows], dates[:n_rows]):
        return {"dates": dates[0]}
    moved = {}
    for name, before, after in _pairs(expected, found, n_rows):
        same = np.isclose(before, after, **NEAR).reshape(n_rows, -1).all(axis=1)
        if not same.all():
            moved[name] = dates[int(np.argmin(same))]
    before_slots, after_slots = (slot_symbols(m, n_rows) for m in (expected, found))
    if before_slots != after_slots:
        unlike = [a != b for a, b in zip(before_slots, after_slots, strict=True)]
        moved["universe"] = dates[unlike.index(True)]
    return moved


def slot_symbols(market: Market, n_rows: int) -> list[list[str]]:
    """Return which symbol stands in each slot of the first rows."""
    names = (*market.symbols, "empty")  # slot -1 reads the last entry
    return [[names[asset] for asset in row] for row in market.slots[:n_rows]]


def _pairs(
    expected: Market, found: Market, n_rows: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the name, the rows and the other rows of everything that both markets have."""
    common = [symbol for symbol in expected.symbols if symbol in found.symbols]
    left, right = ([m.symbols.index(symbol) for symbol in common] for m in (expected, found))
    for name in (*BY_STOCK, *BY_DAY):
        before, after = getattr(expected, name), getattr(found, name)
        if before is None or after is None:
            continue
        if name in BY_STOCK:
            before, after = before[:n_rows][:, left], after[:n_rows][:, right]
        yield from _columns(
            name, COLUMNS.get(name), (expected, found), (before[:n_rows], after[:n_rows])
        )
    if expected.risk is None or found.risk is None:
        return
    for name in OF_RISK:
        tables = getattr(expected.risk, name)[:n_rows], getattr(found.risk, name)[:n_rows]
        names = OF_RISK_COLUMNS.get(name)
        yield from _columns(f"risk {name}", names, (expected.risk, found.risk), tables)


def _columns(
    name: str,
    names: str | None,
    holders: tuple[Market, Market] | tuple[RiskTables, RiskTables],
    tables: tuple[np.ndarray, np.ndarray],
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield a table as a whole, or the columns that both have by their names."""
    if names is None:
        yield (name, *tables)
        return
    mine, others = (getattr(holder, names) for holder in holders)
    for column in mine:
        if column in others:
            before, after = tables[0][..., mine.index(column)], tables[1][..., others.index(column)]
            yield column, before, after


def check_embeddings(subject: Subject, rows: Sequence[int]) -> Check:
    """Give the data another future after each t, and compare what is read up to it.

    Encoders and forecasters are frozen and read one window or history at a time, so equal ones
    have equal embeddings and forecasts.

    Args:
        subject: the data and their market.
        rows: of the days t.

    Returns:
        A leak for each encoder whose windows moved, and for a forecaster whose histories did; not
        applicable where neither is observed.
    """
    tried = "replaced every number after t; what encoders and forecasters read up to t"
    kinds, forecaster = (
        OBSERVED[subject.config.encoders.observe],
        subject.config.forecasters.observe,
    )
    if not kinds and forecaster == NO:
        reason = "the agents observe no encoder and no forecaster"
        return Check("embeddings", tried, "not applicable", (reason,))
    market, config = subject.market, subject.config
    leaks = dict[str, str]()
    before = _bars(subject, subject.raw)
    for row in rows:
        t = market.dates[row]
        after = _bars(subject, corrupt(subject.raw, t))
        if forecaster != NO and _histories_move(before, after, subject, row):
            leaks.setdefault(forecaster, f"histories of the forecaster {forecaster} (t = {t})")
        for kind in kinds:
            first, second = (
                _until(bars, panel_features(kind, bars, config), subject, row)
                for bars in (before, after)
            )
            same = len(first.inputs) == len(second.inputs) and np.array_equal(
                first.ends, second.ends
            )
            if not (same and np.isclose(first.inputs, second.inputs, **NEAR).all()):
                leaks.setdefault(kind, f"windows of the encoder {kind} (t = {t})")
    fine = f"no window of {', '.join(kinds)} moved" if kinds else ""
    if forecaster != NO:
        fine += f"{'; ' * bool(fine)}no history of {forecaster} moved"
    return Check.of("embeddings", tried, list(leaks.values()), fine)


def _bars(subject: Subject, raw: RawData) -> Bars:
    data, profile = subject.config.data, subject.config.market_profile
    report = validate(raw, data.validation, profile.calendar, data.calendar_changes, profile)
    sectors = list(subject.market.sector_names)
    return panel_bars(build_panel(raw, report.table, sectors, session_counts(profile)), "audit")


def _histories_move(before: Bars, after: Bars, subject: Subject, row: int) -> bool:
    """Say whether bars up to a row, or the days on which forecasts of them are made, moved."""
    market, config = subject.market, subject.config
    first, second = (ForecastPlan.of(bars, market, config, LEAST_ROWS) for bars in (before, after))
    known = [plan.table[plan.timestamps <= market.dates[row]] for plan in (first, second)]
    same_days = np.array_equal(first.origin[: row + 1], second.origin[: row + 1])
    is_same = len(known[0]) == len(known[1]) and np.isclose(known[0], known[1], **NEAR).all()
    return not (same_days and is_same)


class _Read(NamedTuple):
    """What an encoder reads up to a row."""

    inputs: Float[np.ndarray, "N F"]
    """Of the bars, stock by stock."""
    ends: Bool[np.ndarray, "T A"]
    """Days and stocks on which a window ends."""


def _until(bars: Bars, table: Float[np.ndarray, "N F"], subject: Subject, row: int) -> _Read:
    market = subject.market
    usable = np.isfinite(table).all(axis=1)
    starts = window_table(bars, usable, market, subject.config.encoders.panel)
    return _Read(table[bars.timestamps <= market.dates[row]], starts[: row + 1] >= 0)
