"""Raw data to `Market`: prices, universe, rates, features and regime on one set of rows."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int, Shaped

from hrl_sarp.config.market_schema import CalendarChanges
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market, Split
from hrl_sarp.data.exchange_calendar import sessions_between
from hrl_sarp.data.quality.validation import ValidationReport, validate
from hrl_sarp.data.store import RawData
from hrl_sarp.errors import DataError, FeatureError, MarketError
from hrl_sarp.features.macro import (
    PORTFOLIO_DRAWDOWN,
    MacroInputs,
    compute_macro_features,
    find_macro_problems,
    needed_series,
)
from hrl_sarp.features.panel import PricePanel
from hrl_sarp.features.regime import (
    RegimeModel,
    filter_regimes,
    fit_regime_model,
    weekly_observations,
)
from hrl_sarp.features.stock import compute_stock_features, find_stock_problems, longest_lookback
from hrl_sarp.market.prices import PriceTables, build_panel, build_planted, build_prices
from hrl_sarp.market.rates import benchmark_returns, published_series, risk_free_returns
from hrl_sarp.market.splits import make_split
from hrl_sarp.market.universe import choose_slots, membership_mask


@dataclass(frozen=True)
class _Rates:
    """What does not depend on a single stock, on all rows of the data."""

    risk_free: Float[np.ndarray, " T"]
    risk_free_is: str
    benchmark: Float[np.ndarray, " T"]
    benchmark_is: str
    is_week_end: Bool[np.ndarray, " T"]


def assemble_market(
    raw: RawData, config: RunConfig, regime_model: RegimeModel | None = None
) -> Market:
    """Assemble the market of a profile: validated, adjusted, masked, with causal features.

    Rows begin at the first session that has a universe and whose features' look-back is filled;
    assets are all stocks that were ever eligible.

    Args:
        raw: what a source delivered.
        config: the run's configuration; only the market profile and the data section are read.
        regime_model: a fitted model to filter with; None fits one on the training span.

    Raises:
        DataError: if the data break a structural rule; names each with its first case.
        FeatureError: if a feature lacks its columns or does not move; lists all of them.
        MarketError: if there is no universe, or a span holds no session.
    """
    profile = config.market_profile
    changes = config.data.calendar_changes
    report = validate(raw, config.data.validation, profile.calendar, changes)
    _require_usable(report)
    prices = build_prices(raw, report.table, profile.sectors)
    planted = build_planted(raw, prices)
    _check_profile(config, prices.columns | frozenset(planted), raw)
    member = membership_mask(prices, raw.membership)
    slots = choose_slots(prices, member, profile.universe, len(profile.sectors))
    first = _first_row(slots, prices, config)
    split = make_split(
        prices.dates[first:], profile.spans, config.data.purge_days, config.data.embargo_days
    )
    rates = _rates(raw, prices, slots, report.table, config)
    regime, regime_model = _filtered_regime(rates, first, split, config, regime_model)
    panel = build_panel(prices, len(profile.sectors), planted)
    tables = _Tables(raw, config, prices, slots, first, split)
    market = tables.to_market(panel, rates, regime)
    check_movement(market)
    return market


class _Tables:
    """Cuts all tables to the market's rows and stocks."""

    def __init__(
        self,
        raw: RawData,
        config: RunConfig,
        prices: PriceTables,
        slots: Int[np.ndarray, "T N"],
        first: int,
        split: Split,
    ) -> None:
        self.raw, self.config, self.prices, self.split = raw, config, prices, split
        self.rows = slice(first, None)
        self.chosen = np.unique(slots[slots >= 0])
        renumbered = np.full(len(prices.symbols) + 1, -1, dtype=np.int64)  # the last: empty slots
        renumbered[self.chosen] = np.arange(len(self.chosen))
        self.slots = renumbered[slots[self.rows]]

    def cut(self, table: np.ndarray) -> np.ndarray:
        """Return the market's rows and stocks of a (T, A, ...) table, contiguous."""
        return np.ascontiguousarray(table[self.rows][:, self.chosen])

    def to_market(
        self, panel: PricePanel, rates: _Rates, regime: Float[np.ndarray, "T R"]
    ) -> Market:
        """Compute the features on all rows, then keep the market's."""
        profile, data = self.config.market_profile, self.config.data
        stock = compute_stock_features(panel, profile.stock_features, data.feature_clip)
        names = needed_series(profile.macro_features)
        inputs = MacroInputs(
            panel, rates.benchmark, regime, published_series(self.raw.macro, panel.dates, names)
        )
        macro = compute_macro_features(
            inputs, profile.macro_features, data.macro_window_days, data.feature_clip
        )
        prices = self.prices
        return Market(
            name=self.config.market,
            dates=prices.dates[self.rows],
            symbols=tuple(prices.symbols[index] for index in self.chosen),
            sector_names=tuple(profile.sectors),
            sector_of=prices.sector_of[self.chosen],
            overnight_return=self.cut(prices.overnight),
            intraday_return=self.cut(prices.intraday),
            tradable=self.cut(prices.tradable),
            listed=self.cut(prices.listed),
            eligible=eligible_of(self.slots, len(self.chosen)),
            slots=self.slots,
            risk_free=rates.risk_free[self.rows],
            benchmark_return=rates.benchmark[self.rows],
            benchmark_name=profile.benchmark_name,
            dollar_volume=self.cut(prices.dollar_volume),
            stock_features=self.cut(stock),
            feature_names=tuple(profile.stock_features),
            macro_features=np.ascontiguousarray(macro[self.rows]),
            macro_names=tuple(profile.macro_features),
            filtered_regime=np.ascontiguousarray(regime[self.rows], dtype=np.float32),
            is_week_end=rates.is_week_end[self.rows],
            split=self.split,
            manifest=self.manifest(rates),
        )

    def manifest(self, rates: _Rates) -> dict[str, Any]:
        """Say where the numbers come from, what was fitted where and what was not there."""
        dates, train = self.prices.dates[self.rows], self.split.train
        served = {self.prices.sector_of[column] for column in self.chosen}
        names = self.config.market_profile.sectors
        return {
            "source": self.raw.source,
            "adjustment": self.raw.adjustment,
            "survivorship": self.raw.survivorship,
            "notes": list(self.raw.notes),
            "span": [str(dates[0]), str(dates[-1])],
            "fitted_span": [str(dates[train.start]), str(dates[train.stop - 1])],
            "risk_free": rates.risk_free_is,
            "benchmark": rates.benchmark_is,
            "sectors_without_stocks": [n for i, n in enumerate(names) if i not in served],
            "stocks_in_data": len(self.prices.symbols),
            "stocks_ever_eligible": len(self.chosen),
            "rows_kept_out": int((self.prices.printed & ~self.prices.tradable).sum()),
            "missing_columns": sorted({"open", "high", "low", "volume"} - set(self.prices.columns)),
        }


def eligible_of(slots: Int[np.ndarray, "T N"], n_assets: int) -> Bool[np.ndarray, "T A"]:
    """Mark the stocks that stand in a slot."""
    marked = np.zeros((len(slots), n_assets + 1), dtype=bool)  # the last takes the empty slots
    marked[np.arange(len(slots))[:, None], slots] = True
    return np.ascontiguousarray(marked[:, :n_assets])


def week_ends(
    dates: Shaped[np.ndarray, " T"], calendar: str, changes: CalendarChanges | None = None
) -> Bool[np.ndarray, " T"]:
    """Mark the last session of each ISO week by the published calendar, not by the next row.

    The data's own next row would be the future; whether Friday is a holiday is published. Closures
    without notice are in the calendar too: 2001-09-10 counts as a week end in hindsight.
    """
    start, end = dates[0].item(), dates[-1].item()
    sessions = sessions_between(calendar, start, end + timedelta(days=7), changes)
    # 1970-01-01 was a Thursday: shifted by 3 days, weeks from Monday start at multiples of 7
    week = (sessions.astype(np.int64) + 3) // 7
    last = sessions[np.flatnonzero(np.diff(week, append=week[-1] + 1))]
    return np.isin(dates, last)


def check_movement(market: Market) -> None:
    """Refuse features that are constant over the training span.

    Raises:
        FeatureError: naming all of them; `portfolio_drawdown` is excused, the environment fills it.
    """
    rows = slice(market.split.train.start, market.split.train.stop)
    stock, macro = market.stock_features[rows], market.macro_features[rows]
    still = [n for i, n in enumerate(market.feature_names) if np.ptp(stock[:, :, i]) == 0]
    still += [
        name
        for i, name in enumerate(market.macro_names)
        if np.ptp(macro[:, i]) == 0 and name != PORTFOLIO_DRAWDOWN
    ]
    if still:
        raise FeatureError(
            f"constant over the training span {market.dates[rows][0]} to {market.dates[rows][-1]}: "
            f"{', '.join(still)}; take them out of the market profile or collect their data"
        )


def _require_usable(report: ValidationReport) -> None:
    """Refuse data that break a structural rule."""
    broken = report.table.filter(pl.col("severity") == "fail")
    if broken.is_empty():
        return
    rules = [
        f"{rule} ({rows.height}x, first: {rows['symbol'][0]} {rows['date'][0] or ''})".rstrip()
        for (rule,), rows in broken.group_by("rule", maintain_order=True)
    ]
    raise DataError(
        f"no market can be made of data that break {', '.join(rules)}; expected none of these "
        "findings; run `python main.py validate-data` to see all, correct the files, collect again"
    )


def _check_profile(config: RunConfig, columns: frozenset[str], raw: RawData) -> None:
    series = frozenset(raw.macro["series"].unique().to_list())
    problems = [
        *find_stock_problems(config.market_profile.stock_features, columns),
        *find_macro_problems(config.market_profile.macro_features, series),
    ]
    if problems:
        raise FeatureError(
            "\n  ".join(
                [
                    f"market profile {config.market} does not fit the data of source {raw.source}:",
                    *problems,
                ]
            )
        )


def _first_row(slots: Int[np.ndarray, "T N"], prices: PriceTables, config: RunConfig) -> int:
    profile = config.market_profile
    lookback = max(profile.universe.lookback_days, longest_lookback(profile.stock_features))
    late_enough = np.arange(len(slots)) >= lookback
    has_universe = (slots >= 0).any(axis=1) & late_enough
    if not has_universe.any():
        raise MarketError(
            f"no universe: expected a first session of a year with {lookback} sessions before it "
            f"and stocks with {profile.universe.min_bars} bars in them, found "
            f"{len(prices.dates)} sessions from {prices.dates[0]} to {prices.dates[-1]}; collect "
            "a longer history"
        )
    return int(np.argmax(has_universe))


def _rates(
    raw: RawData,
    prices: PriceTables,
    slots: Int[np.ndarray, "T N"],
    findings: pl.DataFrame,
    config: RunConfig,
) -> _Rates:
    risk_free, risk_free_is = risk_free_returns(raw.macro, prices.dates)
    benchmark, benchmark_is = benchmark_returns(raw, prices, slots, findings)
    calendar, changes = config.market_profile.calendar, config.data.calendar_changes
    return _Rates(
        risk_free,
        risk_free_is,
        benchmark,
        benchmark_is,
        week_ends(prices.dates, calendar, changes),
    )


def _filtered_regime(
    rates: _Rates, first: int, split: Split, config: RunConfig, model: RegimeModel | None
) -> tuple[Float[np.ndarray, "T R"], RegimeModel]:
    """Filter on all rows of the data; the fit sees the training weeks only."""
    observations, rows = weekly_observations(rates.benchmark, rates.is_week_end)
    if model is None:
        start, stop = first + split.train.start, first + split.train.stop
        # a week counts if all of it lies inside: its first session follows the week end before
        begins = np.concatenate([[0], rows[:-1] + 1])
        inside = (begins >= start) & (rows < stop)
        model = fit_regime_model(observations[inside], config.data.regime.hmm_iterations)
    return filter_regimes(model, observations, rows, len(rates.benchmark)), model
