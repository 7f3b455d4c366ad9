"""Labels: the return that follows a decision at row t, and strong moves inside windows.

Only this module looks ahead. A decision at the close of t is filled at the open of t + 1. So every
return starts there and ends at the open at which the next decision is filled.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.lib.stride_tricks import sliding_window_view

from hrl_sarp.config.encoder_schema import ExpansionConfig
from hrl_sarp.config.market_schema import RegimeConfig
from hrl_sarp.contracts import Market, Regime
from hrl_sarp.features.relativity import average_true_range

INVALID_CLASS = -1
NOWHERE = -1
"""Start and end in windows without an expansion."""
LEAST_VARIANCE = 1e-12
"""Mean variance of sessions at or below which a stock counts as one that did not move."""


@dataclass(frozen=True)
class Expansions:
    """The expansions that `expansion_label` finds in each window."""

    count: Int[np.ndarray, " W"]
    """Number of expansions that do not overlap: 0, 1, or 2 for two and more."""
    start: Int[np.ndarray, " W"]
    """First bar of the shortest expansion, from the start of the window; else `NOWHERE`."""
    end: Int[np.ndarray, " W"]
    """Its last bar."""
    direction: Int[np.ndarray, " W"]
    """1 up, -1 down, 0 where there is none."""
    is_retracement: Bool[np.ndarray, " W"]
    """Whether it follows a move in the opposite direction; False: a consolidation."""


def stock_label(
    market: Market, horizon: int
) -> tuple[Float[np.ndarray, "T A"], Bool[np.ndarray, " T"]]:
    """Compute each stock's simple return from fill to fill, `horizon` sessions apart.

    Row t: (1 + intraday[t+1]) x prod_{d=t+2..t+h} (1 + overnight[d]) (1 + intraday[d])
    x (1 + overnight[t+1+h]) - 1. A delisted stock earns 0 from then on.

    Returns:
        The returns, NaN in rows whose horizon is not complete, and the mask of complete rows.
    """
    start = np.arange(market.n_days)
    return stock_label_between(market, start, start + horizon)


def stock_label_between(
    market: Market, start: Int[np.ndarray, " W"], stop: Int[np.ndarray, " W"]
) -> tuple[Float[np.ndarray, "W A"], Bool[np.ndarray, " W"]]:
    """Compute `stock_label` between the fills of two decisions, one row per pair of rows."""
    wealth = np.ones((market.n_days, market.n_assets))  # at the close before each row
    wealth[1:] = np.cumprod(market.session_growth()[:-1], axis=0)
    fill_wealth = wealth * (1.0 + market.overnight_return)
    valid = (start >= 0) & (stop > start) & (stop + 1 < market.n_days)
    values = np.full((len(start), market.n_assets), np.nan)
    values[valid] = fill_wealth[stop[valid] + 1] / fill_wealth[start[valid] + 1] - 1
    return values, valid


def sector_label(
    market: Market, horizon: int
) -> tuple[Float[np.ndarray, "T S"], Bool[np.ndarray, " T"]]:
    """Average `stock_label` over the stocks eligible at row t, sector by sector.

    Returns:
        NaN for sectors without an eligible stock and in rows whose horizon is not complete, and the
        mask of complete rows.
    """
    values, valid = stock_label(market, horizon)
    return market.sector_mean(values, market.eligible), valid


def sector_label_between(
    market: Market, start: Int[np.ndarray, " W"], stop: Int[np.ndarray, " W"]
) -> tuple[Float[np.ndarray, "W S"], Bool[np.ndarray, " W"]]:
    """Average `stock_label_between` over the stocks eligible at `start`, sector by sector."""
    values, valid = stock_label_between(market, start, stop)
    return market.sector_mean(values, market.eligible[start]), valid


def regime_band(market: Market, config: RegimeConfig) -> Float[np.ndarray, " T"]:
    """Compute the log return of the benchmark beyond which the horizon counts as bull or bear.

    It is `label_band` x trailing volatility x sqrt(horizon). The volatility reads rows <= t. Rows
    with an incomplete look-back are NaN.
    """
    log_return = np.log1p(market.benchmark_return)
    volatility = np.full(market.n_days, np.nan)
    if market.n_days >= config.volatility_days:
        windows = sliding_window_view(log_return, config.volatility_days)
        volatility[config.volatility_days - 1 :] = windows.std(axis=1)
    return config.label_band * volatility * np.sqrt(config.label_horizon_days)


def regime_label(market: Market, config: RegimeConfig) -> Int[np.ndarray, " T"]:
    """Classify the benchmark's log return over the horizon after the next session.

    The benchmark has no open, so row t sums days t+2 .. t+1+horizon. A return above `regime_band`
    is bull, one below its negative bear, and any other sideways. Rows with an incomplete horizon or
    look-back are -1.
    """
    log_return, band = np.log1p(market.benchmark_return), regime_band(market, config)
    horizon = config.label_horizon_days
    label = np.full(market.n_days, INVALID_CLASS, dtype=np.int64)
    for t in range(config.volatility_days - 1, market.n_days - 1 - horizon):
        next_return = log_return[t + 2 : t + 2 + horizon].sum()
        if next_return > band[t]:
            label[t] = Regime.BULL
        elif next_return < -band[t]:
            label[t] = Regime.BEAR
        else:
            label[t] = Regime.SIDEWAYS
    return label


def buy_label(
    close: Float[np.ndarray, " N"],
    mean_true_range: Float[np.ndarray, " N"],
    stretch: Int[np.ndarray, " N"],
    horizon: int,
    threshold_atr: float,
) -> Int[np.ndarray, " N"]:
    """Label whether the close `horizon` bars later is more than `threshold_atr` ATR higher.

    Row t: 1 if close[t + horizon] - close[t] > threshold_atr x mean_true_range[t], else 0. -1 if
    the horizon ends in another stretch or the true range is unknown. A stretch is a run of bars
    without an interruption, all with the same number.
    """
    label = np.full(len(close), INVALID_CLASS, dtype=np.int64)
    now, later = slice(0, max(0, len(close) - horizon)), slice(horizon, None)
    rise = close[later] - close[now]
    usable = (stretch[later] == stretch[now]) & np.isfinite(rise + mean_true_range[now])
    label[now] = np.where(usable, rise > threshold_atr * mean_true_range[now], INVALID_CLASS)
    return label


def expansion_label(ohlc: Float[np.ndarray, "W L 4"], config: ExpansionConfig) -> Expansions:
    """Find the expansion of each window: the shortest run of bars that moves far in one direction.

    The base of a run s..e is the close of bar s - 1. A run of at most `max_bars` bars is an
    expansion if
    it moves from its base to the close of e by at least `min_move_atr` ATR of bar s - 1, and
    no close falls behind an earlier one, base included, by more than `max_retrace` of that move.
    Of expansions that overlap the shortest counts, of equally short ones the first. Only closes are
    read, because a bar does not tell whether its high or its low came first.

    An expansion is a retracement if its base lies at least `context_atr` ATR behind the best close
    of the `context_bars` bars before s. Otherwise it is a consolidation.

    Only bars of the window are read. So s is at least `context_bars` and leaves room for the ATR of
    `atr_bars`. The label is known only after the expansion has ended, so it forecasts nothing.
    """
    close = ohlc[..., 3]
    atr = _true_range_before(ohlc, config)
    rising, falling = (_shortest_runs(sign * close, atr, config) for sign in (1.0, -1.0))
    start = np.maximum(rising, falling)
    rows, bars = np.arange(len(close)), np.arange(close.shape[1])
    end = np.where(start > NOWHERE, bars - start, len(bars)).argmin(axis=1)
    first = start[rows, end]
    found = first > NOWHERE
    apart = (start > NOWHERE) & ((bars < first[:, None]) | (start > end[:, None]))
    direction = np.where(found, np.where(rising[rows, end] == first, 1, -1), 0)
    before = np.maximum(first[:, None] - 1 - np.arange(config.context_bars), 0)
    past = np.take_along_axis(close, before, axis=1) * direction[:, None]
    behind = past.max(axis=1) - past[:, 0]
    return Expansions(
        count=np.where(found, 1 + apart.any(axis=1), 0),
        start=first,
        end=np.where(found, end, NOWHERE),
        direction=direction,
        is_retracement=found & (behind >= config.context_atr * atr[rows, first - 1]),
    )


def volatility_label(market: Market, horizon: int) -> Int[np.ndarray, " T"]:
    """Classify the benchmark's volatility over the horizon after the next session, in terciles.

    The terciles are those of the training span. Their classes stand where the regimes that they
    resemble do: stressed is `Regime.BEAR`, calm `Regime.BULL`, normal `Regime.SIDEWAYS`. Row t
    reads days t+2 .. t+1+horizon. Rows with an incomplete horizon are -1.
    """
    squares = np.log1p(market.benchmark_return) ** 2
    total = np.concatenate([[0.0], np.cumsum(squares)])
    last = market.n_days - 1 - horizon
    after = np.arange(max(last, 0)) + 2
    variance = total[after + horizon] - total[after]
    train = variance[market.split.train.start : market.split.train.stop - 1 - horizon]
    label = np.full(market.n_days, INVALID_CLASS, dtype=np.int64)
    if len(train):
        low, high = np.quantile(train, [1 / 3, 2 / 3])
        classes = np.where(variance > high, Regime.BEAR, Regime.SIDEWAYS)
        label[: len(variance)] = np.where(variance <= low, Regime.BULL, classes)
    return label


def mean_variance(market: Market, n_days: int) -> Float[np.ndarray, "T A"]:
    """Average the variance of the last `n_days` sessions up to each day, which reads rows <= t.

    The variance of a session is its squared night and its range; without ranges, its squared
    return. NaN where one of the sessions lacks a bar, and where the price did not move.
    """
    if market.range_variance is None:
        session = np.log1p(market.session_return()) ** 2
    else:
        session = np.log1p(market.overnight_return) ** 2 + market.range_variance
    session = np.where(market.tradable, session, np.nan)
    found = np.full(session.shape, np.nan)
    windows = sliding_window_view(session, n_days, axis=0)
    found[n_days - 1 :] = windows.mean(axis=-1)
    return np.where(found > LEAST_VARIANCE, found, np.nan)


def next_variance(market: Market, horizon: int) -> Float[np.ndarray, "T A"]:
    """Average the variance of the `horizon` sessions after each day.

    NaN as in `mean_variance`, and in rows whose horizon is not complete.
    """
    found = np.full(market.tradable.shape, np.nan)
    found[:-horizon] = mean_variance(market, horizon)[horizon:]
    return found


def standardise_cross_section(
    label: Float[np.ndarray, "T X"],
    mask: Bool[np.ndarray, "T X"],
    groups: Int[np.ndarray, " X"] | None = None,
) -> Float[np.ndarray, "T X"]:
    """Subtract the mean and divide by the deviation of each row's masked, finite entries.

    With `groups`, the number of each column's group, every group of a row has a mean and a
    deviation of its own. Entries outside the mask and rows or groups without spread are 0. So a
    group of one entry is 0.
    """
    if groups is not None:
        found = np.zeros(label.shape)
        for group in np.unique(groups):
            members = groups == group
            found[:, members] = standardise_cross_section(label[:, members], mask[:, members])
        return found
    usable = mask & np.isfinite(label)
    filled = np.where(usable, label, 0.0)
    count = np.maximum(usable.sum(axis=1, keepdims=True), 1)
    centred = np.where(usable, filled - filled.sum(axis=1, keepdims=True) / count, 0.0)
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    return np.where(deviation > 0.0, centred / np.where(deviation > 0.0, deviation, 1.0), 0.0)


def centre_features(
    features: Float[np.ndarray, "T X F"],
    mask: Bool[np.ndarray, "T X"],
    groups: Int[np.ndarray, " X"],
) -> Float[np.ndarray, "T X F"]:
    """Subtract from each feature its mean over the row's masked entries of the same group.

    Entries outside the mask are 0.
    """
    found = np.zeros_like(features)
    for group in np.unique(groups):
        members = groups == group
        counted = mask[:, members, None]
        values = np.where(counted, features[:, members], 0.0)
        mean = values.sum(axis=1, keepdims=True) / np.maximum(counted.sum(axis=1, keepdims=True), 1)
        found[:, members] = np.where(counted, values - mean, 0.0)
    return found


def oracle_weights(
    label: Float[np.ndarray, "T X"], temperature: float, mask: Bool[np.ndarray, "T X"]
) -> Float[np.ndarray, "T X"]:
    """Compute softmax(temperature x standardised label) over each row's masked entries.

    Labels are standardised, because the softmax of raw returns is uniform to three digits. Rows sum
    to 1; a row without a usable entry is 0.
    """
    usable = mask & np.isfinite(label)
    score = temperature * standardise_cross_section(label, mask)
    peak = np.max(np.where(usable, score, -np.inf), axis=1, keepdims=True)
    weight = np.where(usable, np.exp(score - np.where(np.isfinite(peak), peak, 0.0)), 0.0)
    total = weight.sum(axis=1, keepdims=True)
    return np.divide(weight, total, out=np.zeros_like(weight), where=total > 0.0)


def _true_range_before(
    ohlc: Float[np.ndarray, "W L 4"], config: ExpansionConfig
) -> Float[np.ndarray, "W L"]:
    """Return the ATR of each bar; NaN before a bar can be a base."""
    n_windows, length, _ = ohlc.shape
    window = np.repeat(np.arange(n_windows, dtype=np.int32), length)
    high, low, close = (np.ascontiguousarray(ohlc[..., k]).ravel() for k in (1, 2, 3))
    atr = average_true_range(high, low, close, window, config.atr_bars).reshape(n_windows, length)
    atr[:, : max(config.atr_bars, config.context_bars - 1)] = np.nan
    return atr


def _shortest_runs(
    close: Float[np.ndarray, "W L"], atr: Float[np.ndarray, "W L"], config: ExpansionConfig
) -> Int[np.ndarray, "W L"]:
    """Find the first bar of the shortest rising run that ends at each bar.

    Each round moves the base of all runs one bar back. That adds one retrace: the height of the new
    base above the lowest close after it.
    """
    start = np.full(close.shape, NOWHERE)
    retrace, lowest = np.zeros_like(close), close.copy()
    for n_bars in range(1, min(config.max_bars, close.shape[1] - 1) + 1):
        ends, base = np.s_[:, n_bars:], close[:, :-n_bars]
        retrace[ends] = np.maximum(retrace[ends], base - lowest[ends])
        lowest[ends] = np.minimum(lowest[ends], base)
        move, yardstick = close[ends] - base, atr[:, :-n_bars]
        far = (yardstick > 0.0) & (move >= config.min_move_atr * yardstick)
        new = far & (retrace[ends] <= config.max_retrace * move) & (start[ends] == NOWHERE)
        start[ends] = np.where(new, np.arange(1, close.shape[1] - n_bars + 1), start[ends])
    return start
