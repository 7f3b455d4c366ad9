"""The registry of stock features and their computation. A new feature is one entry and one test.

Every formula reads rows <= t. Each feature is then standardised across the stocks of the day.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Bool, Float
from numba import njit

from hrl_sarp.config.own_code import call, is_dotted, load_function, read_only, real_numbers
from hrl_sarp.contracts import USUAL_SESSIONS
from hrl_sarp.errors import FeatureError, OwnCodeError
from hrl_sarp.features.prices import PricePanel
from hrl_sarp.features.technical import (
    Table,
    difference,
    divide,
    lagged,
    log_positive,
    macd_histogram,
    relative_strength_index,
    rolling_correlation,
    rolling_cross,
    rolling_max,
    rolling_mean,
    rolling_skewness,
    rolling_std,
    true_range,
    wilder_mean,
)

CLOSE = frozenset({"close"})
OPEN = frozenset({"close", "open"})
RANGE = frozenset({"close", "high", "low"})
VOLUME = frozenset({"close", "volume"})
NORMAL_PER_MAD = 1.4826
"""Deviation of a normal variable per median absolute deviation."""
NORMAL_PER_MEAN_DEVIATION = 1.2533
"""Deviation of a normal variable per mean absolute deviation.

It serves on days on which the median absolute deviation is 0, since most stocks are equal.
"""
PLANTED_NAMES = ("planted_signal", *(f"noise_{number:02d}" for number in range(1, 22)))


@dataclass(frozen=True)
class StockFeature:
    """The formula of a stock feature and what it needs."""

    compute: Callable[[PricePanel], Table]
    """Raw values before standardisation; NaN where there are too few bars."""
    columns: frozenset[str]
    """Required columns of the raw bars, or names of planted features."""
    lookback_days: int
    """Sessions before the first value."""
    unit: str
    is_yearly: bool = False
    """The look-back is a year of the market's calendar, 252 sessions or another number."""


def compute_stock_features(
    panel: PricePanel, names: Sequence[str], clip: float
) -> Float[np.ndarray, "T A F"]:
    """Compute and standardise the named features for every stock of the panel.

    float32 within +-clip, in the order of `names`. A stock without a bar or with too short a
    history gets 0, the median of the day.

    Raises:
        FeatureError: if a name is unknown or its columns are missing; lists all of them.
    """
    problems = find_stock_problems(names, panel.columns)
    if problems:
        raise FeatureError("stock features cannot be computed: " + "; ".join(problems))
    result = np.empty((*panel.tradable.shape, len(names)), dtype=np.float32)

    def fill(index: int) -> None:
        raw = stock_feature(names[index], panel.columns).compute(panel)
        result[:, :, index] = robust_z(raw, panel.tradable, clip)

    # features are independent, and their compiled code releases the lock of Python
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for _ in threads.map(fill, range(len(names))):
            pass
    return result


def stock_feature(name: str, columns: frozenset[str]) -> StockFeature:
    """Return a feature by its name: of the registry, of the data, or a function of the user's.

    Args:
        name: of the registry, a column of the data, or `package.module:function`. Such a function
            takes the `PricePanel` and returns an array (T, A) whose row t reads rows <= t, NaN
            where it has no value. Its attributes `columns` (names of raw columns) and
            `lookback_days` may say what it needs.
        columns: of the data.

    Returns:
        The feature.

    Raises:
        ConfigError: if the function cannot be imported.
        KeyError: for an unknown name; `find_stock_problems` names these.
    """
    if name in STOCK_FEATURES:
        return STOCK_FEATURES[name]
    if is_dotted(name):
        function = load_function(name, "extra_stock_features")
        needs, lookback = _needs_of(function, name)
        return StockFeature(partial(_own_values, function, name), needs, lookback, "own")
    if name in columns:
        return _planted(name)
    raise KeyError(name)


def robust_z(
    values: Table, present: Bool[np.ndarray, "T A"], clip: float
) -> Float[np.ndarray, "T A"]:
    """Standardise each day across its stocks: (x - median) / (1.4826 MAD), clipped to +-clip.

    Only `present` stocks count. NaN and the other stocks become 0. A day on which all stocks are
    equal becomes 0, too.

    Source:
        Iglewicz and Hoaglin (1993) for the scale when the MAD is 0.
    """
    usable = np.where(present, values, np.nan).astype(np.float32)
    # median and MAD of sorted values do not depend on the order of the columns
    return _robust_z(usable, np.sort(usable, axis=1), np.float32(clip))


def find_stock_problems(names: Sequence[str], columns: frozenset[str]) -> list[str]:
    """List the profile's stock features that are unknown or lack their columns in the data."""
    lacking = lacking_columns(names, columns)
    problems = []
    for name in names:
        if name not in STOCK_FEATURES and name not in columns and not is_dotted(name):
            problems.append(f"stock_features: '{name}' is not in the registry; remove it")
        elif name in lacking:
            problems.append(
                f"stock_features: '{name}' {lacking[name]}; take it out of the market profile or "
                "collect those columns"
            )
    return problems


def lacking_columns(names: Sequence[str], columns: frozenset[str]) -> dict[str, str]:
    """Say of each known feature whose columns the data lack what it needs.

    Args:
        names: of features.
        columns: of the data.

    Returns:
        Name -> the rest of a sentence about it.
    """
    lacking = {}
    for name in names:
        is_known = name in STOCK_FEATURES or is_dotted(name) or name in columns
        missing = stock_feature(name, columns).columns - columns if is_known else None
        if missing:
            lacking[name] = f"needs {', '.join(sorted(missing))}, which the data lack"
    return lacking


def longest_lookback(names: Sequence[str], year: int = USUAL_SESSIONS.year) -> int:
    """Return after how many sessions every named feature can have a value."""
    here = frozenset(names)  # features of the data have no look-back
    features = [stock_feature(name, here) for name in names]
    return max(year if found.is_yearly else found.lookback_days for found in features)


def _needs_of(function: Callable[[PricePanel], Any], name: str) -> tuple[frozenset[str], int]:
    """Return the columns and the look-back that a function of the user's says it needs."""
    columns, lookback = getattr(function, "columns", CLOSE), getattr(function, "lookback_days", 0)
    if isinstance(columns, str):
        columns = (columns,)
    if type(lookback) is not int or lookback < 0:
        raise OwnCodeError(
            f"{name}: expected a whole number of sessions as its lookback_days, found "
            f"{lookback!r}; correct it"
        )
    return frozenset(columns), lookback


def _own_values(function: Callable[[PricePanel], Any], name: str, panel: PricePanel) -> Table:
    return own_array(call(function, name, read_only(panel)), name, panel.tradable.shape)


def own_array(values: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return what a function of the user's gave as an array; infinite values become NaN.

    Args:
        values: of the function.
        name: of the function.
        shape: that is expected.

    Returns:
        float64 of that shape.

    Raises:
        OwnCodeError: if it is no array of numbers of that shape.
    """
    array = real_numbers(values)
    if array is None:
        raise OwnCodeError(
            f"{name}: expected an array of numbers, found {type(values).__name__}; correct its "
            "return value"
        )
    if array.shape != shape:
        raise OwnCodeError(
            f"{name}: expected an array of shape {shape}, found {array.shape}; correct its return "
            "value"
        )
    return np.where(np.isfinite(array), array, np.nan)


def _volatility(panel: PricePanel, window: int) -> Table:
    return np.sqrt(panel.sessions.year) * rolling_std(panel.log_return, window)


def _market_table(panel: PricePanel) -> Table:
    return np.repeat(np.log1p(panel.market_return)[:, None], len(panel.symbols), axis=1)


def _downside_volatility(panel: PricePanel) -> Table:
    loss = np.minimum(panel.log_return, 0.0)
    return np.sqrt(panel.sessions.year * np.maximum(rolling_mean(loss**2, 20), 0.0))


def _bollinger_position(panel: PricePanel) -> Table:
    level = np.exp(panel.log_level)
    gap = level - rolling_mean(level, 20)
    return np.clip(0.5 + divide(gap, 4.0 * rolling_std(level, 20)), -0.5, 1.5)


def _average_true_range(panel: PricePanel) -> Table:
    level, past = np.exp(panel.log_level), np.exp(lagged(panel.log_level, 1))
    high, low = level * np.exp(panel.high_to_close), level * np.exp(panel.low_to_close)
    # without a close before, the range would lack the overnight move
    ranges = np.where(np.isnan(past), np.nan, true_range(high, low, past))
    return wilder_mean(ranges, 14) / level


def _dollar_volume_ratio(panel: PricePanel) -> Table:
    # dollars, because share volume jumps at every split
    ratio = divide(panel.dollar_volume, rolling_mean(panel.dollar_volume, 20))
    return np.minimum(ratio, 5.0)


def _amihud(panel: PricePanel) -> Table:
    impact = divide(np.abs(panel.log_return), panel.dollar_volume)
    return log_positive(rolling_mean(impact, 20))


def _beta(panel: PricePanel) -> Table:
    covariance, _, variance = rolling_cross(panel.log_return, _market_table(panel), 120)
    return divide(covariance, variance)


def _residual_volatility(panel: PricePanel) -> Table:
    covariance, own, market = rolling_cross(panel.log_return, _market_table(panel), 60)
    residual = own - divide(covariance**2, market)
    return np.sqrt(panel.sessions.year * np.maximum(residual, 0.0))


def _sector_relative_strength(panel: PricePanel) -> Table:
    sector = 65 * rolling_mean(np.log1p(panel.sector_return), 65)
    return difference(panel.log_level, 65) - sector[:, panel.sector_of]


def _planted(name: str) -> StockFeature:
    return StockFeature(lambda panel: panel.planted[name], frozenset({name}), 0, "as planted")


def _return_over(days: int) -> StockFeature:
    return StockFeature(lambda p: difference(p.log_level, days), CLOSE, days, "log return")


STOCK_FEATURES: dict[str, StockFeature] = {
    "return_1d": _return_over(1),
    "return_5d": _return_over(5),
    "return_20d": _return_over(20),
    "return_60d": _return_over(60),
    "momentum_12_1": StockFeature(
        lambda p: lagged(p.log_level, p.sessions.scaled(21)) - lagged(p.log_level, p.sessions.year),
        CLOSE,
        252,
        "log return, last month left out",
        is_yearly=True,
    ),
    "volatility_20d": StockFeature(lambda p: _volatility(p, 20), CLOSE, 20, "annual fraction"),
    "volatility_60d": StockFeature(lambda p: _volatility(p, 60), CLOSE, 60, "annual fraction"),
    "volatility_ratio_20_120": StockFeature(
        lambda p: divide(rolling_std(p.log_return, 20), rolling_std(p.log_return, 120)),
        CLOSE,
        120,
        "ratio",
    ),
    "downside_volatility_20d": StockFeature(_downside_volatility, CLOSE, 20, "annual fraction"),
    "skewness_60d": StockFeature(
        lambda p: rolling_skewness(p.log_return, 60), CLOSE, 60, "m3 / m2^1.5"
    ),
    "rsi_14": StockFeature(
        lambda p: relative_strength_index(np.exp(p.log_level), 14), CLOSE, 15, "0..100"
    ),
    "macd_histogram": StockFeature(
        lambda p: macd_histogram(np.exp(p.log_level), 12, 26, 9) / np.exp(p.log_level),
        CLOSE,
        35,
        "fraction of the close",
    ),
    "bb_position": StockFeature(_bollinger_position, CLOSE, 20, "0 lower band, 1 upper band"),
    "distance_to_52w_high": StockFeature(
        lambda p: p.log_level - rolling_max(p.log_level, p.sessions.year),
        CLOSE,
        252,
        "log fraction below, at most 0",
        is_yearly=True,
    ),
    "distance_to_52w_low": StockFeature(
        lambda p: p.log_level + rolling_max(-p.log_level, p.sessions.year),
        CLOSE,
        252,
        "log fraction above, at least 0",
        is_yearly=True,
    ),
    "max_return_20d": StockFeature(
        lambda p: rolling_max(p.log_return, 20), CLOSE, 20, "log return"
    ),
    "autocorrelation_60d": StockFeature(
        lambda p: rolling_correlation(p.log_return, lagged(p.log_return, 1), 60),
        CLOSE,
        61,
        "correlation",
    ),
    "atr_pct_14": StockFeature(_average_true_range, RANGE, 15, "fraction of the close"),
    "overnight_return_20d": StockFeature(
        lambda p: rolling_mean(p.log_overnight, 20), OPEN, 20, "log return a day"
    ),
    "intraday_return_20d": StockFeature(
        lambda p: rolling_mean(p.log_intraday, 20), OPEN, 20, "log return a day"
    ),
    "volume_ratio_20d": StockFeature(_dollar_volume_ratio, VOLUME, 20, "ratio of dollars"),
    "amihud_20d": StockFeature(_amihud, VOLUME, 20, "log of |return| per dollar"),
    "dollar_volume_log": StockFeature(
        lambda p: log_positive(rolling_mean(p.dollar_volume, 20)), VOLUME, 20, "log currency"
    ),
    "beta_120d": StockFeature(_beta, CLOSE, 120, "ratio"),
    "residual_volatility_60d": StockFeature(_residual_volatility, CLOSE, 60, "annual fraction"),
    "market_correlation_60d": StockFeature(
        lambda p: rolling_correlation(p.log_return, _market_table(p), 60), CLOSE, 60, "correlation"
    ),
    "sector_relative_strength_65d": StockFeature(
        _sector_relative_strength, CLOSE, 65, "log return over the sector's"
    ),
    "sector_correlation_60d": StockFeature(
        lambda p: rolling_correlation(p.log_return, np.log1p(p.sector_return)[:, p.sector_of], 60),
        CLOSE,
        60,
        "correlation",
    ),
    **{name: _planted(name) for name in PLANTED_NAMES},
}


# The kernels below carry no shape annotations: the run-time checks of the tests would wrap them and
# the compiler could not read them.


@njit(cache=True, nogil=True)
@no_type_check
def _robust_z(values, ordered, clip):
    n_days, n_assets = values.shape
    result = np.zeros((n_days, n_assets), np.float32)
    for t in range(n_days):
        n = n_assets
        while n > 0 and np.isnan(ordered[t, n - 1]):  # NaN sorts last
            n -= 1
        if n < 2:
            continue
        row = ordered[t, :n]
        centre = (row[(n - 1) // 2] + row[n // 2]) / np.float32(2.0)
        scale = _scale(row, centre)
        if scale <= 0.0:
            continue
        for a in range(n_assets):
            if not np.isnan(values[t, a]):
                z = (values[t, a] - centre) / scale
                result[t, a] = min(max(z, -clip), clip)
    return result


@njit(cache=True, nogil=True)
@no_type_check
def _scale(row, centre):
    """Walk outwards from the median: deviations come in order without a second sort."""
    n = len(row)
    low = n // 2 - 1
    while low >= 0 and row[low] > centre:
        low -= 1
    high = low + 1
    total, before, current = 0.0, np.float32(0.0), np.float32(0.0)
    for k in range(n):
        take_low = low >= 0 and (high >= n or centre - row[low] <= row[high] - centre)
        before = current
        if take_low:
            current = centre - row[low]
            low -= 1
        else:
            current = row[high] - centre
            high += 1
        total += current
        if k == n // 2:
            median = current if n % 2 else (before + current) / np.float32(2.0)
            if median > 0.0:  # the rest of the deviations does not count
                return np.float32(NORMAL_PER_MAD) * median
    return np.float32(NORMAL_PER_MEAN_DEVIATION * total / n)
