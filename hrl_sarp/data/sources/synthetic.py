"""A generated market of two levels: a hidden weekly regime moves sectors, a signal moves stocks.

All randomness comes from one seed. The data hold the signal as one feature among features of pure
noise. They do not hold the regimes.

Source:
    spec/evaluation.md 4, "Two-level market".
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float, Int, Shaped

from hrl_sarp.config.market_schema import SyntheticConfig
from hrl_sarp.contracts import Regime
from hrl_sarp.data.store import (
    BARS_SCHEMA,
    FEATURES_SCHEMA,
    INDEX_SCHEMA,
    MACRO_SCHEMA,
    SECTORS_SCHEMA,
    RawData,
)
from hrl_sarp.errors import DataError

SIGNAL_NAME = "planted_signal"
_BPS = 1e-4
_PERCENT = 1e-2
_START_PRICE = 100.0
_SHARES_TRADED = 1e6
_MIN_SECTORS = 3
"""One favoured, one unfavoured and one neutral sector."""


@dataclass(frozen=True)
class SyntheticTruth:
    """What generated the market; for oracles and tests, hidden from agents."""

    dates: Shaped[np.ndarray, " T"]
    """Sessions, datetime64[D]."""
    symbols: tuple[str, ...]
    """Length A, sector by sector."""
    week_of: Int[np.ndarray, " T"]
    """Week index of each session."""
    regime: Int[np.ndarray, " W"]
    """`Regime` of each week."""
    signal: Float[np.ndarray, "T A"]
    """x(t): known at the close of t, part of the return of t + 1."""
    log_return: Float[np.ndarray, "T A"]
    """Close to close; row 0 is the move from the start price."""
    market_log_return: Float[np.ndarray, " T"]
    """m: daily log return of the index."""
    sector_tilt: Float[np.ndarray, "R S"]
    """u: -1, 0 or +1 per regime and sector; the planted drift is delta x u a day."""


def generate(
    config: SyntheticConfig, sessions: Shaped[np.ndarray, " T"]
) -> tuple[RawData, SyntheticTruth]:
    """Generate a market and the truth behind it, the same bits for equal arguments.

    Daily log return r(t) = m + s(sector) + beta x(t-1) - sigma_I^2 / 2 + sigma_I eps. The sessions
    are datetime64[D], strictly increasing, `config.n_days` of them.
    """
    if config.n_sectors < _MIN_SECTORS:
        raise DataError(
            f"data.synthetic.n_sectors: expected at least {_MIN_SECTORS}, found {config.n_sectors}"
        )
    if len(sessions) != config.n_days:
        raise DataError(
            f"the exchange calendar has {len(sessions)} sessions from {config.start} on, expected "
            f"data.synthetic.n_days = {config.n_days}; lower n_days or use the calendar 24/5"
        )
    rng = np.random.default_rng(config.seed)
    truth = draw_truth(config, sessions, rng)
    return _to_raw_data(config, truth, rng), truth


def sector_tilts(n_sectors: int) -> Float[np.ndarray, "R S"]:
    """Return which sectors each regime favours: +1 favoured, -1 unfavoured, 0 neutral.

    With 11 sectors, a bear regime has +1 for sectors 0-2 and -1 for 8-10. A bull regime has the
    reverse. A sideways regime has +1 for 4-6 and -1 for 0, 1 and 9. Other numbers of sectors keep
    the proportions.
    """
    count = max(1, round(3 * n_sectors / 11))
    upper = count // 3
    tilt = np.zeros((len(Regime), n_sectors))
    tilt[Regime.BEAR, :count] = 1.0
    tilt[Regime.BEAR, n_sectors - count :] = -1.0
    tilt[Regime.BULL] = -tilt[Regime.BEAR]
    tilt[Regime.SIDEWAYS, : count - upper] = -1.0
    tilt[Regime.SIDEWAYS, n_sectors - 1 - upper : n_sectors - 1] = -1.0
    middle = (n_sectors - count) // 2
    tilt[Regime.SIDEWAYS, middle : middle + count] = 1.0
    return tilt


def draw_truth(
    config: SyntheticConfig, sessions: Shaped[np.ndarray, " T"], rng: np.random.Generator
) -> SyntheticTruth:
    """Draw regimes, signal and returns."""
    # 1970-01-01 was a Thursday: shifted by 3 days, ISO weeks (Monday first) start at multiples of 7
    days = sessions.astype("datetime64[D]").astype(np.int64)
    week_of = np.unique((days + 3) // 7, return_inverse=True)[1].astype(np.int64)
    # a regime that ends changes to either of the other two with equal probability
    stays = rng.random(week_of[-1] + 1) < config.stay_probability
    steps = np.where(stays, 0, rng.integers(1, len(Regime), len(stays)))
    steps[0] = rng.integers(0, len(Regime))  # the stationary distribution is uniform
    regime = np.cumsum(steps) % len(Regime)
    n_assets = config.n_sectors * config.stocks_per_sector
    # one more signal, for the day before the first session: it moves day 0
    signal = _draw_signal(config.n_days + 1, n_assets, config.signal_autocorrelation, rng)
    tilt = sector_tilts(config.n_sectors)
    idiosyncratic_sd = config.idiosyncratic_sd_pct * _PERCENT
    beta = config.alpha_strength * idiosyncratic_sd
    market, sector = _draw_factors(config, regime[week_of], tilt, rng)
    log_return = (
        np.repeat(market[:, None] + sector, config.stocks_per_sector, axis=1)
        + beta * signal[:-1]
        - idiosyncratic_sd**2 / 2
        + idiosyncratic_sd * rng.standard_normal((config.n_days, n_assets))
    )
    return SyntheticTruth(
        dates=sessions,
        symbols=tuple(
            f"S{sector:02d}_{stock:02d}"
            for sector in range(config.n_sectors)
            for stock in range(config.stocks_per_sector)
        ),
        week_of=week_of,
        regime=regime,
        signal=signal[1:],
        log_return=log_return,
        market_log_return=market,
        sector_tilt=tilt,
    )


def _draw_signal(
    n_days: int, n_assets: int, autocorrelation: float, rng: np.random.Generator
) -> Float[np.ndarray, "T A"]:
    signal = rng.standard_normal((n_days, n_assets))
    innovation = np.sqrt(1 - autocorrelation**2)  # keeps the variance at 1
    for day in range(1, n_days):
        signal[day] = autocorrelation * signal[day - 1] + innovation * signal[day]
    return signal


def _draw_factors(
    config: SyntheticConfig,
    regime_of_day: Int[np.ndarray, " T"],
    tilt: Float[np.ndarray, "R S"],
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, " T"], Float[np.ndarray, "T S"]]:
    """Draw the daily log returns of the market factor and of the sector factors."""
    n_days = len(regime_of_day)
    mean = np.array(config.market_mean_bps)[regime_of_day] * _BPS
    deviation = np.array(config.market_sd_pct)[regime_of_day] * _PERCENT
    market = mean + deviation * rng.standard_normal(n_days)
    drift = config.sector_drift_bps * _BPS * tilt[regime_of_day]
    noise = config.sector_sd_pct * _PERCENT * rng.standard_normal((n_days, config.n_sectors))
    return market, drift + noise


def _to_raw_data(
    config: SyntheticConfig, truth: SyntheticTruth, rng: np.random.Generator
) -> RawData:
    sectors = np.repeat(
        [f"Sector{sector:02d}" for sector in range(config.n_sectors)], config.stocks_per_sector
    )
    level = _START_PRICE * np.exp(np.cumsum(truth.market_log_return))
    n_dates, n_symbols = len(truth.dates), len(truth.symbols)
    keys = pl.DataFrame(
        {"date": np.tile(truth.dates, n_symbols), "symbol": np.repeat(truth.symbols, n_dates)},
        schema_overrides={"date": pl.Date},
    )
    values = {SIGNAL_NAME: truth.signal.T.ravel()}
    for number in range(1, config.n_noise_features + 1):
        values[f"noise_{number:02d}"] = rng.standard_normal(keys.height)
    features = [
        keys.with_columns(name=pl.lit(name), value=pl.Series(column))
        for name, column in values.items()
    ]
    return RawData(
        bars=keys.with_columns(**_bar_columns(config, truth)).select(BARS_SCHEMA.names()),
        sectors=pl.DataFrame({"symbol": truth.symbols, "sector": sectors}, schema=SECTORS_SCHEMA),
        macro=MACRO_SCHEMA.to_frame(),
        index=pl.DataFrame({"date": truth.dates, "close": level}, schema=INDEX_SCHEMA),
        source="synthetic",
        adjustment="none needed: generated without splits and dividends",
        survivorship="complete: no stock is listed late or delisted",
        features=pl.concat(features).select(FEATURES_SCHEMA.names()),
        notes=(
            "the index compounds the market factor alone",
            f"generated from data.synthetic with seed {config.seed}",
        ),
    )


def _bar_columns(config: SyntheticConfig, truth: SyntheticTruth) -> dict[str, pl.Series]:
    """Return the columns of the bars, symbol by symbol."""
    close = _START_PRICE * np.exp(np.cumsum(truth.log_return, axis=0))
    # the open follows from the close, so the overnight and intraday shares are exact
    opening = close * np.exp(-(1 - config.overnight_share) * truth.log_return)
    columns = {
        "open": opening,
        "high": np.maximum(opening, close),
        "low": np.minimum(opening, close),
        "close": close,
        "volume": np.full_like(close, _SHARES_TRADED),
        "adj_close": close,
        "dividend": np.zeros_like(close),
        "split": np.ones_like(close),
    }
    return {name: pl.Series(values.T.ravel()) for name, values in columns.items()}
