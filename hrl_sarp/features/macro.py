"""The registry of macro features and their computation. A new feature is one entry and one test.

Every formula reads rows <= t. Published series come aligned with sessions, after their delays
(`market/releases.py`).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float
from numba import njit

from hrl_sarp.config.own_code import call, is_dotted, load_function, read_only
from hrl_sarp.contracts import PORTFOLIO_FEATURES, Regime
from hrl_sarp.errors import FeatureError
from hrl_sarp.features import technical
from hrl_sarp.features.prices import PricePanel
from hrl_sarp.features.stock import own_array
from hrl_sarp.features.technical import Column, log_positive, row_mean, row_sum

WEEK, MONTH, QUARTER, HALF, YEAR = "week", "month", "quarter", "half", "year"
"""Lengths of time, in sessions of the market's calendar (`SessionCounts`)."""
FLOW_WINDOW = 60
IMPLIED = "implied_volatility"
OIL = ("DCOILWTICO", "DCOILBRENTEU", "WTI_FUTURE", "BRENT_FUTURE")
OIL_LEVELS = (60.0, 80.0, 100.0)
"""US dollars a barrel: the bounds between the four values of `crude_regime`."""
MIN_WINDOW_SHARE = 0.08
"""Share of the trailing window (20 of 252 sessions) that a z-score needs."""


@dataclass(frozen=True)
class MacroSources:
    """Inputs of macro features; row t is known at the close of day t."""

    panel: PricePanel
    index_return: Float[np.ndarray, " T"]
    """Simple return of the benchmark, close to close."""
    filtered_regime: Float[np.ndarray, "T R"]
    series: dict[str, Float[np.ndarray, " T"]]
    """Published series by session, after the delay; NaN before the first publication."""

    def span(self, name: str) -> int:
        """Return the sessions of a length of time, such as `WEEK`."""
        return int(getattr(self.panel.sessions, name))


@dataclass(frozen=True)
class MacroFeature:
    """The formula of a macro feature and the series that it needs."""

    compute: Callable[[MacroSources], Column]
    """Raw values; NaN where they cannot be computed yet."""
    series: tuple[str, ...] = ()
    """Alternative series: the first that the data have is used, and one is required."""
    unit: str = "log return"
    is_standardised: bool = True
    """By the trailing window; False for a feature that is bounded already."""


def compute_macro_features(
    sources: MacroSources, names: Sequence[str], window: int, clip: float
) -> Float[np.ndarray, "T M"]:
    """Compute the named features, standardised by a trailing window that includes row t.

    float32 within +-clip, without NaN, in the order of `names`; 0 before a series begins.

    Raises:
        FeatureError: if a name is unknown or its series are missing; lists all of them.
    """
    problems = find_macro_problems(names, frozenset(sources.series))
    if problems:
        raise FeatureError("macro features cannot be computed: " + "; ".join(problems))
    result = np.empty((len(sources.index_return), len(names)), dtype=np.float32)
    for index, name in enumerate(names):
        feature = macro_feature(name, sources.series)
        raw = feature.compute(sources)
        if feature.is_standardised:
            result[:, index] = trailing_z(raw, window, clip)
        else:
            result[:, index] = np.clip(np.nan_to_num(raw), -clip, clip)
    return result


def macro_feature(name: str, series: Collection[str]) -> MacroFeature:
    """Return a feature by its name: of the registry, a series, or a function of the user's.

    Args:
        name: of the registry, of a series of the user's own, or `package.module:function`. Such a
            function takes the `MacroSources` and returns an array (T,) whose row t reads rows <= t,
            NaN where it has no value.
        series: that the data have.

    Returns:
        The feature.

    Raises:
        ConfigError: if the function cannot be imported.
        KeyError: for an unknown name; `find_macro_problems` names these.
    """
    if name in MACRO_FEATURES:
        return MACRO_FEATURES[name]
    if is_dotted(name):
        function = load_function(name, "extra_macro_features")
        return MacroFeature(partial(_own_column, function, name), unit="own")
    if name in series:
        return _level(name, unit="own")
    raise KeyError(name)


def split_names(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split a profile's macro features into those of the market and those of the portfolio.

    `compute_macro_features` computes the first; the environment appends the second.
    """
    own = tuple(name for name in names if name not in PORTFOLIO_FEATURES)
    return own, tuple(name for name in names if name in PORTFOLIO_FEATURES)


def find_macro_problems(names: Sequence[str], series: frozenset[str]) -> list[str]:
    """List the macro features that are unknown, lack their series or are in the wrong order."""
    own, of_portfolio = split_names(names)
    problems = []
    if tuple(names) != own + of_portfolio:
        problems.append(
            f"macro_features: {', '.join(of_portfolio)} come from the portfolio, not from the "
            "market; list them last"
        )
    lacking = lacking_series(own, series)
    for name in own:
        if name not in MACRO_FEATURES and name not in series and not is_dotted(name):
            problems.append(f"macro_features: '{name}' is not in the registry; remove it")
        elif name in lacking:
            problems.append(
                f"macro_features: '{name}' {lacking[name]}; take it out of the market profile or "
                "collect that series"
            )
    return problems


def lacking_series(names: Sequence[str], series: frozenset[str]) -> dict[str, str]:
    """Say of each known feature whose series the data lack what it needs.

    Args:
        names: of features.
        series: that the data have.

    Returns:
        Name -> the rest of a sentence about it.
    """
    lacking = {}
    for name in names:
        needed = MACRO_FEATURES[name].series if name in MACRO_FEATURES else ()
        if needed and not series & set(needed):
            lacking[name] = f"needs the series {' or '.join(needed)}, which the data lack"
    return lacking


def read_series(names: Sequence[str], series: Collection[str]) -> dict[str, str]:
    """Say which of its alternative series each feature reads.

    Args:
        names: of features.
        series: that the data have.

    Returns:
        Name of each feature that reads a series, with the first one that the data have.
    """
    found = {}
    for name in names:
        needed = MACRO_FEATURES[name].series if name in MACRO_FEATURES else (name,)
        known = next((each for each in needed if each in series), None)
        if known is not None:
            found[name] = known
    return found


def needed_series(names: Sequence[str]) -> list[str]:
    """List every published series that one of the features could use."""
    known = (MACRO_FEATURES[name] for name in names if name in MACRO_FEATURES)
    return sorted({series for feature in known for series in feature.series})


def implied_volatility(
    series: dict[str, Float[np.ndarray, " T"]], names: Sequence[str]
) -> Column | None:
    """Return the annual volatility, as a fraction, that the profile's feature of it reads.

    0 before its first publication; None where `names` lack the feature.
    """
    if IMPLIED not in names:
        return None
    points = next(series[name] for name in MACRO_FEATURES[IMPLIED].series if name in series)
    return np.nan_to_num(points) / 100.0


def trailing_z(values: Column, window: int, clip: float) -> Column:
    """Standardise one series by mean and deviation of its last `window` rows, row t included.

    The result is within +-clip. It is 0 where the value is NaN, where the window holds less than
    `MIN_WINDOW_SHARE` of its values, and where the window is constant.
    """
    needed = max(2, int(np.ceil(MIN_WINDOW_SHARE * window)))
    return _trailing_z(np.ascontiguousarray(values, dtype=np.float64), window, needed, clip)


def sum_over(values: Column, window: int) -> Column:
    """Sum the last `window` rows, row t included; NaN in the first `window` - 1 rows."""
    result = np.full(len(values), np.nan)
    for t in range(window - 1, len(values)):
        result[t] = values[t - window + 1 : t + 1].sum()
    return result


def mean_pairwise_correlation(panel: PricePanel, window: int) -> Column:
    """Compute the average correlation that the equal-weight portfolio's variance implies.

    For N stocks with deviations s_i, rho = (N^2 var(mean) - sum s_i^2) / ((sum s_i)^2 - sum s_i^2).
    NaN before the window is full and where no stock moves.
    """
    market = np.log1p(panel.market_return)[:, None]
    variance = technical.rolling_std(market, window)[:, 0] ** 2
    deviation = np.where(panel.tradable, technical.rolling_std(panel.log_return, window), np.nan)
    count = row_sum(np.isfinite(deviation).astype(np.float64))
    total, squares = row_sum(deviation), row_sum(deviation**2)
    spread = total**2 - squares
    safe = np.where(spread > 0.0, spread, np.nan)
    return (count**2 * variance - squares) / safe


def _own_column(
    function: Callable[[MacroSources], Any], name: str, sources: MacroSources
) -> Column:
    return own_array(call(function, name, read_only(sources)), name, sources.index_return.shape)


def _row_std(values: Float[np.ndarray, "T A"]) -> Column:
    mean = row_mean(values)[:, None]
    return np.sqrt(row_mean((values - mean) ** 2))


def _index_log(sources: MacroSources) -> Column:
    return np.log1p(sources.index_return)


def _index_return(time: str) -> MacroFeature:
    return MacroFeature(lambda sources: sum_over(_index_log(sources), sources.span(time)))


def _index_deviation(sources: MacroSources, time: str) -> Column:
    return technical.rolling_std(_index_log(sources)[:, None], sources.span(time))[:, 0]


def _index_volatility(time: str) -> MacroFeature:
    return MacroFeature(
        lambda sources: np.sqrt(sources.span(YEAR)) * _index_deviation(sources, time),
        unit="annual fraction",
    )


def _volatility_change(sources: MacroSources) -> Column:
    log_volatility = log_positive(_index_deviation(sources, MONTH))
    return _difference(log_volatility, sources.span(WEEK))


def _volatility_ratio(sources: MacroSources) -> Column:
    short, long = _index_deviation(sources, MONTH), _index_deviation(sources, HALF)
    return short / np.where(long > 0.0, long, np.nan)


def _index_drawdown(sources: MacroSources) -> Column:
    level = np.cumsum(_index_log(sources))
    return level - technical.rolling_max(level[:, None], sources.span(YEAR))[:, 0]


def _breadth(time: str) -> MacroFeature:
    def share_of_winners(sources: MacroSources) -> Column:
        gain = technical.difference(sources.panel.log_level, sources.span(time))
        gain = np.where(sources.panel.tradable, gain, np.nan)
        return row_mean(np.where(np.isnan(gain), np.nan, (gain > 0.0).astype(np.float64)))

    return MacroFeature(share_of_winners, unit="share of stocks")


def _dispersion(sources: MacroSources) -> Column:
    daily = _row_std(sources.panel.log_return)
    return technical.rolling_mean(daily[:, None], sources.span(MONTH))[:, 0]


def _sector_dispersion(sources: MacroSources) -> Column:
    sector = technical.rolling_mean(np.log1p(sources.panel.sector_return), sources.span(MONTH))
    return _row_std(sector)


def _level(*series: str, unit: str) -> MacroFeature:
    return MacroFeature(lambda sources: _first_series(sources, series), series, unit)


def _relative_change(time: str, *series: str) -> MacroFeature:
    def change(sources: MacroSources) -> Column:
        return _difference(log_positive(_first_series(sources, series)), sources.span(time))

    return MacroFeature(change, series)


def _crude_regime(sources: MacroSources) -> Column:
    price = _first_series(sources, MACRO_FEATURES["crude_regime"].series)
    step = np.searchsorted(np.array(OIL_LEVELS), price, side="right") / len(OIL_LEVELS)
    return np.where(np.isnan(price), np.nan, step)


def _flow(series: str) -> MacroFeature:
    # 60 sessions, shorter than the window of the other features, because flows grow over years
    return MacroFeature(
        lambda sources: trailing_z(sources.series[series], FLOW_WINDOW, np.inf),
        (series,),
        "net purchases of a day, trailing z-score over 60 sessions",
        is_standardised=False,
    )


def _first_series(sources: MacroSources, series: Sequence[str]) -> Column:
    return next(sources.series[name] for name in series if name in sources.series)


def _difference(values: Column, lag: int) -> Column:
    return technical.difference(values[:, None], lag)[:, 0]


MACRO_FEATURES: dict[str, MacroFeature] = {
    IMPLIED: _level("VIX", "VIXCLS", "INDIAVIX", unit="index points"),
    "implied_volatility_change_1w": _relative_change(WEEK, "VIX", "VIXCLS", "INDIAVIX"),
    "foreign_flow_60d": _flow("FOREIGN_FLOW"),
    "domestic_flow_60d": _flow("DOMESTIC_FLOW"),
    "policy_rate": _level("FEDFUNDS", "IRX", unit="percent a year"),
    "credit_spread": _level("BAMLH0A0HYM2", unit="percent"),
    "yield_curve_slope": _level("T10Y2Y", unit="percent"),
    "dollar_momentum_20d": _relative_change(MONTH, "DTWEXBGS", "DXY", "USDINR"),
    "oil_momentum_20d": _relative_change(MONTH, *OIL),
    "gold_momentum_20d": _relative_change(MONTH, "GOLD"),
    "crude_regime": MacroFeature(
        _crude_regime,
        OIL,
        "0, 1/3, 2/3, 1 below 60, 80, 100 US dollars and above",
        is_standardised=False,
    ),
    "index_return_1w": _index_return(WEEK),
    "index_return_4w": _index_return(MONTH),
    "index_return_13w": _index_return(QUARTER),
    "index_return_26w": _index_return(HALF),
    "index_return_52w": _index_return(YEAR),
    "index_volatility_4w": _index_volatility(MONTH),
    "index_volatility_13w": _index_volatility(QUARTER),
    "volatility_change_1w": MacroFeature(_volatility_change, unit="log change"),
    "volatility_ratio_4w_26w": MacroFeature(_volatility_ratio, unit="ratio"),
    "index_drawdown_52w": MacroFeature(_index_drawdown, unit="log fraction below the high"),
    "index_skewness_13w": MacroFeature(
        lambda sources: technical.rolling_skewness(
            _index_log(sources)[:, None], sources.span(QUARTER)
        )[:, 0],
        unit="m3 / m2^1.5",
    ),
    "breadth_1w": _breadth(WEEK),
    "breadth_20d": _breadth(MONTH),
    "cross_sectional_dispersion": MacroFeature(_dispersion, unit="daily fraction"),
    "sector_dispersion_20d": MacroFeature(_sector_dispersion, unit="daily fraction"),
    "mean_pairwise_correlation_60d": MacroFeature(
        lambda sources: mean_pairwise_correlation(sources.panel, 60), unit="correlation"
    ),
    "previous_regime_probability": MacroFeature(
        lambda sources: sources.filtered_regime[:, Regime.BEAR],
        unit="filtered probability of the bear state",
        is_standardised=False,
    ),
}


# The kernel below carries no shape annotations: the run-time checks of the tests would wrap it and
# the compiler could not read it.


@njit(cache=True, nogil=True)
@no_type_check
def _trailing_z(values, window, needed, clip):
    n_days = len(values)
    result = np.zeros(n_days)
    for t in range(n_days):
        if np.isnan(values[t]):
            continue
        total, count = 0.0, 0
        for i in range(max(0, t - window + 1), t + 1):
            if not np.isnan(values[i]):
                total += values[i]
                count += 1
        if count < needed:
            continue
        mean, squares = total / count, 0.0
        for i in range(max(0, t - window + 1), t + 1):
            if not np.isnan(values[i]):
                squares += (values[i] - mean) ** 2
        deviation = np.sqrt(squares / count)
        if deviation > 1e-10 * (abs(mean) + 1e-10):
            result[t] = min(max((values[t] - mean) / deviation, -clip), clip)
    return result
