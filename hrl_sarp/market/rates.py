"""Computes returns of cash and of the benchmark, and published series, by session."""

from collections.abc import Collection
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int, Shaped

from hrl_sarp.data.quality.series import INDEX_BREAKING
from hrl_sarp.data.store import RawData
from hrl_sarp.features.prices import DAY, PricePanel
from hrl_sarp.features.technical import row_mean
from hrl_sarp.market.releases import align_series, release_of
from hrl_sarp.market.universe import EMPTY, eligible_stocks

POLICY_RATE = "FEDFUNDS"
BILL_RATE = "IRX"
"""13-week treasury bill, percent a year; read if the data lack the policy rate."""
ETF_PREFIX = "ETF_"
MIN_SECTOR_ETFS = 9
"""Until 2018 there were fewer than eleven; nine cover the market."""
SHOWN_SERIES = 8
"""Series that a message lists at most."""
DAYS_PER_YEAR = 360
"""Money market convention ACT/360."""


def risk_free_returns(
    macro: pl.DataFrame, dates: Shaped[np.ndarray, " T"]
) -> tuple[Float[np.ndarray, " T"], str]:
    """Compute the simple return of cash from the close before to the close of each session.

    The rate is FEDFUNDS of the previous calendar month, else the treasury bill's of the day before.
    Both are in percent a year and count ACT/360 over the calendar days between. The return is 0 in
    the first row and where no rate is known. The second value describes the rate.
    """
    known = macro.filter(pl.col("value").is_not_null()).sort("date")
    policy = known.filter(pl.col("series") == POLICY_RATE)
    bill = known.filter(pl.col("series") == BILL_RATE)
    if not policy.is_empty():
        percent, name = _rate_before(policy, dates, "M"), f"{POLICY_RATE} of the month before"
    elif not bill.is_empty():
        percent, name = _rate_before(bill, dates, "D"), f"{BILL_RATE} of the day before"
    else:
        return np.zeros(len(dates)), f"0: the data hold no {POLICY_RATE}"
    days = np.diff(dates.astype(DAY), prepend=dates[:1]).astype(np.int64)
    return percent / 100.0 * days / DAYS_PER_YEAR, f"{name}, ACT/360"


def benchmark_returns(
    raw: RawData,
    panel: PricePanel,
    slots: Int[np.ndarray, "T N"],
    findings: pl.DataFrame,
) -> tuple[Float[np.ndarray, " T"], str]:
    """Compute the index's simple return of each session, 0 in the first row.

    It is the index of the data if there is one, and 1/N before it begins and after it ends. Without
    an index it is the mean of the sector funds on
    days with at least nine, and 1/N of the stocks that were eligible the day before on the others
    (1/N of all stocks before the first universe). A return over a level that validation found wrong
    (`INDEX_BREAKING`) is 0. The second value describes the returns.
    """
    if not raw.index.is_empty():
        wrong = findings.filter(pl.col("rule").is_in(sorted(INDEX_BREAKING)))
        jumps = wrong["date"].unique().sort().to_numpy().astype(DAY)
        index, is_known = _level_returns(raw.index, panel.dates, jumps)
        if is_known.all():
            return index, "index of the data set"
        return (
            np.where(is_known, index, _equal_weight(panel, slots)),
            f"index of the data set; 1/N of the eligible stocks in {(~is_known).sum()} sessions "
            "before it begins or after it ends",
        )
    equal_weight = _equal_weight(panel, slots)
    funds, count = _fund_returns(raw.macro, panel.dates)
    use_funds = count >= MIN_SECTOR_ETFS
    if not use_funds.any():
        return equal_weight, "1/N of the eligible stocks, daily, gross"
    first = panel.dates[use_funds][0]
    return (
        np.where(use_funds, funds, equal_weight),
        f"equal weight of the sector funds from {first}, where at least {MIN_SECTOR_ETFS} have a "
        "close; else 1/N of the eligible stocks, daily, gross",
    )


def unread_series(macro: pl.DataFrame, read: Collection[str]) -> list[str]:
    """Name the series that change nothing, because no feature reads them.

    Those of cash and of the sector funds are read on some days, and are not named.

    Args:
        macro: series of the data.
        read: those that features could read; another of the same meaning may come first.

    Returns:
        One sentence; none where every series is read.

    Examples:
        >>> told = unread_series(pl.DataFrame({"series": ["VIX", "ICSA", "IRX"]}), {"VIX"})
        >>> print(told[0])
        no feature reads ICSA of the macro series; own values stand in macro_features, with the day
        on which each became known (docs/own_code.md)
    """
    of_others = {POLICY_RATE, BILL_RATE, *read}
    found = sorted(set(macro["series"].drop_nulls()) - of_others)
    names = [name for name in found if not name.startswith(ETF_PREFIX)]
    if not names:
        return []
    more = f" and {len(names) - SHOWN_SERIES} more" if len(names) > SHOWN_SERIES else ""
    return [
        f"no feature reads {', '.join(names[:SHOWN_SERIES])}{more} of the macro series; own values "
        "stand in macro_features, with the day on which each became known (docs/own_code.md)"
    ]


def published_series(
    macro: pl.DataFrame, dates: Shaped[np.ndarray, " T"], names: list[str]
) -> dict[str, Float[np.ndarray, " T"]]:
    """Align the named series with sessions, each with its publication delay.

    Series that the data lack are left out. Values are NaN before the first publication.

    Raises:
        FeatureError: if the release delay of one is not known.
    """
    wanted = macro.filter(pl.col("series").is_in(names)).sort("series", "date")
    parts = wanted.partition_by("series", as_dict=True)
    return {
        str(name): align_series(
            dates,
            frame["date"].to_numpy().astype(DAY),
            frame["value"].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
            release_of(str(name)),
        )
        for (name,), frame in parts.items()
    }


def _rate_before(
    rates: pl.DataFrame, dates: Shaped[np.ndarray, " T"], period: Literal["M", "D"]
) -> Float[np.ndarray, " T"]:
    """Return the last rate of the month or day before each session; 0 before the first."""
    unit = f"datetime64[{period}]"
    before = dates.astype(unit) - np.timedelta64(1, period)
    last = np.searchsorted(rates["date"].to_numpy().astype(unit), before, side="right") - 1
    return np.where(last >= 0, rates["value"].to_numpy()[np.maximum(last, 0)], 0.0)


def _level_returns(
    index: pl.DataFrame, dates: Shaped[np.ndarray, " T"], jumps: Shaped[np.ndarray, " J"]
) -> tuple[Float[np.ndarray, " T"], Bool[np.ndarray, " T"]]:
    """Return the index's returns, and the sessions that lie between its first and last level."""
    known = index.filter(pl.col("close") > 0).sort("date")
    level_dates = known["date"].to_numpy().astype(DAY)
    last = np.searchsorted(level_dates, dates, side="right") - 1
    level = np.where(last >= 0, known["close"].to_numpy()[np.maximum(last, 0)], np.nan)
    simple = np.zeros(len(dates))
    simple[1:] = level[1:] / level[:-1] - 1.0
    crossed = np.diff(np.searchsorted(jumps, dates, side="right"), prepend=0) > 0
    is_known = np.isfinite(simple)
    if len(level_dates):
        is_known &= dates <= level_dates[-1]
    return np.where(crossed, 0.0, np.nan_to_num(simple)), is_known


def _fund_returns(
    macro: pl.DataFrame, dates: Shaped[np.ndarray, " T"]
) -> tuple[Float[np.ndarray, " T"], Int[np.ndarray, " T"]]:
    funds = macro.filter(pl.col("series").str.starts_with(ETF_PREFIX) & (pl.col("value") > 0))
    names = funds["series"].unique().sort()
    level = np.full((len(dates), len(names)), np.nan)
    row = np.searchsorted(dates, funds["date"].to_numpy().astype(DAY))
    inside = row < len(dates)
    inside[inside] = dates[row[inside]] == funds["date"].to_numpy().astype(DAY)[inside]
    column = names.search_sorted(funds["series"]).to_numpy()
    level[row[inside], column[inside]] = funds["value"].to_numpy()[inside]
    simple = np.full_like(level, np.nan)
    simple[1:] = level[1:] / level[:-1] - 1.0
    return np.nan_to_num(row_mean(simple)), np.isfinite(simple).sum(axis=1)


def _equal_weight(panel: PricePanel, slots: Int[np.ndarray, "T N"]) -> Float[np.ndarray, " T"]:
    chosen = np.zeros_like(panel.listed)
    chosen[1:] = eligible_stocks(slots[:-1], len(panel.symbols)) & panel.listed[1:]
    before_universe = np.concatenate([[True], (slots[:-1] == EMPTY).all(axis=1)])
    chosen[before_universe] = panel.tradable[before_universe]
    simple = np.nan_to_num(row_mean(np.where(chosen, panel.session_growth - 1.0, np.nan)))
    simple[0] = 0.0
    return simple
