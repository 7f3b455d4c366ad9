"""Assembles a `Market` from raw data: prices, universe, rates, features and regime by session."""

import re
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int, Shaped

from hrl_sarp.config.market_schema import CalendarChanges, MarketProfile, SpansConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Market, Split
from hrl_sarp.data.exchange_calendar import sessions_between
from hrl_sarp.data.known_at import market_series
from hrl_sarp.data.quality.validation import ValidationReport, validate
from hrl_sarp.data.session_counts import session_counts
from hrl_sarp.data.store import RawData
from hrl_sarp.errors import DataError, FeatureError, MarketError
from hrl_sarp.features.macro import (
    MacroSources,
    compute_macro_features,
    implied_volatility,
    needed_series,
    read_series,
    split_names,
)
from hrl_sarp.features.prices import PricePanel, build_panel
from hrl_sarp.features.regime import (
    RegimeModel,
    filter_regimes,
    fit_regime_model,
    weekly_observations,
)
from hrl_sarp.features.stock import compute_stock_features, longest_lookback
from hrl_sarp.market.own.causality import require_causal
from hrl_sarp.market.own.profile import (
    CURE,
    LEFT_OUT,
    dated_spans,
    fit_profile,
    index_name,
    sectors_of,
    span_cuts,
)
from hrl_sarp.market.rates import (
    benchmark_returns,
    published_series,
    risk_free_returns,
    unread_series,
)
from hrl_sarp.market.universe import EMPTY, choose_slots, eligible_stocks, membership_mask
from hrl_sarp.risk import risk_tables

FIRST_PART = re.compile("[,;]")
"""Ends what a description names first. The rest may count sessions, which later data have more of.
"""


def assemble_market(
    raw: RawData,
    config: RunConfig,
    regime_model: RegimeModel | None = None,
    report: ValidationReport | None = None,
    halted_at_end: int = 0,
) -> Market:
    """Assemble the market of a profile: adjusted returns, masks and causal features.

    What the profile leaves open (sectors, spans as shares), the data decide. Features whose columns
    or series they lack are left out, unless the profile requires them. Rows begin at the first
    session with a universe and a full look-back of all features. Assets are all stocks that were
    ever eligible. The manifest lacks the hashes of the files. Without a `regime_model` one is
    fitted on the training span. Without a `report` the data are validated. For `halted_at_end` see
    `build_panel`.

    Raises:
        DataError: if the data break a structural rule; names each with its first case.
        FeatureError: if a feature is unknown, a required one lacks its columns, or one does not
            move; lists all of them.
        MarketError: if there is no universe, or a span holds no session.
    """
    asked, data = config.market_profile, config.data
    if report is None:
        changes = data.calendar_changes
        report = validate(raw, data.validation, asked.calendar, changes, asked)
    ground = _lay_ground(raw, config, report, halted_at_end)
    config, panel, slots, first = ground.config, ground.panel, ground.slots, ground.first
    profile, split, rows = config.market_profile, ground.split, slice(ground.first, None)
    risk_free, risk_free_is = risk_free_returns(raw.macro, panel.dates)
    benchmark, benchmark_is = benchmark_returns(raw, panel, slots, report.table)
    is_week_end = week_ends(panel.dates, profile.calendar, data.calendar_changes)
    regime = _filtered_regime(benchmark, is_week_end, first, split, config, regime_model)
    macro_names, portfolio_names = split_names(profile.macro_features)
    series = published_series(raw.macro, panel.dates, needed_series(macro_names))
    series |= market_series(raw.own_features, panel.dates)
    sources = MacroSources(panel, benchmark, regime, series)
    require_causal(sources, profile.stock_features, macro_names)
    macro = compute_macro_features(sources, macro_names, data.macro_window_days, data.feature_clip)
    implied = implied_volatility(series, macro_names)
    stocks, own_slots = _renumbered(slots[rows], len(panel.symbols))
    market = panel.to_market(
        rows,
        stocks,
        compute_stock_features(panel, profile.stock_features, data.feature_clip),
        name=config.market,
        sector_names=tuple(profile.sectors),
        eligible=eligible_stocks(own_slots, len(stocks)),
        slots=own_slots,
        risk_free=risk_free[rows],
        benchmark_return=benchmark[rows],
        benchmark_name=index_name(profile, benchmark_is),
        feature_names=tuple(profile.stock_features),
        macro_features=np.ascontiguousarray(macro[rows]),
        macro_names=macro_names,
        filtered_regime=np.ascontiguousarray(regime[rows], dtype=np.float32),
        is_week_end=is_week_end[rows],
        split=split,
        portfolio_names=portfolio_names,
        implied_volatility=None if implied is None else implied[rows],
        manifest=_sources(read_series(macro_names, series), risk_free_is, benchmark_is),
    )
    cuts = span_cuts(ground.spans, market.dates, panel.dates[0].item(), first)
    asked_spans = ground.spans.model_dump(mode="json")
    market.manifest.update(
        _manifest(raw, panel, market),
        remarks=[*ground.remarks, *unread_series(raw.macro, needed_series(macro_names))],
        cuts=cuts,
        asked_spans={name: list(days.values()) for name, days in asked_spans.items()},
    )
    market = without_constant(market, asked)
    if config.objective.kind == "risk":
        return replace(market, risk=risk_tables(market, config))
    return market


class _Ground(NamedTuple):
    """What a market stands on, before any feature is computed."""

    config: RunConfig
    """With the profile that the data leave."""
    remarks: tuple[str, ...]
    """What of the profile was left out or taken from the data."""
    panel: PricePanel
    slots: Int[np.ndarray, "T N"]
    first: int
    """Row of the panel at which the market begins."""
    spans: SpansConfig
    """By their days."""
    split: Split
    """Rows of the market."""


def _lay_ground(
    raw: RawData, config: RunConfig, report: ValidationReport, halted_at_end: int
) -> _Ground:
    """Fit the profile to the data, choose the universe and divide the sessions."""
    _require_usable(report)
    profile, data = config.market_profile, config.data
    counts = session_counts(profile)
    panel = build_panel(raw, report.table, sectors_of(profile, raw), counts, halted_at_end)
    fitted = fit_profile(config, raw, panel.columns)
    config = config.model_copy(update={"market_profile": fitted.profile})
    members = membership_mask(panel, raw.membership)
    slots = choose_slots(panel, members, fitted.profile.universe)
    first = _first_row(slots, panel, config)
    dates = panel.dates[first:]
    spans = dated_spans(profile.spans, dates, data.purge_days + data.embargo_days)
    split = make_split(dates, spans, data.purge_days, data.embargo_days)
    return _Ground(config, fitted.remarks, panel, slots, first, spans, split)


def make_split(
    dates: Shaped[np.ndarray, " T"], spans: SpansConfig, purge_days: int, embargo_days: int
) -> Split:
    """Turn dated spans into row ranges, purged and embargoed.

    A span may reach past the data on either side. Training and validation lose their last
    `purge_days` sessions, because the labels would reach into the next span. Validation and test
    lose their first `embargo_days` sessions.

    Raises:
        MarketError: if spans overlap, or one keeps no session; lists all such spans.
    """
    ordered = [("train", spans.train), ("validation", spans.validation), ("test", spans.test)]
    problems = [
        f"{later_name} starts {later.start}, not after the end of {earlier_name} {earlier.end}"
        for (earlier_name, earlier), (later_name, later) in pairwise(ordered)
        if later.start <= earlier.end
    ]
    kept = {}
    for name, wanted in ordered:
        start = int(np.searchsorted(dates, np.datetime64(wanted.start), side="left"))
        stop = int(np.searchsorted(dates, np.datetime64(wanted.end), side="right"))
        kept[name] = DayRange(
            start + (embargo_days if name != "train" else 0),
            stop - (purge_days if name != "test" else 0),
        )
        if len(kept[name]) == 0:
            problems.append(
                f"{name} {wanted.start} to {wanted.end} keeps no session of "
                f"{max(0, stop - start)} after {purge_days} purged and {embargo_days} embargoed"
            )
    if problems:
        raise MarketError(
            f"spans of the market profile: {'; '.join(problems)}; the market has sessions from "
            f"{dates[0]} to {dates[-1]}: change `spans` in config/markets/, collect more data, or "
            f"{CURE}"
        )
    return Split(**kept)


def week_ends(
    dates: Shaped[np.ndarray, " T"], calendar: str, changes: CalendarChanges | None = None
) -> Bool[np.ndarray, " T"]:
    """Mark the last session of each ISO week by the published calendar.

    The next row of the data is not read, because it is the future. The calendar also holds closures
    without notice, so 2001-09-10 is a week end in hindsight.
    """
    start, end = dates[0].item(), dates[-1].item()
    sessions = sessions_between(calendar, start, end + timedelta(days=7), changes)
    # 1970-01-01 was a Thursday: shifted by 3 days, weeks from Monday start at multiples of 7
    week = (sessions.astype(np.int64) + 3) // 7
    last = sessions[np.flatnonzero(np.diff(week, append=week[-1] + 1))]
    return np.isin(dates, last)


def without_constant(market: Market, profile: MarketProfile) -> Market:
    """Return a market without features that are constant over the training span.

    They are left out with a remark in the manifest where the sectors come from the data, for
    example the correlation with a sector of one stock. A profile with sectors of its own knows its
    data, so there they are refused, as required features are everywhere.

    Args:
        market: assembled.
        profile: as configured.

    Returns:
        The market itself if every feature moves.

    Raises:
        FeatureError: naming all features that may not be left out, or if none of a kind is left.
    """
    rows = slice(market.split.train.start, market.split.train.stop)
    stock = np.ptp(market.stock_features[rows], axis=(0, 1)) > 0
    macro = np.ptp(market.macro_features[rows], axis=0) > 0
    still = [n for n, moves in zip(market.feature_names, stock, strict=True) if not moves]
    still += [n for n, moves in zip(market.macro_names, macro, strict=True) if not moves]
    if not stock.any():
        raise MarketError(
            f"all stocks move alike in the training span {market.dates[rows][0]} to "
            f"{market.dates[rows][-1]}: expected stocks that differ, found {market.n_assets} with "
            "the same returns or none; check their files with validate-data"
        )
    may_go = not profile.sectors and bool(macro.any())
    refused = [name for name in still if not may_go or name in profile.required_features]
    if refused:
        raise FeatureError(
            f"constant over the training span {market.dates[rows][0]} to {market.dates[rows][-1]}: "
            f"{', '.join(refused)}; take them out of the market profile or collect their data"
        )
    if not still:
        return market
    remarks = [f"feature {name}{LEFT_OUT}it is constant over the training span" for name in still]
    return replace(
        market,
        stock_features=np.ascontiguousarray(market.stock_features[:, :, stock]),
        feature_names=tuple(np.array(market.feature_names)[stock].tolist()),
        macro_features=np.ascontiguousarray(market.macro_features[:, macro]),
        macro_names=tuple(np.array(market.macro_names)[macro].tolist()),
        manifest={**market.manifest, "remarks": [*market.manifest.get("remarks", []), *remarks]},
    )


def _require_usable(report: ValidationReport) -> None:
    """Refuse data that break a structural rule."""
    broken = report.table.filter(pl.col("severity") == "fail")
    if broken.is_empty():
        return
    rules = [
        f"{rule} ({rows.height}x, first: {rows['symbol'][0]} {rows['date'][0] or ''}".rstrip()
        + (f": {rows['detail'][0]})" if rows["detail"][0] else ")")
        for (rule,), rows in broken.group_by("rule", maintain_order=True)
    ]
    raise DataError(
        f"no market can be made of data that break {', '.join(rules)}; expected none of these "
        "findings; run `hrl-sarp validate-data` to see all, correct the files, collect again"
    )


def _first_row(slots: Int[np.ndarray, "T N"], panel: PricePanel, config: RunConfig) -> int:
    profile = config.market_profile
    lookback = max(
        profile.universe.lookback_days,
        longest_lookback(profile.stock_features, panel.sessions.year),
    )
    late_enough = np.arange(len(slots)) >= lookback
    has_universe = (slots >= 0).any(axis=1) & late_enough
    if not has_universe.any():
        raise MarketError(
            f"no universe: expected a first session of a year with {lookback} sessions before it "
            f"and stocks with {profile.universe.min_bars} bars in them, found "
            f"{len(panel.dates)} sessions from {panel.dates[0]} to {panel.dates[-1]}; collect "
            "a longer history"
        )
    return int(np.argmax(has_universe))


def _filtered_regime(
    benchmark: Float[np.ndarray, " T"],
    is_week_end: Bool[np.ndarray, " T"],
    first: int,
    split: Split,
    config: RunConfig,
    model: RegimeModel | None,
) -> Float[np.ndarray, "T R"]:
    """Filter the regime on all rows; the model is fitted to training weeks only."""
    observations, rows = weekly_observations(benchmark, is_week_end)
    if model is None:
        start, stop = first + split.train.start, first + split.train.stop
        # a week counts if all its sessions lie inside the training span
        begins = np.concatenate([[0], rows[:-1] + 1])
        inside = (begins >= start) & (rows < stop)
        model = fit_regime_model(observations[inside], config.data.regime.hmm_iterations)
    return filter_regimes(model, observations, rows, len(benchmark))


def _renumbered(
    slots: Int[np.ndarray, "T N"], n_stocks: int
) -> tuple[Int[np.ndarray, " A"], Int[np.ndarray, "T N"]]:
    """Return the columns of the panel that were ever eligible, and slots that point into them."""
    chosen = np.unique(slots[slots >= 0])
    place = np.full(n_stocks + 1, EMPTY, dtype=np.int64)  # the last column stands for empty slots
    place[chosen] = np.arange(len(chosen))
    return chosen, place[slots]


def _sources(series: dict[str, str], risk_free: str, benchmark: str) -> dict[str, Any]:
    """Return from what cash, index and features are read."""
    of_both = {"cash": FIRST_PART.split(risk_free)[0], "index": FIRST_PART.split(benchmark)[0]}
    return {"risk_free": risk_free, "benchmark": benchmark, "series": {**series, **of_both}}


def _manifest(raw: RawData, panel: PricePanel, market: Market) -> dict[str, Any]:
    """Return the origin of the data, the fitted span and what is missing."""
    dates, train = market.dates, market.split.train
    served = set(market.sector_of.tolist())
    return {
        "source": raw.source,
        "adjustment": raw.adjustment,
        "survivorship": raw.survivorship,
        "notes": list(raw.notes),
        "span": [str(dates[0]), str(dates[-1])],
        "fitted_span": [str(dates[train.start]), str(dates[train.stop - 1])],
        "sectors_without_stocks": [
            name for index, name in enumerate(market.sector_names) if index not in served
        ],
        "stocks_in_data": len(panel.symbols),
        "stocks_ever_eligible": market.n_assets,
        "rows_kept_out": int((panel.printed & ~panel.tradable).sum()),
        "missing_columns": sorted({"open", "high", "low", "volume"} - panel.columns),
    }
