"""Deliberately leaky variants of parts of the pipeline, each beside a clean twin.

Each leak is one that others have shipped. A twin does the same job in another way without looking
ahead, so that an audit which flags every change of a part is found out, too. Nothing here is
imported by the package.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from hrl_sarp.config.schema import GraphConfig
from hrl_sarp.contracts import DayRange, Market, Split
from hrl_sarp.data.known_at import latest_periods
from hrl_sarp.data.store import RawData
from hrl_sarp.envs.observations import micro_inputs
from hrl_sarp.envs.rewards import micro_gain
from hrl_sarp.features.prices import PricePanel, build_panel
from hrl_sarp.features.regime import RegimeModel, filter_regimes, weekly_observations
from hrl_sarp.features.stock import compute_stock_features, robust_z
from hrl_sarp.graph.sector_graph import node_features
from hrl_sarp.market.assemble import make_split
from hrl_sarp.market.releases import Release, align_series
from hrl_sarp.market.training_data import rows_within
from hrl_sarp.market.universe import choose_slots
from hrl_sarp.simulator.fused import _market_arrays


@dataclasses.dataclass(frozen=True)
class Variant:
    """A part of the assembly, replaced by a leaky and by a clean one."""

    place: str
    """What is replaced, as a dotted path."""
    leaky: Callable[..., Any]
    clean: Callable[..., Any]
    check: str
    """The check of the audit that must find the leak."""
    names: str
    """A feature, table or label that it must name."""


MODEL = RegimeModel(
    centre=np.array([0.001, 0.01]),
    scale=np.array([0.02, 0.004]),
    start=np.array([0.2, 0.3, 0.5]),
    transition=np.array([[0.90, 0.05, 0.05], [0.04, 0.92, 0.04], [0.03, 0.03, 0.94]]),
    means=np.array([[-0.5, 1.0], [0.5, 0.0], [0.0, -0.5]]),
    covariances=np.tile(np.eye(2), (3, 1, 1)),
)
"""Its scale is what some variants fit."""


# Standardising and windows


def z_over_all(values: np.ndarray, window: int, clip: float) -> np.ndarray:
    """Standardise a series by its mean and deviation over the whole sample."""
    z = (values - np.nanmean(values)) / (np.nanstd(values) + 1e-12)
    return np.clip(np.nan_to_num(z), -clip, clip)


def z_so_far(values: np.ndarray, window: int, clip: float) -> np.ndarray:
    """Standardise a series by its mean and deviation from the beginning to each row."""
    usable = np.isfinite(values)
    seen = np.where(usable, values, 0.0)
    count = np.maximum(np.cumsum(usable), 1)
    mean = np.cumsum(seen) / count
    variance = np.maximum(np.cumsum(seen**2) / count - mean**2, 1e-12)
    return np.where(usable, np.clip((values - mean) / np.sqrt(variance), -clip, clip), 0.0)


def centred_sum(values: np.ndarray, window: int) -> np.ndarray:
    """Sum a window with as many rows after t as before it."""
    return np.convolve(np.nan_to_num(values), np.ones(window), mode="same")


def trailing_sum(values: np.ndarray, window: int) -> np.ndarray:
    """Sum the rows t - window + 1 .. t."""
    shifted = [np.roll(np.append(np.zeros(window), values), k)[window:] for k in range(window)]
    return np.sum(shifted, axis=0)


def z_of_each_stock_over_time(values: np.ndarray, present: np.ndarray, clip: float) -> np.ndarray:
    """Standardise each stock by its own history, the future included."""
    usable = present & np.isfinite(values)
    count = np.maximum(usable.sum(axis=0), 1)
    seen = np.where(usable, values, 0.0)
    centred = np.where(usable, seen - seen.sum(axis=0) / count, 0.0)
    z = centred / (np.sqrt((centred**2).sum(axis=0) / count) + 1e-12)
    return np.clip(z, -clip, clip).astype(np.float32)


def ranks_of_each_day(values: np.ndarray, present: np.ndarray, clip: float) -> np.ndarray:
    """Rank the stocks of each day between -1 and 1."""
    usable = np.where(present & np.isfinite(values), values, np.inf)
    rank = np.argsort(np.argsort(usable, axis=1, kind="stable"), axis=1)
    count = np.maximum(np.isfinite(usable).sum(axis=1, keepdims=True) - 1, 1)
    return np.where(np.isfinite(usable), 2 * rank / count - 1, 0.0).astype(np.float32)


# Joins


def next_observation(
    sessions: np.ndarray, dates: np.ndarray, values: np.ndarray, release: Release
) -> np.ndarray:
    """Fill gaps of a series backwards: a session without a value takes the next one."""
    row = np.searchsorted(dates, sessions, side="left")
    return np.append(values, np.nan)[row]


def last_observation(
    sessions: np.ndarray, dates: np.ndarray, values: np.ndarray, release: Release
) -> np.ndarray:
    """Fill gaps forwards, after a delay that no series exceeds."""
    waits = max(release.days, 10 * release.sessions, 0 if release.weekday is None else 14)
    known = sessions - np.timedelta64(waits, "D")
    row = np.searchsorted(dates, known, side="right") - 1
    return np.where(row >= 0, values[np.maximum(row, 0)], np.nan)


def without_delay(
    sessions: np.ndarray, dates: np.ndarray, values: np.ndarray, release: Release
) -> np.ndarray:
    """Join a series by the day that it describes, not by the day that it was printed."""
    return align_series(sessions, dates, values, Release("the day itself"))


def label_as_feature(panel: Any, names: list[str], clip: float) -> np.ndarray:
    """Put what the next 5 sessions earn where the last 5 belong."""
    level = panel.log_level
    gain = np.full(level.shape, np.nan)
    gain[:-6] = level[6:] - level[1:-5]
    return _with_return_5d(panel, names, clip, gain)


def own_past_as_feature(panel: Any, names: list[str], clip: float) -> np.ndarray:
    """Compute the return of the last 5 sessions from running levels."""
    level = panel.log_level
    gain = np.full(level.shape, np.nan)
    gain[5:] = level[5:] - level[:-5]
    return _with_return_5d(panel, names, clip, gain)


def _with_return_5d(panel: Any, names: list[str], clip: float, gain: np.ndarray) -> np.ndarray:
    table = compute_stock_features(panel, names, clip).copy()
    table[..., names.index("return_5d")] = robust_z(gain, panel.tradable, clip)
    return table


# Adjusted levels


def dollars_from_adjusted_close(raw: RawData, findings: pl.DataFrame, *rest: Any) -> Any:
    """Multiply volume by adj_close, whose level knows every later split and dividend."""
    return _with_dollars(raw, findings, "adj_close", *rest)


def dollars_from_close(raw: RawData, findings: pl.DataFrame, *rest: Any) -> Any:
    """Multiply volume by the close of the day."""
    return _with_dollars(raw, findings, "close", *rest)


def _with_dollars(raw: RawData, findings: pl.DataFrame, column: str, *rest: Any) -> Any:
    prices = build_panel(raw, findings, *rest)
    rows = raw.bars.with_columns(dollars=pl.col(column) * pl.col("volume"))
    wide = rows.pivot("symbol", index="date", values="dollars", sort_columns=True).sort("date")
    dollars = wide.select(prices.symbols).fill_null(0.0).to_numpy()
    return dataclasses.replace(prices, dollar_volume=np.where(prices.tradable, dollars, np.nan))


def dollars_split_later(raw: RawData, findings: pl.DataFrame, *rest: Any) -> Any:
    """Multiply the close of the day by a volume that all later splits have adjusted."""
    known = pl.col("split").fill_null(1.0)
    later = known.reverse().cum_prod().reverse().over("symbol") / known
    adjusted = raw.bars.with_columns(volume=pl.col("volume") * later)
    return _with_dollars(dataclasses.replace(raw, bars=adjusted), findings, "close", *rest)


def final_values(frame: pl.DataFrame) -> pl.DataFrame:
    """Give each report the value to which it was corrected later."""
    keys = ["symbol", "name", "date"]
    final = frame.sort("known_at").group_by(keys).agg(final=pl.col("value").last())
    kept = latest_periods(frame).join(final, on=keys, nulls_equal=True, maintain_order="left")
    return kept.with_columns(value=pl.col("final")).drop("final")


def first_prints(frame: pl.DataFrame) -> pl.DataFrame:
    """Keep each report as it was printed first."""
    ordered = frame.sort("symbol", "name", "known_at", "date")
    return ordered.unique(["symbol", "name", "date"], keep="first", maintain_order=True)


# Universe


def survivors_only(raw: RawData, findings: pl.DataFrame, *rest: Any) -> PricePanel:
    """Drop the stocks that do not reach the end of the data."""
    last = raw.bars.group_by("symbol").agg(pl.max("date"))
    kept = last.filter(pl.col("date") == last["date"].max())["symbol"]
    return _of_symbols(raw, findings, kept, *rest)


def old_companies_only(raw: RawData, findings: pl.DataFrame, *rest: Any) -> PricePanel:
    """Drop the stocks that were not there at the beginning."""
    first = raw.bars.group_by("symbol").agg(pl.min("date"))
    kept = first.filter(pl.col("date") == first["date"].min())["symbol"]
    return _of_symbols(raw, findings, kept, *rest)


def _of_symbols(raw: RawData, findings: pl.DataFrame, kept: pl.Series, *rest: Any) -> PricePanel:
    bars = raw.bars.filter(pl.col("symbol").is_in(kept.implode()))
    return build_panel(dataclasses.replace(raw, bars=bars), findings, *rest)


def chosen_by_all_volume(prices: PricePanel, member: np.ndarray, config: Any) -> np.ndarray:
    """Rank by the dollar volume of the whole sample, the years to come included."""
    whole = np.tile(np.nanmedian(prices.dollar_volume, axis=0), (len(prices.dates), 1))
    return choose_slots(dataclasses.replace(prices, dollar_volume=whole), member, config)


def chosen_by_volume_so_far(prices: PricePanel, member: np.ndarray, config: Any) -> np.ndarray:
    """Rank by the mean dollar volume from the beginning to each row."""
    days = np.arange(1, len(prices.dates) + 1)[:, None]
    so_far = np.nancumsum(prices.dollar_volume, axis=0) / days
    return choose_slots(dataclasses.replace(prices, dollar_volume=so_far), member, config)


def chosen_by_the_year_to_come(prices: PricePanel, member: np.ndarray, config: Any) -> np.ndarray:
    """Rank at the beginning of a year by the dollar volume of that year."""
    return _chosen_by_volume_of(prices, member, config, sessions=config.lookback_days)


def chosen_a_month_late(prices: PricePanel, member: np.ndarray, config: Any) -> np.ndarray:
    """Rank by the dollar volume up to a month before."""
    return _chosen_by_volume_of(prices, member, config, sessions=-21)


def _chosen_by_volume_of(
    prices: PricePanel, member: np.ndarray, config: Any, sessions: int
) -> np.ndarray:
    n_days = len(prices.dates)
    rows = np.clip(np.arange(n_days) + sessions, 0, n_days - 1)
    moved = np.nan_to_num(prices.dollar_volume)[rows]
    return choose_slots(dataclasses.replace(prices, dollar_volume=moved), member, config)


def without_those_about_to_leave(prices: PricePanel, member: np.ndarray, config: Any) -> np.ndarray:
    """Empty a slot 5 sessions before its stock prints its last bar."""
    slots = choose_slots(prices, member, config)
    alive = np.append(prices.listed[5:], np.zeros_like(prices.listed[:5]), axis=0)
    return _kept_where(slots, alive)


def without_those_that_were_halted(
    prices: PricePanel, member: np.ndarray, config: Any
) -> np.ndarray:
    """Empty a slot for 5 sessions after its stock missed a bar."""
    slots = choose_slots(prices, member, config)
    missed = prices.listed & ~prices.tradable
    recent = np.array([missed[max(0, t - 4) : t + 1].any(axis=0) for t in range(len(missed))])
    return _kept_where(slots, ~recent)


def _kept_where(slots: np.ndarray, mask: np.ndarray) -> np.ndarray:
    kept = np.take_along_axis(mask, np.maximum(slots, 0), axis=1)
    return np.where(kept, slots, -1)


# Fitted models


def smoothed_regimes(
    model: Any, observations: np.ndarray, rows: np.ndarray, n_days: int
) -> np.ndarray:
    """Weigh each week's filtered belief by what later weeks say of it (the backward pass)."""
    filtered = filter_regimes(model, observations, rows, n_days)
    smoothed = filtered.copy()
    later = smoothed[rows[-1]]
    for week in range(len(rows) - 2, -1, -1):
        now = filtered[rows[week]]
        predicted = now @ model.transition
        later = now * (model.transition @ (later / predicted))
        smoothed[rows[week] : rows[week + 1]] = later
    return smoothed


def regimes_one_week_late(
    model: Any, observations: np.ndarray, rows: np.ndarray, n_days: int
) -> np.ndarray:
    """Hold each week's belief back for a week."""
    filtered = filter_regimes(model, observations, rows, n_days)
    late = filtered.copy()
    for week in range(1, len(rows)):
        late[rows[week] :] = filtered[rows[week - 1]]
    return late


def regime_scale_of_all_weeks(
    benchmark: Any, is_week_end: Any, first: int, split: Split, config: Any, model: Any
) -> Any:
    """Fit centre and scale of the regime model on every week of the data."""
    return _rescaled(benchmark, is_week_end, len(benchmark))


def regime_scale_of_training_weeks(
    benchmark: Any, is_week_end: Any, first: int, split: Split, config: Any, model: Any
) -> Any:
    """Fit centre and scale of the regime model on the weeks up to the end of training."""
    return _rescaled(benchmark, is_week_end, first + split.train.stop)


def direction_to_come(
    benchmark: Any, is_week_end: Any, first: int, split: Split, config: Any, model: Any
) -> np.ndarray:
    """Show the agents the label of their regime head: which way the next 20 sessions go."""
    total = np.concatenate([[0.0], np.cumsum(benchmark)])
    row = np.arange(len(benchmark))
    return _as_regimes(total[np.minimum(row + 21, len(benchmark))] - total[row + 1])


def direction_so_far(
    benchmark: Any, is_week_end: Any, first: int, split: Split, config: Any, model: Any
) -> np.ndarray:
    """Show the agents which way the last 20 sessions went."""
    total = np.concatenate([[0.0], np.cumsum(benchmark)])
    row = np.arange(len(benchmark))
    return _as_regimes(total[row + 1] - total[np.maximum(row - 19, 0)])


def _as_regimes(move: np.ndarray) -> np.ndarray:
    return np.stack([move < 0, move > 0, move == 0], axis=1).astype(np.float64)


def _rescaled(benchmark: Any, is_week_end: Any, stop: int) -> Any:
    observations, rows = weekly_observations(benchmark, is_week_end)
    fitted = observations[rows < stop]
    model = dataclasses.replace(MODEL, centre=fitted.mean(axis=0), scale=fitted.std(axis=0))
    return filter_regimes(model, observations, rows, len(benchmark))


ASSEMBLY = {
    "full-sample z-score": Variant(
        place="hrl_sarp.features.macro.trailing_z",
        leaky=z_over_all,
        clean=z_so_far,
        check="corrupted",
        names="index_return_4w",
    ),
    "centred window": Variant(
        place="hrl_sarp.features.macro.sum_over",
        leaky=centred_sum,
        clean=trailing_sum,
        check="corrupted",
        names="index_return_13w",
    ),
    "z-score of each stock over its whole history": Variant(
        place="hrl_sarp.features.stock.robust_z",
        leaky=z_of_each_stock_over_time,
        clean=ranks_of_each_day,
        check="permuted",
        names="volatility_20d",
    ),
    "macro series filled backwards": Variant(
        place="hrl_sarp.market.rates.align_series",
        leaky=next_observation,
        clean=last_observation,
        check="corrupted",
        names="policy_rate",
    ),
    "release lag ignored": Variant(
        place="hrl_sarp.market.rates.align_series",
        leaky=without_delay,
        clean=last_observation,
        check="not printed yet",
        names="policy_rate",
    ),
    "label in a feature": Variant(
        place="hrl_sarp.market.assemble.compute_stock_features",
        leaky=label_as_feature,
        clean=own_past_as_feature,
        check="corrupted",
        names="return_5d",
    ),
    "level of the adjusted close": Variant(
        place="hrl_sarp.market.assemble.build_panel",
        leaky=dollars_from_adjusted_close,
        clean=dollars_from_close,
        check="split later",
        names="dollar_volume_log",
    ),
    "volume adjusted by later splits": Variant(
        place="hrl_sarp.market.assemble.build_panel",
        leaky=dollars_split_later,
        clean=dollars_from_close,
        check="split later",
        names="dollar_volume",
    ),
    "restated reports": Variant(
        place="hrl_sarp.data.known_at.latest_periods",
        leaky=final_values,
        clean=first_prints,
        check="corrupted",
        names="report",
    ),
    "survivors only": Variant(
        place="hrl_sarp.market.assemble.build_panel",
        leaky=survivors_only,
        clean=old_companies_only,
        check="delisted",
        names="return_1d",  # the stocks that a stock is measured against
    ),
    "universe by future volume": Variant(
        place="hrl_sarp.market.assemble.choose_slots",
        leaky=chosen_by_all_volume,
        clean=chosen_by_volume_so_far,
        check="corrupted",
        names="universe",
    ),
    "universe of the whole year": Variant(
        place="hrl_sarp.market.assemble.choose_slots",
        leaky=chosen_by_the_year_to_come,
        clean=chosen_a_month_late,
        check="corrupted",
        names="universe",
    ),
    "delistings known ahead": Variant(
        place="hrl_sarp.market.assemble.choose_slots",
        leaky=without_those_about_to_leave,
        clean=without_those_that_were_halted,
        check="delisted",
        names="universe",
    ),
    "smoothed regimes": Variant(
        place="hrl_sarp.market.assemble.filter_regimes",
        leaky=smoothed_regimes,
        clean=regimes_one_week_late,
        check="corrupted",
        names="filtered_regime",
    ),
    "regime model fitted on all weeks": Variant(
        place="hrl_sarp.market.assemble._filtered_regime",
        leaky=regime_scale_of_all_weeks,
        clean=regime_scale_of_training_weeks,
        check="corrupted",
        names="filtered_regime",
    ),
    "regime label as input": Variant(
        place="hrl_sarp.market.assemble._filtered_regime",
        leaky=direction_to_come,
        clean=direction_so_far,
        check="corrupted",
        names="filtered_regime",
    ),
}
"""Parts of the assembly: what is known at a close."""


# What is fitted to, or drawn from, a span


def nodes_scaled_on_all_rows(market: Market, config: GraphConfig) -> np.ndarray:
    """Standardise the sector nodes by the mean and deviation of every row, test span included."""
    return _nodes_scaled_on(market, config, DayRange(0, market.n_days))


def nodes_scaled_on_half(market: Market, config: GraphConfig) -> np.ndarray:
    """Standardise the sector nodes by the first half of the training span."""
    train = market.split.train
    return _nodes_scaled_on(market, config, DayRange(train.start, train.start + len(train) // 2))


def _nodes_scaled_on(market: Market, config: GraphConfig, span: DayRange) -> np.ndarray:
    split = dataclasses.replace(market.split, train=span)
    return node_features(dataclasses.replace(market, split=split), config)


def shuffled_rows(usable: np.ndarray, span: DayRange) -> np.ndarray:
    """Draw as many rows as the span has from the whole calendar."""
    order = np.random.default_rng(4).permutation(np.flatnonzero(usable))
    return np.sort(order[: len(span)])


def every_other_row(usable: np.ndarray, span: DayRange) -> np.ndarray:
    """Take every second usable row of the span."""
    return rows_within(usable, span)[::2]


def split_without_purge(dates: Any, spans: Any, purge_days: int, embargo_days: int) -> Split:
    """Let each span end where the next one begins."""
    return make_split(dates, spans, 0, 0)


def split_with_more_embargo(dates: Any, spans: Any, purge_days: int, embargo_days: int) -> Split:
    """Leave out five sessions more than asked for at the start of a span."""
    return make_split(dates, spans, purge_days, embargo_days + 5)


# Fills, observations, rewards and decisions


def tables_of_the_decision(tensors: Any, tables: Any) -> Any:
    """Hand the kernels the session that was decided on instead of the one after it."""
    *by_day, sector_of = _market_arrays(tensors, tables)
    return (*(np.concatenate([table[:1], table[:-1]]) for table in by_day), sector_of)


def tables_of_the_session(tensors: Any, tables: Any) -> Any:
    """Hand the kernels copies of the tables of the session that is earned."""
    return tuple(table.copy() for table in _market_arrays(tensors, tables))


def inputs_of_tomorrow(tensors: Any, index: Any) -> Any:
    """Show the micro agent the row after its close."""
    return micro_inputs(tensors, {**index, "day": (index["day"] + 1).clamp_max(tensors.n_days - 1)})


def inputs_of_yesterday(tensors: Any, index: Any) -> Any:
    """Show the micro agent the row before its close."""
    return micro_inputs(tensors, {**index, "day": (index["day"] - 1).clamp_min(0)})


def gain_of_tomorrow(tensors: Any, result: Any, *rest: Any) -> Any:
    """Pay the micro agent for the night that follows the session."""
    night = tensors.overnight[(result.day + 1).clamp_max(tensors.n_days - 1)]
    return micro_gain(tensors, result, *rest) + (result.weights_end * night).sum(dim=1)


def gain_of_yesterday(tensors: Any, result: Any, *rest: Any) -> Any:
    """Pay the micro agent for the day before the session, too."""
    earlier = tensors.intraday[(result.day - 1).clamp_min(0)]
    return micro_gain(tensors, result, *rest) + (result.weights_start * earlier).sum(dim=1)


def trailing_and_tomorrow(values: np.ndarray, day: int, n_days: int) -> np.ndarray:
    """View a window that ends a session after the decision."""
    return values[max(0, day + 2 - n_days) : day + 2]


def trailing_until_yesterday(values: np.ndarray, day: int, n_days: int) -> np.ndarray:
    """View a window that ends a session before the decision."""
    return values[max(0, day - n_days) : day]


BEHAVIOUR = {
    "scaler fitted on the test span": Variant(
        place="hrl_sarp.graph.sector_graph.node_features",
        leaky=nodes_scaled_on_all_rows,
        clean=nodes_scaled_on_half,
        check="sector graph",
        names="sector nodes",
    ),
    "shuffled split": Variant(
        place="hrl_sarp.market.training_data.rows_within",
        leaky=shuffled_rows,
        clean=every_other_row,
        check="split overlap",
        names="(train) reads the validation span",
    ),
    "overlapping windows": Variant(
        place="hrl_sarp.market.assemble.make_split",
        leaky=split_without_purge,
        clean=split_with_more_embargo,
        check="split overlap",
        names="(train) reads the validation span",
    ),
    "fill in the bar that was decided on": Variant(
        place="hrl_sarp.simulator.fused._market_arrays",
        leaky=tables_of_the_decision,
        clean=tables_of_the_session,
        check="fills",
        names="not that of its own row",
    ),
    "observation of the next session": Variant(
        place="hrl_sarp.envs.levels.micro_inputs",
        leaky=inputs_of_tomorrow,
        clean=inputs_of_yesterday,
        check="observations",
        names="observation of the micro agent",
    ),
    "reward of the next session": Variant(
        place="hrl_sarp.envs.levels.micro_gain",
        leaky=gain_of_tomorrow,
        clean=gain_of_yesterday,
        check="rewards",
        names="gain of the micro agent",
    ),
    "decision on the next session": Variant(
        place="hrl_sarp.evaluation.baselines.rules.trailing",
        leaky=trailing_and_tomorrow,
        clean=trailing_until_yesterday,
        check="decisions",
        names="inverse volatility",
    ),
}
"""Parts behind the assembly: what is fitted, seen, decided, earned and rewarded."""
